# SPDX-License-Identifier: Apache-2.0
"""How a route finds its first target: by load, latency, cost or conversation; and what failed in a row, which is asked last until
one request finds that it answers again."""

import collections
import contextlib
import pathlib
import tempfile
import threading
import time

import pytest

from conftest import Server, wait_for
from harness import SLOWER, Background
from upstream import Upstream, completion

OPEN_MS = 2500 * SLOWER


class Named(Upstream):
    """Says its name after `slow` seconds, or refuses."""

    def __init__(self, name):
        self.name, self.asked = name, 0
        self.reset()
        super().__init__()

    def reset(self):
        self.status, self.slow, self.headers, self.gate = 200, 0, {}, None

    def post(self, call):
        self.asked += 1
        if self.gate:
            self.gate.wait(60)
        if self.slow:
            threading.Event().wait(self.slow)
        if self.status == 200:
            return call.say(completion(self.name, self.name))
        call.send_response(self.status)
        body = b'{"error": {"message": "not today"}}'
        for name, value in {**self.headers, "Content-Length": str(len(body)), "Content-Type": "application/json"}.items():
            call.send_header(name, value)
        call.end_headers()
        return call.wfile.write(body)


@pytest.fixture(scope="module")
def world():
    with tempfile.TemporaryDirectory(prefix="lathe-strategies-") as top, contextlib.ExitStack() as after:
        s = Server(pathlib.Path(top) / "data")
        s.data.mkdir()
        s.start("--gateway.breaker_failures=3", f"--gateway.breaker_open={int(OPEN_MS)}ms")
        after.callback(s.end)
        s.use_app()
        s.upstreams = {name: Named(name) for name in "abc"}
        for name, u in s.upstreams.items():
            after.callback(u.close)
            s.make("prices", name=name, model=name, input=str(1 + "cab".index(name)), output="1")
        yield s


@pytest.fixture
def server(world):
    """The deployments are new for each test: nothing is known of them."""
    for name, u in world.upstreams.items():
        u.reset()
        world.deploy(name, engine="openai", task="chat", slots=8, endpoint={"url": u.url})
    yield world
    for kind in ("routes", "deployments"):
        for r in world.call("GET", f"/lathe/v1/{kind}").json["data"]:
            if kind == "routes":
                assert world.call("DELETE", f"/lathe/v1/routes/{r['id']}").status == 204
            else:
                world.remove(r["name"])


def route(server, strategy, *names, **more):
    return server.make("routes", name="r", strategy=strategy, targets=[{"deployment": n} for n in names], **more)


def ask(server, said="?", headers=None, **more):
    body = {"model": "r", "max_tokens": 4, "messages": said if isinstance(said, list) else [{"role": "user", "content": said}], **more}
    return server.call("POST", "/v1/chat/completions", body, key=server.app_key, headers=headers)


def who(server, *said, **more):
    a = ask(server, *said, **more)
    assert a.status == 200, a.body
    return a.json["choices"][0]["message"]["content"]


def explained(server):
    return {t["deployment"]: t for t in server.call("GET", "/lathe/v1/model_plans/r").json["targets"]}


def test_the_least_busy_one_is_asked(server):
    route(server, "least_busy", "a", "b")
    server.upstreams["a"].gate = gate = threading.Event()
    server.upstreams["a"].asked = 0
    direct = lambda *_: server.call("POST", "/v1/chat/completions", {"model": "a", "messages": [{"role": "user", "content": "?"}]}, key=server.app_key)
    with Background(4, direct):
        try:
            wait_for("a to be busy", 20, lambda: (server.upstreams["a"].asked == 4) or None)
            assert {who(server) for _ in range(20)} == {"b"}
        finally:
            gate.set()
    server.upstreams["a"].gate = None
    wait_for("turns", 20, lambda: ({who(server) for _ in range(40)} == {"a", "b"}) or None)   # as free as each other


def test_the_faster_one_is_asked(server):
    route(server, "lowest_latency", "a", "b")
    server.upstreams["a"].slow = 0.3
    asked = collections.Counter(who(server) for _ in range(40))
    assert asked["b"] >= 30 and asked["a"] >= 1, asked
    server.upstreams["a"].slow, server.upstreams["b"].slow = 0, 0.6
    wait_for("it to notice", 60, lambda: (who(server) == "a") or None)            # one slow answer is enough
    assert collections.Counter(who(server) for _ in range(20))["a"] >= 15


def test_the_cheapest_one_is_asked(server):
    route(server, "lowest_cost", "a", "b", "c")
    assert [who(server) for _ in range(5)] == ["c"] * 5
    server.upstreams["c"].status = 500
    assert [who(server) for _ in range(5)] == ["a"] * 5


def test_a_conversation_stays_where_it_is(server):
    made = route(server, "sticky", "a", "b", "c")
    users = {f"user {i}": who(server, user=f"user {i}") for i in range(40)}
    assert set(users.values()) == {"a", "b", "c"}
    assert all(who(server, f"another question {i}", user=u) == at for i, (u, at) in enumerate(users.items()))
    sessions = {f"s{i}": who(server, headers={"Lathe-Session": f"s{i}"}) for i in range(20)}
    assert all(who(server, user="somebody", headers={"Lathe-Session": s}) == at for s, at in sessions.items())
    for i in range(20):                                                 # by how it begins
        first = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"question {i}"}]
        at = who(server, first)
        assert who(server, [*first, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And?"}]) == at
    server.call("PATCH", f"/lathe/v1/routes/{made['id']}", {"targets": [{"deployment": "a"}, {"deployment": "b"}]})
    after = {u: who(server, user=u) for u in users}
    assert all(after[u] == at for u, at in users.items() if at != "c")  # only those whose target went have moved
    assert {after[u] for u, at in users.items() if at == "c"} == {"a", "b"}


def test_what_failed_in_a_row_is_asked_last_until_it_answers(server):
    route(server, "ordered", "a", "b")
    a = server.upstreams["a"]
    a.status, a.asked, began = 500, 0, time.monotonic()
    assert [who(server) for _ in range(10)] == ["b"] * 10 and a.asked == 3
    why = explained(server)["a"]
    assert "failed 3 times in a row" in why["why"] and server.call("GET", "/lathe/v1/model_plans/r").json["deployment"] == "b"
    wait_for("one request to find out", 30, lambda: (who(server) == "b" and a.asked == 4) or None)
    assert time.monotonic() - began > OPEN_MS / 1000
    assert [who(server) for _ in range(5)] == ["b"] * 5 and a.asked == 4   # for twice as long
    a.status = 200
    wait_for("it to be asked again", 30, lambda: (who(server) == "a") or None)
    assert [who(server) for _ in range(5)] == ["a"] * 5 and explained(server)["a"]["why"] is None


def test_where_all_failed_they_are_asked_all_the_same(server):
    route(server, "ordered", "a", "b")
    for name in "ab":
        server.upstreams[name].status = 500
    assert {ask(server).status for _ in range(8)} == {502}
    for name in "ab":
        server.upstreams[name].status = 200
    assert ask(server).status == 200


def test_what_asks_to_be_left_alone_is(server):
    route(server, "ordered", "a", "b")
    a = server.upstreams["a"]
    a.status, a.headers, a.asked = 429, {"Retry-After": "30"}, 0
    assert [who(server) for _ in range(5)] == ["b"] * 5 and a.asked == 1
    alone = server.call("POST", "/v1/chat/completions", {"model": "a", "messages": [{"role": "user", "content": "?"}]}, key=server.app_key)
    assert (alone.status, alone.headers["Retry-After"]) == (429, "30")
