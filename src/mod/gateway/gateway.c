// SPDX-License-Identifier: Apache-2.0
// gateway.c - descriptor; gauges of the queues. The way of a request is flow.c and the stages.
#include "mod/gateway/gateway.h"
#include "mod/gateway/advice.h"
#include "mod/gateway/chat.h"
#include "mod/gateway/flow.h"

static err gateway_init(Ctx *c);

const Module gateway_module = {
    .name = "gateway",
    .needs = "access deployment dialect response route trace usage",
    .routes = gateway_routes,
    .settings = gateway_settings,
    .metrics = gateway_metrics,
    .reasons = gateway_reasons,
    .verbs = gateway_verbs,
    .init = gateway_init,
    .advise = gateway_advise,
    .en = "Every model behind one endpoint",
    .zh = "统一的模型入口",
};
static void collect(void *arg) {
    Ctx *c = app_ctx_new(arg);
    LineView *views;
    size_t n = lines_view(c, &views);
    for (size_t i = 0; i < n; i++) {
        metric_set(&gateway_waiting, (double)views[i].waiting, views[i].deployment);
        metric_set(&gateway_running, (double)views[i].running, views[i].deployment);
    }
    app_ctx_free(c);
}

static err gateway_init(Ctx *c) {
    metric_collector(collect, app_of(c));
    snapshot_on_swap(lines_refresh, NULL);
    return ERR_OK;
}

#define ALL_REASONS(X) GATEWAY_REASONS(X) GATEWAY_ADVICE_REASONS(X)
REASONS_DEFINE(ALL_REASONS, gateway_reasons)
