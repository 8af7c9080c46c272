# SPDX-License-Identifier: Apache-2.0
"""Upstreams of every dialect, asked by the stock client of each: what is asked, said, called, counted, refused and broken comes to the same.
They are scripted in their makers' published shapes (makers.py); test_chain.py has real ones."""

import json
import pathlib
import socket
import tempfile
import threading

import openai
import pytest

from harness import SLOWER, Server, wait_for
from makers import CLIENTS, MAKERS, Said, tool_of
from upstream import Upstream

ASK = [{"role": "user", "content": "What is the weather?"}]
KEY = "their-key"
SAYS = Said("Sunny, 21 degrees.")
CALLS = Said("", (("weather", {"city": "Paris"}), ("weather", {"city": "Lyon"})), "calls", tokens=19)
BOTH = Said("Let me see. ", CALLS.calls, "calls", cached=5)


class Scripted(Upstream):
    """A server of one dialect: says `says`, or fails as it is told; keeps what it was asked."""

    def __init__(self, maker):
        self.maker, self.asked, self.probed, self.heard = maker, [], [], []
        self.left = threading.Semaphore(0)
        self.reset()
        super().__init__()

    def reset(self):
        self.says, self.status, self.raw, self.begins, self.waits = SAYS, 200, None, None, False

    def knows(self, call):
        name = {"anthropic": "x-api-key"}.get(self.maker.name, "Authorization")
        return call.headers[name] == ("Bearer " if name == "Authorization" else "") + KEY

    def get(self, call):
        self.probed.append(call.path)
        call.say({"data": [], "models": []}, 200 if self.knows(call) else 401)

    def post(self, call):
        self.asked.append(call.asked)
        self.heard.append((call.path, dict(call.headers)))
        assert call.path == self.maker.path and self.knows(call)
        if self.status != 200:
            return call.say(self.maker.error("some_error", "not today"), self.status)
        if self.begins is not None:
            call.begin_stream(self.begins)
            if self.waits and call.caller_left():
                self.left.release()
            return None
        if self.raw is not None:
            return call.send(self.raw, self.maker.stream_type if call.asked.get("stream") else "application/json")
        if call.asked.get("stream"):
            return call.send(self.maker.stream(self.says), self.maker.stream_type)
        return call.say(self.maker.whole(self.says))


@pytest.fixture(scope="module")
def world():
    ups = {name: Scripted(m) for name, m in MAKERS.items()}
    with tempfile.TemporaryDirectory(prefix="lathe-upstreams-") as top:
        s = Server(pathlib.Path(top) / "data")
        s.data.mkdir()
        s.start("--gateway.breaker_failures", "0")  # each failure here is looked at by itself
        s.use_app()
        for name, u in ups.items():
            s.make("prices", name=name, model=name, input="1", output="2")
            s.deploy(name, engine="openai", task="chat", endpoint={"url": u.url.removesuffix("/v1"), "api_key": KEY, "dialect": name, "upstream_model": "theirs"})
        yield s, ups
        s.end()
    for u in ups.values():
        u.close()


@pytest.fixture
def server(world):
    return world[0]


@pytest.fixture(params=list(MAKERS))
def upstream(world, request):
    u = world[1][request.param]
    u.reset()
    return u


@pytest.fixture(params=list(CLIENTS))
def client(server, request):
    return CLIENTS[request.param](server, server.app_key)


def last_row(server, n=1):
    server.folded()
    return server.rows("SELECT * FROM usage ORDER BY id DESC LIMIT ?", n)


# ---- what is said


def test_where_it_is_and_what_its_key_is_called(server, world):
    for name, probed in (("openai.chat", "/v1/models"), ("openai.responses", "/v1/models"), ("anthropic", "/v1/models"), ("ollama.chat", "/api/tags")):
        u = world[1][name]
        u.reset()
        assert set(u.probed) == {probed}
        CLIENTS["openai"](server, server.app_key).ask(name, ASK)
        path, headers = u.heard[-1]
        assert path == u.maker.path and u.asked[-1]["model"] == "theirs" and not u.asked[-1].get("stream")
        assert (headers.get("anthropic-version"), headers.get("x-api-key")) == (("2023-06-01", KEY) if name == "anthropic" else (None, None))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("says", [SAYS, CALLS, BOTH, Said("cut off", finish="length")], ids=["text", "calls", "both", "length"])
def test_every_client_reads_every_upstream(server, client, upstream, says, stream):
    upstream.says = says
    style = client.tool_style
    got = client.ask(upstream.maker.name, ASK, stream, tools=[tool_of("weather", style)])
    cached = says.cached if client.name != "ollama" and upstream.maker.name != "ollama.chat" else 0
    assert got == Said(says.text, says.calls, says.finish, says.prompt, cached, says.tokens), got
    row, = last_row(server)
    assert (row["prompt_tokens"], row["completion_tokens"], row["tokens_exact"], row["outcome"]) == (says.prompt, says.tokens, 1, "ok")
    assert row["cached_tokens"] == (0 if upstream.maker.name == "ollama.chat" else says.cached)
    assert row["cost"] == 1000 * (says.prompt + 2 * says.tokens)


# ---- what is asked: a call and its result on their way to each


def turn(style):
    """The same conversation in the client's words: two calls at once, and their results."""
    pair = [(f"call_{i}", {"city": c}, r) for i, (c, r) in enumerate((("Paris", "Sunny"), ("Lyon", "Rain")))]
    if style == "anthropic":
        return [*ASK, {"role": "assistant", "content": [{"type": "tool_use", "id": i, "name": "weather", "input": a} for i, a, _ in pair]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": i, "content": r} for i, _, r in pair]}]
    if style == "ollama":
        return [*ASK, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": a}} for _, a, _ in pair]},
                *({"role": "tool", "tool_name": "weather", "content": r} for _, _, r in pair)]
    return [*ASK, {"role": "assistant", "content": None, "tool_calls": [{"id": i, "type": "function", "function": {"name": "weather", "arguments": json.dumps(a)}}
                                                                       for i, a, _ in pair]},
            *({"role": "tool", "tool_call_id": i, "content": r} for i, _, r in pair)]


def heard(name, asked):
    """Cities that were asked for and what was found, with the ids that join them, as this dialect has them."""
    calls, results = {}, {}
    if name == "openai.responses":
        calls = {i["call_id"]: json.loads(i["arguments"])["city"] for i in asked["input"] if i.get("type") == "function_call"}
        results = {i["call_id"]: i["output"] for i in asked["input"] if i.get("type") == "function_call_output"}
    elif name == "anthropic":
        blocks = [b for m in asked["messages"] if isinstance(m["content"], list) for b in m["content"]]
        calls = {b["id"]: b["input"]["city"] for b in blocks if b["type"] == "tool_use"}
        results = {b["tool_use_id"]: b["content"] for b in blocks if b["type"] == "tool_result"}
        assert [m["role"] for m in asked["messages"]] == ["user", "assistant", "user"]
    else:
        made = [c for m in asked["messages"] for c in m.get("tool_calls") or []]
        told = [m for m in asked["messages"] if m["role"] == "tool"]
        if name == "ollama.chat":
            return dict(zip([c["function"]["arguments"]["city"] for c in made], [m["content"] for m in told]))
        calls = {c["id"]: json.loads(c["function"]["arguments"])["city"] for c in made}
        results = {m["tool_call_id"]: m["content"] for m in told}
    return {city: results[i] for i, city in calls.items()}


def test_results_of_calls_reach_their_calls(client, upstream):
    client.ask(upstream.maker.name, turn(client.name), tools=[tool_of("weather", client.tool_style)])
    assert heard(upstream.maker.name, upstream.asked[-1]) == {"Paris": "Sunny", "Lyon": "Rain"}, upstream.asked[-1]


def test_what_a_dialect_has_no_place_for_is_named(server, world):
    for u in world[1].values():
        u.reset()
    plain = openai.OpenAI(base_url=server.url + "/v1", api_key=server.app_key, max_retries=0)
    for name, field, more in (("anthropic", "seed", {"seed": 1}), ("openai.responses", "stop", {"stop": ["x"]}), ("ollama.chat", "n", {"n": 2})):
        asked = len(world[1][name].asked)
        with pytest.raises(openai.BadRequestError) as told:
            plain.chat.completions.create(model=name, messages=ASK, **more)
        assert told.value.param == field and name in told.value.message and len(world[1][name].asked) == asked


def test_what_is_openais_alone_is_refused_and_left_out_of_routes(server, world):
    world[1]["openai.chat"].reset()
    for name in ("anthropic", "ollama.chat", "openai.responses"):
        a = server.call("POST", "/v1/completions", {"model": name, "prompt": "?"}, key=server.app_key)
        assert a.status == 400 and name in a.json["error"]["message"] and a.json["error"]["code"] == "model_dialect", a.body
    made = server.make("routes", name="mixed", targets=[{"deployment": "anthropic"}, {"deployment": "ollama.chat"}])
    a = server.call("POST", "/v1/completions", {"model": "mixed", "prompt": "?"}, key=server.app_key)
    assert a.status == 400 and a.json["error"]["code"] == "model_dialect", a.body
    server.call("PATCH", f"/lathe/v1/routes/{made['id']}", {"targets": [{"deployment": "anthropic"}, {"deployment": "openai.chat"}]})
    why = server.call("GET", "/lathe/v1/model_plans/mixed?operation=completion").json
    assert why["deployment"] == "openai.chat" and [t["can"] for t in why["targets"]] == ["now", "no"] and "dialect" in why["targets"][1]["why"], why
    server.call("DELETE", f"/lathe/v1/routes/{made['id']}")
    for field, endpoint, task in (("task", {"dialect": "anthropic"}, "embedding"), ("endpoint.accent", {"dialect": "anthropic", "accent": "enable_thinking"}, "chat"),
                                  ("endpoint.api_version", {"api_version": "a&b"}, "chat")):
        a = server.call("POST", "/lathe/v1/deployments", {"name": "never", "engine": "openai", "task": task, "endpoint": {"url": "http://127.0.0.1:9", **endpoint}})
        assert a.status == 400 and a.json["error"]["field"] == field, a.body


# ---- what its kind says otherwise

ACCENTS = {"plain": {"reasoning_effort": "medium"}, "thinking.type": {"thinking": {"type": "enabled"}},
           "enable_thinking": {"enable_thinking": True, "thinking_budget": 2000}, "reasoning": {"reasoning": {"max_tokens": 2000}}}


@pytest.fixture
def other(server):
    """Attaches servers of no maker in particular: each keeps what it was asked, and is gone with the test."""
    made = []

    def attach(maker, path, **endpoint):
        kept = []

        def post(call):
            kept.append((call.path, dict(call.headers), call.asked))
            call.say(MAKERS[maker].whole(SAYS))

        u = Upstream(post)
        u.get = lambda call: (kept.append((call.path, dict(call.headers), None)), call.say({"data": []}))
        made.append((f"other-{len(made)}", u))
        server.deploy(made[-1][0], engine="openai", task="chat", endpoint={"url": f"http://127.0.0.1:{u.port}{path}", "dialect": maker, **endpoint})
        return made[-1][0], kept

    yield attach
    for name, u in made:
        server.remove(name)
        u.close()


def test_each_hears_of_reasoning_in_its_own_way(server, other):
    think = {"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 2000}}
    for accent, words in ACCENTS.items():
        name, kept = other("openai.chat", "/v1", accent=accent)
        assert server.call("POST", "/v1/messages", {"model": name, "messages": ASK, **think}, key=server.app_key).status == 200
        assert {k: kept[-1][2].get(k) for k in ("reasoning_effort", "thinking", "enable_thinking", "thinking_budget", "reasoning")} == \
            {k: words.get(k) for k in ("reasoning_effort", "thinking", "enable_thinking", "thinking_budget", "reasoning")}
    name, kept = other("anthropic", "", accent="adaptive", output_default=2048)
    ask = {"model": name, "messages": ASK, "reasoning_effort": "high"}
    assert server.call("POST", "/v1/chat/completions", ask, key=server.app_key).status == 200
    asked = kept[-1][2]
    assert (asked["thinking"], asked["output_config"], asked["max_tokens"]) == ({"type": "adaptive"}, {"effort": "high"}, 2048)


def test_a_key_goes_where_its_server_wants_it(server, other):
    name, kept = other("openai.chat", "/openai/deployments/gpt", api_key="k", auth="api-key", api_version="2024-10-21")
    assert CLIENTS["openai"](server, server.app_key).ask(name, ASK).text == SAYS.text
    assert kept[0][0] == "/openai/models?api-version=2024-10-21" and kept[-1][0] == "/openai/deployments/gpt/chat/completions?api-version=2024-10-21"
    assert all(h["api-key"] == "k" and "Authorization" not in h for _, h, _ in kept)
    name, kept = other("anthropic", "/anthropic", api_key="k", auth="bearer")
    assert CLIENTS["openai"](server, server.app_key).ask(name, ASK).text == SAYS.text
    assert kept[-1][0] == "/anthropic/v1/messages"
    assert all(h["Authorization"] == "Bearer k" and "x-api-key" not in h and h["anthropic-version"] == "2023-06-01" for _, h, _ in kept)
    name, kept = other("ollama.chat", "/somewhere")
    assert CLIENTS["openai"](server, server.app_key).ask(name, ASK).text == SAYS.text
    assert kept[-1][0] == "/somewhere/api/chat" and all("Authorization" not in h for _, h, _ in kept)


def test_what_it_speaks_may_change(server, world, other):
    """The replica that was attached first answers until the next one does, each in its own dialect."""
    chat = world[1]["openai.chat"]
    chat.reset()
    name, kept = other("anthropic", "", api_key=KEY)
    client = CLIENTS["openai"](server, server.app_key)
    assert client.ask(name, ASK).text == SAYS.text and kept
    server.change(name, endpoint={"url": chat.url, "dialect": "openai.chat", "api_key": KEY, "upstream_model": "changed"})

    def changed():
        assert client.ask(name, ASK).text == SAYS.text
        return True if chat.asked and chat.asked[-1]["model"] == "changed" else None

    wait_for("the other dialect", 20, changed)


# ---- where both speak one dialect

SAME = {"anthropic": "/v1/messages", "ollama.chat": "/ollama/api/chat"}


@pytest.fixture(params=list(SAME))
def twin(world, request):
    """An upstream of the client's own dialect."""
    u = world[1][request.param]
    u.reset()
    return u


@pytest.mark.parametrize("says", [SAYS, BOTH], ids=["text", "calls"])
def test_bytes_pass_as_they_came(server, twin, says):
    """Also what our reader does not know; only the model's name is the server's own."""
    path, twin.says = SAME[twin.maker.name], says
    more = {"anthropic": {"max_tokens": 9, "container": "c", "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "ollama.chat": {"options": {"num_predict": 9, "mirostat": 2}, "logits": True}}[twin.maker.name]
    for stream in (True, False):
        body = {"model": twin.maker.name, "messages": ASK, "stream": stream, **more}
        a = server.call("POST", path, body, key=server.app_key, headers={"anthropic-beta": "files-api-2025-04-14"})
        assert a.body == (twin.maker.stream(says) if stream else json.dumps(twin.maker.whole(says)).encode())
        assert twin.asked[-1] == {**body, "model": "theirs"} and twin.heard[-1][1]["anthropic-beta"] == "files-api-2025-04-14"
        row, = last_row(server)
        assert (row["prompt_tokens"], row["completion_tokens"], row["tokens_exact"], row["outcome"], row["streamed"]) == (says.prompt, says.tokens, 1, "ok", stream)


def test_an_unknown_event_passes_and_the_end_is_always_told(server, world):
    u = world[1]["anthropic"]
    u.reset()
    whole = u.maker.stream(SAYS)
    new = b'event: news\ndata: {"type": "news"}\n\n'
    end = whole.index(b"event: message_stop")
    u.raw = whole[:end] + new + whole[end:]
    assert ask(server, "/v1/messages", "anthropic").body == u.raw
    u.raw = whole[:end]
    a = ask(server, "/v1/messages", "anthropic")
    assert a.body.startswith(u.raw) and told(a)[-1] == {"type": "message_stop"}
    assert last_row(server)[0]["outcome"] == "ok"


def test_what_can_only_be_passed_on_is_named_where_it_cannot(server, world, twin):
    """Refused before anything is asked; of a route's targets the one that it can be passed to answers."""
    path, other = SAME[twin.maker.name], world[1]["openai.chat"]
    other.reset()
    made = server.make("routes", name="mixed", targets=[{"deployment": "openai.chat"}, {"deployment": twin.maker.name}])
    try:
        asked = len(other.asked)
        a = server.call("POST", path, {"model": "openai.chat", "messages": ASK, "container": "c", "max_tokens": 9}, key=server.app_key)
        assert a.status == 400 and b"container" in a.body and len(other.asked) == asked
        a = ask(server, path, "mixed", container="c")
        assert a.status == 200 and a.body == twin.maker.stream(SAYS) and len(other.asked) == asked
    finally:
        server.call("DELETE", f"/lathe/v1/routes/{made['id']}")


@pytest.mark.parametrize("wrong", [{"model": None}, {"model": 1}, {"stream": "yes"}, {"max_tokens": "many"}, {"max_tokens": 2**40}])
def test_what_is_wrong_is_wrong_where_it_could_pass(server, world, wrong):
    u = world[1]["anthropic"]
    u.reset()
    asked = len(u.asked)
    a = server.call("POST", "/v1/messages", {"model": "anthropic", "messages": ASK, "max_tokens": 9, "container": "c", **wrong}, key=server.app_key)
    assert a.status == 400 and next(iter(wrong)) in a.json["error"]["message"] and len(u.asked) == asked, a.body


# ---- what fails

STATUSES = {400: 400, 401: 502, 402: 502, 403: 502, 404: 502, 413: 400, 429: 429, 500: 502, 529: 502}


@pytest.mark.parametrize("status", STATUSES)
def test_a_refusal_is_whose_it_is(server, upstream, status):
    upstream.status = status
    for path, stream in (("/v1/chat/completions", False), ("/v1/messages", True), ("/ollama/api/chat", True)):
        a = server.call("POST", path, {"model": upstream.maker.name, "messages": ASK, "stream": stream, **({"max_tokens": 9} if "messages" in path else {})},
                        key=server.app_key)
        assert a.status == STATUSES[status], (path, a.body)
        said = a.json["error"] if path.startswith("/ollama") else a.json["error"]["message"]
        assert "not today" in said, a.body
    row, = last_row(server)
    assert (row["outcome"], row["cost"]) == ("error", 0)


@pytest.fixture
def front(server, upstream):
    """A route that asks the upstream first, then another."""
    second = Upstream(lambda call: call.send(MAKERS["openai.chat"].stream(Said("second")), "text/event-stream") if call.asked.get("stream")
                      else call.say(MAKERS["openai.chat"].whole(Said("second"))))
    server.deploy("second", engine="openai", task="chat", endpoint={"url": second.url})
    made = server.make("routes", name="front", targets=[{"deployment": upstream.maker.name}, {"deployment": "second"}])
    yield
    server.call("DELETE", f"/lathe/v1/routes/{made['id']}")
    server.remove("second")
    second.close()


def test_another_answers_where_it_is_not_the_clients_fault(server, front, upstream):
    for status in (401, 429, 529):
        upstream.status = status
        for one in CLIENTS.values():
            for stream in (False, True):
                assert one(server, server.app_key).ask("front", ASK, stream).text == "second"
    upstream.status = 400
    with pytest.raises(openai.BadRequestError):
        CLIENTS["openai"](server, server.app_key).ask("front", ASK)
    upstream.status, upstream.raw = 200, upstream.maker.failure("out of order")
    for one in CLIENTS.values():
        assert one(server, server.app_key).ask("front", ASK, True).text == "second"
    if upstream.maker.name == "anthropic":  # what the dialect has no place for, another's may have
        upstream.reset()
        assert CLIENTS["openai"](server, server.app_key).ask("front", ASK, seed=1).text == "second"


def told(answer):
    """The events of a stream, or the lines."""
    if answer.headers["content-type"].startswith("application/x-ndjson"):
        return [json.loads(line) for line in answer.body.splitlines()]
    return [json.loads(line[6:]) for line in answer.body.decode().split("\n") if line.startswith("data: ") and line != "data: [DONE]"]


def ask(server, path, model, **more):
    return server.call("POST", path, {"model": model, "messages": ASK, "stream": True, **({"max_tokens": 9} if path == "/v1/messages" else {}), **more}, key=server.app_key)


PATHS = ["/v1/chat/completions", "/v1/messages", "/ollama/api/chat"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", ["failure", "broken", "garbage"])
def test_a_stream_that_goes_wrong_ends_with_an_error(server, upstream, path, how):
    """Within a 200: an error, the end of the connection, something else."""
    begun = upstream.maker.begun(Said("x" * 400))
    more = {"failure": upstream.maker.failure("out of order"), "broken": b"", "garbage": b"data: <html>\n\n" if upstream.maker.name != "ollama.chat" else b"<html>\n"}
    upstream.raw = begun + more[how]
    answer = ask(server, path, upstream.maker.name)
    events = told(answer)
    assert answer.status == 200 and "error" in events[-1] and not any("error" in e for e in events[:-1]), answer.body[-600:]
    assert b"[DONE]" not in answer.body and b"message_stop" not in answer.body and b'"done":true' not in answer.body
    same = path == PATHS[0] and upstream.maker.name == "openai.chat"
    assert how != "failure" or same or "out of order" in json.dumps(events[-1])
    row, = last_row(server)
    assert (row["outcome"], row["tokens_exact"]) == ("error", 0)
    if upstream.maker.name == "anthropic":      # it says the prompt's count first
        assert row["prompt_tokens"] == SAYS.prompt
    assert row["completion_tokens"] in ((100, 9) if path == "/v1/messages" else (100,)), row    # four bytes a token, at most what was allowed


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_ends_it(server, upstream, path):
    upstream.begins, upstream.waits = upstream.maker.begun(Said("x" * 400)), True
    body = json.dumps({"model": upstream.maker.name, "messages": ASK, "stream": True, "max_tokens": 1000} if path != "/ollama/api/chat"
                      else {"model": upstream.maker.name, "messages": ASK}).encode()
    before = {r["id"] for r in last_row(server, 1000)}
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as s:
        s.settimeout(20 * SLOWER)
        s.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {server.app_key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        seen = b""
        while seen.count(b"xxxx") < 100:
            seen += s.recv(65536)
    assert upstream.left.acquire(timeout=20 * SLOWER)
    row = wait_for("its row", 20, lambda: next((r for r in last_row(server) if r["id"] not in before and r["outcome"] == "cancelled"), None))
    assert (row["tokens_exact"], row["completion_tokens"]) == (0, 100)
    assert row["prompt_tokens"] == (SAYS.prompt if upstream.maker.name == "anthropic" else len(body))


@pytest.mark.parametrize("raw", [b"<html>busy</html>", b"{}", b'{"id":', b"null", b""], ids=["html", "empty", "half", "null", "nothing"])
def test_an_answer_that_is_none(server, upstream, raw):
    upstream.raw = raw
    for path in PATHS:
        for stream in (False, True):
            if not stream and raw in (b"{}", b"null") and path == PATHS[0] and upstream.maker.name == "openai.chat":
                continue    # passes as it came
            a = ask(server, path, upstream.maker.name, stream=stream)
            assert a.status in (502, 200) and (a.status == 502 or "error" in told(a)[-1]), (path, stream, a.body)


def test_a_prompt_that_is_too_long_says_so(server, world):
    u = world[1]["anthropic"]
    u.reset()
    u.status, error = 400, u.maker.error
    u.maker.error = lambda kind, message: error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")
    try:
        a = server.call("POST", "/v1/chat/completions", {"model": "anthropic", "messages": ASK}, key=server.app_key)
    finally:
        del u.maker.error
    assert a.status == 400 and a.json["error"]["code"] == "context_length_exceeded" and "210000" in a.json["error"]["message"], a.body
