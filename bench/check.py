#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What lathe-load promises, against the fake engine: exact counts, latency from the intended time, failure at the first bad answer.

    check.py build/lathe-load build/fake-engine [NAME]
"""
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True  # the tree stays as it is
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "test" / "fake"))
import behaviour  # noqa: E402
from behaviour import fake  # noqa: E402
from conformance import same, true, wait  # noqa: E402

LOAD = ""
FOLDER = ""


def asked(**more):
    path = pathlib.Path(FOLDER) / "body.json"
    path.write_text(json.dumps({"model": "m", "messages": [{"role": "user", "content": "NNNNNNNNN rivers"}], **more}))
    return "--body", str(path)


STREAM = {"stream": True, "stream_options": {"include_usage": True}}


def run(mode, to, *words):
    """(status, result, what it said)"""
    r = subprocess.run([LOAD, mode, to, *words], capture_output=True, text=True, timeout=60, check=False)
    return r.returncode, json.loads(r.stdout) if r.stdout else None, r.stderr


def good(mode, e, *words):
    status, result, said = run(mode, e.base, *words)
    same((status, said), (0, ""))
    same(result["sent"], result["answered"])
    return result


def bad(mode, to, *words):
    status, result, said = run(mode, to, *words)
    same((status, result), (1, None), said)
    return said


def test_every_request_is_counted():
    with fake("--tokens", "4", "--slots", "16") as e:
        r = good("closed", e, *asked(), "--connections", "8", "--requests", "500", "--expect", '"completion_tokens":5')
        same((r["sent"], r["latency"]["n"], e.ledger()["requests"]), (500, 500, 500))
        same(sum(n for _, n in r["latency"]["counts"]), 500)
        r = good("open", e, *asked(), "--rate", "1000", "--seconds", "0.5", "--warm", "0.2")
        same((r["sent"], r["latency"]["n"], e.ledger()["requests"]), (500, 300, 1000))
        same(e.outcome("finished")["requests"], 1000)


def test_latency_counts_from_when_a_request_was_meant():
    with fake("--slots", "1", "--latency-ms", "20") as e:  # 50 a second at most, asked for 100
        r = good("open", e, *asked(), "--rate", "100", "--seconds", "0.6", "--connections", "1")
        same(r["sent"], 60)
        true(r["latency"]["most_ns"] >= (60 * 20 - 590) * 1e6, r["latency"]["most_ns"])  # the last: 60 answers, meant at 590 ms
        true(r["service"]["sum_ns"] <= r["elapsed_ns"], "one at a time")
        true(r["latency"]["p50_ns"] > 2 * r["service"]["p50_ns"], "a closed loop would have seen no wait")
        late = r["latency"]["sum_ns"] - r["service"]["sum_ns"] - r["lag"]["sum_ns"]
        true(abs(late) < 60 * 1000, "latency is lag and service")


def test_random_arrivals_repeat():
    with fake("--tokens", "1", "--slots", "64") as e:
        counts = [good("open", e, *asked(), "--rate", "400", "--seconds", "0.5", "--poisson", "--seed", s)["sent"] for s in "778"]
        same(counts[0], counts[1])
        true(120 < counts[0] < 280 and 120 < counts[2] < 280, counts)


def test_streams_are_timed_by_token():
    with fake("--slots", "8", "--stamp", "1", "--token-ms", "5", "--token-jitter-ms", "4", "--tokens", "20") as e:
        r = good("closed", e, *asked(**STREAM), "--connections", "4", "--requests", "8", "--stream", "--expect", '"completion_tokens":21')
        same((r["tokens"], r["stamped"], r["first_token"]["n"]), (160, 160, 8))
        same((r["gap"]["n"], r["added_gap"]["n"], r["way"]["n"], r["late"]["n"]), (152, 152, 160, 160))
        true(r["gap"]["p50_ns"] > 2e6, r["gap"]["p50_ns"])
        true(0 < r["way"]["least_ns"] and r["way"]["most_ns"] <= r["late"]["most_ns"], "sent after it was due")


def test_a_bad_answer_ends_the_run():
    every = ("--connections", "2", "--requests", "50")
    with fake("--fail-rate", "1000000") as e:
        true("status 500" in bad("closed", e.base, *asked(), *every), "says which")
        same(e.ledger()["active"], 0)
    with fake("--cut-rate", "1000000") as e:
        true("reset" in bad("closed", e.base, *asked(**STREAM), "--stream", *every), "says why")
    with fake() as e:
        true("not what was expected" in bad("closed", e.base, *asked(), "--expect", "no such", *every), "says why")
        true("[DONE]" in bad("closed", e.base, *asked(), "--stream", *every), "no stream")
        true("status 200" in bad("closed", e.base, *asked(), "--status", "201", *every), "says which")
    true("refused" in bad("open", "unix:" + FOLDER + "/nobody", *asked(), "--rate", "10", "--seconds", "1"), "says why")
    with fake("--hang-after", "0") as e:
        true("no answer for 200 ms" in bad("closed", e.base, *asked(), *every, "--seconds", "0.1", "--patience", "0.2"), "says so")


def test_big_bodies_arrive_whole():
    with fake("--tokens", "2", "--big-bytes", "300000", "--ctx-size", "100000000") as e:
        big = asked(prompt="", messages=[{"role": "user", "content": "a " * 500000}])
        r = good("closed", e, *big, "--connections", "2", "--requests", "6", "--expect", '"prompt_tokens":5000')
        true(r["bytes"] > 6 * 300000, r["bytes"])


def test_streams_are_held_until_the_end():
    with fake("--slots", "500", "--token-ms", "3600000") as e:
        with subprocess.Popen([LOAD, "hold", e.base, *asked(**STREAM), "--connections", "300"], stdout=subprocess.PIPE,
                              text=True) as p:
            same(p.stdout.readline(), '{"held":300}\n')
            same(e.ledger()["active"], 300)
            p.send_signal(signal.SIGTERM)
            same(p.wait(20), 0)
        wait(lambda: e.outcome("disconnected")["requests"] == 300, "they left")


def test_runs_add_up():
    with fake("--slots", "16", "--latency-ms", "1", "--jitter-ms", "5") as e:
        paths, results = [], []
        for i in range(3):
            results.append(good("closed", e, *asked(), "--connections", "8", "--requests", str(100 + i)))
            paths.append(os.path.join(FOLDER, f"{i}.json"))
            pathlib.Path(paths[-1]).write_text(json.dumps(results[-1]))
    _, whole, _ = run("merge", *paths)
    same((whole["sent"], whole["latency"]["n"]), (303, 303))
    same(whole["latency"]["sum_ns"], sum(r["latency"]["sum_ns"] for r in results))
    same(whole["latency"]["most_ns"], max(r["latency"]["most_ns"] for r in results))
    p50 = sorted(r["latency"]["p50_ns"] for r in results)
    true(p50[0] <= whole["latency"]["p50_ns"] <= p50[-1], "between its parts")
    pathlib.Path(paths[1]).write_text('{"sent":1}')
    same(run("merge", *paths)[0], 2)


def test_keys_and_numbers_take_turns():
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((body["messages"][0]["content"][:9], self.headers["Authorization"]))
            self.send_response(201)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    keys = pathlib.Path(FOLDER) / "keys"
    keys.write_text("a\nb\nc\n")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        to = f"127.0.0.1:{server.server_address[1]}"
        for more in ((), ("--fresh",)):
            seen.clear()
            status, _, said = run("closed", to, *asked(), "--keys", str(keys), "--connections", "1", "--requests", "7", "--first", "40",
                                  "--numbers", "5", "--status", "201", *more)
            same((status, said), (0, ""))
            same([n for n, _ in seen], [f"{i % 5:09d}" for i in range(40, 47)])
            same([k for _, k in seen], ["Bearer " + "abc"[i % 3] for i in range(40, 47)])
        server.shutdown()


def test_a_bad_command_line_is_refused():
    for words in ([], ["open"], ["open", "nowhere"], ["open", "127.0.0.1:1", "--seconds", "1"], ["closed", "127.0.0.1:1"],
                  ["closed", "127.0.0.1:1", "--connections", "-1"], ["open", "127.0.0.1:1", "--rate", "x"],
                  ["hold", "127.0.0.1:1", "--no-such", "1"], ["merge", "/nowhere/at/all"]):
        r = subprocess.run([LOAD, *words], capture_output=True, text=True, timeout=20, check=False)
        same(r.returncode, 2, str(words))
        true(r.stderr.startswith("lathe-load: "), r.stderr)


def main():
    global LOAD, FOLDER
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    LOAD, behaviour.PROGRAM = (os.path.abspath(p) for p in sys.argv[1:3])
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="lathe-load-") as FOLDER:
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
