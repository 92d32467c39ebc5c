/* SPDX-License-Identifier: MIT */
/* Names, ids and sentences as text: what is valid. */

#include "codec.h"

#include <errno.h>
#include <string.h>

static bool is_digit(char c) {
        return c >= '0' && c <= '9';
}

static bool is_name_char(char c) {
        return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '@' ||
               c == '-';
}

bool eq_name_valid(EqBytes name) {
        if (name.len == 0 || name.len > EQ_NAME_MAX || name.data[0] == '-' || name.data[0] == '.')
                return false;
        for (uint32_t i = 0; i < name.len; i++)
                if (!is_name_char(name.data[i]))
                        return false;
        return true;
}

int eq_id_parse(EqBytes text, EqBytes *ret_queue, uint64_t *ret_seq) {
        const char *slash = text.len > 0 ? memchr(text.data, '/', text.len) : NULL;
        if (!slash)
                return -EINVAL;

        EqBytes queue = eq_bytes(text.data, (size_t)(slash - text.data));
        EqBytes digits = eq_bytes(slash + 1, text.len - queue.len - 1);
        uint64_t seq = 0;
        if (!eq_name_valid(queue) || digits.len == 0 || digits.len > 16) /* EQ_SEQ_MAX has 16 digits */
                return -EINVAL;
        for (uint32_t i = 0; i < digits.len; i++) {
                if (!is_digit(digits.data[i]))
                        return -EINVAL;
                seq = seq * 10 + (uint64_t)(digits.data[i] - '0');
        }
        if (seq > EQ_SEQ_MAX)
                return -EINVAL;
        *ret_queue = queue;
        *ret_seq = seq;
        return 0;
}

/* Length of the UTF-8 character at p, and the character; 0 if it is none (cut, overlong, surrogate, too large). */
static size_t utf8_char(const uint8_t *p, size_t left, uint32_t *ret) {
        static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
        size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf8 ? 4 : 0;
        if (n == 0 || n > left)
                return 0;

        uint32_t u = n == 1 ? p[0] : p[0] & (0x7fU >> n);
        for (size_t i = 1; i < n; i++) {
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
                u = u << 6 | (p[i] & 0x3f);
        }
        if (u < smallest[n] || u > 0x10ffff || (u >= 0xd800 && u <= 0xdfff))
                return 0;
        *ret = u;
        return n;
}

bool eq_text_valid(EqBytes text) {
        const uint8_t *p = (const uint8_t *)text.data;
        uint32_t u;

        for (size_t i = 0, n; i < text.len; i += n) {
                n = utf8_char(p + i, text.len - i, &u);
                if (n == 0 || u < 0x20 || (u >= 0x7f && u <= 0x9f))
                        return false;
        }
        return true;
}
