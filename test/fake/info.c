// SPDX-License-Identifier: Apache-2.0
// info.c - who is served at all, and what is told without a body: health, models, props, slots,
// metrics, as llama-server has them; and the ledger.
// Threads: the loop's.
#include "fake.h"

static const char template_text[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' "
    "}}{% endif %}";

static const char params_text[] =
    "{\"seed\":4294967295,\"temperature\":0.8,\"dynatemp_range\":0.0,\"dynatemp_exponent\":1.0,"
    "\"top_k\":40,\"top_p\":0.95,\"min_p\":0.05,\"top_n_sigma\":-1.0,\"xtc_probability\":0.0,"
    "\"xtc_threshold\":0.1,\"typical_p\":1.0,\"repeat_last_n\":64,\"repeat_penalty\":1.0,"
    "\"presence_penalty\":0.0,\"frequency_penalty\":0.0,\"dry_multiplier\":0.0,\"dry_base\":1.75,"
    "\"dry_allowed_length\":2,\"dry_penalty_last_n\":64,\"mirostat\":0,\"mirostat_tau\":5.0,"
    "\"mirostat_eta\":0.1,\"adaptive_target\":-1.0,\"adaptive_decay\":0.9,\"max_tokens\":-1,"
    "\"n_predict\":-1,\"n_keep\":0,\"n_discard\":0,\"ignore_eos\":false,\"stream\":false,"
    "\"n_probs\":0,\"min_keep\":0,\"chat_format\":\"Content-only\",\"reasoning_format\":\"none\","
    "\"reasoning_in_content\":false,\"generation_prompt\":\"\",\"samplers\":[\"penalties\","
    "\"dry\",\"top_n_sigma\",\"top_k\",\"typ_p\",\"top_p\",\"min_p\",\"xtc\",\"temperature\"],"
    "\"speculative.types\":\"none\",\"timings_per_token\":false,\"post_sampling_probs\":false,"
    "\"backend_sampling\":false,\"lora\":[]}";

// ---- who is served at all

bool engine_loading(const Engine *e) { return loop_now_ns(e->loop) < e->ready_ns; }
bool engine_hangs(const Engine *e) { return e->o.hang_after >= 0 && e->asked >= e->o.hang_after; }

static bool knows_key(const Engine *e, const HttpRequest *r) {
    str key = http_header(r, "Authorization");
    if (!*e->o.api_key || str_is(r->path, "/health") || str_is(r->path, "/v1/health")) return true;
    if (!key.p) key = http_header(r, "X-Api-Key");
    if (str_starts(key, S("Bearer "))) key = str_sub(key, 7, key.n);
    return str_is(key, e->o.api_key);
}

bool engine_turns_away(Engine *e, Exchange *x) {
    const HttpRequest *r = exchange_request(x);
    Refusal why = { 0 };
    if (str_starts(r->path, S("/fake/"))) return false; // a test's doors are always open
    if (engine_hangs(e)) return true;                   // nobody ever answers
    if (!knows_key(e, r)) why = (Refusal){ 401, "authentication_error", "Invalid API Key" };
    else if (engine_loading(e)) why = (Refusal){ 503, "unavailable_error", "Loading model" };
    if (why.status) reply_refusal(x, &why);
    return why.status != 0;
}

// A route that answers at once, with JSON that `write` appends.
void info_route(Exchange *x, const NetRoute *route) {
    Engine *e = exchange_ctx(x)->app;
    const Info *info = route->owner;
    if (engine_turns_away(e, x)) return;
    Json j = json_to(&e->text);
    buf_clear(&e->text);
    info->write(e, &j);
    reply_json(x, 200, buf_str(&e->text));
}

// ---- facts

static void write_health(Engine *e, Json *j) {
    (void)e;
    json_obj(j);
    json_kv_z(j, "status", "ok");
    json_end_obj(j);
}

static void write_models(Engine *e, Json *j) {
    str alias = str_z(e->o.alias);
    json_put_raw(j, S("{\"models\":[{\"name\":"));
    buf_add_json(j->out, alias);
    buf_add(j->out, S(",\"model\":"));
    buf_add_json(j->out, alias);
    buf_add(j->out, S(",\"modified_at\":\"\",\"size\":\"\",\"digest\":\"\",\"type\":\"model\","
                      "\"description\":\"\",\"tags\":[\"\"],\"capabilities\":[\"completion\"],"
                      "\"parameters\":\"\",\"details\":{\"parent_model\":\"\",\"format\":\"gguf\","
                      "\"family\":\"\",\"families\":[\"\"],\"parameter_size\":\"\","
                      "\"quantization_level\":\"\"}}],\"object\":\"list\",\"data\":[{\"id\":"));
    buf_add_json(j->out, alias);
    buf_add(j->out, S(",\"aliases\":["));
    buf_add_json(j->out, alias);
    buf_printf(j->out,
               "],\"tags\":[],\"object\":\"model\",\"created\":%lld,\"owned_by\":\"llamacpp\","
               "\"meta\":{\"vocab_type\":2,\"n_vocab\":49152,\"n_ctx\":%lld,\"n_ctx_train\":%lld,"
               "\"n_embd\":%lld,\"n_params\":134515008,\"size\":96576768,\"ftype\":\"Q4_1\"}}]}",
               (long long)os_wall_ms(e->os) / 1000, (long long)options_context(&e->o),
               (long long)options_context(&e->o), (long long)e->o.dimensions);
}

static void write_props(Engine *e, Json *j) {
    json_obj(j);
    json_key(j, "default_generation_settings");
    json_obj(j);
    json_kv_raw(j, "params", str_z(params_text));
    json_kv_i64(j, "n_ctx", options_context(&e->o));
    json_end_obj(j);
    json_kv_i64(j, "total_slots", e->o.slots);
    json_kv_z(j, "model_alias", e->o.alias);
    json_kv_z(j, "model_ftype", "Q4_1");
    json_kv_z(j, "model_path", e->o.model);
    json_kv_raw(j, "modalities", S("{\"vision\":false,\"video\":false,\"audio\":false}"));
    json_kv_z(j, "media_marker", "<__media__>");
    json_kv_bool(j, "endpoint_slots", !e->o.no_slots);
    json_kv_bool(j, "endpoint_props", false);
    json_kv_bool(j, "endpoint_metrics", e->o.metrics);
    json_kv_bool(j, "ui", false);
    json_kv_raw(j, "ui_settings", S("{}"));
    json_kv_z(j, "chat_template", template_text);
    json_kv_raw(j, "chat_template_caps",
                S("{\"supports_object_arguments\":true,\"supports_parallel_tool_calls\":true,"
                  "\"supports_preserve_reasoning\":false,\"supports_reasoning_effort\":false,"
                  "\"supports_string_content\":true,\"supports_system_role\":true,"
                  "\"supports_tool_calls\":true,\"supports_tools\":true,"
                  "\"supports_typed_content\":false}"));
    json_kv_z(j, "bos_token", "<|im_start|>");
    json_kv_z(j, "eos_token", "<|im_end|>");
    json_kv_z(j, "build_info", e->fingerprint);
    json_kv_bool(j, "is_sleeping", false);
    json_kv_bool(j, "cors_proxy_enabled", false);
    json_end_obj(j);
}

static void write_slot(Engine *e, int64_t i, Json *j) {
    const Job *job = e->slots[i];
    json_obj(j);
    json_kv_i64(j, "id", i);
    json_kv_i64(j, "n_ctx", options_context(&e->o));
    json_kv_bool(j, "speculative", false);
    json_kv_bool(j, "is_processing", job != NULL);
    if (job) {
        json_kv_i64(j, "id_task", job->record->ordinal);
        json_kv_i64(j, "n_prompt_tokens", job->record->prompt_tokens);
        json_kv_i64(j, "n_prompt_tokens_processed", job->record->prompt_tokens);
        json_kv_i64(j, "n_prompt_tokens_cache", 0);
        json_kv_raw(j, "params", str_z(params_text));
        json_key(j, "next_token");
        json_arr(j);
        json_obj(j);
        json_kv_bool(j, "has_next_token", job->made < job->total);
        json_kv_bool(j, "has_new_line", false);
        json_kv_i64(j, "n_remain", job->total - job->made);
        json_kv_i64(j, "n_decoded", job->made);
        json_end_obj(j);
        json_end_arr(j);
    }
    json_end_obj(j);
}
static void write_slots(Engine *e, Json *j) {
    json_arr(j);
    for (int64_t i = 0; i < e->o.slots; i++) write_slot(e, i, j);
    json_end_arr(j);
}

void slots_route(Exchange *x, const NetRoute *route) {
    Engine *e = exchange_ctx(x)->app;
    static const Refusal off = {
        501, "not_supported_error",
        "This server does not support slots endpoint. Start it with `--slots`"
    };
    if (!e->o.no_slots) info_route(x, route);
    else if (!engine_turns_away(e, x)) reply_refusal(x, &off);
}

// ---- metrics

static void add_metric(Buf *b, const char *name, const char *type, int64_t value) {
    buf_printf(b,
               "# HELP llamacpp:%s As llama-server counts it.\n# TYPE llamacpp:%s %s\n"
               "llamacpp:%s %lld\n",
               name, name, type, name, (long long)value);
}

void metrics_route(Exchange *x, const NetRoute *route) {
    static const char *const zero[] = { "prompt_tokens_cached_total",
                                        "prompt_seconds_total",
                                        "tokens_predicted_seconds_total",
                                        "n_decode_total",
                                        "n_tokens_max",
                                        "spec_decode_num_draft_tokens_total",
                                        "spec_decode_num_accepted_tokens_total",
                                        "spec_decode_num_drafts_total" };
    static const char *const gauges[] = { "prompt_tokens_seconds", "predicted_tokens_seconds",
                                          "n_busy_slots_per_decode" };
    static const Refusal off = {
        501, "not_supported_error",
        "This server does not support metrics endpoint. Start it with `--metrics`"
    };
    Engine *e = exchange_ctx(x)->app;
    Buf *b = &e->text;
    (void)route;
    if (engine_turns_away(e, x)) return;
    if (!e->o.metrics) {
        reply_refusal(x, &off);
        return;
    }
    buf_clear(b);
    add_metric(b, "prompt_tokens_total", "counter", ledger_prompt(e->ledger));
    add_metric(b, "tokens_predicted_total", "counter", ledger_completion(e->ledger));
    for (size_t i = 0; i < countof(zero); i++) add_metric(b, zero[i], "counter", 0);
    for (size_t i = 0; i < countof(gauges); i++) add_metric(b, gauges[i], "gauge", 0);
    add_metric(b, "requests_processing", "gauge", e->busy);
    add_metric(b, "requests_deferred", "gauge", e->waiting);
    exchange_reply(x, 200, "text/plain; version=0.0.4", buf_str(b));
}

// ---- the ledger

static void write_ledger(Engine *e, Json *j) { ledger_json(e->ledger, j); }
static void write_options(Engine *e, Json *j) { options_json(&e->o.b, j); }

void requests_route(Exchange *x, const NetRoute *route) {
    static const Refusal unknown = { 404, "not_found_error", "no such request" };
    Engine *e = exchange_ctx(x)->app;
    Json j = json_to(&e->text);
    (void)route;
    buf_clear(&e->text);
    if (ledger_find(e->ledger, exchange_request(x)->params[0], &j))
        reply_json(x, 200, buf_str(&e->text));
    else reply_refusal(x, &unknown);
}

const Info info_health = { write_health }, info_models = { write_models },
           info_props = { write_props }, info_slots = { write_slots },
           info_ledger = { write_ledger }, info_options = { write_options };
