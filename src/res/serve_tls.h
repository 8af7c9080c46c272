// SPDX-License-Identifier: Apache-2.0
// serve_tls.h - TLS of the running server: its settings, its listener beside the plain one, new
// certificates without a cut, and the trust that calls out are checked by.
// Owner: the server; one a process. Threads: as said.
#ifndef LATHE_RES_SERVE_TLS_H
#define LATHE_RES_SERVE_TLS_H
#include "res/app.h"

enum {
    TLS_LISTEN,
    TLS_CERT_FILE,
    TLS_KEY_FILE,
    TLS_LEAST,
    TLS_CLIENT_CA,
    TLS_CLIENT_CERT,
    TLS_OUT_CA,
    TLS_SETTINGS
};
extern const Setting tls_settings[TLS_SETTINGS + 1];
extern const Module tls_module; // start: reads the files, so that a bad pair stops the start
// With tls.listen: listens; *out_addr is where. False in *out_on: it is not set.
err serve_tls_listen(Ctx *c, bool *out_on, Addr *out_addr);
void serve_tls_reload(void); // any thread; the files are read on a thread of its own
void serve_tls_free(void);   // after the loops are freed
TlsIdentity serve_tls_identity(void);
#endif
