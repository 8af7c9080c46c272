# SPDX-License-Identifier: Apache-2.0
"""A large file goes up and comes down, each killed in the middle and taken up again, and the server's memory stays where it was.
LATHE_TEST_LARGE: its size in MiB (5120 for a long evening); 256 otherwise."""

import hashlib
import http.client
import os

import pytest
from harness import ROOT, SLOWER, Server, rss_bytes, wait_for

MIB = 1 << 20
SIZE = int(os.environ.get("LATHE_TEST_LARGE", "256")) * MIB
GROWTH_MAX = 64 * MIB
PIECE = MIB


def piece(i):
    return (i.to_bytes(8, "big") * (PIECE // 8)) if i else HEAD + bytes(PIECE - len(HEAD))


HEAD = (ROOT / "fuzz" / "corpus" / "gguf" / "ok-llama").read_bytes()


class Life:
    """How much one life of the server grew, from its first answers on."""

    def __init__(self, s):
        assert s.call("GET", "/lathe/v1/models").status == 200
        self.s, self.before = s, rss_bytes(s.process.pid)

    def grown(self):
        return rss_bytes(self.s.process.pid, "VmHWM") - self.before


def request(s, method, path, headers):
    host, port = s.url.removeprefix("http://").rsplit(":", 1)
    c = http.client.HTTPConnection(host, int(port), timeout=120 * SLOWER)
    c.putrequest(method, path)
    for name, value in {"Authorization": "Bearer " + s.key, **headers}.items():
        c.putheader(name, str(value))
    c.endheaders()
    return c


def send(s, path, start, end):
    """Whole pieces from start to end; how many bytes the request has is SIZE - start, so leaving early breaks it off."""
    c = request(s, "PATCH", path, {"Upload-Offset": start, "Content-Length": SIZE - start, "Content-Type": "application/octet-stream"})
    for i in range(start // PIECE, end // PIECE):
        c.send(piece(i))
    return c


def take(s, path, start, end, digest):
    c = request(s, "GET", path, {"Range": f"bytes={start}-"} if start else {})
    r = c.getresponse()
    assert r.status == (206 if start else 200), r.read(1000)
    got = start
    while got < end:
        some = r.read(min(PIECE, end - got))
        if not some:
            break
        digest.update(some)
        got += len(some)
    c.close()
    return got


@pytest.mark.skipif(os.environ.get("LATHE_TEST_DATABASE") == "postgres", reason="the same files on either database")
def test_up_and_down_through_deaths_in_little_memory(tmp_path):
    s = Server(tmp_path / "data")
    s.data.mkdir()
    s.start()
    s.make("models", name="large")
    lives, half = [Life(s)], SIZE // 2 // PIECE * PIECE
    upload = s.call("POST", "/lathe/v1/models/large/uploads", {"size_bytes": SIZE})
    path = f"/lathe/v1/models/large/uploads/{upload.json['id']}"
    c = send(s, path, 0, half)
    grown = [lives[0].grown()]
    s.kill()                                                              # in the middle, without a word
    c.close()
    s.start()
    lives.append(Life(s))
    there = s.call("GET", path).json["offset"]
    assert 0 < there <= half                                              # what was synced; at most 32 MiB are sent again
    assert there >= half - 40 * MIB
    c = send(s, path, there // PIECE * PIECE, SIZE) if there % PIECE == 0 else None
    if c is None:                                                         # the client goes on from the very byte
        c = request(s, "PATCH", path, {"Upload-Offset": there, "Content-Length": SIZE - there, "Content-Type": "application/octet-stream"})
        c.send(piece(there // PIECE)[there % PIECE:])
        for i in range(there // PIECE + 1, SIZE // PIECE):
            c.send(piece(i))
    assert c.getresponse().status == 204
    done = s.call("POST", path + "/finish", {})
    assert done.status == 202, done.body

    def look():
        j = s.call("GET", f"/lathe/v1/jobs/{done.json['job']}").json
        assert j["state"] not in ("failed", "cancelled"), j
        return j if j["state"] == "done" else None
    wait_for("the import", 60 + SIZE // (20 * MIB), look)
    version = s.call("GET", f"/lathe/v1/model_versions/{done.json['version']}").json
    want, got = hashlib.sha256(), hashlib.sha256()
    for i in range(SIZE // PIECE):
        want.update(piece(i))
    assert version["digest"] == want.hexdigest() and version["size_bytes"] == SIZE

    down = f"/lathe/v1/objects/{version['digest']}"
    at = take(s, down, 0, half + 12345, got)                              # the client leaves
    grown.append(lives[1].grown())
    s.kill()                                                              # so does the server
    s.start()
    lives.append(Life(s))
    assert take(s, down, at, SIZE, got) == SIZE and got.hexdigest() == version["digest"]
    grown.append(lives[2].grown())
    print("grew by", [f"{g / MIB:.1f} MiB" for g in grown], "of", SIZE // MIB, "MiB")
    assert max(grown) < GROWTH_MAX, grown
    s.use_app()
    assert s.call("GET", down, key=s.app_key).status == 403               # content is for those who may have it
    assert s.call("GET", "/lathe/v1/objects/" + "0" * 64).status == 404
    assert s.rows("SELECT COUNT(*) n FROM audit_entries WHERE verb = 'read' AND kind = 'object'")[0]["n"] == 2
    assert s.stop() == 0
