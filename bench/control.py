# SPDX-License-Identifier: Apache-2.0
"""The control plane on both databases: creates, lists of many rows, events."""

import contextlib
import http.client
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

from world import ROOT, Server, Wrong, budget, budgets, cores, load, table

PAGE = 50


@contextlib.contextmanager
def postgres():
    """test/postgres-run's server while the block lasts; harness takes its address from the environment."""
    with subprocess.Popen([str(ROOT / "test" / "postgres-run"), "sh", "-c", 'echo "$LATHE_TEST_POSTGRES"; read end'],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        address = p.stdout.readline().strip()
        if not address:
            raise Wrong("no PostgreSQL server")
        os.environ |= {"LATHE_TEST_POSTGRES": address, "LATHE_TEST_DATABASE": "postgres"}
        try:
            yield
        finally:
            del os.environ["LATHE_TEST_POSTGRES"], os.environ["LATHE_TEST_DATABASE"]
            p.communicate("end\n")


def p99(values):
    return sorted(values)[max(0, -(-len(values) * 99 // 100) - 1)]


class Keep:
    """One connection that is kept."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
        self.headers = {"Authorization": "Bearer " + server.key, "Content-Type": "application/json"}

    def ask(self, method, path, content=None):
        """(JSON, ms)"""
        began = time.monotonic()
        self.connection.request(method, path, content, self.headers)
        r = self.connection.getresponse()
        text = r.read()
        took = (time.monotonic() - began) * 1e3
        if r.status not in (200, 201):
            raise Wrong(f"{method} {path}: {r.status}: {text[:300]}")
        return json.loads(text), took


FIELDS = {"secrets": {"description": "One of very many", "value": "it is not read"}, "service_accounts": {"title": "One of very many"}}


def create(server, top, n, connections, core, kind="secrets"):
    """So many rows, each with a name of its own; each create is durable before it is answered."""
    content, keys = pathlib.Path(top) / "create.json", pathlib.Path(top) / "admin"
    first = server.made[kind]
    content.write_text(json.dumps({"name": "row-NNNNNNNNN", **FIELDS[kind]}))
    keys.write_text(server.key)
    server.made[kind] += n
    return load(["closed", server.url.removeprefix("http://"), "--path", f"/lathe/v1/{kind}", "--body", str(content),
                 "--keys", str(keys), "--status", "201", "--connections", str(connections), "--requests", str(n),
                 "--first", str(first), "--expect", '"revision":1'], core)


def walk(server, since, expected):
    """A filtered, sorted list from its first page to its last, by cursor. Milliseconds of each page."""
    kept, cursor, times, names = Keep(server), None, [], []
    while True:
        query = {"created_at.ge": since, "sort": "-name", "limit": PAGE} | ({"cursor": cursor} if cursor else {})
        page, ms = kept.ask("GET", "/lathe/v1/secrets?" + urllib.parse.urlencode(query))
        times.append(ms)
        names += [r["name"] for r in page["data"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    if len(names) != expected or names != sorted(set(names), reverse=True):
        raise Wrong(f"the list gave {len(names)} rows, {len(set(names))} of them different; {expected} were expected, in order")
    return times


def lists(server, between):
    """What people ask of a long list, half of whose rows are older than `between`: milliseconds of each, again and again."""
    queries = {
        "first page by name": "sort=name", "one by its name": "name=row-000000017", "search": "q=row-00000001",
        "newer half, by name": f"created_at.ge={between}&sort=name", "newer half, by time": f"created_at.ge={between}&sort=created_at",
        "older half, by name, last first": f"created_at.lt={between}&sort=-name", "latest": "sort=-created_at"}
    kept = Keep(server)
    return {name: [kept.ask("GET", f"/lathe/v1/secrets?{query}&limit={PAGE}")[1] for _ in range(50)] for name, query in queries.items()}


class Listener(threading.Thread):
    """Reads the live events; when each came, by the name of the row."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.came, self.failed, self.opened = {}, None, threading.Event()
        self.connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
        self.connection.request("GET", "/lathe/v1/events?kind=secret.created", headers={"Authorization": "Bearer " + server.key})
        self.answer = self.connection.getresponse()
        if self.answer.status != 200:
            raise Wrong(f"events: {self.answer.status}: {self.answer.read()}")

    def run(self):
        try:
            for line in self.answer:
                if line.startswith(b"data:"):
                    at = time.monotonic()
                    self.came[json.loads(line[5:])["subject"]] = at
        except Exception as e:  # the thread that waits tells of it
            self.failed = e


def deliver(server, n):
    """Milliseconds from the sending of a create until its event is here: the create itself is in it."""
    listener, kept, sent = Listener(server), Keep(server), {}
    listener.start()
    for i in range(n):
        began = time.monotonic()
        row, _ = kept.ask("POST", "/lathe/v1/secrets", json.dumps({"name": f"told-{i}", "value": "it is not read"}))
        sent[row["id"]] = began
    give_up = time.monotonic() + 20
    while not sent.keys() <= set(listener.came):  # others come as well: of earlier rows, when the relay was behind
        if listener.failed or time.monotonic() > give_up:
            raise Wrong(f"not all of {n} events came: {listener.failed}")
        time.sleep(0.005)
    return [(listener.came[i] - at) * 1e3 for i, at in sent.items()]


def one(name, args):
    """(row, rows of lists, budgets) of one database."""
    n, events = (400, 20) if args.quick else (100000, 2000)
    core, _ = cores(args.free)
    with tempfile.TemporaryDirectory(prefix="lathe-bench-") as top:
        server = Server(pathlib.Path(top) / "data")
        server.data.mkdir()
        server.made = dict.fromkeys(FIELDS, 0)
        try:
            server.start()
            alone = create(server, top, n // 100, 1, core)
            create(server, top, n // 2 - n // 100, 16, core)
            row, _ = Keep(server).ask("POST", "/lathe/v1/secrets", json.dumps({"name": "row-between", "value": "x"}))
            server.made["secrets"] += 1
            many = create(server, top, n // 2 - 1, 16, core)
            print(f"control: {name}: {server.made['secrets']} rows", file=sys.stderr, flush=True)
            pages = walk(server, row["created_at"], n // 2)
            asked = {"walk of the newer half by cursor, by name, last first": pages, **lists(server, row["created_at"])}
            told = deliver(server, events)
            server.made["secrets"] += events
            accounts = create(server, top, n // 50, 16, core, "service_accounts")
            for kind, made in server.made.items():
                have = server.rows(f"SELECT count(*) n FROM {kind}")[0]["n"]
                if have != made:
                    raise Wrong(f"{made} creates of {kind} were answered with 201, the database has {have} rows")
        finally:
            server.stop()
        rates = [r["answered"] / r["elapsed_ns"] * 1e9 for r in (alone, many, accounts)]
        slow = [r["latency"]["p99_ns"] / 1e6 for r in (alone, many)]
        row = (name, f"{rates[0]:,.0f}", f"{slow[0]:.1f}", f"{rates[1]:,.0f}", f"{slow[1]:.1f}", f"{rates[2]:,.0f}",
               f"{statistics.median(told):.1f}", f"{p99(told):.1f}")
        pages = [(f"{name}: {what}", f"{len(t):,}", f"{statistics.median(t):.1f}", f"{p99(t):.1f}", f"{max(t):.1f}")
                 for what, t in asked.items()]
        worst = max(asked, key=lambda what: p99(asked[what]))
        return row, pages, [budget(f"{name}: a page of a list, p99, ms; the worst: {worst}", p99(asked[worst]), 20, "{:.1f}"),
                            budget(f"{name}: an event's delivery, p99, ms", p99(told), 50, "{:.1f}")]


def control(args):
    """Creates a second, pages of 100,000 rows with filter and cursor, and the delivery of events, on both databases."""
    rows = [("", "creates/s, c=1", "p99 ms", "creates/s, c=16", "p99 ms", "of what keys need, c=16", "event p50 ms", "p99 ms")]
    pages = [(f"pages of {PAGE} of {400 if args.quick else 100000:,} rows", "asked", "p50 ms", "p99 ms", "slowest ms")]
    limits = []
    for name, database in (("SQLite", contextlib.nullcontext()), ("PostgreSQL", postgres())):
        with database:
            row, some, more = one(name, args)
        rows.append(row)
        pages += some
        limits += more
    return [table(rows), table(pages), budgets(limits), "Rows are secrets, made with half of the rows there at c=16; what keys need are "
            "service accounts: such a create is answered once every key's picture has it. PostgreSQL runs on the same machine, without "
            "fsync: its figures show the way, not a disk."]
