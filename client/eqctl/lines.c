/* SPDX-License-Identifier: MIT */
/* One newline at the end of a plain payload is that of the line: `echo x | eqctl submit --payload -` is one line, not two. */

#include "eqctl/lines.h"

#include <errno.h>
#include <string.h>

#include "eqctl/json.h"

static const char *const names[_LINES_MAX] = { [LINES_NONE] = "", [LINES_PLAIN] = "plain", [LINES_BASE64] = "base64" };

int lines_format(const char *name, LineFormat *ret) {
        for (LineFormat f = LINES_PLAIN; f < _LINES_MAX; f++)
                if (strcmp(names[f], name) == 0) {
                        *ret = f;
                        return 0;
                }
        return -EINVAL;
}

size_t lines_max(LineFormat f) {
        return f == LINES_BASE64 ? ((size_t)EQ_RESULT_MAX + 2) / 3 * 4 : EQ_RESULT_MAX;
}

int lines_append(LineFormat f, EqBytes payload, EqBuffer *out) {
        if (f == LINES_BASE64)
                base64_append(out, payload);
        else {
                if (payload.len > 0 && payload.data[payload.len - 1] == '\n')
                        payload.len--;
                if (payload.len > 0 && memchr(payload.data, '\n', payload.len))
                        return -EINVAL;
                (void)eq_buffer_write(out, payload.data, payload.len); /* a failure is kept in the buffer */
        }
        (void)eq_buffer_write(out, "\n", 1);
        return out->failed ? -ENOMEM : 0;
}

/* -1: it stands for nothing. */
static int value_of(char c) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const char *at = c ? strchr(digits, c) : NULL;
        return at ? (int)(at - digits) : -1;
}

static int base64_decode(EqBytes s, EqBuffer *out) {
        if (s.len % 4 != 0)
                return -EINVAL;
        for (uint32_t i = 0; i < s.len; i += 4) {
                bool last = i + 4 == s.len;
                unsigned n_pads = last ? (s.data[i + 3] == '=') + (s.data[i + 3] == '=' && s.data[i + 2] == '=') : 0;
                uint32_t bits = 0;
                for (unsigned k = 0; k < 4; k++) {
                        int v = k < 4 - n_pads ? value_of(s.data[i + k]) : 0;
                        if (v < 0)
                                return -EINVAL;
                        bits = bits << 6 | (uint32_t)v;
                }
                char bytes[3] = { (char)(bits >> 16), (char)(bits >> 8), (char)bits };
                (void)eq_buffer_write(out, bytes, 3 - n_pads);
        }
        return out->failed ? -ENOMEM : 0;
}

int lines_decode(LineFormat f, EqBytes line, EqBuffer *out) {
        if (f == LINES_BASE64)
                return base64_decode(line, out);
        return eq_buffer_append(out, line.data, line.len);
}
