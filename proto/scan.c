/* SPDX-License-Identifier: MIT */
/* Walks MessagePack headers with two numbers of state. Every value still to come needs at least one byte, so
 * `pos + left > max` refuses a huge array when its header is read, before anything is buffered for it. */

#include "scan.h"

#include <errno.h>

enum { KIND_BAD, KIND_PLAIN, KIND_BODY, KIND_ARRAY, KIND_MAP };

/* What follows the first byte: n_size bytes of length (KIND_BODY, ARRAY, MAP) or a fixed body (KIND_PLAIN). */
typedef struct Header {
        uint8_t kind, n_size, body;
} Header;

/* 0xc0 .. 0xdf; the other first bytes carry their meaning in a few bits. */
static const Header headers[32] = {
        [0x00] = { KIND_PLAIN, 0, 0 },                                                               /* nil */
        [0x01] = { KIND_BAD, 0, 0 },                                                                 /* reserved */
        [0x02] = { KIND_PLAIN, 0, 0 }, [0x03] = { KIND_PLAIN, 0, 0 },                                /* bool */
        [0x04] = { KIND_BODY, 1, 0 },  [0x05] = { KIND_BODY, 2, 0 },  [0x06] = { KIND_BODY, 4, 0 },  /* bin */
        [0x07] = { KIND_BAD, 0, 0 },   [0x08] = { KIND_BAD, 0, 0 },   [0x09] = { KIND_BAD, 0, 0 },   /* ext */
        [0x0a] = { KIND_PLAIN, 0, 4 }, [0x0b] = { KIND_PLAIN, 0, 8 },                                /* float */
        [0x0c] = { KIND_PLAIN, 0, 1 }, [0x0d] = { KIND_PLAIN, 0, 2 }, [0x0e] = { KIND_PLAIN, 0, 4 }, /* uint */
        [0x0f] = { KIND_PLAIN, 0, 8 },                                                               /* uint64 */
        [0x10] = { KIND_PLAIN, 0, 1 }, [0x11] = { KIND_PLAIN, 0, 2 }, [0x12] = { KIND_PLAIN, 0, 4 }, /* int */
        [0x13] = { KIND_PLAIN, 0, 8 },                                                               /* int64 */
        [0x14] = { KIND_BAD, 0, 0 },   [0x15] = { KIND_BAD, 0, 0 },   [0x16] = { KIND_BAD, 0, 0 },   /* fixext */
        [0x17] = { KIND_BAD, 0, 0 },   [0x18] = { KIND_BAD, 0, 0 },   [0x19] = { KIND_BODY, 1, 0 },
        [0x1a] = { KIND_BODY, 2, 0 },  [0x1b] = { KIND_BODY, 4, 0 }, /* str */
        [0x1c] = { KIND_ARRAY, 2, 0 }, [0x1d] = { KIND_ARRAY, 4, 0 }, [0x1e] = { KIND_MAP, 2, 0 },
        [0x1f] = { KIND_MAP, 4, 0 },
};

static uint64_t read_size(const uint8_t *p, unsigned n) {
        uint64_t v = 0;
        for (unsigned i = 0; i < n; i++)
                v = v << 8 | p[i];
        return v;
}

/* One header at p, `avail` bytes there. Sets how long it is with its body, and how many values it announces. Returns
 * EQ_SCAN_DONE, EQ_SCAN_MORE when the header itself is cut, or -EBADMSG. */
static int read_header(const uint8_t *p, size_t avail, uint64_t *ret_len, uint64_t *ret_values) {
        uint8_t b = p[0];

        *ret_len = 1;
        *ret_values = 0;
        if (b <= 0x7f || b >= 0xe0)
                return EQ_SCAN_DONE;
        if (b <= 0x8f) {
                *ret_values = 2 * (uint64_t)(b & 0x0f);
                return EQ_SCAN_DONE;
        }
        if (b <= 0x9f) {
                *ret_values = b & 0x0f;
                return EQ_SCAN_DONE;
        }
        if (b <= 0xbf) {
                *ret_len = 1 + (b & 0x1f);
                return EQ_SCAN_DONE;
        }

        Header h = headers[b - 0xc0];
        if (h.kind == KIND_BAD)
                return -EBADMSG;
        if (avail < 1U + h.n_size)
                return EQ_SCAN_MORE;
        uint64_t size = read_size(p + 1, h.n_size);
        *ret_len = 1U + h.n_size + h.body;
        if (h.kind == KIND_BODY)
                *ret_len += size;
        else if (h.kind == KIND_ARRAY)
                *ret_values = size;
        else if (h.kind == KIND_MAP)
                *ret_values = 2 * size;
        return EQ_SCAN_DONE;
}

int eq_scan(EqScan *scan, const void *buf, size_t len, size_t max) {
        const uint8_t *p = buf;
        size_t pos = scan->pos;
        uint64_t left = pos ? scan->left : 1;

        while (left > 0 && pos < len) {
                uint64_t n, values;
                int r = read_header(p + pos, len - pos, &n, &values);
                if (r < 0)
                        return r;
                if (r == EQ_SCAN_MORE)
                        break;
                left += values - 1;
                if (pos + n + left > max) /* each of them is far below 2^63 */
                        return -EMSGSIZE;
                pos += n;
        }
        /* A header that is cut right at the start leaves pos at 0, and the next call starts over: it costs a byte. */
        scan->pos = pos;
        scan->left = left;
        if (left == 0 && pos <= len)
                return EQ_SCAN_DONE;
        return len >= max ? -EMSGSIZE : EQ_SCAN_MORE;
}
