# SPDX-License-Identifier: Apache-2.0
"""A deployment changes, stops, starts again and goes away under load: no request is dropped that was taken."""

import os
import threading

from harness import Background, chat, rounds, wait_for


class Load:
    """Requests on n threads, streamed and not, each of which must succeed."""

    def __init__(self, server, n, size, **more):
        self.server, self.size, self.more = server, size, more
        self.lock, self.sent, self.done = threading.Lock(), 0, 0
        self.background = Background(n, self.one)

    def one(self, worker, turn):
        with self.lock:
            self.sent += 1
            n = self.sent
        x = chat(self.server, "chat", f"n{n}", n % 2 == 0, self.size, **self.more).read()
        assert x.ok and x.end == "whole", (n, x.status, x.end, x.error, x.body)
        assert x.usage["completion_tokens"] == self.size
        with self.lock:
            self.done += 1

    def more_done(self, n, seconds=120):
        """Waits until n more have succeeded."""
        target = self.done + n

        def look():
            assert not self.background.failed, self.background.failed
            return True if self.done >= target else None
        wait_for(f"{n} more answers", seconds, look)


CHANGES = [{"slots": 6}, {"context": 300}, {"slots": 8, "context": 512}, {"replicas": 3}, {"replicas": 2, "slots": 5}]


def roll(server, load, total, changes):
    """Changes one after the other, and a restart, spread over `total` requests."""
    share = total // (len(changes) + 1)
    with load.background:
        for change in changes:
            load.more_done(share)
            before = {r["id"] for r in server.deployment("chat")["replicas_status"]}
            server.change("chat", **change)

            def rolled():
                d = server.deployment("chat")
                ids = {r["id"] for r in d["replicas_status"]}
                assert d["state"] in ("ready", "updating"), (d["state"], d["state_reason"])
                return True if d["state"] == "ready" and d["observed_generation"] == d["generation"] and ids != before else None
            wait_for(f"the change {change}", 120, rolled)
        load.more_done(max(total - load.done, 1), 300)
    server.folded()
    rows = server.rows("SELECT outcome, count(*) n FROM usage GROUP BY outcome")
    assert {r["outcome"] for r in rows} == {"ok"} and rows[0]["n"] == load.done == load.sent, (rows, load.done, load.sent)
    assert server.rows("SELECT * FROM usage_open") == []
    print(f"{load.done} requests, {len(changes)} changes, none dropped")


def test_rolling_changes_of_the_fake_engine_drop_nothing(fake):
    server = fake()
    server.engines.set(token_ms=2, token_jitter_ms=2, latency_ms=2)
    server.deploy("chat", model="smol", context=512, slots=4, replicas=2)
    roll(server, Load(server, 12, 8, ignore_eos=True), 10000 if rounds(0) == 18 else 2000, CHANGES)


def test_a_rolling_change_of_the_real_engine_drops_nothing(real):
    real.deploy("chat", model="smol", context=256, slots=2)
    total = 200 if os.environ.get("FAULT_REAL") else 40
    roll(real, Load(real, 4, 6, ignore_eos=True), total, [{"slots": 3}])


def test_an_answer_is_recorded_under_the_version_that_gave_it(fake):
    """While a new version loads the old one answers, and says so in the ledger, the trace and the audit; and is paid at its own price."""
    server = fake()
    server.engines.set(token_ms=2)
    server.deploy("chat", model="smol:1", context=512, slots=4)
    other = server.data.parent / "other.gguf"
    model = bytearray((server.data.parent / "small.gguf").read_bytes())
    model[-1] ^= 1  # of a tensor
    other.write_bytes(model)
    server.cli("model", "import", "other", "--file", str(other), "--wait")
    server.make("prices", name="cheap", model="smol", output="500000")
    server.make("prices", name="dear", model="other", output="1000000")
    old = server.deployment("chat")
    server.engines.set(token_ms=2, load_ms=4000)
    server.change("chat", model="other:1")

    def moving():
        d = server.deployment("chat")
        return d if d["serves"] == "other:1" and d["state"] == "updating" and len(d["replicas_status"]) == 2 else None
    new = wait_for("the change", 10, moving)
    assert {r["serves"] for r in new["replicas_status"]} == {"smol:1", "other:1"}
    for stream in (False, True):
        check_version(server, chat(server, "chat", "meanwhile", stream, 8, ignore_eos=True).read(), old, 1)
    server.ready("chat", 30)
    for stream in (False, True):
        check_version(server, chat(server, "chat", "after", stream, 8, ignore_eos=True).read(), new, 2)


def check_version(server, x, deployment, price):
    assert x.ok, x.body
    server.folded()
    serving = deployment["serving"]
    usage, = server.rows("SELECT version, cost, completion_tokens FROM usage WHERE request_id = ?", x.request_id)
    trace, = server.rows("SELECT version FROM traces WHERE request_id = ?", x.request_id)
    audit, = server.rows("SELECT version, model_digest FROM inference_audits WHERE request_id = ?", x.request_id)
    assert usage["version"] == trace["version"] == audit["version"] == serving["version"]
    assert audit["model_digest"] == serving["digest"]
    assert usage["cost"] == price * 5 * 10 ** 8 * usage["completion_tokens"]


def stops(server, how):
    """`how` ends the deployment; what is under way finishes, what comes is told why not."""
    asked = [chat(server, "chat", f"s{i}", i % 2 == 0, 60, ignore_eos=True) for i in range(6)]
    streams = [iter_of(x) for x in asked[::2]]
    for it in streams:
        next(it)
    how()

    def refused():
        x = chat(server, "chat", "late").read()
        return x if x.status != 200 else None
    late = wait_for("the end for new ones", 10, refused)
    assert late.status in (503, 404) and late.error["message"], late.body
    for x, it in zip(asked[::2], streams):
        for _ in it:
            pass
        assert x.ok and x.usage["completion_tokens"] == 60, (x.end, x.error)
    for x in asked[1::2]:
        x.read()
        assert x.ok and x.usage["completion_tokens"] == 60, (x.status, x.body)


def iter_of(x):
    assert x.head() and x.status == 200
    return x.events_of()


def test_stop_and_delete_drain(fake):
    server = fake()
    server.engines.set(token_ms=20, latency_ms=5)
    server.deploy("chat", model="smol", context=512, slots=8, replicas=2)
    stops(server, lambda: server.call("POST", "/lathe/v1/deployments/chat/stop"))
    wait_for("stopped", 20, lambda: server.deployment("chat")["state"] == "stopped" or None)
    assert server.deployment("chat")["replicas_status"] == []
    assert server.call("POST", "/lathe/v1/deployments/chat/start").status == 200
    server.ready("chat", 20)
    stops(server, lambda: server.call("DELETE", "/lathe/v1/deployments/chat"))
    wait_for("gone", 20, lambda: server.deployment("chat") is None or None)
