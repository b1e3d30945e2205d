/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator, exhaustively: every opcode of every map with every ModRM byte under many prefixes, in every mode. Nothing is executed;
 * each operation must have its fields in range, whatever the bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "op_check.h"
#include "x86/translate.h"

#define CANARY 0xa5

static void complain(const uint8_t *code, unsigned n, enum x86_mode mode, const struct x86_op *o, const char *what)
{
	fprintf(stderr, "mode %u:", mode);
	for (unsigned i = 0; i < n; i++)
		fprintf(stderr, " %02x", code[i]);
	fprintf(stderr, ": %s: h %u %s dst %u src %u base %u idx %u imm %d\n", what, o->h, o->h < X86_N_OPS ? op_name[o->h] : "?", o->dst, o->src, o->base,
		o->idx, o->imm);
	fail();
}

static unsigned most_ops;

static void check_insn(const uint8_t *code, unsigned n, enum x86_mode mode, unsigned off)
{
	struct x86_insn i;
	if (x86_decode(code, n, mode, &i) != X86_DECODE_OK)
		return;
	struct x86_op op[X86_MAX_OPS_PER_INSN + 2];
	struct x86_xlat x;
	memset(&op[X86_MAX_OPS_PER_INSN], CANARY, 2 * sizeof(op[0]));
	x86_translate_insn(&i, off, op, &x);
	if (i.len < 1 || i.len > X86_MAX_LEN)
		complain(code, n, mode, op, "length");
	if (x.n_ops < 1 || x.n_ops > X86_MAX_OPS_PER_INSN)
		complain(code, n, mode, op, "number of operations");
	for (unsigned k = 0; k < 2 * sizeof(op[0]); k++)
		if (((uint8_t *)&op[X86_MAX_OPS_PER_INSN])[k] != CANARY)
			complain(code, n, mode, op, "wrote behind the last operation");
	for (unsigned k = 0; k < x.n_ops; k++) {
		const char *wrong = op_wrong(&op[k]);
		if (wrong)
			complain(code, n, mode, &op[k], wrong);
		if (op[k].ip != (off | (unsigned)i.len << 12))
			complain(code, n, mode, &op[k], "ip");
		if (k + 1 < x.n_ops && op_is_terminal(op[k].h, mode))
			complain(code, n, mode, &op[k], "leaves in the middle of an instruction");
	}
	if (x.ends_block && !x.needs_next && !op_is_terminal(op[x.n_ops - 1].h, mode))
		complain(code, n, mode, &op[x.n_ops - 1], "runs off the end of its block");
	if (x.no_flags >= 0 && ((unsigned)x.no_flags >= x.n_ops || !op_is_flagless_form(op[x.no_flags].h, (unsigned)(op[x.no_flags].h + x.no_flags_by))))
		complain(code, n, mode, &op[x.no_flags], "form without flags");
	most_ops = x.n_ops > most_ops ? x.n_ops : most_ops;
}

static const char *const prefix_sets[] = {"", "\x66", "\x67", "\xf2", "\xf3", "\xf0", "\x64", "\x66\x67", "\x66\xf2", "\x66\xf3", "\xf0\x66\x65\x67", "\x36"};
static const uint8_t rex_bytes[] = {0, 0x40, 0x41, 0x42, 0x44, 0x48, 0x4f};
/* No index; absent base; RSP scaled by nothing; everything; R12-like encodings come with REX.X. */
static const uint8_t sib_bytes[] = {0x24, 0x25, 0x65, 0xff};

static void one_opcode(enum x86_mode mode, const char *prefixes, uint8_t rex, unsigned map, unsigned opcode)
{
	uint8_t code[24];
	for (unsigned modrm = 0; modrm < 256; modrm++) {
		const bool sib = modrm < 0xc0 && (modrm & 7) == 4;
		for (unsigned s = 0; s < (sib ? ARRAY_LEN(sib_bytes) : 1); s++) {
			/* Displacements and immediates: their sign decides between forms. */
			memset(code, modrm & 1 ? 0x7f : 0x80, sizeof(code));
			unsigned n = (unsigned)strlen(prefixes);
			memcpy(code, prefixes, n);
			if (rex)
				code[n++] = rex;
			if (map)
				code[n++] = 0x0f;
			if (map > 1)
				code[n++] = map == 2 ? 0x38 : 0x3a;
			code[n++] = (uint8_t)opcode;
			code[n++] = (uint8_t)modrm;
			if (sib)
				code[n] = sib_bytes[s];
			check_insn(code, X86_MAX_LEN, mode, (opcode * 16 + modrm) & 0xfff);
		}
	}
}

static void every_encoding(enum x86_mode mode)
{
	for (unsigned p = 0; p < ARRAY_LEN(prefix_sets); p++)
		for (unsigned r = 0; r < (mode == X86_MODE_64 ? ARRAY_LEN(rex_bytes) : 1); r++)
			for (unsigned map = 0; map < 4; map++)
				for (unsigned opcode = 0; opcode < 256; opcode++)
					one_opcode(mode, prefix_sets[p], rex_bytes[r], map, opcode);
}

static void test_every_encoding_in_64_bit_mode(void **state)
{
	every_encoding(X86_MODE_64);
	print_message("at most %u operations of %u\n", most_ops, X86_MAX_OPS_PER_INSN);
}
static void test_every_encoding_in_32_bit_mode(void **state)
{
	every_encoding(X86_MODE_32);
}
static void test_every_encoding_in_16_bit_mode(void **state)
{
	every_encoding(X86_MODE_16);
}

/* Blocks. */
#define MAX_OPS 40
static struct x86_op block[MAX_OPS + 4];

static unsigned build(const uint8_t *page, unsigned off, enum x86_mode mode, unsigned max, unsigned *n_insns, unsigned *bytes)
{
	memset(block + max, CANARY, (MAX_OPS + 4 - max) * sizeof(block[0]));
	const unsigned n = x86_build_block(page, off, mode, block, max, n_insns, bytes);
	assert_true(n <= max);
	for (unsigned k = 0; k < (MAX_OPS + 4 - max) * sizeof(block[0]); k++)
		assert_int_equal(((uint8_t *)(block + max))[k], CANARY);
	if (!n)
		return 0;
	assert_true(*bytes >= 1 && off + *bytes <= MEM_PAGE_SIZE);
	assert_true(*n_insns >= 1 && *n_insns <= n);
	for (unsigned k = 0; k < n; k++) {
		const char *wrong = op_wrong(&block[k]);
		if (wrong)
			complain(page + off, 15, mode, &block[k], wrong);
	}
	if (!op_is_terminal(block[n - 1].h, mode))
		complain(page + off, 15, mode, &block[n - 1], "the block's last operation goes on");
	return n;
}

static void test_random_blocks_stay_within_their_bounds(void **state)
{
	uint8_t page[MEM_PAGE_SIZE];
	unsigned n_insns, bytes;
	srandom(1);
	for (unsigned round = 0; round < 300; round++) {
		for (unsigned i = 0; i < sizeof(page); i++)
			page[i] = (uint8_t)(random() >> 8);
		for (unsigned off = 0; off < MEM_PAGE_SIZE; off += 1 + off % 7)
			build(page, off, (enum x86_mode)(round % 3), 20 + round % 20, &n_insns, &bytes);
	}
}

/* Straight lines of the instructions with the most operations, up to the capacity and the page's end. */
static void test_long_instructions_fill_a_block_exactly(void **state)
{
	static const char *const insn[] = {"\x8f\x40\x08", "\x66\x8f\x44\x24\x10", "\x67\x66\x0f\xa3\x44\x8b\x08", "\xf0\x81\x44\x8b\x08\x01\x02\x03\x04", "\x90"};
	uint8_t page[MEM_PAGE_SIZE];
	unsigned n_insns, bytes;
	for (unsigned k = 0; k < ARRAY_LEN(insn); k++)
		for (enum x86_mode mode = X86_MODE_16; mode <= X86_MODE_64; mode++) {
			const unsigned len = (unsigned)strlen(insn[k]);
			for (unsigned i = 0; i < sizeof(page); i++)
				page[i] = (uint8_t)insn[k][i % len];
			for (unsigned max = X86_MAX_OPS_PER_INSN + 1; max <= MAX_OPS; max++)
				assert_true(build(page, 0, mode, max, &n_insns, &bytes) > 0);
			for (unsigned off = MEM_PAGE_SIZE - 64; off < MEM_PAGE_SIZE; off++)
				build(page, off, mode, MAX_OPS, &n_insns, &bytes);
		}
}

static void test_a_block_never_ends_behind_sti(void **state)
{
	uint8_t page[MEM_PAGE_SIZE];
	unsigned n_insns, bytes;
	memset(page, 0x90, sizeof(page));
	page[4095] = 0xfb;
	unsigned n = build(page, 4090, X86_MODE_64, MAX_OPS, &n_insns, &bytes);
	assert_int_equal(n_insns, 5);
	assert_int_equal(block[n - 1].h, X86_OP_goto_near);
	assert_int_equal(block[n - 1].imm, 4095);
	/* At the very end of the page it must be stepped. */
	assert_int_equal(build(page, 4095, X86_MODE_64, MAX_OPS, &n_insns, &bytes), 0);
	/* Where the capacity ends the block. */
	memset(page, 0xfb, sizeof(page));
	for (unsigned max = X86_MAX_OPS_PER_INSN + 2; max <= MAX_OPS; max++) {
		n = build(page, 0, X86_MODE_64, max, &n_insns, &bytes);
		assert_true(n > 1);
		assert_int_equal(bytes, n_insns);
		assert_int_equal(block[n - 1].imm, bytes);
	}
}

static void test_an_invalid_opcode_depends_on_all_bytes_looked_at(void **state)
{
	uint8_t page[MEM_PAGE_SIZE] = {0};
	unsigned n_insns, bytes;
	page[63] = 0x0f;
	page[64] = 0x04;
	build(page, 63, X86_MODE_64, MAX_OPS, &n_insns, &bytes);
	assert_int_equal(block[0].h, X86_OP_ud);
	assert_true(bytes >= 2);
	page[4094] = 0x0f;
	page[4095] = 0x04;
	build(page, 4094, X86_MODE_64, MAX_OPS, &n_insns, &bytes);
	assert_int_equal(bytes, 2);
}

/* Every compare and test in front of every near branch: the fused operation must be named after both. */
static void test_fused_compares_are_the_ones_meant(void **state)
{
	uint8_t page[MEM_PAGE_SIZE];
	unsigned n_insns, bytes, fused = 0;
	for (unsigned opcode = 0; opcode < 256; opcode++)
		for (unsigned modrm = 0; modrm < 256; modrm++)
			for (unsigned rex = 0; rex < 2; rex++)
				for (unsigned cc = 0; cc < 16; cc++) {
					memset(page, 0x11, 64);
					unsigned n = 0;
					if (rex)
						page[n++] = 0x48;
					page[n] = (uint8_t)opcode;
					page[n + 1] = (uint8_t)modrm;
					struct x86_insn i;
					struct x86_op op[X86_MAX_OPS_PER_INSN];
					struct x86_xlat x;
					if (x86_decode(page, 15, X86_MODE_64, &i) != X86_DECODE_OK)
						continue;
					x86_translate_insn(&i, 0, op, &x);
					if (x.ends_block)
						continue;
					page[i.len] = (uint8_t)(0x70 + cc);
					page[i.len + 1] = 0x40;
					build(page, 0, X86_MODE_64, MAX_OPS, &n_insns, &bytes);
					const unsigned plain = op[x.n_ops - 1].h, got = block[x.n_ops - 1].h;
					if (strstr(op_name[got], "_j_")) {
						char want[64];
						snprintf(want, sizeof(want), "%s_%s", op_name[plain], op_name[X86_OP_j_o + cc]);
						assert_string_equal(op_name[got], want);
						fused++;
					}
				}
	assert_true(fused > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_encoding_in_64_bit_mode),
		cmocka_unit_test(test_every_encoding_in_32_bit_mode),
		cmocka_unit_test(test_every_encoding_in_16_bit_mode),
		cmocka_unit_test(test_random_blocks_stay_within_their_bounds),
		cmocka_unit_test(test_long_instructions_fill_a_block_exactly),
		cmocka_unit_test(test_a_block_never_ends_behind_sti),
		cmocka_unit_test(test_an_invalid_opcode_depends_on_all_bytes_looked_at),
		cmocka_unit_test(test_fused_compares_are_the_ones_meant),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
