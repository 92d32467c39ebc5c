/* SPDX-License-Identifier: MIT */
#include "schema.h"

#include <string.h>

#include "test.h"

static bool same(const char *a, const char *b) {
        return strcmp(a, b) == 0;
}

TEST(fields_lie_in_their_struct_in_row_order) {
        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++) {
                const EqSchema *s = eq_schemas[k];
                uint32_t end = sizeof(uint64_t);
                for (unsigned i = 0; i < s->n_fields; i++) {
                        const EqField *f = &s->fields[i];
                        ck_assert_msg(f->offset >= end, "%s.%s overlaps the row before", s->name, f->name);
                        end = f->offset + 1;
                }
                ck_assert_uint_le(end, s->size);
                ck_assert_ptr_null(s->fields[s->n_fields].name);
        }
}

TEST(required_rows_come_first_and_optional_ones_after) {
        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++)
                for (unsigned i = 0; i < eq_schemas[k]->n_fields; i++)
                        ck_assert_msg(eq_schemas[k]->fields[i].positional == (i < eq_schemas[k]->n_positional), "%s.%s",
                                      eq_schemas[k]->name, eq_schemas[k]->fields[i].name);
}

/* The shortest form of a key holds 31 bytes, and a map in a place of required fields is always the options. */
TEST(names_are_unique_short_and_documented) {
        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++) {
                const EqSchema *s = eq_schemas[k];
                ck_assert(s->doc[0]);
                for (unsigned i = 0; i < s->n_fields; i++) {
                        const EqField *f = &s->fields[i];
                        ck_assert_uint_eq(f->name_len, strlen(f->name));
                        ck_assert_uint_le(f->name_len, 31);
                        ck_assert(f->doc[0]);
                        ck_assert(!same(eq_type_name((EqType)f->type), "?"));
                        ck_assert(!f->positional || f->type != EQ_MAP);
                        ck_assert(f->since >= 1 && f->since <= EQ_PROTOCOL);
                        for (unsigned j = 0; j < i; j++)
                                ck_assert_msg(!same(f->name, s->fields[j].name), "%s.%s twice", s->name, f->name);
                }
        }
}

TEST(every_method_is_found_by_its_name_and_nothing_else_is) {
        for (int i = 0; i < _EQ_METHOD_MAX; i++) {
                const EqMethod *m = &eq_methods[i];
                ck_assert_int_eq(eq_method_find(eq_str(m->name)), i);
                ck_assert_int_eq(eq_method_find(eq_bytes(m->name, strlen(m->name) - 1)), _EQ_METHOD_INVALID);
                ck_assert(m->doc[0] && m->params && m->record);
                ck_assert(m->since >= 1 && m->since <= EQ_PROTOCOL);
                ck_assert_msg(m->reply != EQ_REPLY_RECORD || m->record->n_fields > 0, "%s: empty reply", m->name);
        }
        ck_assert_int_eq(eq_method_find(eq_str("")), _EQ_METHOD_INVALID);
        ck_assert_int_eq(eq_method_find(eq_str(NULL)), _EQ_METHOD_INVALID);
        ck_assert_int_eq(eq_method_find(eq_bytes("submit\0", 7)), _EQ_METHOD_INVALID);
        ck_assert_int_eq(eq_method_find(eq_str("Submit")), _EQ_METHOD_INVALID);
        ck_assert_int_eq(eq_method_find(eq_str("submit")), EQ_METHOD_SUBMIT);
}

TEST(states_and_reasons_are_found_by_their_names) {
        for (int i = 0; i < _EQ_STATE_MAX; i++)
                ck_assert_int_eq(eq_state_find(eq_str(eq_state_name((eq_state)i))), i);
        for (int i = 0; i < _EQ_REASON_MAX; i++)
                ck_assert_int_eq(eq_reason_find(eq_str(eq_reason_name((eq_reason)i))), i);
        for (int i = 0; i < _EQ_EVENT_MAX; i++)
                ck_assert(!same(eq_event_name((eq_event)i), "?"));
        ck_assert_int_eq(eq_state_find(eq_str("queued")), _EQ_STATE_INVALID);
        ck_assert_int_eq(eq_reason_find(eq_str("nonsense")), _EQ_REASON_INVALID);
        ck_assert_str_eq(eq_state_name(_EQ_STATE_INVALID), "?");
        ck_assert_str_eq(eq_state_name(_EQ_STATE_MAX), "?");
        ck_assert_str_eq(eq_reason_name(_EQ_REASON_INVALID), "?");
        ck_assert_str_eq(eq_event_name(_EQ_EVENT_MAX), "?");
        ck_assert_str_eq(eq_type_name((EqType)99), "?");
}

TEST(finished_states_are_those_that_a_task_never_leaves_by_itself) {
        ck_assert(!eq_state_finished(EQ_STATE_WAITING) && !eq_state_finished(EQ_STATE_QUEUED));
        ck_assert(!eq_state_finished(EQ_STATE_RUNNING) && !eq_state_finished(_EQ_STATE_INVALID));
        ck_assert(eq_state_finished(EQ_STATE_DONE) && eq_state_finished(EQ_STATE_DEAD));
        ck_assert(eq_state_finished(EQ_STATE_EXPIRED) && eq_state_finished(EQ_STATE_CANCELED));
}

static const struct {
        int code;
        const char *name;
        int exit_status;
} errors[] = {
#define EQ_ERROR(ID, code_, name_, exit_status_, doc) { code_, name_, exit_status_ },
#include "eqd.def"
};

TEST(errors_have_a_code_a_name_and_an_exit_status_of_their_own) {
        size_t n = sizeof(errors) / sizeof(errors[0]);

        for (size_t i = 0; i < n; i++) {
                ck_assert_str_eq(eq_error_name((eq_error)errors[i].code), errors[i].name);
                ck_assert_int_eq(eq_error_exit_status((eq_error)errors[i].code), errors[i].exit_status);
                ck_assert_msg(errors[i].exit_status > 0, "%s would look like success", errors[i].name);
                for (size_t j = 0; j < i; j++)
                        ck_assert_msg(errors[i].code != errors[j].code && !same(errors[i].name, errors[j].name), "%s",
                                      errors[i].name);
        }
        int behind = 0; /* the first code after the last */
        for (size_t i = 0; i < n; i++)
                behind = errors[i].code >= behind ? errors[i].code + 1 : behind;
        const int unknown[] = { -1, 0, behind, 4711, INT32_MAX };
        for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
                ck_assert_str_eq(eq_error_name((eq_error)unknown[i]), "unknown");
                ck_assert_int_eq(eq_error_exit_status((eq_error)unknown[i]), 1);
        }
}

static uint64_t max_of(const EqSchema *s, const char *name) {
        for (unsigned i = 0; i < s->n_fields; i++)
                if (same(s->fields[i].name, name))
                        return s->fields[i].max;
        ck_abort_msg("%s has no %s", s->name, name);
}

/* Rows hold numbers, because a documented row must be readable alone; here they meet the limits they are meant to be. */
TEST(rows_and_limits_agree) {
        static const struct {
                const EqSchema *schema;
                const char *field;
                uint64_t limit;
        } rows[] = {
                { &eq_schema_Submit, "queue", EQ_NAME_MAX },       { &eq_schema_Submit, "payload", EQ_PAYLOAD_MAX },
                { &eq_schema_Submit, "label", EQ_LABEL_MAX },      { &eq_schema_Submit, "cwd", EQ_PATH_MAX },
                { &eq_schema_Submit, "argv", EQ_ARGV_MAX },        { &eq_schema_Submit, "env", EQ_ARGV_MAX },
                { &eq_schema_Submit, "stdout_path", EQ_PATH_MAX }, { &eq_schema_Submit, "stderr_path", EQ_PATH_MAX },
                { &eq_schema_Submit, "after_ok", EQ_BATCH_MAX },   { &eq_schema_SubmitMany, "queue", EQ_NAME_MAX },
                { &eq_schema_SubmitMany, "tasks", EQ_BATCH_MAX },  { &eq_schema_Cancel, "ids", EQ_BATCH_MAX },
                { &eq_schema_Tasks, "ids", EQ_BATCH_MAX },         { &eq_schema_Wait, "ids", EQ_BATCH_MAX },
                { &eq_schema_List, "limit", EQ_LIST_MAX },         { &eq_schema_List, "label", EQ_LABEL_MAX },
                { &eq_schema_QueueCreate, "name", EQ_NAME_MAX },   { &eq_schema_QueueName, "name", EQ_NAME_MAX },
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                ck_assert_msg(max_of(rows[i].schema, rows[i].field) == rows[i].limit, "%s.%s", rows[i].schema->name,
                              rows[i].field);
        ck_assert_uint_lt(EQ_PAYLOAD_MAX, EQ_MESSAGE_MAX);
        ck_assert_uint_lt(EQ_OUTPUT_LOW, EQ_OUTPUT_HIGH);
}

TEST(byte_strings_compare_by_content) {
        ck_assert(eq_bytes_eq(eq_str("a"), eq_bytes("ab", 1)));
        ck_assert(!eq_bytes_eq(eq_str("a"), eq_str("b")));
        ck_assert(!eq_bytes_eq(eq_str("a"), eq_str("ab")));
        ck_assert(eq_bytes_eq(eq_str(NULL), (EqBytes) { 0 }));
}

RUN_TESTS("schema", 10, test_fields_lie_in_their_struct_in_row_order,
          test_required_rows_come_first_and_optional_ones_after, test_names_are_unique_short_and_documented,
          test_every_method_is_found_by_its_name_and_nothing_else_is, test_states_and_reasons_are_found_by_their_names,
          test_finished_states_are_those_that_a_task_never_leaves_by_itself,
          test_errors_have_a_code_a_name_and_an_exit_status_of_their_own, test_rows_and_limits_agree,
          test_byte_strings_compare_by_content)
