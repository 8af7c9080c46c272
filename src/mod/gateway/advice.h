// SPDX-License-Identifier: Apache-2.0
// advice.h - private to gateway: what it says of rows that take part in a request (Module.advise).
#ifndef LATHE_MOD_GATEWAY_ADVICE_H
#define LATHE_MOD_GATEWAY_ADVICE_H
#include "res/module.h"

err gateway_advise(Ctx *c, Tx *tx, const Resource *r, const void *now, struct Advice *out);

#define GATEWAY_ADVICE_REASONS(X)                                                                 \
    X(PRICE_IDLE, "price_idle",                                                                   \
      "no request asks for this price: there is no model {model}, and no deployment serves one; " \
      "served are: "                                                                              \
      "{served}",                                                                                 \
      "没有请求采用该价格：没有模型 {model}，也没有部署在服务它；正在服务的有：{served}")         \
    X(MONEY_UNPRICED, "money_unpriced",                                                           \
      "{limit} does not limit requests for what has no price: {models}; see `lathe help "         \
      "price`",                                                                                   \
      "{limit} 不限制没有价格的模型：{models}；参见 `lathe help price`")
REASONS_DECLARE(GATEWAY_ADVICE_REASONS)
#endif
