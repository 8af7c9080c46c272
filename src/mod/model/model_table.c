// SPDX-License-Identifier: Apache-2.0
// model_table.c - the rows of the model module: what a model, a version and an upload are, what may
// be done to them, and what an operator may set. Behaviour is in model.c.
#include "mod/model/model_upload.h"

// clang-format off

// ---- a model
const Field model_rows[] = {
    TEXT(Model, description, SEARCHED | COLUMN, 4000, "What it is for", "用途说明"),
    TEXT(Model, licence, 0, 200, "Licence under which it may be used", "使用许可"),
    LIST(Model, labels, str, SORTED_SET, text_item, 0, 64, "Labels, such as team=search",
        "标签，例如 team=search"),
    TEXT(Model, architecture, STATUS | COLUMN, 100, "Architecture of the newest ready version",
        "最新就绪版本的架构"),
    INT(Model, latest, STATUS | COLUMN, 0, INT64_MAX, "Newest ready version; 0: none yet",
        "最新就绪的版本号；0 表示尚无"),
    INT(Model, last_number, STATUS, 0, INT64_MAX,
        "Highest version number ever given; none is given twice",
        "已分配的最大版本号；版本号不会重复使用"),
    INT(Model, versions, STATUS | COLUMN, 0, INT64_MAX, "How many versions there are", "版本数量"),
    { 0 }
};
const Field model_import_input[] = {
    TEXT(ImportInput, path, 0, PATH_CHARS_MAX,
        "Absolute path of a file on the server (permission models.import_path)",
        "服务器上文件的绝对路径（需要权限 models.import_path）"),
    TEXT(ImportInput, url, 0, URL_MAX, "http:// or https:// address to fetch from",
        "要下载的 http(s):// 地址"),
    TEXT(ImportInput, sha256, 0, 64, "SHA-256 that the file must have", "文件应有的 SHA-256"),
    { 0 }
};
const Action model_actions[] = {
    { "import", ACTION_JOB, model_import, model_import_input, sizeof(ImportInput),
      "Make a new version of a GGUF file at a URL or on the server (an upload: POST …/uploads)",
      "用 URL 或服务器上的 GGUF 文件创建新版本（上传请用 POST …/uploads）" },
    { 0 }
};
const Resource model_resource = {
    .name = "model", .plural = "models", .prefix = "model", .scope = SCOPE_PROJECT,
    .size = sizeof(Model), .fields = model_rows, .actions = model_actions, .check = model_check,
    .en = "A name under which versions of a model are kept", .zh = "模型名称，其下保存各个版本",
};

// ---- a version
static const Field upload_source[] = {
    ROW(Source, upload, T_ID, REQUIRED | IMMUTABLE, "The upload whose bytes it is", "所用的上传"),
    { 0 }
};
static const Field path_source[] = {
    TEXT(Source, path, REQUIRED | IMMUTABLE, PATH_CHARS_MAX,
        "Absolute path of a file on the server", "服务器上文件的绝对路径"),
    { 0 }
};
static const Field url_source[] = {
    TEXT(Source, url, REQUIRED | IMMUTABLE, URL_MAX, "http:// or https:// address to fetch from",
        "要下载的 http(s):// 地址"),
    { 0 }
};
static const UnionCase source_cases[] = {
    [SOURCE_UPLOAD] = { "upload", upload_source }, [SOURCE_PATH] = { "path", path_source },
    [SOURCE_URL] = { "url", url_source }, { 0 }
};
static const Union source_union = { "type", offsetof(Source, type), source_cases };

#define FACT(m, en, zh) INT(GgufFacts, m, STATUS, 0, INT64_MAX, en, zh)
#define FACT_TEXT(m, max, en, zh) TEXT(GgufFacts, m, STATUS, max, en, zh)
const Field model_facts_rows[] = {
    FACT_TEXT(architecture, 100, "Architecture", "架构"),
    FACT_TEXT(name, 1000, "Name that the file gives itself", "文件自带的名称"),
    FACT_TEXT(quantisation, 100, "Quantisation", "量化方式"),
    FACT_TEXT(licence, 1000, "Licence that the file states", "文件声明的许可"),
    FACT_TEXT(base_model, 1000, "Model that it was made from", "基础模型"),
    FACT_TEXT(tokenizer, 100, "Kind of tokenizer", "分词器类型"),
    FACT_TEXT(pooling, 100, "How an embedding is pooled", "向量池化方式"),
    BOOL(GgufFacts, embedder, STATUS, "It is an embedding model", "是否为向量模型"),
    BOOL(GgufFacts, can_chat, STATUS, "It has a chat template", "是否有对话模板"),
    FACT(parameters, "Parameters", "参数量"),
    FACT(context, "Tokens of context that it was trained for", "训练的上下文长度（token）"),
    FACT(embedding, "Width of an embedding", "嵌入维度"),
    FACT(layers, "Layers", "层数"),
    FACT(heads, "Attention heads", "注意力头数"),
    FACT(heads_kv, "Heads of keys and values", "键值头数"),
    FACT(key_length, "Width of a key", "键的维度"),
    FACT(value_length, "Width of a value", "值的维度"),
    FACT(vocabulary, "Tokens of the vocabulary", "词表大小"),
    FACT(feed_forward, "Width of the feed-forward part", "前馈层宽度"),
    FACT(experts, "Experts", "专家数"),
    FACT(version, "Version of the file format", "文件格式版本"),
    FACT(tensors, "Tensors", "张量数"),
    FACT(keys, "Keys of the header", "头部键数"),
    FACT(file_bytes, "Bytes of the file", "文件字节数"),
    FACT(data_offset, "Byte at which the weights begin", "权重数据的起始字节"),
    FACT(tensor_bytes, "Bytes of all weights", "全部权重的字节数"),
    FACT(kv_elements, "Numbers that each token keeps in the KV cache", "每个 token 在 KV 缓存中的数值个数"),
    FACT(kv_window_elements, "The same in layers that keep a window only", "滑动窗口层中的同一数量"),
    FACT(window, "Tokens of that window", "滑动窗口长度（token）"),
    FACT(state_bytes, "Bytes of recurrent state of each slot", "每个槽位的循环状态字节数"),
    FACT_TEXT(chat_template, TEMPLATE_MAX, "Chat template (Jinja); a longer one is not shown",
        "对话模板（Jinja），过长则不显示"),
    { 0 }
};
static const Field memory_rows[] = {
    INT(MemoryNeed, context, STATUS, 0, INT64_MAX, "Tokens of context, for one request at a time",
        "上下文长度（单请求）"),
    INT(MemoryNeed, bytes, STATUS, 0, INT64_MAX, "Bytes to serve it", "所需内存字节数"),
    { 0 }
};
static const char *const states[] = { "waiting", "importing", "ready", "failed", NULL };
static const char *const formats[] = { "gguf", NULL };

const Field model_version_rows[] = {
    REF(Version, model, REQUIRED | IMMUTABLE | INDEXED, "model", REF_CASCADE,
        "Model that it is a version of", "所属模型"),
    INT(Version, number, STATUS | INDEXED | COLUMN, 1, INT64_MAX, "Number within its model", "版本号"),
    UNION(Version, source, REQUIRED | IMMUTABLE, &source_union, "Where its bytes come from",
        "数据来源"),
    TEXT(Version, sha256, IMMUTABLE, 64, "SHA-256 that the content must have", "内容应有的 SHA-256"),
    ENUM(Version, state, STATUS | INDEXED | COLUMN, states, "What became of its import", "导入状态"),
    TEXT(Version, state_reason, STATUS, 2000, "Why it is in that state", "处于该状态的原因"),
    INT(Version, progress, STATUS, 0, 100, "Percent of its bytes that are here", "已获取的百分比"),
    ROW(Version, job, T_ID, STATUS, "Job that imports it", "导入作业"),
    ROW(Version, digest, T_BLOB, STATUS, "SHA-256 of its content", "内容的 SHA-256"),
    INT(Version, size_bytes, STATUS | COLUMN, 0, INT64_MAX, "Bytes of its content", "内容字节数"),
    ENUM(Version, format, STATUS, formats, "File format", "文件格式"),
    OBJECT(Version, facts, STATUS, model_facts_rows, "What the file's header says", "文件头信息"),
    LIST(Version, memory, MemoryNeed, STATUS, memory_rows, 0, MEMORY_ROWS,
        "Memory needed for a context, with an f16 KV cache (an estimate)",
        "各上下文长度所需内存（f16 KV 缓存，估计值）"),
    TEXT(Version, staging, STATUS | HIDDEN, 64, "Its staging file", "暂存文件"),
    { 0 }
};
const Resource model_version_resource = {
    .name = "model_version", .plural = "model_versions", .prefix = "mver", .scope = SCOPE_PROJECT,
    .flags = RES_UNNAMED | RES_NO_UPDATE, .size = sizeof(Version), .fields = model_version_rows,
    .check = model_version_check, .stage = model_version_stage, .resolve = model_version_resolve,
    .en = "One immutable set of weights of a model; making one imports it",
      .zh = "模型的一个不可变版本；创建即导入",
};

// ---- an upload
static const char *const upload_states[] = { "open", "finished", NULL };
const Field model_upload_rows[] = {
    REF(Upload, model, REQUIRED | IMMUTABLE | INDEXED, "model", REF_CASCADE,
        "Model that it becomes a version of", "目标模型"),
    INT(Upload, size_bytes, IMMUTABLE, 1, INT64_MAX, "Bytes that it will have", "总字节数"),
    TEXT(Upload, sha256, IMMUTABLE, 64, "SHA-256 that it must have", "应有的 SHA-256"),
    INT(Upload, received_bytes, STATUS | COLUMN, 0, INT64_MAX, "Bytes that are durable here",
        "已持久化的字节数"),
    ENUM(Upload, state, STATUS, upload_states, "Whether more may be sent", "是否仍可上传"),
    { 0 }
};
const Resource model_upload_resource = {
    .name = "model_upload", .plural = "model_uploads", .prefix = "upload", .scope = SCOPE_PROJECT,
    .flags = RES_UNNAMED | RES_NO_CREATE | RES_NO_UPDATE, .size = sizeof(Upload),
      .fields = model_upload_rows,
    .stage = model_upload_stage,
    .en = "Bytes on their way to become a version", .zh = "正在上传、将成为版本的数据",
};
const Field model_upload_input[] = {
    INT(UploadInput, size_bytes, 0, 1, INT64_MAX, "Bytes that it will have", "总字节数"),
    TEXT(UploadInput, sha256, 0, 64, "SHA-256 that it must have", "应有的 SHA-256"),
    { 0 }
};
const Field model_upload_output[] = {
    ROW(UploadOutput, id, T_ID, STATUS, "The upload", "上传标识"),
    ROW(UploadOutput, model, T_ID, STATUS, "Its model", "目标模型"),
    INT(UploadOutput, offset, STATUS, 0, INT64_MAX, "Byte to go on from", "应继续上传的字节位置"),
    INT(UploadOutput, size_bytes, STATUS, 1, INT64_MAX, "Bytes that it will have", "总字节数"),
    { 0 }
};
const Field model_finish_input[] = {
    TEXT(UploadInput, sha256, 0, 64, "SHA-256 that it must have", "应有的 SHA-256"),
    { 0 }
};
const Field model_finish_output[] = {
    ROW(FinishOutput, job, T_ID, STATUS, "Job that imports it", "导入作业"),
    ROW(FinishOutput, version, T_ID, STATUS, "Version that it becomes", "将成为的版本"),
    INT(FinishOutput, number, STATUS, 1, INT64_MAX, "Number of that version", "版本号"),
    { 0 }
};

// ---- routes that take bytes
#define UPLOADS "/lathe/v1/models/{id}/uploads"
const Route model_routes[] = {
    { HTTP_POST, UPLOADS, 0, "models.import", model_uploads_create,
      .body_max = 65536, .input = model_upload_input, .input_size = sizeof(UploadInput),
      .output = model_upload_output, .errors = "201 409 413 507",
      .en = "Begin an upload", .zh = "开始上传" },
    { HTTP_GET, UPLOADS "/{upload}", 0, "models.import", model_uploads_show,
      .output = model_upload_output, .errors = "409",
      .en = "Where to go on from; also as header Upload-Offset, which HEAD asks for",
      .zh = "应从何处继续上传；HEAD 请求可从响应头 Upload-Offset 获知" },
    { HTTP_PATCH, UPLOADS "/{upload}", ROUTE_STREAM, "models.import",
      .stream = model_uploads_write, .body_max = INT64_MAX, .errors = "409 413 507",
      .en = "Send bytes from Upload-Offset (or Content-Range) on; any number of requests, in order",
      .zh = "从 Upload-Offset（或 Content-Range）处按序发送数据，可分多次请求" },
    { HTTP_PUT, UPLOADS "/{upload}", ROUTE_STREAM, "models.import",
      .stream = model_uploads_write, .body_max = INT64_MAX, .errors = "409 413 507",
      .en = "The same as PATCH, for clients that prefer it", .zh = "与 PATCH 相同" },
    { HTTP_POST, UPLOADS "/{upload}/finish", 0, "models.import", model_uploads_finish,
      .body_max = 65536, .input = model_finish_input, .input_size = sizeof(UploadInput),
      .output = model_finish_output, .errors = "409",
      .en = "All bytes are here: make it a version", .zh = "上传完毕，创建版本" },
    { 0 }
};

// ---- settings, metrics
const Setting model_settings[MODEL_SETTINGS + 1] = {
    [MODEL_IMPORT_MAX] = { "model.import_max", SET_BYTES, "1TiB", 1, INT64_MAX, .live = true,
        .en = "Largest file that becomes a version", .zh = "单个版本文件的大小上限" },
    [MODEL_PRIVATE_URLS] = { "model.allow_private_urls", SET_BOOL, "false", .live = true,
        .en = "Let imports fetch from addresses that are not public", .zh = "允许从非公网地址导入" },
    [MODEL_UPLOAD_KEEP] = { "retain.model_uploads", SET_SPAN, "7d", 0, INT64_MAX, .live = true,
        .en = "Uploads that nobody finished", .zh = "未完成上传的保留时间" },
    { 0 }
};
const Metric model_metric_imports = {
    "lathe.model.imports", "", METRIC_COUNTER, { "outcome" }, NULL,
    "Imports that ended", "已结束的导入数"
};
const Metric model_metric_import_bytes = {
    "lathe.model.import.io", "By", METRIC_COUNTER, { "source" }, NULL,
    "Bytes received for imports", "导入接收的字节数"
};
const Metric *const model_metrics[] = { &model_metric_imports, &model_metric_import_bytes, NULL };
// clang-format on
