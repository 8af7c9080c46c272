// SPDX-License-Identifier: Apache-2.0
// watch.h - private to deployment: what is known of replicas between turns: probes, and requests in
// flight. Threads: any, unless said otherwise.
#ifndef LATHE_MOD_DEPLOYMENT_WATCH_H
#define LATHE_MOD_DEPLOYMENT_WATCH_H
#include "mod/deployment/decide.h"

// ---- probe.c: is it there. Any thread; the calls run on loops[0].
typedef struct ProbeSpec {
    str id, host, resolve; // resolve: a name to look up, absent: addr
    str health;            // attached: what is asked
    bool may_lack_health;  // 404 and 405 say as well that it is there
    HttpHeader headers[ENDPOINT_HEADERS];
    size_t headers_n;
    Addr addr;
    int port;
    const Engine *engine;
    Task task;
    bool tls;
    bool trusted; // it has answered a trial request before: health is enough
} ProbeSpec;
typedef struct ProbeView {
    ProbeState state;
    str text, address;
    int64_t silent_ms;
} ProbeView;
void probes_open(App *app, void (*changed)(void));
void probes_close(void);                 // when no loop runs
void probe_start(const ProbeSpec *spec); // nothing when there is one of that id
void probe_view(Arena *mem, str id, ProbeView *out);
void probe_poke(str id);
void probes_keep(bool (*wanted)(void *arg, str id), void *arg); // stops the others

// ---- flight.c: requests in flight
int64_t flight_count(str replica_id, bool watch); // watch: idle() when it falls to zero
void flight_watch(void (*idle)(void));
void flight_forget(str replica_id);
void flight_close(void);

#endif
