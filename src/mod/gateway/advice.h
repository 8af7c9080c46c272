// SPDX-License-Identifier: Apache-2.0
// advice.h - private to gateway: what it says of rows that take part in a request (Module.advise).
#ifndef LATHE_MOD_GATEWAY_ADVICE_H
#define LATHE_MOD_GATEWAY_ADVICE_H
#include "res/module.h"

err gateway_advise(Ctx *c, Tx *tx, const Resource *r, const void *now, struct Advice *out);

#define GATEWAY_ADVICE_REASONS(X)                                                              \
    X(PRICE_IDLE, "price_idle",                                                                \
      "no request asks for this price: no deployment serves a model {model} yet; served are: " \
      "{served}",                                                                              \
      "尚无请求采用该价格：没有部署在服务模型 {model}；正在服务的有：{served}")                \
    X(MONEY_UNPRICED, "money_unpriced",                                                        \
      "{limit} does not limit requests for what has no price: {models}; see `lathe help "      \
      "price`",                                                                                \
      "{limit} 不限制没有价格的模型：{models}；参见 `lathe help price`")
REASONS_DECLARE(GATEWAY_ADVICE_REASONS)
#endif
