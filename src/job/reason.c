// SPDX-License-Identifier: Apache-2.0
// reason.c - the rows of reason.h.
#include "job/reason.h"

REASONS_DEFINE(JOB_REASONS, job_reasons)
