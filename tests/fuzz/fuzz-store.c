/* SPDX-License-Identifier: MIT */
/* The log of the store, as its files are when an eqd opens them. Of the first byte bit 0 says whether the rest is taken as the
 * bytes behind the header of a segment, or as a list of records (kind, flags, lane, queue, SEQ, length of body: a byte each,
 * then the body) that get right checksums, of which bit 1 has one byte spoiled.
 *
 * Whatever they are: who only looks at the files finds what opening them finds, and the same tasks; the store opens; what it
 * tells has been written; and when it is opened once more it tells the same. */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/inspect.h"
#include "store/segment.h"
#include "store/store.h"
#include "target.h"
#include "workdir.h"

enum { SIZE = 64 * 1024 };

typedef struct Told {
        uint64_t sum;       /* of everything; queues come in any order */
        uint64_t last_seqs; /* their sum */
        unsigned n_queues, n_tasks, n_damaged;
} Told;

static uint64_t mix(uint64_t sum, uint64_t v) {
        return (sum ^ v) * UINT64_C(0x100000001b3); /* FNV-1a */
}

static uint64_t mix_bytes(uint64_t sum, StoreBytes b) {
        sum = mix(sum, b.len);
        for (uint32_t i = 0; i < b.len; i++)
                sum = mix(sum, ((const unsigned char *)b.data)[i]);
        return sum;
}

static int on_queue(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition) {
        Told *t = userdata;
        FUZZ_CHECK(name.len > 0 && name.len <= 31);
        t->sum += mix_bytes(mix_bytes(mix(1, id), name), definition);
        t->last_seqs += last_seq;
        t->n_queues++;
        return 0;
}

static int on_gone(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq) {
        Told *t = userdata;
        t->sum += mix_bytes(mix(2, id), name);
        t->last_seqs += last_seq;
        return 0;
}

static int on_task(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes task, StoreKind last,
                   StoreBytes last_body) {
        Told *t = userdata;
        FUZZ_CHECK(last == 0 || last == STORE_STATE || last == STORE_END);
        uint64_t what = queue ^ seq << 8 ^ (uint64_t)lane << 16 ^ (uint64_t)last << 24;
        t->sum += mix_bytes(mix_bytes(mix(3, what), task), last_body);
        t->n_tasks++;
        return 0;
}

static void on_damaged(void *userdata, const char *file, uint64_t at, uint64_t n, const char *kept) {
        FUZZ_CHECK(at >= SEGMENT_HEADER && at + n <= SIZE);
        ((Told *)userdata)->n_damaged++;
}

static const StoreReader reader = { .queue = on_queue, .gone = on_gone, .task = on_task, .damaged = on_damaged };

/* The records of the list, one behind the other. */
static size_t put_records(char *to, size_t room, uint32_t salt, const uint8_t *data, size_t size) {
        size_t n = 0;
        while (size >= 6) {
                size_t len = data[5] < size - 6 ? data[5] : size - 6;
                Record r = { .kind = data[0] % _STORE_KIND_MAX,
                             .flags = data[1] & RECORD_MORE,
                             .lane = data[2],
                             .queue = data[3] % 4,
                             .seq = data[4] % 8,
                             .body = { data + 6, (uint32_t)len } };
                if (n + record_size(len) > room)
                        break;
                record_put_header(to + n, &r);
                memcpy(to + n + RECORD_HEADER, r.body.data, len);
                record_seal(to + n, salt);
                n += record_size(len);
                data += 6 + len;
                size -= 6 + len;
        }
        return n;
}

static void put(const uint8_t *data, size_t size) {
        static char image[SIZE];
        Segment s;
        int fd = open(work_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        FUZZ_CHECK(fd >= 0 && segment_create(fd, 1, SIZE, &(SegmentBoot) { { 1 } }, &s) == 0);
        close(fd);
        size_t room = SIZE - SEGMENT_HEADER, n = size - 1 < room ? size - 1 : room;
        memset(image, 0, sizeof(image));
        if (data[0] & 1)
                memcpy(image, data + 1, n);
        else
                n = put_records(image, room, s.salt, data + 1, size - 1);
        if ((data[0] & 2) && n > 0)
                image[(data[0] * 257U + size) % n] ^= 0x10;
        FUZZ_CHECK(n == 0 || segment_write(&s, SEGMENT_HEADER, image, n) == 0);
        segment_close(&s);
}

static int on_finding(void *userdata, const InspectFinding *f) {
        FUZZ_CHECK(f->at + f->n_bytes <= SIZE);
        ((Told *)userdata)->n_damaged += f->problem == PROBLEM_RECORD;
        return 0;
}

static int on_inspected_queue(void *userdata, const InspectQueue *q) {
        Told *t = userdata;
        t->n_tasks += (unsigned)(q->n_pending + q->n_finished);
        t->n_queues += !q->is_gone;
        t->last_seqs += q->last_seq;
        return 0;
}

static int on_inspected_record(void *userdata, uint64_t segment, uint32_t at, const Record *r) {
        FUZZ_CHECK(at >= SEGMENT_HEADER && at + record_size(r->body.len) <= SIZE);
        return 0;
}

static Told inspect(void) {
        static const InspectReader finder = { .finding = on_finding }, lister = { .record = on_inspected_record };
        Told told = { 0 };
        Inspect x = INSPECT_NULL;
        FUZZ_CHECK(inspect_open(work_dir, false, &x) == 0);
        FUZZ_CHECK(inspect_files(&x, &finder, &told) == 0);
        FUZZ_CHECK(inspect_queues(&x, on_inspected_queue, &told) == 0);
        FUZZ_CHECK(inspect_records(&x, 0, &lister, NULL) == 0);
        inspect_done(&x);
        return told;
}

static Told look(void) {
        Told told = { 0 };
        Store *s;
        char error[256];
        StoreConfig config = { .dir = work_dir, .segment_size = SIZE };
        FUZZ_CHECK(store_open(&config, &reader, &told, error, sizeof(error), &s) == 0);
        store_close(s);
        return told;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        if (size == 0)
                return 0;
        if (!work_dir[0])
                work_dir_make();
        work_dir_empty();
        put(data, size);
        Told seen = inspect(), first = look(), second = look();
        FUZZ_CHECK(seen.n_damaged == first.n_damaged && seen.n_tasks == first.n_tasks);
        FUZZ_CHECK(seen.n_queues == first.n_queues && seen.last_seqs == first.last_seqs);
        FUZZ_CHECK(second.n_damaged == 0 || first.n_damaged > 0);
        FUZZ_CHECK(second.last_seqs >= first.last_seqs); /* never given again */
        FUZZ_CHECK(first.sum == second.sum && first.n_tasks == second.n_tasks && first.n_queues == second.n_queues);
        return 0;
}
