# SPDX-License-Identifier: Apache-2.0
"""Engines that are somebody else's: whatever they say and however they count, what is used is counted once and paid from what was reserved."""

import json
import pathlib
import socket
import tempfile
import threading
import time

import pytest

from harness import Server, wait_for
from upstream import Upstream

ASK = [{"role": "user", "content": "?"}]


class Scripted(Upstream):
    """Answers every request with the same events, or the same body when it is not asked to stream."""

    def __init__(self):
        self.asked, self.events, self.answer, self.breaks = [], [], {}, None
        self.left, self.stop = threading.Semaphore(0), threading.Event()
        super().__init__()

    def end_early(self, call):
        """The events, and no end: it breaks off itself, or waits until its caller has left."""
        call.close_connection = True
        if self.events:
            call.begin_stream("".join(f"data: {json.dumps(e)}\n\n" for e in self.events).encode())
        while self.breaks == "drips" and not self.stop.wait(0.2):
            try:
                call.wfile.write(f"data: {json.dumps(self.events[0])}\n\n".encode())
            except OSError:
                break
        if self.breaks == "waits" and call.caller_left():
            self.left.release()

    def post(self, call):
        self.asked.append(call.asked)
        if self.breaks:
            self.end_early(call)
        elif call.asked.get("stream"):
            call.stream(self.events)
        else:
            call.say(self.answer)


@pytest.fixture(scope="module")
def upstream():
    u = Scripted()
    yield u
    u.close()


@pytest.fixture(scope="module")
def server(upstream):
    with tempfile.TemporaryDirectory(prefix="lathe-attached-") as top:
        s = Server(pathlib.Path(top) / "data")
        s.data.mkdir()
        s.start()
        s.use_app()
        s.make("prices", name="out", model="out", input="1", output="1")
        s.deploy("out", engine="openai", endpoint={"url": upstream.url})
        yield s
        s.end()


def ask(server, name="out", key=None, **more):
    body = {"model": name, "messages": ASK, **more}
    return server.call("POST", "/v1/chat/completions", body, key=key or server.app_key)


def chunk(index, said, usage=None):
    e = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "out",
         "choices": [{"index": index, "delta": {"content": said}, "finish_reason": None}]}
    return e if usage is None else {**e, "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}}


def whole(usage):
    e = chunk(0, "", usage)
    return {**e, "choices": []}


def counted(server, answer):
    server.folded()
    row, = server.rows("SELECT prompt_tokens, completion_tokens FROM usage WHERE request_id = ?", answer.headers["x-request-id"])
    return row["prompt_tokens"], row["completion_tokens"]


TOLD = {
    "at-the-end": (1, [chunk(0, "a"), chunk(0, "b"), whole((7, 2))], (7, 2)),
    "in-every-event": (1, [chunk(0, "a", (7, 1)), chunk(0, "b", (7, 2)), chunk(0, "c", (7, 3))], (7, 3)),
    "in-every-event-and-at-the-end": (1, [chunk(0, "a", (7, 1)), chunk(0, "b", (7, 2)), whole((7, 2))], (7, 2)),
    "of-two-in-every-event": (2, [chunk(0, "a", (7, 1)), chunk(1, "b", (7, 1)), chunk(1, "c", (7, 2)), chunk(0, "d", (7, 2)), chunk(1, "e", (7, 3))], (7, 5)),
    "of-two-and-at-the-end": (2, [chunk(0, "a", (7, 1)), chunk(1, "b", (7, 1)), whole((7, 2))], (7, 2)),
    "of-two-apart": (2, [chunk(0, "a"), chunk(1, "b"), whole((7, 1)), whole((7, 1))], (7, 2)),
}


@pytest.mark.parametrize("how", TOLD)
def test_usage_is_counted_once_however_it_is_told(server, upstream, how):
    n, upstream.events, want = TOLD[how]
    answer = ask(server, stream=True, n=n)
    assert answer.status == 200 and b"[DONE]" in answer.body, answer.body
    assert counted(server, answer) == want


def poor(server, name, money):
    account = server.call("GET", "/lathe/v1/service_accounts/app").json
    return server.make("api_keys", name=name, service_account=account["id"], limits={"money_per_day": money})["key"]


def test_what_an_attached_engine_may_write_is_reserved(server, upstream):
    """Its context is not known: 4,096 is a guess, and what the client asks for goes there as it is."""
    upstream.answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "out", "usage": {"prompt_tokens": 1, "completion_tokens": 90000},
                       "choices": [{"index": 0, "message": {"role": "assistant", "content": "long"}, "finish_reason": "stop"}]}
    key = poor(server, "attached", "0.05")
    assert ask(server, key=key, max_tokens=100000).status == 429
    assert ask(server, key=key, max_tokens=1000).status == 200


@pytest.mark.parametrize("more", [{"n_predict": 400}, {"n_predict": -1}, {"max_completion_tokens": 400}, {"n_cmpl": 100}, {"best_of": 100}], ids=lambda m: "-".join(m))
def test_what_engines_go_by_is_reserved(server, upstream, more):
    key = poor(server, "names" + "".join(f"-{k}{v}" for k, v in more.items()).replace("--", "-").replace("_", "-"), "0.0003")
    asked = len(upstream.asked)
    assert ask(server, key=key, max_tokens=5, **more).status == 429
    assert len(upstream.asked) == asked
    assert ask(server, key=key, max_tokens=5).status == 200


LONG = "tell me " * 300


def cut(server, upstream, key=None, **more):
    """A client that takes what comes of the answer and leaves; its body, and the row that this leaves."""
    body = json.dumps({"model": "out", "messages": [{"role": "user", "content": LONG}], **more}).encode()
    name = f"cut-{time.monotonic_ns()}"
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as s:
        s.settimeout(20)
        s.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: {name}\r\nAuthorization: Bearer {key or server.app_key}\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if upstream.breaks != "waits":
            upstream.seen = b""
            while came := s.recv(65536):
                upstream.seen += came
        else:
            wanted, seen = upstream.events[-1]["choices"][0]["delta"]["content"].encode() if upstream.events else b"", b""
            while wanted and wanted not in seen:
                seen += s.recv(65536)
            wait_for("it at the engine", 20, lambda: wanted or [a for a in upstream.asked if a["messages"][0]["content"] == LONG] or None)
    if upstream.breaks == "waits":
        assert upstream.left.acquire(timeout=20)
    wait_for("its row", 20, lambda: (server.folded(), server.rows("SELECT id FROM usage WHERE request_id = ?", name))[1] or None)
    return len(body), server.rows("SELECT * FROM usage WHERE request_id = ? ORDER BY attempt", name)[-1]


@pytest.fixture
def breaks(upstream):
    yield upstream
    upstream.breaks = None


@pytest.mark.parametrize("how, outcome", [("waits", "cancelled"), ("off", "error")])
def test_an_answer_that_is_cut_is_paid_by_an_estimate(server, breaks, how, outcome):
    """Its usage would have come at its end: what was reserved for the prompt and what came of the answer is paid."""
    breaks.breaks, breaks.events = how, [chunk(0, "one"), chunk(0, "two"), chunk(0, "x" * 400)]
    size, row = cut(server, breaks, stream=True, max_tokens=1000)
    assert (row["outcome"], row["tokens_exact"], row["prompt_tokens"]) == (outcome, 0, size), row
    assert row["completion_tokens"] == 102 and row["cost"] == 1000 * (size + 102), row  # 406 bytes, four a token
    _, row = cut(server, breaks, stream=True, max_tokens=50)
    assert row["completion_tokens"] == 50, row                                          # no more than was allowed
    breaks.events = [chunk(0, "a"), chunk(0, "b"), chunk(0, "end")]
    _, row = cut(server, breaks, stream=True)
    assert row["completion_tokens"] == 3, row


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_the_answer_pays_its_prompt(server, breaks, stream):
    breaks.breaks, breaks.events = "waits", []
    breaks.asked.clear()
    size, row = cut(server, breaks, stream=stream, max_tokens=1000)
    assert (row["outcome"], row["tokens_exact"], row["prompt_tokens"], row["completion_tokens"]) == ("cancelled", 0, size, 0), row
    assert row["cost"] == 1000 * size, row


def test_machine_time_is_reserved_as_it_goes(tmp_path, breaks):
    """An answer that drips on and on: what it may cost is not known beforehand, and its budget is not overspent."""
    s = Server(tmp_path / "data")
    s.data.mkdir()
    s.start("--gateway.first_token_timeout", "2s")
    try:
        s.use_app()
        s.make("prices", name="slow", model="slow", machine_second="1")
        s.deploy("slow", engine="openai", endpoint={"url": breaks.url})
        breaks.breaks, breaks.events = "drips", [chunk(0, "one")]
        _, row = cut(s, breaks, key=poor(s, "slow", "4.5"), model="slow", stream=True)
        assert b"budget_reached" in breaks.seen and b"[DONE]" not in breaks.seen, breaks.seen[-600:]
        assert (row["outcome"], row["error_class"]) == ("error", "rate_limited"), row
        assert 2 * 10**9 < row["cost"] <= 45 * 10**8, row
    finally:
        breaks.stop.set()
        s.end()


def test_a_budget_is_not_drained_by_cutting(server, breaks):
    key = poor(server, "cutter", "0.006")  # a prompt of 2,500 bytes and ten tokens twice
    breaks.breaks, breaks.events = "waits", [chunk(0, "one"), chunk(0, "end")]
    for _ in range(2):
        cut(server, breaks, key=key, stream=True, max_tokens=10)
    assert ask(server, key=key, stream=True, max_tokens=1000).status == 429


def test_an_engine_that_breaks_off_before_its_answer_is_paid_its_time_only(server, breaks):
    breaks.breaks, breaks.events = "off", []
    _, row = cut(server, breaks, stream=True, max_tokens=10)
    assert (row["outcome"], row["prompt_tokens"], row["completion_tokens"], row["cost"]) == ("error", 0, 0, 0), row


def test_an_engine_that_never_tells_is_paid_by_an_estimate(server, upstream):
    upstream.answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "out",
                       "choices": [{"index": 0, "message": {"role": "assistant", "content": "abcdefgh"}, "finish_reason": "stop"}]}
    answer = ask(server, max_tokens=10)
    assert answer.status == 200
    prompt, written = counted(server, answer)
    assert prompt > 50 and written == 2
    upstream.events = [chunk(0, "a"), chunk(0, "b"), chunk(0, "c")]
    prompt, written = counted(server, ask(server, stream=True, max_tokens=10))
    assert prompt > 50 and written == 3


def test_two_names_of_one_thing_agree(server):
    answer = ask(server, n=2, n_cmpl=3)
    assert answer.status == 400 and answer.json["error"]["param"] == "n_cmpl", answer.body


def test_an_endpoint_that_leads_back_ends(server):
    server.deploy("round", engine="openai", slots=0, endpoint={"url": server.url + "/v1", "api_key": server.app_key})
    answer = ask(server, "round")
    assert answer.status == 502 and "through 4 gateways" in answer.json["error"]["message"], answer.body
    server.folded()
    row, = server.rows("SELECT COUNT(*) AS n FROM usage WHERE model = ?", "round")
    assert row["n"] == 4
    server.remove("round")


def test_refusals_without_end_are_counted_together(server, upstream):
    """A key over its limit may ask as often as it likes: it must not fill the disk with records of that."""
    account = server.call("GET", "/lathe/v1/service_accounts/app").json
    made = server.make("api_keys", name="eager", service_account=account["id"], limits={"requests_per_minute": 1})
    upstream.answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "out", "usage": {"prompt_tokens": 1, "completion_tokens": 1},
                       "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}
    begun = time.monotonic()
    answers = [ask(server, key=made["key"]).status for _ in range(200)]
    seconds = time.monotonic() - begun
    refused = answers.count(429)
    assert refused >= 190
    server.folded()
    row, = server.rows("SELECT COUNT(*) AS n FROM inference_audits WHERE key_id = ? AND status = 429", made["id"])
    assert 60 <= row["n"] <= 62 + seconds

    def all_told():
        told = server.rows("SELECT change FROM audit_entries WHERE permission = ?", "inference.use (limit_reached)")
        return True if sum(json.loads(t["change"])["count"] for t in told) == refused - row["n"] else None
    wait_for("the others in the audit", 30, all_told)
