// SPDX-License-Identifier: Apache-2.0
// words.c - what a reason's parameters say in words rather than in names and numbers: the form that
// was wanted, what was tried, what the kernel said. Threads: pure, on constant tables.
#include "err.h"

// clang-format off
static const struct { const char *en, *zh; } words[] = {
    // forms
    { "text", "文本" }, { "UTF-8 text", "UTF-8 文本" }, { "text without NUL", "不含 NUL 的文本" },
    { "other bytes", "其他字节" }, { "a number", "数字" }, { "a whole number", "整数" },
    { "a positive number", "正数" }, { "an integer", "整数" },
    { "an integer of at least 1", "不小于 1 的整数" }, { "true or false", "true 或 false" },
    { "an object", "对象" }, { "a list", "列表" }, { "a list of tools", "工具列表" },
    { "a list of messages", "消息列表" }, { "a list of at least one message", "至少一条消息的列表" },
    { "a list of at most 128 calls", "至多 128 个调用的列表" }, { "a name", "名称" },
    { "text or a list of texts", "文本或文本列表" }, { "text or a list of parts", "文本或片段列表" },
    { "text or a list of items", "文本或条目列表" }, { "text or a list of blocks", "文本或内容块列表" },
    { "text or a list of tokens", "文本或 token 列表" },
    { "text, a list of texts, or tokens", "文本、文本列表或 token" },
    { "a word or an object", "单词或对象" }, { "the name of a model", "模型名" },
    { "the name of a type", "类型名" }, { "the name of a role", "角色名" },
    { "a number from 0 to 2", "0 到 2 之间的数字" }, { "a number from 0 to 1", "0 到 1 之间的数字" },
    { "a number from -2 to 2", "-2 到 2 之间的数字" },
    { "an integer from 0 to 20", "0 到 20 之间的整数" },
    { "an RFC 3339 time", "RFC 3339 时间" }, { "an amount such as 0.25", "金额（如 0.25）" },
    { "an amount with at most nine decimals", "至多九位小数的金额" },
    { "an amount such as \"0.25\"", "金额（如 \"0.25\"）" },
    { "a day such as 2026-11-22", "日期（如 2026-11-22）" }, { "a number of bytes", "字节数" },
    { "text that does not start with a control character", "不以控制字符开头的文本" },
    { "an empty string", "空文本" }, { "an empty list", "空列表" }, { "empty", "空" },
    { "items", "项" }, { "characters", "个字符" }, { "bytes", "字节" }, { "filters", "个过滤条件" },
    // what was tried
    { "open", "打开" }, { "read", "读取" }, { "write", "写入" }, { "look at", "查看" },
    { "list", "列出" }, { "listen on", "监听" }, { "lock", "锁定" }, { "remove", "删除" },
    { "rename", "重命名" }, { "make directory", "创建目录" }, { "reserve space for", "预留空间给" },
    { "start", "启动" }, { "sync", "同步到磁盘" }, { "truncate", "截断" }, { "wait for", "等待" },
    // what the kernel said (strerror)
    { "No such file or directory", "没有该文件或目录" }, { "Permission denied", "权限不足" },
    { "Is a directory", "它是目录" }, { "Not a directory", "它不是目录" },
    { "File exists", "文件已存在" }, { "Directory not empty", "目录不为空" },
    { "Address already in use", "地址已被占用" }, { "Connection refused", "连接被拒绝" },
    { "Connection reset by peer", "连接被对端重置" }, { "Connection timed out", "连接超时" },
    { "No route to host", "没有到主机的路由" }, { "Network is unreachable", "网络不可达" },
    { "Cannot assign requested address", "无法使用所请求的地址" },
    { "Too many open files", "打开的文件过多" }, { "Input/output error", "输入/输出错误" },
    { "Read-only file system", "文件系统为只读" }, { "File name too long", "文件名过长" },
    { "Operation not permitted", "操作不被允许" }, { "Invalid argument", "参数无效" },
    { "refused", "被拒绝" }, { "no connection", "没有连接" }, { "no such name", "没有该名称" },
    // of the command line
    { "the folder of the backup", "备份所在的文件夹" },
    { "one of --file, --url and --path", "--file、--url、--path 之一" },
};
// clang-format on

// A name that someone gave may be a word too: of what came in only sayings of ours are told.
str word_in_chinese(const char *key, str value) {
    static const char *const keys[] = { "want", "what", "why", "unit", "got" };
    bool spoken = false;
    for (size_t i = 0; i < countof(keys); i++) spoken |= !strcmp(key, keys[i]);
    if (!spoken || (!strcmp(key, "got") && str_find_char(value, ' ') < 0)) return value;
    for (size_t i = 0; i < countof(words); i++)
        if (str_is(value, words[i].en)) return str_z(words[i].zh);
    return value;
}
