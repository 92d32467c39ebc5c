/* SPDX-License-Identifier: MIT */
/* A growing buffer of bytes, and the sink of msgpack-c's packer. */

#include "codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int eq_buffer_reserve(EqBuffer *b, size_t n) {
        if (n <= b->cap - b->len)
                return 0;
        if (n > SIZE_MAX / 4 - b->len)
                return -ENOMEM;
        size_t cap = b->cap ? b->cap : 256;
        while (cap < b->len + n)
                cap *= 2;
        char *data = realloc(b->data, cap);
        if (!data)
                return -ENOMEM;
        b->data = data;
        b->cap = cap;
        return 0;
}

int eq_buffer_append(EqBuffer *b, const void *data, size_t n) {
        int r = eq_buffer_reserve(b, n);
        if (r < 0)
                return r;
        if (n > 0)
                memcpy(b->data + b->len, data, n);
        b->len += n;
        return 0;
}

void eq_buffer_consume(EqBuffer *b, size_t n) {
        if (n >= b->len) {
                b->len = 0;
                return;
        }
        memmove(b->data, b->data + n, b->len - n);
        b->len -= n;
}

void eq_buffer_done(EqBuffer *b) {
        free(b->data);
        *b = (EqBuffer)EQ_BUFFER_NULL;
}

int eq_buffer_write(void *userdata, const char *data, size_t n) {
        EqBuffer *b = userdata;

        /* After a failure nothing more is taken: a hole in the middle would look like a message. */
        if (b->failed || eq_buffer_append(b, data, n) < 0) {
                b->failed = true;
                return -1;
        }
        return 0;
}
