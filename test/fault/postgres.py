# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL of a test's own, to be killed, copied and promoted; a proxy before it that can be cut; nodes that share it."""

import contextlib
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from conftest import QUICK, begin, small_model
from harness import FAKE, SLOWER, FakeEngines, PostgresSchema, Server, wait_for

_places = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
PROGRAMS = _places[-1] if _places else pathlib.Path(shutil.which("initdb") or "/nowhere/initdb").parent
AS = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []  # it refuses to run as root


def free_port():
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Address(PostgresSchema):
    """Where a server finds its database (`given`), and where the test looks into it (`direct`)."""

    def __init__(self, direct, given):
        self.direct, self.env = direct, {"LATHE_DB_URL": given}

    def url_of(self, schema):
        """The same, looking into a schema of that name."""
        url = f"{self.direct}?options=-csearch_path%3D{schema}"
        return Address(url, url)


class Postgres:
    """One server of the cluster in `folder`, on loopback."""

    def __init__(self, folder, **options):
        self.folder, self.port = pathlib.Path(folder), free_port()
        self.options = {"fsync": "off", "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "16MB",
                        "log_min_messages": "fatal", **options}

    def _run(self, *words):
        r = subprocess.run([*AS, *map(str, words)], cwd=self.folder.parent, capture_output=True, text=True, timeout=60 * SLOWER, check=False)
        assert r.returncode == 0, r.stderr + r.stdout
        return r

    def make(self):
        self._run(PROGRAMS / "initdb", "-D", self.folder, "-U", "lathe", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        return self

    def copy_of(self, other):
        self._run(PROGRAMS / "pg_basebackup", "-D", self.folder, "-h", "127.0.0.1", "-p", other.port, "-U", "lathe", "-c", "fast", "-R")
        with open(self.folder / "postgresql.auto.conf", "a") as f:
            f.write(f"primary_conninfo = 'host=127.0.0.1 port={other.port} user=lathe application_name=standby'\n")
        return self

    def start(self):
        flags = " ".join(f"-c {name}='{value}'" for name, value in {**self.options, "port": self.port}.items())
        log = self.folder.parent / (self.folder.name + ".log")
        try:
            self._run(PROGRAMS / "pg_ctl", "-D", self.folder, "-w", "-t", 30, "-l", log, "-o", flags, "start")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{log.read_text()[-2000:]}") from None
        self.process = int((self.folder / "postmaster.pid").read_text().split()[0])
        return self

    def kill(self):
        """kill -9 of its first process: the others notice, and end."""
        os.kill(self.process, signal.SIGKILL)
        wait_for("the end of PostgreSQL", 20, lambda: None if self._lives() else True)
        (self.folder / "postmaster.pid").unlink()  # where nobody buries the dead, it would name one that is there

    def _lives(self):
        """A backend may outlive it for a moment, and holds the cluster."""
        for p in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(p / "cwd") == str(self.folder):
                    return True
        return False

    def restart(self):
        """As an administrator in a hurry: immediately, without a word to clients."""
        self._run(PROGRAMS / "pg_ctl", "-D", self.folder, "-m", "immediate", "-w", "stop")
        self.start()

    def promote(self):
        self._run(PROGRAMS / "pg_ctl", "-D", self.folder, "-w", "promote")

    def stop(self):
        with contextlib.suppress(AssertionError):
            self._run(PROGRAMS / "pg_ctl", "-D", self.folder, "-m", "immediate", "-w", "stop")

    @property
    def url(self):
        return f"postgres://lathe@127.0.0.1:{self.port}/postgres"

    def database(self, given=None):
        return Address(self.url, given or self.url)


@contextlib.contextmanager
def clusters():
    """folder(name) for clusters that the server's user may write to; all of it goes with the block."""
    top = pathlib.Path(tempfile.mkdtemp(prefix="lathe-pg-"))
    made = []
    if AS:
        shutil.chown(top, "postgres", "postgres")
    top.chmod(0o755)

    def make(name, **options):
        made.append(Postgres(top / name, **options))
        return made[-1]
    try:
        yield make
    finally:
        for p in made:
            p.stop()
        shutil.rmtree(top, ignore_errors=True)


class Proxy:
    """TCP to `port`. mode: "pass"; "reset": what is open is reset and nothing new gets in; "hole": everything is swallowed."""

    def __init__(self, port):
        self.to, self.mode, self.pairs, self.lock, self.over = port, "pass", [], threading.Lock(), False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.wakers = socket.socketpair()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def set(self, mode):
        with self.lock:
            self.mode = mode
        self.wakers[1].send(b"x")

    def _open(self):
        a, _ = self.listener.accept()
        if self.mode == "reset":
            reset(a)
            return
        pair = [a, None]
        if self.mode == "pass":
            try:
                pair[1] = socket.create_connection(("127.0.0.1", self.to), 5)
            except OSError:
                reset(a)
                return
        self.pairs.append(pair)

    def _close(self, pair):
        self.pairs.remove(pair)
        for s in pair:
            if s:
                reset(s)

    def _move(self, pair, source):
        target = pair[1] if source is pair[0] else pair[0]
        try:
            data = source.recv(65536)
            if data and target:
                target.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._close(pair)

    def _run(self):
        while not self.over:
            with self.lock:
                mode = self.mode
            if mode != "hole":  # what was swallowed for a while is not given back: TCP would not be so slow, but a firewall forgets
                for pair in [p for p in self.pairs if mode == "reset" or p[1] is None]:
                    self._close(pair)
            ends = {} if mode == "hole" else {s: pair for pair in self.pairs for s in pair if s}
            ready, _, _ = select.select([self.listener, self.wakers[0], *ends], [], [], 1)
            for s in ready:
                if s is self.listener:
                    self._open()
                elif s is self.wakers[0]:
                    s.recv(64)
                    break
                elif ends[s] in self.pairs:
                    self._move(ends[s], s)

    def close(self):
        self.over = True
        self.set("reset")
        self.thread.join(10)
        for pair in list(self.pairs):
            self._close(pair)
        self.listener.close()

    @property
    def url(self):
        return f"postgres://lathe@127.0.0.1:{self.port}/postgres"


def reset(s):
    with contextlib.suppress(OSError):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    s.close()


class Nodes:
    """Servers with a folder each on one database. What more than one machine needs to share is shared: the objects and the master key."""

    def __init__(self, top, database, n, **settings):
        self.top, self.all = pathlib.Path(top), []
        self.engines = FakeEngines(top)
        settings = {**QUICK, **{name.replace("__", "."): value for name, value in settings.items()}}
        first = begin(top, self.engines.program, small_model(top), settings, database)
        first.engines = self.engines
        self.all.append(first)
        for i in range(1, n):
            self.all.append(self._join(i, first, database))
        for s in self.all:
            s.up, s.lives = True, 0  # as the test last left it

    def _join(self, i, first, database):
        s = Server(self.top / f"node{i}", database=database)
        s.data.mkdir()
        (s.data / "blob").symlink_to(first.data / "blob")
        shutil.copy(first.data / "master.key", s.data / "master.key")
        s.flags, s.engines = first.flags, self.engines
        s.admin_key = first.key
        s.start(*s.flags)
        s.app_key = first.app_key
        return s

    def attach(self, name, engine):
        """A deployment whose engine is the test's: every node's gateway reaches it."""
        url = f"http://127.0.0.1:{engine.port}/v1"
        self.all[0].deploy(name, engine="openai", endpoint={"url": url})

    def end(self):
        for s in self.all:
            if s.process.poll() is not None:
                s.start(*s.flags)
        for s in self.all[1:]:
            assert s.stop() == 0, s.said()
        self.all[0].end()


class Engine:
    """A fake engine that belongs to the test."""

    def __init__(self, **options):
        self.port = free_port()
        words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
        self.process = subprocess.Popen([FAKE, "--host", "127.0.0.1", "--port", str(self.port), "--parallel", "256", *words],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self):
        self.process.kill()
        self.process.wait()


def within(seconds, what, look):
    """How long it took."""
    start = time.monotonic()
    wait_for(what, seconds, look)
    return time.monotonic() - start
