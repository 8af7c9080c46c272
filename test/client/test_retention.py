# SPDX-License-Identifier: Apache-2.0
"""What is kept, for how long, and what goes with the next run: shown before it goes, and gone when it was said to."""

import time

from harness import Server, wait_for

DAY_MS = 86_400_000
ROW = "INSERT INTO traces (id, org, project, streamed, tokens_exact, content, revision, created_at, updated_at) " \
      "VALUES ('{}', 'o', 'p', 0, 1, 0, 1, {}, 1);"


USAGE = "INSERT INTO usage (id, org, project, started_at, streamed, tokens_exact, revision, created_at, updated_at) " \
        "VALUES ('{}', 'o', 'p', {}, 0, 1, 1, {}, 1);"


def shown(s, name):
    return next(r for r in s.call("GET", "/lathe/v1/retentions").json["data"] if r["name"] == name)


def test_retention_is_shown_and_enforced(tmp_path):
    s = Server(tmp_path / "data")
    s.data.mkdir()
    s.start("--retain.traces", "1d")
    try:
        wait_for("the first run", 20, lambda: shown(s, "traces")["last_run"])
        now = int(time.time() * 1000)
        old = [1_000, 5 * DAY_MS, now - 2 * DAY_MS]
        s.database.run("".join(ROW.format(f"trace_{i}", at) for i, at in enumerate([*old, now - 1000, now])))
        u = shown(s, "traces")
        assert (u["keep"], u["setting"], u["rows"], u["rows_more"], u["due"]) == ("1d", "retain.traces", 5, False, 3), u
        assert u["oldest"].startswith("1970-01-01T00:00:01") and u["bytes"] > 0
        assert u["last_run"] < u["next_run"] and u["before"] < u["last_run"]
        # an attempt goes by its start, which is in its identifier: this one's end is younger than what is kept
        s.database.run(USAGE.format("attempt_00000000000000000000000000", 1000, now - 1000))
        assert (shown(s, "usage")["rows"], shown(s, "usage")["due"]) == (1, 1), shown(s, "usage")
        assert "retain.traces" in s.cli("retention", "list").stdout
        s.stop()
        s.start("--retain.traces", "1d", "--retain.usage", "0")           # an hour is long: a start runs it too
        wait_for("the next run", 20, lambda: shown(s, "traces")["last_run"])
        u = shown(s, "traces")
        assert (u["rows"], u["due"], u["removed"]) == (2, 0, 3), u
        assert [r["id"] for r in s.rows("SELECT id FROM traces ORDER BY id")] == ["trace_3", "trace_4"]
        t = shown(s, "usage")
        assert t["keep"] == "for ever" and t["before"] is None and t["due"] is None
        assert {r["name"] for r in s.call("GET", "/lathe/v1/retentions").json["data"]} >= {"jobs", "usage", "traces", "rollups", "content", "backups"}
    finally:
        s.stop()
