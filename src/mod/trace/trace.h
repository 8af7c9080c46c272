// SPDX-License-Identifier: Apache-2.0
// trace.h - one wide record per request, its content as the project's recording says, roll-ups per
// minute, and the GenAI metrics
// (OpenTelemetry semantic conventions for generative AI). Everything is told by usage's folding;
// the gateway calls only trace_live.
#ifndef LATHE_MOD_TRACE_H
#define LATHE_MOD_TRACE_H
#include "mod/usage/usage.h"

// Whether this project keeps prompts and answers of this request: all, none, or sampled by request
// id. From the snapshot; loops.
bool trace_records_content(const Snapshot *s, str project, str request_id);
void trace_live(const RequestRecord *r); // metrics of a request that has just ended; loops
extern const SnapshotPart trace_part;
extern const Module trace_module;
#endif
