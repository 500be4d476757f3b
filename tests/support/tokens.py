"""An OpenID provider's token endpoint: gives unsigned tokens for a client's id and secret."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def _part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@contextlib.contextmanager
def token_endpoint(client_id: str, secret: str) -> Iterator[str]:
    """The endpoint's URL, until the block ends. Another secret is answered with 401."""
    right = "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            now = int(time.time())
            token = f"{_part({'alg': 'none'})}.{_part({'sub': client_id, 'iat': now, 'exp': now + 3600})}."
            given = self.headers.get("Authorization") == right
            answer = {"access_token": token, "token_type": "Bearer", "expires_in": 3600}
            body = json.dumps(answer if given else {"error": "invalid_client"}).encode()
            self.send_response(200 if given else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/oauth2/token"
    finally:
        server.shutdown()
        server.server_close()
