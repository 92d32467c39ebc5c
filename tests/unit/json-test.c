/* SPDX-License-Identifier: MIT */
#include "eqctl/json.h"

#include "eqctl/text.h"
#include "test.h"

static void put_id(EqBuffer *b, EqIdRef id, EqBytes hint, void *userdata) {
        text_bytes(b, hint);
        text_printf(b, "/%u", (unsigned)id.id.seq);
}

static const char *take(EqBuffer *b) {
        static char out[4096];

        (void)snprintf(out, sizeof(out), "%s", text_end(b));
        eq_buffer_done(b);
        return out;
}

static const char *string(const char *s, size_t n) {
        EqBuffer b = EQ_BUFFER_NULL;
        json_string(&b, eq_bytes(s, n));
        return take(&b);
}
#define CHECK(in, out) ck_assert_str_eq(string(in, sizeof(in) - 1), out)

TEST(strings_are_always_valid_json) {
        CHECK("", "\"\"");
        CHECK("a\"b\\c", "\"a\\\"b\\\\c\"");
        CHECK("\n\t\r\b\f", "\"\\n\\t\\r\\b\\f\"");
        CHECK("\v\x01\x00", "\"\\u000b\\u0001\\u0000\"");
        CHECK("\x7f", "\"\\u007f\"");
        CHECK("\xc3\xa4\xf0\x9f\x98\x80", "\"\xc3\xa4\xf0\x9f\x98\x80\"");
        CHECK("\xe2\x80\xa8", "\"\\u2028\"");
}

TEST(bytes_that_are_no_utf8_become_base64_in_an_object) {
        CHECK("\xff", "{\"bytes\":\"/w==\"}");
        CHECK("a\xff", "{\"bytes\":\"Yf8=\"}");
        CHECK("ab\xff", "{\"bytes\":\"YWL/\"}");
        CHECK("abc\xff", "{\"bytes\":\"YWJj/w==\"}");
}

TEST(a_record_has_the_members_that_are_present_in_the_order_of_the_rows) {
        EqBuffer raw = EQ_BUFFER_NULL, b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&raw);
        EqTask t = { 0 };

        eq_pack_cstr(&pk, "echo");
        eq_pack_bin(&pk, eq_bytes("\xff", 1));
        EQ_SET(&t, Task, urgent, true);
        EQ_SET(&t, Task, id, (EqIdRef) { .id = { 5, 42 } });
        EQ_SET(&t, Task, queue, eq_str("encode"));
        EQ_SET(&t, Task, argv, (EqArray) { .raw = eq_bytes(raw.data, raw.len), .n = 2 });
        EQ_SET(&t, Task, submitted_usec, UINT64_C(1795608000000001));
        json_record(&b, &eq_schema_Task, &t, put_id, NULL);
        ck_assert_str_eq(take(&b),
                         "{\"id\":\"encode/42\",\"queue\":\"encode\",\"argv\":[\"echo\",{\"bytes\":\"/w==\"}],"
                         "\"urgent\":true,\"submitted_usec\":1795608000000001}");
        eq_buffer_done(&raw);
}

TEST(an_empty_record_is_an_empty_object) {
        EqBuffer b = EQ_BUFFER_NULL;
        EqTask t = { 0 };

        json_record(&b, &eq_schema_Task, &t, put_id, NULL);
        ck_assert_str_eq(take(&b), "{}");
}

TEST(negative_numbers_and_lists_of_ids_are_written) {
        EqBuffer raw = EQ_BUFFER_NULL, b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&raw);
        EqSubmit s = { 0 };

        eq_pack_id(&pk, (eq_task_id) { 1, 2 });
        eq_pack_id(&pk, (eq_task_id) { 1, 3 });
        EQ_SET(&s, Submit, queue, eq_str("q"));
        EQ_SET(&s, Submit, nice, -5);
        EQ_SET(&s, Submit, after_ok, (EqArray) { .raw = eq_bytes(raw.data, raw.len), .n = 2 });
        json_record(&b, &eq_schema_Submit, &s, put_id, NULL);
        ck_assert_str_eq(take(&b), "{\"queue\":\"q\",\"after_ok\":[\"q/2\",\"q/3\"],\"nice\":-5}");
        eq_buffer_done(&raw);
}

TEST(fields_are_found_by_name) {
        ck_assert_int_eq(field_find(&eq_schema_Task, eq_str("id")), EQ_IDX_Task_id);
        ck_assert_int_eq(field_find(&eq_schema_Task, eq_str("stderr_bytes")), EQ_IDX_Task_stderr_bytes);
        ck_assert_int_eq(field_find(&eq_schema_Task, eq_str("i")), -1);
        ck_assert_int_eq(field_find(&eq_schema_Task, eq_str("")), -1);
}

RUN_TESTS("json", 10, test_strings_are_always_valid_json, test_bytes_that_are_no_utf8_become_base64_in_an_object,
          test_a_record_has_the_members_that_are_present_in_the_order_of_the_rows,
          test_an_empty_record_is_an_empty_object, test_negative_numbers_and_lists_of_ids_are_written,
          test_fields_are_found_by_name)
