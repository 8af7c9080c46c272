# SPDX-License-Identifier: Apache-2.0
"""Two and three `lathe serve` on one PostgreSQL, one of them killed at random under load: who takes over, how soon, and that all settles."""

import contextlib
import http.server
import pathlib
import tempfile
import threading
import time

import pytest

from conftest import small_model
from harness import SLOWER, Background, chat, rounds, some, wait_for
from postgres import Engine, Nodes, Proxy, clusters, within

TAKEOVER_S = 5


@pytest.fixture
def nodes():
    """nodes(n): so many on a database of their own. Everything ends with the test."""
    begun, engine = [], Engine(token_ms=8, token_jitter_ms=6)
    with tempfile.TemporaryDirectory(prefix="lathe-nodes-") as top, clusters() as cluster:
        def make(n, **settings):
            made = Nodes(top, cluster("main").make().start().database(), n, **settings)
            begun.append(made)
            made.attach("far", engine)
            return made
        try:
            yield make
            for made in begun:
                made.end()
        finally:
            for s in begun[0].all if begun else []:
                if s.process.poll() is None:
                    s.kill()
            engine.end()


class Watch:
    """Looks at the leases all the time: an epoch has one holder, and none goes back."""

    def __init__(self, database):
        self.database, self.holders, self.latest, self.failed = database, {}, {}, None
        self.background = Background(1, self._look)

    def _look(self, worker, turn):
        for r in self.database.rows("SELECT object, holder, epoch FROM lease WHERE holder <> ''"):
            key = (r["object"], r["epoch"])
            assert self.holders.setdefault(key, r["holder"]) == r["holder"], (key, self.holders[key], r)
            assert self.latest.get(r["object"], 0) <= r["epoch"], r
            self.latest[r["object"]] = r["epoch"]
        time.sleep(0.1)


def down(server):
    server.up = False
    server.kill()


def again(server):
    server.start(*server.flags)
    server.up, server.lives = True, server.lives + 1


class Load:
    """Chats and creations on every node; what a dead node does not answer is nobody's fault."""

    def __init__(self, nodes, name):
        self.nodes, self.name, self.lock, self.all, self.made = nodes, name, threading.Lock(), [], []
        self.background = Background(4 * len(nodes), self._one)

    def _one(self, worker, turn):
        node = self.nodes[worker % len(self.nodes)]
        life = node.lives
        try:
            if worker < len(self.nodes):
                a = node.call("POST", "/lathe/v1/service_accounts", {"name": f"{self.name}-{worker}-{turn}", "roles": ["viewer"]})
                assert a.status == 201, a.body
                self.made.append(a.json["id"])
                time.sleep(0.02)
                return
            x = chat(node, "far", f"{self.name}-{worker}-{turn}", turn % 3 != 0, 30, ignore_eos=True)
            with self.lock:
                self.all.append((node, x))
            x.read()
        except OSError:
            if node.up and node.lives == life:
                raise
            time.sleep(0.05)


def node_name(server):
    return (server.data / "node").read_text().strip()


CHAT = "(SELECT 'deployment/' || id FROM deployments WHERE name = 'chat')"


def owner(database, of=CHAT):
    """The node that holds the lease, and its epoch. Other deployments may be other nodes'."""
    rows = database.rows(f"SELECT holder, epoch FROM lease WHERE object = {of} AND holder <> ''")
    return (rows[0]["holder"].split(":")[0], rows[0]["epoch"]) if rows else (None, 0)


def status_of(server, name):
    return server.call("GET", f"/lathe/v1/deployments/{name}").json


def settled(server, replicas):
    d = status_of(server, "chat")
    good = d["state"] == "ready" and len(d["replicas_status"]) == replicas
    return d if good else None


def engines_of(made):
    """Engine processes of ours, by the node whose folder their socket lies in."""
    n = {}
    for p in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (p / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "--host" not in words or "fake-engine" not in words[0]:
            continue
        for s in made.all:
            if words[words.index("--host") + 1].startswith(str(s.data) + "/"):
                n[node_name(s)] = n.get(node_name(s), 0) + 1
    return n


def check_events(database):
    """Numbered without a gap, and nothing waits to be."""
    wait_for("the outbox", 10, lambda: database.rows("SELECT count(*) n FROM outbox")[0]["n"] == 0 or None)
    r = database.rows("SELECT count(*) n, min(number) lo, max(number) hi, (SELECT last FROM event_position) last FROM event")[0]
    assert r["n"] == r["hi"] - r["lo"] + 1 and r["hi"] == r["last"], r
    return r["n"]


def check_usage(nodes, load):
    """To the token, on both sides; the totals are the sum of what all nodes' clients got."""
    for s in nodes:
        s.folded()
    database = nodes[0].database
    wait_for("all that is open", 20, lambda: database.rows("SELECT count(*) n FROM usage_open")[0]["n"] == 0 or None)
    rows = {}
    for r in database.rows("SELECT * FROM usage WHERE end_user LIKE ?", load.name + "-%"):
        assert r["request_id"] not in rows, r
        rows[r["request_id"]] = r
    cut = 0
    for node, x in load.all:
        if x.ok:
            r = rows.pop(x.request_id)
            assert r["outcome"] == "ok" and r["completion_tokens"] == x.usage["completion_tokens"], (r, x.usage)
        elif x.request_id in rows:
            r = rows.pop(x.request_id)
            assert r["outcome"] in ("interrupted", "ok") and x.tokens <= r["completion_tokens"] <= 30, (r, x.tokens)
            cut += 1
    # Those that had not even a head.
    assert all(r["outcome"] in ("interrupted", "ok") for r in rows.values()), rows
    return cut + len(rows)


def takeover(database, survivors, dead, before):
    """From the kill to the first status that is written under the next epoch."""
    def look():
        holder, epoch = owner(database)
        if epoch <= before or holder == dead:
            return None
        return any(status_of(s, "chat")["node"] == holder for s in survivors[:1]) or None
    return within(3 * TAKEOVER_S, "the takeover", look)


def kill_one(made, database, victim, replicas):
    survivors = [s for s in made.all if s is not victim]
    before = owner(database)
    relay = owner(database, "'event-relay'")
    down(victim)
    start = time.monotonic()
    took = {}
    if before[0] == node_name(victim):
        took["deployment"] = takeover(database, survivors, before[0], before[1])
    if relay[0] == node_name(victim):
        within(3 * TAKEOVER_S, "the relay", lambda: owner(database, "'event-relay'")[1] > relay[1] or None)
        took["events"] = time.monotonic() - start
    assert all(t < TAKEOVER_S * SLOWER for t in took.values()), took
    d = wait_for("replicas of a node that lives", 30, lambda: settled(survivors[0], replicas))
    alive = {node_name(s) for s in survivors}
    assert {r["node"] for r in d["replicas_status"]} <= alive, d
    return took


@pytest.mark.parametrize("n_nodes", [2] if rounds(1) < 5 else [2, 3])
def test_one_is_killed(nodes, n_nodes):
    made, dice, replicas, owners_killed = nodes(n_nodes), some(n_nodes), 2, 0
    database = made.all[0].database
    made.all[0].deploy("chat", model="smol", context=512, slots=4, replicas=replicas)
    watch, first = Watch(database), owner(database)[1]
    with watch.background:
        for n in range(rounds(1, 6)):
            load = Load(made.all, f"r{n}")
            # The owner more often than not: it is the one that matters.
            holder = next(s for s in made.all if node_name(s) == owner(database)[0])
            victim = holder if n % 3 != 1 else dice.choice(made.all)
            with load.background:
                wait_for("answers", 20, lambda: True if sum(x.ok for _, x in load.all) > 10 * (n + 1) else None)
                took = kill_one(made, database, victim, replicas)
                owners_killed += victim is holder
                again(victim)
            for s in made.all:
                wait_for("both in agreement", 30, lambda s=s: settled(s, replicas))
            alone = owner(database)[0]
            wait_for("engines of one node", 20, lambda: True if engines_of(made) == {alone: replicas} else None)
            cut = check_usage(made.all, load)
            for made_id in load.made:
                assert made.all[n % n_nodes].call("GET", "/lathe/v1/service_accounts/" + made_id).status == 200
            print(f"round {n}: {took} {len(load.all)} requests, {cut} cut, {len(load.made)} resources, {check_events(database)} events")
    assert owner(database)[1] == first + owners_killed  # nothing but a death moves a lease


def works(server, key):
    return chat_with(server, key).status == 200


def chat_with(server, key):
    body = {"model": "far", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    return server.call("POST", "/v1/chat/completions", body, key=key)


def check_keys(a, b):
    """Made or revoked on one, it is the other's within a second."""
    account = a.make("service_accounts", name="bot", roles=["application"])
    for n, (here, there) in enumerate([(a, b), (b, a)]):
        key = here.make("api_keys", name=f"k{n}", service_account=account["id"])
        assert works(here, key["key"])
        assert within(1, "the new key on the other node", lambda: works(there, key["key"]) or None) < SLOWER
        assert here.call("DELETE", "/lathe/v1/api_keys/" + key["id"]).status in (200, 202, 204)
        assert chat_with(here, key["key"]).status == 401
        assert within(1, "its end on the other node", lambda: True if chat_with(there, key["key"]).status == 401 else None) < SLOWER


class SlowFile(http.server.BaseHTTPRequestHandler):
    """A file that takes its time: in 20 pieces."""

    def do_GET(self):
        data = self.server.data
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        piece = len(data) // 20 + 1
        with contextlib.suppress(OSError):
            for at in range(0, len(data), piece):
                self.wfile.write(data[at:at + piece])
                self.wfile.flush()
                time.sleep(0.1)

    def log_message(self, *words):
        pass


@pytest.fixture
def slow_file():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowFile) as server, tempfile.TemporaryDirectory() as folder:
        server.data = small_model(folder).read_bytes()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/small.gguf"
        server.shutdown()


def test_keys_and_jobs_are_all_nodes(nodes, slow_file):
    """A key is every node's within a second; a dead node's jobs run once to their end on another."""
    made = nodes(2, model__allow_private_urls="true")
    check_keys(*made.all)
    database = made.all[0].database
    jobs = []
    for n in range(6):
        s = made.all[n % 2]
        s.make("models", name=f"m{n}")
        a = s.call("POST", f"/lathe/v1/models/m{n}/import", {"url": slow_file})
        assert a.status == 202, a.body
        jobs.append(a.json["job"])

    def running():
        rows = database.rows("SELECT id, node, epoch FROM job WHERE state = 'running'")
        return rows if len({r["node"] for r in rows}) == 2 else None
    rows = wait_for("jobs on both nodes", 10, running)
    victim, survivor = made.all
    down(victim)
    mine = [r for r in rows if r["node"] == node_name(victim)]

    def taken():
        now = {r["id"]: r for r in database.rows("SELECT id, node, epoch, state FROM job")}
        return all(now[r["id"]]["epoch"] > r["epoch"] or now[r["id"]]["state"] == "done" for r in mine) or None
    took = within(3 * TAKEOVER_S, "the jobs' next attempts", taken)
    assert took < TAKEOVER_S * SLOWER, took

    def done():
        rows = database.rows("SELECT id, state, attempt, crashes, node FROM job")
        assert not [r for r in rows if r["state"] in ("failed", "cancelled")], rows
        return rows if all(r["state"] == "done" for r in rows) else None
    rows = {r["id"]: r for r in wait_for("all jobs", 30, done)}
    assert set(jobs) <= set(rows)
    versions = database.rows("SELECT model, count(*) n FROM model_versions GROUP BY model")
    assert len(versions) == 7 and all(v["n"] == 1 for v in versions), versions
    print(f"{len(mine)} jobs of the dead node taken over after {took:.1f} s; attempts", sorted(r["attempt"] for r in rows.values()))
    again(victim)


def check_elsewhere(a, b):
    """b is asked for what runs on a, behind a socket there: no wait in a queue that nobody serves, but an answer that names a."""
    def ask():
        began = time.monotonic()
        r = b.call("POST", "/v1/chat/completions", {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}, key=b.app_key)
        assert r.status == 503, r.body
        return (r, time.monotonic() - began) if r.json["error"]["code"] == "model_on_another_node" else None
    r, took = wait_for("b's snapshot", 5, ask)
    assert took < 2 * SLOWER and node_name(a) in r.json["error"]["message"] and node_name(b) in r.json["error"]["message"], (took, r.body)
    assert int(r.headers["Retry-After"]) >= 1


def test_a_node_without_the_model_leaves_it_to_one_that_has_it(nodes):
    """Folders of objects that nobody shares: no replica can be started elsewhere, which is said; and who has them gets it back."""
    made = nodes(2)
    a, b = made.all
    assert b.stop() == 0
    (b.data / "blob").unlink()
    (b.data / "blob").mkdir()
    again(b)
    a.deploy("chat", model="smol", context=512, slots=4, replicas=2)
    assert a.deployment("chat")["node"] == node_name(a)
    check_elsewhere(a, b)
    down(a)
    d = wait_for("the reason", 3 * TAKEOVER_S, lambda: (lambda d: d if d["state"] == "pending" else None)(status_of(b, "chat")))
    assert node_name(b) in d["state_reason"] and "does not have the files of smol:1" in d["state_reason"], d["state_reason"]
    again(a)
    d = wait_for("its replicas", 30, lambda: settled(b, 2))
    assert {r["node"] for r in d["replicas_status"]} == {node_name(a)} and not any(r["restarts"] for r in d["replicas_status"])


def cut_off(server):
    """Its way to the database leads through the proxy that is returned, from its next start on."""
    proxy = Proxy(int(server.database.direct.rsplit(":", 1)[1].split("/")[0]))
    server.env = {**server.env, "LATHE_DB_URL": proxy.url}
    return proxy


def refused_for(server, node):
    """The answer to a request, once it names the node that runs the model now."""
    x = chat(server, "chat", "too late", False, 5).read()
    return True if x.status == 503 and node in x.error["message"] else None


def test_what_a_cut_off_node_ran_ends_after_its_last_request(nodes):
    """Another has taken its deployment over by the time it is back: its clients lose nothing, its engine does not stay."""
    made = nodes(2)
    a, b = made.all
    assert a.stop() == 0 and b.stop() == 0
    proxy = cut_off(a)
    try:
        again(a)
        made.engines.set(token_ms=20)
        a.deploy("chat", model="smol", context=2048, slots=4, replicas=1)
        again(b)
        stream = chat(a, "chat", "last", True, 1000, ignore_eos=True)
        reader = threading.Thread(target=stream.read)
        reader.start()
        wait_for("its stream", 20, lambda: True if stream.tokens > 10 else None)
        proxy.set("reset")
        wait_for("the other node", 30, lambda: True if (settled(b, 1) or {"node": ""})["node"] == node_name(b) else None)
        assert chat(a, "chat", "meanwhile", False, 5).read().ok
        proxy.set("pass")
        wait_for("the news", 20, lambda: refused_for(a, node_name(b)))
        under_way = not stream.done
        assert engines_of(made).get(node_name(a)) == 1 or not under_way
        reader.join(60)
        assert stream.ok and stream.usage["completion_tokens"] == 1000, (stream.end, stream.error, stream.tokens)
        wait_for("engines of one node", 20, lambda: True if engines_of(made) == {node_name(b): 1} else None)
        print(f"the stream was{'' if under_way else ' not'} under way when its node was back")
    finally:
        proxy.set("pass")
        if a.process.poll() is None:
            a.stop()
        a.env = {**a.env, "LATHE_DB_URL": a.database.env["LATHE_DB_URL"]}
        again(a)
        proxy.close()


def test_a_node_name_is_one_servers_at_a_time(nodes):
    """serve.node in a file that both read, or a copied folder: they would fold each other's journal."""
    made = nodes(2)
    first, second = made.all
    name = (first.data / "node").read_text().strip()
    assert second.stop() == 0
    with pytest.raises(AssertionError, match="another server uses this database as node"):
        second.start("--serve.node", name, *second.flags)
    first.kill()
    first.start(*first.flags)  # its own last life is no other server, and is not waited for
    assert first.call("GET", "/readyz").status == 200
    assert first.stop() == 0
    second.start("--serve.node", name, *second.flags)  # it was given back
    assert second.stop() == 0
    first.start(*first.flags)
