# SPDX-License-Identifier: Apache-2.0
"""What an object was: revisions of a deployment, and the way back, with its sealed key, on the real server."""

import http.server
import json
import threading

import pytest

from conftest import wait_for


class Upstream:
    """A server in OpenAI's dialect that answers one key only."""

    def __init__(self, key):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def say(self, status, value):
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.say(200, {"object": "list", "data": []})

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Authorization"] != f"Bearer {key}":
                    return self.say(401, {"error": {"message": "no such key"}})
                self.say(200, {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})

            def log_message(self, *words):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def attached(server):
    upstream = Upstream("right")
    server.deploy("past", engine="openai", task="chat", endpoint={"url": upstream.url, "api_key": "right"})
    yield upstream
    if server.deployment("past"):
        server.remove("past")
    upstream.server.shutdown()


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
