#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One run that llama-server and the fake engine pass alike: keys and types of every endpoint that
Lathe uses, framing of streams, arithmetic of usage, bodies of errors.

    conformance.py --kind fake  --launch build/fake-engine --load-ms 300
    conformance.py --kind llama --launch llama-server --model FILE.gguf
    conformance.py --kind llama --base http://127.0.0.1:8080

--launch takes a program and options of its own to the end of the line, and runs it on a unix socket
with the options below. A server given by --base has to run with those too.
"""
import argparse
import base64
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

SERVER_OPTIONS = ["--ctx-size", "1024", "--parallel", "2", "--alias", "conformance", "--threads", "2",
                  "--metrics", "--embeddings", "--pooling", "mean", "--no-ui", "--cache-ram", "0",
                  "--offline", "-fit", "off", "-no-kvu", "--sse-ping-interval", "1", "-lv", "3"]
START_S = 120


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Engine:
    """A server under test, and the completion tokens that it has told of so far."""

    def __init__(self, base, kind):
        self.base, self.kind, self.told = base, kind, 0
        self.lock = threading.Lock()

    def connection(self):
        if self.base.startswith("unix:"):
            return UnixConnection(self.base[len("unix:"):])
        return http.client.HTTPConnection(self.base[len("http://"):], timeout=120)

    def ask(self, path, body=None, method=None, headers=None):
        """(status, headers, body): parsed when it is JSON."""
        c = self.connection()
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        c.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        r = c.getresponse()
        text = r.read()
        c.close()
        if "json" in (r.getheader("Content-Type") or ""):
            text = json.loads(text)
        if isinstance(text, dict) and "choices" in text:
            self.tell(text["usage"])
        return r.status, r.headers, text

    def tell(self, usage):
        with self.lock:
            self.told += usage["completion_tokens"]

    def ok(self, path, body=None):
        status, _, answer = self.ask(path, body)
        same(status, 200, f"{path}: {answer}")
        return answer

    def stream(self, path, body):
        """The events of a stream, checked for framing, without [DONE]."""
        c = self.connection()
        c.request("POST", path, json.dumps(dict(body, stream=True)))
        r = c.getresponse()
        text = r.read().decode()
        c.close()
        same(r.status, 200, text)
        same(r.getheader("Content-Type").split(";")[0], "text/event-stream")
        same(r.getheader("Transfer-Encoding"), "chunked")
        same(r.getheader("Content-Length"), None)
        parts = text.split("\n\n")
        same(parts[-1].strip(), "", "what follows the last event")
        parts = [p for p in parts if p.strip() and not p.startswith(":")]
        for p in parts:
            true(p.startswith("data: ") and "\n" not in p, f"an event is one data line: {p!r}")
        same(parts[-1], "data: [DONE]")
        if len(body.get("prompt", "")) > 1 and isinstance(body["prompt"], list):
            same(parts.pop(0), "data: null", "how several prompts begin")
        events = [json.loads(p[len("data: "):]) for p in parts[:-1]]
        for e in events:
            if "usage" in e:
                self.tell(e["usage"])
        return events


# ---- checks

def true(condition, what):
    if not condition:
        raise AssertionError(what)


def same(got, want, what=""):
    true(got == want, f"{what + ': ' if what else ''}{got!r}, not {want!r}")


class Maybe:
    def __init__(self, shape):
        self.shape = shape


class Null:
    pass


def shape(value, want, where="answer"):
    """Every key, and no other; Maybe(x): may be missing; [x]: a list of x, maybe empty."""
    if isinstance(want, Maybe):
        want = want.shape
    if isinstance(want, dict):
        true(isinstance(value, dict), f"{where} is {value!r}, no object")
        same(sorted(set(value) - set(want)), [], f"{where}: keys that should not be there")
        for key, inner in want.items():
            if key in value:
                shape(value[key], inner, f"{where}.{key}")
            else:
                true(isinstance(inner, Maybe), f"{where} lacks {key}")
    elif isinstance(want, list):
        true(isinstance(value, list), f"{where} is {value!r}, no list")
        for i, item in enumerate(value):
            shape(item, want[0], f"{where}[{i}]")
    elif want is Null:
        same(value, None, where)
    elif want is float:
        true(isinstance(value, (int, float)) and not isinstance(value, bool), f"{where}: {value!r}")
    elif want is int:
        true(isinstance(value, int) and not isinstance(value, bool), f"{where}: {value!r}")
    else:
        true(isinstance(value, want), f"{where} is {value!r}, not {want}")


USAGE = {"completion_tokens": int, "prompt_tokens": int, "total_tokens": int,
         "prompt_tokens_details": {"cached_tokens": int}}
TIMINGS = {"cache_n": int, "prompt_n": int, "prompt_ms": float, "prompt_per_token_ms": float,
           "prompt_per_second": float, "predicted_n": int, "predicted_ms": float,
           "predicted_per_token_ms": float, "predicted_per_second": float}
COMMON = {"created": int, "id": str, "model": str, "system_fingerprint": str, "object": str}
CALL = {"type": str, "id": str, "function": {"name": str, "arguments": str}}
CHAT = dict(COMMON, usage=USAGE, timings=TIMINGS, choices=[
    {"finish_reason": str, "index": int,
     "message": {"role": str, "content": str, "tool_calls": Maybe([CALL])}}])
CHAT_EVENT = dict(COMMON, usage=Maybe(USAGE), timings=Maybe(TIMINGS), choices=[
    {"finish_reason": (str, type(None)), "index": int,
     "delta": {"role": Maybe(str), "content": Maybe((str, type(None))),
               "tool_calls": Maybe([{"index": int, "id": Maybe(str), "type": Maybe(str),
                                     "function": {"name": Maybe(str), "arguments": str}}])}}])
TEXT = dict(COMMON, usage=USAGE, timings=TIMINGS, choices=[
    {"text": str, "index": int, "logprobs": Null, "finish_reason": str}])
TEXT_EVENT = dict(COMMON, usage=Maybe(USAGE), timings=Maybe(TIMINGS), choices=[
    {"text": str, "index": int, "logprobs": Null, "finish_reason": (str, type(None))}])
ERROR = {"error": {"code": int, "message": str, "type": str}}
TOO_LONG = {"error": {"code": int, "message": str, "type": str, "n_prompt_tokens": int, "n_ctx": int}}

HI = [{"role": "user", "content": "Say hi."}]


def chat(**more):
    return dict({"messages": HI, "max_tokens": 8, "temperature": 0}, **more)


def text(**more):
    return dict({"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}, **more)


def sums(usage, timings):
    same(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"], "total_tokens")
    same(timings["predicted_n"], usage["completion_tokens"], "predicted_n")
    same(timings["cache_n"] + timings["prompt_n"], usage["prompt_tokens"], "cache_n + prompt_n")
    same(timings["cache_n"], usage["prompt_tokens_details"]["cached_tokens"], "cached_tokens")


def refused(e, path, body, status, kind, want=ERROR):
    got, _, answer = e.ask(path, body)
    same(got, status, f"{path} {str(body)[:80]}: {str(answer)[:200]}")
    shape(answer, want)
    same(answer["error"]["code"], status)
    same(answer["error"]["type"], kind, str(body)[:80])
    true(answer["error"]["message"], "the message is empty")
    return answer["error"]


def counted(e, content):
    return len(e.ok("/tokenize", {"content": content})["tokens"])


# ---- facts

def test_health(e):
    for path in ("/health", "/v1/health"):
        same(e.ok(path), {"status": "ok"})


def test_models(e):
    answer = e.ok("/v1/models")
    shape(answer, {"models": [dict], "object": str, "data": [
        {"id": str, "aliases": [str], "tags": list, "object": str, "created": int, "owned_by": str,
         "meta": {"vocab_type": int, "n_vocab": int, "n_ctx": int, "n_ctx_train": int, "n_embd": int,
                  "n_params": int, "size": int, "ftype": str}}]})
    same([m["id"] for m in answer["data"]], ["conformance"])
    same(answer["object"], "list")
    same(answer["data"][0]["object"], "model")
    same(answer["data"][0]["meta"]["n_ctx"], 512, "a slot's share of the context")


def test_props(e):
    caps = ("object_arguments", "parallel_tool_calls", "preserve_reasoning", "reasoning_effort",
            "string_content", "system_role", "tool_calls", "tools", "typed_content")
    answer = e.ok("/props")
    shape(answer, {
        "default_generation_settings": {"params": dict, "n_ctx": int}, "total_slots": int,
        "model_alias": str, "model_ftype": str, "model_path": str,
        "modalities": {"vision": bool, "video": bool, "audio": bool}, "media_marker": str,
        "endpoint_slots": bool, "endpoint_props": bool, "endpoint_metrics": bool, "ui": bool,
        "ui_settings": dict, "chat_template": str,
        "chat_template_caps": {"supports_" + c: bool for c in caps}, "bos_token": str,
        "eos_token": str, "build_info": str, "is_sleeping": bool, "cors_proxy_enabled": bool})
    same(answer["total_slots"], 2)
    same(answer["default_generation_settings"]["n_ctx"], 512)
    same(answer["model_alias"], "conformance")


def test_slots(e):
    idle = {"id": int, "n_ctx": int, "speculative": bool, "is_processing": bool,
            "id_task": Maybe(int), "n_prompt_tokens": Maybe(int),
            "n_prompt_tokens_processed": Maybe(int), "n_prompt_tokens_cache": Maybe(int),
            "params": Maybe(dict), "next_token": Maybe([
                {"has_next_token": bool, "has_new_line": bool, "n_remain": int, "n_decoded": int}])}
    answer = e.ok("/slots")
    shape(answer, [idle])
    same([s["id"] for s in answer], [0, 1])
    same([s["n_ctx"] for s in answer], [512, 512])
    same([s["is_processing"] for s in answer], [False, False])


def test_metrics(e):
    status, headers, body = e.ask("/metrics")
    same(status, 200)
    same(headers["Content-Type"].split(";")[0], "text/plain")
    got = {line.split()[2]: line.split()[3] for line in body.decode().splitlines()
           if line.startswith("# TYPE")}
    want = {"llamacpp:" + n: "counter" for n in (
        "prompt_tokens_total", "prompt_tokens_cached_total", "prompt_seconds_total",
        "tokens_predicted_total", "tokens_predicted_seconds_total", "n_decode_total",
        "n_tokens_max", "spec_decode_num_draft_tokens_total",
        "spec_decode_num_accepted_tokens_total", "spec_decode_num_drafts_total")}
    want.update({"llamacpp:" + n: "gauge" for n in (
        "prompt_tokens_seconds", "predicted_tokens_seconds", "requests_processing",
        "requests_deferred", "n_busy_slots_per_decode")})
    same(got, want)


def metric(e, name):
    body = e.ask("/metrics")[2].decode()
    return next(float(line.split()[1]) for line in body.splitlines()
                if line.startswith("llamacpp:" + name + " "))


def test_metrics_count_tokens(e):
    before = metric(e, "tokens_predicted_total")
    e.ok("/v1/completions", text(max_tokens=5, ignore_eos=True))
    same(metric(e, "tokens_predicted_total") - before, 5)


def test_tokenize(e):
    words = "Hello world, once more"
    ids = e.ok("/tokenize", {"content": words})
    shape(ids, {"tokens": [int]})
    pieces = e.ok("/tokenize", {"content": words, "with_pieces": True})
    shape(pieces, {"tokens": [{"id": int, "piece": str}]})
    same([p["id"] for p in pieces["tokens"]], ids["tokens"])
    same("".join(p["piece"] for p in pieces["tokens"]), words)
    same(e.ok("/tokenize", {}), {"tokens": []})
    refused(e, "/tokenize", {"content": 5}, 500, "server_error")


def test_apply_template(e):
    answer = e.ok("/apply-template", {"messages": HI})
    shape(answer, {"prompt": str})
    true("Say hi." in answer["prompt"], answer)
    refused(e, "/apply-template", {}, 400, "invalid_request_error")
    usage = e.ok("/v1/chat/completions", chat(max_tokens=1))["usage"]
    same(usage["prompt_tokens"], counted(e, answer["prompt"]), "a prompt is its template's tokens")
    same(e.ok("/v1/chat/completions/input_tokens", {"messages": HI}),
         {"input_tokens": usage["prompt_tokens"], "object": "response.input_tokens"})


# ---- answers

def test_chat(e):
    answer = e.ok("/v1/chat/completions", chat(ignore_eos=True))
    shape(answer, CHAT)
    same(answer["object"], "chat.completion")
    same(answer["model"], "conformance")
    choice = answer["choices"][0]
    same((choice["index"], choice["finish_reason"]), (0, "length"))
    same(choice["message"]["role"], "assistant")
    same(answer["usage"]["completion_tokens"], 8)
    sums(answer["usage"], answer["timings"])


def test_chat_stream(e):
    events = e.stream("/v1/chat/completions", chat(ignore_eos=True))
    shape(events, [CHAT_EVENT])
    same({v["object"] for v in events}, {"chat.completion.chunk"})
    same(len({v["id"] for v in events}), 1, "ids")
    same(events[0]["choices"][0]["delta"], {"role": "assistant", "content": None})
    same(["usage" in v for v in events].count(True), 0, "usage that was not asked for")
    same(events[-1]["choices"][0]["delta"], {})
    same([v["choices"][0]["finish_reason"] for v in events], [None] * (len(events) - 1) + ["length"])
    same(events[-1]["timings"]["predicted_n"], 8)


def contents(events):
    deltas = [v["choices"][0]["delta"] for v in events if v["choices"]]
    return [d["content"] for d in deltas if d.get("content")]


def test_chat_stream_usage(e):
    events = e.stream("/v1/chat/completions",
                      chat(ignore_eos=True, stream_options={"include_usage": True}))
    shape(events, [CHAT_EVENT])
    same(["usage" in v for v in events], [False] * (len(events) - 1) + [True])
    same(events[-1]["choices"], [])
    true("timings" not in events[-2], "timings come with usage")
    sums(events[-1]["usage"], events[-1]["timings"])
    same(len(contents(events)), events[-1]["usage"]["completion_tokens"], "an event a token")


def test_chat_stream_says_what_the_whole_answer_says(e):
    whole = e.ok("/v1/chat/completions", chat(ignore_eos=True))
    events = e.stream("/v1/chat/completions", chat(ignore_eos=True))
    same("".join(contents(events)), whole["choices"][0]["message"]["content"])


def test_chat_that_ends_by_itself_bills_its_end(e):
    questions = ("What is 1+1? Answer with a digit.", "Say yes.", "Hi", "Is water wet?", "Thank you!")
    for question in questions:  # a small model may go on and on
        events = e.stream("/v1/chat/completions",
                          chat(messages=[{"role": "user", "content": question}], max_tokens=200,
                               stream_options={"include_usage": True}))
        if events[-2]["choices"][0]["finish_reason"] == "stop":
            break
    same(events[-2]["choices"][0]["finish_reason"], "stop")
    same(events[-1]["usage"]["completion_tokens"], len(contents(events)) + 1)


def test_chat_choices(e):
    answer = e.ok("/v1/chat/completions", chat(n=2, ignore_eos=True))
    shape(answer, CHAT)
    same([c["index"] for c in answer["choices"]], [0, 1])
    same(answer["usage"]["completion_tokens"], 8, "usage counts one choice")
    events = e.stream("/v1/chat/completions", chat(n=2, max_tokens=3, ignore_eos=True))
    for i in (0, 1):
        mine = [v["choices"][0] for v in events if v["choices"][0]["index"] == i]
        same(mine[0]["delta"], {"role": "assistant", "content": None})
        same(mine[-1]["finish_reason"], "length")


def test_streams_tell_the_usage_of_each_choice(e):
    events = e.stream("/v1/chat/completions", chat(n=2, max_tokens=3, ignore_eos=True,
                                                   stream_options={"include_usage": True}))
    usage = [v["usage"] for v in events if "usage" in v]
    same([u["completion_tokens"] for u in usage], [3, 3])
    same([v["choices"] for v in events if "usage" in v], [[], []])
    events = e.stream("/v1/completions", text(prompt=["Once upon a time", "Two"], max_tokens=2,
                                              ignore_eos=True))
    usage = {v["choices"][0]["index"]: v["usage"] for v in events if "usage" in v}
    for i, prompt in enumerate(("Once upon a time", "Two")):
        same((usage[i]["prompt_tokens"], usage[i]["completion_tokens"]), (counted(e, prompt), 2))


def test_streams_count_as_they_go(e):
    events = e.stream("/v1/chat/completions", chat(ignore_eos=True, timings_per_token=True))
    shape(events, [CHAT_EVENT])
    told = [(bool(v["choices"][0]["delta"].get("content")), v["timings"]["predicted_n"])
            for v in events if "timings" in v]
    same([n for content, n in told if content], list(range(1, 9)))
    same(told[-1], (False, 8))
    true("timings" not in events[0], "the role comes without")
    events = e.stream("/v1/completions", text(ignore_eos=True, timings_per_token=True))
    shape(events, [TEXT_EVENT])
    same([v["timings"]["predicted_n"] for v in events], list(range(1, 9)) + [8])


def test_streams_tell_of_progress(e):
    events = e.stream("/v1/chat/completions", chat(ignore_eos=True, return_progress=True))
    progress = [v["prompt_progress"] for v in events if "prompt_progress" in v]
    shape(progress, [{"total": int, "cache": int, "processed": int, "time_ms": int}])
    same(progress[-1]["processed"], progress[-1]["total"])
    same([v["choices"][0]["delta"] for v in events[:len(progress) + 1]],
         [{"role": "assistant", "content": None}] * (len(progress) + 1))


def test_chat_content_parts(e):
    parts = [{"type": "text", "text": "hi"}, {"type": "text", "text": "there"}]
    shape(e.ok("/v1/chat/completions", chat(messages=[{"role": "user", "content": parts}])), CHAT)


def test_limits_of_tokens(e):
    for key in ("max_tokens", "max_completion_tokens"):
        body = {"messages": HI, "temperature": 0, "ignore_eos": True, key: 3}
        same(e.ok("/v1/chat/completions", body)["usage"]["completion_tokens"], 3, key)
    same(e.ok("/v1/completions", text(max_tokens=0))["usage"]["completion_tokens"], 1, "none is one")


def test_completion(e):
    answer = e.ok("/v1/completions", text(ignore_eos=True))
    shape(answer, TEXT)
    same(answer["object"], "text_completion")
    same(answer["choices"][0]["finish_reason"], "length")
    same(answer["usage"]["prompt_tokens"], counted(e, "Once upon a time"))
    same(answer["usage"]["completion_tokens"], 8)
    sums(answer["usage"], answer["timings"])


def test_completion_stream(e):
    events = e.stream("/v1/completions", text(ignore_eos=True))
    shape(events, [TEXT_EVENT])
    same(["usage" in v for v in events], [False] * (len(events) - 1) + [True])
    same(events[-1]["choices"][0]["text"], "")
    same(events[-1]["choices"][0]["finish_reason"], "length")
    sums(events[-1]["usage"], events[-1]["timings"])
    whole = e.ok("/v1/completions", text(ignore_eos=True))
    same("".join(v["choices"][0]["text"] for v in events), whole["choices"][0]["text"])


def test_completion_of_several_prompts(e):
    answer = e.ok("/v1/completions", text(prompt=["Once upon a time", "Two"], ignore_eos=True))
    shape(answer, TEXT)
    same([c["index"] for c in answer["choices"]], [0, 1])
    answer = e.ok("/v1/completions", text(prompt=[10, 11, 12], ignore_eos=True))
    same(answer["usage"]["prompt_tokens"], 3, "a prompt of tokens")


def test_stop_strings(e):
    whole = e.ok("/v1/completions", text(max_tokens=12, ignore_eos=True))["choices"][0]["text"]
    stop = whole[len(whole) // 2:][:3]
    for stops in (stop, ["never said", stop]):
        answer = e.ok("/v1/completions", text(max_tokens=12, ignore_eos=True, stop=stops))
        same(answer["choices"][0]["text"], whole[:whole.index(stop)])
        same(answer["choices"][0]["finish_reason"], "stop")
        true(0 < answer["usage"]["completion_tokens"] <= 12, answer["usage"])
    events = e.stream("/v1/completions", text(max_tokens=12, ignore_eos=True, stop=stop))
    same("".join(v["choices"][0]["text"] for v in events), whole[:whole.index(stop)])


def test_json_schema(e):
    schema = {"type": "object", "required": ["city", "sure"], "properties": {
        "city": {"type": "string", "maxLength": 10}, "sure": {"type": "boolean"}}}
    answer = e.ok("/v1/chat/completions", chat(max_tokens=120, response_format={
        "type": "json_schema", "json_schema": {"name": "x", "schema": schema}}))
    shape(answer, CHAT)
    shape(json.loads(answer["choices"][0]["message"]["content"]), {"city": str, "sure": bool})
    answer = e.ok("/v1/chat/completions",
                  chat(max_tokens=60, response_format={"type": "json_object"}))
    true(answer["choices"][0]["message"]["content"].startswith("{"), answer["choices"])


def tool_request():
    """Answers that came before show a small model what to do."""
    messages = []
    for city in ("Rome", "Oslo", "Bonn", "Lima"):
        call = {"id": "c" + city, "type": "function",
                "function": {"name": "look", "arguments": json.dumps({"city": city})}}
        messages += [{"role": "user", "content": city},
                     {"role": "assistant", "content": "", "tool_calls": [call]},
                     {"role": "tool", "tool_call_id": "c" + city, "content": "ok"}]
    parameters = {"type": "object", "required": ["city"],
                  "properties": {"city": {"type": "string", "maxLength": 12}}}
    return {"messages": messages + [{"role": "user", "content": "Paris"}], "max_tokens": 60,
            "temperature": 0, "tool_choice": "required", "tools": [
                {"type": "function", "function": {"name": "look", "description": "Looks it up.",
                                                  "parameters": parameters}}]}


def test_tools_are_accepted(e):
    body = tool_request()
    same(e.ok("/v1/chat/completions", dict(body, tool_choice="none", max_tokens=4))
         ["choices"][0]["message"].get("tool_calls"), None)
    refused(e, "/v1/chat/completions", dict(body, tool_choice="bogus"), 400, "invalid_request_error")
    refused(e, "/v1/chat/completions", dict(body, tools=5), 500, "server_error")


def test_tool_call(e):
    if not e.ok("/props")["chat_template_caps"]["supports_tool_calls"]:
        return "left out: the template of this model knows no tools (--chat-template-file)"
    answer = e.ok("/v1/chat/completions", tool_request())
    shape(answer, CHAT)
    choice = answer["choices"][0]
    same(choice["finish_reason"], "tool_calls")
    same(choice["message"]["content"], "")
    call = choice["message"]["tool_calls"][0]
    same((call["type"], call["function"]["name"]), ("function", "look"))
    shape(json.loads(call["function"]["arguments"]), {"city": str})
    sums(answer["usage"], answer["timings"])
    events = e.stream("/v1/chat/completions", tool_request())
    shape(events, [CHAT_EVENT])
    deltas = [d for v in events for d in v["choices"][0]["delta"].get("tool_calls", [])]
    same([("id" in d, d.get("type"), d["function"].get("name")) for d in deltas],
         [(True, "function", "look")] + [(False, None, None)] * (len(deltas) - 1))
    same("".join(d["function"]["arguments"] for d in deltas), call["function"]["arguments"])
    same(events[-1]["choices"][0]["finish_reason"], "tool_calls")


# ---- embeddings

def test_embeddings(e):
    want = {"model": str, "object": str, "usage": {"prompt_tokens": int, "total_tokens": int},
            "data": [{"embedding": [float], "index": int, "object": str}]}
    answer = e.ok("/v1/embeddings", {"input": ["hello", "two words"], "model": "any"})
    shape(answer, want)
    same(answer["model"], "any")
    same([d["index"] for d in answer["data"]], [0, 1])
    same(answer["usage"]["prompt_tokens"], counted(e, "hello") + counted(e, "two words"))
    same(answer["usage"]["total_tokens"], answer["usage"]["prompt_tokens"])
    for d in answer["data"]:
        true(abs(sum(x * x for x in d["embedding"]) - 1) < 1e-3, "the length of a vector is 1")
    one = e.ok("/v1/embeddings", {"input": "hello", "encoding_format": "base64"})
    raw = base64.b64decode(one["data"][0]["embedding"])
    vector = struct.unpack(f"<{len(raw) // 4}f", raw)
    same(len(vector), len(answer["data"][0]["embedding"]))
    true(all(abs(a - b) < 1e-2 for a, b in zip(vector, answer["data"][0]["embedding"])), "base64")
    same(e.ok("/v1/embeddings", {"input": [10, 11]})["usage"]["prompt_tokens"], 2)


def test_embeddings_refused(e):
    refused(e, "/v1/embeddings", {}, 400, "invalid_request_error")
    refused(e, "/v1/embeddings", {"input": ""}, 400, "invalid_request_error")
    refused(e, "/v1/embeddings", {"input": []}, 500, "server_error")
    refused(e, "/v1/embeddings", {"input": 5}, 500, "server_error")
    error = refused(e, "/v1/embeddings", {"input": " the" * 600}, 500, "server_error")
    true("600 tokens" in error["message"], error)


# ---- refusals

def test_a_prompt_over_the_context(e):
    long = " the" * 600
    for path, body in (("/v1/completions", text(prompt=long)),
                       ("/v1/completions", text(prompt=long, stream=True)),
                       ("/v1/chat/completions", chat(messages=[{"role": "user", "content": long}]))):
        error = refused(e, path, body, 400, "exceed_context_size_error", TOO_LONG)
        same(error["n_ctx"], 512)
        true(error["n_prompt_tokens"] >= 600, error)
        for count in (error["n_prompt_tokens"], 512):
            true(str(count) in error["message"], error)


def test_an_answer_ends_with_the_context(e):
    answer = e.ok("/v1/completions", text(prompt=" the" * 500, max_tokens=40, ignore_eos=True))
    same(answer["usage"]["total_tokens"], 512)
    same(answer["choices"][0]["finish_reason"], "length")


def test_bad_json(e):
    for body in ("{bad", "", "{", '{"messages":', b'{"messages":"\xff"}'):
        refused(e, "/v1/chat/completions", body, 500, "server_error")


def test_bad_requests(e):
    bad, broken, path = "invalid_request_error", "server_error", "/v1/chat/completions"
    user = {"role": "user", "content": "x"}
    for body, status, kind in (
            ({}, 400, bad), ([], 400, bad), ({"messages": "x"}, 400, bad),
            ({"messages": [{"role": "user"}]}, 400, bad), ({"messages": [5]}, 400, bad),
            ({"messages": [{"role": "user", "content": 5}]}, 400, bad),
            ({"messages": [{"content": "x"}]}, 500, broken),
            ({"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]},
             500, broken),
            ({"messages": [user], "max_tokens": "x"}, 400, bad),
            ({"messages": [user], "max_tokens": -5}, 400, bad),
            ({"messages": [user], "temperature": "x"}, 400, bad),
            ({"messages": [user], "stream": "yes"}, 400, bad),
            ({"messages": [user], "n": 0}, 400, bad), ({"messages": [user], "n": 3}, 400, bad),
            ({"messages": [user], "response_format": {"type": "xml"}}, 400, bad)):
        refused(e, path, body, status, kind)
    for body in ({}, {"prompt": 5}, {"prompt": []}):
        refused(e, "/v1/completions", body, 400, bad)


def test_unknown_paths(e):
    for method, path in (("GET", "/nothing"), ("POST", "/nothing"), ("GET", "/v1/chat/completions"),
                         ("DELETE", "/health")):
        status, _, answer = e.ask(path, method=method)
        same(status, 404, f"{method} {path}")
        shape(answer, ERROR)
        same(answer["error"]["type"], "not_found_error")


# ---- connections

def test_a_connection_serves_again(e):
    c = e.connection()
    for _ in range(3):
        c.request("POST", "/v1/completions", json.dumps(text(max_tokens=1)))
        r = c.getresponse()
        answer = json.loads(r.read())
        same(r.status, 200)
        e.tell(answer["usage"])
    c.close()


def processing(e):
    return sum(s["is_processing"] for s in e.ok("/slots"))


def wait(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        true(time.monotonic() < end, what)


def test_a_client_that_leaves_frees_its_slot(e):
    if e.kind == "fake":
        e.ok("/fake/options", {"token-ms": 20})
    c = e.connection()
    c.request("POST", "/v1/completions", json.dumps(
        text(prompt="a", max_tokens=480, ignore_eos=True, stream=True)))
    r = c.getresponse()
    for _ in range(5):
        r.readline()
    same(processing(e), 1)
    r.close()
    c.close()
    wait(lambda: processing(e) == 0, "the slot stays busy", seconds=5)
    if e.kind == "fake":
        e.ok("/fake/options", {"token-ms": 0})
        ledger = e.ok("/fake/ledger")
        true(0 < ledger["outcomes"]["disconnected"]["completion_tokens"] < 480, ledger)


def test_more_requests_than_slots(e):
    answers, failed = [], []

    def one():
        try:
            answers.append(e.ok("/v1/completions", text(max_tokens=16, ignore_eos=True)))
        except Exception as problem:  # a thread's failure is the test's
            failed.append(problem)
    threads = [threading.Thread(target=one) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    same(failed, [])
    same([a["usage"]["completion_tokens"] for a in answers], [16] * 6)


def test_ledger_agrees(e):
    if e.kind != "fake":
        return "left out: only the fake keeps a ledger"
    before = e.ok("/fake/ledger")
    same(before["active"], 0)
    same(before["told_tokens"] - before["outcomes"]["disconnected"]["told_tokens"], e.told)
    e.ask("/v1/completions", text(max_tokens=5, ignore_eos=True), headers={"X-Request-Id": "mine-7"})
    record = e.ok("/fake/requests/mine-7")[0]
    same((record["outcome"], record["finish_reason"], record["completion_tokens"]),
         ("finished", "length", 5))
    same(e.ok("/fake/ledger")["completion_tokens"], before["completion_tokens"] + 5)


# ---- the run

def wait_for_start(e, process, launched):
    """Until it is healthy; while it loads it says so."""
    loading, end = 0, time.monotonic() + START_S
    while True:
        true(process is None or process.poll() is None, "the server ended while it started")
        true(time.monotonic() < end, "the server does not start")
        try:
            status, _, answer = e.ask("/health")
        except OSError:
            continue
        if status == 200:
            break
        same(status, 503)
        shape(answer, ERROR)
        same(answer["error"], {"message": "Loading model", "type": "unavailable_error", "code": 503})
        loading += 1
    if launched:
        true(loading, "it never said that it was loading")


def run(e, only):
    passed = failed = 0
    tests = [(n, f) for n, f in globals().items() if n.startswith("test_") and (only or "") in n]
    for name, test in tests:
        try:
            note = test(e)
            passed += 1
            print(f"ok {name}" + (f" ({note})" if note else ""), flush=True)
        except Exception as problem:  # whatever it is, the others still run
            failed += 1
            print(f"FAIL {name}: {type(problem).__name__}: {problem}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed == 0 and passed > 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--kind", choices=("llama", "fake"), required=True)
    p.add_argument("--base", help="http://HOST:PORT or unix:PATH of a running server")
    p.add_argument("--only", help="tests whose name has this in it")
    p.add_argument("--launch", nargs=argparse.REMAINDER, help="a program and its own options")
    o = p.parse_args()
    if bool(o.base) == bool(o.launch):
        p.error("one of --base and --launch is needed")
    with tempfile.TemporaryDirectory() as folder:
        process = None
        base = o.base or "unix:" + os.path.join(folder, "engine.sock")
        log = os.path.join(folder, "log")
        if o.launch:
            with open(log, "wb") as out:
                process = subprocess.Popen(
                    o.launch + SERVER_OPTIONS + ["--host", base[len("unix:"):]],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            e = Engine(base, o.kind)
            wait_for_start(e, process, bool(o.launch))
            good = run(e, o.only)
            if process and good:
                process.send_signal(signal.SIGTERM)
                same(process.wait(30) in (0, -signal.SIGTERM), True, "its exit after SIGTERM")
        finally:
            if process and process.poll() is None:
                process.kill()
                process.wait()
            if process and process.returncode not in (0, -signal.SIGTERM, -signal.SIGKILL):
                with open(log, "rb") as text_of_log:
                    sys.stderr.buffer.write(text_of_log.read()[-2000:])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
