/* SPDX-License-Identifier: MIT */
/* The log of the store, as its files are when an eqd opens them. Of the first byte bit 0 says whether the rest is taken as the
 * bytes behind the header of a segment, or as a list of records (kind, flags, lane, queue, SEQ, length of body: a byte each,
 * then the body) that get right checksums, of which bit 1 has one byte spoiled.
 *
 * Whatever they are: the store opens; what it tells has been written; and when it is opened once more it tells the same. */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/segment.h"
#include "store/store.h"
#include "target.h"

enum { SIZE = 64 * 1024 };

static char dir[64];

typedef struct Told {
        uint64_t sum; /* of everything, in its order */
        unsigned n_queues, n_tasks, n_damaged;
} Told;

static void add(Told *t, uint64_t v) {
        t->sum = (t->sum ^ v) * UINT64_C(0x100000001b3); /* FNV-1a */
}

static void add_bytes(Told *t, StoreBytes b) {
        add(t, b.len);
        for (uint32_t i = 0; i < b.len; i++)
                add(t, ((const unsigned char *)b.data)[i]);
}

static int on_queue(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition) {
        Told *t = userdata;
        FUZZ_CHECK(name.len > 0 && name.len <= 31);
        add(t, id);
        add(t, last_seq);
        add_bytes(t, name);
        add_bytes(t, definition);
        t->n_queues++;
        return 0;
}

static int on_gone(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq) {
        add(userdata, id);
        add(userdata, last_seq);
        add_bytes(userdata, name);
        return 0;
}

static int on_task(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes task, StoreKind last,
                   StoreBytes last_body) {
        Told *t = userdata;
        FUZZ_CHECK(last == 0 || last == STORE_STATE || last == STORE_END);
        add(t, queue ^ seq << 8 ^ (uint64_t)lane << 16 ^ (uint64_t)last << 24);
        add_bytes(t, task);
        add_bytes(t, last_body);
        t->n_tasks++;
        return 0;
}

static int on_running(void *userdata, uint64_t queue, uint64_t seq, uint32_t attempt) {
        return 0;
}

static int on_done(void *userdata) {
        return 0;
}

static void on_damaged(void *userdata, const char *file, uint64_t at, uint64_t n, const char *kept) {
        FUZZ_CHECK(at >= SEGMENT_HEADER && at + n <= SIZE);
        ((Told *)userdata)->n_damaged++;
}

static const StoreReader reader = { .running = on_running,
                                    .queue = on_queue,
                                    .gone = on_gone,
                                    .task = on_task,
                                    .done = on_done,
                                    .damaged = on_damaged };

static void empty(void) {
        DIR *d = opendir(dir);
        FUZZ_CHECK(d);
        for (struct dirent *e; (e = readdir(d));)
                if (e->d_name[0] != '.')
                        (void)unlinkat(dirfd(d), e->d_name, 0);
        closedir(d);
}

static void clean_up(void) {
        empty();
        (void)rmdir(dir);
}

static void set_up(void) {
        strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/eqd-fuzz.XXXXXX" : "/tmp/eqd-fuzz.XXXXXX");
        FUZZ_CHECK(mkdtemp(dir));
        FUZZ_CHECK(atexit(clean_up) == 0);
}

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
        int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        FUZZ_CHECK(fd >= 0 && segment_create(fd, 1, SIZE, &s) == 0);
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

static Told look(void) {
        Told told = { 0 };
        Store *s;
        char error[256];
        StoreConfig config = { .dir = dir, .segment_size = SIZE };
        FUZZ_CHECK(store_open(&config, &reader, &told, error, sizeof(error), &s) == 0);
        store_close(s);
        return told;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        if (size == 0)
                return 0;
        if (!dir[0])
                set_up();
        empty();
        put(data, size);
        Told first = look(), second = look();
        FUZZ_CHECK(second.n_damaged == 0 || first.n_damaged > 0);
        FUZZ_CHECK(first.sum == second.sum && first.n_tasks == second.n_tasks && first.n_queues == second.n_queues);
        return 0;
}
