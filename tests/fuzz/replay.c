/* SPDX-License-Identifier: MIT */
/* Runs a fuzz target without libFuzzer: over every file of the given corpus directories, and over a bounded number of
 * mutations of each. Deterministic, so that what fails here fails again: `replay [-n N] DIRECTORY...` (the mutation that failed
 * is named by file and round), and `replay -w FILE ROUND` writes it to standard output. EQD_LONG set: never fewer than 2000. */

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gen.h"
#include "target.h"

enum { N_MUTATIONS = 2000, MAX_FILE = 65536 };

static unsigned n_mutations = N_MUTATIONS; /* of each file */

/* What runs now, for the handler of SIGABRT; nothing else is shared. */
static char now_running[512];

static void say_what_ran(int signo) {
        (void)!write(STDERR_FILENO, now_running, strlen(now_running));
        signal(signo, SIG_DFL);
        raise(signo);
}

static int read_file(const char *path, EqBuffer *b) {
        char chunk[4096];
        FILE *f = fopen(path, "re");
        size_t n;
        if (!f)
                return -errno;
        while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0 && b->len < MAX_FILE)
                if (eq_buffer_append(b, chunk, n) < 0)
                        abort();
        fclose(f);
        return 0;
}

/* Round 0 is the file itself. Later ones drop, change and add bytes, more with each hundred rounds. */
static void make_round(const EqBuffer *file, unsigned round, EqBuffer *ret) {
        uint64_t seed = 0x9e3779b97f4a7c15u * (round + 1);

        ret->len = 0;
        if (file->len > 0 && eq_buffer_append(ret, file->data, file->len) < 0)
                abort();
        if (round == 0)
                return;
        for (unsigned i = 0; i < 1 + round / 100; i += 1 + i)
                gen_mutate(&seed, ret);
        if (round % 7 == 0)
                ret->len -= gen_below(&seed, ret->len + 1);
}

/* In a block of just its length: a sanitizer or malloc's checks see the first byte outside. */
static void run_one(const EqBuffer *input) {
        uint8_t *copy = malloc(input->len ? input->len : 1);
        if (!copy)
                abort();
        if (input->len > 0)
                memcpy(copy, input->data, input->len);
        LLVMFuzzerTestOneInput(copy, input->len);
        free(copy);
}

static int run_file(const char *path) {
        EqBuffer file = EQ_BUFFER_NULL, input = EQ_BUFFER_NULL;
        int r = read_file(path, &file);
        if (r < 0) {
                fprintf(stderr, "%s: %s\n", path, strerror(-r));
                return r;
        }
        for (unsigned round = 0; round <= n_mutations; round++) {
                snprintf(now_running, sizeof(now_running), "while running %s, round %u\n", path, round);
                make_round(&file, round, &input);
                run_one(&input);
        }
        eq_buffer_done(&file);
        eq_buffer_done(&input);
        return 0;
}

static int write_round(const char *path, unsigned round) {
        EqBuffer file = EQ_BUFFER_NULL, input = EQ_BUFFER_NULL;
        int r = read_file(path, &file);
        if (r == 0) {
                make_round(&file, round, &input);
                fwrite(input.data, 1, input.len, stdout);
        }
        eq_buffer_done(&file);
        eq_buffer_done(&input);
        return r;
}

static int run_directory(const char *path, unsigned *n_files) {
        struct dirent **entries;
        int r = 0, n = scandir(path, &entries, NULL, alphasort);
        if (n < 0) {
                fprintf(stderr, "%s: %s\n", path, strerror(errno));
                return -1;
        }
        for (int i = 0; i < n; i++) {
                char file[4096];
                snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
                if (entries[i]->d_name[0] != '.' && r == 0) {
                        r = run_file(file);
                        (*n_files)++;
                }
                free(entries[i]);
        }
        free(entries);
        return r;
}

int main(int argc, char *argv[]) {
        unsigned n_files = 0;

        if (argc == 4 && strcmp(argv[1], "-w") == 0)
                return write_round(argv[2], (unsigned)strtoul(argv[3], NULL, 10)) < 0;
        if (argc > 3 && strcmp(argv[1], "-n") == 0) {
                if (!getenv("EQD_LONG"))
                        n_mutations = (unsigned)strtoul(argv[2], NULL, 10);
                argv += 2;
                argc -= 2;
        }
        if (argc < 2) {
                fprintf(stderr, "usage: replay [-n MUTATIONS] DIRECTORY... | replay -w FILE ROUND\n");
                return 2;
        }
        signal(SIGABRT, say_what_ran);
        signal(SIGSEGV, say_what_ran);
        for (int i = 1; i < argc; i++)
                if (run_directory(argv[i], &n_files) < 0)
                        return 1;
        if (n_files == 0) {
                fprintf(stderr, "no files: an empty corpus tests nothing\n");
                return 1;
        }
        printf("%u files, each with %u mutations\n", n_files, n_mutations);
        return 0;
}
