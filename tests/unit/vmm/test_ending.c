/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/util.h"
#include "vmm/ending.h"

static void a_panic_is_found_where_the_kernel_writes_one(void **state)
{
	static const struct {
		const char *console, *reason; /* NULL: none */
		bool closed;
	} cases[] = {
		{"", NULL, false},
		{"Kernel panic - not syncing: no init\n", "no init", false},
		{"boot\r\n[    0.5] Kernel panic - not syncing: no init\r\nCall Trace:\r\n", "no init", false},
		{"[    0.5][    T1] x\n[    0.51] [    T1] Kernel panic - not syncing: a: b\n", "a: b", false},
		{"[    0.5] Kernel panic - not syncing: x\n[    0.6] ---[ end Kernel panic - not syncing: x ]---\n", "x", true},
		{"Kernel panic - not syncing: cut off", NULL, false},
		{"a log said: Kernel panic - not syncing: x\n", NULL, false},
		{"[user] Kernel panic - not syncing: x\n", NULL, false},
		{"---[ end Kernel panic - not syncing: x ]---\n", NULL, false},
		{"Kernel panic - not syncing: one\nKernel panic - not syncing: two\n", "two", false},
		{"[\n[[[ ]]\n[1] [2] [3] Kernel panic - not syncing: x\n", NULL, false},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char why[64] = "";
		assert_int_equal(ending_find_panic(cases[i].console, false, why, sizeof(why)), cases[i].reason != NULL);
		if (cases[i].reason)
			assert_string_equal(why, cases[i].reason);
		assert_int_equal(ending_find_panic(cases[i].console, true, why, sizeof(why)), cases[i].closed);
	}
}

static void a_long_reason_is_cut(void **state)
{
	char console[1024] = "Kernel panic - not syncing: ", why[320];
	memset(console + strlen(console), 'a', 600);
	strcat(console, "\n");
	assert_true(ending_find_panic(console, false, why, sizeof(why)));
	assert_int_equal(strlen(why), 300);
}

static void the_first_ending_is_kept(void **state)
{
	struct ending e;
	char text[480] = "";
	ending_init(&e);
	assert_int_equal(ending_get(&e, text), 0);
	assert_true(ending_set(&e, CONTROL_END_RESET, "first %d", 1));
	assert_false(ending_set(&e, CONTROL_END_PANIC, "second"));
	assert_int_equal(ending_get(&e, text), CONTROL_END_RESET);
	assert_string_equal(text, "first 1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_panic_is_found_where_the_kernel_writes_one),
		cmocka_unit_test(a_long_reason_is_cut),
		cmocka_unit_test(the_first_ending_is_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
