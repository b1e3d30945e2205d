/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions of vector instructions touch their operand and nothing else: in the fast tier they work on guest memory itself, whose last
 * byte may be the last of the mapping.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "x86/fp.h"
#include "x86/vec.h"

#define CANARY 0x5a

struct rig {
	struct x86_cpu *c;
	uint8_t *page; /* followed by one that cannot be touched */
};

static int setup(void **state)
{
	static struct rig r;
	r.c = mmap(NULL, sizeof(*r.c), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	r.page = mmap(NULL, 2 * MEM_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*state = &r;
	return r.c == MAP_FAILED || r.page == MAP_FAILED || mprotect(r.page + MEM_PAGE_SIZE, MEM_PAGE_SIZE, PROT_NONE);
}

static unsigned kind_size(unsigned kind)
{
	return kind == X86_VK_XMM ? 16 : 8;
}

/* The host's floating-point state and direction flag are as the handlers rely on: empty x87, exceptions masked. */
static void check_host(const char *name)
{
	struct {
		uint32_t fcw, fsw, ftw, rest[4];
	} env;
	uint64_t flags;
	__asm__ volatile("fnstenv %0\n\tfldenv %0" : "+m"(env));
	__asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags));
	if ((env.ftw & 0xffff) != 0xffff || (x86_host_stmxcsr() & X86_MXCSR_MASKS) != X86_MXCSR_MASKS || flags & X86_FL_DF)
		fail_msg("%s leaves the host's state changed", name);
}

static void run_row(struct rig *r, const struct x86_vec_row *row, unsigned imm, bool memory)
{
	const bool store = row->flags & X86_VF_MEM_DST;
	const unsigned rm_size = memory ? row->mem_bytes : kind_size(row->rm);
	uint8_t reg[64] __attribute__((aligned(16)));
	uint8_t *rm = r->page + MEM_PAGE_SIZE - rm_size;
	memset(r->page + MEM_PAGE_SIZE - 64, CANARY, 64);
	memset(reg, CANARY, sizeof(reg));
	for (unsigned i = 0; i < 16; i++)
		reg[16 + i] = (uint8_t)(imm * 7 + i * 31);
	uint8_t *const r_op = reg + 16;
	if (store)
		row->fn(r->c, rm, r_op, imm);
	else
		row->fn(r->c, r_op, rm, imm);
	check_host(row->name);
	for (unsigned i = 0; i < 16; i++)
		if (reg[i] != CANARY || reg[32 + i] != CANARY)
			fail_msg("%s writes beside its register", row->name);
	if (!store)
		for (unsigned i = kind_size(row->reg); i < 16; i++)
			if (reg[16 + i] != (uint8_t)(imm * 7 + i * 31))
				fail_msg("%s writes behind its register", row->name);
	for (uint8_t *p = r->page + MEM_PAGE_SIZE - 64; p < (store ? rm : r->page + MEM_PAGE_SIZE); p++)
		if (*p != CANARY)
			fail_msg("%s writes where it should not", row->name);
}

/* Calls fn for each row that an instruction with a memory operand (or with a register instead) can have. */
static unsigned each_row(bool memory, void (*fn)(struct rig *, const struct x86_vec_row *), struct rig *r)
{
	static bool seen[1024];
	unsigned n = 0;
	assert_true(x86_vec_rows <= ARRAY_LEN(seen));
	memset(seen, 0, sizeof(seen));
	for (unsigned k = 0; k < 3 * 256 * 4 * 2 * 8; k++) {
		const unsigned pfx = k >> 4 & 3;
		const struct x86_insn i = {.map = (uint8_t)(X86_MAP_0F + k / (256 * 64)), .op = (uint8_t)(k >> 6), .has_modrm = true,
					   .mod = memory ? 0 : 3, .reg = k & 7, .rex = k & 8 ? 0x48 : 0, .p66 = pfx == 1, .rep = pfx == 2, .repne = pfx == 3};
		const int row = x86_vec_lookup(&i);
		if (row < 0 || seen[row])
			continue;
		seen[row] = true;
		n++;
		fn(r, &x86_vec_table[row]);
	}
	return n;
}

static void memory_form(struct rig *r, const struct x86_vec_row *row)
{
	assert_true(row->mem_bytes <= 16);
	for (unsigned imm = 0; row->mem_bytes && imm < 256; imm += row->flags & X86_VF_IMM ? 1 : 85)
		run_row(r, row, imm, true);
}
static void register_form(struct rig *r, const struct x86_vec_row *row)
{
	for (unsigned imm = 0; row->rm != X86_VK_NONE && imm < 256; imm += row->flags & X86_VF_IMM ? 1 : 85)
		run_row(r, row, imm, false);
}

static void test_a_memory_operand_is_all_that_is_touched(void **state)
{
	assert_true(each_row(true, memory_form, *state) > 250);
}

static void test_a_general_or_mmx_register_is_eight_bytes(void **state)
{
	assert_true(each_row(false, register_form, *state) > 250);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_memory_operand_is_all_that_is_touched),
		cmocka_unit_test(test_a_general_or_mmx_register_is_eight_bytes),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
