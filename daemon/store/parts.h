/* SPDX-License-Identifier: MIT */
#pragma once

/* What the modules of this folder share. Fields are grouped by who may touch them; `lock` is held for a few loads and stores
 * only, never across a system call. */

#include <pthread.h>

#include "store/index.h"
#include "store/segment.h"
#include "store/store.h"

/* Encoded records without their sums, one after the other. */
typedef struct Batch {
        char *data;
        size_t len, cap;
        uint64_t last; /* position of the last record in it */
} Batch;

typedef struct MarkTable MarkTable;

struct Store {
        /* Set while it is opened. */
        int dir_fd, event_fd;
        uint32_t segment_size;
        pthread_t thread;
        MarkTable *marks;

        /* The loop's. */
        uint64_t written;
        Batch collecting;
        StoreHealth seen_health; /* at the last dispatch */
        int seen_error;
        int *free_marks;
        size_t n_free_marks;

        /* Shared, under lock. */
        pthread_mutex_t lock;
        pthread_cond_t wake; /* the store thread waits here */
        pthread_cond_t done; /* store_close() waits here */
        bool stop, busy;     /* busy: `handed` is the thread's */
        Batch handed;
        uint64_t durable;
        StoreHealth health;
        int error;
        StoreStats stats;

        /* The store thread's. */
        Index index;
        bool index_broken; /* memory was out: nothing is compacted any more, since nobody knows what is dead */
        Segment active, next, victim;
        uint32_t at;        /* in active */
        uint32_t victim_at; /* how far it has been moved */
        uint64_t oldest;    /* number of the oldest segment */
        uint64_t n_moved;
};

/* writer.c */
void *store_thread(void *store);
/* The record at p, whose header is put, goes to the active segment, which is changed when it is full; r tells what it is. 0 or
 * negative errno. */
int store_place_one(Store *s, char *p, const Record *r);
int store_begin_segment(Store *s, uint64_t number); /* makes it the active one; `next` was it if there is one */

/* compact.c */
bool store_may_compact(const Store *s);
/* Moves at most so many bytes. 0; 1: there is no space or memory for it now; or negative errno. */
int store_compact(Store *s, size_t budget);

/* replay.c */
int store_replay(Store *s, const StoreReader *reader, void *userdata, char *error, size_t error_size);

/* marks.c */
int marks_open(int dir_fd, MarkTable **ret);
MarkTable *marks_close(MarkTable *t);
int marks_each(const MarkTable *t, const StoreReader *reader, void *userdata);
void marks_clear(MarkTable *t);
void marks_set(MarkTable *t, int slot, uint64_t queue, uint64_t seq, uint32_t attempt);
void marks_unset(MarkTable *t, int slot);
