// SPDX-License-Identifier: Apache-2.0
// access_sql.c - migrations.
#include "mod/access/access_own.h"

#define TAIL                                                                             \
    "revision BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, " \
    "created_by TEXT);"
const Migration access_migrations[] = {
    { 1,
      "CREATE TABLE organisations (id TEXT PRIMARY KEY, name TEXT NOT NULL, title TEXT, " TAIL
      "CREATE UNIQUE INDEX organisations_name ON organisations (name);"
      "CREATE TABLE projects (id TEXT PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT NULL, title "
      "TEXT, recording TEXT NOT NULL, "
      "recording_percent BIGINT, recording_days BIGINT, " TAIL
      "CREATE UNIQUE INDEX projects_name ON projects (org, name);"
      "CREATE TABLE users (id TEXT PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT NULL, email TEXT, "
      "title TEXT, "
      "disabled BIGINT NOT NULL, " TAIL "CREATE UNIQUE INDEX users_name ON users (org, name); "
      "CREATE INDEX users_email ON users (org, email);"
      "CREATE TABLE roles (id TEXT PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT NULL, title TEXT, "
      "permissions TEXT NOT NULL, "
      "builtin BIGINT NOT NULL, " TAIL "CREATE UNIQUE INDEX roles_name ON roles (org, name);"
      "CREATE TABLE members (id TEXT PRIMARY KEY, org TEXT NOT NULL, \"user\" TEXT NOT NULL, role "
      "TEXT NOT NULL, member_project TEXT, " TAIL
      "CREATE INDEX members_user ON members (org, \"user\");"
      "CREATE TABLE service_accounts (id TEXT PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT NULL, "
      "project TEXT NOT NULL, title TEXT, "
      "roles TEXT NOT NULL, disabled BIGINT NOT NULL, " TAIL
      "CREATE UNIQUE INDEX service_accounts_name ON service_accounts (project, name);"
      "CREATE TABLE api_keys (id TEXT PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT NULL, project "
      "TEXT NOT NULL, service_account TEXT, "
      "scopes TEXT NOT NULL, limits TEXT NOT NULL, expires_at BIGINT, disabled BIGINT NOT NULL, "
      "hint TEXT, last_used_at BIGINT, "
      "owner TEXT, hash TEXT NOT NULL, " TAIL
      "CREATE UNIQUE INDEX api_keys_name ON api_keys (project, name); CREATE UNIQUE INDEX "
      "api_keys_hash ON api_keys (hash);"
      "CREATE TABLE admin_keys (id TEXT PRIMARY KEY, name TEXT NOT NULL, \"user\" TEXT, admin_org "
      "TEXT, expires_at BIGINT, "
      "disabled BIGINT NOT NULL, hint TEXT, last_used_at BIGINT, hash TEXT NOT NULL, " TAIL
      "CREATE UNIQUE INDEX admin_keys_name ON admin_keys (name); CREATE UNIQUE INDEX "
      "admin_keys_hash ON admin_keys (hash);",
      NULL },
    { 2,                                         // what lists are sorted and filtered by
      LIST_SYSTEM("organisations", "created_at") //
      LIST_IDS("projects", "org") LIST_INDEX("projects", "org", "created_at")         //
      LIST_IDS("users", "org") LIST_INDEX_UNSET("users", "org", "email", "''")        //
      LIST_INDEX("users", "org", "disabled") LIST_INDEX("users", "org", "created_at") //
      "DROP INDEX users_email;"                                                       //
      LIST_IDS("roles", "org") LIST_INDEX("roles", "org", "builtin")                  //
      LIST_INDEX("roles", "org", "created_at")                                        //
      LIST_IDS("members", "org") LIST_INDEX("members", "org", "user")                 //
      LIST_INDEX("members", "org", "role")                                            //
      LIST_INDEX_UNSET("members", "org", "member_project", "''")                      //
      LIST_INDEX("members", "org", "created_at") "DROP INDEX members_user;"           //
      LIST_IDS("service_accounts", "project")                                         //
      LIST_INDEX("service_accounts", "project", "disabled")                           //
      LIST_INDEX("service_accounts", "project", "created_at")                         //
      LIST_IDS("api_keys", "project")                                                 //
      LIST_INDEX_UNSET("api_keys", "project", "service_account", "''")                //
      LIST_INDEX_UNSET("api_keys", "project", "expires_at", "0")                      //
      LIST_INDEX("api_keys", "project", "disabled")                                   //
      LIST_INDEX_UNSET("api_keys", "project", "owner", "''")                          //
      LIST_INDEX("api_keys", "project", "created_at")                                 //
      LIST_SYSTEM_UNSET("admin_keys", "admin_org", "''")                              //
      LIST_SYSTEM_UNSET("admin_keys", "expires_at", "0")                              //
      LIST_SYSTEM("admin_keys", "disabled") LIST_SYSTEM("admin_keys", "created_at"),
      NULL },
    { 3, // whose keys they are, when an owner changes
      "CREATE INDEX api_keys_owner ON api_keys (owner);"
      "CREATE INDEX members_of ON members (\"user\");",
      NULL },
    { 4,
      "ALTER TABLE organisations ADD COLUMN limits TEXT;"
      "ALTER TABLE projects ADD COLUMN limits TEXT;",
      NULL },
    { 5, // keys no longer go unasked with their account: 0 is REF_RESTRICT
      "UPDATE ref SET rule = 0 WHERE owner_kind = 'api_key' AND target_kind = 'service_account';",
      NULL },
    { 6, // a person's
      "ALTER TABLE api_keys ADD COLUMN \"user\" TEXT;"
      LIST_INDEX_UNSET("api_keys", "project", "user", "''"),
      NULL },
    { 7, "ALTER TABLE projects ADD COLUMN responses_days BIGINT;", NULL },
};
const size_t access_migrations_n = countof(access_migrations);
