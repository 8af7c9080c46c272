# SPDX-License-Identifier: Apache-2.0
"""The stock `anthropic` and `ollama` clients against the real model, which speaks OpenAI's dialect: answers, streams, what is
refused, and that each is counted like a request of OpenAI's."""

import hashlib

import anthropic
import ollama
import openai
import pytest
from harness import SLOWER, wait_for
from upstream import Upstream, chunk, completion

FRANCE = [{"role": "user", "content": "Name the capital city of France."}]
COLD = {"temperature": 0}   # the client has no argument for it any more, the dialect has it


@pytest.fixture
def claude(server):
    return anthropic.Anthropic(base_url=server.url, api_key=server.app_key, max_retries=0, timeout=60 * SLOWER)


@pytest.fixture
def llama(server):
    return ollama.Client(host=server.url + "/ollama", headers={"Authorization": "Bearer " + server.app_key}, timeout=60 * SLOWER)


def usage_of(server, request_id):
    server.call("GET", "/lathe/v1/usage_totals")             # waits until everything so far is folded
    return server.call("GET", f"/lathe/v1/usage?request_id={request_id}").json["data"]


def last_usage(server):
    server.call("GET", "/lathe/v1/usage_totals")
    return server.call("GET", "/lathe/v1/usage?sort=-id&limit=1").json["data"][0]


def test_a_message(claude, server):
    raw = claude.messages.with_raw_response.create(model="chat", max_tokens=16, extra_body=COLD, messages=FRANCE)
    answer = raw.parse()
    assert "Paris" in answer.content[0].text and answer.role == "assistant" and answer.model == "chat"
    assert answer.stop_reason in ("end_turn", "max_tokens")
    row, = usage_of(server, raw.headers["x-request-id"])
    told = answer.usage.input_tokens + answer.usage.cache_read_input_tokens
    assert (row["prompt_tokens"], row["completion_tokens"]) == (told, answer.usage.output_tokens)
    assert row["outcome"] == "ok" and row["tokens_exact"] and not row["streamed"] and row["operation"] == "chat"


def test_both_dialects_are_given_the_same_answer(claude, llama, server):
    plain = openai.OpenAI(base_url=server.url + "/v1", api_key=server.app_key, max_retries=0)
    want = plain.chat.completions.create(model="chat", messages=FRANCE, max_tokens=12, temperature=0, seed=1).choices[0]
    message = claude.messages.create(model="chat", max_tokens=12, extra_body=COLD, messages=FRANCE)
    chat = llama.chat(model="chat", messages=FRANCE, options={"num_predict": 12, "temperature": 0, "seed": 1})
    assert message.content[0].text == chat.message.content == want.message.content
    assert (want.finish_reason, message.stop_reason, chat.done_reason) in (("stop", "end_turn", "stop"), ("length", "max_tokens", "length"))


def test_a_message_streamed(claude, server):
    with claude.messages.stream(model="chat", max_tokens=16, extra_body=COLD, messages=FRANCE) as stream:
        request_id = stream.response.headers["x-request-id"]
        seen = [event.type for event in stream]
        final, text = stream.get_final_message(), stream.get_final_text()
    assert "Paris" in text and final.stop_reason in ("end_turn", "max_tokens")
    assert seen[0] == "message_start" and seen[-1] == "message_stop" and seen.count("text") > 3
    row, = usage_of(server, request_id)
    assert row["streamed"] and row["completion_tokens"] == final.usage.output_tokens
    trace = server.call("GET", f"/lathe/v1/traces?request_id={request_id}").json["data"][0]
    assert trace["ttft_us"] > 0 and trace["completion_tokens"] == final.usage.output_tokens
    audit, = server.call("GET", f"/lathe/v1/inference_audits?request_id={request_id}").json["data"]
    assert len(audit["prompt_digest"]) == 64 and len(audit["answer_digest"]) == 64


def test_the_same_answer_has_the_same_digest_in_each_dialect(claude, server):
    plain = openai.OpenAI(base_url=server.url + "/v1", api_key=server.app_key, max_retries=0)
    one = plain.chat.completions.with_raw_response.create(model="chat", messages=FRANCE, max_tokens=8, temperature=0)
    two = claude.messages.with_raw_response.create(model="chat", max_tokens=8, extra_body=COLD, messages=FRANCE)
    assert one.parse().choices[0].message.content == two.parse().content[0].text
    digests = set()
    for raw in (one, two):
        usage_of(server, raw.headers["x-request-id"])
        digests.add(server.call("GET", f"/lathe/v1/inference_audits?request_id={raw.headers['x-request-id']}").json["data"][0]["answer_digest"])
    assert len(digests) == 1


def test_a_system_prompt_and_a_stop_sequence(claude):
    answer = claude.messages.create(model="chat", max_tokens=32, extra_body=COLD, system="You answer with one short sentence.",
                                    messages=FRANCE, stop_sequences=["Paris"])
    assert "Paris" not in answer.content[0].text


@pytest.mark.parametrize("change, error, says", [
    ({"model": "nothing"}, anthropic.NotFoundError, "nothing"),
    ({"max_tokens": "many"}, anthropic.BadRequestError, "max_tokens"),
    ({"extra_body": {"container": "a"}}, anthropic.BadRequestError, "container"),
])
def test_what_is_wrong_is_told_in_its_own_errors(claude, change, error, says):
    with pytest.raises(error) as told:
        claude.messages.create(**{"model": "chat", "max_tokens": 4, "messages": FRANCE, **change})
    body = told.value.body
    assert body["type"] == "error" and body["error"]["type"] and says in body["error"]["message"]
    assert body["request_id"].startswith("req_")


def test_a_wrong_key_is_told_too(server):
    stranger = anthropic.Anthropic(base_url=server.url, api_key="lathe_sk_wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError) as told:
        stranger.messages.create(model="chat", max_tokens=4, messages=FRANCE)
    assert told.value.body["type"] == "error" and told.value.body["error"]["type"] == "authentication_error"


TOOLS = [{"name": "weather", "description": "Of a city", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}},
                                                                         "required": ["city"]}}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def caller(server):
    """An engine that calls a tool, until it has the result; the model here is too small for that."""
    asked = []

    def post(call):
        asked.append(call.asked)
        if call.asked["messages"][-1]["role"] == "tool":
            return call.say(completion("Sunny.", prompt=9, tokens=2))
        function = {"name": "weather", "arguments": '{"city": "Paris"}'}
        if not call.asked.get("stream"):
            return call.say(completion({"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]},
                                       finish_reason="tool_calls"))
        parts = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}},
                 *({"index": 0, "function": {"arguments": part}} for part in ('{"ci', 'ty": "Pa', 'ris"}'))]
        return call.stream([*(chunk({"tool_calls": [part]}) for part in parts), chunk({}, "tool_calls"),
                            {**chunk({}), "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}])

    upstream = Upstream(post)
    server.deploy("caller", engine="openai", task="chat", endpoint={"url": upstream.url})
    yield asked
    server.remove("caller")
    upstream.close()


def digest_of(server, request_id):
    usage_of(server, request_id)
    audit, = server.call("GET", f"/lathe/v1/inference_audits?request_id={request_id}").json["data"]
    return audit["answer_digest"]


def test_what_was_called_is_recorded_too(claude, server, caller):
    ask = dict(model="caller", max_tokens=64, messages=WEATHER, tools=TOOLS)
    whole = claude.messages.with_raw_response.create(**ask)
    with claude.messages.stream(**ask) as stream:
        stream.get_final_message()
    want = hashlib.sha256(b'weather{"city": "Paris"}').hexdigest()
    assert [digest_of(server, r.headers["x-request-id"]) for r in (whole, stream.response)] == [want, want]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_call_and_its_result(claude, caller, streamed):
    ask = dict(model="caller", max_tokens=64, messages=WEATHER, tools=TOOLS, tool_choice={"type": "any"})
    if streamed:
        with claude.messages.stream(**ask) as stream:
            answer = stream.get_final_message()
        assert answer.usage.output_tokens == 7
    else:
        answer = claude.messages.create(**ask)
    call, = answer.content
    assert (call.type, call.id, call.name, call.input, answer.stop_reason) == ("tool_use", "call_1", "weather", {"city": "Paris"}, "tool_use")
    assert caller[-1]["tool_choice"] == "required"
    function = caller[-1]["tools"][0]["function"]
    assert (function["name"], function["description"], function["parameters"]) == ("weather", "Of a city", TOOLS[0]["input_schema"])
    after = claude.messages.create(model="caller", max_tokens=24, tools=TOOLS, messages=WEATHER + [
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Sunny, 21 degrees"}]}])
    assert (after.content[0].text, after.stop_reason, after.usage.output_tokens) == ("Sunny.", "end_turn", 2)
    made, result = caller[-1]["messages"][-2:]
    assert made["tool_calls"][0]["id"] == result["tool_call_id"] == "call_1" and result["content"] == "Sunny, 21 degrees"


def test_ollama_calls_a_tool(llama, caller):
    tool = {"type": "function", "function": {"name": "weather", "description": "Of a city", "parameters": TOOLS[0]["input_schema"]}}
    answer = llama.chat(model="caller", messages=WEATHER, tools=[tool])
    call, = answer.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "Paris"})
    parts = list(llama.chat(model="caller", messages=WEATHER, tools=[tool], stream=True))
    call, = [c for p in parts for c in p.message.tool_calls or []]
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "Paris"})
    after = llama.chat(model="caller", tools=[tool], messages=WEATHER + [answer.message, {"role": "tool", "tool_name": "weather", "content": "Sunny"}])
    assert after.message.content == "Sunny."


def test_ollama_chat(llama, server):
    answer = llama.chat(model="chat", messages=FRANCE, options={"num_predict": 16, "temperature": 0})
    assert "Paris" in answer.message.content and answer.done and answer.prompt_eval_count > 0
    row = last_usage(server)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (answer.prompt_eval_count, answer.eval_count)


def test_ollama_chat_streamed(llama, server):
    parts = list(llama.chat(model="chat", messages=FRANCE, stream=True, options={"num_predict": 16, "temperature": 0}))
    assert "Paris" in "".join(p.message.content for p in parts) and len(parts) > 3
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True]
    row = last_usage(server)
    assert row["streamed"] and row["completion_tokens"] == parts[-1].eval_count


def test_ollama_generate(llama):
    answer = llama.generate(model="chat", prompt="Name the capital city of France.", options={"num_predict": 16, "temperature": 0})
    assert "Paris" in answer.response and answer.done
    parts = list(llama.generate(model="chat", prompt="Name the capital city of France.", stream=True, options={"num_predict": 16, "temperature": 0}))
    assert "".join(p.response for p in parts) == answer.response


def test_ollama_names_models_and_refuses_what_it_has_not(llama):
    assert {m.model for m in llama.list().models} >= {"chat", "embed"}
    with pytest.raises(ollama.ResponseError) as told:
        llama.chat(model="nothing", messages=FRANCE)
    assert told.value.status_code == 404 and "nothing" in told.value.error


def test_a_client_that_leaves_pays_what_was_made(claude, server):
    """The engine tells its counts as it goes: the prompt is paid as it is, not as it might have been."""
    story = [{"role": "user", "content": "Tell me a very long story about a king, his three daughters and a dragon. " * 4}]
    plain = openai.OpenAI(base_url=server.url + "/v1", api_key=server.app_key, max_retries=0)
    prompt = plain.chat.completions.create(model="chat", messages=story, max_tokens=1).usage.prompt_tokens
    with claude.messages.create(model="chat", max_tokens=700, extra_body=COLD, messages=story, stream=True) as stream:
        request_id = stream.response.headers["x-request-id"]
        for event in stream:
            if event.type == "content_block_delta":
                break
    row, = wait_for("its row", 20, lambda: usage_of(server, request_id) or None)
    assert (row["outcome"], row["tokens_exact"], row["prompt_tokens"]) == ("cancelled", False, prompt), row
    assert 1 <= row["completion_tokens"] < 700


def test_a_request_has_the_id_that_its_clients_look_for(claude, server):
    answer = claude.messages.create(model="chat", max_tokens=2, messages=FRANCE)
    assert answer._request_id and usage_of(server, answer._request_id)
    with claude.messages.stream(model="chat", max_tokens=2, messages=FRANCE) as stream:
        assert stream.request_id == stream.response.headers["x-request-id"]
    with pytest.raises(anthropic.NotFoundError) as told:
        claude.messages.create(model="nothing", max_tokens=4, messages=FRANCE)
    assert told.value.request_id == told.value.body["request_id"]


def test_what_is_still_tried_out(claude):
    answer = claude.beta.messages.create(model="chat", max_tokens=4, messages=FRANCE, betas=["interleaved-thinking-2025-05-14"])
    assert answer.content[0].text


def test_ollama_looks_around(llama, server):
    assert llama.show("chat").capabilities[0] == "completion" and llama.show("embed").capabilities == ["embedding"]
    assert llama.show("chat:latest").modelinfo["general.context_length"] == 1024
    assert {"chat", "embed"} <= {m.model for m in llama.ps().models} <= {m.model for m in llama.list().models}
    answer = llama.chat(model="chat:latest", messages=FRANCE, options={"num_predict": 16, "temperature": 0})
    assert "Paris" in answer.message.content and answer.model == "chat:latest"
    for name in ("chat:other", "nobody"):
        with pytest.raises(ollama.ResponseError) as told:
            llama.show(name)
        assert told.value.status_code == 404
    version = server.call("GET", "/ollama/api/version", key=server.app_key)
    assert version.status == 200 and version.json["version"].count(".") == 2
    for method, path in (("GET", "version"), ("GET", "ps"), ("POST", "show")):
        assert server.call(method, "/ollama/api/" + path, {"model": "chat"} if method == "POST" else None, key="lathe_x").status == 401
    for body, status in (({}, 400), ({"model": 5}, 400), ([], 400), ({"model": "x" * 70000}, 413)):
        assert server.call("POST", "/ollama/api/show", body, key=server.app_key).status == status
