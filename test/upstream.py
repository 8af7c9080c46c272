# SPDX-License-Identifier: Apache-2.0
"""Somebody else's server of a model, on a port of its own, that says what a test tells it to."""

import http.server
import json
import threading


def completion(text, model="m", prompt=1, tokens=1, **more):
    """A whole answer in OpenAI's chat dialect; text: its content, or the message's members."""
    message = {"content": text} if isinstance(text, str) else text
    return {"id": "x", "object": "chat.completion", "created": 1, "model": model,
            "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop", **more}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}}


def chunk(delta, finish=None):
    """One event of a streamed answer in that dialect."""
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


class Call(http.server.BaseHTTPRequestHandler):
    """One request; asked: its body."""

    protocol_version, asked = "HTTP/1.1", None

    def send(self, body, kind="application/json", status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def say(self, value, status=200):
        self.send(json.dumps(value).encode(), status=status)

    def stream(self, events):
        self.send("".join(f"data: {json.dumps(e)}\n\n" for e in events).encode() + b"data: [DONE]\n\n", "text/event-stream")

    def begin_stream(self, data):
        """Events, and no end."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(data)

    def caller_left(self):
        """Waits for it; False: it sent something instead."""
        self.connection.settimeout(20)
        try:
            return not self.connection.recv(1)
        except ConnectionResetError:
            return True

    def do_GET(self):
        self.server.upstream.get(self)

    def do_POST(self):
        self.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.upstream.post(self)

    def setup(self):
        self.server.upstream.connections += 1
        super().setup()

    def log_message(self, *words):
        pass


class Upstream:
    """Answers each POST by `post`, which a test gives or a subclass has."""

    def __init__(self, post=None, tls=None):
        self.connections = 0
        if post:
            self.post = post
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Call)
        self.server.daemon_threads, self.server.upstream = True, self
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def get(self, call):
        call.say({"object": "list", "data": []})

    def close(self):
        self.server.shutdown()
        self.server.server_close()
