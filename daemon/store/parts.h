/* SPDX-License-Identifier: MIT */
#pragma once

/* What the modules of this folder share. Fields are grouped by who may touch them; `lock` is held for a few loads and stores
 * only, never across a system call. */

#include <pthread.h>

#include "store/hint.h"
#include "store/index.h"
#include "store/marks.h"
#include "store/segment.h"
#include "store/store.h"

/* Encoded records without their sums, one after the other. */
typedef struct Batch {
        char *data;
        size_t len, cap;
        uint64_t last; /* position of the last record in it */
} Batch;

/* Where a part of one is: bytes of the batch, place of the first. */
typedef struct Placed {
        size_t begin, end;
        uint32_t segment, at;
} Placed;

/* What cannot be read may be readable in a moment, when the device answers again. It is asked for again each second, and is damaged if
 * that lasts: for compaction, which nobody waits for, a minute; for a start and for a fetch as long as is bearable. */
enum { READ_AGAIN_SEC = 1, COMPACT_PATIENCE_SEC = 60, READ_PATIENCE_SEC = 10 };

/* Makes the hint of one sealed segment, a little at a time. */
typedef struct HintMaker {
        uint64_t number;
        LiveMap live;    /* of that segment, when all that was known was durable */
        Segment segment; /* SEGMENT_NULL: not open yet */
        SegmentWindow window;
        uint32_t at;
        bool is_read; /* to its seal */
        Hint hint;
} HintMaker;

typedef struct HintsWanted {
        uint64_t *numbers; /* of the segments that have none; owned; the last one is next */
        size_t n, cap;
        HintMaker *own; /* owned: read by this thread, since the reader has one already. NULL: none */
} HintsWanted;

enum { DAMAGES_MAX = 32 }; /* not told yet; more at once are told by their files only */

/* A damaged place that was told. A start, the reader and compaction each come to it, the last one more than once without space. */
typedef struct ToldDamage {
        uint64_t segment;
        uint32_t at;
        bool kept;
} ToldDamage;
enum { TOLD_MAX = 256 }; /* the last ones; an older one that is found again is told again */

struct Store {
        /* Set while it is opened. */
        int dir_fd, event_fd;
        uint32_t segment_size;
        SegmentBoot boot;
        pthread_t thread, reader;
        bool has_reader;
        MarkTable *marks;
        MarksHead marks_head; /* as it was when it was opened */

        /* The loop's. */
        uint64_t written;
        Batch collecting;
        StoreHealth seen_health; /* at the last dispatch */
        int seen_error;
        bool seen_spent;
        int *free_marks, *found_marks; /* the latter were there when it was opened */
        size_t n_free_marks, n_found_marks;

        /* Shared, under lock. */
        pthread_mutex_t lock;
        _Atomic uint64_t looked_usec; /* at the space that is left; the loop's as well; not under it */
        _Atomic uint64_t appended;    /* as `written`, for who is not the loop; not under it */
        pthread_cond_t wake;          /* the store thread waits here */
        pthread_cond_t done;          /* store_close() waits here */
        bool stop, busy;              /* busy: `handed` is the thread's */
        bool look;                    /* at the space that is left, whatever the time */
        uint64_t low_water;
        Batch handed;
        uint64_t durable;
        StoreHealth health;
        int error;
        bool spent; /* a batch waits for space */
        StoreStats stats;
        StoreDamage damages[DAMAGES_MAX];
        size_t n_damages;
        ToldDamage told[TOLD_MAX];
        size_t n_told;           /* ever: the next one takes the place n_told % TOLD_MAX */
        StoreUnread unread_news; /* not told yet; seconds: 0: none */

        /* Shared with the reader thread, under reader_lock. */
        pthread_mutex_t reader_lock;
        pthread_cond_t reader_wake;
        StoreFetch *wanted, **wanted_end; /* in order */
        StoreFetch *fetched, **fetched_end;
        StoreFetch *unread, **unread_end; /* something of each cannot be read now; in order of when they are due */
        bool reader_stop;
        HintMaker *making; /* owned; what is in it is the reader thread's. NULL: none */

        /* The store thread writes, under index_lock; it alone reads without. */
        pthread_mutex_t index_lock,
                table_lock; /* the latter is the index's, and held for one look-up or change of its table */
        Index index;

        /* The store thread's. */
        StoreHealth own_health;
        bool is_low;
        bool index_broken; /* memory was out: nothing is compacted any more, since nobody knows what is dead */
        Segment active, next, victim;
        uint32_t at;            /* in active */
        uint32_t synced;        /* up to there active is on the disk */
        uint32_t victim_at;     /* how far it has been moved */
        StorePatience patience; /* with what comes next of it */
        SegmentWindow victim_window;
        Batch moving; /* n_moving copies of what lives in it, not placed yet */
        size_t n_moving;
        HintsWanted hints;
        uint64_t oldest; /* number of the oldest segment */
        uint64_t n_moved, moved_bytes;
        bool sealed; /* it ended in order */
};

/* store.c */
int store_tell_marks(const Store *s, const StoreReader *reader,
                     void *userdata);         /* what ran, before anything else is told */
int batch_reserve(Batch *b, size_t n);        /* room for n more bytes; 0 or -ENOMEM */
void batch_clear(Batch *b);                   /* nothing is in it; much memory goes back */
void batch_append(Batch *b, const Record *r); /* there is room; copies the body */

/* writer.c */
void *store_thread(void *store);
int store_sync(Store *s);           /* the active segment */
int store_put_seal(const Store *s); /* at the end of the active segment */
/* Is it little that is left of a file system of that size? was: it was before. *mark becomes what counts as it. */
bool store_is_little(uint64_t left, uint64_t size, uint64_t *mark, bool was);
bool store_is_short(int e); /* a failure that can pass by itself: of space, descriptors or memory, not of the disk */
/* The records of b from *done on go to the active segment, which is changed when it is full. *ret: what store_note() is to be told
 * of; what is behind it is noted. 0, or a negative errno: *done and *ret say how far it came. */
int store_place(Store *s, const Batch *b, size_t *done, Placed *ret);
void store_note(Store *s, const Batch *b, const Placed *run); /* tells the index */
int store_begin_segment(Store *s, uint64_t number); /* makes it the active one; `next` was it if there is one */

void store_set_sizes(Store *s);  /* the store thread's, or before it is started: what store_stats() tells of the log */
void store_ring(const Store *s); /* the loop has something to look at */

/* hintmaker.c; the store thread's, but for hint_maker_*() */
void hints_want(Store *s, uint64_t number); /* it is sealed and has none */
void hints_drop(Store *s, uint64_t number); /* that segment goes */
bool hints_are_wanted(Store *s);
/* The next one goes to the reader thread; if that is behind, this thread looks at so many bytes. All that is in the index is durable. */
void hints_step(Store *s, size_t budget);
void hints_finish(Store *s, uint64_t number); /* that one now, and what was begun; the threads have ended */
void hints_deinit(HintsWanted *h);
/* Looks at so many bytes. 0, or negative errno: there will be none. */
int hint_maker_read(HintMaker *m, int dir_fd, size_t budget);
/* The same, and writes it at last. 0: there is more; 1: it is written; or negative errno, as above. */
int hint_maker_step(HintMaker *m, int dir_fd);
HintMaker *hint_maker_free(HintMaker *m); /* NULL is fine; returns NULL */

/* reader.c */
int reader_init(Store *s);
int reader_start(Store *s);
void reader_stop(Store *s); /* repeatable */
void reader_deinit(Store *s);
void reader_call_done(Store *s); /* loop */
bool reader_has_hint(Store *s);
void reader_make_hint(Store *s, HintMaker *m);                 /* takes it over; it has none */
int place_open(int dir_fd, Segment *segment, uint32_t number); /* unless it is open */
/* The record at `place`. want: kind (STATE and END are one here, as are QUEUE and GONE), queue and SEQ that it must be of: a
 * hint said so, but the log has the last word. *segment: the one that was read last, or SEGMENT_NULL; *buf of *cap bytes grows.
 * *ret points into it. 0; -EBADMSG: it is damaged, or another one; -ENOENT: its segment is gone; or negative errno. */
int place_read(int dir_fd, Segment *segment, const IndexPlace *place, const Record *want, char **buf, size_t *cap,
               Record *ret);
/* Copies n bytes at `at` aside, durably. What is filled in can be told, also if that failed. 0 or negative errno. */
int damage_keep(int dir_fd, uint64_t segment, uint32_t at, const char *data, size_t n, StoreDamage *ret);
/* Any thread. Counts it. Is it to be told that this place is damaged, and is kept? Once; and again if it could not be kept before. */
bool damage_is_news(Store *s, uint64_t segment, uint32_t at, bool kept);
/* Any thread: store_next_damage() is to tell it, if it is news. */
void damage_note(Store *s, uint64_t segment, const StoreDamage *d, bool kept);

void patience_note(StorePatience *p);                            /* it could not be read just now */
bool patience_is_over(const StorePatience *p, unsigned seconds); /* it has been so for that long */
bool patience_is_due(const StorePatience *p);                    /* to be asked for; any time if it could be read */
void patience_wait(void); /* until it is asked for again; blocks. While eqd starts */
/* Any thread: store_next_unread() is to tell it. */
void unread_note(Store *s, uint64_t segment, unsigned seconds);

/* compact.c */
bool store_may_compact(const Store *s);
/* Looks at so many bytes of the oldest segment, and moves what lives of them. 0; 1: there is no space or memory for it now, or it cannot be read
 * now; or negative errno. */
int store_compact(Store *s, size_t budget);

/* replay.c */
int store_replay(Store *s, const StoreReader *reader, void *userdata, char *error, size_t error_size);
