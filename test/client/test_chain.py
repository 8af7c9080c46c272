# SPDX-License-Identifier: Apache-2.0
"""A real server of each dialect as upstream: another Lathe, with the real model. Whatever a client speaks and whichever door of the other
one is asked, the answer, its figures and its end are what the other one itself says."""

import anthropic
import openai
import pytest

from harness import Server, wait_for
from makers import CLIENTS, Said

FRANCE = [{"role": "user", "content": "Name the capital city of France."}]
DOORS = {"openai.chat": "/v1", "anthropic": "", "ollama.chat": "/ollama"}


@pytest.fixture(scope="module")
def nearer(server, tmp_path_factory):
    """A Lathe whose engines are the doors of the one that has the model."""
    s = Server(tmp_path_factory.mktemp("nearer") / "data")
    s.data.mkdir()
    s.start()
    s.use_app()
    for name, path in DOORS.items():
        s.deploy(name, engine="openai", task="chat", endpoint={"url": server.url + path, "api_key": server.app_key, "dialect": name, "upstream_model": "chat"})
    yield s
    s.end()


def limits(client, tokens):
    if client == "ollama":
        return {"options": {"num_predict": tokens, "temperature": 0}}
    return {"max_tokens": tokens, **({"extra_body": {"temperature": 0}} if client == "anthropic" else {"temperature": 0})}


@pytest.fixture(scope="module")
def want(server):
    """What the model says, and how many tokens that is."""
    plain = openai.OpenAI(base_url=server.url + "/v1", api_key=server.app_key, max_retries=0)
    a = plain.chat.completions.create(model="chat", messages=FRANCE, max_tokens=12, temperature=0)
    assert "Paris" in a.choices[0].message.content
    return Said(a.choices[0].message.content, (), a.choices[0].finish_reason, a.usage.prompt_tokens, 0, a.usage.completion_tokens)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("client", CLIENTS)
def test_the_answer_is_the_models(nearer, server, want, client, door, stream):
    got = CLIENTS[client](nearer, nearer.app_key).ask(door, FRANCE, stream, **limits(client, 12))
    assert (got.text, got.calls, got.finish, got.prompt, got.tokens) == (want.text, (), want.finish, want.prompt, want.tokens)
    for s in (nearer, server):
        s.folded()
        row, = s.rows("SELECT * FROM usage ORDER BY id DESC LIMIT 1")
        assert (row["prompt_tokens"], row["completion_tokens"], row["tokens_exact"], row["outcome"]) == (want.prompt, want.tokens, 1, "ok")


@pytest.mark.parametrize("door", DOORS)
def test_a_client_that_leaves_ends_both(nearer, server, door):
    story = [{"role": "user", "content": "Tell me a very long story about a king, his three daughters and a dragon. " * 4}]
    claude = anthropic.Anthropic(base_url=nearer.url, api_key=nearer.app_key, max_retries=0)
    with claude.messages.create(model=door, max_tokens=700, messages=story, stream=True) as stream:
        for event in stream:
            if event.type == "content_block_delta":
                break
        request_id = stream.response.headers["x-request-id"]

    def cancelled(s, sql, *values):
        s.folded()
        row = next(iter(s.rows(sql, *values)), None)
        return row if row and row["outcome"] == "cancelled" else None

    row = wait_for("its row", 20, lambda: cancelled(nearer, "SELECT * FROM usage WHERE request_id = ?", request_id))
    wait_for("the other's", 20, lambda: cancelled(server, "SELECT * FROM usage ORDER BY id DESC LIMIT 1"))
    assert 1 <= row["completion_tokens"] < 700 and not row["tokens_exact"]


@pytest.mark.parametrize("door", DOORS)
def test_what_the_other_one_refuses(nearer, door):
    """A prompt that is longer than its context; a model that it has not is our deployment's fault."""
    plain = openai.OpenAI(base_url=nearer.url + "/v1", api_key=nearer.app_key, max_retries=0)
    with pytest.raises(openai.BadRequestError) as told:
        plain.chat.completions.create(model=door, messages=[{"role": "user", "content": "word " * 3000}])
    assert "1024" in told.value.message
    nearer.change(door, endpoint={"upstream_model": "nothing"})

    def failed():
        try:
            plain.chat.completions.create(model=door, messages=FRANCE, max_tokens=1)
        except openai.InternalServerError as e:
            return e
        return None     # the replica that knew it answers until the new one does

    why = wait_for("the failure", 20, failed)
    assert why.status_code == 502 and "nothing" in why.message
