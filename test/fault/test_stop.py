# SPDX-License-Identifier: Apache-2.0
"""An end that does not wait: SIGTERM twice, or a drain that runs out, under streams and blocking handlers. All of it must be gone
in order (run with a sanitized lathe to see: `make san`), every stream accounted for, and the folder free at once."""

import contextlib
import http.client
import os
import signal
import subprocess
import time

from harness import LATHE, SLOWER, Background, chat, rounds, wait_for

STREAMS = 25


def asking(server):
    """Requests whose handlers run on the pool: lists, sums over SQL, a body that is stored. The end cuts them."""
    paths = ["/lathe/v1/usage?limit=200", "/lathe/v1/traces?limit=200", "/lathe/v1/usage_totals", "/lathe/v1/api_keys", "/metrics"]

    def work(i, turn):
        with contextlib.suppress(OSError, http.client.HTTPException):
            server.call("GET", paths[(i + turn) % len(paths)])
    return Background(STREAMS, work)


def stopped_under_load(fake, how, **settings):
    s = fake(**settings)
    s.engines.set(token_ms=20)
    s.deploy("chat", model="smol", task="chat", slots=STREAMS)
    for turn in range(rounds(2, 6)):
        streams = [chat(s, "chat", user=f"{turn}-{i}", max_tokens=2000, ignore_eos=True) for i in range(STREAMS)]
        assert all(x.head() and x.status == 200 for x in streams)
        with asking(s) as load:
            how(s)
            assert s.process.wait(30 * SLOWER) == 0, s.said()
            load.over.set()
        for x in streams:
            x.close()
        s.start(*s.flags)
        s.ready("chat")
    wait_for("the settling of all", 30, lambda: s.rows("SELECT count(*) n FROM usage_open")[0]["n"] == 0 or None)
    by = {r["outcome"]: r["n"] for r in s.rows("SELECT outcome, count(*) n FROM usage GROUP BY outcome")}
    assert by == {"cancelled": rounds(2, 6) * STREAMS}, by


def test_a_second_sigterm_ends_at_once(fake):
    def twice(s):
        before = s.said().count("draining")
        s.process.send_signal(signal.SIGTERM)
        wait_for("the drain", 10, lambda: s.said().count("draining") > before or None)
        s.process.send_signal(signal.SIGTERM)
    stopped_under_load(fake, twice)


def test_a_drain_that_runs_out(fake):
    stopped_under_load(fake, lambda s: s.process.send_signal(signal.SIGTERM), serve__drain="1s")


def test_serve_begins_at_once_after_kill_9(fake):
    s = fake()
    for _ in range(rounds(3, 18)):
        s.process.kill()
        before = s.process
        s.start(*s.flags)
        before.wait()
    assert s.call("GET", "/lathe/v1/deployments").status == 200


def test_a_second_serve_is_refused_soon_and_by_name(fake):
    s = fake()
    began = time.monotonic()
    r = subprocess.run([LATHE, "serve", "--data", str(s.data), "--listen", "127.0.0.1:0"], env={**os.environ, **s.env},
                       capture_output=True, text=True, timeout=30 * SLOWER, check=False)
    assert time.monotonic() - began < 5 * SLOWER
    assert r.returncode != 0 and f"process {s.process.pid}" in r.stderr, r.stderr
    assert s.call("GET", "/readyz").status == 200
