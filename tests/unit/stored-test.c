/* SPDX-License-Identifier: MIT */
#include "manager/stored.h"

#include <errno.h>
#include <string.h>

#include "test.h"

static void same(EqBytes a, EqBytes b) {
        ck_assert_msg(eq_bytes_eq(a, b), "%.*s, not %.*s", (int)a.len, a.data, (int)b.len, b.data);
}

static EqBytes bytes_of(const EqBuffer *b) {
        ck_assert(!b->failed);
        return eq_bytes(b->data, b->len);
}

/* Every beginning of a form is refused, and so is one with a byte too many. */
static void only_the_whole(EqBuffer *b, int (*unpack)(EqBytes raw, void *ret), void *ret) {
        for (size_t n = 0; n < b->len; n++) {
                char *copy = malloc(n + 1); /* so that a byte read behind it is seen */
                ck_assert_ptr_nonnull(copy);
                memcpy(copy, b->data, n);
                ck_assert_int_eq(unpack(eq_bytes(copy, n), ret), -EBADMSG);
                free(copy);
        }
        ck_assert_int_eq(unpack(bytes_of(b), ret), 0);
        ck_assert_int_eq(eq_buffer_append(b, "x", 1), 0);
        ck_assert_int_eq(unpack(bytes_of(b), ret), -EBADMSG);
        b->data[0] = 99;
        ck_assert_int_eq(unpack(bytes_of(b), ret), -EPROTONOSUPPORT);
        b->data[0] = 0;
        ck_assert_int_eq(unpack(bytes_of(b), ret), -EBADMSG);
}

static int unpack_task(EqBytes raw, void *ret) {
        return stored_task_unpack(raw, ret);
}
static int unpack_state(EqBytes raw, void *ret) {
        return stored_state_unpack(raw, ret);
}
static int unpack_end(EqBytes raw, void *ret) {
        return stored_end_unpack(raw, ret);
}
static int unpack_queue(EqBytes raw, void *ret) {
        return stored_queue_unpack(raw, ret);
}

TEST(a_task_comes_back_as_it_was) {
        static const char groups[] = { 20, 0, 0, 0, 44, 1, 0, 0 };
        EqBuffer b = EQ_BUFFER_NULL;
        StoredTask t = {
                .uid = 1000,
                .gid = UINT32_MAX,
                .n_groups = 2,
                .groups = eq_bytes(groups, sizeof(groups)),
                .held = true,
                .retries = 65535,
                .submitted_usec = UINT64_MAX,
                .due_usec = 1,
                .expire_usec = 2,
                .payload = eq_bytes("\0\xff\n", 3),
                .options = eq_str("own"),
        };
        StoredTask got;
        stored_task_pack(&t, &b);
        ck_assert_int_eq(stored_task_unpack(bytes_of(&b), &got), 0);
        ck_assert_uint_eq(got.uid, 1000);
        ck_assert_uint_eq(got.gid, UINT32_MAX);
        ck_assert_uint_eq(got.n_groups, 2);
        ck_assert_uint_eq(stored_group(&got, 0), 20);
        ck_assert_uint_eq(stored_group(&got, 1), 300);
        ck_assert(got.held && !got.has_fd);
        ck_assert_uint_eq(got.retries, 65535);
        ck_assert_uint_eq(got.submitted_usec, UINT64_MAX);
        ck_assert_uint_eq(got.due_usec, 1);
        ck_assert_uint_eq(got.expire_usec, 2);
        same(got.payload, t.payload);
        same(got.common, eq_str(""));
        same(got.options, eq_str("own"));
        only_the_whole(&b, unpack_task, &got);
        eq_buffer_done(&b);
}

TEST(a_task_over_several_queues_comes_back_with_its_places) {
        EqBuffer b = EQ_BUFFER_NULL, others = EQ_BUFFER_NULL;
        StoredTask got;
        uint64_t queue, seq;
        stored_other_pack(UINT64_MAX, 1, &others);
        stored_other_pack(7, UINT64_MAX, &others);
        stored_task_pack(&(StoredTask) { .options = eq_str("own"), .others = bytes_of(&others) }, &b);
        ck_assert_int_eq(stored_task_unpack(bytes_of(&b), &got), 0);
        same(got.options, eq_str("own"));
        ck_assert(stored_other_next(&got.others, &queue, &seq));
        ck_assert(queue == UINT64_MAX && seq == 1);
        ck_assert(stored_other_next(&got.others, &queue, &seq));
        ck_assert(queue == 7 && seq == UINT64_MAX);
        ck_assert(!stored_other_next(&got.others, &queue, &seq));
        only_the_whole(&b, unpack_task, &got);

        b.len = 0; /* half a place is none */
        stored_task_pack(&(StoredTask) { .others = eq_bytes(others.data, others.len - 1) }, &b);
        ck_assert_int_eq(stored_task_unpack(bytes_of(&b), &got), -EBADMSG);

        b.len = 0; /* and a task with no others is never written with an empty list of them */
        stored_task_pack(&(StoredTask) { .others = bytes_of(&others) }, &b);
        b.len -= others.len;
        memset(b.data + b.len - sizeof(uint32_t), 0, sizeof(uint32_t));
        ck_assert_int_eq(stored_task_unpack(bytes_of(&b), &got), -EBADMSG);
        eq_buffer_done(&b);
        eq_buffer_done(&others);
}

TEST(a_task_with_more_groups_than_there_can_be_is_refused) {
        EqBuffer b = EQ_BUFFER_NULL;
        char groups[4 * 257] = { 0 };
        StoredTask t = { .n_groups = 257, .groups = eq_bytes(groups, sizeof(groups)) }, got;
        stored_task_pack(&t, &b);
        ck_assert_int_eq(stored_task_unpack(bytes_of(&b), &got), -EBADMSG);
        eq_buffer_done(&b);
}

static void states_are_alike(const StoredState *a, const StoredState *b) {
        ck_assert(a->attempt == b->attempt && a->crashes == b->crashes && a->lost == b->lost && a->wait == b->wait);
        ck_assert(a->due_usec == b->due_usec && a->expire_usec == b->expire_usec && a->starts == b->starts);
}

TEST(a_state_comes_back_as_it_was) {
        EqBuffer b = EQ_BUFFER_NULL;
        StoredState s = { .attempt = 7, .crashes = 2, .lost = 4, .wait = 9, .due_usec = UINT64_MAX, .expire_usec = 5 },
                    got;
        s.starts = true;
        stored_state_pack(&s, &b);
        ck_assert_int_eq(stored_state_unpack(bytes_of(&b), &got), 0);
        states_are_alike(&s, &got);
        only_the_whole(&b, unpack_state, &got);
        b.len = 0;
        stored_state_pack(&s, &b);
        b.data[b.len - 1] = 4; /* nothing that it could have */
        ck_assert_int_eq(stored_state_unpack(bytes_of(&b), &got), -EBADMSG);
        b.data[0] = 2; /* as it was before it told of an attempt */
        b.data[b.len - 1] = 2;
        ck_assert_int_eq(stored_state_unpack(bytes_of(&b), &got), -EBADMSG);
        b.data[b.len - 1] = 1;
        ck_assert_int_eq(stored_state_unpack(bytes_of(&b), &got), 0);
        states_are_alike(&s, &got);
        b.data[0] = 1; /* ... and of starts */
        b.len--;
        s.starts = false;
        ck_assert_int_eq(stored_state_unpack(bytes_of(&b), &got), 0);
        states_are_alike(&s, &got);
        b.data[0] = 4;
        ck_assert_int_eq(stored_state_unpack(bytes_of(&b), &got), -EPROTONOSUPPORT);
        eq_buffer_done(&b);
}

TEST(a_state_tells_of_the_last_attempt_if_there_was_one) {
        EqBuffer b = EQ_BUFFER_NULL;
        StoredState s = { .attempt = 2, .wait = 1, .n_total = { [EQ_STREAM_STDOUT] = 70, [EQ_STREAM_STDERR] = 80 } },
                    got;
        s.last = (StoredTry) { .started_usec = 9,
                               .exit = -1,
                               .signal = 11,
                               .utime_usec = 1,
                               .stime_usec = 2,
                               .maxrss_kib = 3,
                               .error = eq_str("why"),
                               .worker = 77 };
        stored_state_pack(&s, &b);
        ck_assert_int_eq(stored_state_unpack(bytes_of(&b), &got), 0);
        states_are_alike(&s, &got);
        ck_assert(got.last.started_usec == 9 && got.last.exit == -1 && got.last.signal == 11);
        ck_assert(got.last.utime_usec == 1 && got.last.stime_usec == 2 && got.last.maxrss_kib == 3);
        same(got.last.error, eq_str("why"));
        ck_assert_uint_eq(got.last.worker, 77);
        ck_assert(got.n_total[EQ_STREAM_STDOUT] == 70 && got.n_total[EQ_STREAM_STDERR] == 80);
        only_the_whole(&b, unpack_state, &got);
        memset(b.data + 25, 0, sizeof(uint64_t)); /* it never started, and yet is there */
        ck_assert_int_eq(stored_state_unpack(bytes_of(&b), &got), -EBADMSG);
        eq_buffer_done(&b);
}

TEST(an_end_comes_back_as_it_was_with_its_output) {
        EqBuffer b = EQ_BUFFER_NULL;
        OutputLog log;
        output_log_init(&log);
        output_log_begin(&log, 1);
        ck_assert_int_eq(output_log_append(&log, EQ_STREAM_STDOUT, "of another attempt", 18), 0);
        output_log_begin(&log, 2);
        ck_assert_int_eq(output_log_append(&log, EQ_STREAM_STDOUT, "one", 3), 0);
        ck_assert_int_eq(output_log_append(&log, EQ_STREAM_STDERR, "two", 3), 0);
        ck_assert_int_eq(output_log_append(&log, EQ_STREAM_STDOUT, "three", 5), 0);
        StoredEnd e = { .state = EQ_STATE_FAILED,
                        .reason = EQ_REASON_SPAWN_FAILED,
                        .note = 3,
                        .attempt = 2,
                        .crashes = 1,
                        .finished_usec = 10,
                        .last.started_usec = 9,
                        .last.exit = -1,
                        .last.signal = 11,
                        .last.utime_usec = 1,
                        .last.stime_usec = 2,
                        .last.maxrss_kib = 3,
                        .last.error = eq_str("why"),
                        .lost = 5,
                        .last.worker = 77,
                        .result = eq_bytes("a\0b", 3) };
        StoredEnd got;
        stored_end_pack(&e, &log, &b);
        ck_assert_int_eq(stored_end_unpack(bytes_of(&b), &got), 0);
        ck_assert_uint_eq(got.state, EQ_STATE_FAILED);
        ck_assert_uint_eq(got.reason, EQ_REASON_SPAWN_FAILED);
        ck_assert_int_eq(got.last.exit, -1);
        ck_assert_int_eq(got.last.signal, 11);
        ck_assert_uint_eq(got.last.maxrss_kib, 3);
        same(got.last.error, eq_str("why"));
        ck_assert_uint_eq(got.lost, 5);
        ck_assert_uint_eq(got.last.worker, 77);
        same(got.result, eq_bytes("a\0b", 3));
        ck_assert_uint_eq(got.n_total[EQ_STREAM_STDOUT], 8);
        ck_assert_uint_eq(got.n_total[EQ_STREAM_STDERR], 3);

        static const char *const chunks[] = { "one", "two", "three" };
        EqBytes output = got.output, data;
        uint8_t stream;
        for (int i = 0; i < 3; i++) {
                ck_assert(stored_output_next(&output, &stream, &data));
                ck_assert_uint_eq(stream, i == 1 ? EQ_STREAM_STDERR : EQ_STREAM_STDOUT);
                same(data, eq_str(chunks[i]));
        }
        ck_assert(!stored_output_next(&output, &stream, &data));
        only_the_whole(&b, unpack_end, &got);
        output_log_deinit(&log);
        eq_buffer_done(&b);
}

TEST(an_end_that_is_none_is_refused) {
        EqBuffer b = EQ_BUFFER_NULL;
        StoredEnd e = { .state = EQ_STATE_RUNNING }, got;
        stored_end_pack(&e, NULL, &b);
        ck_assert_int_eq(stored_end_unpack(bytes_of(&b), &got), -EBADMSG);
        eq_buffer_done(&b);
}

TEST(a_queue_comes_back_as_it_was) {
        EqBuffer b = EQ_BUFFER_NULL, set = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&set);
        eq_pack_cstr(&pk, "max_active=2");
        eq_pack_cstr(&pk, "history=5");
        StoredQueue q = { .creator = 1000, .pauses = 2, .overridden = true, .digest = 77 }, got;
        q.set = (EqArray) { .raw = eq_bytes(set.data, set.len), .n = 2 };
        stored_queue_pack(&q, &b);
        ck_assert_int_eq(stored_queue_unpack(bytes_of(&b), &got), 0);
        ck_assert_uint_eq(got.creator, 1000);
        ck_assert_uint_eq(got.pauses, 2);
        ck_assert(got.overridden && !got.from_file && !got.stopped);
        ck_assert_uint_eq(got.digest, 77);
        EqBytes kv;
        ck_assert_int_eq(eq_next_bytes(&got.set, &kv), 1);
        same(kv, eq_str("max_active=2"));
        ck_assert_int_eq(eq_next_bytes(&got.set, &kv), 1);
        same(kv, eq_str("history=5"));
        only_the_whole(&b, unpack_queue, &got);
        eq_buffer_done(&b);
        eq_buffer_done(&set);
}

TEST(a_queue_whose_list_has_another_length_is_refused) {
        EqBuffer b = EQ_BUFFER_NULL;
        StoredQueue q = { .set = { .raw = eq_bytes("\xa1x", 2), .n = 2 } }, got;
        stored_queue_pack(&q, &b);
        ck_assert_int_eq(stored_queue_unpack(bytes_of(&b), &got), -EBADMSG);
        eq_buffer_done(&b);
        q.set.n = 0;
        stored_queue_pack(&q, &b);
        ck_assert_int_eq(stored_queue_unpack(bytes_of(&b), &got), -EBADMSG);
        eq_buffer_done(&b);
}

RUN_TESTS("stored", 10, test_a_task_comes_back_as_it_was, test_a_task_over_several_queues_comes_back_with_its_places,
          test_a_task_with_more_groups_than_there_can_be_is_refused, test_a_state_comes_back_as_it_was,
          test_a_state_tells_of_the_last_attempt_if_there_was_one, test_an_end_comes_back_as_it_was_with_its_output,
          test_an_end_that_is_none_is_refused, test_a_queue_comes_back_as_it_was,
          test_a_queue_whose_list_has_another_length_is_refused)
