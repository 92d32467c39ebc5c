/* SPDX-License-Identifier: MIT */
#include "server/introspect.h"

#include <string.h>

#include "base/util.h"
#include "proto/codec.h"
#include "test.h"

static msgpack_unpacked unpacked;
static EqBuffer buffer;

static const msgpack_object *get(const msgpack_object *map, const char *key) {
        ck_assert_int_eq(map->type, MSGPACK_OBJECT_MAP);
        for (uint32_t i = 0; i < map->via.map.size; i++) {
                const msgpack_object_kv *kv = &map->via.map.ptr[i];
                if (kv->key.via.str.size == strlen(key) && memcmp(kv->key.via.str.ptr, key, strlen(key)) == 0)
                        return &kv->val;
        }
        ck_abort_msg("no key '%s'", key);
        return NULL;
}

static bool is_str(const msgpack_object *o, const char *s) {
        return o->type == MSGPACK_OBJECT_STR && o->via.str.size == strlen(s) &&
               memcmp(o->via.str.ptr, s, strlen(s)) == 0;
}

/* The row of that name in an array of maps. */
static const msgpack_object *row(const msgpack_object *array, const char *name) {
        ck_assert_int_eq(array->type, MSGPACK_OBJECT_ARRAY);
        for (uint32_t i = 0; i < array->via.array.size; i++)
                if (is_str(get(&array->via.array.ptr[i], "name"), name))
                        return &array->via.array.ptr[i];
        ck_abort_msg("no row '%s'", name);
        return NULL;
}

static const msgpack_object *open_tables(void) {
        size_t end = 0;

        msgpack_packer pk = eq_packer(&buffer);
        introspect_pack(&pk, 42);
        ck_assert(!buffer.failed);
        msgpack_unpacked_init(&unpacked);
        ck_assert_int_eq(msgpack_unpack_next(&unpacked, buffer.data, buffer.len, &end), MSGPACK_UNPACK_SUCCESS);
        ck_assert_uint_eq(end, buffer.len); /* one value, every count right */
        ck_assert_uint_eq(unpacked.data.via.array.size, 2);
        ck_assert_uint_eq(unpacked.data.via.array.ptr[0].via.u64, 42);
        return &unpacked.data.via.array.ptr[1];
}

static void close_tables(void) {
        msgpack_unpacked_destroy(&unpacked);
        eq_buffer_done(&buffer);
}

TEST(the_whole_is_one_value_and_far_below_the_limit_of_a_message) {
        (void)open_tables();
        ck_assert_uint_lt(buffer.len, EQ_MESSAGE_MAX / 16);
        close_tables();
}

TEST(every_method_is_there_with_its_arguments_by_position_and_by_name) {
        const msgpack_object *functions = get(open_tables(), "functions");

        ck_assert_uint_eq(functions->via.array.size, _EQ_METHOD_MAX);
        for (unsigned i = 0; i < _EQ_METHOD_MAX; i++) {
                const EqMethod *m = &eq_methods[i];
                const msgpack_object *f = row(functions, m->name);
                ck_assert_uint_eq(get(f, "parameters")->via.array.size, m->params->n_positional);
                ck_assert_uint_eq(get(f, "options")->via.map.size, m->params->n_fields - m->params->n_positional);
                ck_assert_uint_eq(get(f, "since")->via.u64, m->since);
                ck_assert(!get(f, "method")->via.boolean);
        }
        const msgpack_object *submit = row(functions, "submit");
        const msgpack_object *first = &get(submit, "parameters")->via.array.ptr[0];
        ck_assert(is_str(&first->via.array.ptr[0], "str"));
        ck_assert(is_str(&first->via.array.ptr[1], "queue"));
        ck_assert(is_str(get(submit, "return_type"), "id"));
        ck_assert(is_str(get(get(get(submit, "options"), "argv"), "type"), "strv"));
        ck_assert(is_str(get(row(functions, "list"), "return_type"), "ArrayOf(Task)"));
        ck_assert(is_str(get(row(functions, "stat"), "return_type"), "Stat"));
        ck_assert(get(row(functions, "reload"), "admin")->via.boolean);
        close_tables();
}

TEST(what_neovims_clients_look_up_is_there) {
        const msgpack_object *map = open_tables();

        ck_assert_int_eq(get(map, "types")->type, MSGPACK_OBJECT_MAP);
        ck_assert_int_eq(get(get(get(map, "error_types"), "Exception"), "id")->type, MSGPACK_OBJECT_POSITIVE_INTEGER);
        ck_assert_uint_eq(get(get(map, "version"), "api_level")->via.u64, EQ_PROTOCOL);
        ck_assert(is_str(get(get(map, "version"), "eqd"), EQD_VERSION));
        close_tables();
}

TEST(errors_reasons_states_events_limits_notifications_and_records_are_there) {
        const msgpack_object *map = open_tables();

        ck_assert_uint_eq(get(row(get(map, "errors"), "full"), "code")->via.u64, EQ_E_FULL);
        ck_assert_uint_eq(get(map, "reasons")->via.array.size, _EQ_REASON_MAX);
        ck_assert_uint_eq(get(map, "states")->via.array.size, _EQ_STATE_MAX);
        ck_assert_uint_eq(get(map, "events")->via.array.size, _EQ_EVENT_MAX);
        ck_assert_uint_eq(get(row(get(map, "limits"), "MESSAGE_MAX"), "value")->via.u64, EQ_MESSAGE_MAX);
        (void)row(get(map, "notifications"), "lost");
        const msgpack_object *task = get(get(get(map, "records"), "Task"), "fields");
        ck_assert_uint_eq(task->via.map.size, EQ_N_Task);
        ck_assert(is_str(get(get(task, "exit"), "type"), "u64"));
        close_tables();
}

TEST(what_eqd_asks_of_workers_is_there) {
        const msgpack_object *run = row(get(open_tables(), "calls"), "run");
        ck_assert_uint_eq(get(run, "parameters")->via.array.size, eq_schema_Run.n_positional);
        ck_assert_uint_eq(get(run, "options")->via.map.size, EQ_N_Run - eq_schema_Run.n_positional);
        ck_assert(is_str(get(run, "answer"), "RunAnswer"));
        close_tables();
}

RUN_TESTS("introspect", 30, test_the_whole_is_one_value_and_far_below_the_limit_of_a_message,
          test_every_method_is_there_with_its_arguments_by_position_and_by_name,
          test_what_neovims_clients_look_up_is_there,
          test_errors_reasons_states_events_limits_notifications_and_records_are_there,
          test_what_eqd_asks_of_workers_is_there)
