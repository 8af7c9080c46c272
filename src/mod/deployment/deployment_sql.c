// SPDX-License-Identifier: Apache-2.0
// deployment_sql.c - migrations. Rows go through res/.
#include "mod/deployment/deployment_own.h"

const Migration deployment_migrations[] = {
    { 1,
      "CREATE TABLE deployments (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT "
      "NULL, "
      "project TEXT NOT NULL, model TEXT, task TEXT, engine TEXT NOT NULL, replicas BIGINT, "
      "context BIGINT, slots BIGINT, threads BIGINT, cache TEXT, queue_max BIGINT, queue_ms "
      "BIGINT, "
      "drain_ms BIGINT, endpoint TEXT, stopped BIGINT NOT NULL, restart_at BIGINT, serves TEXT, "
      "state TEXT, "
      "state_reason TEXT, ready_replicas BIGINT, rollout BIGINT, memory_needed BIGINT, "
      "memory_available BIGINT, serving TEXT, node TEXT, replicas_status TEXT, "
      "generation BIGINT NOT NULL, observed_generation BIGINT, deleting_at BIGINT, conditions "
      "TEXT, "
      "revision BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, "
      "created_by TEXT);"
      "CREATE UNIQUE INDEX deployments_name ON deployments (project, name);"
      "CREATE INDEX deployments_model ON deployments (project, model);"
      "CREATE INDEX deployments_engine ON deployments (project, engine);"
      "CREATE INDEX deployments_stopped ON deployments (project, stopped);"
      "CREATE INDEX deployments_state ON deployments (project, state);"
      "CREATE INDEX deployments_created ON deployments (project, created_at);",
      NULL },
    { 2,                                 // what lists are sorted and filtered by
      LIST_IDS("deployments", "project") //
      LIST_INDEX_UNSET("deployments", "project", "model", "''")  //
      LIST_INDEX_UNSET("deployments", "project", "engine", "''") //
      LIST_INDEX("deployments", "project", "stopped")            //
      LIST_INDEX_UNSET("deployments", "project", "state", "''")  //
      LIST_INDEX("deployments", "project", "created_at")         //
      "DROP INDEX deployments_model; DROP INDEX deployments_engine; DROP INDEX "
      "deployments_stopped; DROP INDEX deployments_state; DROP INDEX deployments_created;",
      NULL },
};
const size_t deployment_migrations_n = countof(deployment_migrations);
