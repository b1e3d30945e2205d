/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: each opcode map is a string of 256 letters that say what follows the opcode (SDM vol. 2 appendix A): a ModRM
 * byte, an immediate, both, neither. One pass over the bytes reads prefixes, opcode, ModRM, SIB, displacement and immediate in that order;
 * running out of bytes anywhere gives X86_DECODE_MORE, so a caller at the end of a page can fetch the next one and try again.
 *
 *   .  nothing          m  ModRM                 x  no such opcode       p  prefix or escape
 *   b  imm8             B  ModRM + imm8          w  imm16                e  imm16 + imm8 (ENTER)
 *   z  imm16/32         Z  ModRM + imm16/32      v  imm16/32/64          o  offset of address size
 *   j  rel8             J  rel16/32              f  far pointer
 *   3  group 3, byte    4  group 3, word: ModRM, and an immediate when ModRM.reg is 0 or 1
 */
#include "x86/insn.h"

#include "base/util.h"
#include "x86/state.h"

static const char map_1[257] =
	"mmmmbz..mmmmbz.p" /* 00 */
	"mmmmbz..mmmmbz.." /* 10 */
	"mmmmbzp.mmmmbzp." /* 20 */
	"mmmmbzp.mmmmbzp." /* 30 */
	"................" /* 40 */
	"................" /* 50 */
	"..mmppppzZbB...." /* 60 */
	"jjjjjjjjjjjjjjjj" /* 70 */
	"BZBBmmmmmmmmmmmm" /* 80 */
	"..........f....." /* 90 */
	"oooo....bz......" /* A0 */
	"bbbbbbbbvvvvvvvv" /* B0 */
	"BBw.mmBZe.w..b.." /* C0 */
	"mmmmbbx.mmmmmmmm" /* D0 */
	"jjjjbbbbJJfj...." /* E0 */
	"p.pp..34......mm" /* F0 */;

static const char map_0f[257] =
	"mmmmx.....x.xmxx" /* 00 */
	"mmmmmmmmmmmmmmmm" /* 10 */
	"mmmmxxxxmmmmmmmm" /* 20 */
	"......xxpxpxxxxx" /* 30 */
	"mmmmmmmmmmmmmmmm" /* 40 */
	"mmmmmmmmmmmmmmmm" /* 50 */
	"mmmmmmmmmmmmmmmm" /* 60 */
	"BBBBmmm.mmxxmmmm" /* 70 */
	"JJJJJJJJJJJJJJJJ" /* 80 */
	"mmmmmmmmmmmmmmmm" /* 90 */
	"...mBmxx...mBmmm" /* A0 */
	"mmmmmmmmmmBmmmmm" /* B0 */
	"mmBmBBBm........" /* C0 */
	"mmmmmmmmmmmmmmmm" /* D0 */
	"mmmmmmmmmmmmmmmm" /* E0 */
	"mmmmmmmmmmmmmmmm" /* F0 */;

/* One-byte opcodes that 64-bit mode does not have (SDM vol. 2 table A-2, superscript i64). */
static bool invalid_in_64(uint8_t op)
{
	switch (op) {
	case 0x06: case 0x07: case 0x0e: case 0x16: case 0x17: case 0x1e: case 0x1f: case 0x27: case 0x2f:
	case 0x37: case 0x3f: case 0x60: case 0x61: case 0x62: case 0x82: case 0x9a: case 0xc4: case 0xc5:
	case 0xce: case 0xd4: case 0xd5: case 0xea:
		return true;
	}
	return false;
}

struct cursor {
	const uint8_t *p;
	unsigned n, at;
	bool more;
};

static uint64_t take(struct cursor *k, unsigned bytes)
{
	if (k->at + bytes > k->n) {
		k->more = true;
		return 0;
	}
	uint64_t v = 0;
	memcpy(&v, k->p + k->at, bytes);
	k->at += bytes;
	return v;
}

static int64_t take_signed(struct cursor *k, unsigned bytes)
{
	uint64_t v = take(k, bytes);
	unsigned shift = 64 - bytes * 8;
	return (int64_t)(v << shift) >> shift;
}

/* 16-bit addressing forms (SDM vol. 2 table 2-1). */
static void modrm_16(struct cursor *k, struct x86_insn *i, unsigned rm)
{
	static const uint8_t base[8] = {X86_RBX, X86_RBX, X86_RBP, X86_RBP, X86_RSI, X86_RDI, X86_RBP, X86_RBX};
	static const uint8_t index[8] = {X86_RSI, X86_RDI, X86_RSI, X86_RDI, X86_NO_REG, X86_NO_REG, X86_NO_REG, X86_NO_REG};
	if (i->mod == 0 && rm == 6) {
		i->disp = (int32_t)take_signed(k, 2);
		return;
	}
	i->base = base[rm];
	i->index = index[rm];
	i->stack_seg = base[rm] == X86_RBP;
	if (i->mod == 1)
		i->disp = (int32_t)take_signed(k, 1);
	else if (i->mod == 2)
		i->disp = (int32_t)take_signed(k, 2);
}

/* 32- and 64-bit addressing forms (SDM vol. 2 tables 2-2 and 2-3, section 2.2.1). */
static void modrm_32(struct cursor *k, struct x86_insn *i, unsigned rm, unsigned rex_x, unsigned rex_b)
{
	if (rm == 4) {
		uint8_t sib = (uint8_t)take(k, 1);
		i->scale = sib >> 6;
		unsigned index = ((sib >> 3) & 7) | rex_x << 3;
		i->index = index == 4 ? X86_NO_REG : (uint8_t)index;
		if ((sib & 7) == 5 && i->mod == 0) {
			i->disp = (int32_t)take_signed(k, 4);
			return;
		}
		i->base = (uint8_t)((sib & 7) | rex_b << 3);
		i->stack_seg = i->base == X86_RSP || i->base == X86_RBP;
	} else if (rm == 5 && i->mod == 0) {
		i->disp = (int32_t)take_signed(k, 4);
		if (i->mode == X86_MODE_64)
			i->base = X86_RIP_REG;
		return;
	} else {
		i->base = (uint8_t)(rm | rex_b << 3);
		i->stack_seg = i->base == X86_RBP;
	}
	if (i->mod == 1)
		i->disp = (int32_t)take_signed(k, 1);
	else if (i->mod == 2)
		i->disp = (int32_t)take_signed(k, 4);
}

static void immediate(struct cursor *k, struct x86_insn *i, char kind)
{
	unsigned z = i->opsize == 2 ? 2 : 4;
	switch (kind) {
	case 'b': case 'B': case 'j':
		i->imm_size = 1;
		break;
	case 'w':
		i->imm_size = 2;
		break;
	case 'z': case 'Z':
		i->imm_size = (uint8_t)z;
		break;
	case 'J': /* near branches ignore the operand-size prefix in 64-bit mode */
		i->imm_size = i->mode == X86_MODE_64 ? 4 : (uint8_t)z;
		break;
	case 'v':
		i->imm_size = i->opsize;
		break;
	case 'o':
		i->imm_size = i->addrsize;
		i->imm = (int64_t)take(k, i->addrsize);
		return;
	case 'e':
		i->imm_size = 3;
		i->imm = (int64_t)take(k, 2);
		i->imm |= (int64_t)take(k, 1) << 16;
		return;
	case 'f':
		i->imm_size = (uint8_t)(z + 2);
		i->imm = (int64_t)take(k, z);
		i->imm |= (int64_t)take(k, 2) << 32;
		return;
	case '3': case '4':
		if (i->reg & 6)
			return;
		i->imm_size = kind == '3' ? 1 : (uint8_t)z;
		break;
	default:
		return;
	}
	i->imm = take_signed(k, i->imm_size);
}

/* Reads prefixes and the opcode. False: out of bytes or no opcode within 15 bytes. */
static bool prefixes_and_opcode(struct cursor *k, struct x86_insn *i, bool *p67)
{
	for (;;) {
		if (k->at >= X86_MAX_LEN)
			return false;
		uint8_t b = (uint8_t)take(k, 1);
		if (k->more)
			return false;
		switch (b) {
		case 0x26: case 0x2e: case 0x36: case 0x3e:
			/* ES, CS, SS and DS overrides do nothing in 64-bit mode. */
			if (i->mode != X86_MODE_64)
				i->seg = (b >> 3) & 3;
			break;
		case 0x64:
			i->seg = X86_FS;
			break;
		case 0x65:
			i->seg = X86_GS;
			break;
		case 0x66:
			i->p66 = true;
			break;
		case 0x67:
			*p67 = true;
			break;
		case 0xf0:
			i->lock = true;
			break;
		case 0xf2:
			i->repne = true;
			i->rep = false;
			break;
		case 0xf3:
			i->rep = true;
			i->repne = false;
			break;
		default:
			if (i->mode == X86_MODE_64 && (b & 0xf0) == 0x40) {
				i->rex = b;
				continue; /* a later prefix makes it void, below */
			}
			i->op = b;
			return true;
		}
		i->rex = 0;
	}
}

enum x86_decode_result x86_decode(const uint8_t *p, unsigned n, enum x86_mode mode, struct x86_insn *i)
{
	struct cursor k = {.p = p, .n = n < X86_MAX_LEN ? n : X86_MAX_LEN};
	const enum x86_decode_result short_of = n < X86_MAX_LEN ? X86_DECODE_MORE : X86_DECODE_TOO_LONG;
	*i = (struct x86_insn){.mode = (uint8_t)mode, .seg = X86_NO_SEG, .base = X86_NO_REG, .index = X86_NO_REG};
	bool p67 = false;
	if (!prefixes_and_opcode(&k, i, &p67))
		return short_of;

	const char *map = map_1;
	if (i->op == 0x0f) {
		i->map = X86_MAP_0F;
		i->op = (uint8_t)take(&k, 1);
		map = map_0f;
		if (!k.more && (i->op == 0x38 || i->op == 0x3a)) {
			i->map = i->op == 0x38 ? X86_MAP_0F38 : X86_MAP_0F3A;
			i->op = (uint8_t)take(&k, 1);
			map = NULL;
		}
		if (k.more)
			return short_of;
	}
	char kind = map ? map[i->op] : i->map == X86_MAP_0F38 ? 'm' : 'B';
	if (kind == 'x' || kind == 'p')
		return X86_DECODE_UD;
	if (mode == X86_MODE_64 && i->map == X86_MAP_1 && invalid_in_64(i->op))
		return X86_DECODE_UD;

	if (mode == X86_MODE_64) {
		i->opsize = (i->rex & 8) ? 8 : i->p66 ? 2 : 4;
		i->addrsize = p67 ? 4 : 8;
	} else {
		bool wide = mode == X86_MODE_32;
		i->opsize = wide != i->p66 ? 4 : 2;
		i->addrsize = wide != p67 ? 4 : 2;
	}

	if (kind == 'm' || kind == 'B' || kind == 'Z' || kind == '3' || kind == '4') {
		uint8_t modrm = (uint8_t)take(&k, 1);
		if (k.more)
			return short_of;
		i->has_modrm = true;
		i->mod = modrm >> 6;
		i->reg = (uint8_t)(((modrm >> 3) & 7) | ((i->rex & 4) << 1));
		i->rm = (uint8_t)((modrm & 7) | ((i->rex & 1) << 3));
		/* MOV to and from control and debug registers has no memory form: mod is ignored. */
		if (i->map == X86_MAP_0F && i->op >= 0x20 && i->op <= 0x23)
			i->mod = 3;
		if (i->mod != 3) {
			if (i->addrsize == 2)
				modrm_16(&k, i, modrm & 7);
			else
				modrm_32(&k, i, modrm & 7, (i->rex >> 1) & 1, i->rex & 1);
		}
	}
	immediate(&k, i, kind);
	if (k.more)
		return short_of;
	i->len = (uint8_t)k.at;
	return X86_DECODE_OK;
}
