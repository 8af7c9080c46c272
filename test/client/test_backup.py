# SPDX-License-Identifier: Apache-2.0
"""A backup of a server that is being written to, restored elsewhere: what was acknowledged before the moment is there, and the new
server shares nothing with the old one."""

import datetime
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import threading
import time

import pytest
from harness import LATHE, ROOT, SLOWER, Background, FakeEngines, Server, SqliteFile, chat, wait_for

POSTGRES = os.environ.get("LATHE_TEST_DATABASE") == "postgres"
QUICK = ("--deployment.probe_every", "200ms", "--deployment.backoff_first", "500ms")


def lathe(*words, ok=True, env=None):
    r = subprocess.run([LATHE, *map(str, words)], capture_output=True, text=True, timeout=120 * SLOWER, check=False, env={**os.environ, **(env or {})})
    assert (r.returncode == 0) == ok, (r.returncode, r.stdout, r.stderr)
    return r


def said(r):
    return json.loads(r.stdout)


def start(top, name, engines, key=None, database=None):
    s = Server(top / name, database=database)
    s.data.mkdir(exist_ok=True)
    if key:
        (s.data / "admin.key").write_text(key)
    return s.start("--deployment.llama_server", str(engines.program), *QUICK)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A server with a model, a deployment, a key and a trace of work; writers that never rest are begun by the tests."""
    top = tmp_path_factory.mktemp("backup")
    engines = FakeEngines(top)
    s = start(top, "old", engines)
    s.top, s.engines, s.restored = top, engines, []
    s.cli("model", "import", "smol", "--file", str(ROOT / "fuzz" / "corpus" / "gguf" / "ok-llama"), "--wait")
    s.deploy("chat", model="smol", task="chat", slots=4, context=256)
    s.use_app()
    yield s
    for r in s.restored:
        r.end()
    s.end()


class Writers:
    """What the server acknowledged, by the time that the answer was here."""

    def __init__(self, server):
        self.server, self.lock, self.accounts, self.requests = server, threading.Lock(), [], []

    def one(self, worker, turn):
        if worker:
            x = chat(self.server, "chat", f"{worker}-{turn}", turn % 2, max_tokens=3, key=None).read()
            assert x.ok, (x.status, x.error, x.body)
            with self.lock:
                self.requests.append((x.request_id, x.usage["prompt_tokens"], x.usage["completion_tokens"]))
        else:
            a = self.server.call("POST", "/lathe/v1/service_accounts", {"name": f"w-{turn}", "roles": ["viewer"]})
            assert a.status == 201, a.body
            with self.lock:
                self.accounts.append(a.json["id"])

    def so_far(self):
        with self.lock:
            return list(self.accounts), list(self.requests)


def place(server):
    """Where a restore goes besides a folder: (words for the command, database)."""
    if not POSTGRES:
        return (), None
    database = server.database.beside()
    return ("--db", database.direct), database


def names(rows):
    return {r["id"] for r in rows}


def test_a_backup_under_load_restored_elsewhere_holds_what_was_acknowledged(world):
    s, folder = world, world.top / "backups"
    w = Writers(s)
    with Background(4, w.one):
        wait_for("some work", 30, lambda: len(w.so_far()[1]) > 20 or None)
        s.cli("backup", str(folder), "--wait")
        seen = len(w.so_far()[1])
        digest = s.rows("SELECT digest FROM model_versions")[0]["digest"]
        object_ = (folder / "blob" / digest[:2] / digest[2:]).stat()
        wait_for("more work", 30, lambda: len(w.so_far()[1]) > seen + 20 or None)
        accounts, requests = w.so_far()                                  # all this was answered before the backup began
        second = json.loads(s.cli("backup", str(folder), "--wait", "-o", "json").stdout)
    assert second["copied_bytes"] < second["bytes"] and second["objects"] == 1 and second["missing"] == 0
    assert (folder / "blob" / digest[:2] / digest[2:]).stat() == object_      # what is there is not copied again
    whole = said(lathe("backup", "verify", folder, "-o", "json"))
    assert whole["state"] == "whole" and whole["point"] == second["point"]
    assert [p["whole"] for p in said(lathe("backup", "list", folder, "-o", "json"))["data"]] == [True, True]

    key = s.data / "master.key"
    to = s.top / "new"
    where, database = place(s)
    for words, why in ((("--data", to), "no key is at hand"), (("--data", s.data, "--master_key_file", key), "in use"),
                       (("--data", to, "--master_key_file", s.data / "admin.key"), "does not hold it")):
        r = lathe("restore", folder, *words, *where, ok=False)
        assert why in r.stderr and not to.exists(), r.stderr
    r = lathe("restore", folder, "--data", to, *where, ok=False, env={"LATHE_MASTER_KEY": "0" * 64})
    assert "another one" in r.stderr and not to.exists()
    r = lathe("restore", folder, "--data", to, "--master_key_file", key, *where, "--dry-run")
    assert "another node" in r.stderr and not to.exists()
    lathe("restore", folder, "--data", to, "--master_key_file", key, *where)

    pid = s.deployment("chat")["replicas_status"][0]["pid"]
    n = start(s.top, "new", s.engines, s.key, database)
    s.restored.append(n)
    n.app_key = s.app_key
    assert set(accounts) <= names(n.rows("SELECT id FROM service_accounts"))
    n.folded()
    used = {r["request_id"]: r for r in n.rows("SELECT * FROM usage")}
    for request, prompt, completion in requests:
        r = used[request]
        assert (r["outcome"], r["prompt_tokens"], r["completion_tokens"]) == ("ok", prompt, completion), r
    s.folded()
    old = {r["request_id"]: (r["prompt_tokens"], r["completion_tokens"], r["cost"]) for r in s.rows("SELECT * FROM usage")}
    for r in used.values():                                               # nothing that the old one does not know, but for what was open
        assert r["outcome"] == "interrupted" or old[r["request_id"]] == (r["prompt_tokens"], r["completion_tokens"], r["cost"]), r
    total = n.rows("SELECT CAST(SUM(requests) AS BIGINT) requests, CAST(SUM(completion_tokens) AS BIGINT) tokens FROM usage_day")[0]
    assert total["requests"] == len(used) and total["tokens"] == sum(r["completion_tokens"] for r in used.values())
    assert len(n.rows("SELECT id FROM traces")) == len(used)              # once each, with the replay of the journal
    audits = n.rows("SELECT request_id FROM inference_audits")
    assert len(audits) == len(used)
    assert json.loads(n.cli("audit", "verify", "-o", "json").stdout)["ok"] is True

    assert n.ready("chat", 60)["replicas_status"][0]["pid"] != pid        # replicas start anew
    assert chat(n, "chat", max_tokens=3).read().ok                        # and the key works
    assert s.deployment("chat")["replicas_status"][0]["pid"] == pid and chat(s, "chat", max_tokens=3).read().ok
    assert (n.data / "node").read_text() != (s.data / "node").read_text()
    before = {r["object"]: r["epoch"] for r in s.rows("SELECT object, epoch FROM lease")}
    for r in n.rows("SELECT object, epoch FROM lease"):
        assert r["epoch"] > before.get(r["object"], 0)                    # who held a lease of the old one can write nothing here
    assert n.rows("SELECT state FROM job WHERE kind = 'backup.take' AND state IN ('running', 'waiting')") == []
    assert [r["verb"] for r in n.rows("SELECT verb FROM system_audit_entries WHERE kind = 'backup'")][-1] == "restore"
    assert n.cli("model", "list").stdout.count("smol") == 1


def test_to_a_point_in_time(world):
    s, folder = world, world.top / "points"
    marks = []
    for i in range(2 if POSTGRES else 3):
        s.make("service_accounts", name=f"point-{i}", roles=["viewer"])
        s.cli("backup", str(folder), "--wait")
        marks.append(datetime.datetime.now(datetime.timezone.utc).isoformat())
        wait_for("another millisecond", 5, lambda: True if datetime.datetime.now(datetime.timezone.utc).isoformat() > marks[-1] else None)
    key = s.data / "master.key"
    for i, at in enumerate(marks):
        to = s.top / f"point-{i}"
        where, database = place(s)
        r = lathe("restore", folder, "--data", to, "--at", at.replace("+00:00", "Z"), "--master_key_file", key, *where)
        assert "newest one not after it" in r.stderr
        there = (database or SqliteFile(to)).rows("SELECT name FROM service_accounts WHERE name LIKE 'point-%'")
        assert {r["name"] for r in there} == {f"point-{k}" for k in range(i + 1)}
        shutil.rmtree(to)
    r = lathe("restore", folder, "--data", s.top / "none", "--at", "2020-01-01T00:00:00Z", "--master_key_file", key, ok=False)
    assert "no backup taken at or before" in r.stderr and not (s.top / "none").exists()


def test_each_damaged_part_is_found_and_nothing_is_restored(world):
    s, folder, to = world, world.top / "damaged", world.top / "never"
    s.cli("backup", str(folder), "--wait")
    key = s.data / "master.key"
    where, database = place(s)
    files = [p for p in folder.rglob("*") if p.is_file() and p.parent.parent.name == "blob"] + list(folder.glob("point/*"))
    assert len(files) > 10
    for path in files[:: max(1, len(files) // (4 if POSTGRES else 12))] + files[-1:]:
        whole = path.read_bytes()
        for broken in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-1], None):
            path.unlink() if broken is None else path.write_bytes(broken)
            lathe("backup", "verify", folder, ok=False)
            lathe("restore", folder, "--data", to, "--master_key_file", key, *where, ok=False)
            assert not to.exists() and not pathlib.Path(f"{to}.restoring").exists()
            path.write_bytes(whole)
    lathe("backup", "verify", folder)
    if database:
        assert database.rows("SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace") == []


def test_where_a_backup_may_go(world):
    s = world
    for folder, status in (("relative", 400), (str(s.data / "in"), 400), (str(s.data.parent), 400), ("/", 400)):
        refused = s.call("POST", "/lathe/v1/backups", {"folder": folder})
        assert refused.status == status and refused.json["error"]["field"] == "folder", folder
    other = s.top / "other"
    other.mkdir()
    (other / "letter").write_text("mine")
    job = s.call("POST", "/lathe/v1/backups", {"folder": str(other)}).json["job"]
    end = wait_for("its end", 20, lambda: (lambda j: j if j["state"] in ("failed", "done") else None)(s.call("GET", f"/lathe/v1/jobs/{job}").json))
    assert end["state"] == "failed" and "other files" in end["error_text"] and list(other.iterdir()) == [other / "letter"]
    assert s.call("POST", "/lathe/v1/backups", {"folder": str(other)}, key=s.app_key).status == 403


@pytest.mark.parametrize("body, code, field", [
    ({"foldr": "/elsewhere"}, 400, "foldr"), ({"folder": 5}, 400, "folder"), ({"folder": "/elsewhere", "more": 1}, 400, "more"),
    ({"folder": "x" * 1001}, 400, "folder"), ([1], 400, None)], ids=str)
def test_what_is_asked_wrongly_is_named_and_nothing_is_taken(world, body, code, field):
    jobs = "SELECT id FROM job WHERE kind = 'backup.take'"
    before = world.rows(jobs)
    answer = world.call("POST", "/lathe/v1/backups", body)
    assert answer.status == code and (field is None or answer.json["error"]["field"] == field), answer
    assert world.rows(jobs) == before


def test_by_itself_and_kept_for_a_time(tmp_path):
    folder = tmp_path / "backups"
    s = Server(tmp_path / "data")
    s.data.mkdir()
    s.start("--backup.folder", str(folder), "--backup.every", "300ms")
    try:
        ids = wait_for("three backups", 30, lambda: (lambda d: d if len(d) > 2 else None)(
            s.call("GET", "/lathe/v1/backups").json["data"] if (folder / "lathe-backup").exists() else []))
        assert ids == sorted(ids, key=lambda p: p["id"], reverse=True) and all(p["whole"] for p in ids)
    finally:
        assert s.stop() == 0, s.said()


# ---- between two backups


def listed(folder):
    return said(lathe("backup", "list", folder, "-o", "json"))


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@pytest.mark.skipif(POSTGRES, reason="PostgreSQL archives its own log")
def test_to_any_moment_between_two_backups(tmp_path):
    """Rows and requests that never rest; restored to moments drawn by chance: what was acknowledged by then is there, and nothing after."""
    folder, engines = tmp_path / "backups", FakeEngines(tmp_path)
    s = Server(tmp_path / "data")
    s.data.mkdir()
    s.flags = ["--deployment.llama_server", str(engines.program), *QUICK, "--backup.folder", str(folder), "--backup.archive_every", "250ms"]
    s.start(*s.flags)
    s.cli("model", "import", "smol", "--file", str(ROOT / "fuzz" / "corpus" / "gguf" / "ok-llama"), "--wait")
    s.deploy("chat", model="smol", task="chat", slots=4, context=256)
    s.use_app()
    loaded = time.time()
    rows, asked, lock, dice = [], [], threading.Lock(), random.Random(4)

    def one(worker, turn):
        before = time.time()
        if worker:
            x = chat(s, "chat", f"{worker}-{turn}", False, 3).read()
            assert x.ok, x.body
            kept, what = asked, x.request_id
        else:
            kept, what = rows, s.make("service_accounts", name=f"w-{turn}", roles=["viewer"])["id"]
        with lock:
            kept.append((before, time.time(), what))

    def steps():
        return len(list(folder.glob("log/*")))
    to = tmp_path / "new"
    with Background(2, one):
        wait_for("a backup", 30, lambda: list(folder.glob("point/*")) or None)
        first = steps()
        wait_for("steps", 60, lambda: True if steps() > first + 12 and len(rows) > 30 else None)
        begun, ended = max(loaded, moment(listed(folder)["data"][0]["taken_at"])), time.time()
    windows = listed(folder)["windows"]
    assert windows[0]["steps"] > 12 and moment(windows[0]["from"]) < moment(windows[0]["until"]), windows
    key = ("--master_key_file", s.data / "master.key")
    until = None
    for i in range(4):
        at = begun + 0.6 + dice.random() * (ended - begun - 0.6) if i else time.time()
        text = datetime.datetime.fromtimestamp(at, datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        r = lathe("restore", folder, "--data", to, "--at", text, *key)
        found = re.search(r"written until (\S+), in (\d+) steps", r.stderr)
        until = moment(found[1])
        assert until <= at and at - until < 30, r.stderr
        there = names(SqliteFile(to).rows("SELECT id FROM service_accounts"))
        for before, after, what in rows:
            assert what in there or after >= until, (what, after, until)
            assert what not in there or before <= at, (what, before, at)
        if i < 3:
            shutil.rmtree(to)
    n = start(tmp_path, "new", engines, s.key)
    n.app_key = s.app_key
    try:
        n.folded()
        used = [r["request_id"] for r in n.rows("SELECT request_id FROM usage")]
        assert len(used) == len(set(used)) and {what for _, after, what in asked if after < until} <= set(used)
        traced = wait_for("the traces", 20, lambda: (lambda t: t if len(t) >= len(used) else None)(
            [r["request_id"] for r in n.rows("SELECT request_id FROM traces")]))
        assert sorted(traced) == sorted(used)
        assert n.ready("chat", 60) and chat(n, "chat", max_tokens=3).read().ok
        assert json.loads(n.cli("audit", "verify", "-o", "json").stdout)["ok"] is True
    finally:
        n.end()
    s.kill()                                                              # what follows is another run, with a backup of its own
    points = len(list(folder.glob("point/*")))
    s.start(*s.flags)
    try:
        wait_for("a backup", 30, lambda: len(list(folder.glob("point/*"))) > points or None)
        last = s.make("service_accounts", name="last", roles=["viewer"])["id"]
        now = time.time()
        wait_for("steps", 30, lambda: True if len(listed(folder)["windows"]) > 1 and moment(listed(folder)["windows"][0]["until"]) > now else None)
        lathe("restore", folder, "--data", tmp_path / "third", *key)
        there = names(SqliteFile(tmp_path / "third").rows("SELECT id FROM service_accounts"))
        assert {what for _, _, what in rows} | {last} <= there
    finally:
        s.end()


# ---- PostgreSQL's own programs


@pytest.mark.skipif(not POSTGRES, reason="of PostgreSQL")
def test_a_database_that_is_not_the_one_is_refused_and_nothing_is_written(world):
    s, folder, to = world, world.top / "refused", world.top / "refused-to"
    s.cli("backup", str(folder), "--wait")
    key = ("--master_key_file", s.data / "master.key")
    full = s.database.beside()
    full.run("CREATE TABLE mine (x TEXT)")
    elsewhere = s.database.beside()
    for url, why in ((full.direct, "is not empty"), (elsewhere.server, "lie in schema"), (f"sqlite:{to}.db", "is of PostgreSQL"),
                     (elsewhere.direct.replace("/" + elsewhere.server.split("/")[3].split("?")[0], "/nowhere"), "database")):
        r = lathe("restore", folder, "--data", to, *key, "--db", url, ok=False)
        assert why in r.stderr and not to.exists(), r.stderr
    assert full.rows("SELECT * FROM mine") == []
    r = lathe("restore", folder, "--data", to, *key, ok=False)
    assert "--db postgres://" in r.stderr
    r = lathe("restore", folder, "--data", to, *key, "--db", elsewhere.direct, "--postgres_programs", str(to), ok=False)
    assert "pg_restore of PostgreSQL" in r.stderr and "install it" in r.stderr and not to.exists()


@pytest.mark.skipif(not POSTGRES, reason="of PostgreSQL")
def test_without_pg_dump_the_backup_says_how_to_get_it(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    s = Server(tmp_path / "data")
    s.data.mkdir()
    s.start("--backup.postgres_programs", str(tools))
    try:
        for text, why in ((None, "is not on this machine"), ("echo 'pg_dump (PostgreSQL) 9.6.1'", "or later is not on this machine"),
                          ("test $1 = --version && echo 'pg_dump (PostgreSQL) 99.0' || { echo a clear word >&2; exit 3; }", "a clear word")):
            if text:
                (tools / "pg_dump").write_text(f"#!/bin/sh\n{text}\n")
                (tools / "pg_dump").chmod(0o755)
            job = s.call("POST", "/lathe/v1/backups", {"folder": str(tmp_path / "backups")}).json["job"]
            said = wait_for("its word", 20, lambda: (lambda j: j["error_text"] or None)(s.call("GET", f"/lathe/v1/jobs/{job}").json))
            assert why in said, said
            s.call("POST", f"/lathe/v1/jobs/{job}/cancel")
            wait_for("its end", 20, lambda: s.call("GET", f"/lathe/v1/jobs/{job}").json["state"] in ("failed", "cancelled") or None)
        assert list((tmp_path / "backups" / "point").iterdir()) == []
    finally:
        assert s.stop() == 0, s.said()
