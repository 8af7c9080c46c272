# SPDX-License-Identifier: Apache-2.0
"""A real server on an empty folder, the real SmolLM2 imported and deployed twice (chat, embedding), for stock clients."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import LATHE, ROOT, SLOWER, Server, wait_for  # noqa: E402, F401  (the tests take them from here)


@pytest.fixture(scope="session")
def server():
    """With the model `smol`, the deployments `chat` and `embed`, and a project key with the role application."""
    with tempfile.TemporaryDirectory(prefix="lathe-client-") as top:
        s = Server(pathlib.Path(top) / "data")
        s.data.mkdir()
        s.start()
        try:
            s.cli("model", "import", "smol", "--file", os.environ["SMOLLM2"], "--wait")
            s.deploy("chat", model="smol", context=1024, slots=4)
            s.deploy("embed", model="smol", task="embedding", context=512, slots=2)
            account = s.make("service_accounts", name="app", roles=["application"])
            s.app_key = s.make("api_keys", name="app", service_account=account["id"])["key"]
            yield s
        finally:
            for d in s.call("GET", "/lathe/v1/deployments").json["data"]:
                s.call("DELETE", "/lathe/v1/deployments/" + d["id"])
            wait_for("the deployments' end", 60, lambda: None if s.call("GET", "/lathe/v1/deployments").json["data"] else True)
            assert s.stop() == 0, s.said()


@pytest.fixture
def lathe(server):
    """The command line as a person without a home of their own calls it: its exit status, and what it says."""
    def run(*args, text=None, lang="C", **env):
        here = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "LC_ALL": lang, "LATHE_URL": server.url,
                "LATHE_API_KEY": server.key, **env}
        done = subprocess.run([LATHE, *args], input=text, capture_output=True, text=True, env=here, timeout=60 * SLOWER)
        return done.returncode, done.stdout, done.stderr
    return run
