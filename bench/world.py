# SPDX-License-Identifier: Apache-2.0
"""What the sections of bench/run share: the fake engine, nginx and Lathe side by side, blocks of load on each in turn, what they
cost, and the proof that every request was answered, counted by the engine and written down by Lathe."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "test"))
BUILD = (ROOT / os.environ.get("B", "build")).resolve()
os.environ.setdefault("LATHE", str(BUILD / "lathe"))
os.environ.setdefault("FAKE_ENGINE", str(BUILD / "fake-engine"))
from harness import FAKE, LATHE, Server, wait_for  # noqa: E402, F401  (sections take them from here)

LOAD = str(BUILD / "lathe-load")
MODEL = ROOT / "fuzz" / "corpus" / "gguf" / "ok-llama"  # the smallest whole one: a name for a price; nothing reads its weights
SYSTEMS = ("direct", "nginx", "lathe")
KEYS = 100
SLOTS = 256  # the most of one deployment
TICK = os.sysconf("SC_CLK_TCK")


class Wrong(SystemExit):
    """A figure that would mean nothing: the run ends."""

    def __init__(self, text):
        super().__init__(f"bench: {text}")


def body(size, max_tokens=4, **more):
    """A conversation's request of about so many bytes."""
    text = ("Name the rivers of this country and say which is the longest. " * (size // 60 + 1))[:max(20, size - 120)]
    return json.dumps({"model": "chat", "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, **more}).encode()


def streamed(size, tokens):
    return body(size, tokens, ignore_eos=True, stream=True, stream_options={"include_usage": True})


def spread(content):
    """The same for a world of several deployments: by its number each request goes to one of them."""
    return content.replace(b'"model": "chat"', b'"model": "chat-NNNNNNNNN"')


# ---- processes and what they cost

def on(core):
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def cores(free):
    """(of the load and the engine, of the gateway); None: anywhere."""
    have = sorted(os.sched_getaffinity(0))
    return (None, None) if free or len(have) < 2 else (have[0], have[1])


def cpu(pid):
    """Seconds on a processor, of all its threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def cpu_fine(pid):
    """The same from the scheduler, in nanoseconds' resolution; only while no thread ends."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9


def by_thread(pid):
    """Seconds by kind of thread: the loops, the database's writer, and all the rest."""
    out = {"loops": 0, "db-writer": 0, "rest": 0}
    for t in pathlib.Path(f"/proc/{pid}/task").iterdir():
        name = (t / "comm").read_text().strip()
        name = "loops" if name in ("loop", os.path.basename(LATHE)) else name if name in out else "rest"
        out[name] += int((t / "schedstat").read_text().split()[0]) / 1e9
    return out


def machine():
    """Seconds that all processors together were busy."""
    f = [int(x) for x in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(f) - f[3] - f[4]) / TICK


def of_children():
    t = os.times()
    return t.children_user + t.children_system


def anonymous(pid):
    """Anonymous memory in MB."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(port, path, timeout=20):
    """(status, body), or None while nobody listens."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as c:
        try:
            c.request("GET", path)
            r = c.getresponse()
            return r.status, r.read()
        except OSError:
            return None


def end(process):
    if process and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


# ---- the generator

def arguments(options):
    """rate=5, poisson=True → --rate 5 --poisson"""
    out = []
    for name, value in options.items():
        if value is not None and value is not False:
            out += [f"--{name}"] + ([] if value is True else [str(value)])
    return out


def load(words, core):
    """What lathe-load printed. Not every request answered as it should: the run ends."""
    done = subprocess.run([LOAD, *words], capture_output=True, text=True, check=False, preexec_fn=on(core))
    if done.returncode:
        raise Wrong(f"{' '.join(words)}: {done.stderr.strip()}")
    result = json.loads(done.stdout)
    if not result["sent"] or result["sent"] != result["answered"]:
        raise Wrong(f"{' '.join(words)}: {result['sent']} sent, {result['answered']} answered")
    return result


def merged(results):
    """One result of several: lathe-load adds them up, bucket by bucket."""
    with tempfile.TemporaryDirectory(prefix="lathe-bench-") as top:
        paths = [pathlib.Path(top) / f"{i}.json" for i in range(len(results))]
        for path, result in zip(paths, results):
            path.write_text(json.dumps({k: v for k, v in result.items() if isinstance(v, (int, dict))}))
        return json.loads(subprocess.run([LOAD, "merge", *map(str, paths)], capture_output=True, text=True, check=True).stdout)


@contextlib.contextmanager
def profiled(pid, folder):
    """Where its time goes meanwhile, for `perf report -i`; this slows it. folder None: not at all."""
    if not folder:
        yield
        return
    os.makedirs(folder, exist_ok=True)
    out = os.path.join(folder, f"{len(os.listdir(folder)):03d}.perf")
    with subprocess.Popen(["perf", "record", "-q", "-g", "-F", "999", "-p", str(pid), "-o", out]) as perf:
        try:
            yield
        finally:
            perf.send_signal(signal.SIGINT)


# ---- the three

NGINX = """daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {top}/nginx.pid;
error_log {top}/nginx.log warn;
{user}
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {top}/body; proxy_temp_path {top}/proxy; fastcgi_temp_path {top}/f; uwsgi_temp_path {top}/u;
    scgi_temp_path {top}/s;
    client_max_body_size 32m; client_body_buffer_size 2m;
    keepalive_requests 1000000000;
    upstream engine {{ server 127.0.0.1:{engine}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
            proxy_set_header Host $host;
        }}
    }}
}}
"""


class World:
    """Starts what a section needs in a folder of its own; gone at the end of the `with`. Options are the fake engine's."""

    def __init__(self, args, systems=SYSTEMS, streams=256, **options):
        self.load_core, self.core = cores(args.free)
        self.profile = args.profile
        self.systems, self.streams, self.options = systems, streams, options
        self.ports = {s: free_port() for s in SYSTEMS}
        self.engine = self.nginx = self.server = None
        self.deployments = 1
        self.sent = 0      # to Lathe, by all blocks
        self.others = 0    # seconds of processors that were not ours
        self.seconds = 0   # of all blocks
        self.folding = 0   # longest wait until all was in tables

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="lathe-bench-")
        self.top = pathlib.Path(self.folder.name)
        try:
            self.start_engine()
            if "nginx" in self.systems:
                self.start_nginx()
            if "lathe" in self.systems:
                self.start_lathe()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.server:
            end(self.server.process)  # its engine is only attached to: nothing stays behind
        end(self.nginx)
        end(self.engine)
        self.folder.cleanup()

    def start_engine(self):
        options = {"host": "127.0.0.1", "port": self.ports["direct"], "alias": "chat", "parallel": self.streams, "ctx-size": 1 << 28,
                   "idle-ms": 600000, **{k.replace("_", "-"): v for k, v in self.options.items()}}
        self.engine = subprocess.Popen([FAKE, *arguments(options)], stderr=subprocess.DEVNULL, preexec_fn=on(self.load_core))
        wait_for("the engine", 20, lambda: get(self.ports["direct"], "/health"))

    def start_nginx(self):
        conf = self.top / "nginx.conf"
        user = "user root;" if os.getuid() == 0 else ""
        conf.write_text(NGINX.format(top=self.top, user=user, engine=self.ports["direct"], port=self.ports["nginx"]))
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        self.nginx = subprocess.Popen([program, "-p", str(self.top), "-c", str(conf)], preexec_fn=on(self.core))
        wait_for("nginx", 20, lambda: get(self.ports["nginx"], "/health"))
        children = pathlib.Path(f"/proc/{self.nginx.pid}/task/{self.nginx.pid}/children").read_text().split()
        assert len(children) == 1, children
        self.worker = int(children[0])

    def launch(self, core=None):
        with open(self.top / "lathe.log", "ab") as log:
            self.server.process = subprocess.Popen(
                [LATHE, "serve", "--data", str(self.server.data), "--listen", f"127.0.0.1:{self.ports['lathe']}"],
                stderr=log, stdin=subprocess.DEVNULL, env=self.server.env, preexec_fn=on(core))

    def start_lathe(self):
        s = self.server = Server(self.top / "data")
        s.data.mkdir()
        self.launch(self.core)
        wait_for("the server", 20, lambda: get(self.ports["lathe"], "/readyz") and (s.data / "url").exists() or None)
        s.url, s.key = (s.data / "url").read_text(), (s.data / "admin.key").read_text().strip()
        s.cli("model", "import", "priced", "--file", str(MODEL), "--wait")
        s.make("prices", name="priced", model="priced", input="0.1", output="0.4")
        self.deployments = -(-self.streams // SLOTS)
        for i in range(self.deployments):
            s.deploy("chat" if self.deployments == 1 else f"chat-{i:09d}", engine="openai", model="priced", task="chat", slots=SLOTS,
                     endpoint={"url": f"http://127.0.0.1:{self.ports['direct']}/v1"})
        account = s.make("service_accounts", name="app", roles=["application"])["id"]
        limits = {"requests_per_minute": 1000000, "concurrency": 1000, "money_per_day": "1000000"}
        self.keys = [s.make("api_keys", name=f"key-{i}", service_account=account, limits=limits)["key"] for i in range(KEYS)]

    # ---- blocks

    def pid(self, system):
        return {"direct": None, "nginx": self.nginx and self.worker, "lathe": self.server and self.server.process.pid}[system]

    def ours(self):
        pids = [self.engine.pid, os.getpid(), *(p for p in map(self.pid, self.systems) if p)]
        return sum(cpu(p) for p in pids) + of_children()

    def ledger(self):
        return json.loads(get(self.ports["direct"], "/fake/ledger")[1])["requests"]

    def words(self, system, mode, content, options):
        whole, keys = self.top / "request.json", self.top / "keys"
        keys.write_text("\n".join(self.keys) if system == "lathe" else "none")
        if self.deployments > 1:
            content, options = spread(content), {"numbers": self.deployments, **options}
        whole.write_bytes(content)
        return [mode, f"127.0.0.1:{self.ports[system]}", "--body", str(whole), "--keys", str(keys), *arguments(options)]

    def block(self, system, mode, content, **options):
        """One run of lathe-load on one of the three; every request must be answered, and counted by the engine."""
        pid, asked, ours, busy, began = self.pid(system), self.ledger(), self.ours(), machine(), time.monotonic()
        before, threads = cpu(pid) if pid else 0, by_thread(pid) if system == "lathe" else {}
        with profiled(pid, self.profile if system == "lathe" else None):
            result = load(self.words(system, mode, content, options), self.load_core)
        at_end, sent = time.monotonic(), result["sent"]
        result["core"] = (cpu(pid) - before) / (result["elapsed_ns"] / 1e9) * 100 if pid else 0
        if system == "lathe":
            self.sent += sent
            self.server.folded()
            self.folding = max(self.folding, time.monotonic() - at_end)
            now = by_thread(pid)
            result.update({name: (now[name] - threads[name]) / sent * 1e6 for name in now})  # µs a request
        result["cpu_ms"] = (cpu(pid) - before if pid else 0) / sent * 1e6  # ms per 1,000 requests
        result["rate"] = sent / (result["elapsed_ns"] / 1e9)
        self.others += (machine() - busy) - (self.ours() - ours)
        self.seconds += time.monotonic() - began
        if self.ledger() - asked != sent:
            raise Wrong(f"{system}: the engine counted {self.ledger() - asked} requests, {sent} were sent")
        return result

    def rounds(self, name, rounds, mode, content, warm_up=0.2, **options):
        """Blocks of all systems in turn; each round begins with another. {system: [result, …]}"""
        out = {s: [] for s in self.systems}
        for s in self.systems:  # connections, caches, journal segments
            self.block(s, "closed", content, connections=4, seconds=warm_up, stream=options.get("stream"))
        for n in range(rounds):
            for i in range(len(self.systems)):
                s = self.systems[(n + i) % len(self.systems)]
                out[s].append(self.block(s, mode, content, **options))
            print(f"{name}: round {n + 1} of {rounds}: " + ", ".join(
                f"{s} {out[s][-1]['rate']:.0f}/s" for s in self.systems), file=sys.stderr, flush=True)
        return out

    def check_rows(self, good=True):
        check_rows(self.server, self.sent, good)

    def idle(self, seconds):
        """Percent of one processor over so long."""
        pid = self.server.process.pid
        before, began = cpu_fine(pid), time.monotonic()
        time.sleep(seconds)
        return (cpu_fine(pid) - before) / (time.monotonic() - began) * 100

    def disturbed(self):
        """What other programs took of the machine during the blocks, in percent."""
        return max(0, self.others) / max(self.seconds, 1e-9) / os.cpu_count() * 100


def check_rows(server, sent, good=True, paid=True):
    """One row a request in each of the three tables; good: all settled as answered; paid: with a cost."""
    server.folded()
    for name, ok in (("usage", "outcome = 'ok' AND status = 200" + (" AND cost > 0" if paid else "")), ("traces", "outcome = 'ok'"),
                     ("inference_audits", "outcome = 'ok'")):
        row = server.rows(f"SELECT count(*) n, count(DISTINCT request_id) d, coalesce(sum({ok}), 0) ok FROM {name}")[0]
        if (row["n"], row["d"]) != (sent, sent) or (good and row["ok"] != sent):
            raise Wrong(f"{sent} requests were sent and answered, but {name} has {row}")


# ---- figures and tables

def median_of(results, what):
    return statistics.median(what(r) for r in results)


def paired(these, those, what):
    """Medians over the rounds: (of the differences, of the ratios)."""
    pairs = [(what(a), what(b)) for a, b in zip(these, those)]
    return statistics.median(a - b for a, b in pairs), statistics.median(a / b for a, b in pairs if b)


def us(ns):
    return f"{ns / 1e3:,.0f}" if ns < 1e7 else f"{ns / 1e6:.1f} ms"


def table(rows):
    head, *rest = rows
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    line = lambda r: "| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))) + " |"  # noqa: E731
    return "\n".join([line(head), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, rest)])


def budget(what, value, limit, form="{:.2f}", at_least=False):
    met = value >= limit if at_least else value <= limit
    return what, form.format(value), ("≥ " if at_least else "≤ ") + form.format(limit), "met" if met else "missed"


def budgets(rows):
    return table([("of DESIGN's budgets", "measured", "budget", ""), *rows])
