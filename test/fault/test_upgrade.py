# SPDX-License-Identifier: Apache-2.0
"""Upgrades: the program's file is replaced under a running server; a database that an older program left is taken over under load
(test/upgrade); and back: this release runs on the next one's schema, and on no later one."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import threading
import time

import harness
import pytest
from harness import LATHE, ROOT, SLOWER, Background, Exchange, FakeEngines, Server, chat, wait_for
from postgres import Engine, Nodes, clusters, free_port


def test_a_server_whose_file_is_gone_still_starts_children(fake, tmp_path, monkeypatch):
    copy = tmp_path / "lathe"
    shutil.copy(LATHE, copy)
    monkeypatch.setattr(harness, "LATHE", str(copy))
    s = fake()
    copy.unlink()
    monkeypatch.undo()
    s.cli("model", "import", "again", "--file", "fuzz/corpus/gguf/ok-llama", "--wait")  # read in a child
    s.deploy("chat", model="again", task="chat", slots=2)                               # held by a shim
    assert chat(s, "chat", max_tokens=4).read().ok
    pid = s.deployment("chat")["replicas_status"][0]["pid"]
    s.kill()
    s.start(*s.flags)                                                                    # the new one takes it over
    wait_for("the replica", 20, lambda: s.ready("chat")["replicas_status"][0]["pid"] == pid or None)
    assert chat(s, "chat", max_tokens=4).read().ok


# ---- a database that an older program left


OLD = ROOT / "test" / "upgrade" / "release-0"
# Longer than there is time: what is stored stays whenever this runs.
KEEP = [w for kind in ("traces", "rollups", "usage", "jobs", "idempotency") for w in (f"--retain.{kind}", "36500d")]


class Asking:
    """Clients that never rest, from before the server is there: what is answered must be whole, and once all is well all is answered."""

    def __init__(self, server, name="new", model="chat"):
        self.model = model
        self.server, self.name, self.app_key, self.well, self.url = server, name, server.app_key, threading.Event(), server.url
        self.lock, self.accounts, self.requests = threading.Lock(), [], []

    def one(self, worker, turn):
        well = self.well.is_set()
        try:
            self._ask(worker, turn, well)
        except (OSError, http.client.HTTPException):
            if well:
                raise
            time.sleep(0.01)

    def _ask(self, worker, turn, well):
        if worker:
            x = chat(self, self.model, f"{self.name}-{worker}-{turn}", turn % 2 == 0, 4, ignore_eos=True).read()
            assert x.ok or not well and (x.status in (503, 404, None) or x.end != "whole"), (x.status, x.end, x.body)
            if x.ok:
                with self.lock:
                    self.requests.append([x.request_id, x.usage["prompt_tokens"], x.usage["completion_tokens"]])
        else:
            a = self.server.call("POST", "/lathe/v1/service_accounts", {"name": f"{self.name}-{turn}", "roles": ["viewer"]})
            assert a.status == 201 or not well, a.body
            if a.status == 201:
                with self.lock:
                    self.accounts.append(a.json["id"])

    def more(self, n):
        seen = len(self.requests)
        wait_for("more answers", 60, lambda: True if len(self.requests) >= seen + n or self.background.failed else None)

    def __enter__(self):
        self.background = Background(4, self.one)
        return self.background.__enter__()

    def __exit__(self, *how):
        return self.background.__exit__(*how)


def stored(top, kind, cluster):
    """What lies in test/upgrade, as a server that is not started yet."""
    with tarfile.open(OLD / f"{kind}.tar.xz") as tar:
        tar.extractall(top, filter="data")
    said = json.loads((top / "accepted.json").read_text())
    if kind == "sqlite":
        return Server(top / "data"), said
    database = cluster("main").make().start().database()
    database.run("SET client_min_messages = error;" + (top / "database.sql").read_text().replace("CREATE SCHEMA", "CREATE SCHEMA IF NOT EXISTS"))
    address = database.url_of(said["schema"])
    return Server(top / "data", database=address), said


def begin_on(s, top, said):
    s.engines = FakeEngines(top)
    s.engines.set(token_ms=1)
    s.port = free_port()
    s.app_key, s.admin_key = said["app"], said["admin"]
    s.url, s.key = f"http://127.0.0.1:{s.port}", said["admin"]
    s.flags = ["--listen", f"127.0.0.1:{s.port}", "--deployment.llama_server", str(s.engines.program), "--deployment.probe_every", "200ms",
               "--deployment.backoff_first", "500ms", *KEEP]


def all_there(s, accounts, requests):
    """What was acknowledged: every row, every token, once each in the ledger, the day's sum, the trace and the audit."""
    s.folded()
    assert set(accounts) <= {r["id"] for r in s.rows("SELECT id FROM service_accounts")}
    rows = s.rows("SELECT request_id, outcome, prompt_tokens, completion_tokens, cost FROM usage")
    used = {r["request_id"]: r for r in rows}
    assert len(used) == len(rows)
    for request, prompt, completion in requests:
        r = used[request]
        assert (r["outcome"], r["prompt_tokens"], r["completion_tokens"]) == ("ok", prompt, completion), r
        assert r["cost"] == prompt * 10 ** 8 + completion * 5 * 10 ** 8, r
    total = s.rows("SELECT CAST(SUM(requests) AS BIGINT) requests, CAST(SUM(completion_tokens) AS BIGINT) tokens FROM usage_day")[0]
    assert total == {"requests": len(used), "tokens": sum(r["completion_tokens"] for r in rows)}
    for table in ("traces", "inference_audits"):
        wait_for(f"the {table}", 20, lambda: True if sorted(r["request_id"] for r in s.rows(f"SELECT request_id FROM {table}"))
                 == sorted(used) else None)
    assert s.rows("SELECT * FROM usage_open") == []
    assert json.loads(s.cli("audit", "verify", "-o", "json").stdout)["ok"] is True


def by(server, key):
    body = {"model": "chat", "messages": [{"role": "user", "content": "k"}], "max_tokens": 2}
    return Exchange(server, "/v1/chat/completions", body, key).read()


@pytest.fixture
def old(tmp_path):
    """old(kind): the stored one; ends with the test."""
    begun = []
    with clusters() as cluster:
        def make(kind):
            s, said = stored(tmp_path, kind, cluster)
            begin_on(s, tmp_path, said)
            begun.append(s)
            return s, said
        yield make
        for s in begun:
            s.end()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_stored_older_database_is_upgraded_under_load(old, kind, tmp_path):
    s, said = old(kind)
    load = Asking(s)
    with load:
        s.start(*s.flags)
        s.ready("chat", 60)
        load.well.set()
        load.more(100)
        for key in said["keys"]:
            assert by(s, key).ok
        assert by(s, said["revoked"]).status == 401
    all_there(s, said["accounts"] + load.accounts, said["requests"] + load.requests)
    kept = sorted((s.data / "snapshots").glob("*")) if kind == "sqlite" else []
    if kind == "sqlite":
        assert [p.name.endswith("-release-0.db") for p in kept] == [True] and str(kept[0]) in s.said()
        with contextlib.closing(sqlite3.connect(kept[0])) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'model_condemned'").fetchone() == (1,)  # of before
            there = {i for (i,) in db.execute("SELECT id FROM service_accounts")}
            assert set(said["accounts"]) <= there
    else:
        assert "pg_dump" in s.said()
    assert s.rows("SELECT number FROM schema_migration WHERE owner = 'release'") == [{"number": 1}]
    assert s.stop() == 0, s.said()
    s.start(*s.flags)                                                    # nothing is left to do
    assert sorted((s.data / "snapshots").glob("*")) == kept if kept else True


@pytest.mark.skipif("LATHE_OLD" not in os.environ, reason="test/upgrade/from COMMIT builds an older program and runs this")
def test_from_a_living_older_program_and_back_to_it(tmp_path, monkeypatch):
    """The older one serves, stops, this one takes over, all while clients ask; then back: the copy from before the upgrade."""
    with monkeypatch.context() as m:
        m.setattr(harness, "LATHE", os.environ["LATHE_OLD"])
        s = Server(tmp_path / "data")
        s.data.mkdir()
        s.app_key = None
        begin_on(s, tmp_path, {"app": None, "admin": None})
        s.flags = s.flags[:-len(KEEP)]
        s.start(*s.flags)
        s.cli("model", "import", "smol", "--file", str(ROOT / "fuzz" / "corpus" / "gguf" / "ok-llama"), "--wait")
        s.make("prices", name="all", model="smol", input="100000", output="500000")
        s.use_app()
        s.deploy("chat", model="smol", context=256, slots=8)
        load = Asking(s)
        with load:
            load.more(200)
            assert s.stop() == 0, s.said()
            before = list(load.accounts), list(load.requests)
            m.undo()
            s.start(*s.flags)
            s.ready("chat", 60)
            load.well.set()
            load.more(200)
        all_there(s, load.accounts, load.requests)
        assert s.stop() == 0, s.said()
        copy, = (s.data / "snapshots").glob("*.db")
        for end in ("", "-wal", "-shm"):
            (s.data / f"lathe.db{end}").unlink(missing_ok=True)
        shutil.copy(copy, s.data / "lathe.db")
        m.setattr(harness, "LATHE", os.environ["LATHE_OLD"])
        s.start(*s.flags)
        s.ready("chat", 60)
        assert by(s, s.app_key).ok
        s.folded()
        assert set(before[0]) <= {r["id"] for r in s.rows("SELECT id FROM service_accounts")}
        assert {r[0] for r in before[1]} <= {r["request_id"] for r in s.rows("SELECT request_id FROM usage")}
        s.end()


# ---- the next release's schema: this program runs on it, and not on the one after


EXPAND = """
INSERT INTO schema_migration (owner, number, hash, at_ms) VALUES ('access', 900, 'next', 1), ('next', 1, 'next', 1), ('release', 2, '', 1);
CREATE TABLE next_things (id TEXT PRIMARY KEY, note TEXT);
ALTER TABLE service_accounts ADD COLUMN next_note TEXT;
ALTER TABLE deployments ADD COLUMN next_hint BIGINT NOT NULL DEFAULT 7;
ALTER TABLE usage ADD COLUMN next_cost BIGINT;
CREATE INDEX next_accounts ON service_accounts (next_note);
"""
BEYOND = "INSERT INTO schema_migration (owner, number, hash, at_ms) VALUES ('release', 3, '', 1)"


def refused(data, env):
    r = subprocess.run([LATHE, "serve", "--data", str(data), "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=60 * SLOWER,
                       check=False, env=env)
    assert r.returncode != 0 and "schema of release 3" in r.stderr and "at most" in r.stderr, r.stderr
    return r.stderr


def test_a_release_runs_on_the_next_schema_and_on_none_after_it(fake, tmp_path):
    s = fake()
    s.deploy("chat", model="smol", context=256, slots=8)
    s.flags += ["--listen", "127.0.0.1:" + s.url.rsplit(":", 1)[1]]
    s.make("prices", name="all", model="smol", input="100000", output="500000")
    load = Asking(s)
    with load:
        load.more(50)
        assert s.stop() == 0, s.said()
        s.database.run(EXPAND)                                           # as the next release does at its start
        s.start(*s.flags)                                                # and this one comes back
        s.ready("chat", 60)
        load.well.set()
        load.more(50)
    all_there(s, load.accounts, load.requests)
    assert "next release's schema" in s.said()
    assert s.rows("SELECT next_hint FROM deployments") == [{"next_hint": 7}]
    assert s.stop() == 0, s.said()
    s.database.run(BEYOND)
    refused(s.data, s.env)
    s.database.run("DELETE FROM schema_migration WHERE owner = 'release' AND number = 3")
    s.start(*s.flags)


def test_nodes_of_two_releases_side_by_side():
    engine = Engine(token_ms=1)
    with tempfile.TemporaryDirectory(prefix="lathe-sides-") as top, clusters() as cluster:
        made = Nodes(top, cluster("main").make().start().database(), 1)
        a = made.all[0]
        try:
            made.attach("far", engine)                                   # every node's gateway reaches it
            a.make("prices", name="all", model="far", input="100000", output="500000")
            loads = [Asking(a, "a", "far")]
            loads[0].well.set()                                          # this one never stops answering
            with loads[0]:
                loads[0].more(30)
                a.database.run(EXPAND)
                b = made._join(1, a, a.database)                         # starts on the newer schema, beside the one that began on the older
                b.up, b.lives = True, 0
                made.all.append(b)
                loads.append(Asking(b, "b", "far"))
                loads[1].well.set()
                with loads[1]:
                    loads[0].more(30)
                    loads[1].more(30)
            b.folded()
            all_there(a, loads[0].accounts + loads[1].accounts, loads[0].requests + loads[1].requests)
            a.database.run(BEYOND)
            (pathlib.Path(top) / "late").mkdir()
            refused(pathlib.Path(top) / "late", a.env)
            a.database.run("DELETE FROM schema_migration WHERE owner = 'release' AND number = 3")
        finally:
            made.end()
            engine.end()
