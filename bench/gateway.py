# SPDX-License-Identifier: Apache-2.0
"""Sections about the path of requests: nginx and Lathe before the same fake engine, and Lathe by itself. Each starts what it needs,
measures, proves that nothing was lost, and gives its tables as text."""

import os
import resource
import signal
import statistics
import subprocess
import sys
import time

from world import (KEYS, LATHE, LOAD, SLOTS, SYSTEMS, Wrong, World, anonymous, body, budget, budgets, end, get, median_of, merged,
                   on, paired, streamed, table, us)

STREAMED = 64  # tokens of a stream that comes at once


def disturbance(w):
    return f"Other programs took {w.disturbed():.0f} % of the machine's processors during the blocks."


# ---- the same fixed rate for all three

def rate(args):
    """p50 and p99 at a fixed rate, from the moment at which each request was meant to be sent."""
    kinds = [("1 KB", 1 << 10, 2000), ("100 KB", 100 << 10, 300), ("1 MB", 1 << 20, 30)]
    rows = [("", "meant/s", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs", "longest", "sent late, p99", "CPU ms per 1,000")]
    limits, rounds = [], 1 if args.quick else 9
    with World(args) as w:
        for name, size, per_second in kinds:
            for stream in (False, True):
                per_second //= 4 if stream and size == 1 << 10 else 1
                name += f", stream of {STREAMED} tokens" if stream else ""
                content = streamed(size, STREAMED) if stream else body(size)
                found = w.rounds(f"{name} at {per_second}/s", rounds, "open", content, rate=per_second, poisson=args.poisson,
                                 connections=SLOTS, seconds=1 if args.quick else 4, warm=0.2 if args.quick else 0.5, stream=stream,
                                 expect=f'"completion_tokens":{STREAMED if stream else 4}')
                rows += [rate_row(f"{name}: {s}", per_second, found[s]) for s in SYSTEMS]
                ratio = paired(found["lathe"], found["nginx"], lambda r: r["latency"]["p99_ns"])[1]
                limits.append(budget(f"p99, Lathe / nginx, {name} at {per_second}/s", ratio, 1.5))
        w.check_rows()
        return [table(rows), budgets(limits), f"{w.sent:,} requests to Lathe; {disturbance(w)}"]


def rate_row(name, per_second, results):
    whole = merged(results)
    told = [us(whole["latency"][k]) for k in ("p50_ns", "p90_ns", "p99_ns", "p999_ns", "most_ns")]
    cost = median_of(results, lambda r: r["cpu_ms"])
    return (name, f"{per_second:,}", *told, us(whole["lag"]["p99_ns"]), f"{cost:.0f}" if cost else "")


# ---- as fast as they answer

def closed(args):
    """The most that there is at a concurrency, and what a request costs."""
    long, few = (1, 1) if args.quick else (9, 5)
    seconds = 0.5 if args.quick else 2
    kinds = [("1 KB, c=1", body(1 << 10), 1, long, False), ("1 KB, c=16", body(1 << 10), 16, long, False),
             ("1 KB, c=64", body(1 << 10), 64, few, False), ("100 KB, c=1", body(100 << 10), 1, long, False),
             ("1 MB, c=1", body(1 << 20), 1, long, False),
             (f"stream of {STREAMED} tokens, c=16", streamed(1 << 10, STREAMED), 16, few, True)]
    rows = [("", "requests/s", "its best block", "p50 µs", "p99 µs", "added p50 µs", "CPU ms per 1,000", "its core")]
    found = {}
    with World(args) as w:
        for name, content, connections, rounds, stream in kinds:
            r = found[name] = w.rounds(name, rounds, "closed", content, connections=connections, seconds=seconds, stream=stream,
                                       expect=f'"completion_tokens":{STREAMED if stream else 4}')
            rows += [closed_row(f"{name}: {s}", r[s], r["direct"]) for s in SYSTEMS]
        w.check_rows()
        memory = anonymous(w.server.process.pid)
        parts = ", ".join(f"{median_of(found['1 KB, c=16']['lathe'], lambda r, n=n: r[n]):.0f}" for n in ("loops", "db-writer", "rest"))
        own = merged(found["1 KB, c=16"]["direct"])
        note = (f"Lathe's CPU µs per request at 1 KB, c=16 (loops, database writer, rest): {parts}. "
                f"lathe-load's own: {own['cpu_ns'] / own['sent'] / 1e3:.1f}. Longest wait after a block until all was folded: "
                f"{w.folding:.2f} s. {w.sent:,} requests to Lathe; {disturbance(w)}")
        return [table(rows), budgets(closed_budgets(found, memory)), note]


def closed_row(name, results, direct):
    whole = merged(results)
    mine = (us(whole["latency"]["p50_ns"]), us(whole["latency"]["p99_ns"]))
    rates = (f"{median_of(results, lambda r: r['rate']):,.0f}", f"{max(r['rate'] for r in results):,.0f}")
    if results is direct:
        return (name, *rates, *mine, "", "", "")
    return (name, *rates, *mine, us(paired(results, direct, lambda r: r["latency"]["p50_ns"])[0]),
            f"{median_of(results, lambda r: r['cpu_ms']):.0f}", f"{median_of(results, lambda r: r['core']):.0f} %")


def closed_budgets(found, memory):
    rows = []
    for name in ("1 KB, c=16", "1 KB, c=64"):
        r = found[name]
        rows.append(budget(f"CPU per request, Lathe / nginx, {name}", paired(r["lathe"], r["nginx"], lambda x: x["cpu_ms"])[1], 2))
        rows.append(budget(f"requests/s, Lathe / nginx, {name}", paired(r["lathe"], r["nginx"], lambda x: x["rate"])[1], .5, at_least=True))
    for name, limit in (("1 KB, c=1", 100), ("100 KB, c=1", 500), ("1 MB, c=1", 3000)):
        added = paired(found[name]["lathe"], found[name]["direct"], lambda x: x["latency"]["p50_ns"])[0]
        rows.append(budget(f"added p50, {name}, µs", added / 1e3, limit, "{:.0f}"))
    rows.append(budget(f"anonymous memory after the load, {KEYS} keys, MB", memory, 40, "{:.1f}"))
    return rows


# ---- streams

def paced(args):
    """1,000 open streams of 20 jittered tokens a second: what the way adds between tokens, by the engine's stamps on each."""
    streams, tokens, rounds = (50, 20, 1) if args.quick else (1000, 200, 3)
    lasts = tokens / 20  # seconds of a stream: so many must begin each second that `streams` are open
    rows = [("", "tokens", "first token p99 µs", "between p50", "between p99", "way p50 µs", "way p99 µs", "added between p99 µs",
             "later than due p99 µs", "CPU % of a core")]
    with World(args, streams=2 * streams, token_ms=50, token_jitter_ms=40, stamp=1) as w:
        found = w.rounds(f"{streams} streams", rounds, "open", streamed(1 << 10, tokens), rate=streams / lasts, warm=lasts,
                         seconds=lasts * 3, connections=2 * streams, stream=True, expect=f'"completion_tokens":{tokens}')
        whole = {s: merged(found[s]) for s in SYSTEMS}
        for s in SYSTEMS:
            r = whole[s]
            if r["stamped"] != r["tokens"] or r["tokens"] != r["sent"] * tokens:
                raise Wrong(f"{s}: {r['sent']} streams of {tokens} tokens gave {r['tokens']}, {r['stamped']} with their times")
            core = median_of(found[s], lambda x: x["core"])
            rows.append((s, f"{r['tokens']:,}", us(r["first_token"]["p99_ns"]), us(r["gap"]["p50_ns"]), us(r["gap"]["p99_ns"]),
                         us(r["way"]["p50_ns"]), us(r["way"]["p99_ns"]), us(r["added_gap"]["p99_ns"]), us(r["late"]["p99_ns"]),
                         f"{core:.0f}" if core else ""))
        w.check_rows()
        limits = [budget(f"added between tokens, p99, µs, over {other}",
                         (whole["lathe"]["added_gap"]["p99_ns"] - whole[other]["added_gap"]["p99_ns"]) / 1e3, 1000, "{:.0f}")
                  for other in ("direct", "nginx")]
        return [f"{streams} streams open at once, on average.", table(rows), budgets(limits), disturbance(w)]


def idle_streams(args):
    """9,000 streams that have begun and then say nothing."""
    n = 200 if args.quick else 9000
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < 2 * n + 500:
        raise Wrong(f"{n} streams need {2 * n + 500} open files; the hard limit is {most}")
    with World(args, systems=("direct", "lathe"), streams=n + n // 20, token_ms=3600000, ctx_size=1 << 30) as w:
        pid = w.server.process.pid
        w.server.folded()
        before = anonymous(pid)
        words = w.words("lathe", "hold", streamed(1 << 10, 8), {"connections": n})
        with subprocess.Popen([LOAD, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              preexec_fn=on(w.load_core)) as held:
            if held.stdout.readline() != f'{{"held":{n}}}\n':
                raise Wrong(f"{n} streams: {held.stderr.read().strip()}")
            during = anonymous(pid)
            spent = w.idle(1 if args.quick else 20)
            later = anonymous(pid)
            held.send_signal(signal.SIGTERM)
            if held.wait(60):
                raise Wrong(f"{n} streams: {held.stderr.read().strip()}")
        w.sent += n
        wait_settled(w, n)
        rows = [("", ""), ("anonymous memory before, MB", f"{before:.1f}"), ("with all open, MB", f"{during:.1f}"),
                ("with all open, later, MB", f"{later:.1f}"), ("a stream, KB", f"{(later - before) * 1024 / n:.1f}"),
                ("CPU with all open, % of a core", f"{spent:.2f}"), ("after they were closed, MB", f"{anonymous(pid):.1f}")]
        return [table(rows), budgets([budget(f"anonymous memory with {n:,} idle streams, MB", max(during, later), 200, "{:.1f}")])]


def wait_settled(w, n):
    """The clients left: each stream must be written down all the same."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        w.server.folded()
        if w.server.rows("SELECT count(*) n FROM usage")[0]["n"] == n:
            break
        time.sleep(0.05)
    w.check_rows(good=False)


# ---- long and short lives

def million(args):
    """Memory over a million requests."""
    parts, each = (2, 500) if args.quick else (10, 100000)
    rows = [("requests", "anonymous MB", "requests/s", "p99 µs", "CPU ms per 1,000")]
    with World(args, systems=("direct", "lathe")) as w:
        pid, seen = w.server.process.pid, []
        rows.append(("0", f"{anonymous(pid):.1f}", "", "", ""))
        for _ in range(parts):
            r = w.block("lathe", "closed", body(1 << 10), connections=16, requests=each, expect='"completion_tokens":4')
            seen.append(anonymous(pid))
            rows.append((f"{w.sent:,}", f"{seen[-1]:.1f}", f"{r['rate']:,.0f}", us(r["latency"]["p99_ns"]), f"{r['cpu_ms']:.0f}"))
            print(f"million: {w.sent:,}: {seen[-1]:.1f} MB", file=sys.stderr, flush=True)
        w.check_rows()
        size = (w.server.data / "lathe.db").stat().st_size / 1e6
        limits = [budget(f"anonymous memory after {w.sent:,} requests, MB", seen[-1], 40, "{:.1f}"),
                  budget(f"its growth since the first {each:,}, MB", seen[-1] - seen[0], 1, "{:.1f}")]
        return [table(rows), budgets(limits), f"The database has {size:.0f} MB then, its journal trimmed."]


def start(args):
    """From exec to ready on a database that exists, to the first answer of a model, and at rest."""
    with World(args, systems=("direct", "lathe")) as w:
        w.block("lathe", "closed", body(1 << 10), connections=16, requests=200 if args.quick else 100000)
        rest = w.idle(1 if args.quick else 30)
        times = [start_once(w) for _ in range(3 if args.quick else 15)]
        w.check_rows()
        ready, answers = (sorted(t[i] for t in times) for i in (0, 1))
        bare = w.top / "bare"
        subprocess.run(["strip", "-o", str(bare), LATHE], check=True)
        rows = [("", ""), (f"to /readyz, median of {len(times)} (least, most), ms",
                           f"{statistics.median(ready):.0f} ({ready[0]:.0f}, {ready[-1]:.0f})"),
                ("to the first answer of a model, ms", f"{statistics.median(answers):.0f} ({answers[0]:.0f}, {answers[-1]:.0f})"),
                ("requests in its database", f"{w.sent:,}"), ("anonymous memory at start, MB", f"{anonymous(w.server.process.pid):.1f}"),
                ("binary; without debug information, MB", f"{os.path.getsize(LATHE) / 1e6:.1f}; {bare.stat().st_size / 1e6:.2f}")]
        limits = [budget("start to ready, ms", statistics.median(ready), 100, "{:.0f}"), budget("idle CPU, % of a core", rest, .1)]
        return [table(rows), budgets(limits)]


def start_once(w):
    """Milliseconds from exec to /readyz, asked twice a millisecond, and to the first answer of a model; nothing is pinned."""
    end(w.server.process)
    began = time.monotonic()
    w.launch()

    def until(look):
        while time.monotonic() < began + 20:
            if look():
                return (time.monotonic() - began) * 1e3
            time.sleep(0.0005)
        raise Wrong("the server did not become ready within 20 s")

    def ready():
        r = get(w.ports["lathe"], "/readyz")
        return r and r[0] == 200
    first = until(ready)
    second = until(lambda: w.server.call("POST", "/v1/chat/completions", raw=body(200), key=w.keys[0]).status == 200)
    w.sent += 1
    return first, second
