# SPDX-License-Identifier: Apache-2.0
"""Objects in a bucket: the whole program beside moto's S3, which cuts, refuses, hangs and forgets at a test's word."""

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import re
import threading
import urllib.parse

import pytest
from harness import ROOT, SLOWER, FakeEngines, Server, rss_bytes, wait_for
from s3_server import make_bucket, serve

pytestmark = pytest.mark.skipif(os.environ.get("LATHE_TEST_DATABASE") == "postgres", reason="the same bucket on either database; test_s3_nodes.py")
SECRET = "never+to/be=told"
HEAD = (ROOT / "fuzz" / "corpus" / "gguf" / "ok-llama").read_bytes()
MIB = 1 << 20
SIGNED = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"  # moto does not check it


def refusal(status, code, headers=()):
    """An action: S3's answer with that code."""
    return lambda environ: (status, [("Content-Type", "application/xml"), *headers], f"<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>as &amp; told</Message></Error>".encode())


def cut(environ):
    environ["werkzeug.socket"].shutdown(2)
    return 500, [], b""


class Bucket:
    """moto with faults: the first rule that gives an action answers; rule(method, path, query)."""

    def __init__(self):
        self.rules, self.seen = [], []
        self.server = serve()
        self.moto, self.server.app = self.server.app, self
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.port}"
        make_bucket(self.server.port, "lathe")

    def __call__(self, environ, start_response):
        what = (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
        self.seen.append(what)
        for rule in list(self.rules):
            action = rule(*what)
            if action:
                status, headers, body = action(environ)
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response(f"{status} told", [*headers, ("Content-Length", str(len(body)))])
                return [body]
        return self.moto(environ, start_response)

    def first(self, n, match, action):
        """The first n requests that match get it."""
        left = [n]

        def rule(*what):
            if left[0] and match(*what):
                left[0] -= 1
                return action
            return None
        self.rules.append(rule)
        return left

    def ask(self, method, target, body=None):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20 * SLOWER)) as c:
            c.request(method, "/lathe" + target, body, {"Authorization": SIGNED})
            return c.getresponse().read()

    def keys(self):
        return re.findall(r"<Key>(.*?)</Key>", self.ask("GET", "?list-type=2").decode())

    def uploads(self):
        return re.findall(r"<UploadId>(.*?)</UploadId>", self.ask("GET", "?uploads").decode())

    def env(self, **more):
        return {"LATHE_BLOB_STORE": "s3", "LATHE_BLOB_S3_ENDPOINT": self.url, "LATHE_BLOB_S3_BUCKET": "lathe",
                "LATHE_BLOB_S3_ACCESS_KEY": "key", "LATHE_BLOB_S3_SECRET_KEY": SECRET, "LATHE_BLOB_S3_PREFIX": "here", **more}

    def end(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def one_bucket():
    b = Bucket()
    yield b
    b.end()


@pytest.fixture
def bucket(one_bucket):
    one_bucket.rules.clear()
    for key in one_bucket.keys():
        one_bucket.ask("DELETE", "/" + key)
    yield one_bucket
    one_bucket.rules.clear()


@pytest.fixture
def server(bucket, tmp_path):
    s = Server(tmp_path / "data", bucket.env())
    s.data.mkdir()
    s.start("--blob.grace", "0")
    yield s
    bucket.rules.clear()
    s.end()
    assert SECRET not in s.said()


def model(folder, name, size=0):
    path = pathlib.Path(folder) / f"{name}.gguf"
    path.write_bytes(HEAD + name.encode() + bytes(max(0, size - len(HEAD) - len(name))))
    return path


def key_of(path):
    hex_digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"here/{hex_digest[:2]}/{hex_digest[2:]}"


def job_end(s, job, seconds=60):
    return wait_for("the job", seconds, lambda: (lambda j: j if j["state"] in ("done", "failed", "cancelled") else None)(s.call("GET", f"/lathe/v1/jobs/{job}").json))


def import_path(s, name, path):
    if s.call("GET", f"/lathe/v1/models/{name}").status == 404:
        s.make("models", name=name)
    a = s.call("POST", f"/lathe/v1/models/{name}/import", {"path": str(path)})
    assert a.status == 202, a.body
    return a.json["job"]


def bring(s, name, path):
    end = job_end(s, import_path(s, name, path))
    assert end["state"] == "done", end
    return json.loads(end["result"])["version"] if isinstance(end["result"], str) else end["result"]["version"]


def test_from_import_to_collection_an_object_lies_in_the_bucket(bucket, server, tmp_path):
    s, path = server, model(tmp_path, "m", 3 * MIB)
    bring(s, "m", path)
    key, digest = key_of(path), hashlib.sha256(path.read_bytes()).hexdigest()
    assert bucket.keys() == [key] and bucket.ask("GET", "/" + key) == path.read_bytes()
    assert not list((s.data / "blob").glob("*/*")) and not list((s.data / "staging").iterdir())
    whole = s.call("GET", f"/lathe/v1/objects/{digest}")
    assert whole.body == path.read_bytes()
    part = s.call("GET", f"/lathe/v1/objects/{digest}", headers={"Range": "bytes=2097000-2098000"})
    assert part.status == 206 and part.body == path.read_bytes()[2097000:2098001]
    assert s.call("GET", f"/lathe/v1/objects/{digest}", headers={"Range": "bytes=9999999-"}).status == 416
    assert s.call("DELETE", "/lathe/v1/models/m").status in (200, 204)
    wait_for("the removal", 20, lambda: True if not bucket.keys() else None)
    assert not list((s.data / "cached").iterdir())                        # the local copy went with it


def test_a_deployment_says_that_its_model_is_on_its_way(bucket, tmp_path):
    engines, go = FakeEngines(tmp_path), threading.Event()
    s = Server(tmp_path / "data", bucket.env(LATHE_DEPLOYMENT_LLAMA_SERVER=str(engines.program)))
    s.data.mkdir()
    s.start()
    path = model(tmp_path, "m")
    bring(s, "m", path)
    copy = s.data / "cached" / hashlib.sha256(path.read_bytes()).hexdigest()
    assert copy.read_bytes() == path.read_bytes()                         # the import left one here
    copy.unlink()

    def hold(environ):
        go.wait(60)
        return 503, [], b""
    held = bucket.first(1, lambda m, p, q: m == "GET" and p.endswith(key_of(path)), hold)
    s.make("deployments", name="chat", model="m", context=512)
    wait_for("the reason", 20, lambda: True if "being brought from S3" in (s.deployment("chat")["state_reason"] or "") else None)
    assert held == [0]
    go.set()
    s.ready("chat", 60)
    assert copy.read_bytes() == path.read_bytes()
    s.end()


def test_what_passes_is_tried_again_and_nothing_is_left_behind(bucket, server, tmp_path):
    s, path = server, model(tmp_path, "m", 17 * MIB)
    part = [lambda m, p, q, n=n: m == "PUT" and f"partNumber={n}&" in q for n in (1, 2, 3)]
    bucket.first(2, part[0], refusal(503, "SlowDown"))
    bucket.first(1, part[1], cut)
    bucket.first(1, part[2], refusal(400, "XAmzContentSHA256Mismatch"))
    bucket.first(1, lambda m, p, q: m == "POST" and "uploads=" in q, refusal(500, "InternalError"))
    bucket.first(1, lambda m, p, q: m == "POST" and "uploadId=" in q, refusal(200, "InternalError"))  # a 200 that is none
    bring(s, "m", path)
    assert bucket.ask("GET", "/" + key_of(path)) == path.read_bytes() and bucket.uploads() == []
    for n in range(3):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        bucket.first(1, lambda m, p, q: m == "GET" and p.endswith(key_of(path)), [cut, refusal(503, "SlowDown"), refusal(500, "InternalError")][n])
        assert s.call("GET", f"/lathe/v1/objects/{digest}").body == path.read_bytes()


def test_what_only_a_person_can_mend_is_said_and_the_import_goes_on_afterwards(bucket, server, tmp_path):
    s, path = server, model(tmp_path, "m", 17 * MIB)
    bucket.rules.append(lambda m, p, q: refusal(403, "AccessDenied") if m == "PUT" and "partNumber=2&" in q else None)
    job = import_path(s, "m", path)

    def refused():
        j = s.call("GET", f"/lathe/v1/jobs/{job}").json
        assert j["state"] in ("waiting", "running"), j
        return True if "AccessDenied" in json.dumps(j) else None
    wait_for("the reason", 30, refused)
    assert bucket.keys() == [] and bucket.uploads() == []                 # what was begun is taken back
    bucket.rules.clear()
    assert job_end(s, job)["state"] == "done"
    assert bucket.ask("GET", "/" + key_of(path)) == path.read_bytes()


@pytest.mark.parametrize("action, words", [
    (refusal(403, "InvalidAccessKeyId"), "blob.s3.access_key and blob.s3.secret_key must be"),
    (refusal(403, "RequestTimeTooSkewed"), "set it by NTP"),
    (refusal(404, "NoSuchBucket"), "there is no bucket lathe"),
    (refusal(301, "PermanentRedirect", [("x-amz-bucket-region", "eu-west-9")]), "set blob.s3.region to eu-west-9"),
    (lambda environ: (200, [], b"<html>hello"), "its listing is malformed"),
])
def test_a_start_that_cannot_work_says_what_would_mend_it(bucket, tmp_path, action, words):
    bucket.rules.append(lambda *what: action)
    s = Server(tmp_path / "data", bucket.env())
    s.data.mkdir()
    with pytest.raises(AssertionError) as said:
        s.start()
    assert words in str(said.value) and SECRET not in str(said.value)


def test_without_s3_it_starts_and_what_waited_goes_on_when_it_is_back(bucket, tmp_path):
    bucket.rules.append(lambda *what: cut)
    s = Server(tmp_path / "data", bucket.env(LATHE_BLOB_S3_PATIENCE="200ms"))
    s.data.mkdir()
    s.start()
    assert "S3 does not answer" in s.said()
    path = model(tmp_path, "m")
    job = import_path(s, "m", path)
    wait_for("a try", 30, lambda: True if "cannot be reached" in json.dumps(s.call("GET", f"/lathe/v1/jobs/{job}").json) else None)
    bucket.rules.clear()
    assert job_end(s, job)["state"] == "done"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    bucket.rules.append(lambda *what: cut)
    a = s.call("GET", f"/lathe/v1/objects/{digest}")
    assert a.status == 503 and "cannot be reached" in a.json["error"]["message"], a.body
    bucket.rules.clear()
    assert s.call("GET", f"/lathe/v1/objects/{digest}").body == path.read_bytes()
    assert s.stop() == 0, s.said()


def test_rot_in_the_bucket_is_found_and_mended_and_a_backup_holds_the_objects(bucket, server, tmp_path):
    s, path, other = server, model(tmp_path, "m"), model(tmp_path, "other")
    version = bring(s, "m", path)
    bring(s, "other", other)
    bucket.ask("PUT", "/" + key_of(path), path.read_bytes()[:-1] + b"?")

    def scrub():
        end = job_end(s, s.call("POST", "/lathe/v1/scrubs").json["job"])
        assert end["state"] == "done", end
        return s.call("GET", "/lathe/v1/damaged_objects").json["data"]
    found = scrub()
    assert len(found) == 1 and found[0]["seen"] == "rotten" and [u["id"] for u in found[0]["users"]] == [version]
    rotten = "here/rotten/" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(bucket.keys()) == sorted([key_of(other), rotten])
    bring(s, "again", path)
    assert scrub() == [] and sorted(bucket.keys()) == sorted([key_of(path), key_of(other)])
    s.cli("backup", str(tmp_path / "backup"), "--wait")
    s.cli("restore", str(tmp_path / "backup"), "--data", str(tmp_path / "back"), "--master_key_file", str(s.data / "master.key"))
    places = {p.parent.name + p.name for p in (tmp_path / "back" / "blob").glob("*/*")}
    assert places == {hashlib.sha256(p.read_bytes()).hexdigest() for p in (path, other)}


def test_objects_move_to_the_bucket_and_back(bucket, tmp_path):
    s = Server(tmp_path / "data", bucket.env(LATHE_BLOB_STORE="files", LATHE_BLOB_GRACE="0"))
    s.data.mkdir()
    paths = [model(tmp_path, f"m{i}", i * 9 * MIB) for i in range(2)]
    s.start()
    for i, path in enumerate(paths):
        bring(s, f"m{i}", path)

    def files():
        return sorted(p.parent.name + p.name for p in (s.data / "blob").glob("*/*"))

    def readable():
        return all(s.call("GET", "/lathe/v1/objects/" + hashlib.sha256(p.read_bytes()).hexdigest()).body == p.read_bytes() for p in paths)

    def move():
        end = job_end(s, s.call("POST", "/lathe/v1/object_moves").json["job"])
        assert end["state"] == "done" and readable(), end
        return end["result"]["moved"]
    assert bucket.keys() == [] and len(files()) == 2 and move() == 0
    for store in ("s3", "files"):
        assert s.stop() == 0, s.said()
        s.env["LATHE_BLOB_STORE"] = store
        s.start()
        assert readable()                                                 # before anything moved
        bucket.first(3, lambda *what: True, refusal(503, "SlowDown"))
        assert move() == 2 and move() == 0
        there = [] if store == "files" else sorted(key_of(p) for p in paths)
        assert sorted(bucket.keys()) == there and len(files()) == (2 if store == "files" else 0)
    assert s.stop() == 0, s.said()


def test_a_large_object_goes_and_comes_in_little_memory(bucket, server, tmp_path):
    """LATHE_TEST_LARGE: its size in MiB."""
    s, size = server, int(os.environ.get("LATHE_TEST_LARGE", "80")) * MIB
    path, digest = tmp_path / "large.gguf", hashlib.sha256()
    with path.open("wb") as f:
        for i in range(size // MIB):
            piece = HEAD + bytes(MIB - len(HEAD)) if not i else i.to_bytes(8, "big") * (MIB // 8)
            f.write(piece)
            digest.update(piece)

    before = rss_bytes(s.process.pid)
    job = import_path(s, "large", path)
    end = job_end(s, job, 60 + size // (4 * MIB))
    assert end["state"] == "done", end
    got, url = hashlib.sha256(), urllib.parse.urlsplit(s.url)
    c = http.client.HTTPConnection(url.hostname, url.port, timeout=120 * SLOWER)
    c.request("GET", f"/lathe/v1/objects/{digest.hexdigest()}", headers={"Authorization": "Bearer " + s.key})
    r = c.getresponse()
    while piece := r.read(MIB):
        got.update(piece)
    c.close()
    assert got.hexdigest() == digest.hexdigest()
    grown = rss_bytes(s.process.pid, "VmHWM") - before
    print("grew by", f"{grown / MIB:.1f} MiB", "of", size // MIB, "MiB")
    assert grown < 64 * MIB


def test_doctor_asks_the_bucket(bucket, tmp_path):
    s = Server(tmp_path / "data", bucket.env())
    s.data.mkdir()
    s.start()

    def said():
        out = json.loads(s.cli("doctor", "-o", "json", ok=False).stdout)["data"]
        return next(x for x in out if x["name"] == "objects")
    assert said()["verdict"] == "ok" and bucket.keys() == []              # what it stored is gone
    bucket.rules.append(lambda m, p, q: refusal(403, "AccessDenied") if m == "PUT" else None)
    bad = said()
    assert bad["verdict"] == "bad" and "list, read, write and delete in bucket lathe" in bad["is"] and SECRET not in json.dumps(bad)
    bucket.rules.clear()
    assert s.stop() == 0, s.said()


def test_a_removal_that_was_not_answered_is_waited_out(bucket, server, tmp_path):
    s, path = server, model(tmp_path, "m")
    bring(s, "m", path)
    lost = bucket.first(1, lambda m, p, q: m == "DELETE" and p.endswith(key_of(path)), cut)
    assert s.call("DELETE", "/lathe/v1/models/m").status in (200, 204)

    def waits():
        told = json.dumps(s.rows("SELECT * FROM job WHERE kind = 'blob.collect'"), default=str)
        return True if "which may still come" in told else None
    wait_for("the reason", 30, waits)                                     # the lost one may yet be carried out
    assert lost == [0] and bucket.keys() == []
    job = import_path(s, "again", path)                                   # so the same content is not stored meanwhile
    wait_for("its reason", 30, lambda: True if "is just being removed" in json.dumps(s.call("GET", f"/lathe/v1/jobs/{job}").json) else None)
    assert bucket.keys() == []
