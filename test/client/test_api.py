# SPDX-License-Identifier: Apache-2.0
"""Lathe's own API: tenants, permissions, bad input, idempotency, audit; on the real server."""

import json
import os
import subprocess

import pytest

from conftest import LATHE, SLOWER, Server, wait_for


def error(answer, status, reason):
    assert answer.status == status, (answer.status, answer.body)
    e = answer.json["error"]
    assert e["reason"] == reason and e["request_id"] and e["message"], e
    return e


BAD_BODIES = [
    (b'{"name": "x"', "json_syntax"), (b"", "json_syntax"), (b'{"name": "\xff"}', "json_utf8"), (b"[" * 5000 + b"]" * 5000, "json_depth"),
    (b'["name"]', "field_type"), (b'{"name": 5}', "field_type"), (b'{"name": "x", "titel": "t"}', "unknown_field"),
    (b'{"name": "a/b"}', "field_name"), (b'{"name": ""}', "field_length"), (b"{}", "field_required"),
    (b'{"name": "x", "revision": 7}', "field_readonly"), (b'{"name": "x", "title": "' + b"t" * 201 + b'"}', "field_length"),
]


@pytest.mark.parametrize("body,reason", BAD_BODIES)
def test_bad_bodies_change_nothing(server, body, reason):
    before = server.call("GET", "/lathe/v1/service_accounts").json
    e = error(server.call("POST", "/lathe/v1/service_accounts", raw=body), 400, reason)
    if reason == "unknown_field":
        assert e["field"] == "titel" and "title" in e["message"]
    assert server.call("GET", "/lathe/v1/service_accounts").json == before


def test_too_large_a_body(server):
    assert server.call("POST", "/lathe/v1/service_accounts", raw=b" " * (2 << 20)).status == 413


def test_unknown_ids_and_other_projects_ids_are_the_same_404(server):
    other = server.make("projects", name="other")
    mine = server.make("service_accounts", name="mine", roles=["viewer"])
    a = server.call("GET", "/lathe/v1/service_accounts/" + mine["id"], headers={"OpenAI-Project": other["id"]})
    b = server.call("GET", "/lathe/v1/service_accounts/sa_01h00000000000000000000000")
    assert error(a, 404, "not_found")["message"].replace(mine["id"], "X") == \
        error(b, 404, "not_found")["message"].replace("sa_01h00000000000000000000000", "X")
    assert server.call("GET", f"/p/{other['name']}/lathe/v1/service_accounts").json["data"] == []
    assert server.call("PATCH", f"/p/{other['id']}/lathe/v1/service_accounts/{mine['id']}", {"title": "t"}).status == 404
    assert server.call("DELETE", f"/p/{other['id']}/lathe/v1/service_accounts/{mine['id']}").status == 404


def test_an_application_key_may_use_models_and_nothing_else(server):
    for method, path in [("GET", "/lathe/v1/models"), ("GET", "/lathe/v1/api_keys"), ("GET", "/lathe/v1/settings"), ("GET", "/metrics"),
                         ("GET", "/lathe/v1/audit/verify"), ("GET", "/lathe/v1/organisations"), ("GET", "/lathe/v1/traces")]:
        assert server.call(method, path, key=server.app_key).status == 403, path
    assert server.call("GET", "/v1/models", key=server.app_key).status == 200


def test_one_cannot_give_away_what_one_does_not_have(server):
    role = server.make("roles", name="keeper", permissions=["service_accounts.*", "api_keys.*", "inference.use"])
    account = server.make("service_accounts", name="keeper", roles=[role["id"]])
    key = server.make("api_keys", name="keeper", service_account=account["id"])["key"]
    assert server.call("POST", "/lathe/v1/service_accounts", {"name": "up", "roles": ["owner"]}, key=key).status == 403
    assert server.call("POST", "/lathe/v1/service_accounts", {"name": "down", "roles": ["application"]}, key=key).status == 201


def test_a_revoked_key_stops_at_once(server):
    account = server.call("GET", "/lathe/v1/service_accounts/app").json
    made = server.make("api_keys", name="brief", service_account=account["id"])
    assert server.call("GET", "/v1/models", key=made["key"]).status == 200
    assert server.call("DELETE", "/lathe/v1/api_keys/" + made["id"]).status == 204
    assert server.call("GET", "/v1/models", key=made["key"]).status == 401


def test_idempotency(server):
    body = {"name": "once", "roles": []}
    first = server.call("POST", "/lathe/v1/service_accounts", body, headers={"Idempotency-Key": "k1"})
    again = server.call("POST", "/lathe/v1/service_accounts", body, headers={"Idempotency-Key": "k1"})
    assert first.status == again.status == 201 and first.json == again.json
    other = server.call("POST", "/lathe/v1/service_accounts", {"name": "twice"}, headers={"Idempotency-Key": "k1"})
    error(other, 409, "idempotency_key_reused")


def test_if_match_and_dry_run(server):
    a = server.make("service_accounts", name="match")
    got = server.call("GET", "/lathe/v1/service_accounts/match")
    dry = server.call("PATCH", "/lathe/v1/service_accounts/match?dry_run=true", {"title": "new"})
    assert dry.json["change"]["title"] == [None, "new"] and dry.json["dry_run"]
    assert server.call("GET", "/lathe/v1/service_accounts/match").json["title"] is None
    ok = server.call("PATCH", "/lathe/v1/service_accounts/match", {"title": "t"}, headers={"If-Match": got.headers["ETag"]})
    assert ok.status == 200 and ok.json["revision"] == a["revision"] + 1
    error(server.call("PATCH", "/lathe/v1/service_accounts/match", {"title": "u"}, headers={"If-Match": got.headers["ETag"]}),
          412, "revision_changed")


def test_lists_filter_sort_page_and_export(server):
    for i in range(7):
        server.make("service_accounts", name=f"page{i}", disabled=i % 2 == 0)
    names, cursor = [], ""
    while cursor is not None:
        page = server.call("GET", f"/lathe/v1/service_accounts?limit=3&sort=-name&q=PAGE&cursor={cursor}").json
        names += [row["name"] for row in page["data"]]
        cursor = page["next_cursor"]
    assert names == [f"page{i}" for i in range(6, -1, -1)]
    odd = server.call("GET", "/lathe/v1/service_accounts?q=page&disabled=false").json["data"]
    assert {row["name"] for row in odd} == {"page1", "page3", "page5"}
    lines = server.call("GET", "/lathe/v1/service_accounts?q=page&format=ndjson").body.splitlines()
    assert [json.loads(line)["name"] for line in lines] == [f"page{i}" for i in range(7)]
    assert len(server.call("GET", "/lathe/v1/service_accounts?q=page&format=csv").body.splitlines()) == 8
    error(server.call("GET", "/lathe/v1/service_accounts?colour=red"), 400, "bad_filter")
    error(server.call("GET", "/lathe/v1/service_accounts?cursor=00"), 400, "bad_cursor")


def test_every_change_is_audited_and_told(server):
    made = server.make("service_accounts", name="watched")
    server.call("PATCH", "/lathe/v1/service_accounts/watched", {"title": "t"})
    server.call("DELETE", "/lathe/v1/service_accounts/watched")
    rows = server.call("GET", f"/lathe/v1/audit_entries?subject={made['id']}").json["data"]
    assert [r["verb"] for r in rows] == ["create", "update", "delete"]
    assert rows[1]["change"]["title"][1] == "t" and all(r["actor_name"] == "admin" for r in rows)


def test_secrets_are_never_shown(server):
    made = server.make("secrets", name="token", value="hunter2-hunter2")
    assert "value" not in made and made["length"] == 15
    for body in (server.call("GET", "/lathe/v1/secrets/token").body, server.call("GET", "/lathe/v1/secrets").body,
                 server.call("GET", f"/lathe/v1/audit_entries?subject={made['id']}").body):
        assert b"hunter2" not in body
    assert b"hunter2" not in server.database.text()


def test_a_second_server_on_the_same_folder_says_so(server):
    r = subprocess.run([LATHE, "serve", "--data", str(server.data), "--listen", "127.0.0.1:0"], capture_output=True, text=True,
                       timeout=30 * SLOWER, check=False)
    assert r.returncode == 5 and "in use by process" in r.stderr


def test_a_hostile_file_is_refused_with_offset_and_reason(server, tmp_path):
    good = open(os.environ["SMOLLM2"], "rb").read(1 << 20)
    liar = tmp_path / "liar.gguf"
    liar.write_bytes(good[:8] + (1 << 60).to_bytes(8, "little") + good[16:])
    r = server.cli("model", "import", "liar", "--file", str(liar), "--wait", ok=False)
    assert r.returncode != 0 and "byte 8" in r.stderr, r.stderr


def test_audit_verify_finds_a_changed_a_missing_and_a_cut_row(server, tmp_path):
    with _own(tmp_path) as s:
        for i in range(5):
            s.make("service_accounts", name=f"a{i}")
        wait_for("a checkpoint", 5, lambda: True if (s.data / "audit" / "checkpoint.json").exists() else None)
        s.stop()                                              # writes the last checkpoint
        whole = s.database.save()
        for harm, what in [("UPDATE audit_entries SET verb = 'read' WHERE seq = 2", "changed"),
                           ("DELETE FROM audit_entries WHERE seq = 3", "missing"),
                           ("DELETE FROM audit_entries WHERE seq = 5; UPDATE audit_head SET seq = 4, hash = (SELECT hash FROM "
                            "audit_entries WHERE seq = 4) WHERE chain LIKE 'project/%'", "tail was cut")]:
            s.database.restore(whole)
            s.database.run(harm)
            report = _verify_stopped(s)
            assert not report["ok"] and any(what in f["what"] for f in report["faults"]), (harm, report)


class _own:
    def __init__(self, tmp_path):
        self.server = Server(tmp_path / "data")
        self.server.data.mkdir()

    def __enter__(self):
        return self.server.start()

    def __exit__(self, *_):
        self.server.stop()


def _verify_stopped(s):
    r = subprocess.run([LATHE, "audit", "verify", "--data", str(s.data), "-o", "json"], env=s.env, capture_output=True, text=True,
                       timeout=60 * SLOWER, check=False)
    assert r.returncode == 5, r
    return json.loads(r.stdout)


def test_a_permission_that_nothing_asks_for_is_a_slip(server):
    for kind, field in (("roles", "permissions"), ("api_keys", "scopes")):
        a = server.call("POST", f"/lathe/v1/{kind}", {"name": "slip", field: ["models.read", "modles.write"]})
        assert a.status == 400 and b"modles.write" in a.body and field.encode() in a.body, a.body


def test_a_flag_of_one_letter_is_a_flag(server):
    """`--q TEXT` is in every noun's help; it once asked for memory until there was none."""
    assert server.cli("model", "list", "--q", "nothing-has-this-name").returncode == 0
    wrong = server.cli("model", "list", "--x", "1", ok=False)
    assert wrong.returncode and "x" in wrong.stderr
