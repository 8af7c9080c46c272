# SPDX-License-Identifier: Apache-2.0
"""Clients that leave or do not read, queues that are full, signals, a full disk, a second server on the same folder."""

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

import pytest

from conftest import small_model
from harness import LATHE, SLOWER, chat, engine_call, ledger, rss_bytes, wait_for


def one(server):
    return server.deployment("chat")["replicas_status"][0]


def deploy(server, **fields):
    server.deploy("chat", model="smol", **{"context": 1024, "slots": 2, **fields})
    return one(server)


def busy(replica):
    return sum(slot["is_processing"] for slot in engine_call(replica, "GET", "/slots"))


def begun(x):
    """Reads to the first token; gives what reads on."""
    assert x.head() and x.status == 200, (x.status, x.raw)
    events = x.events_of()
    while not x.tokens:
        next(events)
    return events


def usage_of(server, request_id):
    server.folded()
    return server.rows("SELECT * FROM usage WHERE request_id = ?", request_id)


# ---- clients


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(fake, stream):
    server = fake()
    server.engines.set(token_ms=20)
    replica, noticed = deploy(server, slots=1, queue_max=5), []
    for n in range(5):
        gone_before = ledger(replica)["outcomes"]["disconnected"]
        x = chat(server, "chat", f"leaver-{n}", stream, 900, ignore_eos=True)
        if stream:
            begun(x)
        else:
            wait_for("the engine at work", 10, lambda: busy(replica) or None)
        next_one = chat(server, "chat", f"next-{n}", max_tokens=3, ignore_eos=True)
        x.close()
        left = time.monotonic()
        while ledger(replica)["outcomes"]["disconnected"] == gone_before:
            assert time.monotonic() < left + 5 * SLOWER
        noticed.append(time.monotonic() - left)
        assert next_one.read().ok  # the slot is free for who waited

        def settled():
            server.folded()
            return server.rows("SELECT * FROM usage WHERE end_user = ?", f"leaver-{n}") or None
        rows = wait_for("its usage", max(0.1, left + 1 - time.monotonic()), settled)
        assert [(r["outcome"], r["status"]) for r in rows] == [("cancelled", 499)]
        assert x.tokens <= rows[0]["completion_tokens"] <= x.tokens + 60
    print("the engine noticed after", [f"{1000 * t:.0f} ms" for t in noticed])
    assert statistics.median(noticed) < 0.1 * SLOWER, noticed


def test_a_client_that_waits_and_leaves_is_forgotten(fake):
    server = fake(gateway__queue_report="50ms")
    server.engines.set(token_ms=20)
    deploy(server, slots=1, queue_max=2)
    first = chat(server, "chat", "first", max_tokens=30, ignore_eos=True)
    rest = begun(first)
    waiter = chat(server, "chat", "waiter")
    assert waiter.head()
    waiter.close()
    third = chat(server, "chat", "third", max_tokens=3, ignore_eos=True)
    assert third.read().ok
    for _ in rest:
        pass
    assert first.ok
    server.folded()
    assert server.rows("SELECT * FROM usage WHERE end_user = 'waiter'") == []
    traces = server.rows("SELECT * FROM traces WHERE end_user = 'waiter'")
    assert [(t["outcome"], t["attempts"]) for t in traces] == [("cancelled", 0)]


def test_a_slow_reader_costs_bounded_memory_and_hurts_nobody(fake):
    server = fake()
    server.engines.set(tokens_per_chunk=50)
    replica = deploy(server, slots=4, context=300000)
    quick = chat(server, "chat", "warm", max_tokens=2000, ignore_eos=True).read()
    assert quick.ok
    before = rss_bytes(server.process.pid)
    slow = [chat(server, "chat", f"slow-{n}", max_tokens=250000, ignore_eos=True, receive_buffer=8192, n=1) for n in range(3)]
    for x in slow:
        assert x.head()
    made = []

    def stuck():  # the engine makes no more: it is held back
        made.append(ledger(replica)["completion_tokens"])
        time.sleep(0.1)
        return True if len(made) > 5 and made[-1] == made[-5] else None
    wait_for("the engine held back", 30, stuck)
    grown = rss_bytes(server.process.pid) - before
    print(f"three readers that do not read: {grown >> 10} KiB more")
    assert grown < 24 << 20
    for _ in range(5):
        x = chat(server, "chat", "quick", max_tokens=2000, ignore_eos=True).read()
        assert x.ok and time.monotonic() - x.started < 2 * SLOWER
    for _ in slow[0].events_of():  # it reads again, and nothing is missing
        pass
    assert slow[0].ok and slow[0].usage["completion_tokens"] == 250000, (slow[0].end, slow[0].error)
    for x in slow:
        x.close()


# ---- queues


def test_a_full_queue(fake):
    server = fake(gateway__queue_report="50ms")
    server.engines.set(token_ms=25)
    deploy(server, slots=1, queue_max=2)
    first = chat(server, "chat", "first", max_tokens=40, ignore_eos=True)
    rest = begun(first)
    second = chat(server, "chat", "second", max_tokens=5, ignore_eos=True)
    assert second.head() and second.headers["x-lathe-queue-position"] == "1"
    third = chat(server, "chat", "third", False, max_tokens=5, ignore_eos=True)
    full = wait_for("a full queue", 5, lambda: (lambda x: x if x.status == 429 else None)(chat(server, "chat", "fourth").read()))
    assert int(full.headers["retry-after"]) >= 1 and full.error["code"] == "queue_full", (full.headers, full.body)
    for _ in rest:
        pass
    for _ in second.events_of():
        pass
    third.read()
    assert first.ok and second.ok and third.ok
    assert any(c.startswith("queue position 1") for c in second.comments), second.comments
    assert third.headers["x-lathe-queue-position"] in ("1", "2")


def test_a_wait_that_takes_too_long(fake):
    server = fake()
    server.engines.set(token_ms=25)
    deploy(server, slots=1, queue_max=2, queue_ms=200)
    first = chat(server, "chat", "first", max_tokens=40, ignore_eos=True)
    rest = begun(first)
    late = chat(server, "chat", "late", False).read()
    assert late.status == 503 and late.error["code"] == "queue_timeout" and int(late.headers["retry-after"]) >= 1, late.body
    for _ in rest:
        pass
    assert first.ok


# ---- signals


def test_sigterm_lets_streams_finish(fake):
    server = fake()
    server.engines.set(token_ms=20)
    deploy(server, slots=4)
    streams = [chat(server, "chat", f"s{i}", max_tokens=40, ignore_eos=True) for i in range(3)]
    whole = chat(server, "chat", "whole", False, 40, ignore_eos=True)
    rest = [begun(x) for x in streams]
    server.process.send_signal(signal.SIGTERM)
    for x, it in zip(streams, rest):
        for _ in it:
            pass
        assert x.ok and x.usage["completion_tokens"] == 40, (x.end, x.error)
    assert whole.read().ok
    assert server.process.wait(20 * SLOWER) == 0, server.said()
    server.start(*server.flags)
    assert [r["outcome"] for r in server.rows("SELECT outcome FROM usage")] == ["ok"] * 4
    assert chat(server, "chat", "after", max_tokens=3).read().ok


def test_sighup_changes_a_setting_under_a_stream(fake, tmp_path):
    config = tmp_path / "lathe.yaml"
    config.write_text("gateway:\n  queue_report: 1s\n")
    os.environ["LATHE_CONFIG"] = str(config)
    try:
        server = fake()
    finally:
        del os.environ["LATHE_CONFIG"]
    server.engines.set(token_ms=20)
    deploy(server, slots=1)
    first = chat(server, "chat", "first", max_tokens=100, ignore_eos=True)
    rest = begun(first)
    config.write_text("gateway:\n  queue_report: 40ms\n")
    server.process.send_signal(signal.SIGHUP)
    wait_for("the reload", 5, lambda: "settings reloaded" in server.said() or None)
    second = chat(server, "chat", "second", max_tokens=3, ignore_eos=True)
    config.write_text("gateway:\n  queue_reprot: 40ms\n")  # nothing changes, and it is said
    server.process.send_signal(signal.SIGHUP)
    wait_for("the refusal", 5, lambda: "settings not reloaded" in server.said() or None)
    for _ in rest:
        pass
    second.read()
    assert first.ok and first.usage["completion_tokens"] == 100 and second.ok
    assert len(second.comments) >= 2, second.comments


# ---- the disk


@pytest.fixture
def small_disk():
    with tempfile.TemporaryDirectory(prefix="lathe-disk-") as top:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "lathe-test", top], capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip("no file system of our own can be mounted here: " + mounted.stderr.strip())
        try:
            yield top
        finally:
            subprocess.run(["umount", "-l", top], check=True)


@contextlib.contextmanager
def full(filler):
    """Takes every byte that is left; they are given back behind the block, however it ends."""
    try:
        with open(filler, "wb", buffering=0) as f:
            for size in (1 << 20, 4096, 512, 1):
                with contextlib.suppress(OSError):
                    while f.write(b"x" * size):
                        pass
        yield
    finally:
        os.unlink(filler)


def test_a_full_disk(small_disk, fake, tmp_path):  # the disk outlives the server
    server, filler = fake(small_disk), small_disk + "/filler"
    deploy(server, slots=4, context=65536)
    project = server.call("GET", "/lathe/v1/projects").json["data"][0]
    a = server.call("PATCH", "/lathe/v1/projects/" + project["id"], {"recording": "all"})
    assert a.status == 200, a.body
    long = "word " * 30000  # recorded, so that the journal's segment is soon used up

    def ask(i):
        return chat(server, "chat", f"d{i}", i % 2 == 0, 3, messages=[{"role": "user", "content": long}]).read()
    assert ask(0).ok
    with full(filler):
        a = server.call("POST", "/lathe/v1/service_accounts", {"name": "full", "roles": ["viewer"]})
        seen, answers = set(), []
        for i in range(1, 400):
            answers.append(ask(i))
            seen.add(answers[-1].status)
            if 507 in seen:
                break
        assert seen <= {200, 507} and 507 in seen, seen
        refused = answers[-1]
        assert refused.error["code"] == "storage_full" and refused.request_id, refused.body
        a = server.call("POST", "/lathe/v1/service_accounts", {"name": "full-2", "roles": ["viewer"]})
        assert a.status == 507 and a.json["error"]["message"], a.body
        # A model's share of the disk: rows fit again, with all that waits to be folded; the object, larger than the disk, does not.
        os.truncate(filler, os.path.getsize(filler) - (48 << 20))
        objects = tmp_path / "big.gguf"
        objects.write_bytes(small_model(tmp_path).read_bytes())
        os.truncate(objects, 200 << 20)
        r = server.cli("model", "import", "big", "--file", str(objects), "--wait", ok=False)
        assert r.returncode != 0 and "no space left" in r.stderr, r.stderr + r.stdout
        assert server.call("GET", "/lathe/v1/service_accounts").status == 200 and server.process.poll() is None
    again = wait_for("its recovery", 20, lambda: (lambda x: x if x.ok else None)(ask(1000)))
    a = server.call("POST", "/lathe/v1/service_accounts", {"name": "full-2", "roles": ["viewer"]})
    assert a.status == 201, a.body
    server.folded()
    ok = [x for x in answers if x.ok] + [again]
    rows = {r["request_id"]: r for r in server.rows("SELECT * FROM usage")}
    assert all(rows[x.request_id]["completion_tokens"] == x.usage["completion_tokens"] for x in ok)
    assert server.rows("SELECT * FROM usage_open") == []
    os.truncate(objects, 8 << 20)
    server.cli("model", "import", "big", "--file", str(objects), "--wait")
    server.cli("audit", "verify")
    print(f"{len(ok)} answered, {sum(x.status == 507 for x in answers)} refused")


def test_a_second_server_on_the_same_folder(fake):
    server = fake()
    start = time.monotonic()
    r = subprocess.run([LATHE, "serve", "--data", str(server.data), "--listen", "127.0.0.1:0"],
                       capture_output=True, text=True, timeout=20 * SLOWER, check=False)
    assert r.returncode not in (0, -signal.SIGABRT) and time.monotonic() - start < 10 * SLOWER
    assert "lathe serve:" in r.stderr and "use" in r.stderr, r.stderr
    assert server.call("GET", "/lathe/v1/deployments").status == 200
    assert (server.data / "url").read_text() == server.url


# ---- the journal is gone


def test_a_journal_that_was_lost_is_told_and_its_place_taken(fake):
    """Its disk was replaced, the database was not: what comes next is counted all the same, and the audit knows of the gap."""
    server = fake()
    deploy(server)
    for n in range(3):
        assert chat(server, "chat", f"before-{n}", max_tokens=2).read().ok
    server.folded()
    assert server.stop() == 0, server.said()
    shutil.rmtree(server.data / "journal")
    server.start(*server.flags)
    wait_for("the deployment", 30, lambda: server.deployment("chat")["state"] == "ready" or None)
    after = chat(server, "chat", "after", max_tokens=2).read()
    row, = usage_of(server, after.headers["x-request-id"])
    assert row["completion_tokens"] == 2
    wait_for("its trace", 10, lambda: server.call("GET", "/lathe/v1/traces?request_id=" + after.headers["x-request-id"]).json["data"] or None)
    told = server.rows("SELECT * FROM system_audit_entries WHERE kind = 'journal'")
    assert [t["verb"] for t in told] == ["lose"]
    assert len(server.rows("SELECT * FROM usage")) == 4


def test_a_power_cut_is_told_once(fake):
    """Another boot than the one that the journal was open on: up to 50 ms of usage may be missing, and the audit says so."""
    def told():
        return [t["change"] for t in server.rows("SELECT change FROM system_audit_entries WHERE kind = 'journal'")]

    def life():
        return list((server.data / "journal").glob("*.life"))

    server = fake()
    server.kill()
    server.start(*server.flags)
    assert told() == []                              # a process that dies takes nothing with it
    server.kill()
    life()[0].write_text("another boot\n")
    for _ in range(2):
        server.start(*server.flags)
        assert len(told()) == 1 and "power cut" in told()[0]
        server.kill()
    server.start(*server.flags)
    assert server.stop() == 0 and life() == []
    server.start(*server.flags)
    assert len(told()) == 1
    server.kill()
    life()[0].write_bytes(b"\xff" * 5000)           # damaged: it starts all the same, and tells once more
    server.start(*server.flags)
    assert len(told()) == 2
