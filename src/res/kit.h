// SPDX-License-Identifier: Apache-2.0
// kit.h - the heart as a module of its own: its settings, metrics, health, OpenAPI, jobs and
// retention are rows like everyone's.
#ifndef LATHE_RES_KIT_H
#define LATHE_RES_KIT_H
#include "res/app.h"

extern const Module kit_module, job_module, event_module;
enum {
    KIT_DATA,
    KIT_LISTEN,
    KIT_SOCKET,
    KIT_PROXIES,
    KIT_LOOPS,
    KIT_WORKERS,
    KIT_JOB_WORKERS,
    KIT_DRAIN,
    KIT_MEMORY,
    KIT_CONNECTIONS,
    KIT_HEAD_TIMEOUT,
    KIT_IDLE_TIMEOUT,
    KIT_BODY_TIMEOUT,
    KIT_WRITE_TIMEOUT,
    KIT_NODE,
    KIT_DB,
    KIT_DB_READERS,
    KIT_DB_SNAPSHOTS,
    KIT_LOG_LEVEL,
    KIT_LOG_FORMAT,
    KIT_KEEP_JOBS,
    KIT_KEEP_ANSWERS,
    KIT_SETTINGS
};
extern const Setting kit_settings[KIT_SETTINGS + 1];
static inline int64_t kit_int(int which) { return setting_int(&kit_settings[which]); }
static inline str kit_text(int which) { return setting_text(&kit_settings[which]); }
extern const Metric metric_http_duration;
extern const Route job_routes[]; // job_routes.c
extern const Retention kit_retentions[];
err retain_run(Ctx *c);   // every module's retention rows, once
err retain_start(Ctx *c); // hourly, under a lease
void retain_stop(void *app);
extern const CliVerb kit_verbs[]; // cli.c
#endif
