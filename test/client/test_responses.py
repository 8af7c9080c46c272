# SPDX-License-Identifier: Apache-2.0
"""The stock `openai` client's responses: answered by the real model, kept, gone on from, listed and deleted; what an engine is
told of a conversation; who may read it; for how long it is kept; and that it outlives the server's death."""

import json

import openai
import pytest
from harness import SLOWER, Server, wait_for
from makers import MAKERS, Said
from upstream import Upstream, chunk, completion

FRANCE = "Name the capital city of France."


def client(server, key=None, project=None):
    return openai.OpenAI(base_url=server.url + (f"/p/{project}" if project else "") + "/v1", api_key=key or server.app_key,
                         max_retries=0, timeout=60 * SLOWER)


@pytest.fixture
def oai(server):
    return client(server)


class Listener(Upstream):
    """Answers with how many messages it was told, and remembers what it was asked."""

    def __init__(self):
        self.asked, self.calls = [], False
        super().__init__()

    def post(self, call):
        self.asked.append(call.asked)
        if self.calls and call.asked["messages"][-1]["role"] != "tool":
            function = {"name": "weather", "arguments": '{"city": "Paris"}'}
            return call.say(completion({"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]},
                                       finish_reason="tool_calls"))
        said = f"answer {len(call.asked['messages'])}"
        if not call.asked.get("stream"):
            return call.say(completion(said, prompt=len(call.asked["messages"]), tokens=2))
        return call.stream([chunk({"content": said[:6]}), chunk({"content": said[6:]}), chunk({}, "stop"),
                            {**chunk({}), "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}])

    @property
    def told(self):
        return [(m["role"], m["content"]) for m in self.asked[-1]["messages"]]


@pytest.fixture(scope="module")
def listener(server):
    upstream = Listener()
    server.deploy("listener", engine="openai", task="chat", endpoint={"url": upstream.url})
    yield upstream
    server.remove("listener")
    upstream.close()


def test_the_model_answers_and_remembers(oai, server):
    first = oai.responses.create(model="chat", input=FRANCE, max_output_tokens=24, temperature=0)
    assert "Paris" in first.output_text and first.id.startswith("resp_") and first.status in ("completed", "incomplete")
    assert first.store and first.usage.output_tokens > 0
    again = oai.responses.retrieve(first.id)
    assert again == first
    second = oai.responses.create(model="chat", input="Which city did you name?", previous_response_id=first.id,
                                  max_output_tokens=24, temperature=0)
    assert second.previous_response_id == first.id and "Paris" in second.output_text
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens


def test_a_stream_is_kept_as_it_was_told(oai, listener):
    with oai.responses.stream(model="listener", input="Hello") as stream:
        seen = [event.type for event in stream]
        final = stream.get_final_response()
    assert seen[0] == "response.created" and seen[-1] == "response.completed" and "response.output_text.delta" in seen
    assert final.output_text == "answer 1" and final.store and oai.responses.retrieve(final.id).output_text == "answer 1"
    assert oai.responses.retrieve(final.id).usage.output_tokens == 2


def test_what_an_engine_is_told_of_a_conversation(oai, listener):
    one = oai.responses.create(model="listener", instructions="Be brief.", input="One")
    assert listener.told == [("system", "Be brief."), ("user", "One")]
    two = oai.responses.create(model="listener", input=[{"role": "user", "content": "Two"}], previous_response_id=one.id)
    assert listener.told == [("user", "One"), ("assistant", "answer 2"), ("user", "Two")]   # instructions are not carried over
    with oai.responses.stream(model="listener", input="Three", previous_response_id=two.id) as stream:
        three = stream.get_final_response()
    assert listener.told[-2:] == [("assistant", "answer 3"), ("user", "Three")] and len(listener.told) == 5
    assert three.previous_response_id == two.id and three.output_text == "answer 5"
    other = oai.responses.create(model="listener", input="Two again", previous_response_id=one.id)   # two ways on from one
    assert listener.told == [("user", "One"), ("assistant", "answer 2"), ("user", "Two again")] and other.output_text == "answer 3"


def test_a_tool_is_called_and_answered_by_its_id_alone(oai, listener):
    tools = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]
    listener.calls = True
    try:
        asked = oai.responses.create(model="listener", input="Weather in Paris?", tools=tools)
        call, = asked.output
        assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Paris"})
        done = oai.responses.create(model="listener", previous_response_id=asked.id, tools=tools,
                                    input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}])
    finally:
        listener.calls = False
    user, said, result = listener.asked[-1]["messages"]
    assert (user["content"], said["tool_calls"][0]["id"], result["tool_call_id"], result["content"]) == (
        "Weather in Paris?", call.call_id, call.call_id, "sunny")
    assert done.output_text == "answer 3"


def test_what_was_asked_is_listed_page_by_page(oai, listener):
    said = [{"role": "user", "content": f"number {i}"} for i in range(5)]
    kept = oai.responses.create(model="listener", input=said)
    page = oai.responses.input_items.list(kept.id, limit=2, order="asc")
    assert [i.content[0].text for i in page.data] == ["number 0", "number 1"] and page.has_more
    assert [i.content[0].text for i in oai.responses.input_items.list(kept.id, limit=2, order="asc")] == [m["content"] for m in said]
    assert [i.content[0].text for i in oai.responses.input_items.list(kept.id)] == [m["content"] for m in reversed(said)]
    with pytest.raises(openai.BadRequestError, match="limit"):
        oai.responses.input_items.list(kept.id, limit=1000)


@pytest.mark.parametrize("dialect", ["openai.responses", "anthropic", "ollama.chat"])
def test_an_upstream_of_another_dialect_is_told_all_of_it(oai, server, dialect):
    maker, asked = MAKERS[dialect], []

    def post(call):
        asked.append(call.asked)
        call.say(maker.whole(Said("Sunny.")))

    upstream = Upstream(post)
    try:
        server.deploy("theirs", engine="openai", task="chat", endpoint={"url": upstream.url.removesuffix("/v1"), "dialect": dialect})
        one = oai.responses.create(model="theirs", input="One")
        two = oai.responses.create(model="theirs", input="Two", previous_response_id=one.id)
    finally:
        server.remove("theirs")
        upstream.close()
    said = json.dumps(asked[-1])
    assert all(word in said for word in ("One", "Sunny.", "Two")) and "resp_" not in said and not asked[-1].get("store")
    assert (two.output_text, two.previous_response_id, two.store) == ("Sunny.", one.id, True)


def test_what_is_deleted_or_was_not_to_be_kept_is_not_gone_on_from(oai, listener, server):
    one = oai.responses.create(model="listener", input="One")
    two = oai.responses.create(model="listener", input="Two", previous_response_id=one.id)
    oai.responses.delete(one.id)
    with pytest.raises(openai.NotFoundError):
        oai.responses.retrieve(one.id)
    with pytest.raises(openai.NotFoundError):
        oai.responses.delete(one.id)
    assert oai.responses.retrieve(two.id).output_text == "answer 3"
    asked = len(listener.asked)
    for gone, named in ((one.id, one.id), (two.id, one.id), ("resp_nothing", "resp_nothing")):
        with pytest.raises(openai.BadRequestError, match=named) as told:
            oai.responses.create(model="listener", input="Three", previous_response_id=gone)
        assert told.value.body["code"] == "previous_response_not_found" and told.value.body["param"] == "previous_response_id"
    assert len(listener.asked) == asked                     # no engine was asked
    unkept = oai.responses.create(model="listener", input="One", store=False)
    assert not unkept.store
    with pytest.raises(openai.NotFoundError):
        oai.responses.retrieve(unkept.id)
    assert not server.rows("SELECT 1 FROM response_content WHERE id = ?", one.id)


def test_a_conversation_is_its_askers_alone(oai, listener, server):
    kept = oai.responses.create(model="listener", input="A secret")
    server.make("service_accounts", name="stranger", roles=["application"])
    other = client(server, server.make("api_keys", name="stranger", service_account="stranger")["key"])
    for read in (lambda: other.responses.retrieve(kept.id), lambda: other.responses.delete(kept.id),
                 lambda: other.responses.input_items.list(kept.id)):
        with pytest.raises(openai.NotFoundError):
            read()
    with pytest.raises(openai.BadRequestError, match=kept.id):
        other.responses.create(model="listener", input="What was said?", previous_response_id=kept.id)
    row = server.call("GET", f"/lathe/v1/responses/{kept.id}").json
    assert row["model"] == "listener" and row["status"] == "completed" and "secret" not in json.dumps(row)
    shown = server.call("GET", f"/lathe/v1/responses/{kept.id}/content")
    assert shown.json["input"][0]["content"][0]["text"] == "A secret" and shown.json["answer"]["id"] == kept.id
    reads = server.call("GET", "/lathe/v1/audit_entries?verb=read&sort=-id&limit=1").json["data"]
    assert reads[0]["object"] == kept.id if "object" in reads[0] else kept.id in json.dumps(reads[0])


def test_a_project_says_for_how_long(listener, server):
    server.make("projects", name="shy", responses_days=0)
    server.make("routes", name="everyones", published=True, targets=[{"deployment": "listener"}])
    shy = client(server, server.key, project="shy")
    try:
        assert not shy.responses.create(model="everyones", input="Hello").store
        with pytest.raises(openai.BadRequestError, match="shy"):
            shy.responses.create(model="everyones", input="Hello", store=True)
        server.call("PATCH", "/lathe/v1/projects/shy", {"responses_days": 2})
        kept = shy.responses.create(model="everyones", input="Hello")
        row = server.call("GET", f"/p/shy/lathe/v1/responses/{kept.id}").json
        assert kept.store and row["expires_at"][:10] > row["created_at"][:10]
    finally:
        server.call("DELETE", "/lathe/v1/routes/everyones")


def test_bad_requests_name_the_field(oai, listener):
    for change, says in (({"input": 7}, "input"), ({"input": [{"type": "message", "role": "judge", "content": "x"}]}, "role"),
                         ({"background": True}, "background"), ({"tools": [{"type": "web_search"}]}, "tools")):
        with pytest.raises(openai.BadRequestError, match=says):
            oai.responses.create(**{"model": "listener", "input": "x", **change})


@pytest.mark.parametrize("streamed", [False, True])
def test_what_cannot_be_kept_is_answered_and_says_so(tmp_path, streamed):
    upstream = Listener()
    own = Server(tmp_path / "data")
    try:
        own.start()
        own.deploy("listener", engine="openai", task="chat", endpoint={"url": upstream.url})
        own.database.run("DROP TABLE response_content")
        mine = client(own, own.key)
        if streamed:
            with mine.responses.stream(model="listener", input="One") as stream:
                answer = stream.get_final_response()
        else:
            answer = mine.responses.create(model="listener", input="One")
        assert (answer.output_text, answer.store, answer.status) == ("answer 1", False, "completed")
        assert own.call("GET", "/lathe/v1/responses").json["data"] == []     # neither half of it
        assert "could not be kept" in own.said()
    finally:
        own.destroy()
        upstream.close()


def test_what_was_answered_outlives_the_servers_death(tmp_path):
    upstream = Listener()
    own = Server(tmp_path / "data")
    try:
        own.start()
        own.deploy("listener", engine="openai", task="chat", endpoint={"url": upstream.url})
        one = client(own, own.key).responses.create(model="listener", input="One")
        own.kill()
        own.start()
        own.ready("listener")
        wait_for("an answer", 20, lambda: client(own, own.key).responses.create(
            model="listener", input="Two", previous_response_id=one.id).output_text == "answer 3" or None)
        assert upstream.told == [("user", "One"), ("assistant", "answer 1"), ("user", "Two")]
    finally:
        own.destroy()
        upstream.close()
