# SPDX-License-Identifier: Apache-2.0
"""A request whose engine died is tried again elsewhere while nothing of it has left: who waits again, what is counted, what is never tried."""

import contextlib
import os
import re
import signal
import threading
import time

import pytest

from harness import SLOWER, Background, UnixConnection, chat, engine_call, rss_bytes, wait_for


def replicas(server):
    return sorted(server.deployment("chat")["replicas_status"], key=lambda r: r["number"])


def busy(replica):
    return sum(slot["is_processing"] for slot in engine_call(replica, "GET", "/slots"))


def decoded(replica):
    return [slot["next_token"][0]["n_decoded"] for slot in engine_call(replica, "GET", "/slots") if slot["is_processing"]]


def deferred(replica):
    """Requests that wait within the engine, which has no slot for them."""
    with contextlib.closing(UnixConnection(replica["address"].removeprefix("unix:"))) as c:
        c.request("GET", "/metrics")
        text = c.getresponse().read().decode()
    return int(re.search(r"^llamacpp:requests_deferred (\d+)", text, re.M)[1])


def attempts_of(server):
    server.folded()
    by = {}
    for r in server.rows("SELECT * FROM usage ORDER BY request_id, attempt"):
        by.setdefault(r["request_id"], []).append(r)
    return by


class Whole:
    """Answers in one piece, asked for on n threads; each must succeed."""

    def __init__(self, server, n, size):
        self.server, self.size, self.lock, self.all = server, size, threading.Lock(), []
        self.background = Background(n, self.one)

    def one(self, worker, turn):
        x = chat(self.server, "chat", f"{worker}-{turn}", False, self.size, ignore_eos=True).read()
        assert x.ok and x.end == "whole", (x.status, x.end, x.error, x.body)
        assert x.usage["completion_tokens"] == self.size and x.json()["choices"][0]["finish_reason"] == "length", x.body
        with self.lock:
            self.all.append(x)

    def wait(self, n):
        def look():
            assert not self.background.failed, self.background.failed
            return True if len(self.all) >= n else None
        wait_for(f"{n} answers", 60, look)


def kill_one_under(server, load, at_least):
    """While so many are at the first replica; gives that replica, once it is back."""
    with load.background:
        load.wait(10)
        hurt = replicas(server)[0]
        wait_for("requests at it", 20, lambda: busy(hurt) >= at_least or None)
        os.kill(hurt["pid"], signal.SIGKILL)
        wait_for("the replica", 30, lambda: replicas(server)[0]["restarts"] == 1 and replicas(server)[0]["state"] == "ready" or None)
        load.wait(len(load.all) + 20)
    return hurt


def test_no_whole_answer_is_lost_with_one_of_two_engines(fake):
    server = fake()
    server.engines.set(token_ms=8, token_jitter_ms=4, latency_ms=10)
    server.deploy("chat", model="smol", context=512, slots=8, replicas=2)
    load = Whole(server, 12, 60)
    hurt = kill_one_under(server, load, 4)
    attempts = attempts_of(server)
    assert set(attempts) == {x.request_id for x in load.all}
    again = [rows for rows in attempts.values() if len(rows) > 1]
    assert len(again) >= 4 and all(len(rows) == 2 for rows in again)
    for lost, won in again:
        assert (lost["replica"], lost["outcome"], lost["status"]) == (hurt["id"], "error", 502)
        assert (won["outcome"], won["status"], won["completion_tokens"], won["tokens_exact"]) == ("ok", 200, 60, 1)
        assert won["prompt_tokens"] == attempts[load.all[0].request_id][-1]["prompt_tokens"]
    assert any(lost["completion_tokens"] > 0 for lost, _ in again)  # it had spoken
    for x in load.all:
        assert x.headers.get("x-lathe-attempts", "1") == str(len(attempts[x.request_id]))
        trace = server.rows("SELECT * FROM traces WHERE request_id = ?", x.request_id)
        assert [(t["outcome"], t["attempts"]) for t in trace] == [("ok", len(attempts[x.request_id]))]
    assert server.rows("SELECT * FROM usage_open") == []
    print(f"{len(load.all)} answers, {len(again)} of them from the second engine")


def test_who_finds_the_others_full_waits_again(fake):
    """All slots are taken when one engine dies: its requests wait for the other, before those that came later, and none overfills it."""
    server = fake(deployment__backoff_first="20s")
    server.engines.set(token_ms=10, latency_ms=5)
    server.deploy("chat", model="smol", context=512, slots=2, replicas=2, queue_max=4)
    asked = [chat(server, "chat", f"first-{i}", False, 80, ignore_eos=True) for i in range(4)]
    hurt, other = replicas(server)
    wait_for("all slots", 10, lambda: busy(hurt) == 2 and busy(other) == 2 or None)
    late = [chat(server, "chat", f"late-{i}", i % 2 == 0, 40, ignore_eos=True) for i in range(4)]
    wait_for("a full queue", 10, lambda: waiting(server) == 4 or None)
    os.kill(hurt["pid"], signal.SIGKILL)
    seen = []

    def all_in_line():
        seen.append(deferred(other))
        return True if waiting(server) == 6 else None
    wait_for("all of them in line", 10, all_in_line)
    for x in asked + late:
        x.read()
        assert x.ok and x.end == "whole", (x.status, x.end, x.error, x.body)
    attempts = attempts_of(server)
    again = [x for x in asked if len(attempts[x.request_id]) == 2]
    assert len(again) == 2
    assert {attempts[x.request_id][0]["replica"] for x in again} == {hurt["id"]}
    last_of_them = max(attempts[x.request_id][1]["started_at"] for x in again)
    assert last_of_them <= min(attempts[x.request_id][0]["started_at"] for x in late)
    rows = [r for rows in attempts.values() for r in rows if r["replica"] == other["id"]]
    for at in [r["started_at"] for r in rows]:  # never more at once than it has slots
        assert sum(r["started_at"] <= at < r["ended_at"] for r in rows) <= 2
    assert set(seen) == {0}


def waiting(server):
    for line in server.call("GET", "/metrics").body.decode().splitlines():
        if line.startswith("lathe_gateway_queue_waiting{"):
            return int(float(line.split()[-1]))
    return 0


@pytest.mark.parametrize("stream", [True, False])
def test_the_only_engine_dies_and_who_has_seen_nothing_waits_for_it(fake, stream):
    server = fake()
    server.engines.set(token_ms=10, latency_ms=3000)
    server.deploy("chat", model="smol", context=512, slots=4)
    asked = [chat(server, "chat", f"{i}", stream, 5, ignore_eos=True) for i in range(4)]
    wait_for("all of them", 10, lambda: busy(replicas(server)[0]) == 4 or None)
    server.engines.set(token_ms=10, latency_ms=10)
    os.kill(replicas(server)[0]["pid"], signal.SIGKILL)
    for x in asked:
        x.read()
        assert x.ok and x.usage["completion_tokens"] == 5, (x.status, x.end, x.error, x.body)
    assert all([r["outcome"] for r in rows] == ["error", "ok"] for rows in attempts_of(server).values())


def test_the_client_that_leaves_while_it_waits_again_is_settled_once(fake):
    server = fake(deployment__backoff_first="20s", gateway__queue_report="50ms")
    server.engines.set(token_ms=10, latency_ms=5)
    server.deploy("chat", model="smol", context=512, slots=1)
    x = chat(server, "chat", "leaver", False, 400, ignore_eos=True)
    wait_for("it at work", 10, lambda: busy(replicas(server)[0]) or None)
    os.kill(replicas(server)[0]["pid"], signal.SIGKILL)
    wait_for("it in line", 10, lambda: waiting(server) == 1 or None)
    x.close()
    wait_for("nobody in line", 10, lambda: waiting(server) == 0 or None)

    def settled():
        server.folded()
        return server.rows("SELECT * FROM usage") or None
    rows = wait_for("its usage", 10, settled)
    assert [(r["outcome"], r["status"], r["attempt"]) for r in rows] == [("cancelled", 499, 1)]
    traces = server.rows("SELECT * FROM traces")
    assert [(t["outcome"], t["attempts"]) for t in traces] == [("cancelled", 1)]
    assert server.rows("SELECT * FROM usage_open") == []


def test_a_request_that_ends_engines_ends_two_of_them_at_most(fake):
    server = fake(deployment__backoff_first="20s")
    server.engines.set(exit_after=1)  # ready after one trial request; the next one ends it
    server.deploy("chat", model="smol", context=512, slots=4, replicas=4)
    x = chat(server, "chat", "poison", False, 5).read()
    assert x.status == 502 and x.error["code"] == "engine_failed", (x.status, x.body)
    rows = attempts_of(server)[x.request_id]
    assert [r["attempt"] for r in rows] == [1, 2] and {r["outcome"] for r in rows} == {"error"}
    wait_for("its harm seen", 10, lambda: sum(r["state"] == "ready" for r in replicas(server)) == 2 or None)


def test_limits_and_cost_count_every_attempt(fake):
    server = fake()
    server.engines.set(token_ms=10, latency_ms=5)
    server.make("prices", name="smol", model="smol", input="1000", output="1000000")  # a token written costs 1
    account = server.call("GET", "/lathe/v1/service_accounts/app").json
    made = server.make("api_keys", name="poor", service_account=account["id"], limits={"money_per_day": "400"})
    server.app_key = made["key"]
    server.deploy("chat", model="smol", context=512, slots=4, replicas=2)
    before = chat(server, "chat", "warm", False, 5, ignore_eos=True).read()
    assert before.ok, before.body
    x = chat(server, "chat", "dear", False, 100, ignore_eos=True)
    hurt = wait_for("it at work", 10, lambda: next((r for r in replicas(server) if busy(r)), None))
    wait_for("half of it", 10, lambda: any(n >= 40 for n in decoded(hurt)) or None)
    os.kill(hurt["pid"], signal.SIGKILL)
    assert x.read().ok, (x.status, x.body)
    rows = attempts_of(server)[x.request_id]
    assert len(rows) == 2 and rows[0]["completion_tokens"] >= 30 and rows[0]["cost"] > 0
    spent = sum(r["cost"] for rows in attempts_of(server).values() for r in rows)
    last = chat(server, "chat", "last", False, 5, ignore_eos=True).read()
    assert last.ok
    nano = 10 ** 9
    remaining = round(float(last.headers["x-ratelimit-remaining-money"]) * nano)
    held = 400 * nano - spent - remaining  # by the last one: five tokens, and a little for its prompt
    assert 5 * nano <= held <= 6 * nano, (held, spent, remaining)


def test_a_connection_that_breaks_does_not_take_a_healthy_engine_away(fake):
    server = fake()
    server.engines.set(token_ms=2)
    server.deploy("chat", model="smol", context=512, slots=2)
    engine_call(replicas(server)[0], "POST", "/fake/options", {"cut-rate": 1000000})
    x = chat(server, "chat", "cut", False, 20, ignore_eos=True).read()
    assert x.status == 502 and x.headers["x-lathe-attempts"] == "2", (x.status, x.headers, x.body)
    assert [r["outcome"] for r in attempts_of(server)[x.request_id]] == ["error", "error"]
    engine_call(replicas(server)[0], "POST", "/fake/options", {"cut-rate": 0})
    for stream in (False, True):
        x = chat(server, "chat", "after", stream, 20, ignore_eos=True).read()
        assert x.ok and time.monotonic() - x.started < 3 * SLOWER, (x.status, x.body)
    assert replicas(server)[0]["restarts"] == 0


def test_an_answer_in_one_piece_costs_its_text_and_has_a_limit(fake):
    server = fake(gateway__answer_max="800KiB")
    server.engines.set(ctx_size=400000)
    server.deploy("chat", model="smol", context=65536, slots=2)
    chat(server, "chat", "warm", False, 200, ignore_eos=True).read()
    before = rss_bytes(server.process.pid, "VmHWM")
    x = chat(server, "chat", "long", False, 60000, ignore_eos=True).read()
    assert x.ok and x.usage["completion_tokens"] == 60000, (x.status, x.body[:300])
    after = rss_bytes(server.process.pid, "VmHWM")
    assert after - before < 16 << 20                        # of each of 60,000 events nothing stays but its word
    engine_call(replicas(server)[0], "POST", "/fake/options", {"big-bytes": 900000})
    x = chat(server, "chat", "larger", False, 20, ignore_eos=True).read()
    assert x.status == 502 and "too large" in x.body.decode(), (x.status, x.body[:300])
