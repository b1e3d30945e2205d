/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cgroup/internal.h"

#define V1(point, controllers) "30 22 0:26 / " point " rw,relatime - cgroup cgroup rw," controllers "\n"
#define V2(point)              "31 22 0:27 / " point " rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
#define OTHERS                 "22 1 8:1 / / rw - ext4 /dev/vda rw\n23 22 0:5 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"

static void test_hierarchies_are_found_whatever_the_layout(void **state)
{
	static const struct {
		const char *mountinfo;
		enum cgroup_layout layout;
		unsigned v1, v2;
		const char *base[CGROUP_N];
	} cases[] = {
		{OTHERS, CGROUP_NONE, 0, 0, {0}},
		{"", CGROUP_NONE, 0, 0, {0}},
		{OTHERS V2("/sys/fs/cgroup"), CGROUP_V2, 0, CGROUP_ALL,
		 {"/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup"}},
		{OTHERS V1("/c/cpu,cpuacct", "cpu,cpuacct") V1("/c/memory", "memory") V1("/c/pids", "pids") V1("/c/freezer", "freezer"),
		 CGROUP_V1, CGROUP_ALL, 0, {"/c/memory", "/c/cpu,cpuacct", "/c/pids", "/c/freezer", "/c/cpu,cpuacct"}},
		{OTHERS V1("/c/memory", "memory") V2("/c/unified"), CGROUP_HYBRID, CGROUP_MEMORY, CGROUP_ALL & ~CGROUP_MEMORY,
		 {"/c/memory", "/c/unified", "/c/unified", "/c/unified", "/c/unified"}},
		/* The first mount of a hierarchy counts; "cpuset" is not "cpu"; a name with spaces. */
		{V1("/a", "memory") V1("/b", "memory") V1("/c", "cpuset") V1("/with\\040space", "cpu"), CGROUP_V1, CGROUP_MEMORY | CGROUP_CPU, 0,
		 {"/a", "/with space"}},
		/* Named hierarchies have no controllers; broken lines are no lines. */
		{V1("/s", "name=systemd") "nonsense\n1 2 3 - cgroup2 x y\n - cgroup2 x y\n1 2 3:4 / relative rw - cgroup2 x y\n", CGROUP_NONE, 0, 0, {0}},
	};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		char *text = strdup(cases[i].mountinfo);
		struct cgroup_host h;
		unsigned v2;
		cgroup_host_parse(&h, text, &v2);
		assert_int_equal(h.layout, cases[i].layout);
		assert_int_equal(h.have, cases[i].v1);
		assert_int_equal(v2, cases[i].v2);
		for (int j = 0; j < CGROUP_N; j++) {
			if (cases[i].base[j])
				assert_string_equal(h.base[j], cases[i].base[j]);
			else
				assert_null(h.base[j]);
		}
		cgroup_host_free(&h);
		free(text);
	}
}

static void test_the_callers_own_group_is_found_and_none_outside_of_what_it_sees(void **state)
{
	static const struct {
		const char *own, *controller, *want;
	} cases[] = {
		{"4:memory:/a/b\n0::/c\n", "memory", "/base/a/b"}, {"4:memory:/a/b\n0::/c\n", "", "/base/c"},
		{"2:cpu,cpuacct:/x\n", "cpuacct", "/base/x"},	    {"2:cpuset:/x\n", "cpu", NULL},
		{"4:memory:/\n", "memory", NULL},		    {"0::/../x\n", "", NULL},
		{"0::/a/../../x\n", "", NULL},			    {"", "memory", NULL},
		{"nonsense", "memory", NULL}, {"0::/a/..", "", NULL}, {"0::/a/..b", "", "/base/a/..b"},			    {"4:memory\n0::/c", "", "/base/c"},
		{"0::/last-without-newline", "", "/base/last-without-newline"},
	};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		char *got = cgroup_own_group(cases[i].own, cases[i].controller, "/base");
		if (cases[i].want) {
			assert_non_null(got);
			assert_string_equal(got, cases[i].want);
		} else {
			assert_null(got);
		}
		free(got);
	}
}

static void test_a_name_that_leads_elsewhere_is_refused(void **state)
{
	static const char *const bad[] = {"", ".", "..", "../x", "a/b", "/", "a b", "x\n", ".hidden", "cgroup.procs", "\xc3\xa4",
					  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	struct cgroup cg;
	struct cai_error err;
	struct cgroup_limits none = {0};
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(cgroup_create(&cg, bad[i], &none, &err), -1);
		assert_int_equal(cgroup_open(&cg, bad[i], &err), -1);
		assert_int_equal(cgroup_destroy(&cg, &err), 0); /* what failed can be destroyed */
	}
	assert_int_equal(cgroup_create(&cg, NULL, &none, &err), -1);
}

static void test_a_field_is_a_whole_word_at_the_start_of_a_line(void **state)
{
	static const char text[] = "oom 1\noom_kill 22\nxoom_kill 3\ntotal_cache 18446744073709551615\nempty\n";
	assert_int_equal(cgroup_field(text, "oom_kill"), 22);
	assert_int_equal(cgroup_field(text, "oom"), 1);
	assert_int_equal(cgroup_field(text, "kill"), 0);
	assert_int_equal(cgroup_field(text, "empty"), 0);
	assert_true(cgroup_field(text, "total_cache") == UINT64_MAX);
	assert_int_equal(cgroup_field("", "oom"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hierarchies_are_found_whatever_the_layout),
		cmocka_unit_test(test_the_callers_own_group_is_found_and_none_outside_of_what_it_sees),
		cmocka_unit_test(test_a_name_that_leads_elsewhere_is_refused),
		cmocka_unit_test(test_a_field_is_a_whole_word_at_the_start_of_a_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
