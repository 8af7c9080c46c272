# SPDX-License-Identifier: Apache-2.0
"""An engine that dies or hangs under load: its requests end properly, the others never notice, and it comes back by itself."""

import os
import signal
import threading

import pytest

from harness import Background, chat, wait_for


class Load:
    """Streams (and one in four not streamed) on n threads; every answer is kept."""

    def __init__(self, server, n, size):
        self.server, self.size, self.lock, self.all = server, size, threading.Lock(), []
        self.background = Background(n, self.one)

    def one(self, worker, turn):
        x = chat(self.server, "chat", f"{worker}-{turn}", worker % 4 != 3, self.size, ignore_eos=True)
        x.stream = worker % 4 != 3
        with self.lock:
            self.all.append(x)
        x.read()

    def finished(self):
        with self.lock:
            return sum(x.ok for x in self.all)

    def live(self):
        """Streams that have given at least one token."""
        with self.lock:
            return sum(1 for x in self.all if x.stream and x.tokens and not x.end)


def replica(server, number):
    return next(r for r in server.deployment("chat")["replicas_status"] if r["number"] == number)


def check_endings(server, load, hurt):
    """Every request ended properly; those that did not succeed were at the replica `hurt`."""
    server.folded()
    rows = server.rows("SELECT * FROM usage")
    attempts = {}
    for r in rows:
        attempts.setdefault(r["request_id"], []).append(r)
    counts = {"ok": 0, "ok elsewhere": 0, "error event": 0, "502": 0}
    for x in load.all:
        mine = sorted(attempts[x.request_id], key=lambda r: r["attempt"])
        assert [r["attempt"] for r in mine] == list(range(1, len(mine) + 1)), mine
        assert all(r["replica"] == hurt for r in mine if r["outcome"] != "ok"), mine
        assert x.end == "whole", (x.end, x.request_id)
        if x.ok:
            counts["ok" if len(mine) == 1 else "ok elsewhere"] += 1
            assert x.usage["completion_tokens"] == mine[-1]["completion_tokens"] == load.size
            continue
        assert x.error and x.error["message"] and x.error["type"], x.body
        assert mine[-1]["outcome"] == "error" and mine[-1]["completion_tokens"] >= x.tokens
        if x.stream and x.status == 200:
            assert not x.done
            counts["error event"] += 1
        else:
            assert x.status == 502, (x.status, x.body)
            counts["502"] += 1
    assert server.rows("SELECT * FROM usage_open") == []
    print(counts)
    return counts


def start(fake, **settings):
    server = fake(**settings)
    server.engines.set(token_ms=10, token_jitter_ms=6, latency_ms=10)
    server.deploy("chat", model="smol", context=512, slots=8, replicas=2)
    return server


def under_load(server, load, live, hurt):
    """From a moment when so many are live until the replica was hurt, seen down with a reason, and is back."""
    with load.background:
        wait_for("load", 30, lambda: load.live() >= live and load.finished() >= 20 or None)
        before = replica(server, 0)
        hurt(before)

        def down():
            d = server.deployment("chat")
            return d if d["state"] == "degraded" and replica(server, 0)["state"] != "ready" else None
        d = wait_for("the state that tells", 20, down)
        done, reasons = load.finished(), [d["state_reason"]]

        def back():
            d = server.deployment("chat")
            reasons.append(d["state_reason"] or "")
            now = d["replicas_status"][0]
            return now if now["state"] == "ready" and now["pid"] != before["pid"] else None
        after = wait_for("the replica", 30, back)
        wait_for("more answers", 30, lambda: load.finished() >= done + 20 or None)
    return before, reasons, after


def test_kill_one_of_two_under_load(fake):
    server = start(fake)
    load = Load(server, 16, 120)
    # Of ten at least two are here: the other one has eight slots.
    before, reasons, after = under_load(server, load, 10, lambda r: os.kill(r["pid"], signal.SIGKILL))
    assert any("replica 0" in why and "signal 9" in why for why in reasons), reasons
    assert after["restarts"] == before["restarts"] + 1
    counts = check_endings(server, load, before["id"])
    assert counts["error event"] >= 1
    assert replica(server, 1)["restarts"] == 0


def test_kill_the_only_one(fake):
    """Nobody else can answer: errors at once or a wait, and afterwards everything works."""
    server = fake()
    server.engines.set(token_ms=10, latency_ms=200)
    server.deploy("chat", model="smol", context=512, slots=8)
    pid = replica(server, 0)["pid"]
    asked = [chat(server, "chat", f"k{i}", i % 2 == 0, 50, ignore_eos=True) for i in range(12)]
    wait_for("attempts", 10, lambda: server.call("GET", "/metrics").body and len(server_running(server)) >= 1 or None)
    os.kill(pid, signal.SIGKILL)
    for i, x in enumerate(asked):
        x.read()
        assert x.end == "whole" and (x.ok or x.error["message"]), (i, x.status, x.end, x.body)
    server.ready("chat", 20)
    assert chat(server, "chat", "again", max_tokens=5).read().ok
    server.folded()
    rows = server.rows("SELECT request_id, attempt, outcome FROM usage")
    assert len({(r["request_id"], r["attempt"]) for r in rows}) == len(rows)
    assert {r["request_id"] for r in rows} >= {x.request_id for x in asked if x.ok}
    for x in asked:
        traces = server.rows("SELECT * FROM traces WHERE request_id = ?", x.request_id)
        assert len(traces) == 1 and (traces[0]["outcome"] == "ok") == x.ok, traces
    assert server.rows("SELECT * FROM usage_open") == []


def server_running(server):
    text = server.call("GET", "/metrics").body.decode()
    return [line for line in text.splitlines() if line.startswith("lathe_gateway_requests_running") and line.split()[-1] == "8"]


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_a_replica_that_hangs_is_replaced(fake, how):
    server = start(fake, deployment__hung_after="1s", deployment__probe_timeout="300ms")
    if how == "silent":  # the first replica of a second generation answers 40 requests, then nothing
        server.engines.set(token_ms=10, latency_ms=10, hang_after=40)
        server.change("chat", replicas=1)
        wait_for("one replica", 30, lambda: len(server.deployment("chat")["replicas_status"]) == 1 or None)
        os.kill(replica(server, 0)["pid"], signal.SIGKILL)
        wait_for("a mortal one", 20, lambda: replica(server, 0)["restarts"] == 1 and replica(server, 0)["state"] == "ready" or None)
        server.engines.set(token_ms=10, latency_ms=10)
        server.change("chat", replicas=2)
        server.ready("chat", 30)
    load = Load(server, 12, 30)
    hurt = {"stopped": lambda r: os.kill(r["pid"], signal.SIGSTOP), "silent": lambda r: None}[how]
    before, reasons, after = under_load(server, load, 6, hurt)
    assert any("answered no probe" in why for why in reasons), reasons
    assert after["restarts"] == before["restarts"] + 1
    check_endings(server, load, before["id"])
