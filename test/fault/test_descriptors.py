# SPDX-License-Identifier: Apache-2.0
"""No file descriptor is left: what is established goes on, what needs a new one is refused or waits, and all is well once there are some."""

import contextlib
import http.client
import json
import os
import re
import resource
import socket
import time

from harness import chat, wait_for

SPARE = 6


def address(server):
    host, port = server.url.removeprefix("http://").rsplit(":", 1)
    return host, int(port)


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def begun(x):
    assert x.head() and x.status == 200, (x.status, x.raw)
    events = x.events_of()
    while not x.tokens:
        next(events)
    return events


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_none_is_left(fake):
    server = fake(deployment__hung_after="2s")
    server.engines.set(token_ms=20, idle_ms=100)  # which keeps no connection for the next probe
    server.deploy("chat", model="smol", context=2048, slots=8)
    pids = [r["pid"] for r in server.ready("chat")["replicas_status"]]
    server.folded()
    kept = http.client.HTTPConnection(*address(server), timeout=20)
    kept.request("GET", "/healthz")
    assert kept.getresponse().read()
    long = chat(server, "chat", "long", max_tokens=250, ignore_eos=True)
    rest = begun(long)
    before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (descriptors(server) + SPARE, before[1]))
    crowd = []
    try:
        for _ in range(3 * SPARE):
            crowd.append(socket.create_connection(address(server), 5))
        wait_for("no descriptor left", 5, lambda: True if descriptors(server) >= resource.prlimit(
            server.process.pid, resource.RLIMIT_NOFILE)[0] - 1 else None)
        start, used, said = time.monotonic(), cpu_s(server.process.pid), []
        for _ in range(20):  # over what is open already, all the time
            kept.request("GET", "/healthz")
            a = kept.getresponse()
            said.append(a.read().decode())
            assert a.status == 200 and said[-1]
            next(rest, None)
        assert any('"accepting":false' in x and "Too many open files" in x for x in said), said[-1]
        # A new request on a connection that is there: its engine may need a connection, a table its file.
        kept.request("POST", "/v1/chat/completions", '{"model":"chat","messages":[{"role":"user","content":"Hi"}],"max_tokens":2}',
                     {"Authorization": "Bearer " + server.app_key, "Content-Type": "application/json"})
        for _ in rest:
            pass
        assert long.ok and long.usage["completion_tokens"] == 250, (long.end, long.error)
        spent = (cpu_s(server.process.pid) - used) / (time.monotonic() - start)
        print(f"{100 * spent:.0f} % of a processor meanwhile")
        assert spent < 0.5  # it waits, it does not spin
    finally:
        for s in crowd:
            s.close()
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
    assert time.monotonic() - start > 3  # longer than an engine may be silent: but this silence was not the engine's
    log = [line for line in server.said().splitlines() if "no connection can be accepted" in line]
    assert len(log) == 1 and "Too many open files" in log[0], log  # once a minute at most
    wait_for("new connections", 5, lambda: True if server.call("GET", "/healthz").status == 200 else None)
    wait_for("the pause's end", 5, lambda: True if "accepting" not in server.call("GET", "/healthz").body.decode() else None)
    metrics = server.call("GET", "/metrics").body.decode()
    assert float(re.search(r"^lathe_http_accept_pauses\w* (\S+)", metrics, re.M)[1]) > 0 and "lathe_http_accept_paused 0" in metrics
    d = server.ready("chat", 10)
    assert [r["pid"] for r in d["replicas_status"]] == pids and not any(r["restarts"] for r in d["replicas_status"]), d
    a = kept.getresponse()
    body = a.read()
    assert a.status in (200, 502, 503) and (a.status == 200 or json.loads(body)["error"]["message"]), (a.status, body)
    print("a request that needed a connection:", a.status, body[:300])
    assert chat(server, "chat", "after", max_tokens=3).read().ok
    server.folded()
    rows = {r["end_user"]: r for r in server.rows("SELECT * FROM usage")}
    assert rows["long"]["completion_tokens"] == 250 and rows["long"]["outcome"] == "ok", rows["long"]
    assert server.rows("SELECT * FROM usage_open") == []
    with contextlib.closing(kept):
        print("the log:", [line for line in server.said().splitlines() if "descriptor" in line or "open files" in line][:5])
