# SPDX-License-Identifier: Apache-2.0
"""What an object was: revisions of a deployment, and the way back, with its sealed key, on the real server."""

import http.server
import json

import pytest

from conftest import wait_for
from upstream import Upstream, completion


def one_key_only(key):
    def post(call):
        if call.headers["Authorization"] != f"Bearer {key}":
            call.say({"error": {"message": "no such key"}}, 401)
        else:
            call.say(completion("yes"))
    return Upstream(post)


@pytest.fixture
def attached(server):
    upstream = one_key_only("right")
    server.deploy("past", engine="openai", task="chat", endpoint={"url": upstream.url, "api_key": "right"})
    yield upstream
    if server.deployment("past"):
        server.remove("past")
    upstream.close()


def revisions(server, subject, **more):
    query = "&".join(f"{k}={v}" for k, v in {"subject": subject, **more}.items())
    return server.call("GET", f"/lathe/v1/revisions?{query}").json["data"]


def answers(server):
    return server.call("POST", "/v1/chat/completions", {"model": "past", "messages": [{"role": "user", "content": "?"}]},
                       key=server.app_key).status == 200


def test_a_change_is_kept_and_taken_back(server, attached):
    wait_for("an answer", 20, lambda: answers(server) or None)
    past = server.change("past", queue_max=7, endpoint={"api_key": "wrong"})
    wait_for("the wrong key's use", 20, lambda: None if answers(server) else True)
    kept = revisions(server, past["id"])
    assert [(r["verb"], r["number"], r["subject_name"]) for r in kept] == [("create", 1, "past"), ("update", 2, "past")]
    assert kept[1]["change"]["queue_max"] == [100, 7] and kept[0]["wish"]["queue_max"] == 100
    shown = json.dumps(kept)
    assert "right" not in shown and "wrong" not in shown and "kept" not in kept[0]

    a = server.call("POST", f"/lathe/v1/revisions/{kept[0]['id']}/restore")
    assert a.status == 200 and a.json["restored_at"], a.body
    assert server.deployment("past")["queue_max"] == 100
    wait_for("the right key's use", 20, lambda: answers(server) or None)
    assert [r["number"] for r in revisions(server, past["id"])] == [1, 2, 3]
    verbs = server.call("GET", f"/lathe/v1/audit_entries?subject={past['id']}").json["data"]
    assert [e["verb"] for e in verbs] == ["create", "update", "update"]


def test_a_dry_run_changes_nothing(server, attached):
    past = server.change("past", queue_max=7)
    first = revisions(server, past["id"])[0]
    assert server.call("POST", f"/lathe/v1/revisions/{first['id']}/restore?dry_run=true").status == 200
    assert server.deployment("past")["queue_max"] == 7 and len(revisions(server, past["id"])) == 2


def test_it_takes_the_permission_to_change(server, attached):
    past = server.change("past", queue_max=7)
    first = revisions(server, past["id"])[0]
    server.make("roles", name="historian", permissions=["revisions.*"])
    account = server.make("service_accounts", name="historian", roles=["historian"])
    key = server.make("api_keys", name="historian", service_account=account["id"])["key"]
    a = server.call("POST", f"/lathe/v1/revisions/{first['id']}/restore", key=key)
    assert a.status == 403 and "deployments.update" in a.json["error"]["message"], a.body
    assert server.deployment("past")["queue_max"] == 7
    other = server.make("projects", name="past-other")["id"]
    assert server.call("GET", f"/p/{other}/lathe/v1/revisions").json["data"] == []
    assert server.call("POST", f"/p/{other}/lathe/v1/revisions/{first['id']}/restore").status == 404


def test_what_is_gone_is_said(server, attached):
    past = server.deployment("past")
    server.remove("past")
    kept = revisions(server, past["id"])
    assert [(r["verb"], r["number"]) for r in kept] == [("create", 1), ("delete", 0)]
    a = server.call("POST", f"/lathe/v1/revisions/{kept[0]['id']}/restore")
    assert (a.status, a.json["error"]["reason"]) == (409, "subject_gone"), a.body
