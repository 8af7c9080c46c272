# SPDX-License-Identifier: Apache-2.0
"""Usage, however one asks: always there, equal to what the engine says when it is asked directly, and the same in the ledger."""

import base64
import json
import struct

import openai
import pytest

from harness import SLOWER, engine_call

FRANCE = [{"role": "user", "content": "Name the capital city of France."}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "schema": {
    "type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], "additionalProperties": False}}}
CHAT = [
    {}, {"max_tokens": 1}, {"max_completion_tokens": 5}, {"n": 2, "max_tokens": 5}, {"n": 4, "max_tokens": 3, "temperature": 1, "seed": 7},
    {"stop": "Paris", "max_tokens": 20}, {"stop": [" is", "Paris"], "max_tokens": 20}, {"logprobs": True, "top_logprobs": 2, "max_tokens": 5},
    {"n": 2, "logprobs": True, "max_tokens": 4}, {"tools": [TOOL], "max_tokens": 20}, {"tools": [TOOL], "tool_choice": "none", "max_tokens": 8},
    {"response_format": SCHEMA, "max_tokens": 30}, {"response_format": {"type": "json_object"}, "max_tokens": 30},
    {"response_format": {"type": "text"}, "max_tokens": 5}, {"presence_penalty": 0.5, "frequency_penalty": 0.5, "max_tokens": 8},
    {"logit_bias": {"504": -100}, "max_tokens": 5}, {"user": "someone", "max_tokens": 3},
]
TEXT = [
    {"prompt": "The capital of France is", "max_tokens": 5}, {"prompt": "The capital of France is", "max_tokens": 5, "n": 3},
    {"prompt": ["The capital of France is", "One, two,"], "max_tokens": 4}, {"prompt": ["The capital of France is", "One, two,"], "max_tokens": 4, "n": 2},
    {"prompt": [504, 3575, 282], "max_tokens": 4}, {"prompt": [[504, 3575], [28, 29, 30]], "max_tokens": 4},
    {"prompt": "One, two,", "stop": [" four"], "max_tokens": 12}, {"prompt": "One, two,", "logprobs": 2, "max_tokens": 4}, {"prompt": "", "max_tokens": 4},
]


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=server.app_key, max_retries=0, timeout=120 * SLOWER)


def replica(server, name):
    return server.deployment(name)["replicas_status"][0]


def direct(server, path, body):
    """What the engine itself says: written tokens of all choices, and each prompt once, whatever of it was cached."""
    events = engine_lines(replica(server, "chat"), path, {**body, "stream": True, "stream_options": {"include_usage": True}})
    prompts, written, n = {}, 0, body.get("n", 1)
    for e in events:
        if not e or not e.get("usage"):
            continue
        at = e["choices"][0]["index"] // n if e["choices"] else 0
        prompts[at] = e["usage"]["prompt_tokens"]
        written += e["usage"]["completion_tokens"]
    return sum(prompts.values()), written


def engine_lines(where, path, body):
    import contextlib
    from harness import UnixConnection
    with contextlib.closing(UnixConnection(where["address"].removeprefix("unix:"))) as c:
        c.timeout = 120 * SLOWER
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        text = c.getresponse().read().decode()
    return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ") and line != "data: [DONE]"]


def ledger_of(server, request_id):
    server.folded()
    row, = server.rows("SELECT * FROM usage WHERE request_id = ?", request_id)
    assert row["outcome"] == "ok" and row["tokens_exact"] == 1, row
    return row["prompt_tokens"], row["completion_tokens"]


def whole(create, body):
    raw = create.with_raw_response.create(**body)
    answer = raw.parse()
    u = answer.usage
    assert u.total_tokens == u.prompt_tokens + u.completion_tokens
    return raw.headers["x-request-id"], (u.prompt_tokens, u.completion_tokens), answer


def streamed(create, body, **more):
    with create.with_streaming_response.create(**body, stream=True, **more) as raw:
        chunks = list(raw.parse())
        return raw.headers["x-request-id"], chunks


def check(server, create, path, body, choices):
    wire = {**body, "model": "chat"}
    want = direct(server, path, body)
    request_id, got, answer = whole(create, wire)
    assert got == want == ledger_of(server, request_id), (got, want)
    assert sorted(c.index for c in answer.choices) == list(range(choices)) and all(c.finish_reason for c in answer.choices)

    request_id, chunks = streamed(create, wire, stream_options={"include_usage": True})
    told = [c.usage for c in chunks if c.usage]
    assert len(told) == 1 and chunks[-1].usage, told
    assert (told[0].prompt_tokens, told[0].completion_tokens) == want == ledger_of(server, request_id), (told, want)
    assert {c.choices[0].index for c in chunks if c.choices} == set(range(choices))
    assert len({c.id for c in chunks}) == 1

    request_id, chunks = streamed(create, wire)
    assert ledger_of(server, request_id) == want
    assert all(c.choices for c in chunks)


@pytest.mark.parametrize("body", CHAT, ids=lambda b: "-".join(b) or "plain")
def test_chat(server, client, body):
    body = {"messages": FRANCE, "temperature": 0, "seed": 1, **body}
    check(server, client.chat.completions, "/v1/chat/completions", body, body.get("n", 1))


@pytest.mark.parametrize("body", TEXT, ids=lambda b: "-".join(b))
def test_completion(server, client, body):
    body = {"temperature": 0, "seed": 1, **body}
    prompts = body["prompt"]
    several = len(prompts) if isinstance(prompts, list) and not isinstance(prompts[0], int) else 1
    check(server, client.completions, "/v1/completions", body, body.get("n", 1) * several)


def test_without_max_tokens_it_goes_on_to_the_end_of_the_context(server, client):
    request_id, got, answer = whole(client.completions, {"model": "chat", "prompt": "Once upon a time", "temperature": 0, "extra_body": {"ignore_eos": True}})
    assert answer.choices[0].finish_reason == "length" and sum(got) == 1024 and got == ledger_of(server, request_id)


def test_logprobs_are_whole(client):
    answer = client.chat.completions.create(model="chat", messages=FRANCE, temperature=0, max_tokens=6, logprobs=True, top_logprobs=2)
    content = answer.choices[0].logprobs.content
    assert "".join(t.token for t in content) == answer.choices[0].message.content
    assert len(content) == 6 and all(len(t.top_logprobs) == 2 and t.logprob <= 0 for t in content)


EMBED = [
    ("hello world", 1), (["hello world"], 1), (["hello world", "something else", "a third, longer text of more words"], 3),
    ([19556, 905], 1), ([[19556, 905], [28, 29, 30]], 2),
]


@pytest.mark.parametrize("given,n", EMBED)
def test_embeddings(server, client, given, n):
    want = engine_call(replica(server, "embed"), "POST", "/v1/embeddings", {"input": given})
    vectors = {}
    for form in ("float", "base64"):
        raw = client.embeddings.with_raw_response.create(model="embed", input=given, encoding_format=form)
        answer = json.loads(raw.text)
        assert answer["usage"] == {"prompt_tokens": want["usage"]["prompt_tokens"], "total_tokens": want["usage"]["total_tokens"]}
        assert ledger_of(server, raw.headers["x-request-id"]) == (want["usage"]["prompt_tokens"], 0)
        assert [d["index"] for d in answer["data"]] == list(range(n))
        vectors[form] = [d["embedding"] for d in answer["data"]]
    for a, b in zip(vectors["float"], vectors["base64"]):
        assert a == pytest.approx(list(struct.unpack(f"<{len(a)}f", base64.b64decode(b))), abs=1e-5)
    default = client.embeddings.create(model="embed", input=given)
    assert default.data[0].embedding == pytest.approx(vectors["float"][0], abs=1e-5)


def test_a_text_longer_than_the_context_is_not_cut(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="embed", input="word " * 900)
    assert caught.value.code == "context_length_exceeded" and "512" in caught.value.body["message"] and "90" in caught.value.body["message"]
