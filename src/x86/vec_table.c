/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of vec_rows.def as a table, and finding an instruction's row.
 *
 * Theory of operation: an index by (map, opcode, mandatory prefix) gives the first row of a form; rows that differ by ModRM or
 * REX.W follow it. F2 and F3 win over 66 (SDM vol. 2 2.1.1), and a form that the table does not have with the prefix found is
 * no vector instruction.
 */
#include "x86/vec_fn.h"

enum { PFX_NP, PFX_66, PFX_F3, PFX_F2 };
enum { MAP_0F, MAP_0F38, MAP_0F3A };

/* Conditions: bits 0-1 mod, 2-3 REX.W, 7: ModRM.reg is bits 4-6. */
enum {
	COND_ANY = 0,
	COND_MEM = 1,
	COND_REG = 2,
	COND_W0 = 4,
	COND_W1 = 8,
	COND_W0_MEM = 5,
	COND_EXT2 = 0xa0,
	COND_EXT3 = 0xb0,
	COND_EXT4 = 0xc0,
	COND_EXT6 = 0xe0,
	COND_EXT7 = 0xf0,
};

enum {
#define ROW(id, map, op, pfx, cond, fn, reg, rm, bytes, flags) VEC_##id,
#define MORE ROW
#include "x86/vec_rows.def"
	VEC_ROWS
};

const struct x86_vec_row x86_vec_table[] = {
#define ROW(id, map, op, pfx, cond, fn, reg, rm, bytes, flags)                                                     \
	{#id, x86_v_##fn, X86_VK_##reg, X86_VK_##rm, bytes, (uint8_t)(flags)},
#define MORE ROW
#include "x86/vec_rows.def"
};
const unsigned x86_vec_rows = VEC_ROWS;

#define KEY(map, op, pfx) (MAP_##map << 10 | (op) << 2 | PFX_##pfx)

static const struct {
	uint16_t key;
	uint8_t cond;
} match[] = {
#define ROW(id, map, op, pfx, cond, fn, reg, rm, bytes, flags) {KEY(map, op, pfx), COND_##cond},
#define MORE ROW
#include "x86/vec_rows.def"
};

/* First row of a key, plus one. */
static const uint16_t first[3 << 10] = {
#define ROW(id, map, op, pfx, cond, fn, reg, rm, bytes, flags) [KEY(map, op, pfx)] = VEC_##id + 1,
#define MORE(...)
#include "x86/vec_rows.def"
};

VEC_FN(none)
{
}

int x86_vec_lookup(const struct x86_insn *i)
{
	if (i->map == X86_MAP_1 || i->map > X86_MAP_0F3A || i->lock)
		return -1;
	const unsigned pfx = i->repne ? PFX_F2 : i->rep ? PFX_F3 : i->p66 ? PFX_66 : PFX_NP;
	const unsigned key = (unsigned)(i->map - X86_MAP_0F) << 10 | (unsigned)i->op << 2 | pfx;
	unsigned row = first[key];
	if (!row)
		return -1;
	const bool reg_form = i->mod == 3;
	const bool w = i->rex & 8;
	for (row--; row < VEC_ROWS && match[row].key == key; row++) {
		const unsigned cond = match[row].cond;
		if ((cond & COND_MEM && reg_form) || (cond & COND_REG && !reg_form) || (cond & COND_W0 && w) ||
		    (cond & COND_W1 && !w))
			continue;
		if (cond & 0x80 && (i->reg & 7u) != (cond >> 4 & 7))
			continue;
		const unsigned flags = x86_vec_table[row].flags;
		if ((flags & X86_VF_MEM_ONLY && reg_form) || (flags & X86_VF_REG_ONLY && !reg_form))
			return -1;
		return (int)row;
	}
	return -1;
}
