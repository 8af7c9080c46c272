# SPDX-License-Identifier: Apache-2.0
"""Two nodes on one PostgreSQL and one bucket: what one imports the other reads, copies and serves, and a scrub runs once."""

import hashlib
import os

import pytest
from harness import Server, wait_for
from test_s3 import Bucket, bring, job_end, key_of, model

pytestmark = pytest.mark.skipif(os.environ.get("LATHE_TEST_DATABASE") != "postgres", reason="several nodes share a PostgreSQL")


def test_two_nodes_share_a_bucket(tmp_path):
    bucket = Bucket()
    a = Server(tmp_path / "a", bucket.env(LATHE_BLOB_GRACE="0"))
    a.data.mkdir()
    a.start()
    b = Server(tmp_path / "b", bucket.env(LATHE_BLOB_GRACE="0"), database=a.database)
    b.data.mkdir()
    (b.data / "master.key").write_bytes((a.data / "master.key").read_bytes())
    (b.data / "master.key").chmod(0o600)
    b.admin_key = a.key
    b.start()
    paths = [model(tmp_path, f"m{i}", i * 5 << 20) for i in range(4)]
    for i, path in enumerate(paths):
        bring((a, b)[i % 2], f"m{i}", path)
    assert sorted(bucket.keys()) == sorted(map(key_of, paths))
    for path in paths:
        for s in (a, b):
            assert s.call("GET", "/lathe/v1/objects/" + hashlib.sha256(path.read_bytes()).hexdigest()).body == path.read_bytes()
    bring(b, "again", paths[0])                                           # the same bytes once
    assert len(bucket.keys()) == 4
    assert job_end(a, b.call("POST", "/lathe/v1/scrubs").json["job"])["result"]["objects"] == 4
    for i in range(4):
        assert (b, a)[i % 2].call("DELETE", f"/lathe/v1/models/m{i}").status in (200, 204)
    wait_for("the removal", 30, lambda: True if bucket.keys() == [key_of(paths[0])] else None)
    for s in (a, b):
        assert s.stop() == 0, s.said()
    bucket.end()
