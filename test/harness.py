# SPDX-License-Identifier: Apache-2.0
"""What the tests of the whole program share: a real `lathe serve`, engines for it, and a client that sees every byte."""

import contextlib
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
LATHE = os.environ.get("LATHE", str(ROOT / "build" / "lathe"))
FAKE = os.environ.get("FAKE_ENGINE", str(ROOT / "build" / "fake-engine"))
# A program under a sanitizer is slower by so many times, and its memory is not its own (test/sanitized): every limit of time is longer by
# it, and limits of memory do not count. 1, and they count, in every other run.
SLOWER = float(os.environ.get("LATHE_TEST_SLOWER", 1))
# A shell's background job ignores interrupts, and so would every program that it starts: with a handler here they begin as usual.
signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for(what, seconds, look):
    """Waits on a condition: look() gives it, or None."""
    seconds *= SLOWER
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


# ---- what really lies in the database, past the program


class SqliteFile:
    def __init__(self, data):
        self.path, self.env = data / "lathe.db", {}

    def rows(self, sql, *values):
        """`traces` are the main database's and those of every day together."""
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=20)) as db:
            db.row_factory = sqlite3.Row
            columns = ", ".join(r["name"] for r in db.execute("PRAGMA table_info(traces)"))
            places = ["main"]
            for i, day in enumerate(sorted(self.path.parent.glob("telemetry/traces-*.db"))):
                db.execute(f"ATTACH 'file:{day}?mode=ro' AS day{i}")
                places.append(f"day{i}")
            if columns:
                db.execute("CREATE TEMP VIEW traces AS " + " UNION ALL ".join(f"SELECT {columns} FROM {p}.traces" for p in places))
            return [dict(r) for r in db.execute(sql, values)]

    def run(self, script):
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.executescript(script)

    def save(self):
        """While no server runs; restore brings it back."""
        return self.path.read_bytes()

    def restore(self, saved):
        self.path.write_bytes(saved)

    def text(self):
        """All that is stored, as bytes."""
        places = [*self.path.parent.glob("lathe.db*"), *self.path.parent.glob("telemetry/*")]
        return b"".join(p.read_bytes() for p in places)


class PostgresSchema:
    """A schema of its own on the server that test/postgres-run started."""

    def __init__(self):
        self.server, self.name = os.environ["LATHE_TEST_POSTGRES"], f"t{os.getpid()}_{next(_schemas)}"
        self.direct = f"{self.server}&options=-csearch_path%3D{self.name}"
        self.env = {"LATHE_DB_URL": self.direct}
        self.run(f"CREATE SCHEMA {self.name}")

    def beside(self):
        """Another database of the same server, with an empty schema of this name."""
        other, name = object.__new__(PostgresSchema), f"{self.name}_{next(_schemas)}"
        self.run(f"CREATE DATABASE {name}")
        other.server, other.name = self.server.replace("/postgres?", f"/{name}?"), self.name
        other.direct = f"{other.server}&options=-csearch_path%3D{self.name}"
        other.env = {"LATHE_DB_URL": other.direct}
        other.run(f"CREATE SCHEMA {self.name}")
        return other

    def _program(self, *words, text=None):
        r = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert r.returncode == 0, r.stderr
        return r.stdout

    def rows(self, sql, *values):
        for v in values:
            sql = sql.replace("?", str(v) if isinstance(v, int) else "'" + v.replace("'", "''") + "'", 1)
        out = self._program("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", self.direct,
                            text=f"SELECT COALESCE(json_agg(t), '[]') FROM ({sql}) t")
        return json.loads(out)

    def run(self, script):
        self._program("psql", "-qX", "-v", "ON_ERROR_STOP=1", self.direct, text=script)

    def save(self):
        return self.text().decode()

    def restore(self, saved):
        self.run(f"DROP SCHEMA {self.name} CASCADE")
        self.run(saved)

    def text(self):
        return self._program("pg_dump", "-n", self.name, self.server).encode()


_schemas = itertools.count(1)


def database_for(data):
    """LATHE_TEST_DATABASE: sqlite (a file in the data folder) or postgres."""
    return PostgresSchema() if os.environ.get("LATHE_TEST_DATABASE") == "postgres" else SqliteFile(data)


class Server:
    """One `lathe serve`, with the administrator's key."""

    def __init__(self, data, env=None, database=None):
        self.data = pathlib.Path(data)
        self.database = database or database_for(self.data)
        self.env = {**os.environ, "HOME": str(self.data.parent), **self.database.env, **(env or {})}  # it leaves its address there
        self.process = self.admin_key = None  # the key: of the node that began the database

    def start(self, *flags):
        (self.data / "url").unlink(missing_ok=True)
        with open(self.data.parent / (self.data.name + ".log"), "ab") as log:
            self.process = subprocess.Popen(
                [LATHE, "serve", "--data", str(self.data), "--listen", "127.0.0.1:0", *flags],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=self.env,
                start_new_session=True)
        try:
            self.url = wait_for("the server", 20, self._url)
        except BaseException:
            self.kill()
            raise
        self.key = self.admin_key or (self.data / "admin.key").read_text().strip()
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
            self.process.wait(seconds * SLOWER)
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
            with urllib.request.urlopen(request, timeout=60 * SLOWER) as r:
                return Answer(r.status, r.headers, r.read())
        except urllib.error.HTTPError as e:
            return Answer(e.code, e.headers, e.read())

    def make(self, kind, **fields):
        a = self.call("POST", f"/lathe/v1/{kind}", fields)
        assert a.status == 201, a.body
        return a.json

    def cli(self, *words, ok=True):
        env = {**self.env, "LATHE_URL": self.url, "LATHE_API_KEY": self.key}
        r = subprocess.run([LATHE, *words], env=env, capture_output=True, text=True, timeout=300 * SLOWER, check=False)
        assert not ok or r.returncode == 0, r.stderr
        return r

    def deployment(self, name):
        a = self.call("GET", f"/lathe/v1/deployments/{name}")
        return a.json if a.status == 200 else None

    def ready(self, name, seconds=120, but=("failed", "crash_loop")):
        def look():
            d = self.deployment(name)
            assert d["state"] not in but, d["state_reason"]
            return d if d["state"] == "ready" else None
        return wait_for(f"deployment {name}", seconds, look)

    def deploy(self, name, **fields):
        self.make("deployments", name=name, **fields)
        return self.ready(name)

    def change(self, name, **fields):
        a = self.call("PATCH", f"/lathe/v1/deployments/{name}", fields)
        assert a.status == 200, a.body
        return a.json

    def remove(self, name):
        a = self.call("DELETE", f"/lathe/v1/deployments/{name}")
        assert a.status in (200, 202, 204), a.body
        wait_for(f"the end of {name}", 60, lambda: self.deployment(name) is None or None)

    def use_app(self):
        """A key of an application, as self.app_key."""
        account = self.make("service_accounts", name="app", roles=["application"])
        self.app_key = self.make("api_keys", name="app", service_account=account["id"])["key"]

    def folded(self):
        """Returns when all requests that have ended are in the tables."""
        assert self.call("GET", "/lathe/v1/usage_totals").status == 200

    def rows(self, sql, *values):
        return self.database.rows(sql, *values)

    def end(self):
        """Everything that was started ends: deployments, then the server. What does not is killed."""
        try:
            self._end()
        except BaseException:
            self.destroy()
            raise

    def destroy(self):
        """Without a word: the server, and every process that names something in its folder: its engines and their shims."""
        self.kill()
        for p in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if any(word.startswith(f"{self.data}/".encode()) for word in (p / "cmdline").read_bytes().split(b"\0")):
                    os.kill(int(p.name), signal.SIGKILL)

    def _end(self):
        if self.process.poll() is not None:
            self.start()
        for d in self.call("GET", "/lathe/v1/deployments").json["data"]:
            self.call("DELETE", "/lathe/v1/deployments/" + d["id"])
        wait_for("the deployments' end", 60, lambda: None if self.call("GET", "/lathe/v1/deployments").json["data"] else True)
        assert self.stop() == 0, self.said()


# ---- the fake engine (test/fake) in llama-server's place


class FakeEngines:
    """A program for deployment.llama_server: the fake engine with options that are read at each launch."""

    def __init__(self, folder):
        self.program, self.options = pathlib.Path(folder) / "engine", pathlib.Path(folder) / "engine.options"
        self.set()
        self.program.write_text(f"#!/bin/sh\nexec '{FAKE}' \"$@\" $(cat '{self.options}')\n")
        self.program.chmod(0o755)

    def set(self, **options):
        words = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
        self.options.write_text(" ".join(words) + "\n")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20 * SLOWER)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def engine_call(replica, method, path, body=None):
    """Straight to an engine, past the gateway; replica: of replicas_status."""
    with contextlib.closing(UnixConnection(replica["address"].removeprefix("unix:"))) as c:
        c.request(method, path, None if body is None else json.dumps(body))
        return json.loads(c.getresponse().read())


def ledger(replica):
    return engine_call(replica, "GET", "/fake/ledger")


# ---- a client that sees every byte


class Exchange:
    """One request on a connection of its own, read as it comes. Not finished: `end` says how it broke off."""

    def __init__(self, server, path, body, key=None, receive_buffer=0):
        self.status, self.headers, self.tokens, self.usage = None, {}, 0, None
        self.done, self.error, self.end, self.text, self.comments = False, None, None, "", []
        self.events, self.body, self.raw, self.left = 0, b"", b"", 0
        data = json.dumps(body).encode()
        host, port = server.url.removeprefix("http://").rsplit(":", 1)
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(120 * SLOWER)
        self.started = time.monotonic()
        self.sock.connect((host, int(port)))
        head = f"POST {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {key or server.app_key}\r\nContent-Type: application/json\r\n" \
               f"Content-Length: {len(data)}\r\n\r\n"
        self.sock.sendall(head.encode() + data)

    def close(self):
        self.sock.close()

    @property
    def request_id(self):
        return self.headers.get("x-request-id")

    @property
    def ok(self):
        return self.status == 200 and self.done and self.error is None

    def json(self):
        return json.loads(self.body)

    def _more(self):
        try:
            piece = self.sock.recv(65536)
        except OSError as e:
            self.end = type(e).__name__
            return False
        if not piece:
            self.end = self.end or "eof"
        self.raw += piece
        return bool(piece)

    def head(self):
        """Reads the head. False: the connection ended before."""
        while b"\r\n\r\n" not in self.raw:
            if not self._more():
                return False
        head, self.raw = self.raw.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        return True

    def _chunks(self):
        """Pieces of the body; after the last one self.end is "whole", or how it broke off."""
        left = self.headers.get("content-length")
        if left is not None:
            left = int(left)
            while left > len(self.raw):
                if not self._more():
                    return
            self.end = "whole"
            yield self.raw[:left]
            return
        while True:
            line, mark, rest = self.raw.partition(b"\r\n")
            size = int(line, 16) if mark else None
            if mark and len(rest) >= size + 2:
                self.raw = rest[size + 2:]
                if not size:
                    self.end = "whole"
                    return
                yield rest[:size]
            elif not self._more():
                return

    def events_of(self):
        """Reads on, an event or a comment at a time; `tokens` and the rest grow on the way."""
        buffer = b""
        for chunk in self._chunks():
            buffer += chunk
            while b"\n\n" in buffer:
                event, buffer = buffer.split(b"\n\n", 1)
                self._event(event.decode())
                yield event

    def _event(self, event):
        if event.startswith(":"):
            self.comments.append(event[1:].strip())
        for line in event.split("\n"):
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                self.done = True
                return
            data = json.loads(line[6:])
            self.events += 1
            self.error = data.get("error") or self.error
            self.usage = data.get("usage") or self.usage
            for choice in data.get("choices", []):
                piece = choice["delta"].get("content") if "delta" in choice else choice.get("text")
                self.tokens += bool(piece)
                self.text += piece or ""
            if "timings" in data:  # of one that asked for timings_per_token: exact where chunks are not tokens
                self.tokens = data["timings"]["predicted_n"]

    def read(self):
        """To its end, streamed or not."""
        try:
            if self.head():
                if self.headers.get("content-type", "").startswith("text/event-stream"):
                    for _ in self.events_of():
                        pass
                else:
                    self.body = b"".join(self._chunks())
                    self._whole()
        finally:
            self.close()
        return self

    def _whole(self):
        if self.end == "whole":
            answer = json.loads(self.body)
            self.error, self.usage = answer.get("error"), answer.get("usage")
            self.done = self.status == 200
            self.tokens = self.usage["completion_tokens"] if self.done else 0


def chat(server, model, user="", stream=True, max_tokens=16, receive_buffer=0, key=None, **more):
    """A conversation's request, sent."""
    body = {"model": model, "messages": [{"role": "user", "content": "Tell a story."}], "max_tokens": max_tokens, "user": user, **more}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return Exchange(server, "/v1/chat/completions", body, key, receive_buffer)


def together(n, work):
    """work(i) on n threads; gives the results, or raises the first failure."""
    out, failed = [None] * n, []

    def one(i):
        try:
            out[i] = work(i)
        except BaseException as e:
            failed.append(e)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]
    return out


class Background:
    """work() again and again on n threads until the block ends; the first failure is raised there."""

    def __init__(self, n, work):
        self.work, self.failed, self.over = work, [], threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(n)]

    def _run(self, i):
        turn = 0
        try:
            while not self.over.is_set() and not self.failed:
                self.work(i, turn)
                turn += 1
        except BaseException as e:
            self.failed.append(e)

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def join(self):
        self.over.set()
        for t in self.threads:
            t.join()

    def __exit__(self, kind, value, trace):
        self.join()
        if self.failed and not kind:
            raise self.failed[0]


def rss_bytes(pid, what="VmRSS"):
    """0 under a sanitizer, which keeps what was freed."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) * 1024 if SLOWER == 1 else 0


def rounds(few, many=18):
    return many if os.environ.get("FAULT_ROUNDS") == "18" else int(os.environ.get("FAULT_ROUNDS", few))


def each_round(name, few):
    """Numbers of rounds. With FAULT_PROGRESS, a folder, a run that was cut goes on where it was."""
    folder = os.environ.get("FAULT_PROGRESS")
    done = pathlib.Path(folder) / f"{name}-{os.environ.get('LATHE_TEST_DATABASE', 'sqlite')}" if folder else None
    first = int(done.read_text()) if done and done.exists() else 0
    for n in range(first, rounds(few)):
        yield n
        if done:
            done.write_text(str(n + 1))


def some(seed):
    return random.Random(seed)
