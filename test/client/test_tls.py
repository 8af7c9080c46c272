# SPDX-License-Identifier: Apache-2.0
"""TLS with stock clients: curl, openssl, Python's ssl and `openai`; new certificates under live streams, client certificates,
and engines and imports over https."""

import contextlib
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time

import openai
import pytest
from harness import ROOT, SLOWER, Server, wait_for
from upstream import Upstream, chunk, completion

CONFIG = """[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical,CA:TRUE
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
subjectAltName = DNS:localhost,IP:127.0.0.1
[elsewhere]
basicConstraints = CA:FALSE
subjectAltName = DNS:elsewhere.example
"""


def run(*words, **more):
    return subprocess.run(words, capture_output=True, text=True, timeout=60 * SLOWER, check=False, **more)


class Authority:
    def __init__(self, folder, name="ca"):
        self.folder, self.name = folder, name
        (folder / "openssl.cnf").write_text(CONFIG)
        self._openssl("req", "-x509", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                      "-subj", f"/CN={name}", "-extensions", "ca", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        self.pem = str(folder / f"{name}.pem")

    def _openssl(self, *words):
        r = run("openssl", *words, "-config", "openssl.cnf", cwd=self.folder)
        assert r.returncode == 0, r.stderr

    def sign(self, name, kind="leaf"):
        """Writes NAME.pem and NAME.key; gives their paths."""
        self._openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                      "-keyout", f"{name}.key", "-out", f"{name}.csr")
        r = run("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", "-days", "2",
                "-CAcreateserial", "-extfile", "openssl.cnf", "-extensions", kind, "-out", f"{name}.pem", cwd=self.folder)
        assert r.returncode == 0, r.stderr
        (self.folder / f"{name}.key").chmod(0o600)
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    def trust(self):
        return ssl.create_default_context(cafile=self.pem)


@pytest.fixture(scope="module")
def top():
    with tempfile.TemporaryDirectory(prefix="lathe-tls-") as folder:
        yield pathlib.Path(folder)


@pytest.fixture(scope="module")
def ca(top):
    return Authority(top)


@contextlib.contextmanager
def serving(top, name, ca, *flags):
    """A server of its own with a TLS listener; its settings lie in a file, so that SIGHUP may change them."""
    s = Server(top / name)
    s.data.mkdir()
    s.cert, s.key_file = ca.sign(name)
    s.config = top / f"{name}.yaml"
    settings(s)
    s.start("--config", str(s.config), "--tls.listen", "127.0.0.1:0", "--tls.ca", ca.pem, *flags)
    s.tls = re.search(r"https://127.0.0.1:\d+", s.said())[0]
    s.port = int(s.tls.rsplit(":", 1)[1])
    try:
        yield s
    finally:
        assert s.stop() == 0, s.said()


def settings(s, **more):
    rows = {"cert": s.cert, "key": s.key_file, **more}
    s.config.write_text("tls:\n" + "".join(f"  {k}: {v}\n" for k, v in rows.items()))


@pytest.fixture(scope="module")
def server(top, ca):
    with serving(top, "main", ca) as s:
        yield s


def hup(s, said):
    """Reads the settings again and waits until the log says how that went."""
    before = len(s.said())
    s.process.send_signal(signal.SIGHUP)
    wait_for(said, 20, lambda: True if said in s.said()[before:] else None)


def metric(s, name):
    text = s.call("GET", "/metrics").body.decode()
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)[1])


def fingerprint(s, ca):
    with socket.create_connection(("127.0.0.1", s.port), 20 * SLOWER) as raw, ca.trust().wrap_socket(raw, server_hostname="localhost") as c:
        return c.getpeercert(True)


# ---- versions and trust


@pytest.mark.parametrize("version,good", [("tls1_1", False), ("tls1_2", True), ("tls1_3", True)])
def test_versions(server, ca, version, good):
    r = run("openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", f"-{version}", "-cipher", "ALL:@SECLEVEL=0", "-CAfile", ca.pem,
            "-verify_return_error", "-servername", "localhost", "-alpn", "h2,http/1.1", input="")
    assert ("ALPN protocol: http/1.1" in r.stdout) == good, r.stdout + r.stderr
    assert "Compression: NONE" in r.stdout


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256", "aNULL"])
def test_ciphers_without_forward_secrecy_or_aead_are_refused(server, cipher):
    r = run("openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0", input="")
    assert r.returncode != 0 and "Cipher is (NONE)" in r.stdout


def test_curl(server, ca):
    for option in ("--tlsv1.3", "--tls-max=1.2"):
        r = run("curl", "-sS", *option.split("="), "--cacert", ca.pem, f"{server.tls}/healthz", f"https://localhost:{server.port}/readyz")
        assert r.stdout == '{"status":"ok"}{"status":"ready"}', r.stderr
    assert run("curl", "-sS", f"{server.tls}/healthz").returncode == 60  # nobody whom the system trusts
    assert run("curl", "-sS", "--cacert", ca.pem, "--http1.0", f"{server.tls}/openapi.json").stdout.endswith("}")


def test_python_sees_every_end(server, ca):
    """Strictly: an end without close_notify would raise."""
    context = ca.trust()
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    with socket.create_connection(("127.0.0.1", server.port), 20 * SLOWER) as raw, context.wrap_socket(
            raw, server_hostname="localhost", suppress_ragged_eofs=False) as c:
        c.sendall(b"GET /openapi.json HTTP/1.0\r\n\r\n")
        text = b"".join(iter(lambda: c.recv(65536), b""))
    assert json.loads(text.split(b"\r\n\r\n", 1)[1])["openapi"].startswith("3.1")


def test_our_own_command_line(server, ca):
    env = {**server.env, "LATHE_URL": f"https://localhost:{server.port}", "LATHE_API_KEY": server.key}
    lathe = os.environ.get("LATHE", str(ROOT / "build" / "lathe"))
    r = run(lathe, "setting", "list", env={**env, "LATHE_CA": ca.pem})
    assert r.returncode == 0 and "tls.min_version" in r.stdout, r.stderr
    r = run(lathe, "setting", "list", env=env)
    assert r.returncode == 9 and "certificate_authority_unknown" in r.stderr


# ---- new certificates


def test_a_reload_drops_no_stream(server, ca):
    """Twenty open streams go on under the new certificate: each sees what happens after it."""
    streams = []
    for _ in range(20):
        raw = socket.create_connection(("127.0.0.1", server.port), 20 * SLOWER)
        c = ca.trust().wrap_socket(raw, server_hostname="localhost")
        c.sendall(f"GET /lathe/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n\r\n".encode())
        streams.append((c, c.recv(65536)))
    old = fingerprint(server, ca)
    server.cert, server.key_file = ca.sign("second")
    settings(server)
    hup(server, "new connections get the certificate")
    assert fingerprint(server, ca) != old
    server.make("models", name="after")
    for c, text in streams:
        end = time.monotonic() + 20 * SLOWER
        while b"model.created" not in text:
            more = c.recv(65536)
            assert more and time.monotonic() < end
            text += more
        assert text.startswith(b"HTTP/1.1 200 ")
        c.close()
    assert metric(server, 'lathe_tls_reloads_total{outcome="taken"}') == 1


def test_bad_files_change_nothing(server, ca, top):
    old = fingerprint(server, ca)
    good = server.cert, server.key_file
    other = ca.sign("third")
    for cert, key, why in ((other[0], good[1], "does not belong"), (str(top / "none.pem"), good[1], "none.pem"),
                           (good[1], good[1], "no start line")):
        server.cert, server.key_file = cert, key
        settings(server)
        hup(server, "were not taken")
        assert why in server.said().splitlines()[-1]
        assert fingerprint(server, ca) == old
    server.cert, server.key_file = good
    settings(server)
    hup(server, "new connections get")
    kinds = wait_for("the events", 20, lambda: (lambda k: k if k.count("tls.refused") >= 3 else None)(
        [r["kind"] for r in server.rows("SELECT kind FROM event")]))
    assert "tls.reloaded" in kinds
    # It ends within three weeks, and that is told from the start; metric and doctor know when.
    assert "tls.expires" in kinds and "the certificate ends soon" in server.said()
    assert metric(server, "lathe_tls_certificate_expiry_seconds") > 1.7e9


def test_a_start_with_a_bad_pair_says_why(top, ca):
    cert, _ = ca.sign("a")
    _, key = ca.sign("b")
    s = Server(top / "bad")
    s.data.mkdir()
    with pytest.raises(AssertionError, match="does not belong"):
        s.start("--tls.listen", "127.0.0.1:0", "--tls.cert", cert, "--tls.key", key)


def test_without_the_plain_listener(top, ca):
    with serving(top, "alone", ca, "--listen", "none") as s:
        assert s.url.startswith("https://")
        assert run("curl", "-sS", "--cacert", ca.pem, s.url + "/healthz").stdout == '{"status":"ok"}'
        r = run(os.environ.get("LATHE", str(ROOT / "build" / "lathe")), "organisation", "list", env={**s.env, "LATHE_CA": ca.pem})
        assert r.returncode == 0, r.stderr  # found by what it left on this machine


# ---- client certificates


def test_client_certificates(top, ca):
    stranger = Authority(top, "stranger")
    ops, evil = ca.sign("ops"), stranger.sign("evil")
    with serving(top, "strict", ca, "--tls.client_ca", ca.pem, "--tls.client_cert", "require") as s:
        def ask(*words):
            return run("curl", "-sS", "--cacert", ca.pem, *words, s.tls + "/healthz")
        assert ask("--cert", ops[0], "--key", ops[1]).stdout == '{"status":"ok"}'
        assert ask().returncode != 0
        assert ask("--cert", evil[0], "--key", evil[1]).returncode != 0
        assert s.call("GET", "/healthz").status == 200  # the plain listener is another matter
        assert metric(s, 'lathe_tls_handshakes_total{outcome="failed"}') >= 2


# ---- calls out


class Sealed(Upstream):
    """Speaks over https, and gives a model's file out."""

    def __init__(self, pair):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        super().__init__(tls=context)

    def get(self, call):
        if call.path == "/model.gguf":
            call.send(pathlib.Path(os.environ["SMOLLM2"]).read_bytes(), "application/octet-stream")
        else:
            super().get(call)

    def post(self, call):
        answer = completion("sealed", prompt=3)
        if call.asked.get("stream"):
            call.stream([chunk({"content": "sealed"}), chunk({}, "stop"), {**chunk({}), "choices": [], "usage": answer["usage"]}])
        else:
            call.say(answer)


@contextlib.contextmanager
def upstream(pair):
    u = Sealed(pair)
    try:
        yield u
    finally:
        u.close()


def test_an_attached_engine_over_https_both_ways(server, ca, top):
    with upstream(ca.sign("engine")) as u:
        server.deploy("sealed", engine="openai", task="chat", endpoint={"url": f"https://localhost:{u.port}/v1"})
        if not hasattr(server, "app_key"):
            server.use_app()
        client = openai.OpenAI(base_url=server.tls + "/v1", api_key=server.app_key, max_retries=0,
                               http_client=openai.DefaultHttpxClient(verify=ca.trust()))
        for _ in range(5):
            answer = client.chat.completions.create(model="sealed", messages=[{"role": "user", "content": "?"}])
            assert answer.choices[0].message.content == "sealed"
        stream = client.chat.completions.create(model="sealed", messages=[{"role": "user", "content": "?"}], stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "sealed"
        assert u.connections < 8  # they are kept
        server.remove("sealed")


@pytest.mark.parametrize("kind,by,why", [("elsewhere", "ca", "certificate_of_another_host"), ("leaf", "other", "certificate_authority_unknown")])
def test_an_engine_that_cannot_be_trusted_is_not_asked(server, ca, top, kind, by, why):
    signer = ca if by == "ca" else Authority(top, "other")
    with upstream(signer.sign(f"engine-{kind}-{by}", kind)) as u:
        server.make("deployments", name="false", engine="openai", task="chat", endpoint={"url": f"https://localhost:{u.port}/v1"})
        wait_for("the reason", 30, lambda: True if why in json.dumps(server.deployment("false")) else None)
        assert server.deployment("false")["state"] != "ready"
        server.remove("false")


def test_an_import_over_https(top, ca):
    with serving(top, "imports", ca, "--model.allow_private_urls", "true") as s, upstream(ca.sign("files")) as u:
        s.cli("model", "import", "m", "--url", f"https://localhost:{u.port}/model.gguf", "--wait")
        assert s.call("GET", "/lathe/v1/models/m").status == 200
