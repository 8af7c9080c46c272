# SPDX-License-Identifier: Apache-2.0
"""A real server on an empty folder, the real SmolLM2 imported and deployed twice (chat, embedding), for stock clients."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LATHE = os.environ.get("LATHE", str(ROOT / "build" / "lathe"))


def wait_for(what, seconds, look):
    """Waits on a condition: look() gives it, or None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come within {seconds} s")


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class Server:
    """One `lathe serve`, with the administrator's key."""

    def __init__(self, data, env=None):
        self.data = pathlib.Path(data)
        self.env = {**os.environ, **(env or {})}
        self.process = None

    def start(self, *flags):
        (self.data / "url").unlink(missing_ok=True)
        self.log = open(self.data.parent / (self.data.name + ".log"), "ab")
        self.process = subprocess.Popen(
            [LATHE, "serve", "--data", str(self.data), "--listen", "127.0.0.1:0", *flags],
            stderr=self.log, stdin=subprocess.DEVNULL, env=self.env, start_new_session=True)
        self.url = wait_for("the server", 20, self._url)
        self.key = (self.data / "admin.key").read_text().strip()
        return self

    def _url(self):
        if self.process.poll() is not None:
            raise AssertionError("the server ended:\n" + self.said())
        try:
            return (self.data / "url").read_text() or None
        except FileNotFoundError:
            return None

    def said(self):
        return (self.data.parent / (self.data.name + ".log")).read_text()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=40):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(seconds)
        return self.process.returncode

    def call(self, method, path, body=None, key=None, headers=None, raw=None):
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("Authorization", "Bearer " + (key or self.key))
        if data is not None:
            request.add_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=60) as r:
                return Answer(r.status, r.headers, r.read())
        except urllib.error.HTTPError as e:
            return Answer(e.code, e.headers, e.read())

    def make(self, kind, **fields):
        a = self.call("POST", f"/lathe/v1/{kind}", fields)
        assert a.status == 201, a.body
        return a.json

    def cli(self, *words, ok=True):
        env = {**self.env, "LATHE_URL": self.url, "LATHE_API_KEY": self.key}
        r = subprocess.run([LATHE, *words], env=env, capture_output=True, text=True, timeout=300, check=False)
        assert not ok or r.returncode == 0, r.stderr
        return r

    def deploy(self, name, **fields):
        self.make("deployments", name=name, **fields)

        def ready():
            d = self.call("GET", f"/lathe/v1/deployments/{name}").json
            assert d["state"] not in ("failed", "crash_loop"), d["state_reason"]
            return d if d["state"] == "ready" else None
        return wait_for(f"deployment {name}", 120, ready)


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
