# SPDX-License-Identifier: Apache-2.0
"""Limits of projects and organisations, over all their keys: on a fake upstream whose answers cost what it says."""

import concurrent.futures
import decimal
import json
import pathlib
import tempfile

import pytest

from conftest import Server
from upstream import Upstream, completion

SAID = "yes"


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory(prefix="lathe-limits-") as top:
        upstream = Upstream(lambda call: call.say(completion(SAID, prompt=10, tokens=call.asked["max_tokens"] - 1)))
        s = Server(pathlib.Path(top) / "data")
        s.data.mkdir()
        s.start()
        s.use_app()
        account = s.make("service_accounts", name="second", roles=["application"])
        second = s.make("api_keys", name="second", service_account=account["id"])
        s.second_key, s.second = second["key"], second["id"]
        s.make("prices", name="out", model="out", input="1", output="1")
        s.deploy("out", engine="openai", task="chat", slots=64, endpoint={"url": upstream.url})
        yield s
        s.end()
        upstream.close()


@pytest.fixture(autouse=True)
def unlimited(server):
    yield
    for place in ("projects", "organisations"):
        assert server.call("PATCH", f"/lathe/v1/{place}/default", {"limits": None}).status == 200


def limit(server, place, **limits):
    a = server.call("PATCH", f"/lathe/v1/{place}/default", {"limits": limits})
    assert a.status == 200, a.body


def ask(server, key=None, tokens=10):
    return server.call("POST", "/v1/chat/completions", {"model": "out", "max_tokens": tokens, "messages": [{"role": "user", "content": "?"}]},
                       key=key or server.app_key)


@pytest.mark.parametrize("place, code", [("projects", "project_limit_reached"), ("organisations", "organisation_limit_reached")])
def test_requests_a_minute_over_all_keys(server, place, code):
    limit(server, place, requests_per_minute=3)
    answers = [ask(server, key) for key in (server.app_key, server.second_key) * 2]
    assert [a.status for a in answers] == [200, 200, 200, 429]
    refused = answers[-1]
    assert refused.json["error"]["code"] == code and "requests_per_minute of 3" in refused.json["error"]["message"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 20
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3" and answers[0].headers["x-ratelimit-remaining-requests"] == "2"
    explained = server.call("GET", "/lathe/v1/model_plans/out?api_key=second").json
    assert (explained["outcome"], explained["code"]) == ("refused", code)
    assert [(one["of"], one["refuses"]) for one in explained["limits"]] == [(place[:-1], True)]


def test_tokens_a_minute_are_those_that_were_used(server):
    """A request reserves its bytes and 100 tokens; it uses 109."""
    limit(server, "projects", tokens_per_minute=1000)
    answers = [ask(server, tokens=100)]
    while answers[-1].status == 200 and len(answers) < 20:
        answers.append(ask(server, tokens=100))
    assert answers[-1].status == 429 and 9 <= len(answers) <= 14, [a.status for a in answers]     # 8, and what a slow run frees
    assert answers[0].headers["x-ratelimit-limit-tokens"] == "1000"
    assert int(answers[0].headers["x-ratelimit-remaining-tokens"]) > int(answers[5].headers["x-ratelimit-remaining-tokens"])
    refused = answers[-1].json["error"]
    assert refused["code"] == "project_limit_reached" and "tokens_per_minute of 1000" in refused["message"]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert ask(server, tokens=100000).status == 429      # it may use more than a minute has: it waits until all is free


def test_a_burst_does_not_overspend_a_project(server):
    """Each request reserves a body's bytes and 10 tokens and costs 19; the limit holds for what they cost, to the last nano-unit."""
    def spent():
        server.folded()
        return sum(decimal.Decimal(r["cost"]) for r in server.call("GET", "/lathe/v1/usage?limit=500").json["data"])

    before = spent()
    budget = before + decimal.Decimal("0.003")
    limit(server, "projects", money_per_day=str(budget))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: ask(server, (server.app_key, server.second_key)[n % 2]), range(300)))
    ok = [a for a in answers if a.status == 200]
    assert {a.status for a in answers} == {200, 429} and len(ok) >= 100
    assert {a.json["error"]["code"] for a in answers if a.status == 429} == {"budget_reached"}
    after = spent()
    assert after - before == len(ok) * decimal.Decimal("0.000019") and after <= budget
    server.kill()                                        # what was spent is known again
    server.start()
    server.ready("out")
    refused = ask(server, tokens=1000)
    assert (refused.status, refused.json["error"]["code"]) == (429, "budget_reached"), refused.body
    assert "project default" in refused.json["error"]["message"] and "Retry-After" in refused.headers


@pytest.mark.parametrize("period", ["money_per_month", "money_total"])
def test_money_of_a_month_and_in_all(server, period):
    """Money that was spent before there was such a limit counts; so it does after the server died."""
    assert ask(server, server.second_key).status == 200
    server.folded()
    totals = server.call("GET", "/lathe/v1/usage_totals?by=key&from=2020-01-01").json["data"]
    mine = next(decimal.Decimal(t["cost"]) for t in totals if server.second in json.dumps(t))
    key = f"/lathe/v1/api_keys/{server.second}"
    try:
        server.call("PATCH", key, {"limits": {period: str(mine)}})
        refused = ask(server, server.second_key)
        error = refused.json["error"]
        assert (refused.status, error["code"]) == (429, "budget_reached") and period in error["message"], refused.body
        assert ("Retry-After" in refused.headers) == (period == "money_per_month")
        explained = server.call("GET", f"/lathe/v1/model_plans/out?api_key={server.second}").json
        assert [(one["limit"], one["remaining"], one["refuses"]) for one in explained["limits"]] == [(period, "0", True)]
        server.kill()
        server.start()
        server.ready("out")
        assert ask(server, server.second_key).json["error"]["code"] == "budget_reached"
        server.call("PATCH", key, {"limits": {period: str(mine + 1)}})
        assert ask(server, server.second_key).status == 200 and ask(server, server.second_key).headers["x-ratelimit-limit-money"] == str(mine + 1)
    finally:
        server.call("PATCH", key, {"limits": None})


def test_another_project_is_not_limited(server):
    server.make("projects", name="other")
    limit(server, "projects", requests_per_minute=1)
    account = server.call("POST", "/p/other/lathe/v1/service_accounts", {"name": "app", "roles": ["application"]}).json
    key = server.call("POST", "/p/other/lathe/v1/api_keys", {"name": "app", "service_account": account["id"]}).json["key"]
    made = server.make("routes", name="shared", targets=[{"deployment": "out"}], published=True)
    body = {"model": "shared", "max_tokens": 2, "messages": [{"role": "user", "content": "?"}]}
    assert [server.call("POST", "/v1/chat/completions", body, key=key).status for _ in range(3)] == [200] * 3
    assert [ask(server).status for _ in range(2)] == [200, 429]
    assert server.call("DELETE", f"/lathe/v1/routes/{made['id']}").status == 204
