/* SPDX-License-Identifier: MIT */
/* A hint, as its file is when an eqd starts. Of the first byte bit 0 says whether the rest is taken as the file, for a segment
 * with the salt below, or as rows (kind, lane, queue, SEQ, place / 8, length of body: a byte each) of a hint whose sum is right
 * and which lies beside a segment with something else in it.
 *
 * Whatever it is: it is refused, or all of it points into its segment; and the store opens, twice with the same. A hint that
 * lies, with a right sum, is believed as far as it goes: no more than what the segment has at the place is served. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/hint.h"
#include "store/inspect.h"
#include "target.h"
#include "workdir.h"

enum { SIZE = 64 * 1024, SALT = 0x12345678, ROW = 6 };

/* ---- the file alone ---- */

static void check(const HintFile *f, const Segment *s) {
        for (uint32_t i = 0; i < f->n_queues; i++) {
                uint64_t id, last_seq;
                hint_queue(f, i, &id, &last_seq);
        }
        for (uint32_t i = 0; i < f->n_entries; i++) {
                HintEntry e;
                hint_entry(f, i, &e);
                FUZZ_CHECK(e.record.kind >= STORE_QUEUE && e.record.kind <= STORE_FORGET);
                FUZZ_CHECK(e.at >= SEGMENT_HEADER && e.at + record_size(e.record.body.len) <= s->size);
                FUZZ_CHECK(e.begin.len <= STORE_BEGIN && e.begin.len <= e.record.body.len);
                FUZZ_CHECK((const char *)e.begin.data + e.begin.len <= f->data + f->size);
        }
}

static void parse(const uint8_t *bytes, size_t size) {
        const Segment s = { .number = 1, .salt = SALT, .size = SIZE, .fd = -1 };
        HintFile f = HINT_FILE_NULL;
        char *data = malloc(size > 0 ? size : 1); /* of its own size, so that a sanitizer sees its end */
        FUZZ_CHECK(data);
        memcpy(data, bytes, size);
        if (hint_parse(data, size, &s, &f) < 0) {
                free(data);
                return;
        }
        check(&f, &s);
        hint_file_done(&f);
}

/* ---- beside a segment ---- */

static int on_queue(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition) {
        FUZZ_CHECK(name.len > 0 && name.len <= 31);
        return 0;
}

static int on_gone(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq) {
        return 0;
}

static int on_task(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes task, StoreKind last,
                   StoreBytes last_body) {
        for (uint32_t i = 0; i < task.len; i++)
                FUZZ_CHECK(((const char *)task.data)[i] == 't'); /* so all bodies of tasks are here */
        ++*(unsigned *)userdata;
        return 0;
}

static void on_damaged(void *userdata, const char *file, uint64_t at, uint64_t n, const char *kept) {
        FUZZ_CHECK(at >= SEGMENT_HEADER && at + n <= SIZE);
}

static const StoreReader reader = { .queue = on_queue, .gone = on_gone, .task = on_task, .damaged = on_damaged };

static void put_record(const Segment *s, uint32_t *at, StoreKind kind, uint64_t seq, const char *body) {
        char p[64] = "";
        Record r = { .kind = kind, .queue = 1, .seq = seq, .body = { body, (uint32_t)strlen(body) } };
        record_put_header(p, &r);
        memcpy(p + RECORD_HEADER, body, r.body.len);
        record_seal(p, s->salt);
        FUZZ_CHECK(segment_write(s, *at, p, record_size(r.body.len)) == 0);
        *at += (uint32_t)record_size(r.body.len);
}

/* A queue, its tasks, the seal, which is where *ret_end says. */
static void put_segment(int dir_fd, Segment *s, uint32_t *ret_end) {
        *ret_end = SEGMENT_HEADER;
        static const SegmentBoot unknown;
        FUZZ_CHECK(segment_create(dir_fd, 1, SIZE, &unknown, s) == 0);
        put_record(s, ret_end, STORE_QUEUE, 0, "\002q1x");
        for (uint64_t seq = 1; seq <= 4; seq++)
                put_record(s, ret_end, STORE_TASK, seq, "tttttttttttttttt");
        put_record(s, ret_end, STORE_STATE, 2, "state");
        put_record(s, ret_end, STORE_END, 3, "end");
        put_record(s, ret_end, STORE_FORGET, 4, "");
        put_record(s, &(uint32_t) { *ret_end }, STORE_SEAL, 0, "");
}

static void put_hint(int dir_fd, const Segment *s, uint32_t end, const uint8_t *rows, size_t size) {
        Hint h = HINT_NULL;
        char *data;
        size_t n;
        for (; size >= ROW; rows += ROW, size -= ROW) {
                Record r = { .kind = rows[0] % _STORE_KIND_MAX,
                             .lane = rows[1] % 16,
                             .queue = rows[2] % 4,
                             .seq = rows[3],
                             .body = { NULL, rows[5] } };
                FUZZ_CHECK(hint_add(&h, &r, (StoreBytes) { rows, ROW }, rows[4] * 8U, true) == 0);
        }
        h.end = end;
        FUZZ_CHECK(hint_encode(&h, s, &data, &n) == 0);
        FUZZ_CHECK(hint_write(dir_fd, 1, data, n) == 0);
        free(data);
        hint_done(&h);
}

static unsigned look(void) {
        unsigned n_tasks = 0;
        Store *s;
        char error[256];
        StoreConfig config = { .dir = work_dir, .segment_size = SIZE };
        FUZZ_CHECK(store_open(&config, &reader, &n_tasks, error, sizeof(error), &s) == 0);
        store_close(s);
        return n_tasks;
}

/* Whatever the hint says, looking at it is safe, and of the segment nothing is wrong. */
static int on_finding(void *userdata, const InspectFinding *f) {
        FUZZ_CHECK(f->problem == PROBLEM_HINT || f->problem == PROBLEM_HINT_WRONG);
        return 0;
}

static void inspect(void) {
        static const InspectReader finder = { .finding = on_finding };
        Inspect x = INSPECT_NULL;
        FUZZ_CHECK(inspect_open(work_dir, false, &x) == 0);
        FUZZ_CHECK(inspect_files(&x, &finder, NULL) == 0);
        FUZZ_CHECK(x.index.n_tasks == 3);
        inspect_done(&x);
}

static void start(const uint8_t *rows, size_t size) {
        Segment s;
        uint32_t end;
        if (!work_dir[0])
                work_dir_make();
        work_dir_empty();
        int dir_fd = open(work_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        FUZZ_CHECK(dir_fd >= 0);
        put_segment(dir_fd, &s, &end);
        put_hint(dir_fd, &s, end, rows, size);
        segment_close(&s);
        close(dir_fd);
        inspect();
        unsigned first = look();
        FUZZ_CHECK(first <= 4);
        FUZZ_CHECK(look() == first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        if (size == 0)
                return 0;
        if (data[0] & 1)
                parse(data + 1, size - 1);
        else
                start(data + 1, size - 1);
        return 0;
}
