// SPDX-License-Identifier: Apache-2.0
// model.c - see sim_run.h: a small GGUF file on each server's disk, versions that are made of it
// (its facts are read by a child), and the deployment `own` that is launched of the first one.
#include "os/thread.h"
#include "sim_run.h"

enum { WAIT_MS = 200 };

// Format: ggml's docs/gguf.md. One F32 tensor of 32 × 4.
static void put(Buf *b, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) buf_add_char(b, (char)(value >> 8 * i));
}
static void put_text(Buf *b, const char *s) { put(b, strlen(s), 8), buf_add(b, str_z(s)); }
static void key_text(Buf *b, const char *key, const char *value) {
    put_text(b, key), put(b, 8, 4), put_text(b, value);
}
static void key_number(Buf *b, const char *key, uint32_t value) {
    put_text(b, key), put(b, 4, 4), put(b, value, 4);
}

static void gguf(Buf *b) {
    buf_add(b, S("GGUF")), put(b, 3, 4), put(b, 1, 8), put(b, 10, 8);
    key_text(b, "general.architecture", "llama");
    key_text(b, "general.name", "simulated");
    key_text(b, "tokenizer.ggml.model", "gpt2");
    key_text(b, "tokenizer.chat_template", "{{ messages }}");
    key_number(b, "llama.context_length", 5000);
    key_number(b, "llama.embedding_length", 32);
    key_number(b, "llama.block_count", 2);
    key_number(b, "llama.attention.head_count", 4);
    key_number(b, "llama.feed_forward_length", 64);
    key_number(b, "llama.vocab_size", 4);
    put_text(b, "token_embd.weight");
    put(b, 2, 4), put(b, 32, 8), put(b, 4, 8), put(b, 0, 4), put(b, 0, 8);
    while (b->n % 32) buf_add_char(b, 0);
    buf_add_repeat(b, 'w', 32 * 4 * 4);
}

static err write_file(World *w, Ctx *c, int node) {
    Os *mine = c->os;
    Buf b;
    buf_init(&b, 1 << 20);
    gguf(&b);
    c->os = sim_node(w->sim, node);
    err e = dir_make(c, S("/models"), 0755);
    if (!e) e = file_write_all(c, S("/models/m.gguf"), buf_str(&b), 0);
    c->os = mine;
    buf_done(&b);
    return e;
}

static bool version_ready(World *w, Ctx *c) {
    Reply r = ask(c, &w->servers[0].at, HTTP_GET, "/lathe/v1/model_versions", w->admin, (str){ 0 });
    snprintf(w->waits, sizeof w->waits, "%d " STR_FMT, r.status, STR_ARG(str_sub(r.body, 0, 1500)));
    return r.status == 200 && str_find(r.body, S("\"state\":\"ready\"")) >= 0;
}

bool model_setup(World *w, Ctx *c) {
    for (int i = 0; i < w->servers_n; i++)
        if (write_file(w, c, w->servers[i].node)) {
            world_fail(w, "the model's file cannot be written");
            return false;
        }
    if (!work_make(w, c, "/lathe/v1/models", "{\"name\":\"m\"}", NULL)) return false;
    Reply r = ask(c, &w->servers[0].at, HTTP_POST, "/lathe/v1/models/m/import", w->admin,
                  S("{\"path\":\"/models/m.gguf\"}"));
    if (r.status != 202) {
        world_fail(w, "import: %d " STR_FMT, r.status, STR_ARG(r.body));
        return false;
    }
    while (!w->failed && !version_ready(w, c)) {
        arena_reset(c->mem);
        thread_pause(c->os, WAIT_MS * 1000000);
    }
    w->replicas = 1 + (int)sim_random(w->sim, REPLICAS_MOST);
    str body = arena_printf(
        c->mem, "{\"name\":\"own\",\"model\":\"m\",\"replicas\":%d,\"slots\":2}", w->replicas);
    return work_make(w, c, "/lathe/v1/deployments", body.p, NULL);
}

// ---- one version after the other, while clients work

void import_again(Client *k) {
    World *w = k->w;
    Reply r = ask(k->c, &w->servers[k->server].at, HTTP_POST, "/lathe/v1/models/m/import", w->admin,
                  S("{\"path\":\"/models/m.gguf\"}"));
    w->operations++;
    if (r.status && r.status < 500 && r.status != 202)
        world_fail(w, "import: %d " STR_FMT, r.status, STR_ARG(r.body));
}

static void look_at_version(Look *l, yyjson_val *row, void *arg) {
    str state = json_get_str(row, "state"), reason = json_get_str(row, "state_reason");
    str id = json_get_str(row, "id");
    bool *settled = arg;
    if (str_is(state, "ready")) {
        if (!str_is(json_get_str(json_get(row, "facts"), "architecture"), "llama"))
            world_fail(l->w, "version " STR_FMT " is ready without its facts", STR_ARG(id));
    } else if (!str_is(state, "failed")) {
        *settled = false;
        snprintf(l->w->waits, sizeof l->w->waits, "version " STR_FMT " is " STR_FMT ": " STR_FMT,
                 STR_ARG(id), STR_ARG(state), STR_ARG(reason));
    } else if (!reason.n) {
        world_fail(l->w, "version " STR_FMT " has failed and says not why", STR_ARG(id));
    }
}

bool versions_settled(Look *l, const Server *s) {
    bool settled = true;
    (void)s;
    look_each(l, "/lathe/v1/model_versions", look_at_version, &settled);
    return settled;
}
