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


def check_settled(server, load, admin):
    server.folded()
    wait_for("all that is open", 20, lambda: server.rows("SELECT count(*) n FROM usage_open")[0]["n"] == 0 or None)
    all_rows = server.rows("SELECT * FROM usage WHERE end_user LIKE ?", load.name + "-%")
    rows = {r["request_id"]: r for r in all_rows}
    assert len(rows) == len(load.all) == len(all_rows)
    for x in load.all:
        r = rows[x.request_id]
        told = (x.usage["prompt_tokens"], x.usage["completion_tokens"])
        assert (r["outcome"], r["prompt_tokens"], r["completion_tokens"]) == ("ok", *told), (r, told)
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


def test_a_start_without_its_database_says_so(far):
    assert far.stop() == 0
    far.proxy.set("reset")
    start = time.monotonic()
    r = subprocess.run([LATHE, "serve", "--data", str(far.data), "--listen", "127.0.0.1:0", *far.flags], env=far.env,
                       capture_output=True, text=True, timeout=30 * SLOWER, check=False)
    assert r.returncode not in (0, -6) and time.monotonic() - start < PATIENCE_S * SLOWER
    assert r.stderr.splitlines()[-1].startswith("lathe serve: the database does not answer"), r.stderr
    far.proxy.set("pass")
    far.start(*far.flags)
