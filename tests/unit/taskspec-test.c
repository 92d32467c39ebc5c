/* SPDX-License-Identifier: MIT */
#include "executor/taskspec.h"

#include <fcntl.h>
#include <string.h>

#include "base/util.h"
#include "test.h"

/* {label: ..., urgent: ..., retries: ...}; a NULL label and a negative number leave the key out. */
static EqBytes pack_options(msgpack_sbuffer *buf, const char *label, int retries) {
        msgpack_packer pk;
        msgpack_sbuffer_init(buf);
        msgpack_packer_init(&pk, buf, msgpack_sbuffer_write);
        msgpack_pack_map(&pk, (size_t)(label != NULL) + (retries >= 0));
        if (label) {
                msgpack_pack_str_with_body(&pk, "label", 5);
                msgpack_pack_str_with_body(&pk, label, strlen(label));
        }
        if (retries >= 0) {
                msgpack_pack_str_with_body(&pk, "retries", 7);
                msgpack_pack_int(&pk, retries);
        }
        return eq_bytes(buf->data, buf->size);
}

static Identity *identity(void) {
        static const gid_t groups[] = { 20, 44 };
        Identity *id = NULL;
        ck_assert_int_eq(identity_new(1000, 1001, groups, 2, &id), 0);
        return id;
}

static TaskSpec *room(void) {
        TaskSpec *s = malloc(sizeof(*s) + 128);
        ck_assert_ptr_nonnull(s);
        return s;
}

TEST(a_tasks_own_options_win_over_common_ones) {
        msgpack_sbuffer a, b;
        SharedOptions *common = NULL;
        Identity *id = identity();
        _cleanup_free_ TaskSpec *s = room();
        EqSubmit got;

        EqBytes theirs = pack_options(&a, "common", 7), own = pack_options(&b, "own", -1);
        ck_assert_int_eq(shared_options_new(theirs, &common), 0);
        task_spec_init(s, id, common, eq_str("input"), own, 42);
        common = shared_options_unref(common);
        id = identity_unref(id);
        msgpack_sbuffer_destroy(&a);
        msgpack_sbuffer_destroy(&b);

        task_spec_decode(s, &got);
        ck_assert(EQ_HAS(&got, Submit, label));
        ck_assert(eq_bytes_eq(got.label, eq_str("own")));
        ck_assert_uint_eq(got.retries, 7);
        ck_assert(EQ_HAS(&got, Submit, payload));
        ck_assert(eq_bytes_eq(got.payload, eq_str("input")));
        ck_assert(!EQ_HAS(&got, Submit, queue));
        ck_assert(!EQ_HAS(&got, Submit, argv));
        ck_assert_uint_eq(s->submitted_usec, 42);
        task_spec_deinit(s);
}

TEST(an_empty_task_has_an_empty_payload_and_no_options) {
        Identity *id = identity();
        _cleanup_free_ TaskSpec *s = room();
        EqSubmit got;
        task_spec_init(s, id, NULL, eq_bytes(NULL, 0), eq_bytes(NULL, 0), 1);
        task_spec_decode(s, &got);
        ck_assert_uint_eq(got.payload.len, 0);
        ck_assert_uint_eq(got.present, EQ_BIT(Submit, payload));
        task_spec_deinit(s);
        task_spec_deinit(s); /* again: nothing happens */
        identity_unref(id);
}

TEST(an_identity_knows_its_groups) {
        Identity *id = identity();
        ck_assert(identity_in_group(id, 1001));
        ck_assert(identity_in_group(id, 44));
        ck_assert(!identity_in_group(id, 1000));
        Identity *again = identity_ref(id);
        ck_assert_ptr_null(identity_unref(id));
        ck_assert_uint_eq(again->uid, 1000);
        identity_unref(again);
}

TEST(the_passed_descriptor_is_closed_once) {
        Identity *id = identity();
        _cleanup_free_ TaskSpec *s = room();
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        task_spec_init(s, id, NULL, eq_str("x"), eq_bytes(NULL, 0), 1);
        s->stdin_fd = fd;
        task_spec_deinit(s);
        ck_assert_int_lt(fcntl(fd, F_GETFD), 0);
        ck_assert_int_eq(s->stdin_fd, -1);
        ck_assert_uint_eq(id->n_refs, 1);
        identity_unref(id);
}

RUN_TESTS("taskspec", 10, test_a_tasks_own_options_win_over_common_ones,
          test_an_empty_task_has_an_empty_payload_and_no_options, test_an_identity_knows_its_groups,
          test_the_passed_descriptor_is_closed_once)
