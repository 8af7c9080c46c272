# SPDX-License-Identifier: Apache-2.0
"""Behind a proxy that is trusted a request is its client's: in the audit, and where wrong keys are counted."""

import pathlib
import tempfile

import pytest

from conftest import Server
from upstream import Upstream, completion

ASK = {"model": "out", "messages": [{"role": "user", "content": "?"}]}


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory(prefix="lathe-proxies-") as top:
        upstream = Upstream(lambda call: call.say(completion("yes")))
        s = Server(pathlib.Path(top) / "data")
        s.data.mkdir()
        s.start("--serve.trusted_proxies", "127.0.0.0/8", "--access.wrong_keys", "5")
        s.use_app()
        s.deploy("out", engine="openai", task="chat", endpoint={"url": upstream.url})
        yield s
        s.end()
        upstream.close()


def ask(server, key, forwarded):
    return server.call("POST", "/v1/chat/completions", ASK, key=key, headers={"X-Forwarded-For": forwarded})


def test_the_record_has_the_clients_address(server):
    for forwarded, want in (("203.0.113.9", "203.0.113.9:0"), ("6.6.6.6, 203.0.113.10", "203.0.113.10:0"), ("2001:db8::1", "[2001:db8::1]:0")):
        a = ask(server, server.app_key, forwarded)
        assert a.status == 200, a.body
        server.folded()
        row, = server.call("GET", "/lathe/v1/inference_audits?request_id=" + a.headers["x-request-id"]).json["data"]
        assert row["client_ip"] == want


def test_wrong_keys_are_their_senders(server):
    told = [ask(server, f"lathe_wrong_{n}", "203.0.113.66").json["error"]["code"] for n in range(8)]
    assert told == ["key_unknown"] * 5 + ["too_many_wrong_keys"] * 3
    assert ask(server, "lathe_wrong", "203.0.113.67").status == 401       # another client of the same proxy


def test_a_setting_that_is_none_is_refused(server):
    r = server.cli("serve", "--data", str(server.data.parent / "other"), "--serve.trusted_proxies", "proxy.local", ok=False)
    assert r.returncode and "trusted_proxies" in r.stderr and "10.0.0.0/8" in r.stderr
