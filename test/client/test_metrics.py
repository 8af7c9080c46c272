# SPDX-License-Identifier: Apache-2.0
"""/metrics as Prometheus reads it: promtool finds nothing to say, and the figures are what the clients got."""

import json
import os
import re
import subprocess
import time

import openai
import pytest
from harness import SLOWER, Exchange, wait_for

LINE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Metrics:
    """One exposition. value(name, label=...): the sum of the samples that have these labels."""

    def __init__(self, text):
        self.text, self.samples = text, []
        for line in text.splitlines():
            if not line.startswith("#"):
                name, labels, value = LINE.match(line).groups()
                self.samples.append((name, dict(LABEL.findall(labels or "")), float(value)))

    def value(self, name, **labels):
        return sum(v for n, has, v in self.samples if n == name and labels.items() <= has.items())

    def of(self, name):
        return [(has, v) for n, has, v in self.samples if n == name]


def read(server):
    answer = server.call("GET", "/metrics")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return Metrics(answer.body.decode())


def since(server, before):
    """value(), of now less what it was."""
    now = read(server)
    return lambda name, **labels: now.value(name, **labels) - before.value(name, **labels)


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=server.app_key, max_retries=0, timeout=60 * SLOWER)


TOKENS, DURATION = "gen_ai_client_token_usage", "gen_ai_server_request_duration_seconds"


def test_figures_are_what_clients_got(client, server):
    before, started = read(server), time.monotonic()
    ask = {"model": "chat", "messages": [{"role": "user", "content": "Count to ten."}], "temperature": 0}
    used = [client.chat.completions.create(max_tokens=n, **ask).usage for n in (1, 5, 20)]
    for n in (3, 18):
        last = list(client.chat.completions.create(max_tokens=n, stream=True, stream_options={"include_usage": True}, **ask))[-1]
        used.append(last.usage)
    embedded = client.embeddings.create(model="embed", input="one two three").usage
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="chat", messages=[])
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**ask, "model": "no-such-model"})
    look = since(server, before)
    chat = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "chat", "gen_ai_provider_name": "lathe"}
    wait_for("the last request's figures", 10, lambda: since(server, before)(f"{DURATION}_count") >= 8 or None)
    look = since(server, before)
    assert look(f"{DURATION}_count", error_type="", **chat) == 5
    assert look(f"{DURATION}_count", gen_ai_operation_name="embeddings", error_type="") == 1
    assert look(f"{DURATION}_count", gen_ai_operation_name="chat") == 7          # with the two that were refused
    assert look(f"{TOKENS}_sum", gen_ai_token_type="input", **chat) == sum(u.prompt_tokens for u in used)
    assert look(f"{TOKENS}_sum", gen_ai_token_type="output", **chat) == sum(u.completion_tokens for u in used)
    for kind, counts in ("input", [u.prompt_tokens for u in used]), ("output", [u.completion_tokens for u in used]):
        for bound in (1, 4, 16, 64, 256, 16777216, 67108864):
            assert look(f"{TOKENS}_bucket", gen_ai_token_type=kind, le=str(bound), **chat) == sum(c <= bound for c in counts)
        assert look(f"{TOKENS}_bucket", gen_ai_token_type=kind, le="+Inf", **chat) == len(counts)
    assert look(f"{TOKENS}_sum", gen_ai_operation_name="embeddings", gen_ai_token_type="input") == embedded.prompt_tokens
    assert look("gen_ai_server_time_to_first_token_seconds_count", **chat) == 2  # streamed
    assert 0 < look(f"{DURATION}_sum", **chat) < time.monotonic() - started
    assert look("http_server_request_duration_seconds_count", http_route="/v1/chat/completions", http_response_status_code="200") == 5
    assert not [has for has, _ in read(server).of(f"{DURATION}_count") if has["gen_ai_request_model"] == "no-such-model"]


def test_promtool_has_nothing_to_say(client, server):
    client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "Hi"}], max_tokens=2)
    said = subprocess.run(["promtool", "check", "metrics"], input=read(server).text, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_process_and_machine(server):
    m, pid = read(server), server.process.pid
    status = open(f"/proc/{pid}/status").read()
    rss = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024
    assert abs(m.value("process_resident_memory_bytes") - rss) < 32 << 20
    assert abs(m.value("process_start_time_seconds") - os.stat(f"/proc/{pid}").st_mtime) < 600 and m.value("process_start_time_seconds") <= time.time()
    assert abs(m.value("process_open_fds") - len(os.listdir(f"/proc/{pid}/fd"))) <= 8
    assert m.value("process_threads") >= 4 and m.value("process_max_fds") >= 64
    disk = os.statvfs(server.data)
    assert m.value("system_filesystem_limit_bytes") == disk.f_blocks * disk.f_frsize
    assert abs(m.value("system_filesystem_usage_bytes", system_filesystem_state="free") - disk.f_bavail * disk.f_frsize) < 8 << 30
    assert m.value("system_memory_limit_bytes") > m.value("system_memory_available_bytes") > 0
    assert {has["cpu_mode"] for has, _ in m.of("system_cpu_time_seconds_total")} >= {"user", "system", "idle", "iowait", "steal"}
    cpu = m.value("process_cpu_seconds_total")
    wait_for("processor time", 20, lambda: read(server).value("process_cpu_seconds_total") > cpu or None)


def test_jobs_journal_and_database(server):
    before = read(server)
    upload = server.call("POST", "/lathe/v1/api_keys", {})       # a write that is refused, and one that is not:
    assert upload.status == 400
    account = server.call("GET", "/lathe/v1/service_accounts/app").json
    server.make("api_keys", name="metrics", service_account=account["id"])
    assert since(server, before)("lathe_db_transactions_total") >= 1
    # The import of the model ended in this server's life, so its kind has a duration.
    assert before.value("lathe_job_duration_seconds_count", kind="model.import", state="done") == 1
    assert before.value("lathe_jobs", kind="model.import") == 0 and before.of("lathe_jobs_waiting")
    assert before.value("lathe_journal_records_total") > 0 and before.value("lathe_journal_size_bytes") > 0
    assert before.value("lathe_journal_errors_total") == 0 and before.value("lathe_journal_full") == 0
    assert before.value("lathe_journal_syncs_total") > 0


def test_an_open_stream_is_an_active_request(server):
    body = {"model": "chat", "messages": [{"role": "user", "content": "Tell a long story."}], "max_tokens": 600, "stream": True}
    stream = Exchange(server, "/v1/chat/completions", body)
    assert stream.head() and stream.status == 200
    assert read(server).value("http_server_active_requests") >= 2      # the stream, and the scrape itself
    stream.close()
    wait_for("the stream's end", 20, lambda: read(server).value("http_server_active_requests") == 1 or None)


def test_the_metrics_of_a_stranger(server):
    assert server.call("GET", "/metrics", key="lathe_no").status == 401
    answer = server.call("GET", "/metrics", key=server.app_key)
    assert answer.status == 403 and json.loads(answer.body)["error"]["code"] == "permission_denied", answer.body
