// SPDX-License-Identifier: Apache-2.0
// cli_show_test.c - what others wrote is shown, and nothing of it is obeyed by a terminal.
#include "base/test.h"
#include "res/cli.h"

static str utf8_of(Ctx *c, unsigned cp) {
    char *p = new (c->mem, char, 4);
    if (cp < 0x80) return p[0] = (char)cp, str_n(p, 1);
    if (cp < 0x800) {
        p[0] = (char)(0xc0 | cp >> 6), p[1] = (char)(0x80 | (cp & 63));
        return str_n(p, 2);
    }
    p[0] = (char)(0xe0 | cp >> 12), p[1] = (char)(0x80 | (cp >> 6 & 63));
    p[2] = (char)(0x80 | (cp & 63));
    return str_n(p, 3);
}

// ECMA-48's control characters and UAX #9's marks, as those list them.
static bool obeyed(unsigned cp) {
    return cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || (cp >= 0x202a && cp <= 0x202e)
           || (cp >= 0x2066 && cp <= 0x2069);
}

TEST(cli_shows_every_character_and_obeys_none) {
    Ctx *c = test_ctx();
    for (unsigned cp = 0; cp < 0x3000; cp++) {
        str one = utf8_of(c, cp);
        str text = arena_printf(c->mem, "a" STR_FMT "z", STR_ARG(one));
        bool blank = cp == '\n' || cp == '\t';
        str in_cell = blank ? S("a z") : obeyed(cp) ? S("a\uFFFDz") : text;
        if (cp == 0) text = str_n("a\0z", 3);
        str cell = cli_visible(c, text, -1), page = cli_visible(c, text, 3);
        if (!str_eq(cell, in_cell)) TEST_FAIL_("U+%04X in a cell: " STR_FMT, cp, STR_ARG(cell));
        str on_page = cp == '\n' ? S("a\n   z") : cp == '\t' ? text : in_cell;
        if (!str_eq(page, on_page)) TEST_FAIL_("U+%04X on a page: " STR_FMT, cp, STR_ARG(page));
    }
    CHECK_STR(cli_visible(c, S("\x1b[2J\xe6\xa8\xa1\r\n\xc2\x9b"), -1),
              "\uFFFD[2J\u6a21\uFFFD \uFFFD");
    CHECK_INT(cli_visible(c, S(""), 0).n, 0);
}
