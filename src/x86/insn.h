/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw decoding of one x86 instruction (SDM vol. 2 chapter 2 and appendix A): prefixes, opcode, ModRM, SIB, displacement,
 * immediate, length. It knows the encoding of every instruction of the model's maps, not their meaning.
 */
#ifndef X86_INSN_H
#define X86_INSN_H

#include <stdbool.h>
#include <stdint.h>

enum x86_mode { X86_MODE_16, X86_MODE_32, X86_MODE_64 };

enum x86_map { X86_MAP_1, X86_MAP_0F, X86_MAP_0F38, X86_MAP_0F3A };

#define X86_NO_REG 16 /* absent base or index: slot X86_R_ZERO */
#define X86_RIP_REG 17 /* RIP-relative: slot X86_R_PAGE */
#define X86_NO_SEG 7
#define X86_MAX_LEN 15

struct x86_insn {
	uint8_t len;      /* 1..15 */
	uint8_t mode;     /* enum x86_mode */
	uint8_t map;      /* enum x86_map */
	uint8_t op;       /* opcode byte within the map */
	uint8_t opsize;   /* operand size 2, 4 or 8 from prefixes and mode (not the byte forms, not the default-64 rule) */
	uint8_t addrsize; /* 2, 4 or 8 */
	bool lock, rep, repne, p66; /* F0, F3, F2, 66 present; rep and repne: the last of the two wins */
	uint8_t seg;      /* override, enum x86_seg, or X86_NO_SEG */
	uint8_t rex;      /* 0 where absent, else 0x40..0x4f */
	bool has_modrm;
	uint8_t mod, reg, rm; /* reg and rm extended by REX.R and REX.B; rm is a register number when mod == 3 */
	/* memory operand, when mod != 3 */
	uint8_t base, index, scale; /* register or X86_NO_REG or X86_RIP_REG; scale 0..3 */
	int32_t disp;     /* sign-extended */
	bool stack_seg;   /* the default segment is SS */
	uint8_t imm_size; /* bytes of immediate, 0 where none */
	int64_t imm;      /* sign-extended; moffs for A0..A3; ENTER: imm16 | imm8 << 16; far pointer: offset | selector << 32 */
};

enum x86_decode_result {
	X86_DECODE_OK,
	X86_DECODE_MORE,    /* more bytes are needed than n */
	X86_DECODE_TOO_LONG,/* over 15 bytes: #GP */
	X86_DECODE_UD,      /* no such encoding: #UD */
};

/* Decodes the instruction at p[0..n). On X86_DECODE_OK all fields of *i are set. */
enum x86_decode_result x86_decode(const uint8_t *p, unsigned n, enum x86_mode mode, struct x86_insn *i);

#endif
