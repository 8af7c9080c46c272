# SPDX-License-Identifier: Apache-2.0
"""Routes: names that clients use, their targets in order or by weight, fallback, and publishing; on fake engines."""

import collections
import contextlib
import pathlib
import tempfile
import threading
import urllib.parse

import openai
import pytest

from conftest import Server, wait_for
from upstream import Upstream, completion


class Named(Upstream):
    """Says its name, or refuses with the status it was given."""

    def __init__(self, name):
        self.name, self.status, self.asked, self.open = name, 200, 0, threading.Event()
        self.open.set()
        super().__init__()

    def post(self, call):
        self.asked += 1
        self.open.wait(60)
        if self.status != 200:
            call.say({"error": {"message": f"{self.name} says no"}}, self.status)
        else:
            call.say(completion(self.name, self.name))

    @contextlib.contextmanager
    def held(self):
        """Answers wait until the end of the block."""
        self.open.clear()
        try:
            yield
        finally:
            self.open.set()


@pytest.fixture(scope="module")
def world():
    """A server with the attached deployments a, b and c, and what is behind them; narrow takes one request at a time to c."""
    with tempfile.TemporaryDirectory(prefix="lathe-routes-") as top, contextlib.ExitStack() as after:
        s = Server(pathlib.Path(top) / "data")
        s.data.mkdir()
        s.start("--gateway.breaker_failures=0")       # test_strategies.py has it
        after.callback(s.end)
        s.use_app()
        s.upstreams = {name: Named(name) for name in "abc"}
        for name, u in s.upstreams.items():
            after.callback(u.close)
            s.deploy(name, engine="openai", task="chat", endpoint={"url": u.url})
        s.deploy("narrow", engine="openai", task="chat", slots=1, endpoint={"url": s.upstreams["c"].url})
        yield s


@pytest.fixture
def server(world):
    for u in world.upstreams.values():
        u.status, u.asked = 200, 0
    yield world
    for r in world.call("GET", "/lathe/v1/routes").json["data"]:
        assert world.call("DELETE", f"/lathe/v1/routes/{r['id']}").status == 204


def route(server, name, *targets, **more):
    return server.make("routes", name=name, targets=[t if isinstance(t, dict) else {"deployment": t} for t in targets], **more)


def ask(server, model, key=None, **more):
    return server.call("POST", "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "?"}], **more},
                       key=key or server.app_key)


def who(server, model, **more):
    a = ask(server, model, **more)
    assert a.status == 200, a.body
    return a.json["choices"][0]["message"]["content"]


def test_targets_in_their_order(server):
    route(server, "front", "b", "a")
    assert [who(server, "front") for _ in range(5)] == ["b"] * 5
    names = [m.id for m in openai.OpenAI(base_url=server.url + "/v1", api_key=server.app_key).models.list()]
    assert sorted(names) == ["a", "b", "c", "front", "narrow"]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 401])
def test_the_next_answers_for_one_that_fails(server, status):
    route(server, "front", "a", "b")
    server.upstreams["a"].status = status
    a = ask(server, "front")
    assert a.status == 200 and a.json["choices"][0]["message"]["content"] == "b", a.body
    assert a.headers["x-lathe-attempts"] == "2"
    server.folded()
    rows = server.rows("SELECT attempt, outcome FROM usage WHERE request_id = ? ORDER BY attempt", a.headers["x-request-id"])
    assert [(r["attempt"], r["outcome"]) for r in rows] == [(1, "error"), (2, "ok")]


def test_what_the_client_did_wrong_is_not_asked_again(server):
    route(server, "front", "a", "b")
    server.upstreams["a"].status = 400
    assert ask(server, "front").status == 400 and server.upstreams["b"].asked == 0


def test_all_fail_as_the_last_one_did(server):
    route(server, "front", "a", "b", attempts_max=2)
    server.upstreams["a"].status, server.upstreams["b"].status = 500, 429
    a = ask(server, "front")
    assert (a.status, a.json["error"]["code"]) == (429, "engine_refused"), a.body
    route(server, "once", "a", "b", attempts_max=1)
    assert ask(server, "once").status == 502


def test_weights_are_shares(server):
    route(server, "shared", {"deployment": "a", "weight": 3}, {"deployment": "b", "weight": 1}, {"deployment": "c", "weight": 0},
          strategy="weighted")
    n = 400
    asked = collections.Counter(who(server, "shared") for _ in range(n))
    assert asked["c"] == 0 and asked["a"] + asked["b"] == n
    assert abs(asked["a"] - 0.75 * n) < 5 * (n * 0.75 * 0.25) ** 0.5, asked       # five standard deviations
    server.upstreams["a"].status = server.upstreams["b"].status = 503
    assert who(server, "shared") == "c"


def test_a_route_stands_before_a_deployment_of_its_name(server):
    route(server, "a", "b")
    assert who(server, "a") == "b"


def test_a_change_is_one_step_and_goes_back(server):
    made = route(server, "front", "a")
    assert server.call("PATCH", f"/lathe/v1/routes/{made['id']}", {"targets": [{"deployment": "b"}]}).status == 200
    assert who(server, "front") == "b"
    first = server.call("GET", f"/lathe/v1/revisions?subject={made['id']}").json["data"][0]
    assert server.call("POST", f"/lathe/v1/revisions/{first['id']}/restore").status == 200
    assert who(server, "front") == "a"


def test_published_names_serve_other_projects(server):
    server.make("projects", name="tenant")
    account = server.call("POST", "/p/tenant/lathe/v1/service_accounts", {"name": "app", "roles": ["application"]}).json
    key = server.call("POST", "/p/tenant/lathe/v1/api_keys", {"name": "app", "service_account": account["id"]}).json["key"]
    assert ask(server, "front", key=key).status == 404
    made = route(server, "front", "a", published=True)
    a = ask(server, "front", key=key)
    assert a.status == 200
    assert ask(server, "a", key=key).status == 404       # the name is published, not what is behind it
    server.folded()
    row, = server.rows("SELECT project FROM usage WHERE request_id = ?", a.headers["x-request-id"])
    tenant = server.call("GET", "/lathe/v1/projects/tenant").json["id"]
    assert row["project"] == tenant                      # who calls pays
    again = server.call("POST", "/p/tenant/lathe/v1/routes", {"name": "front", "published": True, "targets": [{"deployment": "a"}]})
    assert again.status == 400, again.body               # another project's deployment is none here
    assert server.call("PATCH", f"/lathe/v1/routes/{made['id']}", {"published": False}).status == 200
    assert ask(server, "front", key=key).status == 404


def test_bad_routes_are_refused(server):
    def refused(reason, **fields):
        a = server.call("POST", "/lathe/v1/routes", {"name": "bad", **fields})
        assert a.json["error"]["reason"] == reason, a.body
    refused("field_required")
    refused("field_length", targets=[])
    refused("field_reference", targets=[{"deployment": "none"}])
    refused("target_twice", targets=[{"deployment": "a"}, {"deployment": "a"}])
    refused("no_weight", strategy="weighted", targets=[{"deployment": "a", "weight": 0}])
    made = route(server, "front", "a")
    a = server.call("DELETE", "/lathe/v1/deployments/a")
    assert (a.status, a.json["error"]["reason"]) == (409, "in_use") and made["id"]


def test_a_full_target_spills_over(server):
    """The first target's one slot is taken: the next is asked after spill_ms, not after the whole queue time."""
    with server.upstreams["c"].held():
        route(server, "front", "narrow", "b", spill_ms=100)
        first = threading.Thread(target=ask, args=(server, "narrow"))
        first.start()
        wait_for("the first request", 20, lambda: server.upstreams["c"].asked or None)
        assert who(server, "front") == "b"
        assert server.upstreams["c"].asked == 1
    first.join()


# ---- what would happen, and why


def explain(server, model, **query):
    a = server.call("GET", f"/lathe/v1/model_plans/{model}?" + urllib.parse.urlencode(query))
    assert a.status == 200, a.body
    return a.json


def test_it_says_who_would_answer(server):
    route(server, "front", "b", "a")
    e = explain(server, "front", prompt_tokens=100)
    assert (e["outcome"], e["deployment"], e["route"], e["strategy"]) == ("answered", "b", "front", "ordered")
    assert [(t["deployment"], t["can"], t["share"], t["running"]) for t in e["targets"]] == [("b", "now", 1, 0), ("a", "now", 0, 0)]
    e = explain(server, "a")
    assert (e["outcome"], e["route"], [t["deployment"] for t in e["targets"]]) == ("answered", None, ["a"])
    e = explain(server, "nothing")
    assert (e["outcome"], e["status"], e["code"], e["targets"]) == ("refused", 404, "model_not_found", []) and "narrow" in e["why"]
    e = explain(server, "front", operation="embedding")
    assert (e["outcome"], e["status"]) == ("refused", 400) and [t["can"] for t in e["targets"]] == ["no", "no"]
    a = server.call("GET", "/lathe/v1/model_plans/front?operation=chatt")
    assert a.status == 400 and "operation" in a.json["error"]["message"]


def test_it_says_who_waits_and_for_whom(server):
    with server.upstreams["c"].held():
        first = threading.Thread(target=ask, args=(server, "narrow"))
        first.start()
        wait_for("the first request", 20, lambda: server.upstreams["c"].asked or None)
        e = explain(server, "narrow")
        assert (e["outcome"], e["deployment"]) == ("waits", "narrow") and "1 requests are under way" in e["why"]
        assert (e["targets"][0]["running"], e["targets"][0]["free"], e["targets"][0]["can"]) == (1, 0, "after a wait")
        assert e["targets"][0]["wait_ms"] >= 1000
    first.join()
    assert explain(server, "narrow")["outcome"] == "answered"


def test_it_does_not_show_what_is_behind_a_published_name(server):
    server.make("projects", name="guest")
    route(server, "front", "b", "a", published=True)
    e = server.call("GET", "/p/guest/lathe/v1/model_plans/front").json
    assert (e["outcome"], e["deployment"]) == ("answered", "target 1")
    assert [(t["deployment"], t["model"], t["state"], t["running"], t["can"]) for t in e["targets"]] == [
        (f"target {n}", None, None, None, "now") for n in (1, 2)]
    assert e["project"] and server.call("GET", "/p/guest/lathe/v1/model_plans/a").json["code"] == "model_not_found"


def test_it_draws_as_a_request_drew(server):
    route(server, "shared", {"deployment": "a", "weight": 1}, {"deployment": "b", "weight": 1}, strategy="weighted")
    answers = [ask(server, "shared") for _ in range(20)]
    said = [a.json["choices"][0]["message"]["content"] for a in answers]
    assert [explain(server, "shared", request_id=a.headers["x-request-id"])["deployment"] for a in answers] == said
    assert len(set(said)) == 2 and explain(server, "shared")["targets"][0]["share"] == 0.5


def test_it_knows_a_keys_limits_and_what_is_to_be_paid(server):
    account = server.make("service_accounts", name="limited", roles=["application"])
    made = server.make("api_keys", name="limited", service_account=account["id"], limits={"requests_per_minute": 1, "money_per_day": "0.01"})
    price = server.make("prices", name="b", model="b", input="10", output="20")
    route(server, "front", "b")
    e = explain(server, "front", api_key="limited", prompt_tokens=100, max_tokens=50)
    assert (e["outcome"], e["targets"][0]["cost_most"], e["targets"][0]["currency"]) == ("answered", "0.002", "USD")
    e = explain(server, "front", api_key="limited", prompt_tokens=1000, max_tokens=50)
    assert (e["outcome"], e["status"], e["code"]) == ("refused", 429, "budget_reached"), e
    assert [(limit["limit"], limit["refuses"]) for limit in e["limits"]] == [("requests_per_minute", False), ("money_per_day", True)]
    assert ask(server, "front", key=made["key"], max_tokens=5).status == 200
    e = explain(server, "front", api_key=made["id"])
    assert [limit["remaining"] for limit in e["limits"]][0] == "0" and e["retry_after_ms"] > 0 and e["outcome"] == "refused"
    assert explain(server, "front")["outcome"] == "answered"
    said = server.cli("route", "explain", "front", "--api_key", "limited")
    assert "_reached" in said.stdout and "requests_per_minute" in said.stdout
    assert server.call("DELETE", f"/lathe/v1/prices/{price['id']}").status == 204
    assert server.call("GET", "/lathe/v1/model_plans/front?api_key=nobody").status == 404
