// SPDX-License-Identifier: Apache-2.0
// shapes_test.c - requests, streams and errors in the shapes that the makers of the dialects
// publish (docs/dialects.md names the pages; letters of the texts are ours), and what each becomes
// in another dialect. Owner: the test's arena. Threads: one.
#include "mod/dialect/dialect_own.h"
#include "base/test.h"

static str compact(Ctx *c, str text) {
    yyjson_val *v;
    return json_parse(c, text, &v) ? S("no JSON") : json_text(c->mem, v);
}

static err translate(Ctx *c, const char *from, const char *to, const char *text, const Accent *a,
                     str *out) {
    Talk t;
    yyjson_val *root;
    Buf b;
    buf_init(&b, 1 << 20);
    Json j = json_to(&b);
    err e = json_parse(c, str_z(text), &root);
    if (!e) e = dialect_read(c, dialect_find(str_z(from)), root, &t);
    if (!e) e = dialect_write(c, dialect_find(str_z(to)), a, &t, &j);
    *out = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return e;
}

// ---- requests
#define CHAT "openai.chat"
#define RESP "openai.responses"
#define ANTH "anthropic"
#define OCHAT "ollama.chat"
#define OGEN "ollama.generate"
#define USER_HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define ANTH_HI \
    "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}]"

static const struct {
    const char *from, *to, *request, *want;
} requests[] = {
    // A tool's call and its result; system text moves; ids keep to what is allowed.
    { CHAT, ANTH,
      "{\"model\":\"m\",\"max_tokens\":64,\"messages\":[{\"role\":\"developer\",\"content\":\"be "
      "brief\"},"
      "{\"role\":\"user\",\"content\":\"weather?\"},{\"role\":\"assistant\",\"content\":null,"
      "\"tool_calls\":[{\"id\":"
      "\"functions.get:0\",\"type\":\"function\",\"function\":{\"name\":\"get\",\"arguments\":\"{"
      "\\\"c\\\": 1}\"}}]},"
      "{\"role\":\"tool\",\"tool_call_id\":\"functions.get:0\",\"content\":\"rain\"},{\"role\":"
      "\"user\",\"content\":"
      "\"and now?\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get\"}}],"
      "\"parallel_tool_calls\":false,\"stop\":\"END\",\"user\":\"u\"}",
      "{\"model\":\"m\",\"max_tokens\":64,\"stop_sequences\":[\"END\"],\"metadata\":{\"user_id\":"
      "\"u\"},\"tools\":"
      "[{\"name\":\"get\",\"input_schema\":{\"type\":\"object\",\"properties\":{}}}],\"tool_"
      "choice\":{\"type\":\"auto\","
      "\"disable_parallel_tool_use\":true},\"system\":\"be "
      "brief\",\"messages\":[{\"role\":\"user\",\"content\":"
      "[{\"type\":\"text\",\"text\":\"weather?\"}]},{\"role\":\"assistant\",\"content\":[{\"type\":"
      "\"tool_use\",\"id\":"
      "\"functions_get_0\",\"name\":\"get\",\"input\":{\"c\":1}}]},{\"role\":\"user\",\"content\":["
      "{\"type\":"
      "\"tool_result\",\"tool_use_id\":\"functions_get_0\",\"content\":\"rain\"},{\"type\":"
      "\"text\",\"text\":"
      "\"and now?\"}]}]}" },
    // Arguments that a model made badly still arrive, as an object.
    { CHAT, ANTH,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":"
      "\"assistant\",\"tool_calls\":[{\"id\":"
      "\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"c\\\": "
      "\"}}]}]}",
      "{\"model\":\"m\",\"max_tokens\":4096,\"messages\":[{\"role\":\"user\",\"content\":[{"
      "\"type\":\"text\",\"text\":"
      "\"x\"}]},{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"a\",\"name\":"
      "\"f\",\"input\":"
      "{\"INVALID_JSON\":\"{\\\"c\\\": \"}}]}]}" },
    { CHAT, ANTH,
      "{\"model\":\"m\",\"max_completion_tokens\":4000,\"reasoning_effort\":\"low\"," USER_HI "}",
      "{\"model\":\"m\",\"max_tokens\":4000,\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":"
      "1024}," ANTH_HI "}" },
    { CHAT, ANTH,
      "{\"model\":\"m\",\"reasoning_effort\":\"none\",\"tool_choice\":\"none\"," USER_HI "}",
      "{\"model\":\"m\",\"max_tokens\":4096,\"thinking\":{\"type\":\"disabled\"}," ANTH_HI "}" },
    { CHAT, ANTH,
      "{\"model\":\"m\",\"n\":1,\"presence_penalty\":0,\"logprobs\":false,\"logit_bias\":{},"
      "\"stream\":null,\"response_format\":"
      "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"s\",\"schema\":{\"type\":\"object\"}}}"
      "," USER_HI "}",
      "{\"model\":\"m\",\"max_tokens\":4096,\"output_config\":{\"format\":{\"type\":\"json_"
      "schema\",\"schema\":{\"type\":"
      "\"object\"}}}," ANTH_HI "}" },
    { ANTH, CHAT,
      "{\"model\":\"m\",\"max_tokens\":9,\"system\":[{\"type\":\"text\",\"text\":\"s\",\"cache_"
      "control\":{\"type\":"
      "\"ephemeral\",\"ttl\":\"1h\"}}],\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024},"
      "\"tool_choice\":"
      "{\"type\":\"tool\",\"name\":\"f\",\"disable_parallel_tool_use\":true},\"tools\":[{\"name\":"
      "\"f\",\"input_schema\":"
      "{\"type\":\"object\"}}],\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\","
      "\"source\":{\"type\":"
      "\"base64\",\"media_type\":\"image/"
      "png\",\"data\":\"aGk=\"}},{\"type\":\"text\",\"text\":\"?\"}]},{\"role\":"
      "\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"s\"},{"
      "\"type\":\"tool_use\","
      "\"id\":\"t\",\"name\":\"f\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":"
      "\"tool_result\",\"tool_use_id\":"
      "\"t\",\"is_error\":true,\"content\":[{\"type\":\"text\",\"text\":\"boom\"}]},{\"type\":"
      "\"text\",\"text\":\"so?\"}]}]}",
      "{\"model\":\"m\",\"max_completion_tokens\":9,\"tools\":[{\"type\":\"function\",\"function\":"
      "{\"name\":\"f\","
      "\"parameters\":{\"type\":\"object\"}}}],\"tool_choice\":{\"type\":\"function\",\"function\":"
      "{\"name\":\"f\"}},"
      "\"parallel_tool_calls\":false,\"reasoning_effort\":\"high\",\"messages\":[{\"role\":"
      "\"system\",\"content\":\"s\"},"
      "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/"
      "png;base64,aGk=\"}},"
      "{\"type\":\"text\",\"text\":\"?\"}]},{\"role\":\"assistant\",\"content\":null,\"tool_"
      "calls\":[{\"id\":\"t\",\"type\":"
      "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\","
      "\"tool_call_id\":\"t\","
      "\"content\":\"Error: boom\"},{\"role\":\"user\",\"content\":\"so?\"}]}" },
    { CHAT, RESP,
      "{\"model\":\"m\",\"max_tokens\":9,\"response_format\":{\"type\":\"json_object\"},"
      "\"reasoning_effort\":\"low\",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":"
      "\"f\"}}],\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\","
      "\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://example.test/a\","
      "\"detail\":\"low\"}}]},{\"role\":\"assistant\",\"content\":\"t\",\"tool_calls\":[{\"id\":"
      "\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
      "{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"r\"}]}",
      "{\"model\":\"m\",\"max_output_tokens\":9,\"store\":false,\"tools\":[{\"type\":\"function\","
      "\"name\":\"f\",\"parameters\":null,\"strict\":false}],\"text\":{\"format\":{\"type\":"
      "\"json_object\"}},\"reasoning\":{\"effort\":\"low\"},\"include\":"
      "[\"reasoning.encrypted_content\"],\"instructions\":\"s\",\"input\":[{\"role\":\"user\","
      "\"content\":[{\"type\":\"input_image\",\"image_url\":\"https://example.test/a\",\"detail\":"
      "\"low\"}]},{\"role\":\"assistant\",\"content\":"
      "\"t\"},{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":"
      "\"f\",\"arguments\":\"{}\"},{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":"
      "\"r\"}]}" },
    { RESP, CHAT,
      "{\"model\":\"m\",\"instructions\":\"s\",\"store\":true,\"parallel_tool_calls\":true,"
      "\"input\":"
      "[{\"role\":\"user\",\"content\":\"u\"},{\"type\":\"reasoning\",\"id\":\"rs_1\","
      "\"summary\":[],\"encrypted_content\":\"e\"},{\"type\":\"function_call\",\"id\":\"fc_1\","
      "\"call_id\":\"a\",\"name\":\"f\",\"arguments\":\"{}\"},{\"type\":\"function_call\","
      "\"call_id\":\"b\",\"name\":\"g\",\"arguments\":\"\"},{\"type\":\"function_call_output\","
      "\"call_id\":\"a\",\"output\":\"1\"},{\"type\":\"function_call_output\",\"call_id\":\"b\","
      "\"output\":[{\"type\":\"input_text\",\"text\":\"2\"}]}]}",
      "{\"model\":\"m\",\"parallel_tool_calls\":true,\"messages\":[{\"role\":"
      "\"system\","
      "\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\","
      "\"content\":"
      "null,\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\","
      "\"arguments\":\"{}\"}},{\"id\":\"b\",\"type\":\"function\",\"function\":{\"name\":\"g\","
      "\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"1\"},"
      "{\"role\":\"tool\",\"tool_call_id\":\"b\",\"content\":\"2\"}]}" },
    // Results name their tool alone: each goes to the first call of that name without one.
    { OCHAT, CHAT,
      "{\"model\":\"m\",\"stream\":false,\"keep_alive\":\"5m\",\"options\":{\"num_ctx\":4096,"
      "\"num_predict\":-1,\"temperature\":0,\"seed\":3},\"messages\":[{\"role\":\"user\","
      "\"content\":"
      "\"u\",\"images\":[\"/9j/4A\"]},{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":"
      "[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}},{\"function\":{\"name\":\"f\","
      "\"arguments\":{}}}]},{\"role\":\"tool\",\"tool_name\":\"f\",\"content\":\"1\"},{\"role\":"
      "\"tool\",\"tool_name\":\"f\",\"content\":\"2\"}]}",
      "{\"model\":\"m\",\"stream\":false,\"temperature\":0,\"seed\":3,\"messages\":[{\"role\":"
      "\"user\","
      "\"content\":[{\"type\":\"text\",\"text\":\"u\"},{\"type\":\"image_url\",\"image_url\":{"
      "\"url\":"
      "\"data:image/jpeg;base64,/9j/"
      "4A\"}}]},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":"
      "[{\"id\":\"call_1_0\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
      "\"{\\\"a\\\":1}\"}},{\"id\":\"call_1_1\",\"type\":\"function\",\"function\":{\"name\":"
      "\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"call_1_0\",\"content\":"
      "\"1\"},{\"role\":\"tool\",\"tool_call_id\":\"call_1_1\",\"content\":\"2\"}]}" },
    { OGEN, OCHAT,
      "{\"model\":\"m\",\"prompt\":\"p\",\"system\":\"s\",\"raw\":false,\"suffix\":\"\",\"think\":"
      "false,\"format\":\"json\"}",
      "{\"model\":\"m\",\"stream\":true,\"format\":\"json\",\"think\":false,\"messages\":[{"
      "\"role\":"
      "\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"p\"}]}" },
    // No limit is none.
    { OCHAT, CHAT, "{\"model\":\"m\",\"options\":{\"num_predict\":0}," USER_HI "}",
      "{\"model\":\"m\",\"stream\":true," USER_HI "}" },
    // To call no tool where that cannot be said: none is told.
    { CHAT, OCHAT,
      "{\"model\":\"m\",\"stop\":[\"x\"],\"tool_choice\":\"none\",\"tools\":[{\"type\":"
      "\"function\","
      "\"function\":{\"name\":\"f\"}}]," USER_HI "}",
      "{\"model\":\"m\",\"stream\":false,\"options\":{\"stop\":[\"x\"]}," USER_HI "}" },
};

TEST(dialect_requests_in_published_shapes) {
    for (size_t i = 0; i < countof(requests); i++) {
        Ctx *c = test_ctx();
        str got;
        CHECK_OK(c,
                 translate(c, requests[i].from, requests[i].to, requests[i].request, NULL, &got));
        str want = compact(c, str_z(requests[i].want));
        if (!str_eq(compact(c, got), want))
            TEST_FAIL_("%zu: " STR_FMT "\nis not\n" STR_FMT, i, STR_ARG(got), STR_ARG(want));
    }
}

// ---- what has no place, is not known, or is of another type
static const struct {
    const char *from, *to, *request, *reason, *field;
} refused[] = {
    { CHAT, ANTH, "{\"model\":\"m\",\"seed\":1," USER_HI "}", "no_place_in_dialect", "seed" },
    { CHAT, ANTH, "{\"model\":\"m\",\"n\":2," USER_HI "}", "no_place_in_dialect", "n" },
    { CHAT, ANTH, "{\"model\":\"m\",\"logprobs\":true," USER_HI "}", "no_place_in_dialect",
      "logprobs" },
    { CHAT, ANTH, "{\"model\":\"m\",\"frequency_penalty\":0.5," USER_HI "}", "no_place_in_dialect",
      "frequency_penalty" },
    { CHAT, ANTH, "{\"model\":\"m\",\"response_format\":{\"type\":\"json_object\"}," USER_HI "}",
      "no_place_in_dialect", "response_format" },
    { CHAT, ANTH,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\","
      "\"content\":[{\"type\":"
      "\"image_url\",\"image_url\":{\"url\":\"https://example.test/"
      "a.png\",\"detail\":\"high\"}}]}]}",
      "no_place_in_dialect", "messages[1].content[0].image_url.detail" },
    { CHAT, ANTH,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"name\":\"ada\",\"content\":\"x\"}]}",
      "no_place_in_dialect", "messages[0].name" },
    { CHAT, ANTH, "{\"model\":\"m\",\"reasoning_effort\":\"high\",\"max_tokens\":1024," USER_HI "}",
      "no_room_to_reason", "reasoning_effort" },
    { CHAT, ANTH, "{\"model\":\"m\",\"telepathy\":1," USER_HI "}", "unknown_member", "telepathy" },
    { CHAT, ANTH,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"mood\":1}]}",
      "unknown_member", "messages[0].mood" },
    { CHAT, ANTH,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\","
      "\"input_audio\":{}}]}]}",
      "field_enum", "messages[0].content[0].type" },
    { CHAT, ANTH, "{\"model\":\"m\",\"tools\":[{\"type\":\"custom\",\"custom\":{}}]," USER_HI "}",
      "field_enum", "tools[0].type" },
    { CHAT, ANTH, "{\"model\":\"m\",\"temperature\":\"hot\"," USER_HI "}", "field_type",
      "temperature" },
    { CHAT, ANTH, "{\"model\":\"m\",\"n\":0," USER_HI "}", "field_range", "n" },
    { CHAT, ANTH, "{\"model\":\"m\",\"messages\":[]}", "field_type", "messages" },
    { CHAT, ANTH, "{\"model\":\"m\"}", "field_required", "messages" },
    { CHAT, ANTH, "{" USER_HI "}", "field_required", "model" },
    { CHAT, ANTH, "{\"model\":\"m\",\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}",
      "field_required", "messages[0].tool_call_id" },
    { CHAT, ANTH, "[]", "field_type", "" },
    { ANTH, CHAT,
      "{\"model\":\"m\",\"max_tokens\":9,\"tools\":[{\"type\":\"web_search_20250305\",\"name\":"
      "\"web_search\"}]," USER_HI "}",
      "field_enum", "tools[0].type" },
    { ANTH, CHAT,
      "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
      "\"document\",\"source\":"
      "{\"type\":\"url\",\"url\":\"https://example.test/a.pdf\"}}]}]}",
      "no_place_in_dialect", "messages[0].content[0].source.url" },
    { ANTH, CHAT,
      "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
      "\"document\",\"source\":"
      "{\"type\":\"text\",\"media_type\":\"text/plain\",\"data\":\"x\"}}]}]}",
      "no_place_in_dialect", "messages[0].content[0].source" },
    { ANTH, CHAT,
      "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
      "\"tool_result\","
      "\"tool_use_id\":\"t\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"base64\","
      "\"data\":\"aGk=\"}}]}]}]}",
      "no_place_in_dialect", "messages[0].content[0].content" },
    { ANTH, CHAT, "{\"model\":\"m\",\"max_tokens\":9,\"mcp_servers\":[]," USER_HI "}",
      "unknown_member", "mcp_servers" },
    { CHAT, RESP, "{\"model\":\"m\",\"stop\":\"x\"," USER_HI "}", "no_place_in_dialect", "stop" },
    { CHAT, RESP, "{\"model\":\"m\",\"seed\":1," USER_HI "}", "no_place_in_dialect", "seed" },
    { CHAT, OCHAT, "{\"model\":\"m\",\"tool_choice\":\"required\"," USER_HI "}",
      "no_place_in_dialect", "tool_choice" },
    { CHAT, OCHAT, "{\"model\":\"m\",\"parallel_tool_calls\":false," USER_HI "}",
      "no_place_in_dialect", "parallel_tool_calls" },
    { CHAT, OCHAT,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
      "\"image_url\":{\"url\":\"https://example.test/a\"}}]}]}",
      "no_place_in_dialect", "messages[0].content[0].image_url.url" },
    { CHAT, OGEN,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":"
      "\"assistant\",\"content\":\"b\"}]}",
      "no_place_in_dialect", "messages[1]" },
    { RESP, CHAT, "{\"model\":\"m\",\"input\":\"x\",\"previous_response_id\":\"resp_1\"}",
      "no_place_in_dialect", "previous_response_id" },
    { RESP, CHAT, "{\"model\":\"m\",\"input\":\"x\",\"background\":true}", "unknown_member",
      "background" },
    { RESP, CHAT, "{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":\"file_search\"}]}",
      "field_enum", "tools[0].type" },
    { RESP, CHAT, "{\"model\":\"m\",\"input\":[{\"type\":\"item_reference\",\"id\":\"x\"}]}",
      "field_enum", "input[0].type" },
    { RESP, CHAT, "{\"model\":\"m\"}", "field_required", "input" },
    { RESP, ANTH, "{\"model\":\"m\",\"input\":\"x\",\"text\":{\"verbosity\":\"low\"}}",
      "no_place_in_dialect", "text.verbosity" },
    { OCHAT, CHAT, "{\"model\":\"m\",\"options\":{\"mirostat\":1}," USER_HI "}", "unknown_member",
      "options.mirostat" },
    { OCHAT, ANTH, "{\"model\":\"m\",\"options\":{\"seed\":1}," USER_HI "}", "no_place_in_dialect",
      "options.seed" },
    { OCHAT, CHAT,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"tool\",\"tool_name\":\"f\",\"content\":\"1\"}]}",
      "field_required", "messages[0].tool_call_id" },
    { ANTH, CHAT, "{\"model\":\"m\",\"thinking\":{\"budget_tokens\":2000}," USER_HI "}",
      "field_required", "thinking.type" },
    { OCHAT, CHAT,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"tool_calls\":[{\"function\":{\"name\":"
      "\"f\"}}]}]}",
      "unknown_member", "messages[0].tool_calls" },
    { OCHAT, CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"thinking\":\"hm\"}]}",
      "unknown_member", "messages[0].thinking" },
    { OGEN, CHAT, "{\"model\":\"m\",\"prompt\":\"p\",\"raw\":true}", "unknown_member", "raw" },
    { OGEN, CHAT, "{\"model\":\"m\"}", "field_required", "prompt" },
};

TEST(dialect_refusals_name_the_clients_member) {
    for (size_t i = 0; i < countof(refused); i++) {
        Ctx *c = test_ctx();
        str got;
        CHECK_ERR(translate(c, refused[i].from, refused[i].to, refused[i].request, NULL, &got),
                  ERR_INVALID);
        str field = failure_param(&c->failure, "field");
        if (!str_is(field, refused[i].field)
            || strcmp(c->failure.why->slug, refused[i].reason) != 0)
            TEST_FAIL_("%zu: %s of \"" STR_FMT "\", not %s of %s", i, c->failure.why->slug,
                       STR_ARG(field), refused[i].reason, refused[i].field);
    }
}

// ---- streams: events as lines "name|data", name empty where the framing has none
typedef struct Lines {
    Buf text;
    Writing *out;
} Lines;

static void add_line(void *arg, str event, str data) {
    Lines *l = arg;
    buf_add(&l->text, event), buf_add_char(&l->text, '|'), buf_add(&l->text, data),
        buf_add_char(&l->text, '\n');
}

static void pass_on(void *arg, const Delta *d) { writing_delta(((Lines *)arg)->out, d); }

static str stream(Ctx *c, const char *from, const char *to, const char *events, err *out_e) {
    Lines l = { 0 };
    Reading r;
    Writing w;
    Talk asked = { .stream = 1, .stream_usage = 1, .choices = 1 };
    str rest = str_z(events), line, name;
    buf_init(&l.text, 1 << 20);
    l.out = &w;
    writing_init(&w, dialect_find(str_z(to)), &asked);
    w.id = S("id_1"), w.model = S("mine"), w.created_s = 1700000000, w.event = add_line, w.arg = &l;
    reading_init(&r, dialect_find(str_z(from)), c, pass_on, &l);
    for (*out_e = ERR_OK; !*out_e && str_cut(&rest, '\n', &line);) {
        str data = line;
        if (line.n && str_cut(&data, '|', &name)) *out_e = reading_event(&r, name, data);
    }
    if (!*out_e) reading_close(&r);
    str text = arena_str(c->mem, buf_str(&l.text));
    reading_done(&r), writing_done(&w), buf_done(&l.text);
    return text;
}

#define CHUNK(choices)                                                                    \
    "|{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"up\"," \
    "\"choices\":[" choices "]}\n"
#define OURS(choices)                                                                          \
    "|{\"id\":\"id_1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":" \
    "\"mine\",\"choices\":[" choices "],\"usage\":null}\n"
#define OURS_DELTA(delta, finish) \
    OURS("{\"index\":0,\"delta\":{" delta "},\"logprobs\":null,\"finish_reason\":" finish "}")
#define ANTH_START                                                                                 \
    "message_start|{\"type\":\"message_start\",\"message\":{\"id\":\"id_1\",\"type\":\"message\"," \
    "\"role\":\"assistant\","                                                                      \
    "\"model\":\"mine\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{"    \
    "\"input_tokens\":0,"                                                                          \
    "\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":0}}}\n"

static const struct {
    const char *from, *to, *events, *want;
} streams[] = {
    // Reasoning, then text, then two calls of which one has no arguments; counts of what a cache
    // gave.
    { CHAT, ANTH,
      CHUNK("{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":"
            "null}")
          CHUNK("{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"},\"finish_reason\":null}")
              CHUNK("{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}") CHUNK(
                  "{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":"
                  "\"function\",\"function\":{\"name\":"
                  "\"f\",\"arguments\":\"\"}}]},\"finish_reason\":null}")
                  CHUNK("{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{"
                        "\"arguments\":\"{\\\"x\\\":1}\"}}]},"
                        "\"finish_reason\":null}")
                      CHUNK("{\"index\":0,\"delta\":{\"tool_calls\":[{"
                            "\"index\":1,\"id\":\"b\",\"type\":\"function\","
                            "\"function\":{\"name\":"
                            "\"g\",\"arguments\":\"\"}}]},\"finish_reason\":"
                            "null}") CHUNK("{\"index\":0,\"delta\":{},"
                                           "\"finish_reason\":\"tool_"
                                           "calls\"}") "|{\"id\":\"c\","
                                                       "\"choices\":[],"
                                                       "\"usage\":{\"prompt_"
                                                       "tokens\":10,"
                                                       "\"completion_"
                                                       "tokens\":7,\"total_"
                                                       "tokens\":17,"
                                                       "\"prompt_cache_hit_"
                                                       "tokens\":4,\"prompt_"
                                                       "cache_miss_tokens\":"
                                                       "6}}\n|[DONE]\n",
      ANTH_START "content_block_start|{\"type\":\"content_block_start\",\"index\":0,\"content_"
                 "block\":{\"type\":\"thinking\","
                 "\"thinking\":\"\",\"signature\":\"\"}}\n"
                 "content_block_delta|{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{"
                 "\"type\":\"thinking_delta\","
                 "\"thinking\":\"hm\"}}\n"
                 "content_block_stop|{\"type\":\"content_block_stop\",\"index\":0}\n"
                 "content_block_start|{\"type\":\"content_block_start\",\"index\":1,\"content_"
                 "block\":{\"type\":\"text\",\"text\":"
                 "\"\"}}\n"
                 "content_block_delta|{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{"
                 "\"type\":\"text_delta\",\"text\":"
                 "\"Hi\"}}\n"
                 "content_block_stop|{\"type\":\"content_block_stop\",\"index\":1}\n"
                 "content_block_start|{\"type\":\"content_block_start\",\"index\":2,\"content_"
                 "block\":{\"type\":\"tool_use\",\"id\":"
                 "\"a\",\"name\":\"f\",\"input\":{}}}\n"
                 "content_block_delta|{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{"
                 "\"type\":\"input_json_delta\","
                 "\"partial_json\":\"{\\\"x\\\":1}\"}}\n"
                 "content_block_stop|{\"type\":\"content_block_stop\",\"index\":2}\n"
                 "content_block_start|{\"type\":\"content_block_start\",\"index\":3,\"content_"
                 "block\":{\"type\":\"tool_use\",\"id\":"
                 "\"b\",\"name\":\"g\",\"input\":{}}}\n"
                 "content_block_delta|{\"type\":\"content_block_delta\",\"index\":3,\"delta\":{"
                 "\"type\":\"input_json_delta\","
                 "\"partial_json\":\"{}\"}}\n"
                 "content_block_stop|{\"type\":\"content_block_stop\",\"index\":3}\n"
                 "message_delta|{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_"
                 "use\",\"stop_sequence\":null},"
                 "\"usage\":{\"input_tokens\":6,\"cache_creation_input_tokens\":0,\"cache_read_"
                 "input_tokens\":4,\"output_tokens\":7}}\n"
                 "message_stop|{\"type\":\"message_stop\"}\n" },
    // A call without arguments before another: nothing is said of a block that is over.
    { CHAT, ANTH,
      CHUNK("{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{"
            "\"name\":\"f\",\"arguments\":\"\"}}]}}")
          CHUNK("{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"function\":{"
                "\"name\":\"g\",\"arguments\":\"\"}}]}}")
              CHUNK("{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}") "|[DONE]\n",
      ANTH_START
      "content_block_start|{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{"
      "\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{}}}\n"
      "content_block_stop|{\"type\":\"content_block_stop\",\"index\":0}\n"
      "content_block_start|{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{"
      "\"type\":\"tool_use\",\"id\":\"b\",\"name\":\"g\",\"input\":{}}}\n"
      "content_block_delta|{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":"
      "\"input_json_delta\",\"partial_json\":\"{}\"}}\n"
      "content_block_stop|{\"type\":\"content_block_stop\",\"index\":1}\n"
      "message_delta|{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\","
      "\"stop_sequence\":null},\"usage\":{\"input_tokens\":0,\"cache_creation_input_tokens\":0,"
      "\"cache_read_input_tokens\":0,\"output_tokens\":0}}\n"
      "message_stop|{\"type\":\"message_stop\"}\n" },
    // Pings and unknown events say nothing; input_tokens holds nothing of the cache.
    { ANTH, CHAT,
      "message_start|{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":"
      "\"message\",\"role\":\"assistant\","
      "\"content\":[],\"model\":\"up\",\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{"
      "\"input_tokens\":25,"
      "\"cache_creation_input_tokens\":3,\"cache_read_input_tokens\":5,\"output_tokens\":1}}}\n"
      "ping|{\"type\": \"ping\"}\n"
      "content_block_start|{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{"
      "\"type\":\"text\",\"text\":"
      "\"\"}}\n"
      "content_block_delta|{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
      "\"text_delta\",\"text\":"
      "\"Hello\"}}\n"
      "content_block_stop|{\"type\":\"content_block_stop\",\"index\":0}\n"
      "moon_phase|{\"type\":\"moon_phase\",\"phase\":2}\n"
      "content_block_start|{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{"
      "\"type\":\"tool_use\",\"id\":"
      "\"toolu_1\",\"name\":\"f\",\"input\":{}}}\n"
      "content_block_delta|{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":"
      "\"input_json_delta\","
      "\"partial_json\":\"\"}}\n"
      "content_block_stop|{\"type\":\"content_block_stop\",\"index\":1}\n"
      "message_delta|{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\",\"stop_"
      "sequence\":null},\"usage\":"
      "{\"output_tokens\":15}}\n"
      "message_stop|{\"type\":\"message_stop\"}\n",
      OURS_DELTA("\"role\":\"assistant\",\"content\":\"\"", "null") OURS_DELTA(
          "\"content\":\"Hello\"",
          "null") OURS_DELTA("\"tool_calls\":[{\"index\":0,\"id\":\"toolu_1\",\"type\":"
                             "\"function\",\"function\":{\"name\":\"f\","
                             "\"arguments\":\"\"}}]",
                             "null")
          OURS_DELTA("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]", "null")
              OURS_DELTA(
                  "", "\"tool_calls\"") "|{\"id\":\"id_1\",\"object\":\"chat.completion.chunk\","
                                        "\"created\":1700000000,\"model\":\"mine\",\"choices\":[],"
                                        "\"usage\":{\"prompt_tokens\":33,\"completion_tokens\":15,"
                                        "\"total_tokens\":48,\"prompt_tokens_details\":"
                                        "{\"cached_tokens\":5,\"cache_write_tokens\":3},"
                                        "\"completion_tokens_details\":{"
                                        "\"reasoning_tokens\":0}}}\n|[DONE]\n" },
    // An error in the stream is the last thing told.
    { ANTH, CHAT,
      "error|{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":"
      "\"Overloaded\"}}\n"
      "message_stop|{\"type\":\"message_stop\"}\n",
      "|{\"error\":{\"message\":\"Overloaded\",\"type\":\"server_error\",\"param\":null,\"code\":"
      "\"overloaded_error\"}}\n" },
    { CHAT, ANTH,
      "|{\"error\":{\"message\":\"slow "
      "down\",\"type\":\"rate_limit_error\",\"code\":\"rate_limit_exceeded\"}}\n|[DONE]\n",
      "error|{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"slow "
      "down\"}}\n" },
    // Bytes that end too early are an error; where only the end's mark is missing they are not.
    { CHAT, ANTH, CHUNK("{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}"),
      ANTH_START "content_block_start|{\"type\":\"content_block_start\",\"index\":0,\"content_"
                 "block\":{\"type\":\"text\",\"text\":"
                 "\"\"}}\n"
                 "content_block_delta|{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{"
                 "\"type\":\"text_delta\",\"text\":"
                 "\"Hi\"}}\n"
                 "error|{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"the "
                 "model's server ended the stream before "
                 "the answer was whole\"}}\n" },
    { CHAT, CHAT, CHUNK("{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}"),
      OURS_DELTA("\"role\":\"assistant\",\"content\":\"\"", "null")
          OURS_DELTA("\"content\":\"Hi\"", "null")
              OURS_DELTA("", "\"stop\"") "|{\"id\":\"id_1\",\"object\":\"chat.completion.chunk\","
                                         "\"created\":1700000000,\"model\":\"mine\",\"choices\":[],"
                                         "\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,"
                                         "\"total_tokens\":0,\"prompt_tokens_details\":"
                                         "{\"cached_tokens\":0,\"cache_write_tokens\":0},"
                                         "\"completion_tokens_details\":{"
                                         "\"reasoning_tokens\":0}}}\n|[DONE]\n" },
    // Whole items without pieces before them; a thought's proof.
    { RESP, ANTH,
      "response.created|{\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":"
      "\"resp_1\",\"status\":\"in_progress\",\"error\":null,\"output\":[]}}\n"
      "response.output_item.done|{\"type\":\"response.output_item.done\",\"output_index\":0,"
      "\"item\":"
      "{\"type\":\"reasoning\",\"summary\":[],\"encrypted_content\":\"e\"}}\n"
      "response.output_text.delta|{\"type\":\"response.output_text.delta\",\"output_index\":1,"
      "\"content_index\":0,\"delta\":\"Hi\"}\n"
      "response.output_text.done|{\"type\":\"response.output_text.done\",\"output_index\":1,"
      "\"text\":"
      "\"Hi\"}\n"
      "response.output_item.done|{\"type\":\"response.output_item.done\",\"output_index\":1,"
      "\"item\":"
      "{\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":\"Hi\"}]}}\n"
      "response.incomplete|{\"type\":\"response.incomplete\",\"response\":{\"id\":\"resp_1\","
      "\"status\":\"incomplete\",\"error\":null,\"incomplete_details\":{\"reason\":"
      "\"max_output_tokens\"},\"usage\":{\"input_tokens\":3,\"output_tokens\":2,\"total_tokens\":5}"
      "}}\n",
      ANTH_START
      "content_block_start|{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{"
      "\"type\":"
      "\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n"
      "content_block_delta|{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
      "\"signature_delta\",\"signature\":\"e\"}}\n"
      "content_block_stop|{\"type\":\"content_block_stop\",\"index\":0}\n"
      "content_block_start|{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{"
      "\"type\":"
      "\"text\",\"text\":\"\"}}\n"
      "content_block_delta|{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":"
      "\"text_delta\",\"text\":\"Hi\"}}\n"
      "content_block_stop|{\"type\":\"content_block_stop\",\"index\":1}\n"
      "message_delta|{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\","
      "\"stop_sequence\":null},\"usage\":{\"input_tokens\":3,\"cache_creation_input_tokens\":0,"
      "\"cache_read_input_tokens\":0,\"output_tokens\":2}}\n"
      "message_stop|{\"type\":\"message_stop\"}\n" },
    { RESP, CHAT,
      "response.failed|{\"type\":\"response.failed\",\"response\":{\"id\":\"r\",\"status\":"
      "\"failed\","
      "\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"later\"}}}\n",
      "|{\"error\":{\"message\":\"later\",\"type\":\"rate_limit_error\",\"param\":null,\"code\":"
      "\"rate_limit_exceeded\"}}\n" },
    { RESP, OCHAT,
      "error|{\"type\":\"error\",\"code\":\"server_error\",\"message\":\"oh\",\"param\":null,"
      "\"sequence_number\":1}\n",
      "|{\"error\":\"oh\"}\n" },
    // A call in pieces is a line when it is whole; done is said once, with figures.
    { CHAT, OCHAT,
      CHUNK("{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{"
            "\"name\":"
            "\"f\",\"arguments\":\"{\\\"x\\\"\"}}]}}")
          CHUNK("{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":"
                "\":1}\"}}]}}")
              CHUNK("{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}") "|{\"choices\":[],"
                                                                             "\"usage\":"
                                                                             "{\"prompt_tokens\":4,"
                                                                             "\"completion_"
                                                                             "tokens\":5}}"
                                                                             "\n|[DONE]\n",
      "|{\"model\":\"mine\",\"created_at\":\"2023-11-14T22:13:20Z\",\"message\":{\"role\":"
      "\"assistant\","
      "\"content\":\"\",\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":"
      "{\"x\":1}}}]},\"done\":false}\n"
      "|{\"model\":\"mine\",\"created_at\":\"2023-11-14T22:13:20Z\",\"message\":{\"role\":"
      "\"assistant\","
      "\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"total_duration\":0,\"load_"
      "duration\":0,"
      "\"prompt_eval_count\":4,\"prompt_eval_duration\":0,\"eval_count\":5,\"eval_duration\":0}"
      "\n" },
    { OCHAT, OGEN,
      "|{\"model\":\"up\",\"created_at\":\"x\",\"message\":{\"role\":\"assistant\",\"content\":"
      "\"\","
      "\"thinking\":\"hm\"},\"done\":false}\n"
      "|{\"model\":\"up\",\"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"done\":false}\n"
      "|{\"model\":\"up\",\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"length\","
      "\"prompt_eval_count\":1,\"eval_count\":2}\n",
      "|{\"model\":\"mine\",\"created_at\":\"2023-11-14T22:13:20Z\",\"response\":\"\",\"thinking\":"
      "\"hm\","
      "\"done\":false}\n"
      "|{\"model\":\"mine\",\"created_at\":\"2023-11-14T22:13:20Z\",\"response\":\"Hi\",\"done\":"
      "false}\n"
      "|{\"model\":\"mine\",\"created_at\":\"2023-11-14T22:13:20Z\",\"response\":\"\",\"done\":"
      "true,"
      "\"done_reason\":\"length\",\"total_duration\":0,\"load_duration\":0,\"prompt_eval_count\":1,"
      "\"prompt_eval_duration\":0,\"eval_count\":2,\"eval_duration\":0}\n" },
};

TEST(dialect_streams_in_published_shapes) {
    for (size_t i = 0; i < countof(streams); i++) {
        Ctx *c = test_ctx();
        err e;
        str got = stream(c, streams[i].from, streams[i].to, streams[i].events, &e);
        CHECK_OK(c, e);
        if (!str_is(got, streams[i].want))
            TEST_FAIL_("%zu:\n" STR_FMT "\nis not\n%s", i, STR_ARG(got), streams[i].want);
    }
}

TEST(dialect_streams_that_are_none) {
    static const char *const bad[] = { "|{\"choices\":[", "|[1]", "|\"x\"", "|\xff",
                                       "|{\"a\":1,\"a\":2}" };
    for (size_t i = 0; i < countof(bad); i++) {
        Ctx *c = test_ctx();
        err e;
        stream(c, CHAT, ANTH, bad[i], &e);
        CHECK_ERR(e, ERR_UPSTREAM);
        CHECK(c->failure.why == &R_DIALECT_SHAPE);
    }
}

// ---- errors
TEST(dialect_errors_in_published_shapes) {
    static const struct {
        const char *dialect, *text, *code, *message;
        err how;
    } errors[] = {
        { CHAT,
          "{\"error\":{\"message\":\"no "
          "key\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"invalid_api_key\"}}",
          "invalid_api_key", "no key", ERR_INVALID },
        { CHAT,
          "{\"object\":\"error\",\"message\":\"too "
          "long\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}",
          "BadRequestError", "too long", ERR_INVALID },
        { CHAT, "{\"error\":\"out\"}", NULL, "out", ERR_UPSTREAM },
        { ANTH,
          "{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\",\"message\":\"gone\"},"
          "\"request_id\":\"req_1\"}",
          "not_found_error", "gone", ERR_NOTFOUND },
        { ANTH,
          "{\"type\":\"error\",\"error\":{\"type\":\"authentication_error\",\"message\":\"who\"}}",
          "authentication_error", "who", ERR_UNAUTHENTICATED },
        { RESP, "{\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"later\"}",
          "rate_limit_exceeded", "later", ERR_LIMITED },
        { OCHAT, "{\"error\":\"model 'x' not found\"}", NULL, "model 'x' not found", ERR_NOTFOUND },
    };
    for (size_t i = 0; i < countof(errors); i++) {
        Ctx *c = test_ctx();
        yyjson_val *root;
        DialectError e;
        CHECK_OK(c, json_parse(c, str_z(errors[i].text), &root));
        CHECK(dialect_read_error(dialect_find(str_z(errors[i].dialect)), root, &e));
        CHECK_INT(e.how, errors[i].how);
        CHECK_STR(e.message, errors[i].message);
        if (errors[i].code) CHECK_STR(e.code, errors[i].code);
    }
}

TEST(dialect_errors_are_read_as_they_were_written) {
    for (const Dialect *const *d = dialects; *d; d++) {
        Ctx *c = test_ctx();
        DialectError e = { ERR_LIMITED, S("limit_requests"), S("too \"many\""), S("model"),
                           S("req_1") },
                     back;
        Buf b;
        yyjson_val *root;
        buf_init(&b, 4096);
        Json j = json_to(&b);
        dialect_write_error(*d, &e, &j);
        CHECK_OK(c, json_parse(c, buf_str(&b), &root));
        buf_done(&b);
        CHECK(dialect_read_error(*d, root, &back));
        CHECK_STR(back.message, "too \"many\"");
        CHECK(back.how == ERR_LIMITED
              || (*d)->framing == FRAMING_NDJSON); // Ollama's is a sentence alone
    }
}
