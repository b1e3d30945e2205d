/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes cases.
 *
 * Theory of operation: a table says which opcodes a family has and what each needs. A case is made of random prefixes, an opcode from
 * the table and random bytes behind it; the decoder under test then says what that is, and registers are solved so that a memory
 * operand lands at a chosen place about a page boundary. Whatever comes out is a fair question to both CPUs, even where the decoder
 * is wrong. What a host decodes differently from model v2 is kept out: VEX, TZCNT and LZCNT, ADX, FSGSBASE, RDRAND, RTM and so on; so are
 * instructions that depend on the operating system, and FS (the C library's).
 */
#include "compare.h"
#include "diff.h"

#include <string.h>

#include "base/util.h"
#include "gen_value.h"
#include "x86/cpu.h"
#include "x86/fp.h"
#include "x86/vec.h"

const char *const family_names[N_FAMILIES] = {"alu",   "shift",  "mov",    "mul",  "bit", "string",
					      "stack", "branch", "atomic", "misc", "sse", "x87", "sequence", "compat"};

enum {
	S_M = 1,      /* ModRM follows */
	S_LOCK = 2,   /* LOCK may be meaningful: try it often */
	S_NOREP = 4,  /* F2, F3 make it something else */
	S_F3 = 8,
	S_F2 = 16,
	S_MEM = 32,   /* memory form only */
	S_REG = 64,
	S_NO66 = 128, /* 66 makes it something else */
};

enum setup { PLAIN, COUNT, DIVIDE, BITS, STRINGS, STACK, ENTER, JUMP, JUMP_RM, CMPXCHG, XLAT, MOFFS, FX, PREFETCH };

struct spec {
	uint8_t family, map, first, last;
	uint8_t flags;
	uint8_t exts; /* allowed values of ModRM.reg, one bit each; 0: any */
	uint8_t setup;
};

#define ALU_ROW(base)                                                                                              \
	{FAM_ALU, X86_MAP_1, (base), (base) + 3, S_M | S_LOCK, 0, PLAIN},                                          \
	{                                                                                                          \
		FAM_ALU, X86_MAP_1, (base) + 4, (base) + 5, 0, 0, PLAIN                                            \
	}

static const struct spec specs[] = {
	ALU_ROW(0x00), ALU_ROW(0x08), ALU_ROW(0x10), ALU_ROW(0x18), ALU_ROW(0x20), ALU_ROW(0x28), ALU_ROW(0x30), ALU_ROW(0x38),
	{FAM_ALU, X86_MAP_1, 0x80, 0x81, S_M | S_LOCK, 0, PLAIN},
	{FAM_ALU, X86_MAP_1, 0x83, 0x83, S_M | S_LOCK, 0, PLAIN},
	{FAM_ALU, X86_MAP_1, 0x84, 0x85, S_M, 0, PLAIN},
	{FAM_ALU, X86_MAP_1, 0xa8, 0xa9, 0, 0, PLAIN},
	{FAM_ALU, X86_MAP_1, 0xf6, 0xf7, S_M | S_LOCK, 0x0f, PLAIN},
	{FAM_ALU, X86_MAP_1, 0xfe, 0xff, S_M | S_LOCK, 0x03, PLAIN},

	{FAM_SHIFT, X86_MAP_1, 0xc0, 0xc1, S_M, 0, COUNT},
	{FAM_SHIFT, X86_MAP_1, 0xd0, 0xd3, S_M, 0, COUNT},
	{FAM_SHIFT, X86_MAP_0F, 0xa4, 0xa5, S_M, 0, COUNT},
	{FAM_SHIFT, X86_MAP_0F, 0xac, 0xad, S_M, 0, COUNT},

	{FAM_MOV, X86_MAP_1, 0x88, 0x8b, S_M, 0, PLAIN},
	{FAM_MOV, X86_MAP_1, 0x8c, 0x8c, S_M, 0x0f, PLAIN},
	{FAM_MOV, X86_MAP_1, 0x8d, 0x8d, S_M, 0, PLAIN},
	{FAM_MOV, X86_MAP_1, 0xa0, 0xa3, 0, 0, MOFFS},
	{FAM_MOV, X86_MAP_1, 0xb0, 0xbf, 0, 0, PLAIN},
	{FAM_MOV, X86_MAP_1, 0xc6, 0xc7, S_M, 0x01, PLAIN},
	{FAM_MOV, X86_MAP_0F, 0xb6, 0xb7, S_M, 0, PLAIN},
	{FAM_MOV, X86_MAP_0F, 0xbe, 0xbf, S_M, 0, PLAIN},
	{FAM_MOV, X86_MAP_1, 0x63, 0x63, S_M, 0, PLAIN},
	{FAM_MOV, X86_MAP_1, 0x86, 0x87, S_M | S_LOCK, 0, PLAIN},
	{FAM_MOV, X86_MAP_1, 0x90, 0x99, 0, 0, PLAIN},
	{FAM_MOV, X86_MAP_0F, 0xc8, 0xcf, 0, 0, PLAIN},
	{FAM_MOV, X86_MAP_0F, 0x40, 0x4f, S_M, 0, PLAIN},
	{FAM_MOV, X86_MAP_0F, 0x90, 0x9f, S_M, 0, PLAIN},

	{FAM_MUL, X86_MAP_1, 0xf6, 0xf7, S_M, 0xf0, DIVIDE},
	{FAM_MUL, X86_MAP_1, 0x69, 0x69, S_M, 0, PLAIN},
	{FAM_MUL, X86_MAP_1, 0x6b, 0x6b, S_M, 0, PLAIN},
	{FAM_MUL, X86_MAP_0F, 0xaf, 0xaf, S_M, 0, PLAIN},

	{FAM_BIT, X86_MAP_0F, 0xa3, 0xa3, S_M | S_LOCK, 0, BITS},
	{FAM_BIT, X86_MAP_0F, 0xab, 0xab, S_M | S_LOCK, 0, BITS},
	{FAM_BIT, X86_MAP_0F, 0xb3, 0xb3, S_M | S_LOCK, 0, BITS},
	{FAM_BIT, X86_MAP_0F, 0xbb, 0xbb, S_M | S_LOCK, 0, BITS},
	{FAM_BIT, X86_MAP_0F, 0xba, 0xba, S_M | S_LOCK, 0, PLAIN},
	{FAM_BIT, X86_MAP_0F, 0xbc, 0xbd, S_M | S_NOREP, 0, PLAIN},
	{FAM_BIT, X86_MAP_0F, 0xb8, 0xb8, S_M | S_F3, 0, PLAIN},
	{FAM_BIT, X86_MAP_0F38, 0xf0, 0xf1, S_M | S_F2, 0, PLAIN},

	{FAM_STRING, X86_MAP_1, 0xa4, 0xa7, 0, 0, STRINGS},
	{FAM_STRING, X86_MAP_1, 0xaa, 0xaf, 0, 0, STRINGS},

	{FAM_STACK, X86_MAP_1, 0x50, 0x5f, 0, 0, STACK},
	{FAM_STACK, X86_MAP_1, 0x68, 0x68, 0, 0, STACK},
	{FAM_STACK, X86_MAP_1, 0x6a, 0x6a, 0, 0, STACK},
	{FAM_STACK, X86_MAP_1, 0x8f, 0x8f, S_M, 0x01, STACK},
	{FAM_STACK, X86_MAP_1, 0xff, 0xff, S_M, 0x40, STACK},
	{FAM_STACK, X86_MAP_1, 0xc9, 0xc9, 0, 0, ENTER},
	{FAM_STACK, X86_MAP_1, 0xc8, 0xc8, 0, 0, ENTER},
	{FAM_STACK, X86_MAP_1, 0x9c, 0x9d, 0, 0, STACK},
	{FAM_STACK, X86_MAP_0F, 0xa0, 0xa0, 0, 0, STACK},
	{FAM_STACK, X86_MAP_0F, 0xa8, 0xa8, 0, 0, STACK},

	{FAM_BRANCH, X86_MAP_1, 0x70, 0x7f, 0, 0, JUMP},
	{FAM_BRANCH, X86_MAP_0F, 0x80, 0x8f, 0, 0, JUMP},
	{FAM_BRANCH, X86_MAP_1, 0xe0, 0xe3, 0, 0, JUMP},
	{FAM_BRANCH, X86_MAP_1, 0xe8, 0xe9, 0, 0, JUMP},
	{FAM_BRANCH, X86_MAP_1, 0xeb, 0xeb, 0, 0, JUMP},
	{FAM_BRANCH, X86_MAP_1, 0xc2, 0xc3, 0, 0, JUMP_RM},
	{FAM_BRANCH, X86_MAP_1, 0xff, 0xff, S_M, 0x14, JUMP_RM},

	{FAM_ATOMIC, X86_MAP_0F, 0xb0, 0xb1, S_M | S_LOCK, 0, CMPXCHG},
	{FAM_ATOMIC, X86_MAP_0F, 0xc0, 0xc1, S_M | S_LOCK, 0, PLAIN},
	{FAM_ATOMIC, X86_MAP_0F, 0xc7, 0xc7, S_M | S_LOCK | S_MEM | S_NOREP, 0x02, CMPXCHG},

	{FAM_MISC, X86_MAP_1, 0x9e, 0x9f, 0, 0, PLAIN},
	{FAM_MISC, X86_MAP_1, 0xf5, 0xf5, 0, 0, PLAIN},
	{FAM_MISC, X86_MAP_1, 0xf8, 0xf9, 0, 0, PLAIN},
	{FAM_MISC, X86_MAP_1, 0xfc, 0xfd, 0, 0, PLAIN},
	{FAM_MISC, X86_MAP_1, 0xd7, 0xd7, 0, 0, XLAT},
	{FAM_MISC, X86_MAP_1, 0xfa, 0xfb, 0, 0, PLAIN},
	{FAM_MISC, X86_MAP_1, 0xf4, 0xf4, 0, 0, PLAIN},
	{FAM_MISC, X86_MAP_1, 0x06, 0x07, 0, 0, PLAIN},
	{FAM_MISC, X86_MAP_0F, 0x0b, 0x0b, 0, 0, PLAIN},
	{FAM_MISC, X86_MAP_0F, 0x0d, 0x0d, S_M, 0x02, PREFETCH},
	{FAM_MISC, X86_MAP_0F, 0x18, 0x18, S_M | S_MEM, 0x0f, PREFETCH},
	{FAM_MISC, X86_MAP_0F, 0x1f, 0x1f, S_M, 0x01, PREFETCH},
	{FAM_MISC, X86_MAP_0F, 0xae, 0xae, S_M | S_REG | S_NOREP | S_NO66, 0xe0, PLAIN},
	{FAM_MISC, X86_MAP_0F, 0x06, 0x06, 0, 0, PLAIN},
	{FAM_MISC, X86_MAP_0F, 0x08, 0x09, 0, 0, PLAIN},
	{FAM_MISC, X86_MAP_0F, 0x20, 0x23, S_M | S_REG, 0x01, PLAIN},
	{FAM_MISC, X86_MAP_0F, 0x30, 0x30, 0, 0, PLAIN},
	{FAM_MISC, X86_MAP_0F, 0x32, 0x32, 0, 0, PLAIN},

	{FAM_X87, X86_MAP_1, 0xd8, 0xdf, S_M, 0, PLAIN},
	{FAM_X87, X86_MAP_1, 0xd8, 0xdf, S_M, 0, PLAIN},
	{FAM_X87, X86_MAP_1, 0xd8, 0xdf, S_M, 0, PLAIN},
	{FAM_X87, X86_MAP_1, 0x9b, 0x9b, 0, 0, PLAIN},
	{FAM_X87, X86_MAP_0F, 0xae, 0xae, S_M | S_MEM | S_NOREP | S_NO66, 0x03, FX},
};

/* What only 32-bit code has. */
static const struct spec specs_32[] = {
	{FAM_COMPAT, X86_MAP_1, 0x40, 0x4f, 0, 0, PLAIN},
	{FAM_COMPAT, X86_MAP_1, 0x60, 0x61, 0, 0, STACK},
	{FAM_COMPAT, X86_MAP_1, 0x06, 0x06, 0, 0, STACK},
	{FAM_COMPAT, X86_MAP_1, 0x0e, 0x0e, 0, 0, STACK},
	{FAM_COMPAT, X86_MAP_1, 0x16, 0x16, 0, 0, STACK},
	{FAM_COMPAT, X86_MAP_1, 0x1e, 0x1e, 0, 0, STACK},
	{FAM_COMPAT, X86_MAP_1, 0x27, 0x27, 0, 0, PLAIN},
	{FAM_COMPAT, X86_MAP_1, 0x2f, 0x2f, 0, 0, PLAIN},
	{FAM_COMPAT, X86_MAP_1, 0x37, 0x37, 0, 0, PLAIN},
	{FAM_COMPAT, X86_MAP_1, 0x3f, 0x3f, 0, 0, PLAIN},
	{FAM_COMPAT, X86_MAP_1, 0xd4, 0xd5, 0, 0, PLAIN},
};

/* The table by single opcodes, and the vector forms that the CPU has rows for; made once. */
struct form {
	const struct spec *spec;
	uint8_t op;
	uint8_t pfx; /* vector forms: 0, 0x66, 0xf3, 0xf2 */
	uint8_t map;
};
static struct form forms[N_FAMILIES][2048];
static unsigned n_forms[N_FAMILIES];

static void make_forms(void)
{
	static const struct spec vec_spec = {.family = FAM_SSE, .flags = S_M};
	static const struct spec vec_plain = {.family = FAM_SSE};
	for (unsigned k = 0; k < ARRAY_LEN(specs); k++)
		for (unsigned op = specs[k].first; op <= specs[k].last; op++)
			forms[specs[k].family][n_forms[specs[k].family]++] =
				(struct form){.spec = &specs[k], .op = (uint8_t)op, .map = specs[k].map};
	for (unsigned k = 0; k < ARRAY_LEN(specs_32); k++)
		for (unsigned op = specs_32[k].first; op <= specs_32[k].last; op++)
			forms[FAM_COMPAT][n_forms[FAM_COMPAT]++] = (struct form){.spec = &specs_32[k], .op = (uint8_t)op};
	static const uint8_t prefixes[4] = {0, 0x66, 0xf3, 0xf2};
	for (unsigned map = X86_MAP_0F; map <= X86_MAP_0F3A; map++)
		for (unsigned op = 0; op < 256; op++)
			for (unsigned p = 0; p < 4; p++) {
				bool any = false;
				for (unsigned k = 0; k < 16 && !any; k++) {
					struct x86_insn i = {.map = (uint8_t)map, .op = (uint8_t)op, .mode = X86_MODE_64};
					i.p66 = p == 1;
					i.rep = p == 2;
					i.repne = p == 3;
					i.mod = k & 8 ? 3 : 0;
					i.reg = k & 7;
					any = x86_vec_lookup(&i) >= 0;
				}
				if (any)
					forms[FAM_SSE][n_forms[FAM_SSE]++] = (struct form){
						.spec = map == X86_MAP_0F && op == 0x77 ? &vec_plain : &vec_spec,
						.op = (uint8_t)op,
						.pfx = prefixes[p],
						.map = (uint8_t)map};
			}
}

/* Somewhere about the case's boundary. */
static uint64_t target(struct rng *r, const struct test_case *t)
{
	switch (below(r, 8)) {
	case 0:
	case 1:
		return t->boundary - 1 - below(r, 16); /* likely to cross */
	case 2:
		return t->boundary - 16 * (1 + below(r, 4));
	case 3:
	case 4:
		return t->boundary + 16 * below(r, 8) - 128;
	case 5:
		return t->boundary + 8 * below(r, 32) - 256;
	default:
		return t->boundary - 256 + below(r, 300);
	}
}

static void fill_bytes(uint8_t *p, unsigned n, struct rng *r)
{
	for (unsigned i = 0; i + 8 <= n; i += 8) {
		const uint64_t v = next(r);
		memcpy(p + i, &v, 8);
	}
}

/* Registers so that the memory operand of i is at ea. */
static void solve(struct test_case *t, const struct x86_insn *i, uint64_t ea, struct rng *r)
{
	if (i->addrsize == 2)
		return; /* 64 KiB reach nothing */
	if (i->base == X86_NO_REG && i->index == X86_NO_REG) {
		const int32_t d = (int32_t)ea;
		if (i->map != X86_MAP_1 || i->op < 0xa0 || i->op > 0xa3)
			memcpy(t->code + i->len - i->imm_size - 4, &d, 4);
		return;
	}
	if (i->base == X86_RIP_REG) {
		const int32_t d = (int32_t)(ea - (CODE_START + i->len));
		memcpy(t->code + i->len - i->imm_size - 4, &d, 4);
		return;
	}
	ea -= (uint64_t)(int64_t)i->disp;
	if (i->base == X86_NO_REG) {
		t->r[i->index] = ea >> i->scale;
	} else if (i->index == X86_NO_REG) {
		t->r[i->base] = ea;
	} else if (i->index == i->base) {
		t->r[i->base] = ea / (1 + (1u << i->scale));
	} else {
		if (chance(r, 60))
			t->r[i->index] = below(r, 64) - 32;
		t->r[i->base] = ea - (t->r[i->index] << i->scale);
	}
	if (i->addrsize == 4 && chance(r, 50) && i->base < 16)
		t->r[i->base] |= next(r) << 32;
}

static uint64_t window_offset(const struct test_case *t, uint64_t la)
{
	return la - (t->boundary - WINDOW / 2);
}

static void put(struct test_case *t, uint64_t la, const void *v, unsigned n)
{
	const uint64_t off = window_offset(t, la);
	if (off < WINDOW && off + n <= WINDOW)
		memcpy(t->win + off, v, n);
}

static void set_up(struct test_case *t, const struct spec *s, const struct x86_insn *i, uint64_t ea, struct rng *r)
{
	const bool mem = i->has_modrm && i->mod != 3;
	uint64_t v;
	switch (s->setup) {
	case COUNT:
		if (i->base != X86_RCX && i->index != X86_RCX && chance(r, 80))
			t->r[X86_RCX] = (t->r[X86_RCX] & ~0xffull) | below(r, 70);
		break;
	case DIVIDE:
		if (chance(r, 60)) {
			const unsigned bits = i->op == 0xf6 ? 8 : i->opsize * 8;
			const bool neg = i->op & chance(r, 30);
			v = neg ? ~below(r, 4) : below(r, 4);
			if (bits == 8 && i->base != X86_RAX && i->index != X86_RAX)
				t->r[X86_RAX] = v << 8 | (next(r) & 0xff);
			else if (bits > 8 && i->base != X86_RDX && i->index != X86_RDX)
				t->r[X86_RDX] = v;
		}
		break;
	case BITS:
		if (mem && i->reg != i->base && i->reg != i->index) {
			t->r[i->reg] = below(r, 1600) - 800;
			if (i->opsize < 8 && chance(r, 50))
				t->r[i->reg] = (uint32_t)t->r[i->reg] | next(r) << 32;
			if (i->opsize == 2)
				t->r[i->reg] = (t->r[i->reg] & 0xffff) | (next(r) << 16);
		} else if (mem) { /* the offset is an address, far outside of the window: not this time */
			memset(t->code, 0xcc, CODE_BYTES);
			t->code[0] = 0x90;
		}
		break;
	case STRINGS: {
		const unsigned size = i->op & 1 ? i->opsize : 1;
		t->r[X86_RCX] = below(r, 200 / size);
		t->r[X86_RSI] = target(r, t);
		t->r[X86_RDI] = target(r, t);
		if (chance(r, 15))
			t->r[X86_RDI] = t->r[X86_RSI] + below(r, 20) - 10;
		if (i->addrsize == 4 && chance(r, 50)) {
			t->r[X86_RCX] |= next(r) << 32;
			t->r[X86_RSI] |= next(r) << 32;
			t->r[X86_RDI] |= next(r) << 32;
		}
		if (chance(r, 50)) { /* equal runs, so that CMPS and SCAS go on for a while */
			memset(t->win, (int)below(r, 3), WINDOW);
			if (chance(r, 50))
				t->r[X86_RAX] = t->win[0] * 0x0101010101010101ull;
			t->win[below(r, WINDOW)] ^= 1;
		}
		break;
	}
	case STACK:
		if (!(mem && (i->base == X86_RSP || i->index == X86_RSP)))
			t->r[X86_RSP] = target(r, t);
		if (i->op == 0x9d) { /* POPF: TF, AC, NT and ID would outlive the case */
			v = (next(r) & 0xad5) | 0x202 | (chance(r, 30) ? 0x400 : 0);
			put(t, t->r[X86_RSP], &v, 8);
		}
		break;
	case ENTER:
		t->r[X86_RSP] = target(r, t);
		t->r[X86_RBP] = target(r, t);
		if (i->op == 0xc8) {
			const unsigned at = i->len - 3u;
			t->code[at] = (uint8_t)below(r, 200);
			t->code[at + 1] = 0;
			t->code[at + 2] = chance(r, 60) ? (uint8_t)below(r, 4) : (uint8_t)next(r);
		}
		break;
	case JUMP: {
		int64_t d = (int64_t)below(r, 100) - 120;
		if (d > -20)
			d += 20; /* never into the instruction itself */
		if (i->imm_size == 1)
			t->code[i->len - 1] = (uint8_t)d;
		else if (i->imm_size) {
			const int32_t d4 = chance(r, 80) ? (int32_t)d : (int32_t)((next(r) & 0x3fffffff) | 0x100000);
			memcpy(t->code + i->len - i->imm_size, &d4, i->imm_size);
		}
		t->r[X86_RSP] = target(r, t);
		if (i->op >= 0xe0 && i->op <= 0xe3 && chance(r, 50))
			t->r[X86_RCX] = below(r, 3) | (chance(r, 50) ? 0 : next(r) << 32);
		break;
	}
	case JUMP_RM:
		v = chance(r, 75) ? CODE_PAGE + below(r, 4096) : chance(r, 50) ? DATA + below(r, 4096 * 6) : edge(r);
		if (v >= CODE_START - 1 && v <= CODE_START + 16)
			v = CODE_PAGE;
		if (i->op == 0xff && !mem) {
			t->r[i->rm] = v;
			if (i->rm != X86_RSP)
				t->r[X86_RSP] = target(r, t);
		} else if (i->op == 0xff) {
			put(t, ea, &v, 8);
			if (i->base != X86_RSP && i->index != X86_RSP)
				t->r[X86_RSP] = target(r, t);
		} else {
			t->r[X86_RSP] = target(r, t);
			put(t, t->r[X86_RSP], &v, 8);
		}
		break;
	case CMPXCHG:
		if (chance(r, 50) && mem) {
			const uint64_t off = window_offset(t, ea);
			if (i->op == 0xc7 && off + 16 <= WINDOW) {
				uint64_t lo, hi;
				memcpy(&lo, t->win + off, 8);
				memcpy(&hi, t->win + off + (i->opsize == 8 ? 8 : 4), 8);
				if (i->base != X86_RAX && i->index != X86_RAX)
					t->r[X86_RAX] = lo;
				if (i->base != X86_RDX && i->index != X86_RDX)
					t->r[X86_RDX] = hi;
			} else {
				put(t, ea, &t->r[X86_RAX], 8);
			}
		}
		break;
	case XLAT:
		t->r[X86_RBX] = target(r, t) - (t->r[X86_RAX] & 0xff);
		break;
	case MOFFS:
		v = target(r, t);
		memcpy(t->code + i->len - i->addrsize, &v, i->addrsize);
		break;
	case FX: /* an image that FXRSTOR takes, most of the time */
		if (chance(r, 90)) {
			struct x86_fxsave f = t->fx;
			fill_bytes(f.st[0], sizeof(f.st) + sizeof(f.xmm), r);
			f.mxcsr = next(r) & (chance(r, 90) ? 0xffc0 : ~0u);
			f.fcw = (uint16_t)next(r);
			f.fsw = (uint16_t)next(r);
			f.ftw = (uint8_t)next(r);
			put(t, ea, &f, sizeof(f));
		}
		break;
	}
}

static void random_fp(struct test_case *t, unsigned family, struct rng *r)
{
	struct x86_fxsave *f = &t->fx;
	memset(f, 0, sizeof(*f));
	f->fcw = 0x37f;
	f->mxcsr = 0x1f80;
	f->mxcsr_mask = X86_MXCSR_VALID;
	if (family == FAM_SSE || family == FAM_X87 || family == FAM_SEQUENCE || family == FAM_COMPAT) {
		for (unsigned i = 0; i < 16; i++)
			vector_value(f->xmm[i], r);
		for (unsigned i = 0; i < 8; i++)
			x87_value(f->st[i], r);
		if (chance(r, 40))
			f->mxcsr = (next(r) & 0xe07f) | 0x1f80;
		if (chance(r, 12) && family != FAM_SEQUENCE)
			f->mxcsr = next(r) & 0xffc0;
	}
	if (family == FAM_X87 || family == FAM_COMPAT) {
		if (chance(r, 40))
			f->fcw = 0x7f | (next(r) & 0xf00);
		if (chance(r, 15))
			f->fcw = 0x40 | (next(r) & 0xf3f);
		f->fsw = next(r) & 0x7f00;
		if (chance(r, 30))
			f->fsw |= next(r) & 0x7f;
		if (f->fsw & ~f->fcw & 0x3f) {
			if (chance(r, 80))
				f->fsw &= (uint16_t)(f->fcw | 0xffc0);
			else
				f->fsw |= 0x8080;
		}
		f->ftw = chance(r, 70) ? 0xff : (uint8_t)next(r);
	} else if (family == FAM_SSE && chance(r, 50)) {
		f->fsw = next(r) & 0x3800;
		f->ftw = (uint8_t)next(r);
		if (chance(r, 10)) { /* an x87 exception is pending */
			f->fcw = 0x37e;
			f->fsw |= 0x8081;
		}
	}
}

/* The bytes of an instruction of form f: random prefixes, opcode, ModRM, and noise up to 15 bytes. mod: of ModRM, or -1. */
static void encode(uint8_t *p, const struct form *f, unsigned family, int want_mod, bool rex, struct rng *r)
{
	const struct spec *s = f->spec;
	const uint8_t *start = p;

	/* Prefixes. */
	/* In 32-bit mode CS cannot be written and GS is null; the software CPU does not check segments' types and limits there. */
	if (chance(r, 6))
		*p++ = (uint8_t[]){0x36, 0x3e, 0x26, 0x2e, 0x65}[below(r, rex ? 5 : 3)];
	if (chance(r, 8))
		*p++ = 0x67;
	if (f->pfx)
		*p++ = f->pfx;
	if (family != FAM_SSE) {
		if (!(s->flags & S_NO66) && chance(r, 25))
			*p++ = 0x66;
		if (s->flags & S_F3)
			*p++ = 0xf3;
		else if (s->flags & S_F2)
			*p++ = 0xf2;
		else if (!(s->flags & S_NOREP) && chance(r, family == FAM_STRING ? 70 : 4))
			*p++ = chance(r, 50) ? 0xf3 : 0xf2;
	} else if (chance(r, 3) && f->pfx != 0 && f->pfx != 0x66) {
		*p++ = 0x66;
	}
	if (chance(r, s->flags & S_LOCK ? 20 : 1))
		*p++ = 0xf0;
	if (rex && chance(r, 55))
		*p++ = (uint8_t)(0x40 | below(r, 16));
	/* Opcode, ModRM, random bytes. */
	if (f->map != X86_MAP_1)
		*p++ = 0x0f;
	if (f->map == X86_MAP_0F38)
		*p++ = 0x38;
	if (f->map == X86_MAP_0F3A)
		*p++ = 0x3a;
	*p++ = f->op;
	const uint64_t tail = next(r), tail2 = next(r);
	uint8_t bytes[16];
	memcpy(bytes, &tail, 8);
	memcpy(bytes + 8, &tail2, 8);
	if (s->flags & S_M) {
		unsigned mod = below(r, 4), ext = below(r, 8);
		if (s->flags & S_MEM)
			mod = below(r, 3);
		if (s->flags & S_REG)
			mod = 3;
		if (want_mod >= 0)
			mod = (unsigned)want_mod;
		/* 0F AE has XSAVE and others on the host beside MXCSR's two. */
		const unsigned exts = family == FAM_SSE && f->map == X86_MAP_0F && f->op == 0xae ? 0x0c : s->exts;
		while (exts && !(exts >> ext & 1))
			ext = below(r, 8);
		/* mod 0 asked for: RIP-relative, which needs no register. */
		bytes[0] = (uint8_t)(mod << 6 | ext << 3 | (want_mod == 0 ? 5 : bytes[0] & 7));
	}
	for (unsigned k = 0; p < start + 15; k++)
		*p++ = bytes[k];
}

/* May i stand in a sequence? What has undefined results there would spread; what jumps or needs registers set up ends it too soon. */
static bool fits_sequence(const uint8_t *code, const struct x86_insn *i, const struct spec *s, unsigned family)
{
	if (s->setup != PLAIN && s->setup != COUNT)
		return false;
	if (host_is_amd() && (vendor_undefined_flags(i) || vendor_incomparable(code, false, i)))
		return false;
	switch (family) {
	case FAM_SHIFT:
		return i->map != X86_MAP_1 || (i->reg & 7) >= 4 || (i->op & 0xfe) == 0xd0;
	case FAM_MISC:
		return i->map == X86_MAP_1 && (i->op == 0x9e || i->op == 0x9f || i->op == 0xf5 || i->op == 0xf8 || i->op == 0xf9);
	case FAM_SSE: {
		const int row = x86_vec_lookup(i);
		return row >= 0 && x86_vec_table[row].reg != X86_VK_MM && x86_vec_table[row].rm != X86_VK_MM &&
		       x86_vec_table[row].reg + x86_vec_table[row].rm > 0 && i->op != 0xf7;
	}
	default:
		return true;
	}
}

/* Up to eight instructions in a row, the last perhaps a conditional jump over INT3s. */
static void generate_sequence(struct test_case *t, struct rng *r)
{
	static const uint8_t mix[] = {FAM_ALU, FAM_ALU, FAM_ALU, FAM_ALU, FAM_ALU, FAM_SHIFT, FAM_MOV, FAM_MOV, FAM_BIT, FAM_MISC, FAM_SSE, FAM_MUL};
	unsigned at = 0;
	for (unsigned n = 2 + (unsigned)below(r, 7), tries = 0; n && tries < 100; tries++) {
		const unsigned family = mix[below(r, ARRAY_LEN(mix))];
		const struct form *f = &forms[family][below(r, n_forms[family])];
		const bool has_modrm = f->spec->flags & S_M;
		if (f->spec->flags & S_MEM)
			continue;
		uint8_t *p = t->code + at;
		encode(p, f, family, has_modrm ? (chance(r, 70) ? 3 : 0) : -1, true, r);
		struct x86_insn i;
		if (x86_decode(p, 15, X86_MODE_64, &i) != X86_DECODE_OK || i.lock || !fits_sequence(p, &i, f->spec, family))
			continue;
		if (i.has_modrm && i.mod != 3) {
			if (i.addrsize != 8 || i.base != X86_RIP_REG)
				continue;
			uint64_t ea = t->boundary + below(r, 400) - 200;
			if (family == FAM_SSE || chance(r, 50))
				ea &= ~15ull;
			const int32_t d = (int32_t)(ea - (CODE_START + at + i.len));
			memcpy(p + i.len - i.imm_size - 4, &d, 4);
		}
		at += i.len;
		n--;
	}
	if (chance(r, 60)) {
		t->code[at++] = (uint8_t)(0x70 | below(r, 16));
		t->code[at++] = (uint8_t)(1 + below(r, 100));
	}
	memset(t->code + at, 0xcc, CODE_BYTES - at);
}

void generate(struct test_case *t, uint64_t seed, uint64_t number, unsigned families)
{
	if (!n_forms[0])
		make_forms();
	struct rng rng = {seed * 0x9e3779b97f4a7c15ull + number * 0xd1342543de82ef95ull}, *r = &rng;
	next(r);
	memset(t->code, 0xcc, sizeof(t->code));
	t->number = number;
	do
		t->family = (uint8_t)below(r, N_FAMILIES);
	while (!(families >> t->family & 1));
	static const uint64_t boundaries[] = {DATA + 0x1000, DATA + 0x1000, DATA + 0x1000, DATA + 0x1000, DATA + 0x1000,
					      DATA + 0x2000, DATA + 0x4000, DATA + 0x5000, DATA + 0x6000};
	t->boundary = boundaries[below(r, ARRAY_LEN(boundaries))];
	for (unsigned i = 0; i < 16; i++)
		t->r[i] = edge(r);
	t->rflags = 0x202 | (next(r) & 0x8d5) | (chance(r, t->family == FAM_STRING ? 30 : 5) ? 0x400 : 0);
	fill_bytes(t->win, WINDOW, r);
	random_fp(t, t->family, r);

	t->mode32 = false;
	if (t->family == FAM_SEQUENCE) {
		generate_sequence(t, r);
		return;
	}
	t->mode32 = t->family == FAM_COMPAT;
	unsigned family = t->family; /* the one that the instruction is of */
	if (t->mode32 && chance(r, 85))
		family = below(r, FAM_SEQUENCE);
	const struct form *f = &forms[family][below(r, n_forms[family])];
	const struct spec *s = f->spec;
	if (t->mode32 && f->map == X86_MAP_1 && (f->op == 0x07 || f->op == 0x63)) { /* POP ES would outlive the case; ARPL */
		t->code[0] = 0x90;
		return;
	}

	encode(t->code, f, family, -1, !t->mode32, r);

	/* What is it? */
	struct x86_insn i;
	if (x86_decode(t->code, 15, t->mode32 ? X86_MODE_32 : X86_MODE_64, &i) != X86_DECODE_OK) {
		memset(t->code + 15, 0xcc, CODE_BYTES - 15);
		return;
	}
	memset(t->code + i.len, 0xcc, CODE_BYTES - i.len);
	if (host_is_amd() && vendor_incomparable(t->code, t->mode32, &i)) {
		memset(t->code, 0xcc, CODE_BYTES);
		t->code[0] = 0x90;
		return;
	}
	uint64_t ea = target(r, t);
	if (s->setup == FX || (i.map == X86_MAP_1 && (i.op == 0xdd || i.op == 0xd9) && chance(r, 30)))
		ea = t->boundary - 512 + 16 * below(r, chance(r, 20) ? 60 : 9) + (chance(r, 5) ? 4 : 0);
	if (s->setup == CMPXCHG && chance(r, 40))
		ea &= ~15ull;
	if (i.has_modrm && i.mod != 3) {
		solve(t, &i, ea, r);
		if (family == FAM_SSE && chance(r, 60)) {
			uint8_t v[16];
			vector_value(v, r);
			put(t, ea, v, 16);
		}
		if (family == FAM_X87 && chance(r, 60)) {
			uint8_t v[16];
			if (chance(r, 50))
				x87_value(v, r);
			else
				vector_value(v, r);
			put(t, ea, v, 10);
		}
	}
	/* Registers that address memory implicitly. */
	if (family == FAM_SSE && i.map == X86_MAP_0F && i.op == 0xf7)
		t->r[X86_RDI] = target(r, t);
	if (family == FAM_SSE && i.map == X86_MAP_0F3A && (i.op & 0xfc) == 0x60) {
		if (i.base != X86_RAX && i.index != X86_RAX && chance(r, 70))
			t->r[X86_RAX] = below(r, 40) - 20;
		if (i.base != X86_RDX && i.index != X86_RDX && chance(r, 70))
			t->r[X86_RDX] = below(r, 40) - 20;
	}
	set_up(t, s, &i, ea, r);
	if (t->mode32)
		for (unsigned k = 0; k < 16; k++)
			t->r[k] = k < 8 ? (uint32_t)t->r[k] : 0;
}
