/* SPDX-License-Identifier: MIT */
/* Whatever a task calls itself must not move a cursor, start a colour or turn the rest of a line around. */

#include "eqctl/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void text_printf(EqBuffer *b, const char *format, ...) {
        char buf[512];
        va_list ap;

        va_start(ap, format);
        int n = vsnprintf(buf, sizeof(buf), format, ap);
        va_end(ap);
        if (n < 0)
                return;
        if ((size_t)n < sizeof(buf)) {
                (void)eq_buffer_append(b, buf, (size_t)n); /* remembered in b->failed */
                return;
        }
        if (eq_buffer_reserve(b, (size_t)n + 1) < 0) {
                b->failed = true;
                return;
        }
        va_start(ap, format);
        (void)vsnprintf(b->data + b->len, (size_t)n + 1, format, ap);
        va_end(ap);
        b->len += (size_t)n;
}

void text_bytes(EqBuffer *b, EqBytes s) {
        if (s.len > 0 && eq_buffer_append(b, s.data, s.len) < 0)
                b->failed = true;
}

void text_cstr(EqBuffer *b, const char *s) {
        text_bytes(b, eq_str(s));
}

const char *text_end(EqBuffer *b) {
        if (b->failed || eq_buffer_reserve(b, 1) < 0)
                return "";
        b->data[b->len] = 0;
        return b->data;
}

/* ---- UTF-8 ---- */

int utf8_next(const char **p, const char *end, uint32_t *ret) {
        static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
        const unsigned char *s = (const unsigned char *)*p;
        size_t avail = (size_t)(end - *p);
        unsigned n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
        uint32_t c = n == 1 ? s[0] : s[0] & (0x7fu >> n);

        (*p)++;
        *ret = s[0];
        if ((s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4 || n > avail)
                return 0;
        for (unsigned i = 1; i < n; i++) {
                if ((s[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (s[i] & 0x3f);
        }
        if (c < smallest[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
                return 0;
        *p += n - 1;
        *ret = c;
        return 1;
}

bool utf8_valid(EqBytes s) {
        const char *p = s.data, *end = s.data + s.len;
        uint32_t c;

        while (p < end)
                if (!utf8_next(&p, end, &c))
                        return false;
        return true;
}

typedef struct Range {
        uint32_t first, last;
} Range;

static bool in_ranges(const Range *r, size_t n, uint32_t c) {
        for (size_t i = 0; i < n; i++)
                if (c >= r[i].first && c <= r[i].last)
                        return true;
        return false;
}

/* Formatting characters that change what is seen of other text; line and paragraph separators. */
static const Range tricky[] = { { 0x200e, 0x200f }, { 0x2028, 0x202e }, { 0x2066, 0x2069 }, { 0xfeff, 0xfeff } };
static const Range combining[] = { { 0x300, 0x36f },   { 0x483, 0x489 },    { 0x591, 0x5bd },   { 0x610, 0x61a },
                                   { 0x64b, 0x65f },   { 0x200b, 0x200d },  { 0x20d0, 0x20f0 }, { 0xfe00, 0xfe0f },
                                   { 0xfe20, 0xfe2f }, { 0xe0100, 0xe01ef } };
static const Range wide[] = { { 0x1100, 0x115f },   { 0x2e80, 0x303e },   { 0x3041, 0xa4cf },   { 0xac00, 0xd7a3 },
                              { 0xf900, 0xfaff },   { 0xfe30, 0xfe6f },   { 0xff00, 0xff60 },   { 0xffe0, 0xffe6 },
                              { 0x1f300, 0x1f64f }, { 0x1f680, 0x1f6ff }, { 0x1f900, 0x1f9ff }, { 0x20000, 0x3fffd } };
#define IN(table, c) in_ranges(table, sizeof(table) / sizeof((table)[0]), c)

/* ---- escaping ---- */

static void escape_one(EqBuffer *b, uint32_t c, bool valid) {
        static const char letters[] = "abtnvfr"; /* 7..13 */

        if (valid && c >= 7 && c <= 13)
                text_printf(b, "\\%c", letters[c - 7]);
        else if (valid && c > 0xff)
                text_printf(b, "\\u%04x", c);
        else
                text_printf(b, "\\x%02x", c);
}

static bool needs_escape(uint32_t c) {
        return c < 0x20 || (c >= 0x7f && c < 0xa0) || IN(tricky, c);
}

static void append_escaped(EqBuffer *b, EqBytes s, bool double_backslash) {
        const char *p = s.data, *end = s.data + s.len;

        while (p < end) {
                const char *start = p;
                uint32_t c;
                bool valid = utf8_next(&p, end, &c);
                if (!valid || needs_escape(c))
                        escape_one(b, c, valid);
                else if (c == '\\' && double_backslash)
                        text_cstr(b, "\\\\");
                else
                        text_bytes(b, eq_bytes(start, (size_t)(p - start)));
        }
}

void text_escaped(EqBuffer *b, EqBytes s) {
        append_escaped(b, s, false);
}

void text_tsv(EqBuffer *b, EqBytes s) {
        append_escaped(b, s, true);
}

static bool is_plain(EqBytes s) {
        static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_+=:,./-{}^";

        for (uint32_t i = 0; i < s.len; i++)
                if ((unsigned char)s.data[i] < 0x80 && !memchr(plain, s.data[i], sizeof(plain) - 1))
                        return false;
        return s.len > 0;
}

void text_quoted(EqBuffer *b, EqBytes s) {
        if (is_plain(s)) {
                text_escaped(b, s);
                return;
        }
        text_cstr(b, "'");
        for (uint32_t start = 0, i = 0; i <= s.len; i++)
                if (i == s.len || s.data[i] == '\'') {
                        text_escaped(b, eq_bytes(s.data + start, i - start));
                        text_cstr(b, i < s.len ? "'\\''" : "'");
                        start = i + 1;
                }
}

/* ---- widths ---- */

static unsigned char_width(uint32_t c, bool valid) {
        if (!valid || IN(combining, c))
                return valid ? 0 : 1;
        return IN(wide, c) ? 2 : 1;
}

unsigned text_width(EqBytes s) {
        const char *p = s.data, *end = s.data + s.len;
        unsigned n = 0;
        uint32_t c;

        while (p < end) {
                bool valid = utf8_next(&p, end, &c);
                n += char_width(c, valid);
        }
        return n;
}

void text_cut(EqBuffer *b, EqBytes s, unsigned columns) {
        const char *p = s.data, *end = s.data + s.len, *keep = p;
        unsigned n = 0, dots = columns < 3 ? columns : 3;

        if (text_width(s) <= columns) {
                text_bytes(b, s);
                return;
        }
        while (p < end) {
                uint32_t c;
                bool valid = utf8_next(&p, end, &c);
                n += char_width(c, valid);
                if (n > columns - dots)
                        break;
                keep = p;
        }
        text_bytes(b, eq_bytes(s.data, (size_t)(keep - s.data)));
        text_bytes(b, eq_bytes("...", dots));
}
