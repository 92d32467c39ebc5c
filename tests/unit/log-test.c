/* SPDX-License-Identifier: MIT */
/* The journal is played by the test: its sd_journal_sendv() comes before that of the library. */

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/fault.h"
#include "test.h"

static struct {
        pthread_mutex_t lock;
        char text[1 << 20]; /* a line per record, fields separated by | */
        size_t n;
        atomic_bool blocked;
        sem_t gate, came;
} journal = { .lock = PTHREAD_MUTEX_INITIALIZER };

int sd_journal_sendv(const struct iovec *iov, int n);
int sd_journal_sendv(const struct iovec *iov, int n) {
        sem_post(&journal.came);
        if (journal.blocked)
                sem_wait(&journal.gate);
        pthread_mutex_lock(&journal.lock);
        for (int i = 0; i < n; i++) {
                size_t len = strlen(journal.text);
                snprintf(journal.text + len, sizeof(journal.text) - len, "%.*s|", (int)iov[i].iov_len,
                         (const char *)iov[i].iov_base);
        }
        strcat(journal.text, "\n");
        journal.n++;
        pthread_mutex_unlock(&journal.lock);
        return 0;
}

/* Standard error as the journal would have it: a file that JOURNAL_STREAM names. */
static void connect_journal(void) {
        struct stat st;
        char stream[64];
        sem_init(&journal.gate, 0, 0);
        sem_init(&journal.came, 0, 0);
        ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
        snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
        setenv("JOURNAL_STREAM", stream, 1);
        ck_assert_int_eq(log_start(LOG_INFO), 0);
}

/* With everything written, however long that takes: log_stop() alone leaves what is not within a second. */
static void stop(void) {
        ck_assert(log_flush(3600 * USEC_PER_SEC));
        log_stop();
}

#define ck_assert_has(text, part) ck_assert_msg(strstr(text, part) != NULL, "%s is not in:\n%s", part, text)

TEST(an_event_has_its_id_its_priority_and_the_fields_that_are_set) {
        connect_journal();
        log_event(SPAWNER_BACK, (.pid = 42, .queue = "mail"), 42, 3);
        stop();
        ck_assert_uint_eq(journal.n, 1);
        ck_assert_has(journal.text, "MESSAGE=the spawner is back as process 42; 3 left-over processes were killed|");
        ck_assert_has(journal.text, "|PRIORITY=5|");
        ck_assert_has(journal.text, "|MESSAGE_ID=8917ce6cba5a4860a85e9b5f6bc94b27|");
        ck_assert_has(journal.text, "|EQD_EVENT=spawner-back|");
        ck_assert_has(journal.text, "|EQD_QUEUE=mail|");
        ck_assert_has(journal.text, "|EQD_PID=42|");
        ck_assert_ptr_null(strstr(journal.text, "EQD_TASK"));
}

TEST(a_count_is_there_also_when_it_is_none_and_not_when_nobody_knows_it) {
        const uint64_t none = 0, two = 2;
        connect_journal();
        log_event(SPAWNER_LOST, (.idle = &none, .workers = &two));
        stop();
        ck_assert_has(journal.text, "|EQD_WORKERS=2|");
        ck_assert_has(journal.text, "|EQD_IDLE=0|");
        ck_assert_ptr_null(strstr(journal.text, "EQD_MAYDAY"));
}

TEST(a_field_that_is_too_long_is_cut_and_the_record_stays_whole) {
        static char text[20000];
        memset(text, 'x', sizeof(text) - 1);
        connect_journal();
        log_event(CONFIG_REFUSED, (.queue = "mail", .error = text), text);
        stop();
        ck_assert_uint_eq(journal.n, 1);
        ck_assert_has(journal.text, "EQD_ERROR=xxxx");
        ck_assert_has(journal.text, "EQD_QUEUE=mail|");
        ck_assert_uint_lt(strlen(journal.text), 12000);
}

TEST(a_journal_that_stands_still_blocks_nobody_and_what_is_lost_is_told) {
        connect_journal();
        journal.blocked = true;
        log_info("first");
        sem_wait(&journal.came); /* the log thread is inside the journal now */
        for (int i = 0; i < 3000; i++)
                log_info("record %d", i);
        ck_assert_uint_eq(log_dropped(), 3000 - 1024);
        journal.blocked = false;
        sem_post(&journal.gate);
        stop();
        ck_assert_uint_eq(journal.n, 1 + 1024 + 1);
        ck_assert_has(journal.text, "MESSAGE=1976 log records were dropped: the journal was slow|");
        ck_assert_has(journal.text, "|MESSAGE_ID=f3a6b484a79449718dcd44f74fbcaa1a|");
        ck_assert_has(journal.text, "|EQD_DROPPED=1976|");
}

TEST(a_journal_that_stands_still_does_not_keep_eqd_from_ending) {
        connect_journal();
        journal.blocked = true;
        log_info("first");
        sem_wait(&journal.came);
        log_stop(); /* the limit of time is what fails here */
}

static size_t stderr_of(void (*body)(void), char *ret, size_t size) {
        FILE *f = tmpfile();
        int saved = dup(STDERR_FILENO);
        ck_assert_ptr_nonnull(f);
        ck_assert_int_ge(dup2(fileno(f), STDERR_FILENO), 0);
        body();
        fflush(stderr);
        dup2(saved, STDERR_FILENO);
        close(saved);
        rewind(f);
        size_t n = fread(ret, 1, size - 1, f);
        ret[n] = '\0';
        fclose(f);
        return n;
}

static void log_to_stderr(void) {
        setenv("JOURNAL_STREAM", "1:2", 1); /* inherited, and of another standard error */
        ck_assert_int_eq(log_start(LOG_INFO), 0);
        log_event(SPAWNER_LOST, (.inflight = 2));
        log_debug("not written");
        stop();
}

TEST(without_a_journal_lines_with_their_priority_go_to_standard_error) {
        char text[1024];
        stderr_of(log_to_stderr, text, sizeof(text));
        ck_assert_uint_eq(journal.n, 0);
        ck_assert_str_eq(text,
                         "<3>eqd: the spawner died; tasks that were running have ended with reason spawn-failed\n");
}

static void log_directly(void) {
        log_info("still here");
}

TEST(records_are_written_directly_while_there_is_no_thread) {
        fault_set(FAULT_THREAD, 1, false);
        ck_assert_int_eq(log_start(LOG_INFO), -EAGAIN);
        char text[1024];
        stderr_of(log_directly, text, sizeof(text));
        ck_assert_has(text, "eqd: still here\n");
}

TEST(a_record_without_memory_is_counted) {
        connect_journal();
        fault_set(FAULT_ALLOC, 1, false);
        log_info("lost");
        ck_assert_uint_eq(log_dropped(), 1);
        stop();
}

TEST(an_event_that_repeats_is_limited_and_the_next_says_how_often) {
        EventRate r = { 0 };
        uint64_t n, now = 1000 * USEC_PER_SEC;
        for (int i = 0; i < 6; i++)
                ck_assert(event_rate_admit(&r, 6, now + (uint64_t)i, &n) && n == 0);
        for (int i = 0; i < 10; i++)
                ck_assert(!event_rate_admit(&r, 6, now + 59 * USEC_PER_SEC, &n));
        ck_assert(event_rate_admit(&r, 6, now + 60 * USEC_PER_SEC, &n));
        ck_assert_uint_eq(n, 10);
        for (int i = 0; i < 100; i++)
                ck_assert(event_rate_admit(&r, 0, now, &n));

        connect_journal();
        for (int i = 0; i < 20; i++)
                log_event(CONNECTIONS_REFUSED, (0), "too many", UINT64_C(1));
        stop();
        ck_assert_uint_eq(journal.n, event_rows[EVENT_CONNECTIONS_REFUSED].per_minute);
}

TEST(every_event_has_an_id_of_its_own_and_texts_that_name_fields_that_exist) {
        for (int i = 0; i < _EVENT_MAX; i++) {
                const EventRow *e = &event_rows[i];
                ck_assert_uint_eq(strlen(e->message_id), 32);
                ck_assert_uint_eq(strspn(e->message_id, "0123456789abcdef"), 32);
                ck_assert_msg(*e->happened && *e->advice, "%s has no text", e->name);
                for (int j = 0; j < i; j++) {
                        ck_assert_str_ne(e->message_id, event_rows[j].message_id);
                        ck_assert_str_ne(e->name, event_rows[j].name);
                }
                for (const char *at = strchr(e->happened, '@'); at; at = strchr(strchr(at + 1, '@') + 1, '@')) {
                        const char *end = strchr(at + 1, '@');
                        bool found = false;
                        ck_assert_msg(end != NULL, "%s: @ without its second one", e->name);
                        for (size_t f = 0; f < n_event_fields; f++)
                                found |= strlen(event_fields[f].key) == (size_t)(end - at - 1) &&
                                         memcmp(event_fields[f].key, at + 1, (size_t)(end - at - 1)) == 0;
                        ck_assert_msg(found, "%s: no field %.*s", e->name, (int)(end - at + 1), at);
                }
        }
}

RUN_TESTS("log", 20, test_an_event_has_its_id_its_priority_and_the_fields_that_are_set,
          test_a_count_is_there_also_when_it_is_none_and_not_when_nobody_knows_it,
          test_a_field_that_is_too_long_is_cut_and_the_record_stays_whole,
          test_a_journal_that_stands_still_blocks_nobody_and_what_is_lost_is_told,
          test_a_journal_that_stands_still_does_not_keep_eqd_from_ending,
          test_without_a_journal_lines_with_their_priority_go_to_standard_error,
          test_records_are_written_directly_while_there_is_no_thread, test_a_record_without_memory_is_counted,
          test_an_event_that_repeats_is_limited_and_the_next_says_how_often,
          test_every_event_has_an_id_of_its_own_and_texts_that_name_fields_that_exist)
