"""`udp.py serve PORT` answers datagrams.

`udp.py ask ADDRESS PORT TEXT` sends one, again while nothing comes back, and prints the answer.
"""

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
    found = socket.getaddrinfo(address, int(port), type=socket.SOCK_DGRAM)
    family, kind, protocol, _, server = found[0]
    client = socket.socket(family, kind, protocol)
    client.settimeout(0.25)
    client.connect(server)
    for _ in range(8):
        client.send(text.encode())
        try:
            print(client.recv(2048).decode())
            return
        except TimeoutError:
            pass
    sys.exit("no answer")


{"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
