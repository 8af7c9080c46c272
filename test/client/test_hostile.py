# SPDX-License-Identifier: Apache-2.0
"""Clients that mean harm, over stock sockets: requests that two readers would split differently, clients that drip, hold and flood,
bodies that would grow, keys that are guessed. Everybody else is served meanwhile, and what is held stays bounded.
HOSTILE=9000 holds so many idle connections, and floods for longer."""

import contextlib
import gzip
import importlib.util
import json
import os
import pathlib
import re
import resource
import select
import socket
import sys
import tempfile
import threading
import time

import pytest

TEST = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TEST))
from harness import SLOWER, FakeEngines, Server, chat, rss_bytes, wait_for  # noqa: E402

MIB = 1 << 20
MANY = int(os.environ.get("HOSTILE", 0))


def start(top, **settings):
    s = Server(pathlib.Path(top) / "data")
    s.data.mkdir()
    s.start(*[word for name, value in settings.items() for word in ("--" + name.replace("__", "."), str(value))])
    s.use_app()
    return s


@contextlib.contextmanager
def running(**settings):
    with tempfile.TemporaryDirectory(prefix="lathe-hostile-") as top:
        s = start(top, **settings)
        try:
            yield s
        finally:
            assert s.stop() == 0, s.said()


@pytest.fixture(scope="module")
def server():
    with running(serve__head_timeout="500ms", serve__body_timeout="500ms", serve__write_timeout="1s") as s:
        yield s


def connect(server, source=None, receive_buffer=0):
    host, port = server.url.removeprefix("http://").rsplit(":", 1)
    s = socket.socket()
    s.settimeout(10 * SLOWER)
    if receive_buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if source:
        s.bind((source, 0))
    s.connect((host, int(port)))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def answers(raw):
    """(status, headers, body) of each answer in raw; the last one may be without an end."""
    out = []
    while raw:
        head, mark, raw = raw.partition(b"\r\n\r\n")
        assert mark and head.startswith(b"HTTP/1.1 "), head[:200]
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        n = int(headers.get("content-length", 0))
        out.append((int(lines[0].split()[1]), headers, raw[:n]))
        raw = raw[n:]
    return out


def say(server, data, source=None):
    """All answers to these bytes; the server ends the connection, or 300 ms pass without a word."""
    out = b""
    with contextlib.closing(connect(server, source)) as s:
        with contextlib.suppress(ConnectionError, TimeoutError):
            s.sendall(data)
        s.settimeout(0.3 * SLOWER)
        ended = False
        with contextlib.suppress(ConnectionError, TimeoutError):
            while piece := s.recv(65536):
                out += piece
            ended = True
    return answers(out), ended


def alive(server, key=None, within=1.0):
    began = time.monotonic()
    assert server.call("GET", "/v1/models", key=key or server.app_key).status == 200
    assert time.monotonic() - began < within * SLOWER


def metric(server, name, **labels):
    text = server.call("GET", "/metrics").body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if re.match(name + r"[{ ]", line) and all(f'{k}="{v}"' in line for k, v in labels.items()))


# ---- one request or two?

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
LENGTHS = [b"5\r\nContent-Length: 5", b"5\r\nContent-Length: 6", b"5, 5", b"5,5", b"5 5", b"+5", b"-5", b"0x5", b"5\0", b"", b" ", b"5e0", b"5.0",
           b"\xd9\xa5", b"18446744073709551621", b"9223372036854775813", b"5\r\n 0", b"5;", b"'5'"]
CODINGS = [b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
           b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
           b"Transfer-Encoding : chunked", b" Transfer-Encoding: chunked", b"Transfer-Encoding:\r\n chunked", b"X: a\r\n Transfer-Encoding: chunked",
           b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: chunked\x0b", b"Transfer-Encoding: chunked\0", b"Transfer-Encoding:\0chunked",
           b"Transfer-Encoding\0: chunked", b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding: gzip, chunked",
           b"Transfer-Encoding: chunked\nX: y", b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked", b"Transfer-Encoding: ",
           b"Transfer-Encoding: chunke\xc4\x8f", b"Transfer\xe2\x80\x90Encoding: chunked", b"Transfer-Encoding: ,chunked", b"Transfer-Encoding\t: chunked"]
SIZES = [b"0x5\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"-0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n",
         b"5\r\nhello0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r\n0\n\n", b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n\r\n0\r\n\r\n",
         b"\r\nhello\r\n0\r\n\r\n", b"5\rX\nhello\r\n0\r\n\r\n", b"5\0\r\nhello\r\n0\r\n\r\n", b"5;a=\nb\r\nhello\r\n0\r\n\r\n", b"5_0\r\nhello\r\n0\r\n\r\n",
         b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", b"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"]
HEADS = [b"GET /healthz HTTP/1.1\r\nHost: t\r\nX : y\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: t\r\nX: a\0b\r\n\r\n", b"GET /healthz HTTP/1.1\nHost: t\n\n",
         b"GET /healthz HTTP/1.1\r\nHost: t\r\nX: a\rb\r\n\r\n", b"GET /healthz HTTP/1.1\r\n Host: t\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: t\r\nX\r\n\r\n",
         b"GET /healthz HTTP/1.1\r\nHost: t\r\n: y\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: t\r\nX: a\r\n\tb\r\n\r\n", b"GET  /healthz HTTP/1.1\r\nHost: t\r\n\r\n",
         b"GET\t/healthz HTTP/1.1\r\nHost: t\r\n\r\n", b"GET /healthz  HTTP/1.1\r\nHost: t\r\n\r\n", b"GET /healthz HTTP/2.0\r\nHost: t\r\n\r\n",
         b"GET /healthz HTTP/1.10\r\nHost: t\r\n\r\n", b"GET /healthz HTTP/1.1 \r\nHost: t\r\n\r\n", b"GET /healthz\r\n\r\n", b"GET /healthz http/1.1\r\nHost: t\r\n\r\n",
         b"GET /healthz HTTP/1.1\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: t\r\nHost: t\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: t\r\nhOST: u\r\n\r\n",
         b"GET /heal\0thz HTTP/1.1\r\nHost: t\r\n\r\n", b"GET http:///healthz HTTP/1.1\r\nHost: t\r\n\r\n", b"GET healthz HTTP/1.1\r\nHost: t\r\n\r\n",
         b"\0GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]


def ambiguous():
    post = b"POST /v1/embeddings HTTP/1.1\r\nHost: t\r\n"
    yield "CL.TE", post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS
    yield "TE.CL", post + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKS
    yield "CL.TE, hidden", post + b"Content-Length: 49\r\ntransfer-ENCODING:\tchunked\r\n\r\n0\r\n\r\n"
    yield "HTTP/1.0 TE", b"POST /v1/embeddings HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS
    yield "GET CL.TE", b"GET /healthz HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS
    for one in LENGTHS:
        yield f"CL {one!r}", post + b"Content-Length: " + one + b"\r\n\r\nhello"
    for one in CODINGS:
        yield f"TE {one!r}", post + one + b"\r\n\r\n" + CHUNKS
        yield f"TE {one!r} + CL", post + b"Content-Length: 5\r\n" + one + b"\r\n\r\nhello"
    for one in SIZES:
        yield f"chunk {one!r}", post + b"Transfer-Encoding: chunked\r\n\r\n" + one
    for one in HEADS:
        yield f"head {one!r}", one


def test_nothing_ambiguous_is_served_and_nothing_follows_it(server):
    """The first answer refuses, the connection ends, and the request behind it is never read as one."""
    asked, wrong = 0, []
    for name, data in ambiguous():
        got, ended = say(server, data + SMUGGLED)
        asked += 1
        # a body that was refused by its route alone (401) ends the connection as well: nothing is read behind it
        if len(got) != 1 or got[0][0] not in (400, 401, 505) or not ended or got[0][1].get("connection") != "close":
            wrong.append((name, [(a[0], a[1].get("connection")) for a in got], ended))
    assert not wrong, wrong
    assert metric(server, "http_server_request_duration_seconds_count", http_route="/smuggled") == 0
    assert asked > 100
    alive(server)


POST = b"POST /v1/embeddings?key=KEY HTTP/"  # whose body is read, and is no JSON
WHOLE = [
    # what is no lie is served, and so is what follows it
    (b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", [200, 404]),
    (b"\r\nGET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", [200, 404]),
    (POST + b"1.1\r\nTransfer-Encoding: CHUNKED\r\n\r\n" + CHUNKS, [400, 404]),
    (POST + b"1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", [400, 404]),
    (POST + b"1.1\r\nTransfer-Encoding: chunked\r\n\r\n000000000005\r\nhello\r\n0\r\n\r\n", [400, 404]),
    (POST + b"1.1\r\nContent-Length: 005\t\r\n\r\nhello", [400, 404]),
    # the target's host is the one that counts (RFC 9112 section 3.2.2), and nothing here depends on it
    (b"GET http://other/healthz HTTP/1.1\r\nHost: t\r\n\r\n", [200, 404]),
    # HTTP/1.0 ends unless it asks to go on
    (b"GET /healthz HTTP/1.0\r\n\r\n", [200]),
    (b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [200, 404]),
    (b"GET /healthz HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n", [200]),
    (POST + b"1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", [400, 404]),
    (b"GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", [200]),
    # another protocol is not begun
    (b"GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", [200, 404]),
]


@pytest.mark.parametrize("data,statuses", WHOLE)
def test_what_is_whole_is_served_in_its_order(server, data, statuses):
    if data.startswith(POST):
        data = data.replace(b"?key=KEY", b"").replace(b"\r\n", f"\r\nHost: t\r\nAuthorization: Bearer {server.app_key}\r\n".encode(), 1)
    got, _ = say(server, data + SMUGGLED)
    assert [a[0] for a in got] == statuses, got


# ---- clients that drip


def drip(server, n, first, piece, seconds=5):
    """n connections that send piece again and again, until the server has ended all of them; what it told each."""
    socks = {}
    for _ in range(n):
        s = connect(server)
        s.sendall(first)
        s.setblocking(False)
        socks[s] = b""
    told, end = [], time.monotonic() + seconds * SLOWER
    while socks and time.monotonic() < end:
        readable = set(select.select(list(socks), [], [], 0.05)[0])
        for s in list(socks):
            try:
                if s in readable:
                    data = s.recv(65536)
                    socks[s] += data
                    if not data:
                        raise ConnectionError
                else:
                    s.send(piece)
            except BlockingIOError:
                pass
            except OSError:
                told.append(socks.pop(s))
                s.close()
    for s in socks:
        s.close()
    assert not socks, f"{len(socks)} of {n} are still open"
    return told


@pytest.mark.parametrize("part,first,piece", [
    ("head", b"GET /v1/models HTTP/1.1\r\nHost: t\r\nX: ", b"x"),
    ("head", b"GET /v1/models HTTP/1.1\r\n", b"X: y\r\n"),
    ("body", b"POST /lathe/v1/projects HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer KEY\r\nContent-Length: 5000\r\n\r\n{", b" "),
    ("body", b"POST /v1/embeddings HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer KEY\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
])
def test_who_drips_is_told_and_ended(server, part, first, piece):
    first = first.replace(b"KEY", (server.key if b"/lathe/" in first else server.app_key).encode())
    slow = threading.Thread(target=lambda: out.extend(drip(server, 100, first, piece)))
    out = []
    slow.start()
    while slow.is_alive():
        alive(server)
        time.sleep(0.02)
    slow.join()
    assert len(out) == 100
    told = [a for raw in out if raw for a in answers(raw)]
    assert told and {a[0] for a in told} == {408}, {a[0] for a in told}
    assert all(f"the {part} of the request" in json.loads(a[2])["error"]["message"] for a in told)


def test_heads_without_end_are_cut(server):
    """What comes after the refusal is thrown away for some seconds, so that it can be read; then the connection is gone."""
    before, socks, least = rss_bytes(server.process.pid), [], 128 << 10
    for line in (b"X" * 8192, b"X: " + b"y" * 8000 + b"\r\n", b"X: y\r\n" * 1000):
        s = connect(server)
        s.sendall(b"GET /v1/models HTTP/1.1\r\nHost: t\r\n" + line * (least // len(line)))
        assert answers(s.recv(65536))[0][0] == 431
        socks.append((s, line))
    end = time.monotonic() + 20 * SLOWER
    for s, line in socks:
        with contextlib.closing(s), contextlib.suppress(ConnectionError, BrokenPipeError):
            while time.monotonic() < end:
                s.sendall(line)
                time.sleep(0.02)
    assert time.monotonic() < end
    alive(server)
    assert rss_bytes(server.process.pid) - before < 16 * MIB


def test_who_takes_answers_at_ten_bytes_a_second_is_cut(server):
    """Large answers, asked for a hundred times in advance: one after the other is made, and none for who does not take them."""
    before = rss_bytes(server.process.pid)
    slow = [connect(server, receive_buffer=4096) for _ in range(10)]
    for s in slow:
        s.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: t\r\n\r\n" * 100)
    ended, most = 0, 0

    def all_cut():
        nonlocal ended, most
        most = max(most, rss_bytes(server.process.pid) - before)
        for s in list(slow):
            try:
                if not s.recv(1, socket.MSG_DONTWAIT):
                    raise ConnectionError
            except BlockingIOError:
                pass
            except ConnectionError:
                slow.remove(s)
                ended += 1
        time.sleep(0.08)
        return True if not server_has(server, 10) else None
    wait_for("the end of those that do not take their answers", 10, all_cut)
    for s in slow:
        s.close()
    assert most < 48 * MIB, most
    alive(server)


def server_has(server, n):
    """Whether at least n connections besides our own are open."""
    return metric(server, "lathe_http_connections") >= n


def test_who_reads_a_stream_byte_by_byte_is_cut_and_settled(tmp_path):
    spec = importlib.util.spec_from_file_location("fault_conftest", TEST / "fault" / "conftest.py")
    fault = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fault)
    engines = FakeEngines(tmp_path)
    engines.set(tokens_per_chunk=5)
    s = fault.begin(tmp_path, engines.program, fault.small_model(tmp_path), {**fault.QUICK, "serve.write_timeout": "1s"})
    try:
        s.deploy("chat", model="smol", context=300000, slots=2)
        before = rss_bytes(s.process.pid)
        slow = chat(s, "chat", "slow", max_tokens=250000, ignore_eos=True, receive_buffer=4096)
        assert slow.head() and slow.status == 200
        most = 0

        def settled():
            nonlocal most
            most = max(most, rss_bytes(s.process.pid) - before)
            with contextlib.suppress(OSError):
                slow.sock.recv(1)
            s.folded()
            return s.rows("SELECT * FROM usage WHERE end_user = 'slow'") or None
        rows = wait_for("its end", 15, settled)
        assert [(r["outcome"], r["status"]) for r in rows] == [("cancelled", 499)]
        assert most < 24 * MIB, most
        assert chat(s, "chat", "quick", max_tokens=2000, ignore_eos=True).read().ok
        slow.close()
    finally:
        s.end()


# ---- clients that hold


def test_idle_connections_are_cheap_and_have_an_end():
    most = MANY or 400
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, most + 500)), hard))
    with running(serve__connections=most + 8, serve__head_timeout="1m") as server:
        alive(server)
        before, held = rss_bytes(server.process.pid), []
        for _ in range(most):
            s = connect(server)
            s.sendall(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")
            held.append(s)
        for s in held:
            assert s.recv(65536).startswith(b"HTTP/1.1 200 ")
        grown = rss_bytes(server.process.pid) - before
        print(f"{most} idle connections: {grown >> 10} KiB more, {grown // most} bytes each")
        assert grown < most * 8192 + 8 * MIB
        alive(server, within=0.5)
        wait_for("nobody else", 5, lambda: True if metric(server, "lathe_http_connections") <= most + 1 else None)
        while metric_free(server, most + 8, held):
            pass
        # all places are taken: who comes now is told so, and when to come again
        told = []
        for _ in range(20):
            got, ended = say(server, b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n" + SMUGGLED)
            told.append((len(got), got[0][0] if got else None, ended))
        assert told == [(1, 503, True)] * 20, told
        got, _ = say(server, b"GET /v1/models HTTP/1.1\r\nHost: t\r\n\r\n")
        assert "connections are in use" in json.loads(got[0][2])["error"]["message"] and got[0][1]["retry-after"] == "1"
        # a flood of them is not one of lines in the log
        lines, began = server.said().count('"status":"503"'), time.monotonic()
        for _ in range(300):
            assert say(server, b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")[0][0][0] == 503
        assert server.said().count('"status":"503"') - lines <= 20 * (time.monotonic() - began + 2)
        # those that are in go on
        for s in held[:50]:
            s.sendall(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")
            assert s.recv(65536).startswith(b"HTTP/1.1 200 ")
        for s in held:
            s.close()
        wait_for("a place", 5, lambda: True if say(server, b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")[0][0][0] == 200 else None)
        assert metric(server, "lathe_http_connections_refused_total") >= 21


def metric_free(server, most, held):
    """Takes a place; False when there is none left."""
    s = connect(server)
    s.sendall(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")
    if s.recv(65536).startswith(b"HTTP/1.1 200 "):
        held.append(s)
        assert len(held) <= most
        return True
    s.close()
    return False


# ---- bodies that would grow


def test_no_route_takes_a_coded_body(server):
    """Ten megabytes of nothing in ten kilobytes: every route that there is says that it decodes nothing, and reads none of it."""
    bomb, before, asked = gzip.compress(bytes(10 * MIB)), rss_bytes(server.process.pid), 0
    paths = server.call("GET", "/openapi.json").json["paths"]
    for path, methods in paths.items():
        for method in methods:
            if method not in ("post", "put", "patch"):
                continue
            target = re.sub(r"\{[^}]*\}", "x", path)
            for coding in ("gzip", "identity, deflate"):
                data = (f"{method.upper()} {target} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {server.key}\r\nContent-Type: application/json\r\n"
                        f"Connection: close\r\nContent-Encoding: {coding}\r\nContent-Length: {len(bomb)}\r\n\r\n").encode()
                got, _ = say(server, data + bomb)
                assert [a[0] for a in got] == [415], (method, target, got)
                assert got[0][1]["accept-encoding"] == "identity" and b"Content-Encoding " + coding.encode() in got[0][2]
                asked += 1
    assert asked > 40
    assert rss_bytes(server.process.pid) - before < 16 * MIB


# ---- keys that are guessed


def guess(server, n, source, statuses, retry):
    """n wrong keys over one connection, fifty at a time."""
    with contextlib.closing(connect(server, source)) as s:
        for first in range(0, n, 50):
            batch = range(first, min(n, first + 50))
            s.sendall(b"".join(b"GET /v1/models HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer lathe_%08d_guess\r\n\r\n" % i for i in batch))
            raw, got = b"", []
            while len(got) < len(batch):
                raw += s.recv(65536)
                try:
                    got = answers(raw)
                except AssertionError:
                    continue
                if raw and got and len(got[-1][2]) < int(got[-1][1]["content-length"]):
                    got = []
            for status, headers, _ in got:
                statuses[status] = statuses.get(status, 0) + 1
                if status == 429:
                    retry.append(int(headers["retry-after"]))


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def size_of(folder):
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file())


def test_wrong_keys_are_limited_and_cost_little():
    rounds = 30 if MANY else 2
    with running() as server:
        alive(server)
        established = connect(server)
        statuses, retry = {}, []
        rss, disk, cpu, began = rss_bytes(server.process.pid), size_of(server.data), cpu_seconds(server.process.pid), time.monotonic()
        for _ in range(rounds):
            threads = [threading.Thread(target=guess, args=(server, 2500, "127.0.0.1", statuses, retry)) for _ in range(4)]
            for t in threads:
                t.start()
            while any(t.is_alive() for t in threads):
                alive(server)  # a right key of the same address is never held up
                established.sendall(f"GET /v1/models HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {server.app_key}\r\n\r\n".encode())
                assert established.recv(65536).startswith(b"HTTP/1.1 200 ")
            for t in threads:
                t.join()
        took = time.monotonic() - began
        n = sum(statuses.values())
        cpu, rss, disk = cpu_seconds(server.process.pid) - cpu, rss_bytes(server.process.pid) - rss, size_of(server.data) - disk
        print(f"{n} wrong keys in {took:.1f} s ({n / took:.0f}/s): {statuses}, {1e6 * cpu / n:.0f} us of processor time each, "
              f"{rss >> 10} KiB of memory and {disk >> 10} KiB of disk more")
        assert n == rounds * 10000 and set(statuses) == {401, 429}
        assert 60 <= statuses[401] <= 60 + took + 2  # the burst, and one a second
        assert retry and 1 <= min(retry) <= max(retry) <= 2
        assert rss < 24 * MIB and disk < 8 * MIB
        # another address has its own count
        got, _ = say(server, b"GET /v1/models HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer x\r\n\r\n", source="127.0.0.2")
        assert got[0][0] == 401
        got, _ = say(server, b"GET /v1/models HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer x\r\n\r\n" * 30)
        assert got[-1][0] == 429 and json.loads(got[-1][2])["error"]["code"] == "too_many_wrong_keys"
        assert metric(server, "lathe_access_refused_total", reason="too_many_wrong_keys") >= n - statuses[401]
        established.close()

        # every one of them is in the chain, in a few rows
        def counted():
            rows = server.rows("SELECT change FROM system_audit_entries WHERE verb = 'denied'")
            return rows if sum(json.loads(r["change"])["count"] for r in rows) == n + 31 else None
        rows = wait_for("the denials", 70 if MANY else 15, counted)
        assert len(rows) <= 8, rows
