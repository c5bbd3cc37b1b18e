"""Receives webhooks with Python 3.9 or newer and nothing else, and verifies them as Standard Webhooks says. WEBHOOK_SECRET
is that of Dibs; several, with a space between them, while one replaces the other. Prints the port, then each message."""

import base64
import hashlib
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300
KEYS = [base64.b64decode(secret.removeprefix("whsec_")) for secret in os.environ["WEBHOOK_SECRET"].split()]


def is_signed(headers, body, now=None):
    """Whether one of the signatures is that of this message. `body` are the bytes as they came, before JSON is parsed."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    # An old message with a right signature is a replay.
    if not timestamp.isdecimal() or abs((now or time.time()) - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    signed = f"{message_id}.{timestamp}.".encode() + body
    given = [text for text in headers.get("webhook-signature", "").split(" ") if text.startswith("v1,")]
    expected = ["v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in KEYS]
    return any(hmac.compare_digest(one.encode(), other.encode()) for one in given for other in expected)


# A message can come more than once. In production: the primary key of a table, in the transaction of its effect.
processed = set()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        status = 204 if is_signed(self.headers, body) else 400
        message_id = self.headers["webhook-id"]
        if status == 204 and message_id not in processed:
            processed.add(message_id)
            print(message_id, json.loads(body)["type"], flush=True)
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 0))), Receiver)
    print(server.server_port, flush=True)
    server.serve_forever()
