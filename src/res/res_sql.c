// SPDX-License-Identifier: Apache-2.0
// res_sql.c - tables of the heart itself: who refers to whom, and answers remembered by
// Idempotency-Key.
#include "res/table.h"

const Migration res_migrations[] = {
    { 1,
      "CREATE TABLE ref (owner_kind TEXT NOT NULL, owner_id TEXT NOT NULL, path TEXT NOT NULL, "
      "target_kind TEXT NOT NULL, "
      "target_id TEXT NOT NULL, rule BIGINT NOT NULL, PRIMARY KEY (owner_id, path));"
      "CREATE INDEX ref_target ON ref (target_id);"
      "CREATE TABLE idempotency (scope TEXT NOT NULL, idem_key TEXT NOT NULL, hash TEXT NOT NULL, "
      "status BIGINT NOT NULL, "
      "body TEXT NOT NULL, at_ms BIGINT NOT NULL, PRIMARY KEY (scope, idem_key));"
      "CREATE INDEX idempotency_age ON idempotency (at_ms);",
      NULL },
};
const size_t res_migrations_n = countof(res_migrations);
