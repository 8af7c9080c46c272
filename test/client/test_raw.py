# SPDX-License-Identifier: Apache-2.0
"""Bytes that no client library sends: heads, lengths and bodies that lie. Each gets a clear error and changes nothing."""

import contextlib
import json
import pathlib
import socket
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import SLOWER, Server, wait_for  # noqa: E402

ROUTES = {
    "/v1/chat/completions": b'{"model": "ghost", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}',
    "/v1/completions": b'{"model": "ghost", "prompt": "hi", "max_tokens": 3}',
    "/v1/embeddings": b'{"model": "ghost", "input": "hi"}',
}
MIB = 1 << 20


@pytest.fixture(scope="module")
def server():
    """Without any model: what is refused here never comes as far as one."""
    with tempfile.TemporaryDirectory(prefix="lathe-raw-") as top:
        s = Server(pathlib.Path(top) / "data")
        s.data.mkdir()
        s.start("--serve.body_timeout", "500ms", "--gateway.body_max", "4MiB")
        try:
            s.use_app()
            yield s
        finally:
            assert s.stop() == 0, s.said()


class Reply:
    def __init__(self, raw):
        head, mark, self.rest = raw.partition(b"\r\n\r\n")
        assert mark, raw[:200]
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        n = int(self.headers.get("content-length", 0))
        self.body, self.rest = self.rest[:n], self.rest[n:]
        self.json = json.loads(self.body) if self.body else None


def send(server, data, finish=False):
    """Everything that comes back until the server closes, or for half a second after it has no more to say."""
    host, port = server.url.removeprefix("http://").rsplit(":", 1)
    out = b""
    with contextlib.closing(socket.create_connection((host, int(port)))) as s:
        s.settimeout(5 * SLOWER)
        with contextlib.suppress(ConnectionError):  # a server may refuse before it has all
            s.sendall(data)
        if finish:
            s.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while piece := s.recv(65536):
                out += piece
    return out


def request(server, path, headers, body, close=True, key=None):
    head = f"POST {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {key or server.app_key}\r\nContent-Type: application/json\r\n"
    return (head + ("Connection: close\r\n" if close else "") + headers + "\r\n").encode() + body


def shape(reply, status, code, param=None, kind="invalid_request_error"):
    """OpenAI's error body, with the request's id."""
    assert reply.status == status, (reply.status, reply.body)
    e = reply.json["error"]
    assert set(e) >= {"message", "type", "param", "code", "request_id"}, e
    assert (e["code"], e["param"]) == (code, param) and e["message"] and e["type"] == kind, e
    assert e["request_id"] == reply.headers["x-request-id"]
    return e


@pytest.fixture(autouse=True)
def nothing_changes(server):
    yield
    server.folded()
    assert server.rows("SELECT * FROM usage") == [] and server.rows("SELECT * FROM usage_open") == []
    assert server.call("GET", "/v1/models", key=server.app_key).status == 200


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_longer_than_it_says(server, path):
    body = ROUTES[path]
    raw = send(server, request(server, path, f"Content-Length: {len(body) - 5}\r\n", body, close=False))
    first = Reply(raw)
    shape(first, 400, "json_syntax")
    assert Reply(first.rest).status == 400  # the rest is no request


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_shorter_than_it_says(server, path):
    body = ROUTES[path]
    shape(Reply(send(server, request(server, path, f"Content-Length: {len(body) + 5}\r\n", body))), 408, "slow_client")
    assert send(server, request(server, path, f"Content-Length: {len(body) + 5}\r\n", body), finish=True) in (b"",)  # it left
    rows = None

    def told():
        nonlocal rows
        server.folded()
        rows = server.rows("SELECT status, outcome, attempts FROM traces ORDER BY created_at DESC LIMIT 1")
        return True if rows and rows[0]["status"] == 499 else None
    wait_for("its trace", 5, told)
    assert rows[0] == {"status": 499, "outcome": "cancelled", "attempts": 0}


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_cut_in_the_middle(server, path):
    body = ROUTES[path]
    for cut in (0, 1, len(body) // 2, len(body) - 1):
        assert send(server, request(server, path, f"Content-Length: {len(body)}\r\n", body[:cut]), finish=True) == b""
    chunked = b"%x\r\n%s" % (len(body), body)
    for cut in (1, len(chunked) // 2, len(chunked)):
        assert send(server, request(server, path, "Transfer-Encoding: chunked\r\n", chunked[:cut]), finish=True) == b""


LIES_IN_THE_HEAD = [
    ("Content-Length: 5\r\nContent-Length: 6\r\n", 400), ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
    ("Content-Length: -1\r\n", 400), ("Content-Length: 5, 5\r\n", 400), ("Content-Length: 0x5\r\n", 400), ("Content-Length: +5\r\n", 400),
    ("Content-Length: 99999999999999999999999999\r\n", 400), ("Transfer-Encoding: gzip\r\n", 400), ("Transfer-Encoding: chunked, gzip\r\n", 400),
    ("Content-Length : 5\r\n", 400), ("Content-Length: 5\r\nExpect: magic\r\n", 400), ("X-A: a\0b\r\n", 400), ("X-A: a\r\n b\r\n", 400),
    ("X-Big: " + "a" * 100000 + "\r\n", 431), ("X-Big: " + "a" * 5000000 + "\r\n", 431), ("".join(f"X-{i}: a\r\n" for i in range(2000)), 431),
]


@pytest.mark.parametrize("headers,status", LIES_IN_THE_HEAD)
def test_a_head_that_lies(server, headers, status):
    for path, body in ROUTES.items():
        reply = Reply(send(server, request(server, path, headers, body)))
        assert reply.status == status, (headers[:60], reply.status, reply.body)
        assert reply.json["error"]["message"] and reply.json["error"]["request_id"] == reply.headers["x-request-id"]
        assert reply.rest == b"" and reply.headers["connection"] == "close"


LIES_IN_CHUNKS = [
    (b"zz\r\n%s\r\n0\r\n\r\n", 400, "malformed_http"), (b"-5\r\n%s\r\n0\r\n\r\n", 400, "malformed_http"),
    (b"fffffffffffffffff\r\n%s\r\n0\r\n\r\n", 400, "malformed_http"), (b"3\r\n%s\r\n0\r\n\r\n", 400, "malformed_http"),
    (b"7fffffffffff\r\n%s", 408, "slow_client"), (b"ffff\r\n%s\r\n0\r\n\r\n", 408, "slow_client"), (b"", 408, "slow_client"),
]


@pytest.mark.parametrize("form,status,code", LIES_IN_CHUNKS)
def test_chunks_that_lie(server, form, status, code):
    for path, body in ROUTES.items():
        data = form % body if form else b""
        shape(Reply(send(server, request(server, path, "Transfer-Encoding: chunked\r\n", data))), status, code)


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_that_is_too_large_is_refused_before_it_is_sent(server, path):
    for headers in (f"Content-Length: {5 * MIB}\r\n", f"Content-Length: {5 * MIB}\r\nExpect: 100-continue\r\n", "Content-Length: 99999999999\r\n"):
        reply = Reply(send(server, request(server, path, headers, b"")))
        shape(reply, 413, "body_too_large")
        assert reply.rest == b""
    chunks = b"%x\r\n%s\r\n" % (MIB, b" " * MIB) * 6
    shape(Reply(send(server, request(server, path, "Transfer-Encoding: chunked\r\n", chunks))), 413, "body_too_large")


@pytest.mark.parametrize("path", ROUTES)
def test_who_waits_for_100_is_told(server, path):
    body = ROUTES[path]
    host, port = server.url.removeprefix("http://").rsplit(":", 1)
    with contextlib.closing(socket.create_connection((host, int(port)), timeout=5 * SLOWER)) as s:
        s.sendall(request(server, path, f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n", b""))
        got = b""
        while b"\r\n\r\n" not in got:
            got += s.recv(65536)
        assert got == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(body)
        got = b""
        while piece := s.recv(65536):
            got += piece
    shape(Reply(got), 404, "model_not_found", "model", "not_found_error")


BAD_JSON = [
    (b"", "json_syntax"), (b"{", "json_syntax"), (b'{"model": "ghost"', "json_syntax"), (b'{"model": "ghost"} x', "json_syntax"),
    (b"[" * 5000 + b"]" * 5000, "json_depth"), (b'{"a":' * 3000 + b"1" + b"}" * 3000, "json_depth"), (b"\xff\xfe", "json_utf8"),
    (b'{"model": "\xff"}', "json_utf8"), (b'{"model": "\xed\xa0\x80"}', "json_utf8"), (b'{"model": "\\ud800"}', "json_syntax"),
    (b'{"model": "a", "model": "b"}', "json_twice"), (b'{"model": NaN}', "json_syntax"), (b"{'model': 1}", "json_syntax"),
]


@pytest.mark.parametrize("body,code", BAD_JSON)
def test_bad_json(server, body, code):
    for path in ROUTES:
        shape(Reply(send(server, request(server, path, f"Content-Length: {len(body)}\r\n", body))), 400, code)


def bad_members():
    chat, text, embed = ROUTES
    ask = {"model": "ghost", "messages": [{"role": "user", "content": "hi"}]}
    for path in ROUTES:
        for whole in ([], "x", None, 5):
            yield path, whole, "body", "field_type"
        yield path, {}, "model", "field_required"
        yield path, {"model": 5}, "model", "field_type"
        yield path, {"model": ""}, "model", "field_type"
    yield chat, {"model": "ghost"}, "messages", "field_required"
    yield text, {"model": "ghost"}, "prompt", "field_required"
    yield embed, {"model": "ghost"}, "input", "field_required"
    for wrong in (None, "hi", {}, [], 5):
        yield chat, {**ask, "messages": wrong}, "messages", "field_type"
    for wrong, field in [(5, ""), ({}, ".role"), ({"role": 5, "content": "x"}, ".role"), ({"role": ""}, ".role"), ({"role": "user"}, ".content"),
                         ({"role": "user", "content": 5}, ".content"), ({"role": "user", "content": None}, ".content"),
                         ({"role": "user", "content": [{"text": "x"}]}, ".content[0].type")]:
        yield chat, {**ask, "messages": [ask["messages"][0], wrong]}, "messages[1]" + field, "field_type"
    for name, wrong, field in [("stream", "yes", ""), ("stop", 5, ""), ("stop", ["a", 5], "[1]"), ("tools", 5, ""), ("tools", [5], "[0]"),
                               ("tools", [{"type": "function", "function": {}}], "[0].function.name"), ("tool_choice", 5, ""),
                               ("response_format", "json", ""), ("stream_options", 5, ""), ("logit_bias", "x", ""), ("max_tokens", "5", ""),
                               ("max_tokens", 1e30, ""), ("max_completion_tokens", 1.5, ""), ("n", "2", "")]:
        yield chat, {**ask, name: wrong}, name + field, "field_type"
    for name, wrong in [("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 2 ** 40), ("n", 0), ("n", 129), ("n", 2 ** 63)]:
        yield chat, {**ask, name: wrong}, name, "field_range"
    for name, wrong in [("temperature", "hot"), ("temperature", 2.1), ("temperature", -1), ("top_p", "x"), ("top_p", 1.5), ("seed", 1.5),
                        ("presence_penalty", 3), ("frequency_penalty", [1]), ("top_logprobs", 21), ("logprobs", 2), ("user", 5),
                        ("metadata", "x"), ("parallel_tool_calls", "yes"), ("reasoning_effort", 3), ("store", 1)]:
        yield chat, {**ask, name: wrong}, name, "field_type"
    for name, wrong in [("logprobs", True), ("logprobs", -1), ("echo", 1), ("suffix", []), ("temperature", {})]:
        yield text, {"model": "ghost", "prompt": "x", name: wrong}, name, "field_type"
    yield embed, {"model": "ghost", "input": "x", "dimensions": 0}, "dimensions", "field_type"
    for slip in ("max_token", "max_tokens_", "temprature", "tempurature", "streams", "message", "tool_choices", "responce_format"):
        yield chat, {**ask, slip: 5}, slip, "unknown_field"
    yield text, {"model": "ghost", "promt": "x", "promptt": "x"}, "promptt", "unknown_field"
    for wrong, field in [(5, ""), (None, ""), ([], ""), ({}, ""), ([{}], "[0]"), (["a", 5], "[1]"), ([[]], "[0]"), ([1, -1], "[0]")]:
        yield text, {"model": "ghost", "prompt": wrong}, "prompt" + field, "field_type"
        yield embed, {"model": "ghost", "input": wrong}, "input" + field, "field_type"
    yield text, {"model": "ghost", "prompt": ["x"] * 65, "n": 2}, "prompt", "field_range"
    yield embed, {"model": "ghost", "input": ""}, "input", "field_type"
    yield embed, {"model": "ghost", "input": ["x", ""]}, "input[1]", "field_type"
    yield embed, {"model": "ghost", "input": "x", "encoding_format": "hex"}, "encoding_format", "field_enum"


@pytest.mark.parametrize("path,body,field,code", list(bad_members()))
def test_members_of_a_wrong_type_are_named(server, path, body, field, code):
    data = json.dumps(body).encode()
    shape(Reply(send(server, request(server, path, f"Content-Length: {len(data)}\r\n", data))), 400, code, field)


def test_texts_that_no_database_holds_do_not_stop_the_ledger(server):
    """A NUL is JSON's right, and no database's."""
    chat, text, embed = ROUTES
    account = server.call("GET", "/lathe/v1/service_accounts/app").json
    key = server.make("api_keys", name="nul", service_account=account["id"])["key"]  # of one that was refused often, refusals leave no rows
    for path, more in ((chat, {"user": "a\0b"}), (text, {"model": "gh\0st"}), (embed, {"model": "ghost", "user": "\0"})):
        body = json.dumps(json.loads(ROUTES[path]) | more).encode()
        assert b"\\u0000" in body
        answer = send(server, request(server, path, f"Content-Length: {len(body)}\r\n", body, key=key))
        shape(Reply(answer), 404, "model_not_found", "model", "not_found_error")
    server.folded()
    rows = server.rows("SELECT model, end_user FROM traces WHERE end_user LIKE '%?%' OR model LIKE '%?%' ORDER BY created_at")
    assert [(r["model"], r["end_user"]) for r in rows] == [("ghost", "a?b"), ("gh?st", None), ("ghost", "?")], rows
