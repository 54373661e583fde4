"""Tells every client, over HTTP on port 80, the address that it seems to come from."""

import socket
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer


class Mirror(BaseHTTPRequestHandler):
    def do_GET(self):
        address = self.client_address[0].removeprefix("::ffff:")
        body = f"you come from {address}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class DualStack(ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


DualStack(("::", 80), Mirror).serve_forever()
