# SPDX-License-Identifier: Apache-2.0
"""The real engine, asked at its own socket and through Lathe, in pairs that take turns: what the way costs where a model does the
work."""

import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from world import ROOT, Server, budget, budgets, check_rows, load, table, us

TOKENS = 32
T95 = {1: 6.314, 2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 10: 1.812, 20: 1.725, 30: 1.697, 39: 1.685}  # one side, by degrees of freedom


def upper(values):
    """Upper 95 % bound of the mean."""
    n = len(values)
    if n < 2:
        return values[0]
    t = T95[max(d for d in T95 if d <= n - 1)]
    return statistics.mean(values) + t * statistics.stdev(values) / math.sqrt(n)


def paths():
    """LLAMA_SERVER, SMOLLM2: from the environment, else of deps/fetch."""
    said = subprocess.run([str(ROOT / "deps" / "fetch"), "paths"], capture_output=True, text=True, check=True).stdout
    found = dict(line.split("=", 1) for line in said.replace("export ", "").splitlines() if "=" in line)
    clean = {k: v.strip().strip("'\"") for k, v in found.items()}
    return (os.environ.get("LATHE_LLAMA_SERVER") or clean["LLAMA_SERVER"]), (os.environ.get("SMOLLM2") or clean["SMOLLM2"])


class Pair:
    def __init__(self, server, top):
        self.content, self.keys = pathlib.Path(top) / "request.json", pathlib.Path(top) / "key"
        self.content.write_text(json.dumps({
            "model": "chat", "messages": [{"role": "user", "content": "Question NNNNNNNNN: tell a story of a river and a bridge."}],
            "max_tokens": TOKENS, "temperature": 0, "seed": 1, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}}))
        self.keys.write_text(server.app_key)
        replica = server.deployment("chat")["replicas_status"][0]
        self.to = {"engine": replica["address"], "lathe": server.url.removeprefix("http://")}
        self.first = 0
        self.sent = 0

    def block(self, which, connections, requests, first):
        r = load(["closed", self.to[which], "--body", str(self.content), "--keys", str(self.keys), "--connections", str(connections),
                  "--requests", str(requests), "--first", str(first), "--stream", "--fresh", "--patience", "600",
                  "--expect", f'"completion_tokens":{TOKENS}'], None)
        self.sent += requests if which == "lathe" else 0
        return r

    def pair(self, connections, requests, turn):
        """Two blocks each, the first and the last of one, so that what drifts counts for both; which one alternates."""
        outer, inner = ("engine", "lathe") if turn % 2 else ("lathe", "engine")
        out = {"engine": [], "lathe": []}
        for which in (outer, inner, inner, outer):
            out[which].append(self.block(which, connections, requests, self.first))
            self.first += requests  # other numbers, so that no prompt is in the engine's cache
        return {w: {"elapsed_ns": sum(b["elapsed_ns"] for b in blocks), "tokens": sum(b["tokens"] for b in blocks),
                    "first_ns": statistics.mean(b["first_token"]["p50_ns"] for b in blocks)} for w, blocks in out.items()}


def engine(args):
    """Tokens a second and time to the first token, alone and through Lathe, at 1, 2, 4 and 8 at once, in 40 pairs."""
    program, model = paths()
    pairs = 2 if args.quick else 40
    rows = [("", "tokens/s: alone", "through Lathe", "first token p50 µs: alone", "through Lathe", "cost of the way", "upper 95 %")]
    limits = []
    with tempfile.TemporaryDirectory(prefix="lathe-bench-") as top:
        server = Server(pathlib.Path(top) / "data", env={"LATHE_LLAMA_SERVER": program})
        server.data.mkdir()
        server.start("--deployment.llama_server=" + program)
        try:
            server.cli("model", "import", "smol", "--file", model, "--wait")
            server.deploy("chat", model="smol", context=1024, slots=8)
            server.use_app()
            p = Pair(server, top)
            for c in (1, 2, 4, 8):
                p.pair(c, c, 0)  # slots that were never used, and connections
                found = [p.pair(c, 2 * c, i) for i in range(1 if args.quick and c > 1 else pairs)]
                cost = [f["lathe"]["elapsed_ns"] / f["engine"]["elapsed_ns"] - 1 for f in found]
                rate = {w: statistics.median(f[w]["tokens"] / f[w]["elapsed_ns"] * 1e9 for f in found) for w in ("engine", "lathe")}
                first = {w: statistics.median(f[w]["first_ns"] for f in found) for w in ("engine", "lathe")}
                rows.append((f"c={c}", f"{rate['engine']:,.1f}", f"{rate['lathe']:,.1f}", us(first["engine"]), us(first["lathe"]),
                             f"{statistics.mean(cost) * 100:+.2f} %", f"{upper(cost) * 100:+.2f} %"))
                limits.append(budget(f"cost of the way, c={c}, upper 95 % bound over {len(found)} pairs, %", upper(cost) * 100, 2))
                print(f"engine: c={c}: {statistics.mean(cost) * 100:+.2f} %", file=sys.stderr, flush=True)
            check_rows(server, p.sent, paid=False)
        finally:
            server.end()
        return [table(rows), budgets(limits), f"{pathlib.Path(model).name}, {TOKENS} tokens a stream, greedy; two streams a connection and block, two blocks of each in a pair."]
