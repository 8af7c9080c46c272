# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL behind a wire that is cut: reset or swallowed. Answers go on from the snapshot, the control plane says why not, and
afterwards everything is accounted for. FAULT_AWAY_S: how long it is away."""

import os
import subprocess
import tempfile
import threading
import time

import pytest

from conftest import QUICK, begin, small_model
from harness import LATHE, SLOWER, Background, FakeEngines, chat, wait_for
from postgres import Proxy, clusters, within

PATIENCE_S = 7  # a read's is under 5 s, and so is its wait for a connection
LONGEST_S = 12  # a COMMIT's is 10 s


@pytest.fixture
def far():
    """A server whose database lies behind far.proxy."""
    with tempfile.TemporaryDirectory(prefix="lathe-away-") as top, clusters() as cluster:
        main = cluster("main").make().start()
        proxy, engines = Proxy(main.port), FakeEngines(top)
        s = begin(top, engines.program, small_model(top), QUICK, main.database(proxy.url))
        try:
            s.engines, s.proxy, s.main = engines, proxy, main
            yield s
            proxy.set("pass")
            s.end()
        finally:
            if s.process.poll() is None:
                s.kill()
            proxy.close()


class Load:
    """Streams without an end in sight, and one in three whole."""

    def __init__(self, server, n, name="r"):
        self.server, self.name, self.lock, self.all = server, name, threading.Lock(), []
        self.background = Background(n, self._one)

    def _one(self, worker, turn):
        x = chat(self.server, "chat", f"{self.name}-{worker}-{turn}", turn % 3 != 0, 40, ignore_eos=True)
        with self.lock:
            self.all.append(x)
        x.read()
        assert x.ok and x.usage["completion_tokens"] == 40, (x.status, x.error, x.end, x.body)

    def ended(self):
        return sum(x.ok for x in self.all)


class Administrator:
    """Reads and creates all the time; what it was told, and how long that took."""

    def __init__(self, server, name="r"):
        self.server, self.name, self.seen, self.made, self.background = server, name, [], [], Background(2, self._one)

    def _one(self, worker, turn):
        start = time.monotonic()
        if worker:
            a = self.server.call("GET", "/lathe/v1/projects")
        else:
            a = self.server.call("POST", "/lathe/v1/service_accounts", {"name": f"{self.name}-{turn}", "roles": ["viewer"]})
            if a.status == 201:
                self.made.append(a.json["id"])
        self.seen.append((start, time.monotonic() - start, a))
        time.sleep(0.05)


def refused(a):
    return a.status == 503 and a.json["error"]["reason"] in ("database_unavailable", "database_busy", "outcome_unknown")


def check_away(server, load, seconds):
    before = load.ended()
    start = time.monotonic()
    def away_seen():
        a = server.call("GET", "/lathe/v1/projects")
        assert a.status == 200 or refused(a), a.body.decode()
        return refused(a) or None
    away = within(PATIENCE_S, "a refusal", away_seen)
    a = server.call("GET", "/lathe/v1/projects")
    assert a.json["error"]["reason"] == "database_unavailable" and a.json["error"]["message"], a.body
    assert int(a.headers["Retry-After"]) >= 1, a.headers
    assert server.call("GET", "/healthz").status == 200
    assert server.call("GET", "/readyz").status == 503
    assert chat_models(server) == 200
    answered = []
    while time.monotonic() < start + seconds:
        answered.append(load.ended())
        time.sleep(0.5)
    assert answered[-1] > before + 5 and (len(answered) < 4 or answered[-1] > answered[len(answered) // 2]), answered
    assert server.call("GET", "/readyz").status == 503
    return away


def chat_models(server):
    return server.call("GET", "/v1/models", key=server.app_key).status


def check_usage(server, load):
    server.folded()
    wait_for("all that is open", 20, lambda: server.rows("SELECT count(*) n FROM usage_open")[0]["n"] == 0 or None)
    all_rows = server.rows("SELECT * FROM usage WHERE end_user LIKE ?", load.name + "-%")
    rows = {r["request_id"]: r for r in all_rows}
    assert len(rows) == len(load.all) == len(all_rows)
    for x in load.all:
        r = rows[x.request_id]
        told = (x.usage["prompt_tokens"], x.usage["completion_tokens"])
        assert (r["outcome"], r["prompt_tokens"], r["completion_tokens"]) == ("ok", *told), (r, told)


def check_settled(server, load, admin):
    check_usage(server, load)
    there = {r["id"] for r in server.rows("SELECT id FROM service_accounts")}
    assert set(admin.made) <= there
    for _, took, a in admin.seen:
        assert a.status in (200, 201, 503, 409), (a.status, a.body)  # 409: it was made, and that could not be said
        assert a.status != 503 or refused(a), a.body
        unknown = a.status == 503 and a.json["error"]["reason"] == "outcome_unknown"  # to be looked up before it is tried again
        assert a.status != 503 or unknown or "Retry-After" in a.headers, a.body
    slowest = max(took for _, took, _ in admin.seen)
    assert slowest < LONGEST_S * SLOWER, slowest
    server.cli("audit", "verify")
    return slowest


@pytest.mark.parametrize("how", ["reset", "hole"])
def test_unplugged(far, how):
    seconds = float(os.environ.get("FAULT_AWAY_S", 10 if how == "hole" else 3))
    far.engines.set(token_ms=10, token_jitter_ms=6)
    far.deploy("chat", model="smol", context=512, slots=6, replicas=2)
    pids = [r["pid"] for r in far.deployment("chat")["replicas_status"]]
    load, admin = Load(far, 6), Administrator(far)
    with load.background, admin.background:
        wait_for("answers", 20, lambda: True if load.ended() > 10 and len(admin.made) > 5 else None)
        far.proxy.set(how)
        away = check_away(far, load, seconds)
        far.proxy.set("pass")
        back = within(10, "the control plane", lambda: True if far.call("GET", "/lathe/v1/projects").status == 200 else None)
        made = len(admin.made)
        wait_for("creations again", 10, lambda: True if len(admin.made) > made + 3 else None)
    slowest = check_settled(far, load, admin)
    d = far.ready("chat")
    assert [r["pid"] for r in d["replicas_status"]] == pids and not any(r["restarts"] for r in d["replicas_status"])
    print(f"{how}, {seconds} s: refused after {away:.1f} s, slowest call {slowest:.1f} s, back after {back:.1f} s, "
          f"{len(load.all)} answers, {sum(a.status == 503 for _, _, a in admin.seen)} refusals")


# ---- a start


def started_without(server, how, *flags):
    """Starts while its database is away; how long that took."""
    server.proxy.set(how)
    start = time.monotonic()
    server.start(*server.flags, *flags)
    return time.monotonic() - start


def check_waits(server):
    """All but inference says why not, and when to come back."""
    for path in ("/readyz", "/lathe/v1/deployments/chat", "/lathe/v1/events"):
        a = server.call("GET", path)
        assert a.status == 503 and a.json["error"]["reason"] == "database_unavailable" and a.json["error"]["message"], a.body
        assert int(a.headers["Retry-After"]) >= 1, a.headers
    a = server.call("POST", "/lathe/v1/service_accounts", {"name": "early", "roles": ["viewer"]})
    assert a.status == 503 and a.json["error"]["reason"] == "database_unavailable", a.body
    assert server.call("GET", "/healthz").status == 200
    assert chat_models(server) == 200


def asked(server, user, key=None):
    x = chat(server, "chat", user, False, 5, key=key, ignore_eos=True).read()
    return x.status


def cut_streams(server, n):
    """Streams under way when the server dies."""
    all_ = [chat(server, "chat", f"cut-{i}", True, 400, ignore_eos=True) for i in range(n)]
    for x in all_:
        assert x.head() and x.status == 200
        next(e for e in x.events_of() if x.tokens > 2)
    server.kill()
    for x in all_:
        x.close()


def check_cut(server, n):
    rows = server.rows("SELECT end_user, outcome FROM usage WHERE end_user LIKE 'cut-%' ORDER BY end_user")
    assert [(r["end_user"], r["outcome"]) for r in rows] == [(f"cut-{i}", "interrupted") for i in range(n)], rows


@pytest.mark.parametrize("how", ["reset", "hole"])
def test_started_while_it_is_away(far, how):
    """What a crash cut waits in the journal, the engines run, the snapshot is on disk: answers go on, and are counted when it is back."""
    far.engines.set(token_ms=10, token_jitter_ms=6)
    far.make("prices", name="smol", model="smol", input="0.10", output="0.40", cached="0.10")
    far.deploy("chat", model="smol", context=512, slots=6, replicas=2)
    pids = [r["pid"] for r in far.deployment("chat")["replicas_status"]]
    revoked, poor = (far.make("api_keys", name=name, service_account="app", limits=limits)["key"]
                     for name, limits in (("revoked", {}), ("poor", {"money_per_day": "1"})))
    assert asked(far, "first", revoked) == asked(far, "first", poor) == 200
    cut_streams(far, 4)
    took = started_without(far, how)
    far.database.run("DELETE FROM api_keys WHERE name = 'revoked'")  # as another node would, which still reaches it
    check_waits(far)
    assert asked(far, "early", revoked) == 200 and asked(far, "early", poor) == 503  # what it has spent today is not known
    load = Load(far, 6, "away")
    with load.background:
        wait_for("answers", 30, lambda: True if load.ended() > 20 else None)
        check_waits(far)
        far.proxy.set("pass")
        back = within(10, "the control plane", lambda: True if far.call("GET", "/readyz").status == 200 else None)
        within(3, "the end of a revoked key", lambda: True if asked(far, "late", revoked) == 401 else None)
        assert asked(far, "late", poor) == 200
    check_usage(far, load)
    check_cut(far, 4)
    far.cli("audit", "verify")
    d = far.ready("chat")
    assert [r["pid"] for r in d["replicas_status"]] == pids and not any(r["restarts"] for r in d["replicas_status"])
    far.make("service_accounts", name="early", roles=["viewer"])
    print(f"{how}: started in {took:.1f} s, back after {back:.1f} s, {len(load.all)} answers meanwhile")


def test_a_snapshot_that_is_too_old_is_not_gone_by(far):
    far.deploy("chat", model="smol", context=512, slots=2, replicas=1)
    assert far.stop() == 0
    started_without(far, "reset", "--gateway.stale_max", "1s")
    def too_old():
        x = chat(far, "chat", "old", False, 5).read()
        return x if x.status == 503 else None
    assert "too old" in wait_for("its age", 10, too_old).error["message"]
    far.proxy.set("pass")
    wait_for("an answer", 10, lambda: True if asked(far, "new") == 200 else None)


def test_a_first_start_without_its_database_says_so(far):
    """There is nothing to serve from: a wrong address is told at once."""
    far.proxy.set("reset")
    start = time.monotonic()
    r = subprocess.run([LATHE, "serve", "--data", str(far.data.parent / "new"), "--listen", "127.0.0.1:0", *far.flags], env=far.env,
                       capture_output=True, text=True, timeout=30 * SLOWER, check=False)
    assert r.returncode not in (0, -6) and time.monotonic() - start < PATIENCE_S * SLOWER
    assert r.stderr.splitlines()[-1].startswith("lathe serve: the database does not answer"), r.stderr
    far.proxy.set("pass")
    wait_for("the database", 10, lambda: True if far.call("GET", "/readyz").status == 200 else None)
