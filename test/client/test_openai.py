# SPDX-License-Identifier: Apache-2.0
"""The stock `openai` client against the real model: answers, streams, and the typed exception of each error."""

import openai
import pytest
from harness import SLOWER

FRANCE = [{"role": "user", "content": "Name the capital city of France."}]


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=server.app_key, max_retries=0, timeout=60 * SLOWER)


def usage_of(server, request_id):
    server.call("GET", "/lathe/v1/usage_totals")             # waits until everything so far is folded
    return server.call("GET", f"/lathe/v1/usage?request_id={request_id}").json["data"]


def test_chat(client, server):
    raw = client.chat.completions.with_raw_response.create(model="chat", messages=FRANCE, max_tokens=16, temperature=0)
    answer = raw.parse()
    assert "Paris" in answer.choices[0].message.content
    assert answer.model == "chat" and answer.choices[0].finish_reason == "stop"
    rows = usage_of(server, raw.headers["x-request-id"])
    assert len(rows) == 1
    assert (rows[0]["prompt_tokens"], rows[0]["completion_tokens"]) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert rows[0]["outcome"] == "ok" and rows[0]["tokens_exact"] and not rows[0]["streamed"]


def test_chat_streamed_with_usage(client, server):
    text, usage = "", None
    with client.chat.completions.with_streaming_response.create(
            model="chat", messages=FRANCE, max_tokens=16, temperature=0, stream=True, stream_options={"include_usage": True}) as raw:
        request_id = raw.headers["x-request-id"]
        for chunk in raw.parse():
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            usage = chunk.usage or usage
    assert "Paris" in text and usage.completion_tokens > 3
    rows = usage_of(server, request_id)
    assert [(r["prompt_tokens"], r["completion_tokens"], r["streamed"]) for r in rows] == [(usage.prompt_tokens, usage.completion_tokens, True)]
    trace = server.call("GET", f"/lathe/v1/traces?request_id={request_id}").json["data"][0]
    assert trace["ttft_us"] > 0 and trace["total_us"] >= trace["ttft_us"] and trace["completion_tokens"] == usage.completion_tokens
    audit = server.call("GET", f"/lathe/v1/inference_audits?request_id={request_id}").json["data"]
    assert len(audit) == 1 and len(audit[0]["prompt_digest"]) == 64 and len(audit[0]["model_digest"]) == 64


def test_a_stream_that_did_not_ask_for_usage_gets_none_but_is_counted(client, server):
    with client.chat.completions.with_streaming_response.create(model="chat", messages=FRANCE, max_tokens=8, stream=True) as raw:
        request_id = raw.headers["x-request-id"]
        chunks = list(raw.parse())
    assert all(c.choices and c.usage is None for c in chunks)
    row = usage_of(server, request_id)[0]
    assert row["tokens_exact"] and 0 < row["completion_tokens"] <= 8


def test_completions(client):
    answer = client.completions.create(model="chat", prompt="The capital of France is", max_tokens=6, temperature=0)
    assert answer.choices[0].text and answer.usage.completion_tokens <= 6
    parts = list(client.completions.create(model="chat", prompt="One, two, three,", max_tokens=6, stream=True))
    assert "".join(p.choices[0].text for p in parts if p.choices)


def test_embeddings(client):
    answer = client.embeddings.create(model="embed", input=["hello world", "something else"])
    assert [d.index for d in answer.data] == [0, 1]
    assert len(answer.data[0].embedding) == 576 and answer.usage.prompt_tokens > 0


def test_models(client):
    assert {m.id for m in client.models.list().data} >= {"chat", "embed"}
    assert client.models.retrieve("chat").id == "chat"


def test_json_schema_is_passed_through(client):
    schema = {"name": "person", "schema": {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"],
                                           "additionalProperties": False}}
    answer = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "Ann is 30. Give her age."}],
                                            max_tokens=40, temperature=0, response_format={"type": "json_schema", "json_schema": schema})
    assert '"age"' in answer.choices[0].message.content


def failure(kind, call):
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert error.request_id and error.body["message"], error
    return error


def test_errors_are_the_clients_own(client, server):
    ask = lambda c=client, **over: lambda: c.chat.completions.create(**{"model": "chat", "messages": FRANCE, "max_tokens": 4, **over})
    stranger = client.with_options(api_key="lathe_no")
    assert failure(openai.AuthenticationError, ask(stranger)).code == "key_unknown"
    assert failure(openai.NotFoundError, ask(model="nope")).param == "model"
    assert failure(openai.BadRequestError, ask(messages=[])).param == "messages"
    assert failure(openai.BadRequestError, ask(messages="hi")).param == "messages"
    assert failure(openai.BadRequestError, ask(max_tokens=-1)).param == "max_tokens"
    assert failure(openai.BadRequestError, ask(model="embed")).code == "model_task"
    assert failure(openai.BadRequestError, ask(temperature="hot")).status_code == 400
    weak = server.make("service_accounts", name="weak", roles=["viewer"])
    key = server.make("api_keys", name="weak", service_account=weak["id"])["key"]
    assert failure(openai.PermissionDeniedError, ask(client.with_options(api_key=key))).code == "permission_denied"


def test_a_prompt_longer_than_the_context_says_both_counts(client):
    long = [{"role": "user", "content": "word " * 3000}]
    error = failure(openai.BadRequestError, lambda: client.chat.completions.create(model="chat", messages=long, max_tokens=4))
    assert error.code == "context_length_exceeded" and "1024" in error.body["message"] and "30" in error.body["message"]
    error = failure(openai.BadRequestError,
                    lambda: list(client.chat.completions.create(model="chat", messages=long, max_tokens=4, stream=True)))
    assert error.code == "context_length_exceeded"


def test_a_rate_limit_is_a_rate_limit_error(client, server):
    account = server.call("GET", "/lathe/v1/service_accounts/app").json
    key = server.make("api_keys", name="slow", service_account=account["id"], limits={"requests_per_minute": 2})["key"]
    slow = client.with_options(api_key=key)
    for _ in range(2):
        slow.chat.completions.create(model="chat", messages=FRANCE, max_tokens=1)
    error = failure(openai.RateLimitError, lambda: slow.chat.completions.create(model="chat", messages=FRANCE, max_tokens=1))
    assert error.code == "limit_reached" and int(error.response.headers["retry-after"]) > 0
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_money_is_reserved_before_the_request(client, server):
    server.make("prices", name="smol", model="smol", input="1", output="1")
    account = server.call("GET", "/lathe/v1/service_accounts/app").json
    key = server.make("api_keys", name="poor", service_account=account["id"], limits={"money_per_day": "0.0005"})["key"]
    poor = client.with_options(api_key=key)
    poor.chat.completions.create(model="chat", messages=FRANCE, max_tokens=8)
    error = failure(openai.RateLimitError, lambda: poor.chat.completions.create(model="chat", messages=FRANCE, max_tokens=1000))
    assert "money_per_day" in error.body["message"]


def test_totals_by_project_and_of_the_organisation(server, client):
    for _ in range(3):
        client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "Hi"}], max_tokens=2)
    own = server.call("GET", "/lathe/v1/usage_totals?by=project").json["data"]
    assert len({t["project"] for t in own}) == 1 and sum(t["requests"] for t in own) >= 3  # a row for each currency
    all_of_it = server.call("GET", "/lathe/v1/org_usage_totals?by=project").json["data"]
    assert all(t in all_of_it for t in own)
    by_model = server.call("GET", "/lathe/v1/org_usage_totals?by=model").json["data"]
    assert sum(t["requests"] for t in by_model) == sum(t["requests"] for t in all_of_it)
    wrong = server.call("GET", "/lathe/v1/org_usage_totals?by=colour")
    assert wrong.status == 400 and b"colour" in wrong.body
    assert server.call("GET", "/lathe/v1/org_usage_totals", key=server.app_key).status == 403
