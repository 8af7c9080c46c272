// SPDX-License-Identifier: Apache-2.0
// child.c - see sim_run.h: the programs that servers start: shims, the reader of GGUF files, and
// the fake engine under llama-server's name. A shim runs on a loop of its own, the others are
// libraries with threads of their own. What may go wrong with an engine is drawn at its start.
#include "../fake/fake.h"
#include "job/executor.h"
#include "os/sim_pthread.h"
#include "os/thread.h"
#include "sim_run.h"
#include <signal.h>
#include <stdio.h>

static World *world; // one a process

// ---- what engines did

static void on_record(const Record *r) {
    World *w = world;
    if (!*r->id) return; // a probe's
    Run *run = NULL;
    for (size_t i = w->runs_n; i && r->outcome != OUT_ACTIVE && !run; i--)
        if (!strcmp(w->runs[i - 1].id, r->id) && w->runs[i - 1].record == r) run = &w->runs[i - 1];
    if (!run && w->runs_n < RUNS_MAX) run = &w->runs[w->runs_n++];
    if (!run) return;
    *run = (Run){ .record = r,
                  .prompt = r->prompt_tokens,
                  .written = r->completion_tokens,
                  .finished = r->outcome == OUT_FINISHED };
    snprintf(run->id, sizeof run->id, "%s", r->id);
}

void engine_watch(World *w, void *library) {
    world = w;
    void (**at)(const Record *) = program_symbol(library, "ledger_watch");
    *at = on_record;
}

// ---- children

static const char *option(const char *const *argv, const char *name) {
    for (size_t i = 0; argv[i] && argv[i + 1]; i++)
        if (!strcmp(argv[i], name)) return argv[i + 1];
    return "";
}

static Child *child_new(World *w, ChildKind kind, const char *const *argv,
                        void (*exit)(void *, int), void *proc) {
    if (w->children_n == CHILDREN_MAX) {
        world_fail(w, "more than %d children were started", CHILDREN_MAX);
        return NULL;
    }
    Child *ch = w->children[w->children_n++] = mem_new(sizeof *ch);
    *ch = (Child){ .w = w, .kind = kind, .proc = proc, .exit = exit, .node = sim_proc_node(proc) };
    ch->began_ns = os_mono_ns(sim_node(w->sim, NODE_CLIENT));
    snprintf(ch->socket, sizeof ch->socket, "%s", option(argv, "--host"));
    return ch;
}

static void ended(void *arg, int code) {
    Child *ch = arg;
    ch->exit(ch->proc, code);
}

static void *lathe_start(void *arg, Os *os, Loop *l, const char *const *argv,
                         void (*exit)(void *, int), void *proc) {
    World *w = arg;
    char program[600];
    if (argv[1] && !strcmp(argv[1], "shim")) {
        child_new(w, CHILD_SHIM, argv, exit, proc);
        return shim_start(NULL, os, l, argv, exit, proc);
    }
    Child *ch = child_new(w, CHILD_READER, argv, exit, proc);
    snprintf(program, sizeof program, STR_FMT "/lathe.so", STR_ARG(w->dir));
    if (ch) program_start(os, program, argv, ended, ch);
    return NULL;
}

// ---- the engine

enum { ARGS_MAX = 64, EXTRA_MAX = 8, NOISE_BYTES = 4000, NOISES_MAX = 60 };
typedef enum { MOOD_GOOD, MOOD_REFUSES, MOOD_DIES, MOOD_SILENT, MOOD_NOISY, MOODS } Mood;

static void run_refusal(void *arg) {
    Child *ch = arg;
    thread_pause(sim_thread_os(), (int64_t)sim_random(ch->w->sim, 300) * 1000000);
    sim_thread_write(2, S("0.00.001.000 E main: it was told to refuse\n"));
    sim_thread_exit(1);
}

static void run_noise(void *arg) {
    Child *ch = arg;
    char text[NOISE_BYTES];
    memset(text, 'n', sizeof text);
    text[sizeof text - 1] = '\n';
    for (int i = 0; i < NOISES_MAX; i++) {
        sim_thread_write(1 + i % 2, str_n(text, 1 + sim_random(ch->w->sim, sizeof text)));
        thread_pause(sim_thread_os(), (int64_t)sim_random(ch->w->sim, 20) * 1000000);
    }
}

static Mood draw_mood(World *w) {
    if (w->quiet || sim_random(w->sim, 3)) return MOOD_GOOD;
    return (Mood)sim_random(w->sim, MOODS);
}

static void run_engine(Child *ch, Os *os, const char *const *argv, Mood mood) {
    World *w = ch->w;
    char seed[32], after[32], program[600];
    const char *full[ARGS_MAX];
    size_t n = 0;
    while (argv[n] && n < ARGS_MAX - EXTRA_MAX) full[n] = argv[n], n++;
    snprintf(seed, sizeof seed, "%u", (unsigned)(w->seed % 1000000) + 1);
    snprintf(after, sizeof after, "%u", (unsigned)sim_random(w->sim, 40));
    full[n++] = "--seed", full[n++] = seed;
    full[n++] = "--token-ms", full[n++] = "20";
    bool ends = !w->quiet && !sim_random(w->sim, 4);
    ch->sick = ch->sick || ends;
    if (ends)
        full[n++] = sim_random(w->sim, 2) ? "--exit-after" : "--hang-after", full[n++] = after;
    full[n] = NULL;
    snprintf(program, sizeof program, STR_FMT "/fake-engine.so", STR_ARG(w->dir));
    void *library = program_start(os, program, full, ended, ch);
    engine_watch(w, library);
    if (mood == MOOD_NOISY) sim_thread_start(os, "noise", run_noise, ch, NULL);
}

static void *engine_start(void *arg, Os *os, Loop *l, const char *const *argv,
                          void (*exit)(void *, int), void *proc) {
    World *w = arg;
    Child *ch = child_new(w, CHILD_ENGINE, argv, exit, proc);
    Mood mood = draw_mood(w);
    (void)l;
    if (!ch) return NULL;
    w->faults += mood != MOOD_GOOD;
    ch->sick = mood != MOOD_GOOD && mood != MOOD_NOISY;
    check_start(w, ch);
    if (mood == MOOD_REFUSES) sim_thread_start(os, "refusal", run_refusal, ch, NULL);
    else if (mood == MOOD_DIES) sim_signal(proc, SIGSEGV);
    else if (mood != MOOD_SILENT) run_engine(ch, os, argv, mood);
    return NULL;
}

static void lathe_killed(void *handle, int signal) { shim_killed(handle, signal); }
static void engine_killed(void *handle, int signal) { (void)handle, (void)signal; }

void children_open(World *w) {
    world = w;
    sim_program(w->sim, &(SimProgram){ "lathe", lathe_start, lathe_killed, w });
    sim_program(w->sim, &(SimProgram){ "llama-server", engine_start, engine_killed, w });
}

// ---- faults

// One that lives, by chance; NULL: none of the kind on this node.
static Child *pick(World *w, ChildKind kind, int node) {
    Child *chosen = NULL;
    size_t n = 0;
    for (size_t i = 0; i < w->children_n; i++) {
        Child *ch = w->children[i];
        if (ch->kind == kind && ch->node == node && !sim_ended(ch->proc)
            && !sim_random(w->sim, ++n))
            chosen = ch;
    }
    return chosen;
}

void children_weather(World *w, int node) {
    static const int signals[] = { SIGKILL, SIGSEGV, SIGSTOP, SIGSTOP, SIGTERM };
    uint64_t dice = sim_random(w->sim, 10);
    Child *ch = dice < 4 ? pick(w, dice ? CHILD_ENGINE : CHILD_SHIM, node) : NULL;
    if (!ch) return;
    int signal = signals[sim_random(w->sim, countof(signals))];
    if (!dice) signal = sim_random(w->sim, 2) ? SIGKILL : SIGTERM; // a shim's
    sim_signal(ch->proc, signal);
    ch->sick = true;
    if (signal == SIGSTOP && sim_random(w->sim, 2)) w->stopped = ch;
    w->faults++;
}

void children_calm(World *w) {
    if (w->stopped) sim_signal(w->stopped->proc, SIGCONT);
    w->stopped = NULL;
}

// ---- what must hold of them

size_t children_alive(const World *w, ChildKind kind, int node) {
    size_t n = 0;
    for (size_t i = 0; i < w->children_n; i++) {
        const Child *ch = w->children[i];
        n += ch->kind == kind && (node < 0 || ch->node == node) && !sim_ended(ch->proc);
    }
    return n;
}

bool children_well(const World *w) {
    for (size_t i = 0; i < w->children_n; i++)
        if (w->children[i]->sick && !sim_ended(w->children[i]->proc)) return false;
    return true;
}

void children_say(const World *w) {
    static const char *const kinds[] = { "shim", "engine", "reader" };
    for (size_t i = 0; i < w->children_n; i++) {
        const Child *ch = w->children[i];
        if (!sim_ended(ch->proc))
            fprintf(stderr, "sim: %s of %s lives on node %d since %lld ms\n", kinds[ch->kind],
                    ch->socket, ch->node, (long long)(ch->began_ns / 1000000));
    }
}

// On one node no two processes are one replica.
void check_start(World *w, const Child *ch) {
    for (size_t i = 0; i < w->children_n; i++) {
        const Child *other = w->children[i];
        if (other != ch && other->kind == CHILD_ENGINE && other->node == ch->node
            && !sim_ended(other->proc) && !strcmp(other->socket, ch->socket))
            world_fail(w, "two processes are one replica at once: %s on node %d", ch->socket,
                       ch->node);
    }
}
