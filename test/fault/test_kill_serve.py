# SPDX-License-Identifier: Apache-2.0
"""`kill -9` of the server under live streams, again and again: nothing acknowledged is lost, nothing is counted twice, and the engines
never notice more than a client that left."""

import threading

from harness import SLOWER, Background, chat, each_round, engine_call, rounds, some, together, wait_for

AHEAD = int(16 * SLOWER)  # tokens that the journal may know of before the client has them


class Asked:
    """All requests of one round, by the name that the client gave each (`user`)."""

    def __init__(self, server, name, sizes, **more):
        self.server, self.name, self.sizes, self.more = server, name, sizes, more
        self.all, self.lock, self.dead = {}, threading.Lock(), threading.Event()

    def one(self, worker, turn):
        user, stream, size = f"{self.name}-{worker}-{turn}", worker % 10 != 9, self.sizes(worker, turn)
        try:
            x = chat(self.server, "chat", user, stream, size, **self.more)
            x.size = size
        except OSError:
            self.dead.wait(0.2)
            return
        with self.lock:
            self.all[user] = x
        x.read()
        if not x.ok:  # the rest of this thread's time there is no server
            assert x.status in (None, 200) and x.error is None, (x.status, x.error, x.body)
            self.dead.wait(60)

    def live(self):
        """Streams that are under way now, each with at least one token."""
        with self.lock:
            return sum(1 for x in self.all.values() if x.tokens and not x.done and not x.end)


class Creator:
    """Makes resources one after the other and remembers which were acknowledged."""

    def __init__(self, server, name):
        self.server, self.name, self.acknowledged = server, name, []

    def one(self, worker, turn):
        name = f"{self.name}-{turn}"
        try:
            a = self.server.call("POST", "/lathe/v1/service_accounts", {"name": name, "roles": ["viewer"]})
        except OSError:
            threading.Event().wait(0.05)
            return
        assert a.status == 201, a.body
        self.acknowledged.append(a.json["id"])


def check_request(x, rows):
    """rows: of usage, of this request."""
    if not rows and not x.tokens and (x.request_id is None or "x-lathe-queue-position" in x.headers):
        return "unseen"  # the server died before it had read it, or while it stood in line
    assert len(rows) == 1, rows
    row = rows[0]
    if x.ok:
        told = (x.usage["prompt_tokens"], x.usage["completion_tokens"])
        assert (row["outcome"], row["tokens_exact"]) == ("ok", 1), row
        assert (row["prompt_tokens"], row["completion_tokens"]) == told, (row, told)
        return "finished"
    # Settled, and the last bytes did not leave in time: rare, and the count is the engine's.
    assert row["outcome"] in ("interrupted", "ok"), row
    most = min(x.tokens + AHEAD, x.size) if row["streamed"] else x.size
    assert x.tokens <= row["completion_tokens"] <= most, (x.tokens, row)
    return row["outcome"]


def check_ledger(replicas, x, row):
    """A finished answer is in the ledger of one engine, with the same figures."""
    by_id = {r["id"]: r for r in replicas}
    records = engine_call(by_id[row["replica"]], "GET", f"/fake/requests/{x.request_id}")
    assert [(r["outcome"], r["told_tokens"], r["prompt_tokens"]) for r in records] == \
        [("finished", row["completion_tokens"], row["prompt_tokens"])], (records, row)


def check_round(server, asked, replicas, ledger):
    server.folded()
    usage, seen = {}, {}
    for row in server.rows("SELECT * FROM usage WHERE end_user LIKE ?", asked.name + "-%"):
        usage.setdefault(row["end_user"], []).append(row)
    assert set(usage) <= set(asked.all)
    for user, x in asked.all.items():
        kind = check_request(x, usage.get(user, []))
        seen[kind] = seen.get(kind, 0) + 1
        if kind == "finished" and ledger:
            check_ledger(replicas, x, usage[user][0])
    for rows in usage.values():
        row = rows[0]
        assert row["cost"] == row["prompt_tokens"] * 100 + row["completion_tokens"] * 400, row
    for table in ("traces", "inference_audits"):
        for user, rows in usage.items():
            found = server.rows(f"SELECT * FROM {table} WHERE request_id = ?", rows[0]["request_id"])
            assert [r["completion_tokens"] for r in found] == [rows[0]["completion_tokens"]], (table, user, found)
    assert server.rows("SELECT * FROM usage_open") == []
    assert server.rows("SELECT id, count(*) n FROM usage GROUP BY id HAVING count(*) > 1") == []
    return seen


def check_adopted(server, before):
    def ready():
        d = server.deployment("chat")
        return d if d["state"] == "ready" else None
    after = wait_for("the replicas, adopted", 1, ready)["replicas_status"]
    want = [(r["id"], r["pid"], r["restarts"], r["started_at"]) for r in before]
    assert [(r["id"], r["pid"], r["restarts"], r["started_at"]) for r in after] == want


def one_round(server, asked, streams, tokens, total):
    """Kills the server while all streams are live; total: tokens that come before that."""
    creator = Creator(server, asked.name)
    before = server.ready("chat")["replicas_status"]
    with Background(streams, asked.one) as load, Background(1, creator.one) as making:
        def due():
            enough = sum(x.tokens for x in list(asked.all.values())) >= total and creator.acknowledged
            assert not load.failed and not making.failed, (load.failed, making.failed)
            return True if enough and asked.live() >= tokens else None
        wait_for("live streams", 60, due)
        server.kill()
        load.over.set(), making.over.set(), asked.dead.set()
    server.start(*server.flags)
    check_adopted(server, before)
    for made in creator.acknowledged:
        assert server.call("GET", "/lathe/v1/service_accounts/" + made).status == 200
    return before, len(creator.acknowledged)


def burst(server, n, size, **more):
    """As many as there are slots, at once: every one is free again."""
    for x in together(n, lambda i: chat(server, "chat", f"burst-{i}", max_tokens=size, **more).read()):
        assert x.ok and x.usage["completion_tokens"] == size, (x.status, x.error, x.end)


def priced(server):
    server.make("prices", name="smol", model="smol", input="0.10", output="0.40", cached="0.10")  # a million tokens


def test_under_50_streams_of_the_fake_engine(fake):
    server, long = fake(), rounds(3) > 18  # many rounds are quick ones
    streams, live, tokens = (24, 16, (200, 1500)) if long else (60, 50, (1500, 6000))
    server.engines.set(token_ms=15, token_jitter_ms=10, latency_ms=5, jitter_ms=20)
    priced(server)
    server.deploy("chat", model="smol", context=512, slots=32, replicas=2)
    for n in each_round("kill-serve", 3):
        asked = Asked(server, f"r{n}", lambda w, t, d=some(n): d.choice((5, 90, 200, 200)), ignore_eos=True)
        before, made = one_round(server, asked, streams, live, some(1000 + n).randrange(*tokens))
        print(f"round {n}:", check_round(server, asked, before, True), f"{made} resources", flush=True)
        burst(server, 64, 10, ignore_eos=True)
    server.cli("audit", "verify")


def test_under_8_streams_of_the_real_engine(real):
    priced(real)
    real.deploy("chat", model="smol", context=512, slots=8, replicas=1)
    for n in range(2):
        asked = Asked(real, f"r{n}", lambda w, t: (16, 300)[w % 4 > 0], ignore_eos=True, timings_per_token=True)
        before, made = one_round(real, asked, 9, 6, 150)
        print(f"round {n}:", check_round(real, asked, before, False), f"{made} resources")
        burst(real, 8, 5, ignore_eos=True)
    real.cli("audit", "verify")
