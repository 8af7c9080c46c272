# SPDX-License-Identifier: Apache-2.0
"""A chart as the console draws it: GET of the roll-ups once, then the event trace.rollup, with no gap and no trace read."""

import contextlib
import http.client
import json
import threading

from harness import SLOWER, chat, together, wait_for

WHOLE = "/lathe/v1/rollups?by=deployment,model,key"


class Chart:
    """Follows the rule that docs/reference says of trace.rollup."""

    def __init__(self, server, key=None):
        self.server, self.key, self.rows, self.revision, self.gets, self.events = server, key or server.key, {}, 0, 0, 0
        host, port = server.url.removeprefix("http://").rsplit(":", 1)
        self.stream = http.client.HTTPConnection(host, int(port), timeout=60 * SLOWER)
        self.stream.request("GET", "/lathe/v1/events?kind=trace.rollup", headers={"Authorization": "Bearer " + self.key})
        self.answer = self.stream.getresponse()
        assert self.answer.status == 200
        self.get()
        self.thread = threading.Thread(target=self._follow)
        self.thread.start()

    def close(self):
        self.stream.sock.shutdown(2)
        self.thread.join()
        self.stream.close()

    def _put(self, rows):
        for row in rows:
            self.rows[row["at"], row["deployment"], row["model"], row["key"]] = row

    def get(self):
        answer = self.server.call("GET", WHOLE, key=self.key).json
        self._put(answer["data"])
        self.revision = answer["revision"]
        self.gets += 1

    def _follow(self):
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
            while line := self.answer.readline():
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    assert event["kind"] == "trace.rollup" and event["number"] is None
                    self.events += 1
                    self._apply(event["data"])

    def _apply(self, data):
        if data["revision"] <= self.revision:
            return
        if data["after"] > self.revision:
            self.get()
            return
        self._put(data["data"])
        if data["part"] == data["parts"]:
            self.revision = data["revision"]

    def requests(self):
        return sum(row["requests"] for row in self.rows.values())


def all_folded(server):
    assert server.call("GET", "/lathe/v1/usage_totals").status == 200     # waits for it


def test_a_chart_follows_without_reading_traces(server):
    all_folded(server)
    chart = Chart(server)
    try:
        before, gets = chart.requests(), chart.gets
        done = together(4, lambda i: [chat(server, "chat", stream=j % 2 == 0, max_tokens=4).read() for j in range(6)])
        assert all(r.ok for some in done for r in some)
        wait_for("the chart's requests", 10, lambda: chart.requests() >= before + 24 or None)
        truth = server.call("GET", WHOLE).json
        assert chart.requests() == before + 24 and chart.revision == truth["revision"] and chart.gets <= gets + 1
        assert sorted(chart.rows.values(), key=str) == sorted(truth["data"], key=str)
        sums = server.call("GET", "/lathe/v1/rollups?step=1440").json["data"]
        assert sum(r["requests"] for r in sums) == chart.requests() and all("key" not in r for r in sums)
        assert 0 < chart.events < 24                        # coalesced
    finally:
        chart.close()


def test_only_those_who_may_read_traces_hear_of_them(server):
    other = server.make("projects", name="elsewhere")
    account = server.call("POST", "/p/elsewhere/lathe/v1/service_accounts", {"name": "there", "roles": ["viewer"]}).json
    there = server.call("POST", "/p/elsewhere/lathe/v1/api_keys", {"name": "there", "service_account": account["id"]}).json["key"]
    all_folded(server)
    stranger, chart = Chart(server, there), Chart(server)
    try:
        before = chart.requests()
        assert chat(server, "chat", stream=False, max_tokens=2).read().ok
        wait_for("the chart's request", 10, lambda: chart.requests() > before or None)
        assert other["id"] and stranger.events == 0 and stranger.rows == {} and stranger.revision == 0
    finally:
        stranger.close()
        chart.close()


def test_bad_questions(server):
    for query, field in ("by=colour", "by"), ("step=0", "step"), ("from=yesterday", "from"):
        answer = server.call("GET", "/lathe/v1/rollups?" + query)
        assert answer.status == 400 and f'"{field}"' in answer.body.decode(), answer.body
