# SPDX-License-Identifier: Apache-2.0
"""Objects at rest: a byte that rotted is found, said with what it affects, never served, and mended by the same content."""

import json
import pathlib

import pytest
from harness import ROOT, Server, wait_for


@pytest.fixture
def server(tmp_path):
    s = Server(tmp_path / "data")
    s.data.mkdir()
    s.start("--blob.grace", "0")
    yield s
    assert s.stop() == 0, s.said()


def model(folder, name):
    """A file of its own content, which the importer takes."""
    path = pathlib.Path(folder) / f"{name}.gguf"
    path.write_bytes((ROOT / "fuzz" / "corpus" / "gguf" / "ok-llama").read_bytes() + name.encode())
    return path


def bring(s, name, path):
    s.cli("model", "import", name, "--file", str(path), "--wait")
    return next(v for v in s.call("GET", "/lathe/v1/model_versions").json["data"] if v["state"] == "ready" and v["model"] == s.call("GET", f"/lathe/v1/models/{name}").json["id"])


def scrub(s):
    job = s.call("POST", "/lathe/v1/scrubs").json["job"]
    end = wait_for("the scrub", 30, lambda: (lambda j: j if j["state"] in ("done", "failed") else None)(s.call("GET", f"/lathe/v1/jobs/{job}").json))
    assert end["state"] == "done", end
    return end["result"]


def damaged(s):
    return s.call("GET", "/lathe/v1/damaged_objects").json["data"]


def metric(s, name):
    line = next(x for x in s.call("GET", "/metrics").body.decode().splitlines() if x.startswith(name))
    return float(line.split()[-1])


def test_a_rotten_byte_is_found_says_what_it_affects_and_is_mended(server, tmp_path):
    s = server
    files = {n: model(tmp_path, n) for n in ("good", "bad", "lost")}
    versions = {n: bring(s, n, files[n]) for n in files}
    assert scrub(s) == {"objects": 3, "bytes": sum(f.stat().st_size for f in files.values()), "damaged": 0} and damaged(s) == []

    def place(n):
        d = versions[n]["digest"]
        return s.data / "blob" / d[:2] / d[2:]
    was = place("bad").read_bytes()
    place("bad").write_bytes(was[:1000] + bytes([was[1000] ^ 4]) + was[1001:])
    place("lost").unlink()
    assert scrub(s)["damaged"] == 2
    found = {d["digest"]: d for d in damaged(s)}
    for n, seen in (("bad", "rotten"), ("lost", "absent")):
        d = found.pop(versions[n]["digest"])
        assert d["seen"] == seen and [(u["kind"], u["id"]) for u in d["users"]] == [("model_version", versions[n]["id"])], d
        assert not place(n).exists()                                      # nothing opens it
    assert found == {} and (s.data / "rotten" / versions["bad"]["digest"]).exists()
    assert metric(s, "lathe_blob_damaged") == 2
    assert json.loads(s.cli("scrub", "status", "-o", "json").stdout)["known"] == 2
    assert versions["bad"]["digest"][:40] in s.cli("damaged_object", "list").stdout
    events = s.rows("SELECT kind FROM event WHERE kind = 'damaged_object.created' UNION ALL SELECT kind FROM outbox WHERE kind = 'damaged_object.created'")
    assert len(events) == 2

    scrub(s)                                                              # again: the same two, once each
    assert len(damaged(s)) == 2
    for n in ("bad", "lost"):
        s.cli("model", "import", f"{n}-again", "--file", str(files[n]), "--wait")
        assert place(n).read_bytes() == files[n].read_bytes()
    scrub(s)
    assert damaged(s) == [] and metric(s, "lathe_blob_damaged") == 0 and not list((s.data / "rotten").iterdir())


def test_what_nothing_needs_any_more_leaves_the_list(server, tmp_path):
    s = server
    v = bring(s, "bad", model(tmp_path, "bad"))
    place = s.data / "blob" / v["digest"][:2] / v["digest"][2:]
    place.write_bytes(b"x" * place.stat().st_size)
    scrub(s)
    assert len(damaged(s)) == 1
    assert s.call("DELETE", "/lathe/v1/models/bad").status in (200, 204)
    scrub(s)
    assert damaged(s) == [] and not list((s.data / "rotten").iterdir())


def test_it_reads_no_faster_than_it_may_goes_on_after_a_restart_and_comes_by_itself(tmp_path):
    s = Server(tmp_path / "data")
    s.data.mkdir()
    s.start()
    for i in range(6):
        path = model(tmp_path, f"m{i}")
        path.write_bytes(path.read_bytes() + bytes(4000))
        bring(s, f"m{i}", path)
    s.stop()
    s.start("--blob.scrub_rate", "2000")  # some seconds for each object
    job = s.call("POST", "/lathe/v1/scrubs").json["job"]

    def look():
        return s.call("GET", f"/lathe/v1/jobs/{job}").json
    wait_for("its begin", 20, lambda: look()["progress_done"] > 0 or None)
    assert look()["state"] == "running"
    assert s.call("POST", "/lathe/v1/scrubs").json["job"] == job          # one at a time
    s.stop()
    s.start("--blob.scrub_every", "1h")
    end = wait_for("its end", 30, lambda: look() if look()["state"] == "done" else None)
    assert end["result"]["objects"] == 6, end                             # each once, over both lives
    s.stop()
    s.database.run("UPDATE blob_scrub SET due_ms = 1")
    s.start()
    wait_for("one that nobody asked for", 20, lambda: s.rows("SELECT id FROM job WHERE kind = 'blob.scrub' AND project = '' AND state = 'done'") or None)
    assert s.stop() == 0, s.said()
