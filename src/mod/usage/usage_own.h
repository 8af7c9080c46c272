// SPDX-License-Identifier: Apache-2.0
// usage_own.h - private to usage: its resources, the packed form of a record, the folding into SQL.
#ifndef LATHE_MOD_USAGE_OWN_H
#define LATHE_MOD_USAGE_OWN_H
#include "mod/usage/usage.h"

typedef struct UsageRow { // one attempt, as the API shows it
    Head head;            // id: the attempt's
    str request_id, key_id, owner, model, deployment, replica, version, end_user, error_class,
        currency, price_id;
    int operation, outcome;
    int64_t status, attempt, started_at, ended_at, prompt_tokens, cached_tokens, completion_tokens,
        machine_us, cost;
    bool streamed, tokens_exact;
} UsageRow;
typedef struct PriceRow {
    Head head;
    str model, currency, price_project;
    int64_t input, cached, output, machine_second;
    bool active; // of those of one model and place the newest
} PriceRow;
// price_row.c: prices as rows
err price_check(Ctx *c, Tx *tx, const void *old, void *now);
err price_stage(Ctx *c, Tx *tx, const void *old, const void *now);
struct Advice;
err price_advise(Ctx *c, Tx *tx, const Resource *r, const void *now, struct Advice *out);

#define USAGE_REASONS(X)                                                                       \
    X(PRICE_CURRENCY, "price_currency",                                                        \
      "field currency: an organisation has one, and price {price} is in {currency}: a budget " \
      "could not be kept in two",                                                              \
      "字段 currency：一个组织只用一种币种，而价格 {price} 的币种为 "     \
      "{currency}；预算无法以两种币种计算")                                                    \
    X(PRICE_CODE, "price_currency_code",                                                       \
      "field currency: {got} is no code of ISO 4217, such as USD",                             \
      "字段 currency：{got} 不是 ISO 4217 代码（如 USD）")                                     \
    X(PRICE_REPLACED, "price_replaced",                                                        \
      "price {price} is for model {model} too, and is asked no longer: the newest one counts", \
      "价格 {price} 也用于模型 {model}，现已不再采用：以最新者为准")                           \
    X(PRICE_OLDER, "price_older", "it is not asked: price {price} for model {model} is newer", \
      "未被采用：模型 {model} 的价格 {price} 更新")
REASONS_DECLARE(USAGE_REASONS)
extern const Reason *const usage_reasons[];
extern const Resource usage_resource, price_resource;
extern const Route usage_routes[];
extern const Setting usage_settings[];
extern const Retention usage_retentions[];
extern const Migration usage_migrations[];
extern const char *const operations[], *const outcomes[];

// Members of a record in a fixed order; later releases append. Integers as zigzag varints, text
// with its length; content last.
bool record_pack(const RequestRecord *r, bool with_content, Buf *out);
// What begins an attempt: no content, but the price, for it may have to be settled without us.
bool record_pack_open(const RequestRecord *r, Buf *out);
// Of any record only what a mark has: the attempt and its tokens so far.
bool usage_unpack_mark(str bytes, RequestRecord *out);

void fold_init(Ctx *c); // registers the ledger; before this life's first record
// Reads what earlier lives left in the journal, settles what their end cut, tells limits what was
// spent. What this life has written by then waits for it.
err fold_catch_up(Ctx *c);
err fold_start(Ctx *c); // follows the journal from there on
void fold_stop(void *app);
// Who reads the journal from where. doubt: a batch failed, and may have been committed all the
// same: the folder is asked for its position before it is given another.
typedef struct FoldReader {
    const UsageFolder *f;
    JournalPos at, until; // until: reads no further; segment 0: to the end
    bool doubt;
    int unread; // how often in a row the disk did not give what comes next
} FoldReader;
// One batch of at most `most` records; what is damaged is passed over, and what cannot be read only
// after many calls. *out_more false: the end.
err fold_next(Ctx *c, FoldReader *r, size_t most, bool *out_more);
extern const UsageFolder ledger;
extern const Metric *const usage_metrics[];
extern const UsageView usage_audit_view; // an audit record for each inference
// At a start, when the journal is read to its end: settles what a crash left open, and tells the
// limits what each key has spent today.
err ledger_settle_orphans(Ctx *c);
err ledger_tell_power_cut(Ctx *c); // to the audit, once a cut
err ledger_recover_spending(Ctx *c);
void ledger_close(void); // forgets the views: the next init registers them again
err usage_trim(Ctx *c, int64_t before_ms, int64_t *out_removed);
#endif
