/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/util.h"
#include "x86/cpu_model.h"

static uint32_t reg(const struct x86_cpu_model *m, uint32_t leaf, uint32_t sub, unsigned r)
{
	uint32_t v[4];
	x86_cpuid(m, 3, leaf, sub, v);
	return v[r];
}

static void test_v2_has_what_the_psabi_level_needs_and_nothing_the_cpu_lacks(void **state)
{
	static const struct {
		uint32_t leaf, sub;
		unsigned r, bit, want;
	} cases[] = {
		{1, 0, 2, 0, 1},  {1, 0, 2, 9, 1},   {1, 0, 2, 13, 1}, {1, 0, 2, 19, 1}, {1, 0, 2, 20, 1},
		{1, 0, 2, 23, 1}, {1, 0, 2, 31, 1},  {1, 0, 2, 21, 1}, {1, 0, 2, 24, 1}, {1, 0, 3, 0, 1},
		{1, 0, 3, 26, 1}, {1, 0, 3, 24, 1},  {1, 0, 3, 3, 1},  {0x80000001, 0, 2, 0, 1},
		{0x80000001, 0, 3, 11, 1}, {0x80000001, 0, 3, 20, 1}, {0x80000001, 0, 3, 26, 1},
		{0x80000001, 0, 3, 27, 1}, {0x80000001, 0, 3, 29, 1}, {0x80000007, 0, 3, 8, 1},
		{7, 0, 1, 7, 1}, {7, 0, 1, 9, 1}, {7, 0, 1, 20, 1}, {7, 0, 3, 4, 1}, {7, 0, 3, 29, 1},
		{7, 0, 3, 26, 1}, {7, 2, 3, 4, 1}, {7, 0, 0, 1, 1},
		/* XSAVE, OSXSAVE, AVX, PCID, RDRAND, MONITOR, AES, PCLMUL, MOVBE, FMA, F16C */
		{1, 0, 2, 26, 0}, {1, 0, 2, 27, 0}, {1, 0, 2, 28, 0}, {1, 0, 2, 17, 0}, {1, 0, 2, 30, 0}, {1, 0, 2, 3, 0},
		{1, 0, 2, 25, 0}, {1, 0, 2, 1, 0}, {1, 0, 2, 22, 0}, {1, 0, 2, 12, 0}, {1, 0, 2, 29, 0},
		/* FSGSBASE, BMI1, AVX2, BMI2, INVPCID, RDSEED, LZCNT */
		{7, 0, 1, 0, 0}, {7, 0, 1, 3, 0}, {7, 0, 1, 5, 0}, {7, 0, 1, 8, 0}, {7, 0, 1, 10, 0}, {7, 0, 1, 18, 0},
		{0x80000001, 0, 2, 5, 0},
		/* kvmclock, and no asynchronous faults, steal time, EOI or IPIs by paravirtualisation */
		{0x40000001, 0, 0, 3, 1}, {0x40000001, 0, 0, 24, 1}, {0x40000001, 0, 0, 4, 0}, {0x40000001, 0, 0, 5, 0},
		{0x40000001, 0, 0, 6, 0}, {0x40000001, 0, 0, 7, 0}, {0x40000001, 0, 0, 11, 0},
	};
	struct x86_cpu_model m;
	assert_int_equal(x86_cpu_model_init(&m, "v2", 1000000, 4), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if ((reg(&m, cases[i].leaf, cases[i].sub, cases[i].r) >> cases[i].bit & 1) != cases[i].want)
			fail_msg("leaf 0x%x register %u bit %u should be %u", cases[i].leaf, cases[i].r, cases[i].bit,
				 cases[i].want);
	assert_true(m.n < X86_MAX_CPUID);
}

static void test_names_frequencies_and_sizes_are_told(void **state)
{
	struct x86_cpu_model m;
	uint32_t v[4], brand[13] = {0};
	assert_int_equal(x86_cpu_model_init(&m, "v2", 2500000, 1), 0);
	x86_cpuid(&m, 0, 0, 0, v);
	assert_memory_equal(&v[1], "Genu", 4);
	assert_memory_equal(&v[3], "ineI", 4);
	assert_memory_equal(&v[2], "ntel", 4);
	for (unsigned i = 0; i < 3; i++)
		x86_cpuid(&m, 0, 0x80000002 + i, 0, brand + 4 * i);
	assert_string_equal((char *)brand, "Caisson v2 CPU");
	x86_cpuid(&m, 0, 0x40000000, 0, v);
	assert_memory_equal(&v[1], "KVMKVMKVM\0\0\0", 12);
	assert_int_equal(v[0], 0x40000010);
	assert_int_equal(reg(&m, 0x40000010, 0, 0), 2500000);
	assert_int_equal(reg(&m, 0x40000010, 0, 1), 1000000);
	x86_cpuid(&m, 0, 0x15, 0, v);
	assert_int_equal((uint64_t)v[2] * v[1] / v[0], 2500000000u);
	assert_int_equal(reg(&m, 0x16, 0, 0), 2500);
	assert_int_equal(reg(&m, 0x80000008, 0, 0), 46 | 48 << 8);
}

static void test_each_cpu_sees_its_own_id(void **state)
{
	struct x86_cpu_model m;
	uint32_t v[4];
	assert_int_equal(x86_cpu_model_init(&m, "v2", 1000000, 6), 0);
	for (uint32_t id = 0; id < 6; id++) {
		x86_cpuid(&m, id, 1, 0, v);
		assert_int_equal(v[1] >> 24, id);
		assert_int_equal(v[1] >> 16 & 0xFF, 8);
		for (uint32_t sub = 0; sub < 4; sub++) {
			x86_cpuid(&m, id, 0xB, sub, v);
			assert_int_equal(v[3], id);
			assert_int_equal(v[2] & 0xFF, sub);
		}
	}
	assert_int_equal(reg(&m, 0xB, 1, 0), 3);
	assert_int_equal(reg(&m, 0xB, 1, 1), 6);
}

static void test_unknown_leaves_and_models(void **state)
{
	struct x86_cpu_model m;
	uint32_t v[4], zero[4] = {0};
	assert_int_equal(x86_cpu_model_init(&m, "v9", 1000000, 1), -1);
	assert_int_equal(x86_cpu_model_init(&m, "v2", 1000000, 0), -1);
	assert_int_equal(x86_cpu_model_init(&m, "v2", 1000000, 65), -1);
	assert_int_equal(x86_cpu_model_init(&m, "v2", 1000000, 64), 0);
	static const uint32_t leaves[][2] = {{5, 0}, {7, 1}, {0xD, 0}, {0x17, 0}, {0x40000011, 0}, {0x80000009, 0}, {4, 4}, {0xFFFFFFFF, 0}};
	for (size_t i = 0; i < ARRAY_LEN(leaves); i++) {
		x86_cpuid(&m, 0, leaves[i][0], leaves[i][1], v);
		assert_memory_equal(v, zero, sizeof(v));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v2_has_what_the_psabi_level_needs_and_nothing_the_cpu_lacks),
		cmocka_unit_test(test_names_frequencies_and_sizes_are_told),
		cmocka_unit_test(test_each_cpu_sees_its_own_id),
		cmocka_unit_test(test_unknown_leaves_and_models),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
