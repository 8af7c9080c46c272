// SPDX-License-Identifier: Apache-2.0
// metric_own.h - private to the kit: the metrics that the server tells of itself and its machine.
#ifndef LATHE_RES_METRIC_OWN_H
#define LATHE_RES_METRIC_OWN_H
#include "res/app.h"
#include "net/server.h"

extern const Metric *const own_metrics[];
void metric_own_collect(void *app); // a collector (metric.h); reads the database once
// In the transaction of a job's change: how long it took is counted when that has committed.
void metric_job(Ctx *c, Tx *tx, const JobView *v);
#endif
