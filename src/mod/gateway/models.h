// SPDX-License-Identifier: Apache-2.0
// models.h - private to gateway: what a project's keys may name, as OpenAI's and Ollama's clients
// ask for it. Threads: the exchange's loop.
#ifndef LATHE_MOD_GATEWAY_MODELS_H
#define LATHE_MOD_GATEWAY_MODELS_H
#include "net/http.h"

void gateway_models(Exchange *x);  // all of them, or one, in OpenAI's shape
void gateway_tags(Exchange *x);    // Ollama's: all of them,
void gateway_ps(Exchange *x);      // of these what answers now,
void gateway_show(Exchange *x);    // one of them,
void gateway_version(Exchange *x); // and what its clients ask for first
str ollama_name(str name);         // as it stands here: Ollama's clients may add :latest
#endif
