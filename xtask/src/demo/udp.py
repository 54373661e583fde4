"""`udp.py serve PORT` answers datagrams; `udp.py ask ADDRESS PORT TEXT` sends one, prints the answer."""

import socket
import sys


def serve(port):
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", int(port)))
    while True:
        text, client = server.recvfrom(2048)
        address = client[0].removeprefix("::ffff:").encode()
        server.sendto(b"'" + text + b"' from " + address, client)


def ask(address, port, text):
    family, kind, protocol, _, server = socket.getaddrinfo(address, int(port), type=socket.SOCK_DGRAM)[0]
    client = socket.socket(family, kind, protocol)
    client.settimeout(1)
    client.connect(server)
    client.send(text.encode())
    try:
        print(client.recv(2048).decode())
    except OSError as error:
        sys.exit(f"no answer: {error}")


{"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
