#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the fake engine promises beyond llama-server's protocol (README.md): times, faults, slots,
options by model, and a ledger that is exact whatever clients do.

    behaviour.py build/fake-engine [NAME]
"""
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True  # the tree stays as it is
from conformance import Engine, contents, metric, processing, same, true, wait


class Fake(Engine):
    def __init__(self, folder, process):
        super().__init__("unix:" + os.path.join(folder, "s"), "fake")
        self.process = process

    def text(self, stream=False, **more):
        """(status, body) of a completion; a cut connection raises IncompleteRead."""
        return self.ask("/v1/completions", dict({"prompt": "a", "stream": stream}, **more))[::2]

    def ledger(self):
        return self.ok("/fake/ledger")

    def outcome(self, name):
        return self.ledger()["outcomes"][name]


PROGRAM = ""


def listens(e):
    try:
        return bool(e.ask("/fake/options"))
    except OSError:
        return False


@contextlib.contextmanager
def fake(*options):
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([PROGRAM, "--host", os.path.join(folder, "s"), *options],
                                   stderr=subprocess.DEVNULL)
        e = Fake(folder, process)
        try:
            wait(lambda: listens(e), "nobody listens")
            yield e
        finally:
            process.kill()
            process.wait()


def test_a_longer_answer_begins_with_the_shorter():
    with fake("--tokens", "40") as e:
        short, long = (e.text(max_tokens=n)[1]["choices"][0]["text"] for n in (7, 40))
        true(long.startswith(short) and len(long) > len(short), (short, long))
        other = e.text(prompt="b", max_tokens=7)[1]["choices"][0]["text"]
        true(other != short, "words follow from the prompt")


def test_tokens_of_an_answer_are_those_of_its_text():
    with fake("--tokens", "100") as e:
        body = e.text()[1]
        same(body["usage"]["completion_tokens"], 101)
        answer = body["choices"][0]["text"]
        same(len(e.ok("/tokenize", {"content": answer})["tokens"]), 100)


def failures(seed):
    with fake("--fail-rate", "300000", "--seed", seed) as e:
        got = [e.text()[0] for _ in range(200)]
        same(e.outcome("failed")["requests"], got.count(500))
        same(e.outcome("finished")["requests"], got.count(200))
        same(e.outcome("failed")["completion_tokens"], 0)
        return got


def test_failures_come_at_their_rate_and_repeat_with_the_seed():
    first = failures("5")
    true(30 < first.count(500) < 90, first.count(500))
    same(failures("5"), first)
    true(failures("6") != first, "another seed, other failures")


def test_cut_answers_break_and_are_billed_to_the_token():
    with fake("--cut-rate", "1000000", "--tokens", "30", "--tokens-per-chunk", "100") as e:
        try:
            e.ask("/v1/completions", {"prompt": "b", "stream": True})
            true(False, "a stream in one event came whole")
        except http.client.IncompleteRead:
            same(e.outcome("cut")["requests"], 1)
    with fake("--cut-rate", "1000000", "--tokens", "30") as e:
        c = e.connection()
        c.request("POST", "/v1/completions", json.dumps({"prompt": "a", "stream": True}),
                  {"X-Request-Id": "cut-1"})
        try:
            c.getresponse().read()
            true(False, "the stream came whole")
        except http.client.IncompleteRead as problem:
            events = [json.loads(p[6:]) for p in problem.partial.decode().split("\n\n") if p.strip()]
        record = e.ok("/fake/requests/cut-1")[0]
        same((record["outcome"], record["completion_tokens"]), ("cut", len(events)))
        true(0 < len(events) < 31, events)
        try:
            e.text()
            true(False, "the answer came whole")
        except http.client.IncompleteRead as problem:
            true(problem.partial, "half of it comes")
        same(e.outcome("cut")["requests"], 2)


def test_times():
    with fake("--latency-ms", "80", "--token-ms", "10", "--tokens", "9") as e:
        for stream in (False, True):
            start = time.monotonic()
            same(e.text(stream=stream, max_tokens=9)[0], 200)
            true(time.monotonic() - start >= 0.160, "80 ms and 8 gaps of 10 ms")


def test_latencies_have_the_median_and_tail_that_were_asked_for():
    def latencies(seed):
        with fake("--latency-ms", "20", "--latency-p99-ms", "80", "--slots", "64", "--tokens", "1", "--seed", seed) as e:
            got = []
            threads = [in_background(lambda: got.extend(e.text()[1]["timings"]["prompt_ms"] for _ in range(25))) for _ in range(24)]
            for t in threads:
                t.join()
            return sorted(got)
    got = latencies("3")
    same(len(got), 600)
    true(17 <= got[300] <= 23, got[300])
    true(sum(ms > 80.5 for ms in got) <= 18, got[-20:])  # 6 are expected
    true(sum(ms > 60.5 for ms in got) >= 6, got[-20:])   # 20 are
    same(latencies("3"), got)  # which request gets which depends on their order, all of them together do not


def test_tokens_say_when_they_were_due_and_sent():
    with fake("--stamp", "1", "--token-ms", "5", "--token-jitter-ms", "4", "--tokens", "20") as e:
        before = time.monotonic_ns()
        events = e.stream("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]})
        stamps = [x["stamp"] for x in events if "stamp" in x]
        same(len(stamps), len(contents(events)))
        true(before < stamps[0][1] and stamps[-1][1] < time.monotonic_ns(), stamps)
        true(all(due <= sent for due, sent in stamps), stamps)
        gaps = [b[0] - a[0] for a, b in zip(stamps, stamps[1:])]
        true(all(3_000_000 <= gap <= 7_000_000 for gap in gaps) and len(set(gaps)) > 5, gaps)


def test_silence_gets_comments():
    with fake("--sse-ping-interval", "1", "--token-ms", "2500", "--tokens", "2") as e:
        c = e.connection()
        c.request("POST", "/v1/completions", json.dumps({"prompt": "a", "stream": True,
                                                         "max_tokens": 2}))
        parts = c.getresponse().read().decode().split("\n\n")
        same([p[:1] for p in parts], ["d", ":", ":", "d", "d", "d", ""])


def test_tokens_per_chunk():
    with fake("--tokens-per-chunk", "4", "--tokens", "10") as e:
        events = e.stream("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}],
                                                   "stream_options": {"include_usage": True}})
        same(len(contents(events)), 3)
        same(events[-1]["usage"]["completion_tokens"], 11)


def test_big_answers_cost_no_more():
    with fake("--big-bytes", "50000", "--tokens", "4") as e:
        body = e.text()[1]
        true(len(body["choices"][0]["text"]) > 50000, "the text is not big")
        same(body["usage"]["completion_tokens"], 5)


def test_options_by_model_and_while_it_runs():
    with fake("--alias", "any--tokens.3") as e:
        same(e.text()[1]["usage"]["completion_tokens"], 4)
        same(e.text(model="m--tokens.7--latency-ms.1")[1]["usage"]["completion_tokens"], 8)
        same(e.ok("/fake/options", {"tokens": 5})["tokens"], 5)
        same(e.text()[1]["usage"]["completion_tokens"], 6)
        same(e.ask("/fake/options", {"tokenz": 5})[0], 400)
        same(e.ok("/fake/options")["tokens"], 5)


def in_background(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_others_wait_for_a_slot():
    with fake("--slots", "1", "--metrics", "--token-ms", "20", "--tokens", "20") as e:
        threads = [in_background(e.text) for _ in range(3)]
        wait(lambda: metric(e, "requests_deferred") == 2, "two should wait")
        same(processing(e), 1)
        for t in threads:
            t.join()
        same(e.outcome("finished")["requests"], 3)
        same(metric(e, "requests_deferred"), 0)


def test_a_client_that_leaves_the_queue_costs_nothing():
    with fake("--slots", "1", "--token-ms", "20", "--tokens", "1000") as e:
        running = e.connection()
        running.request("POST", "/v1/completions", json.dumps({"prompt": "a"}))
        wait(lambda: processing(e) == 1, "one runs")
        waiting = e.connection()
        waiting.request("POST", "/v1/completions", json.dumps({"prompt": "a"}))
        wait(lambda: e.ledger()["active"] == 2, "one waits")
        waiting.close()
        wait(lambda: e.outcome("left_queue")["requests"] == 1, "it left")
        same(e.outcome("left_queue")["completion_tokens"], 0)
        running.close()
        wait(lambda: e.outcome("disconnected")["requests"] == 1, "it left as well")
        true(0 < e.outcome("disconnected")["completion_tokens"] < 1000, e.ledger())
        same(processing(e), 0)


def test_it_hangs_when_told():
    with fake("--hang-after", "1") as e:
        same(e.text()[0], 200)
        for path in ("/health", "/v1/models"):
            c = e.connection()
            c.timeout = 0.3
            c.request("GET", path)
            try:
                c.getresponse()
                true(False, path + " answers")
            except TimeoutError:
                pass
        same(e.ledger()["requests"], 1)


def test_it_exits_when_told():
    with fake("--exit-after", "1") as e:
        same(e.text()[0], 200)
        try:
            e.text()
            true(False, "it answers")
        except (http.client.HTTPException, ConnectionError):
            pass
        same(e.process.wait(10), 3)


def test_it_wants_its_key():
    with fake("--api-key", "secret") as e:
        status, _, body = e.ask("/v1/models")
        same((status, body["error"]["type"]), (401, "authentication_error"))
        same(e.ask("/v1/models", headers={"Authorization": "Bearer wrong"})[0], 401)
        same(e.ask("/v1/models", headers={"Authorization": "Bearer secret"})[0], 200)
        same(e.ask("/health")[0], 200)


def test_a_bad_command_line_ends_it():
    for options in (["--no-such-option"], ["--port", "x"], ["--model", "/nowhere/at/all"]):
        ended = subprocess.run([PROGRAM, "--port", "0", *options], stderr=subprocess.PIPE)
        same(ended.returncode, 1, str(options))
        true(ended.stderr, "it says why")


def test_it_takes_a_free_port_and_ends_well():
    with subprocess.Popen([PROGRAM, "--port", "0"], stderr=subprocess.PIPE, text=True) as p:
        line = p.stderr.readline()
        e = Engine(line.split()[-1], "fake")
        same(e.ok("/health"), {"status": "ok"})
        p.send_signal(signal.SIGTERM)
        same(p.wait(10), 0)


def test_the_ledger_is_exact_when_clients_leave():
    clients, read = 40, {}

    def client(e, i):
        c = e.connection()
        c.request("POST", "/v1/completions",
                  json.dumps({"prompt": f"p{i}", "stream": True, "max_tokens": 60}),
                  {"X-Request-Id": f"c{i}"})
        r = c.getresponse()
        leaves, seen = i % 2 and 5 + i, 0
        for line in r:
            if line.startswith(b"data: {") and b'"finish_reason":null' in line:
                seen += 1
                if leaves and seen >= leaves:
                    break
        r.close()
        c.close()
        read[i] = (seen, bool(leaves))

    with fake("--token-ms", "5", "--tokens", "200", "--slots", "40") as e:
        threads = [threading.Thread(target=client, args=(e, i)) for i in range(clients)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        wait(lambda: e.ledger()["active"] == 0, "some never end")
        total = 0
        for i, (seen, left) in read.items():
            record = e.ok(f"/fake/requests/c{i}")[0]
            total += record["completion_tokens"]
            same(record["outcome"], "disconnected" if left else "finished", f"client {i}")
            if left:
                true(seen <= record["completion_tokens"] < 60, (i, seen, record))
            else:
                same((record["completion_tokens"], seen), (60, 60))
        same(e.ledger()["completion_tokens"], total)
        same(e.ledger()["requests"], clients)


def main():
    global PROGRAM
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    PROGRAM = os.path.abspath(sys.argv[1])
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    passed = failed = 0
    for name, test in [(n, f) for n, f in globals().items() if n.startswith("test_") and only in n]:
        try:
            test()
            passed += 1
            print("ok", name, flush=True)
        except Exception as problem:  # whatever it is, the others still run
            failed += 1
            print(f"FAIL {name}: {type(problem).__name__}: {problem}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
