/* SPDX-License-Identifier: MIT */
/* The stored forms of tasks, states, ends and queues. The first byte says which; what is taken must come out the same when
 * it is packed again, and every slice must lie within the bytes. */

#include <stdbool.h>
#include <string.h>

#include "manager/stored.h"
#include "target.h"

static void inside(EqBytes part, EqBytes whole) {
        FUZZ_CHECK(part.len == 0 || (part.data >= whole.data && part.data + part.len <= whole.data + whole.len));
}

static void same(EqBuffer *b, EqBytes raw) {
        FUZZ_CHECK(!b->failed && b->len == raw.len && memcmp(b->data, raw.data, raw.len) == 0);
        eq_buffer_done(b);
}

static void task(EqBytes raw) {
        EqBuffer b = EQ_BUFFER_NULL;
        StoredTask t;
        if (stored_task_unpack(raw, &t) < 0)
                return;
        EqBytes parts[] = { t.groups, t.payload, t.common, t.options };
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
                inside(parts[i], raw);
        for (uint32_t i = 0; i < t.n_groups; i++)
                (void)stored_group(&t, i);
        StoredTaskBegin ignored;
        (void)stored_task_begin(raw, &ignored);
        stored_task_pack(&t, &b);
        if (raw.data[0] == 1) { /* comes out as the latest version, which says the same */
                StoredTask again;
                FUZZ_CHECK(!b.failed && stored_task_unpack(eq_bytes(b.data, b.len), &again) == 0);
                eq_buffer_done(&b);
                return;
        }
        b.data[1] = raw.data[1]; /* bits that mean nothing yet are not kept */
        same(&b, raw);
}

static void state(EqBytes raw) {
        EqBuffer b = EQ_BUFFER_NULL;
        StoredState s;
        if (stored_state_unpack(raw, &s) < 0)
                return;
        inside(s.last.error, raw);
        stored_state_pack(&s, &b);
        if (raw.data[0] < 3) { /* likewise */
                StoredState again;
                FUZZ_CHECK(!b.failed && stored_state_unpack(eq_bytes(b.data, b.len), &again) == 0);
                FUZZ_CHECK(again.starts == s.starts && s.last.started_usec == 0);
                eq_buffer_done(&b);
                return;
        }
        same(&b, raw);
}

static void end(EqBytes raw) {
        StoredEnd e;
        uint8_t stream;
        EqBytes data;
        if (stored_end_unpack(raw, &e) < 0)
                return;
        inside(e.last.error, raw);
        inside(e.output, raw);
        for (EqBytes it = e.output; stored_output_next(&it, &stream, &data);)
                inside(data, raw);
}

static void queue(EqBytes raw) {
        EqBuffer b = EQ_BUFFER_NULL;
        StoredQueue q;
        if (stored_queue_unpack(raw, &q) < 0)
                return;
        inside(q.set.raw, raw);
        stored_queue_pack(&q, &b);
        b.data[1] = raw.data[1];
        same(&b, raw);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static void (*const forms[])(EqBytes raw) = { task, state, end, queue };
        if (size == 0)
                return 0;
        forms[data[0] % 4](eq_bytes((const char *)data + 1, size - 1));
        return 0;
}
