// SPDX-License-Identifier: Apache-2.0
// access_own.h - private to access: its resources' structs.
#ifndef LATHE_MOD_ACCESS_OWN_H
#define LATHE_MOD_ACCESS_OWN_H
#include "mod/access/access.h"

typedef struct Organisation {
    Head head;
    str title;
    Limits limits;
} Organisation;
typedef struct Project {
    Head head;
    str title;
    int recording; // recordings[]: whether prompts and answers are kept
    int64_t recording_percent, recording_days;
    int64_t responses_days; // UNSET_INT: as the server's setting says
    Limits limits;
} Project;
typedef struct User {
    Head head;
    str email, title;
    bool disabled;
} User;
typedef struct Role {
    Head head;
    str title;
    str *permissions;
    size_t permissions_n;
    bool builtin;
} Role;
typedef struct Member {
    Head head;
    str user, role, member_project;
} Member;
typedef struct ServiceAccount {
    Head head;
    str title;
    str *roles;
    size_t roles_n;
    bool disabled;
} ServiceAccount;
typedef struct ApiKey {
    Head head;
    str service_account, user, key, hint, hash;
    str owner; // the account, the user, else who made it
    str *scopes;
    size_t scopes_n;
    Limits limits;
    int64_t expires_at, last_used_at;
    bool disabled;
} ApiKey;
typedef struct AdminKey {
    Head head;
    str user, key, hint, hash,
        admin_org; // admin_org: the organisation it rules; absent: the system
    int64_t expires_at, last_used_at;
    bool disabled;
} AdminKey;

extern const Resource organisation_resource, project_resource, user_resource, role_resource,
    member_resource, service_account_resource, api_key_resource, admin_key_resource;
// access_flood.c: unknown keys, by the address they come from
enum { ACCESS_WRONG_KEYS, ACCESS_SETTINGS };
extern const Setting access_settings[ACCESS_SETTINGS + 1];
extern const Metric *const access_metrics[];
void flood_start(void);
void flood_stop(void); // nobody is identified any more
// After a key was refused: the failure to give, which may say to wait instead.
err flood_check(Ctx *c, const HttpRequest *r, err e);
err flood_note(Ctx *c, err e);      // only counts it
str flood_source(Ctx *c, str peer); // who is counted as one: the address, of IPv6 its /64
extern const Field limit_rows[];
extern const Limits limits_none;    // a key, a project, an organisation without any
extern const RoleRow access_roles[];
extern const Migration access_migrations[];
extern const size_t access_migrations_n;

// A new key: text to show once, what to store. Text is in c->mem.
void key_make(Ctx *c, str *out_key, str *out_hint, str *out_hash);
str key_hash(Ctx *c, str key); // SHA-256, hex
err first_start(Ctx *c);       // organisation, project, admin, key file: when there is none
err roles_seed(Ctx *c, Tx *tx, str org); // the built-in ones of every module, as rows
// Permissions, cut to a key's scopes; no scopes: all of them.
typedef struct Rights {
    str *at;
    size_t n;
} Rights;
Rights rights_cut(Arena *mem, Rights have, Rights scopes);
err may_give(Ctx *c, Tx *tx, str role); // one may not give away what one does not have
err api_key_check(Ctx *c, Tx *tx, const void *old, void *now);
err permissions_known(Ctx *c, const char *field, const str *at, size_t n);
err admin_key_check(Ctx *c, Tx *tx, const void *old, void *now);
err user_check(Ctx *c, Tx *tx, const void *old, void *now);
err access_identify(Ctx *c, const HttpRequest *r, bool on_loop);
err used_flush(Ctx *c, void *arg); // worker: last uses into SQL
#endif
