"""A plain HTTP proxy in front of the API server, for tests: it counts requests and answers some itself.

usage: proxy.py URL CA DIR

Prints its port. Each request is a line `METHOD PATH CODE` in DIR/requests. DIR/faults, if it is there, has one
status code a line: each is the answer to one of the next requests, in place of the server's.
"""

import http.client
import http.server
import os
import ssl
import sys
import threading
import urllib.parse

upstream = urllib.parse.urlsplit(sys.argv[1])
tls = ssl.create_default_context(cafile=sys.argv[2])
directory = sys.argv[3]
lock = threading.Lock()
HOP = {"connection", "host", "keep-alive", "transfer-encoding", "content-length"}


def next_fault():
    path = os.path.join(directory, "faults")
    with lock:
        try:
            with open(path) as file:
                codes = file.read().split()
        except FileNotFoundError:
            return None
        if not codes:
            return None
        with open(path, "w") as file:
            file.write("\n".join(codes[1:]))
        return int(codes[0])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, headers, body):
        with lock, open(os.path.join(directory, "requests"), "a") as file:
            file.write(f"{self.command} {self.path} {code}\n")
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def serve(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        fault = next_fault()
        if fault:
            headers = [("Retry-After", "1")] if fault == 429 else []
            status = b'{"kind":"Status","apiVersion":"v1","status":"Failure","message":"injected"}'
            return self.answer(fault, headers + [("Content-Type", "application/json")], status)
        server = http.client.HTTPSConnection(upstream.hostname, upstream.port, context=tls)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        server.request(self.command, self.path, body, headers)
        response = server.getresponse()
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in HOP]
        self.answer(response.status, kept, response.read())
        server.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
