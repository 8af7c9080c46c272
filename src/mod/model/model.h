// SPDX-License-Identifier: Apache-2.0
// model.h - names and immutable versions of models, imported, checked and described. A version's weights are one blob.
#ifndef LATHE_MOD_MODEL_H
#define LATHE_MOD_MODEL_H
#include "res/module.h"

// What a deployment needs of a version ("smol", "smol:2" or an id; a bare name is its newest ready version). Workers only.
typedef struct VersionInfo {
    str id, model, model_id, number, digest, path, architecture, quantisation, chat_template;       // path: the blob's file
    int64_t size_bytes, context, parameters, layers, embedding, heads, heads_kv, key_length, value_length;
    bool embedder, can_chat, ready;
} VersionInfo;
err model_version(Ctx *c, Tx *tx, str text_or_id, VersionInfo *out);     // ERR_NOTFOUND, or ERR_CONFLICT when it is not ready
int64_t model_memory_bytes(const VersionInfo *v, int64_t context, int64_t slots);    // to serve: weights, KV cache, buffers
extern const Resource model_resource, model_version_resource;            // references: "model", "model_version"
extern const Module model_module;
#endif
