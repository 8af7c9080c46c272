// SPDX-License-Identifier: Apache-2.0
// lease_test.c - leases on both databases: who may take, and that a holder who lost it writes
// nothing, under many takers at once.
#include "job/job_test.h"

JOB_TEST(job_lease_is_one_holders_and_its_epoch_grows_with_each) {
    Ctx *c = f->c;
    Lease a, b;
    CHECK_OK(c, lease_take(c, f->db, S("deployment_1"), S("n1:x"), 60000, &a));
    CHECK(a.epoch == 1 && str_is(a.holder, "n1:x") && a.until_ms > os_wall_ms(c->os));
    CHECK_ERR(lease_take(c, f->db, S("deployment_1"), S("n2:y"), 60000, &b), ERR_CONFLICT);
    CHECK(c->failure.why == &R_LEASE_HELD && c->failure.retry_after_ms > 50000);
    CHECK_STR(failure_param(&c->failure, "holder"), "n1:x");
    CHECK_OK(c, lease_take(c, f->db, S("deployment_2"), S("n2:y"), 60000, &b)); // another object
    CHECK_OK(c, lease_take(c, f->db, S("deployment_1"), S("n1:x"), 90000, &b)); // renewed
    CHECK(b.epoch == 1 && b.until_ms > a.until_ms);
    CHECK_OK(c, job_fix_exec(f, "UPDATE lease SET until_ms = 1"));
    CHECK_OK(c, lease_take(c, f->db, S("deployment_1"), S("n1:x"), 1, &a)); // its own, expired
    CHECK_INT(a.epoch, 1);
    CHECK_OK(c, job_fix_exec(f, "UPDATE lease SET until_ms = 1"));
    CHECK_OK(c, lease_take(c, f->db, S("deployment_1"), S("n2:y"), 60000, &b));
    CHECK_INT(b.epoch, 2);
    CHECK_OK(c, lease_drop(c, f->db, &a)); // not ours any more: nothing happens
    CHECK_ERR(lease_take(c, f->db, S("deployment_1"), S("n1:x"), 60000, &a), ERR_CONFLICT);
    CHECK_OK(c, lease_drop(c, f->db, &b));
    CHECK_OK(c, lease_take(c, f->db, S("deployment_1"), S("n2:y"), 60000, &b));
    CHECK_INT(b.epoch, 3); // also when the same holder comes back
}

JOB_TEST(job_lease_that_ran_out_is_left_to_its_holder_by_who_was_away) {
    Ctx *c = f->c;
    Lease a, b;
    CHECK_OK(c, lease_take_free(c, f->db, S("o"), S("a"), 60000, &a)); // nobody's yet
    CHECK_OK(c, job_fix_exec(f, "UPDATE lease SET until_ms = 1"));
    CHECK_ERR(lease_take_free(c, f->db, S("o"), S("b"), 60000, &b), ERR_CONFLICT);
    CHECK(c->failure.why == &R_LEASE_HELD && !c->failure.retry_after_ms);
    CHECK_OK(c, lease_take_free(c, f->db, S("o"), S("a"), 60000, &b));
    CHECK_INT(b.epoch, a.epoch);
    CHECK_OK(c, lease_drop(c, f->db, &b));
    CHECK_OK(c, lease_take_free(c, f->db, S("o"), S("b"), 60000, &b)); // let go
    CHECK_INT(b.epoch, 2);
}

JOB_TEST(job_leases_are_renewed_together_but_for_those_that_are_lost) {
    Ctx *c = f->c;
    Lease one, two, theirs;
    bool ours[2];
    CHECK_OK(c, lease_take(c, f->db, S("1"), S("a"), 60000, &one));
    CHECK_OK(c, lease_take(c, f->db, S("2"), S("a"), 60000, &two));
    CHECK_OK(c, job_fix_exec(f, "UPDATE lease SET until_ms = 1"));
    CHECK_OK(c, lease_take(c, f->db, S("2"), S("b"), 60000, &theirs));
    const Lease *const held[] = { &one, &two };
    CHECK_OK(c, lease_renew(c, f->db, held, 2, 90000, ours));
    CHECK(ours[0] && !ours[1]);
    CHECK_ERR(lease_take(c, f->db, S("1"), S("b"), 60000, &theirs), ERR_CONFLICT);
    CHECK(c->failure.retry_after_ms > 60000);
    CHECK_INT(job_fix_int(f, "SELECT epoch FROM lease WHERE object = '1'"), one.epoch);
    CHECK_OK(c, lease_renew(c, f->db, held, 0, 90000, ours));
}

static SQL(log_add, "INSERT INTO written (seq, epoch) SELECT COALESCE(MAX(seq), 0) + 1, $1"
                    " FROM written");

static err guarded_write(Ctx *c, Tx *tx, void *arg) {
    const Lease *l = arg;
    TRY(lease_guard(c, tx, l));
    return db_run(c, tx, &log_add, V(l->epoch));
}

JOB_TEST(job_lease_lost_writes_nothing) {
    Ctx *c = f->c;
    Lease a, b;
    CHECK_OK(c, job_fix_exec(f, "CREATE TABLE written (seq INTEGER, epoch INTEGER)"));
    CHECK_OK(c, lease_take(c, f->db, S("o"), S("a"), 60000, &a));
    CHECK_OK(c, db_tx(c, f->db, guarded_write, &a));
    CHECK_OK(c, job_fix_exec(f, "UPDATE lease SET until_ms = 1"));
    CHECK_OK(c, db_tx(c, f->db, guarded_write, &a)); // expired, but nobody took it
    CHECK_OK(c, lease_take(c, f->db, S("o"), S("b"), 60000, &b));
    CHECK_ERR(db_tx(c, f->db, guarded_write, &a), ERR_LOST);
    CHECK(c->failure.why == &R_LEASE_LOST);
    CHECK_OK(c, db_tx(c, f->db, guarded_write, &b));
    CHECK_OK(c, lease_drop(c, f->db, &b));
    CHECK_ERR(db_tx(c, f->db, guarded_write, &b), ERR_LOST);
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM written"), 3);
}

// Takers whose leases run out at once, each writing under its guard all the time: what is written
// must carry epochs that never go back.
enum { TAKERS = 6, ROUNDS = 40 };
typedef struct Taker {
    Db *db;
    const char *name;
    int wrote, lost, failed;
    Thread thread;
} Taker;

static void taker_run(void *arg) {
    Taker *t = arg;
    for (int i = 0; i < ROUNDS; i++) {
        Ctx *c = suite_ctx(t->db);
        Lease l;
        err e = lease_take(c, t->db, S("o"), str_z(t->name), 1, &l);
        for (int k = 0; !e && k < 3; k++) {
            e = db_tx(c, t->db, guarded_write, &l);
            if (!e) t->wrote++;
        }
        if (e == ERR_LOST) t->lost++;
        else if (e && e != ERR_CONFLICT && e != ERR_UNAVAILABLE) t->failed++;
        suite_ctx_free(c);
    }
}

JOB_TEST(job_lease_race_fences) {
    static const char *const names[TAKERS] = { "a", "b", "c", "d", "e", "f" };
    Taker takers[TAKERS] = { 0 };
    Db *second;
    CHECK_OK(f->c, job_fix_exec(f, "CREATE TABLE written (seq INTEGER, epoch INTEGER)"));
    CHECK_OK(f->c, db_open(f->c, &(DbConfig){ .url = f->url }, &second)); // as another node would
    for (int i = 0; i < TAKERS; i++) {
        takers[i] = (Taker){ .db = i % 2 ? second : f->db, .name = names[i] };
        thread_start(f->c->os, "taker", taker_run, &takers[i], &takers[i].thread);
    }
    int wrote = 0, failed = 0;
    for (int i = 0; i < TAKERS; i++) {
        thread_join(takers[i].thread);
        wrote += takers[i].wrote;
        failed += takers[i].failed;
    }
    db_close(second);
    CHECK_INT(failed, 0);
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM written"), wrote);
    CHECK_INT(job_fix_int(f, "SELECT count(DISTINCT seq) FROM written"), wrote);
    CHECK(job_fix_int(f, "SELECT count(DISTINCT epoch) FROM written") > 3);
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM written x JOIN written y"
                             " ON y.seq = x.seq + 1 WHERE y.epoch < x.epoch"),
              0);
}
