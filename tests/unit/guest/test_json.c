/* SPDX-License-Identifier: Apache-2.0 */
/* JSON that the agent writes of what programs in the sandbox chose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/util.h"
#include "guest/json.h"
#include "guest/procs.h"

static void strings_come_out_as_valid_json(void **state)
{
	static const struct {
		const char *in;
		size_t n;
		const char *out;
	} cases[] = {
		{"", 0, "\"\""},
		{"plain", 5, "\"plain\""},
		{"a\"b\\c", 5, "\"a\\u0022b\\u005cc\""},
		{"\n\t\x1b\x7f", 4, "\"\\u000a\\u0009\\u001b\\u007f\""},
		{"a\0b", 3, "\"a\\u0000b\""},
		{"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", 11, "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\""},
		{"\xff", 1, "\"\\ufffd\""},
		{"\xc3", 1, "\"\\ufffd\""},
		{"\xc3(", 2, "\"\\ufffd(\""},
		{"\xc0\xaf", 2, "\"\\ufffd\\ufffd\""},                 /* overlong */
		{"\xed\xa0\x80", 3, "\"\\ufffd\\ufffd\\ufffd\""},          /* a surrogate */
		{"\xf4\x90\x80\x80", 4, "\"\\ufffd\\ufffd\\ufffd\\ufffd\""}, /* over U+10FFFF */
		{"\xf0\x9f\x98", 3, "\"\\ufffd\\ufffd\\ufffd\""},          /* cut */
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = {0};
		json_put_string(&b, cases[i].in, cases[i].n);
		buf_put_u8(&b, 0);
		assert_string_equal((char *)b.p, cases[i].out);
		buf_free(&b);
	}
}

static void text_that_does_not_fit_marks_the_buffer_failed(void **state)
{
	struct buf b = {0};
	char text[2000];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	json_put(&b, "%s", text);
	assert_true(b.failed);
	buf_free(&b);
}

static void figures_of_this_machine_can_be_read(void **state)
{
	struct buf b = {0};
	struct cai_error err = {.text = ""};
	assert_int_equal(procs_list(&b, &err), 0);
	buf_put_u8(&b, 0);
	assert_true(b.p[0] == '[' && strchr((char *)b.p, ']'));
	assert_null(strstr((char *)b.p, ",,"));
	assert_null(strstr((char *)b.p, "[,"));
	buf_free(&b);
	assert_int_equal(procs_stats(&b, &err), 0);
	buf_put_u8(&b, 0);
	assert_non_null(strstr((char *)b.p, "\"memory\":{\"total\":"));
	assert_null(strstr((char *)b.p, "\"total\":0,"));
	assert_non_null(strstr((char *)b.p, "\"lo\":{\"rx_bytes\":"));
	buf_free(&b);
	assert_int_equal(procs_counter("/no/such", "x"), 0);
	assert_true(procs_counter("/proc/vmstat", "pgfault") > 0);
	assert_int_equal(procs_counter("/proc/vmstat", "pgfaul"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strings_come_out_as_valid_json),
		cmocka_unit_test(text_that_does_not_fit_marks_the_buffer_failed),
		cmocka_unit_test(figures_of_this_machine_can_be_read),
	};
	return cmocka_run_group_tests_name("JSON", tests, NULL, NULL);
}
