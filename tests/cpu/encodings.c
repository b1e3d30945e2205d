/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which encodings exist: every opcode of every map in 64-bit mode, with each mandatory prefix, ModRM.mod and .reg, REX.W, asked of Zydis
 * (what is it, and since when?) and of the translator (an operation, or #UD?). An instruction of the model's instruction sets must be
 * translated; anything else must be #UD, so that a guest finds the CPU that CPUID promises.
 */
#include <Zydis/Zydis.h>
#include <stdio.h>
#include <string.h>

#include "x86/opcodes.h"
#include "x86/translate.h"

static bool in_model(ZydisISASet set)
{
	switch (set) {
	case ZYDIS_ISA_SET_I86: case ZYDIS_ISA_SET_I186: case ZYDIS_ISA_SET_I286PROTECTED: case ZYDIS_ISA_SET_I286REAL:
	case ZYDIS_ISA_SET_I386: case ZYDIS_ISA_SET_I486: case ZYDIS_ISA_SET_I486REAL:
	case ZYDIS_ISA_SET_PENTIUMREAL: case ZYDIS_ISA_SET_PENTIUMMMX: case ZYDIS_ISA_SET_PPRO:
	case ZYDIS_ISA_SET_CMOV: case ZYDIS_ISA_SET_FCMOV:
	case ZYDIS_ISA_SET_FAT_NOP: case ZYDIS_ISA_SET_X87: case ZYDIS_ISA_SET_SSE: case ZYDIS_ISA_SET_SSEMXCSR:
	case ZYDIS_ISA_SET_SSE_PREFETCH: case ZYDIS_ISA_SET_SSE2: case ZYDIS_ISA_SET_SSE2MMX: case ZYDIS_ISA_SET_SSE3:
	case ZYDIS_ISA_SET_SSE3X87: case ZYDIS_ISA_SET_SSSE3: case ZYDIS_ISA_SET_SSSE3MMX: case ZYDIS_ISA_SET_SSE4:
	case ZYDIS_ISA_SET_SSE42: case ZYDIS_ISA_SET_POPCNT: case ZYDIS_ISA_SET_CMPXCHG16B: case ZYDIS_ISA_SET_LAHF:
	case ZYDIS_ISA_SET_LONGMODE: case ZYDIS_ISA_SET_FXSAVE: case ZYDIS_ISA_SET_FXSAVE64: case ZYDIS_ISA_SET_CLFSH:
	case ZYDIS_ISA_SET_PAUSE: case ZYDIS_ISA_SET_RDTSCP: case ZYDIS_ISA_SET_PREFETCH_NOP: case ZYDIS_ISA_SET_RDPMC:
	case ZYDIS_ISA_SET_SMAP:
		return true;
	default:
		return false;
	}
}

/* Allowed, with the reason. ours: our translator knows it. */
static bool excused(const struct x86_insn *i, const ZydisDecodedInstruction *z, bool valid, bool ours)
{
	if (!ours)
		return valid && (z->mnemonic == ZYDIS_MNEMONIC_UD0 || z->mnemonic == ZYDIS_MNEMONIC_UD1 ||
				 z->mnemonic == ZYDIS_MNEMONIC_UD2 || z->mnemonic == ZYDIS_MNEMONIC_RSM); /* #UD is what they do */
	if (i->map != X86_MAP_0F)
		return false;
	switch (i->op) {
	case 0x01: /* VMCALL and VMMCALL: the paravirtual interface */
		return i->mod == 3;
	case 0x0d: case 0x18 ... 0x1f: /* hints and reserved NOPs: MPX, CET and more prefetches live there on CPUs that have them */
		return true;
	case 0x20: case 0x22: /* control registers that do not exist are #UD when executed */
		return true;
	case 0xbc: case 0xbd: /* F3: TZCNT and LZCNT are BSF and BSR without BMI1 and LZCNT */
		return i->rep;
	}
	return false;
}

int main(void)
{
	static const uint8_t prefixes[4] = {0, 0x66, 0xf3, 0xf2};
	ZydisDecoder decoder;
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	unsigned failures = 0, compared = 0;
	for (unsigned map = 0; map < 4; map++)
		for (unsigned k = 0; k < 256 * 4 * 2 * 16; k++) {
			const unsigned op = k >> 7, pfx = k >> 5 & 3, w = k >> 4 & 1, mod = k & 8 ? 3 : 0, ext = k & 7;
			/* Prefixes and escapes are no opcodes; nor are VEX, EVEX and the x87, which has a table of its own at run time. */
			if (map == 0 && (op == 0x0f || op == 0x26 || op == 0x2e || op == 0x36 || op == 0x3e || (op >= 0x40 && op < 0x50) ||
					 (op >= 0x62 && op < 0x68 && op != 0x63) || op == 0xc4 || op == 0xc5 || op == 0x8f ||
					 (op >= 0xd8 && op < 0xe0) || op == 0xf0 || op == 0xf2 || op == 0xf3))
				continue;
			if (map == 1 && (op == 0x38 || op == 0x3a || op == 0x0f))
				continue;
			uint8_t p[24] = {0};
			unsigned n = 0;
			if (prefixes[pfx])
				p[n++] = prefixes[pfx];
			if (w)
				p[n++] = 0x48;
			if (map)
				p[n++] = 0x0f;
			if (map > 1)
				p[n++] = map == 2 ? 0x38 : 0x3a;
			p[n++] = (uint8_t)op;
			p[n++] = (uint8_t)(mod << 6 | ext << 3 | 1);
			ZydisDecodedInstruction z;
			ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
			const bool valid = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, p, 15, &z, operands));
			const bool theirs = valid && in_model(z.meta.isa_set);
			struct x86_insn i;
			bool ours = false;
			if (x86_decode(p, 15, X86_MODE_64, &i) == X86_DECODE_OK) {
				struct x86_op o[X86_MAX_OPS_PER_INSN + 1];
				struct x86_xlat x;
				x86_translate_insn(&i, 0, o, &x);
				ours = true;
				for (unsigned j = 0; j < x.n_ops; j++)
					ours &= o[j].h != X86_OP_ud;
			}
			compared++;
			if (ours == theirs || excused(&i, &z, valid, ours))
				continue;
			failures++;
			printf("FAIL %s:", ours ? "translated, but not in the model" : "not translated");
			for (unsigned j = 0; j < n; j++)
				printf(" %02x", p[j]);
			printf("  %s %s\n", valid ? ZydisMnemonicGetString(z.mnemonic) : "-", valid ? ZydisISASetGetString(z.meta.isa_set) : "-");
		}
	printf("%u encodings, %u failures\n", compared, failures);
	return failures ? 1 : 0;
}
