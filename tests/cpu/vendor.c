/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where processors of different vendors differ. The software CPU is Intel's, where the two disagree; on a host of AMD's the cases below cannot be
 * compared, or only in part:
 *
 *   MUL, IMUL, DIV, IDIV, BSF, BSR, AAA, AAS, DAA, DAS, SHLD, SHRD   flags that the architecture leaves undefined
 *   near branches with an operand size prefix in 64-bit mode         Intel ignores the prefix, AMD cuts RIP to 16 bits
 *   PUSH of a segment register                                       whether the bytes above the selector are written
 *   FXSAVE, FNSAVE, FNSTENV                                          the last instruction's addresses, kept only with an exception pending
 *   LOOPE, LOOPNE with a repeat prefix                               what the prefix means
 *   0F 0D with a register, LOCK MOV to and from CR                   AMD has other instructions there
 *   CALL through memory or a register, when faulting                 whether the return address has been written
 *   x87 stores, when faulting                                        whether and which of two faults is reported
 *   PAUSE with REX.B, MOVSXD with 66, LDMXCSR                        XCHG or not; how much is read; MXCSR's bit 17
 *   REPE/REPNE CMPS and SCAS, when faulting                          whether flags are those of the last whole iteration
 */
#include "compare.h"

#include <cpuid.h>
#include <string.h>

#include "x86/cpu.h"

bool host_is_amd(void)
{
	unsigned a, b, c, d;
	return __get_cpuid(0, &a, &b, &c, &d) && (b == 0x68747541 /* "Auth", AMD */ || b == 0x6f677948 /* "Hygo", Hygon */);
}

#define ALL (X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_ZF | X86_FL_SF | X86_FL_OF)

uint64_t vendor_undefined_flags(const struct x86_insn *i)
{
	if (i->map == X86_MAP_0F)
		switch (i->op) {
		case 0xbc: case 0xbd:
			return ALL & ~(uint64_t)X86_FL_ZF;
		case 0xaf:
			return ALL & ~(uint64_t)(X86_FL_CF | X86_FL_OF);
		case 0xa4: case 0xa5: case 0xac: case 0xad:
			return X86_FL_AF | X86_FL_OF;
		case 0xa3: case 0xab: case 0xb3: case 0xbb: case 0xba:
			return ALL & ~(uint64_t)(X86_FL_CF | X86_FL_ZF);
		default:
			return 0;
		}
	if (i->map != X86_MAP_1)
		return 0;
	switch (i->op) {
	case 0xf6: case 0xf7:
		return (i->reg & 7) >= 6 ? ALL : (i->reg & 7) >= 4 ? ALL & ~(uint64_t)(X86_FL_CF | X86_FL_OF) : 0;
	case 0x69: case 0x6b:
		return ALL & ~(uint64_t)(X86_FL_CF | X86_FL_OF);
	case 0x37: case 0x3f:
		return ALL & ~(uint64_t)(X86_FL_CF | X86_FL_AF);
	case 0x27: case 0x2f:
		return X86_FL_OF;
	case 0xc0: case 0xc1: case 0xd0: case 0xd1: case 0xd2: case 0xd3:
		return X86_FL_AF | X86_FL_OF;
	default:
		return 0;
	}
}

static bool near_branch(const struct x86_insn *i)
{
	if (i->map == X86_MAP_0F)
		return (i->op & 0xf0) == 0x80;
	if (i->map != X86_MAP_1)
		return false;
	switch (i->op) {
	case 0x70 ... 0x7f: case 0xc2: case 0xc3: case 0xe0 ... 0xe3: case 0xe8: case 0xe9: case 0xeb:
		return true;
	case 0xff:
		return (i->reg & 7) == 2 || (i->reg & 7) == 4;
	default:
		return false;
	}
}

static bool has_prefix(const uint8_t *code, const struct x86_insn *i, uint8_t prefix)
{
	for (unsigned k = 0; k < i->len; k++) {
		const uint8_t b = code[k];
		if (b == prefix)
			return true;
		if (b != 0x66 && b != 0x67 && b != 0xf0 && b != 0xf2 && b != 0xf3 && b != 0x26 && b != 0x2e && b != 0x36 && b != 0x3e && b != 0x64 && b != 0x65 &&
		    (b & 0xf0) != 0x40)
			return false;
	}
	return false;
}

bool vendor_incomparable(const uint8_t *code, bool mode32, const struct x86_insn *i)
{
	const bool prefix66 = has_prefix(code, i, 0x66);
	if (!mode32 && near_branch(i) && prefix66)
		return true;
	if (i->map == X86_MAP_1 && (i->op == 0xe0 || i->op == 0xe1) && (has_prefix(code, i, 0xf2) || has_prefix(code, i, 0xf3)))
		return true;
	if (i->map == X86_MAP_0F && ((i->op == 0x0d && i->mod == 3) || ((i->op == 0x20 || i->op == 0x22) && has_prefix(code, i, 0xf0))))
		return true;
	if (i->map == X86_MAP_0F && i->op == 0xae && i->mod != 3 && (i->reg & 7) == 0)
		return true; /* FXSAVE */
	if (i->map == X86_MAP_0F && i->op == 0xae && i->mod != 3 && (i->reg & 7) == 2)
		return true; /* LDMXCSR */
	if (i->map == X86_MAP_1 && ((i->op == 0x90 && has_prefix(code, i, 0xf3)) || (i->op == 0x63 && prefix66)))
		return true;
	if (mode32 && i->map == X86_MAP_1 && (i->op == 0x06 || i->op == 0x0e || i->op == 0x16 || i->op == 0x1e))
		return true;
	if (mode32 && i->map == X86_MAP_0F && (i->op == 0xa0 || i->op == 0xa8))
		return true;
	return i->map == X86_MAP_1 && i->mod != 3 && ((i->op == 0xd9 && (i->reg & 7) == 6) || (i->op == 0xdd && (i->reg & 7) == 6));
}

void vendor_allow(const struct test_case *t, const struct x86_insn *i, struct outcome *s)
{
	const struct outcome *n = &t->native;
	const uint64_t undefined = vendor_undefined_flags(i);
	s->rflags = (s->rflags & ~undefined) | (n->rflags & undefined);
	const bool push_sreg = (i->map == X86_MAP_0F && (i->op == 0xa0 || i->op == 0xa8)) ||
			       (i->map == X86_MAP_1 && (i->op == 0x06 || i->op == 0x0e || i->op == 0x16 || i->op == 0x1e));
	if (push_sreg || (i->map == X86_MAP_1 && i->op == 0xff && (i->reg & 7) == 2))
		memcpy(s->win, n->win, sizeof(s->win));
	if (i->map == X86_MAP_1 && i->op >= 0xd8 && i->op <= 0xdf && i->mod != 3 && n->vector != s->vector)
		*s = *n;
	const bool compares = i->map == X86_MAP_1 && (i->op == 0xa6 || i->op == 0xa7 || i->op == 0xae || i->op == 0xaf);
	if (compares && n->vector != X86_BP && n->vector == s->vector)
		s->rflags = (s->rflags & ~(uint64_t)ALL) | (n->rflags & ALL);
}
