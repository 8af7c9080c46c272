# SPDX-License-Identifier: Apache-2.0
"""One answer as servers of each dialect tell it, whole and streamed, in the shapes that their makers publish (docs/dialects.md), and as the
stock clients read it."""

import dataclasses
import json

import anthropic
import ollama
import openai


@dataclasses.dataclass
class Said:
    """What an answer comes to, whoever tells it. calls: names and arguments. finish: stop, length or calls."""

    text: str = ""
    calls: tuple = ()
    finish: str = "stop"
    prompt: int = 25
    cached: int = 0
    tokens: int = 7

    def pieces(self):
        return [self.text[i:i + 4] for i in range(0, len(self.text), 4)]


def halves(arguments):
    text = json.dumps(arguments)
    return text[:len(text) // 2], text[len(text) // 2:]


def sse(*events, named=False):
    return "".join((f"event: {e['type']}\n" if named else "") + f"data: {json.dumps(e)}\n\n" for e in events).encode()


def lines(*all):
    return "".join(json.dumps(one) + "\n" for one in all).encode()


class Chat:
    """OpenAI's chat completions."""

    name, path, stream_type = "openai.chat", "/v1/chat/completions", "text/event-stream"
    finishes = {"stop": "stop", "length": "length", "calls": "tool_calls"}

    def usage(self, a):
        return {"prompt_tokens": a.prompt, "completion_tokens": a.tokens, "total_tokens": a.prompt + a.tokens,
                "prompt_tokens_details": {"cached_tokens": a.cached}}

    def calls(self, a, index):
        return [{**({"index": i} if index else {}), "id": f"call_{i}", "type": "function", "function": {"name": n, "arguments": json.dumps(v)}}
                for i, (n, v) in enumerate(a.calls)]

    def whole(self, a):
        message = {"role": "assistant", "content": a.text or None, **({"tool_calls": self.calls(a, False)} if a.calls else {})}
        return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": self.usage(a),
                "choices": [{"index": 0, "message": message, "finish_reason": self.finishes[a.finish]}]}

    def chunk(self, delta, finish=None):
        return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    def begun(self, a):
        return sse(*(self.chunk({"content": p}) for p in a.pieces()))

    def stream(self, a):
        end = [self.chunk({}, self.finishes[a.finish]), {**self.chunk({}), "choices": [], "usage": self.usage(a)}]
        return self.begun(a) + sse(*(self.chunk({"tool_calls": [c]}) for c in self.calls(a, True)), *end) + b"data: [DONE]\n\n"

    def error(self, kind, message):
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def failure(self, message):
        return sse(self.error("server_error", message))


class Anthropic:
    """Anthropic's messages."""

    name, path, stream_type = "anthropic", "/v1/messages", "text/event-stream"
    finishes = {"stop": "end_turn", "length": "max_tokens", "calls": "tool_use"}

    def prompt_usage(self, a):
        return {"input_tokens": a.prompt - a.cached, "cache_creation_input_tokens": 0, "cache_read_input_tokens": a.cached}

    def whole(self, a):
        content = [{"type": "text", "text": a.text}] if a.text else []
        content += [{"type": "tool_use", "id": f"toolu_{i}", "name": n, "input": v} for i, (n, v) in enumerate(a.calls)]
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": self.finishes[a.finish],
                "stop_sequence": None, "usage": {**self.prompt_usage(a), "output_tokens": a.tokens}}

    def opening(self, a):
        return {"type": "message_start", "message": {**self.whole(Said()), "content": [], "stop_reason": None, "usage": {**self.prompt_usage(a), "output_tokens": 1}}}

    def text_events(self, a):
        return [{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, {"type": "ping"},
                *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": p}} for p in a.pieces())]

    def begun(self, a):
        return sse(self.opening(a), *self.text_events(a), named=True)

    def stream(self, a):
        events = [self.opening(a)]
        if a.text:
            events += [*self.text_events(a), {"type": "content_block_stop", "index": 0}]
        for i, (n, v) in enumerate(a.calls, bool(a.text)):
            events += [{"type": "content_block_start", "index": i, "content_block": {"type": "tool_use", "id": f"toolu_{i}", "name": n, "input": {}}},
                       *({"type": "content_block_delta", "index": i, "delta": {"type": "input_json_delta", "partial_json": p}} for p in ("", *halves(v))),
                       {"type": "content_block_stop", "index": i}]
        events += [{"type": "message_delta", "delta": {"stop_reason": self.finishes[a.finish], "stop_sequence": None}, "usage": {"output_tokens": a.tokens}},
                   {"type": "message_stop"}]
        return sse(*events, named=True)

    def error(self, kind, message):
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}

    def failure(self, message):
        return sse(self.error("overloaded_error", message), named=True)


class Ollama:
    """Ollama's chat."""

    name, path, stream_type = "ollama.chat", "/api/chat", "application/x-ndjson"
    finishes = {"stop": "stop", "length": "length", "calls": "stop"}

    def said(self, message, done=False, **more):
        return {"model": "m", "created_at": "2025-10-17T23:14:07.414671Z", "message": {"role": "assistant", "content": "", **message}, "done": done, **more}

    def end(self, a):
        return {"done_reason": self.finishes[a.finish], "total_duration": 174560334, "load_duration": 101397084, "prompt_eval_count": a.prompt,
                "prompt_eval_duration": 13074791, "eval_count": a.tokens, "eval_duration": 52479709}

    def calls(self, a):
        return [{"function": {"name": n, "arguments": v}} for n, v in a.calls]

    def whole(self, a):
        return self.said({"content": a.text, **({"tool_calls": self.calls(a)} if a.calls else {})}, True, **self.end(a))

    def begun(self, a):
        return lines(*(self.said({"content": p}) for p in a.pieces()))

    def stream(self, a):
        return self.begun(a) + lines(*(self.said({"tool_calls": [c]}) for c in self.calls(a)), self.said({}, True, **self.end(a)))

    def error(self, kind, message):
        return {"error": message}

    def failure(self, message):
        return lines(self.error("", message))


class Responses:
    """OpenAI's responses."""

    name, path, stream_type = "openai.responses", "/v1/responses", "text/event-stream"

    def usage(self, a):
        return {"input_tokens": a.prompt, "input_tokens_details": {"cached_tokens": a.cached}, "output_tokens": a.tokens,
                "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": a.prompt + a.tokens}

    def items(self, a):
        text = [{"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
                 "content": [{"type": "output_text", "text": a.text, "annotations": [], "logprobs": []}]}] if a.text else []
        return text + [{"id": f"fc_{i}", "type": "function_call", "status": "completed", "call_id": f"call_{i}", "name": n, "arguments": json.dumps(v)}
                       for i, (n, v) in enumerate(a.calls)]

    def response(self, status, a=None, **more):
        return {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": None, "incomplete_details": None, "model": "m",
                "output": self.items(a) if a else [], "usage": self.usage(a) if a else None, **more}

    def whole(self, a):
        if a.finish == "length":
            return self.response("incomplete", a, incomplete_details={"reason": "max_output_tokens"})
        return self.response("completed", a)

    def opening(self):
        return [{"type": "response.created", "response": self.response("in_progress")}, {"type": "response.in_progress", "response": self.response("in_progress")}]

    def text_events(self, a):
        at = {"item_id": "msg_1", "output_index": 0}
        return [{"type": "response.output_item.added", "output_index": 0, "item": {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}},
                {"type": "response.content_part.added", **at, "content_index": 0, "part": {"type": "output_text", "text": "", "annotations": [], "logprobs": []}},
                *({"type": "response.output_text.delta", **at, "content_index": 0, "delta": p, "logprobs": []} for p in a.pieces())]

    def numbered(self, events):
        return sse(*({**e, "sequence_number": i} for i, e in enumerate(events)), named=True)

    def begun(self, a):
        return self.numbered([*self.opening(), *self.text_events(a)])

    def stream(self, a):
        events = self.opening()
        for i, item in enumerate(self.items(a)):
            if item["type"] == "message":
                at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
                events += [*self.text_events(a), {"type": "response.output_text.done", **at, "text": a.text, "logprobs": []},
                           {"type": "response.content_part.done", **at, "part": item["content"][0]}]
            else:
                at = {"item_id": item["id"], "output_index": i}
                events += [{"type": "response.output_item.added", "output_index": i, "item": {**item, "status": "in_progress", "arguments": ""}},
                           *({"type": "response.function_call_arguments.delta", **at, "delta": p} for p in halves(json.loads(item["arguments"]))),
                           {"type": "response.function_call_arguments.done", **at, "arguments": item["arguments"]}]
            events.append({"type": "response.output_item.done", "output_index": i, "item": item})
        end = self.whole(a)
        return self.numbered([*events, {"type": f"response.{end['status']}", "response": end}])

    def error(self, kind, message):
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def failure(self, message):
        return self.numbered([{"type": "response.failed", "response": self.response("failed", error={"code": "server_error", "message": message})}])


MAKERS = {m.name: m for m in (Chat(), Anthropic(), Ollama(), Responses())}


# ---- the stock clients: each asks, and says what it read


def tool_of(name, style):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    if style == "anthropic":
        return {"name": name, "description": "Of a city", "input_schema": schema}
    return {"type": "function", "function": {"name": name, "description": "Of a city", "parameters": schema}}


class OpenaiClient:
    name, tool_style = "openai", "openai"

    def __init__(self, server, key, timeout=60):
        self.client = openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0, timeout=timeout)

    def ask(self, model, messages, stream=False, **more):
        if not stream:
            a = self.client.chat.completions.create(model=model, messages=messages, **more)
            choice, usage = a.choices[0], a.usage
            return self.said(choice.message.content or "", [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or []],
                             choice.finish_reason, usage)
        text, calls, finish, usage = "", {}, None, None
        for e in self.client.chat.completions.create(model=model, messages=messages, stream=True, stream_options={"include_usage": True}, **more):
            usage = e.usage or usage
            for choice in e.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
                for c in choice.delta.tool_calls or []:
                    before = calls.get(c.index, ("", ""))
                    calls[c.index] = (before[0] + (c.function.name or ""), before[1] + (c.function.arguments or ""))
        return self.said(text, [calls[i] for i in sorted(calls)], finish, usage)

    def said(self, text, calls, finish, usage):
        return Said(text, tuple((n, json.loads(v)) for n, v in calls), "calls" if finish == "tool_calls" else finish, usage.prompt_tokens,
                    usage.prompt_tokens_details.cached_tokens, usage.completion_tokens)


class AnthropicClient:
    name, tool_style = "anthropic", "anthropic"
    finishes = {v: k for k, v in Anthropic.finishes.items()}

    def __init__(self, server, key, timeout=60):
        self.client = anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=timeout)

    def ask(self, model, messages, stream=False, **more):
        ask = {"model": model, "messages": messages, "max_tokens": 64, **more}
        if stream:
            with self.client.messages.stream(**ask) as s:
                a = s.get_final_message()
        else:
            a = self.client.messages.create(**ask)
        u = a.usage
        return Said("".join(b.text for b in a.content if b.type == "text"), tuple((b.name, b.input) for b in a.content if b.type == "tool_use"),
                    self.finishes[a.stop_reason], u.input_tokens + u.cache_read_input_tokens, u.cache_read_input_tokens, u.output_tokens)


class OllamaClient:
    name, tool_style = "ollama", "openai"

    def __init__(self, server, key, timeout=60):
        self.client = ollama.Client(host=server.url + "/ollama", headers={"Authorization": "Bearer " + key}, timeout=timeout)

    def ask(self, model, messages, stream=False, **more):
        parts = list(self.client.chat(model=model, messages=messages, stream=True, **more)) if stream else [self.client.chat(model=model, messages=messages, **more)]
        end = parts[-1]
        calls = tuple((c.function.name, dict(c.function.arguments)) for p in parts for c in p.message.tool_calls or [])
        finish = "calls" if calls and end.done_reason == "stop" else end.done_reason
        return Said("".join(p.message.content or "" for p in parts), calls, finish, end.prompt_eval_count, 0, end.eval_count)


CLIENTS = {c.name: c for c in (OpenaiClient, AnthropicClient, OllamaClient)}
