# SPDX-License-Identifier: Apache-2.0
"""Engines that are somebody else's, asked by clients of Anthropic's and Ollama's dialects: what they say and how they end comes to the
same, is counted the same and takes no more memory than where bytes pass as they came."""

import json
import pathlib
import socket
import tempfile
import threading
import time

import pytest

from harness import Server, rss_bytes, wait_for
from upstream import Upstream, chunk, completion

ASK = [{"role": "user", "content": "?"}]
TOLD = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
MESSAGES, CHAT, OPENAI = "/v1/messages", "/ollama/api/chat", "/v1/chat/completions"


class Scripted(Upstream):
    """Streams these bytes, or says this answer; or streams the events and waits until its caller has left."""

    def __init__(self):
        self.asked, self.stream, self.answer, self.waits = [], b"", {}, None
        self.left = threading.Semaphore(0)
        super().__init__()

    def wait(self, call):
        call.begin_stream(events(*self.waits))
        if call.caller_left():
            self.left.release()

    def post(self, call):
        self.asked.append(call.asked)
        if self.waits:
            self.wait(call)
        elif call.asked.get("stream"):
            call.send(self.stream, "text/event-stream")
        else:
            call.say(self.answer)


def events(*all):
    return "".join(f"data: {json.dumps(e)}\n\n" for e in all).encode()


DONE = b"data: [DONE]\n\n"


def said(text):
    return chunk({"content": text})


@pytest.fixture(scope="module")
def world():
    with tempfile.TemporaryDirectory(prefix="lathe-translated-") as top:
        u, s = Scripted(), Server(pathlib.Path(top) / "data")
        s.data.mkdir()
        s.start()
        s.use_app()
        s.make("prices", name="out", model="out", input="1", output="1")
        s.deploy("out", engine="openai", endpoint={"url": u.url})
        yield s, u
        s.end()
        u.close()


@pytest.fixture
def server(world):
    return world[0]


@pytest.fixture
def upstream(world):
    u = world[1]
    u.stream, u.answer, u.waits = events(said("a"), chunk({}, "stop"), {**chunk({}), "choices": [], "usage": TOLD}) + DONE, completion("a"), None
    return u


def ask(server, path=MESSAGES, stream=True, model="out", key=None, **more):
    body = {"model": model, "messages": ASK, "stream": stream, **more}
    return server.call("POST", path, body, key=key or server.app_key)


def told(answer):
    """The events of a stream, or the lines."""
    if answer.headers["content-type"].startswith("application/x-ndjson"):
        return [json.loads(line) for line in answer.body.splitlines()]
    return [json.loads(line[6:]) for line in answer.body.decode().split("\n") if line.startswith("data: ") and line != "data: [DONE]"]


def row_of(server, request_id):
    server.folded()
    return server.rows("SELECT * FROM usage WHERE request_id = ? ORDER BY attempt", request_id)[-1]


def row(server, answer):
    return row_of(server, answer.headers["x-request-id"])


def poor(server, name, money):
    account = server.call("GET", "/lathe/v1/service_accounts/app").json
    return server.make("api_keys", name=name, service_account=account["id"], limits={"money_per_day": money})["key"]


# ---- what is counted


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
@pytest.mark.parametrize("usage", [{}, {"total_tokens": 9}, {"prompt_tokens": None}], ids=["empty", "total", "null"])
def test_a_usage_that_says_nothing_is_none(server, upstream, path, usage):
    upstream.stream = events(said("x" * 40), chunk({}, "stop"), {**chunk({}), "choices": [], "usage": usage}) + DONE
    answer = ask(server, path)
    assert answer.status == 200, answer.body
    paid = row(server, answer)
    assert paid["tokens_exact"] == 0 and paid["prompt_tokens"] > 50 and paid["completion_tokens"] == 10, paid


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
def test_an_answer_that_is_cut_is_paid_by_an_estimate(server, upstream, path):
    upstream.waits = [said("one"), said("two"), said("x" * 400)]
    body = json.dumps({"model": "out", "stream": True, "messages": [{"role": "user", "content": "tell me " * 300}]}).encode()
    name = f"cut-{time.monotonic_ns()}"
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as s:
        s.settimeout(20)
        s.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {name}\r\nx-api-key: {server.app_key}\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        seen = b""
        while b"x" * 400 not in seen:
            seen += s.recv(65536)
    assert upstream.left.acquire(timeout=20)
    wait_for("its row", 20, lambda: (server.folded(), server.rows("SELECT id FROM usage WHERE request_id = ?", name))[1] or None)
    paid = row_of(server, name)
    assert (paid["outcome"], paid["tokens_exact"], paid["prompt_tokens"], paid["completion_tokens"]) == ("cancelled", 0, len(body), 102), paid


@pytest.mark.parametrize("path, limit", [(MESSAGES, lambda n: {"max_tokens": n}), (CHAT, lambda n: {"options": {"num_predict": n}})], ids=["messages", "ollama"])
def test_an_output_limit_is_reserved_and_heard(server, upstream, path, limit):
    key = poor(server, f"limit-{path.strip('/').replace('/', '-')}", "0.05")
    assert ask(server, path, key=key, **limit(100000)).status == 429
    assert ask(server, path, key=key, **limit(1000)).status == 200
    # the name that every server knows: one that a server does not know limits nothing
    assert upstream.asked[-1]["max_tokens"] == 1000 and "max_completion_tokens" not in upstream.asked[-1]
    asked = len(upstream.asked)
    answer = ask(server, path, **limit(2**32 + 1))                # 1, to a server that cuts it to 32 bits
    assert answer.status == 400 and len(upstream.asked) == asked and str(2**32 + 1).encode() in answer.body, answer.body


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
def test_a_whole_answer_has_no_time_between_tokens(server, upstream, path):
    upstream.answer = completion({"content": "said", "reasoning_content": "thought"})
    answer = ask(server, path, stream=False)
    assert answer.status == 200, answer.body
    plain = ask(server, OPENAI, stream=False)
    server.folded()
    mine, its = (server.rows("SELECT tbt_mean_us, tbt_max_us FROM traces WHERE request_id = ?", a.headers["x-request-id"])[0] for a in (answer, plain))
    assert mine == its
    if path == CHAT:
        assert 0 < answer.json["prompt_eval_duration"] <= answer.json["total_duration"]


# ---- how it ends


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_within_an_answer_is_the_engines(server, upstream, stream):
    """That its server does not take our key is not the client's matter; what is slow down is."""
    for kind, status, type_ in (("authentication_error", 502, "api_error"), ("not_found_error", 502, "api_error"),
                                ("rate_limit_error", 429, "rate_limit_error"), ("invalid_request_error", 400, "invalid_request_error")):
        upstream.answer = {"error": {"message": "out of reach", "type": kind}}
        upstream.stream = events(upstream.answer)
        answer = ask(server, stream=stream)
        assert (answer.status, answer.json["error"]["type"]) == (status, type_) and "out of reach" in answer.json["error"]["message"], answer.body


def test_another_answers_for_an_engine_that_says_an_error(server, upstream):
    upstream.stream = events({"error": {"message": "who are you", "type": "authentication_error"}})
    second = Upstream(lambda call: call.stream([said("second"), chunk({}, "stop")]))
    server.deploy("second", engine="openai", endpoint={"url": second.url})
    made = server.make("routes", name="front", targets=[{"deployment": "out"}, {"deployment": "second"}])
    try:
        answer = ask(server, model="front")
        assert answer.status == 200 and answer.headers["x-lathe-attempts"] == "2" and b"second" in answer.body, answer.body
        assert [e["type"] for e in told(answer)].count("message_start") == 1
    finally:
        server.call("DELETE", f"/lathe/v1/routes/{made['id']}")
        server.remove("second")
        second.close()


@pytest.mark.parametrize("path, end", [(MESSAGES, lambda e: e["type"] == "message_stop"), (CHAT, lambda e: e.get("done"))], ids=["messages", "ollama"])
def test_where_only_the_mark_of_the_end_is_missing_the_answer_is_whole(server, upstream, path, end):
    upstream.stream = events(said("all of it"), chunk({}, "stop"))
    answer = ask(server, path)
    assert answer.status == 200 and end(told(answer)[-1]), answer.body
    assert row(server, answer)["outcome"] == "ok"
    upstream.stream = events(said("half of"))
    answer = ask(server, path)
    assert "error" in told(answer)[-1], answer.body
    assert row(server, answer)["outcome"] == "error"


# ---- what it takes


@pytest.mark.parametrize("path, event", [(MESSAGES, b'data: {"choices":[{"index":0,"delta":{}}]}\n\n'), (CHAT, b'data: {"choices":[{"index":0,"delta":{}}]}\n\n'),
                                         (OPENAI, b"data: null\n\n")], ids=["messages", "ollama", "openai"])
def test_events_that_say_nothing_take_no_memory(server, upstream, path, event):
    upstream.stream = event * (24 * 2**20 // len(event)) + upstream.stream
    before = rss_bytes(server.process.pid, "VmHWM")
    answer = ask(server, path)
    assert answer.status == 200 and len(answer.body) < 4096
    assert rss_bytes(server.process.pid, "VmHWM") - before < 32 * 2**20


def test_what_opens_an_answer_may_be_more_than_is_held_back(server, upstream):
    """Until a first word came, another of a route's targets may answer: what came before it is held back, up to a limit."""
    server.deploy("out-too", engine="openai", endpoint={"url": upstream.url})
    made = server.make("routes", name="held", targets=[{"deployment": "out"}, {"deployment": "out-too"}])
    try:
        opening = {**chunk({}), "padding": "x" * 1000000}
        for n, *rest in (6, said("a")), (6,), (1,):
            upstream.stream = events(*[opening] * n, *rest) + DONE
            answer = ask(server, OPENAI, model="held")
            assert len(told(answer)) == n + len(rest) and answer.body.endswith(DONE), answer.body[-300:]
    finally:
        server.call("DELETE", f"/lathe/v1/routes/{made['id']}")
        server.remove("out-too")


def test_lines_are_not_held_up_on_their_way(server, upstream):
    answer = ask(server, CHAT)
    assert answer.headers["content-type"] == "application/x-ndjson" and answer.headers["x-accel-buffering"] == "no"


# ---- where there is nothing


@pytest.mark.parametrize("path", ["/ollama/api/create", "/p/default/ollama/api/embed", "/ollama", "/ollama/api/chat/more"])
def test_what_ollama_has_not_is_said_as_it_would(server, upstream, path):
    answer = server.call("POST", path, {}, key=server.app_key)
    assert answer.status == 404 and isinstance(answer.json["error"], str), answer.body


def test_what_anthropic_has_not_is_said_as_it_would(server, upstream):
    for method, path, status in (("POST", "/v1/messages/count_tokens", 404), ("GET", "/v1/messages/batches/x", 404), ("GET", "/v1/messages", 405)):
        answer = server.call(method, path, None, key=server.app_key)
        assert (answer.status, answer.json["type"]) == (status, "error"), answer.body
    answer = server.call("POST", "/v1/nothing", {}, key=server.app_key)
    assert answer.status == 404 and answer.json["error"]["type"] == "not_found_error" and "type" not in answer.json
