/* SPDX-License-Identifier: MIT */
#pragma once

/* From the options of submit and run to what is sent: one task, or one per number of --array or line of --each. */

#include "eqctl/ctl.h"

typedef struct Submission {
        Ctl *ctl;
        const char *queue;
        char *home;      /* owned; `queue` where others were named behind it */
        EqSubmit common; /* everything but argv, and env where that differs; points into the buffers below */
        EqBuffer env, rlimits, after[3], label, also;
        char *cwd, *stdout_path, *stderr_path; /* owned */
        EqBuffer payload;
        const char *payload_text; /* of one of many: {} is replaced in it; NULL: all have `payload` */
        const char *unique;       /* with {} if there are many; NULL: none */
        int stdin_fd;             /* -1; else to be sent along; owned */
        bool wait, follow;
        const char **argv; /* the command before {} is replaced; NULL-terminated; owned array */
        size_t n_argv;
        bool is_array, is_each;
        uint64_t first, last, step, limit; /* --array; limit 0: none */
        FILE *lines;                       /* --each; owned unless stdin */
} Submission;

/* 0, or the exit status. `is_run` makes it wait, stream output and pass standard input. */
int submission_init(Submission *s, Ctl *ctl, bool is_run);
void submission_deinit(Submission *s);
static inline bool submission_is_many(const Submission *s) {
        return s->is_array || s->is_each;
}

/* argv and env of one of many tasks, encoded, its payload and its key. `word` replaces {}. */
typedef struct SubmissionItem {
        EqBuffer argv, env, payload, unique;
        EqArray argv_array, env_array;
} SubmissionItem;
/* 0, -ENOMEM, or the exit status. */
int submission_item(const Submission *s, const char *word, SubmissionItem *ret);
void submission_item_deinit(SubmissionItem *item);

/* text with every {} replaced by word. Appends; false if there was none. */
bool replace_braces(EqBuffer *b, const char *text, const char *word);
/* "a,b,c": appends the names of all but the first as elements, and counts them. 0, or -EINVAL with *ret_bad, the part that is no
 * name; *ret_first is another part of text. */
int queues_parse(const char *text, EqBytes *ret_first, EqBuffer *others, uint32_t *ret_n, EqBytes *ret_bad);
/* "1-100", "1-100:5", "7", each with %LIMIT behind it or not: *ret_limit 0. 0 or -EINVAL. */
int array_parse(const char *text, uint64_t *ret_first, uint64_t *ret_last, uint64_t *ret_step, uint64_t *ret_limit);
/* "ok:encode/1,any:mail/7,encode/3": appends the ids of each kind (ok, any, fail) as elements, and counts them. 0, or -EINVAL
 * with *ret_bad, the part that is none. */
int after_parse(const char *text, EqBuffer ids[3], uint32_t n_ids[3], EqBytes *ret_bad);
/* "exp:1s:10m", "1s", "1s:10m". 0 or -EINVAL; *ret_longest is 0 where it was not given. */
int backoff_parse(const char *text, uint64_t *ret_first, uint64_t *ret_longest);
