/* SPDX-License-Identifier: MIT */
#include "base/psi.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* ---- base64 ---- */

static int digit(char c) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const char *at = c ? strchr(digits, c) : NULL;
        return at ? (int)(at - digits) : -1;
}

/* Four characters are up to three bytes. Returns how many, or -EINVAL; fewer than three only end the text. */
static int decode_group(const char *s, uint8_t ret[3]) {
        int n = s[3] != '=' ? 3 : s[2] != '=' ? 2 : 1;
        uint32_t bits = 0;
        for (int i = 0; i < 4; i++) {
                int d = i <= n ? digit(s[i]) : 0;
                if (d < 0)
                        return -EINVAL;
                bits = bits << 6 | (uint32_t)d;
        }
        for (int i = 0; i < 3; i++)
                ret[i] = (uint8_t)(bits >> (16 - 8 * i));
        return n;
}

int psi_decode_trigger(const char *base64, uint8_t ret[PSI_TRIGGER_MAX], size_t *ret_n) {
        uint8_t bytes[PSI_TRIGGER_MAX], group[3];
        size_t len = strnlen(base64, 4 * PSI_TRIGGER_MAX), n = 0;
        for (size_t i = 0; i < len; i += 4) {
                int r = len - i < 4 ? -EINVAL : decode_group(base64 + i, group);
                if (r < 0 || (r < 3 && i + 4 < len))
                        return -EINVAL;
                if (n + (size_t)r > sizeof(bytes))
                        return -E2BIG;
                memcpy(bytes + n, group, (size_t)r);
                n += (size_t)r;
        }
        memcpy(ret, bytes, n);
        *ret_n = n;
        return 0;
}

/* ---- pressure files ---- */

/* Behind the next `word` of the line, NULL: it has none. */
static const char *after_word(const char *s, const char *end, const char *word) {
        const char *at = memmem(s, (size_t)(end - s), word, strlen(word));
        return at ? at + strlen(word) : NULL;
}

static int parse_number(const char *s, const char *end, uint64_t *ret) {
        uint64_t value = 0;
        const char *p = s;
        for (; p < end && *p >= '0' && *p <= '9'; p++) {
                uint64_t d = (uint64_t)(*p - '0');
                if (value > (UINT64_MAX - d) / 10)
                        return -EINVAL;
                value = value * 10 + d;
        }
        if (p == s)
                return -EINVAL;
        *ret = value;
        return 0;
}

int psi_parse_total(const char *text, size_t len, uint64_t *ret_usec) {
        const char *end = text + (len < PSI_TEXT_MAX ? len : (size_t)PSI_TEXT_MAX);
        while (text < end) {
                const char *nl = memchr(text, '\n', (size_t)(end - text));
                const char *eol = nl ? nl : end;
                bool some = eol - text > 5 && memcmp(text, "some ", 5) == 0;
                const char *total = some ? after_word(text, eol, " total=") : NULL;
                if (total)
                        return parse_number(total, eol, ret_usec);
                text = nl ? nl + 1 : end;
        }
        return -EINVAL;
}
