// SPDX-License-Identifier: Apache-2.0
// secret.c - secrets of a project, write-only through the API, and the sealing of every SECRET
// field. It fills App.seal and App.unseal.
//
// A sealed text is \1 1 : suite : key id : wrapped : box where `box` is the value under a fresh
// data key, `wrapped` that data key under the master key, both nonce + ciphertext + tag in hex,
// with the row (aad) as additional data. The master key comes from LATHE_MASTER_KEY
// (64 hex digits) or a file, made at the first start (DIR/master.key, mode 0600); further lines of
// the file are older keys, which still open what they sealed. A suite is a row: what seals, and how
// long its keys are. AES-256-GCM: NIST SP 800-38D.
#include "mod/secret/secret.h"
#include "res/app.h"
#include <assert.h>
#include <openssl/evp.h>

enum { KEY = 32, NONCE = 12, TAG = 16, KEYS_MAX = 16, KEY_ID = 8 };

typedef struct CryptoSuite {
    const char *name;
    const EVP_CIPHER *(*cipher)(void);
    const char *en, *zh;
} CryptoSuite;
static const CryptoSuite suites[] = {
    { "aes-256-gcm", EVP_aes_256_gcm, "AES-256-GCM", "AES-256-GCM" }, { 0 }
};

typedef struct MasterKey {
    char id[2 * KEY_ID + 1];
    unsigned char bytes[KEY];
} MasterKey;
static struct {
    MasterKey keys[KEYS_MAX];
    size_t n;
} masters; // the first seals; all open

typedef struct Secret {
    Head head;
    str description, value;
    int64_t length;
} Secret;

#define SECRET_REASONS(X)                                                      \
    X(MASTER_KEY, "bad_master_key", "{source}: a master key is 64 hex digits", \
      "{source}：主密钥应为 64 位十六进制数")                                  \
    X(SEALED_BAD, "sealed_damaged", "a sealed value cannot be opened: {why}",  \
      "密封的值无法打开：{why}")
REASONS_DECLARE(SECRET_REASONS)
REASONS_DEFINE(SECRET_REASONS, secret_reasons)

// ---- one box
static err crypto(Ctx *c, int ok, const char *why) {
    return ok == 1 ? ERR_OK : fail(c, ERR_INTERNAL, R_SEALED_BAD, "why", why);
}

static err box_shut(Ctx *c, const CryptoSuite *s, const unsigned char key[KEY], str plain, str aad,
                    str *out) {
    unsigned char *p = new (c->mem, unsigned char, NONCE + plain.n + TAG);
    os_random(c->os, p, NONCE);
    EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
    if (!x) mem_exhausted(KEY);
    int n = 0, last = 0, ok = EVP_EncryptInit_ex(x, s->cipher(), NULL, key, p);
    ok = ok == 1 && EVP_EncryptUpdate(x, NULL, &n, (const unsigned char *)aad.p, (int)aad.n) == 1;
    ok = ok
         && EVP_EncryptUpdate(x, p + NONCE, &n, (const unsigned char *)plain.p, (int)plain.n) == 1;
    ok = ok && EVP_EncryptFinal_ex(x, p + NONCE + n, &last) == 1;
    ok = ok && EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_AEAD_GET_TAG, TAG, p + NONCE + plain.n) == 1;
    EVP_CIPHER_CTX_free(x);
    *out = str_n(p, NONCE + plain.n + TAG);
    return crypto(c, ok, "the cipher failed");
}

static err box_open(Ctx *c, const CryptoSuite *s, const unsigned char key[KEY], str box, str aad,
                    str *out) {
    if (box.n < NONCE + TAG) return crypto(c, 0, "it is too short");
    size_t size = box.n - NONCE - TAG;
    const unsigned char *p = (const unsigned char *)box.p;
    unsigned char *plain = new (c->mem, unsigned char, size + 1);
    EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
    if (!x) mem_exhausted(KEY);
    int n = 0, last = 0, ok = EVP_DecryptInit_ex(x, s->cipher(), NULL, key, p);
    ok = ok == 1 && EVP_DecryptUpdate(x, NULL, &n, (const unsigned char *)aad.p, (int)aad.n) == 1;
    ok = ok && EVP_DecryptUpdate(x, plain, &n, p + NONCE, (int)size) == 1;
    ok =
        ok
        && EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_AEAD_SET_TAG, TAG, (void *)(uintptr_t)(p + NONCE + size))
               == 1;
    ok = ok && EVP_DecryptFinal_ex(x, plain + n, &last) == 1;
    EVP_CIPHER_CTX_free(x);
    *out = str_n(plain, size);
    return crypto(c, ok, "it was changed, or sealed for another row");
}

// ---- hex
static bool unhex(str hex, unsigned char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < hex.n; i++) {
        const char *at = memchr(digits, hex.p[i], 16);
        if (!at) return false;
        unsigned v = (unsigned)(at - digits);
        out[i / 2] = (unsigned char)(i % 2 ? out[i / 2] | v : v << 4);
    }
    return hex.n % 2 == 0;
}

static str bytes_of(Ctx *c, str hex) {
    unsigned char *p = new (c->mem, unsigned char, hex.n / 2 + 1);
    return unhex(hex, p) ? str_n(p, hex.n / 2) : (str){ 0 };
}

// ---- seal, unseal
static err seal(Ctx *c, str plain, str aad, str *out) {
    const CryptoSuite *s = &suites[0];
    const MasterKey *m = &masters.keys[0];
    assert(masters.n && plain.n < 1 << 24);
    unsigned char data_key[KEY];
    str wrapped, box;
    Buf b;
    os_random(c->os, data_key, sizeof data_key);
    TRY(box_shut(c, s, m->bytes, str_n(data_key, KEY), aad, &wrapped));
    TRY(box_shut(c, s, data_key, plain, aad, &box));
    OPENSSL_cleanse(data_key, sizeof data_key);
    buf_init(&b, 4 * plain.n + 1024);
    buf_printf(&b, "%c1:%s:%s:", SEALED_MARK, s->name, m->id);
    buf_add_hex(&b, wrapped.p, wrapped.n), buf_add_char(&b, ':'), buf_add_hex(&b, box.p, box.n);
    *out = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return ERR_OK;
}

static const CryptoSuite *suite_find(str name) {
    for (const CryptoSuite *s = suites; s->name; s++)
        if (str_is(name, s->name)) return s;
    return NULL;
}
static const MasterKey *master_find(str id) {
    for (size_t i = 0; i < masters.n; i++)
        if (str_is(id, masters.keys[i].id)) return &masters.keys[i];
    return NULL;
}

static err unseal(Ctx *c, str sealed, str aad, str *out) {
    str rest = sealed, part[5] = { 0 }, data_key;
    for (size_t i = 0; i < countof(part); i++)
        if (!str_cut(&rest, ':', &part[i])) return crypto(c, 0, "it is not a sealed value");
    const CryptoSuite *s = suite_find(part[1]);
    const MasterKey *m = master_find(part[2]);
    if (part[0].n != 2 || *part[0].p != SEALED_MARK || !s)
        return crypto(c, 0, "its suite is not known here");
    if (!m) return crypto(c, 0, "its master key is not here: add it to the key file");
    TRY(box_open(c, s, m->bytes, bytes_of(c, part[3]), aad, &data_key));
    if (data_key.n != KEY) return crypto(c, 0, "its data key has another length");
    return box_open(c, s, (const unsigned char *)data_key.p, bytes_of(c, part[4]), aad, out);
}

// ---- the master key
static err master_add(Ctx *c, str hex, const char *source) {
    if (masters.n == KEYS_MAX) return ERR_OK;
    MasterKey *m = &masters.keys[masters.n];
    if (hex.n != 2 * KEY || !unhex(hex, m->bytes))
        return fail(c, ERR_INVALID, R_MASTER_KEY, "source", source);
    char digest[BLOB_DIGEST_HEX + 1];
    sha256_hex(str_n(m->bytes, KEY), digest);
    memcpy(m->id, digest, 2 * KEY_ID);
    masters.n++;
    return ERR_OK;
}

static err master_make(Ctx *c, str path, str *out) {
    unsigned char key[KEY];
    Buf b;
    os_random(c->os, key, sizeof key);
    buf_init(&b, 2 * KEY + 2);
    buf_add_hex(&b, key, sizeof key);
    OPENSSL_cleanse(key, sizeof key);
    *out = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return file_write_all(c, path, *out, FILE_PRIVATE);
}

static const Setting settings[] = {
    { "secret.master_key_file", SET_TEXT, "", 0, 1000,
      .en = "File of master keys, one a line, the first in use; empty: DIR/master.key. "
            "LATHE_MASTER_KEY goes before it",
      .zh = "主密钥文件，每行一个，首行为当前密钥；空为 DIR/master.key。LATHE_MASTER_KEY 优先" },
    { 0 }
};

static err secret_init(Ctx *c) {
    App *app = app_of(c);
    str path = setting_text(&settings[0]), text = { 0 }, line;
    masters.n = 0;
    app->seal = seal, app->unseal = unseal;
    str env = str_z(os_env(c->os, "LATHE_MASTER_KEY"));
    if (env.n) TRY(master_add(c, env, "LATHE_MASTER_KEY"));
    bool own = !path.n;
    if (own) path = arena_printf(c->mem, STR_FMT "/master.key", STR_ARG(app->data_dir));
    err e = file_read_all(c, path, 4096, &text);
    if (e == ERR_NOTFOUND && (env.n || own)) e = env.n ? ERR_OK : master_make(c, path, &text);
    if (e) return e;
    while (text.p && str_cut(&text, '\n', &line))
        if (str_trim(line).n) TRY(master_add(c, str_trim(line), say_str(c, path)));
    return masters.n ? ERR_OK : fail(c, ERR_INVALID, R_MASTER_KEY, "source", say_str(c, path));
}

// ---- the resource
static err secret_check(Ctx *c, Tx *tx, const void *old, void *now) {
    Secret *s = now;
    (void)c, (void)tx, (void)old;
    if (s && (!s->value.n || *s->value.p != SEALED_MARK)) s->length = (int64_t)s->value.n;
    return ERR_OK;
}

// clang-format off
static const Field secret_rows[] = {
    TEXT(Secret, description, COLUMN, 500, "What it opens", "用途说明"),
    ROW(Secret, value, T_SECRET, REQUIRED, "The secret: can be set, never read back", "密文内容：只写不读",
        .min = 1, .max = 8192),
    INT(Secret, length, STATUS | COLUMN, 0, 8192, "Its length in bytes", "长度（字节）"),
    { 0 }
};
const Resource secret_resource = {
    .name = "secret", .plural = "secrets", .prefix = "secret", .scope = SCOPE_PROJECT,
        .size = sizeof(Secret),
    .fields = secret_rows, .check = secret_check,
        .en = "A password or token that the project's objects use", .zh = "项目对象使用的口令或令牌",
};
static const Resource *const resources[] = { &secret_resource, NULL };
static const Migration migrations[] = {
    { 1,
      "CREATE TABLE secrets (id TEXT PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT NULL, project "
      "TEXT NOT NULL, description TEXT, "
      "value TEXT NOT NULL, length BIGINT, revision BIGINT NOT NULL, created_at BIGINT NOT NULL, "
      "updated_at BIGINT NOT NULL, "
      "created_by TEXT); CREATE UNIQUE INDEX secrets_name ON secrets (project, name);", NULL },
    { 2, LIST_IDS("secrets", "project") LIST_INDEX("secrets", "project", "created_at"), NULL },
};
const Module secret_module = {
    .name = "secret", .needs = "", .resources = resources, .settings = settings,
        .migrations = migrations, .migrations_n = countof(migrations),
    .reasons = secret_reasons, .init = secret_init, .en = "Secrets, sealed with a master key",
        .zh = "以主密钥密封的机密",
};
// clang-format on
