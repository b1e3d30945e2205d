/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder against Zydis: length and validity, in all three modes.
 *
 *   decode [--seed N] [--cases N]
 *
 * Byte strings are random, or random prefixes in front of each opcode of each map in turn. Zydis knows instruction sets that model v2 does
 * not have (VEX, EVEX, XOP and what came after SSE4.2): where our decoder says #UD and Zydis decodes one of those, both are right. Ours is a
 * decoder of encodings, not of meanings: it may accept a form that only the translator refuses, so "valid here, invalid there" is no failure
 * by itself, and only lengths are compared when both accept.
 */
#include <Zydis/Zydis.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gen_value.h"
#include "x86/insn.h"

/* Encodings outside of the model. */
static bool beyond_model(const ZydisDecodedInstruction *z)
{
	return z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || z->meta.isa_set == ZYDIS_ISA_SET_SSE4A;
}

static unsigned make_bytes(uint8_t *p, uint64_t n, struct rng *r)
{
	static const uint8_t prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65};
	for (unsigned i = 0; i < 16; i++)
		p[i] = (uint8_t)next(r);
	if (n & 1)
		return 16;
	unsigned at = 0;
	while (at < 4 && chance(r, 30))
		p[at++] = prefixes[below(r, sizeof(prefixes))];
	if (chance(r, 40))
		p[at++] = (uint8_t)(0x40 | below(r, 16));
	const unsigned map = (unsigned)(n >> 1 & 3), op = (unsigned)(n >> 3 & 255);
	if (map)
		p[at++] = 0x0f;
	if (map > 1)
		p[at++] = map == 2 ? 0x38 : 0x3a;
	p[at] = (uint8_t)op;
	return 16;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"seed", 1, NULL, 's'}, {"cases", 1, NULL, 'n'}, {NULL, 0, NULL, 0}};
	uint64_t seed = (uint64_t)time(NULL), cases = 1000000;
	for (int o; (o = getopt_long(argc, argv, "", longs, NULL)) != -1;)
		if (o == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (o == 'n')
			cases = strtoull(optarg, NULL, 0);
		else
			return 2;
	static const struct {
		enum x86_mode ours;
		ZydisMachineMode theirs;
		ZydisStackWidth stack;
	} modes[3] = {{X86_MODE_64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
		      {X86_MODE_32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
		      {X86_MODE_16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16}};
	ZydisDecoder decoder[3];
	for (unsigned m = 0; m < 3; m++)
		ZydisDecoderInit(&decoder[m], modes[m].theirs, modes[m].stack);
	struct rng r = {seed};
	uint64_t both = 0, failures = 0, refused = 0;
	for (uint64_t n = 0; n < cases; n++) {
		uint8_t p[16];
		make_bytes(p, n, &r);
		const unsigned m = chance(&r, 60) ? 0 : 1 + (unsigned)below(&r, 2);
		ZydisDecodedInstruction z;
		ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
		const bool theirs = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder[m], p, 15, &z, operands));
		struct x86_insn i;
		memset(&i, 0, sizeof(i));
		const enum x86_decode_result res = x86_decode(p, 15, modes[m].ours, &i);
		const char *what = NULL;
		if (res == X86_DECODE_OK && theirs && !beyond_model(&z)) {
			both++;
			if (i.len != z.length)
				what = "length";
			else {
				/* The same bytes cut short must ask for more, and more must not change the answer. */
				struct x86_insn j;
				if (i.len > 1 && x86_decode(p, i.len - 1u, modes[m].ours, &j) != X86_DECODE_MORE)
					what = "shortened";
				else if (x86_decode(p, i.len, modes[m].ours, &j) != X86_DECODE_OK || j.len != i.len)
					what = "exact length";
			}
		} else if (res != X86_DECODE_OK && theirs && !beyond_model(&z)) {
			/* SALC is undocumented and left out. SSE4a, 3DNow! and the like are legacy encodings that the model lacks: refused there, fine. */
			if (z.mnemonic == ZYDIS_MNEMONIC_SALC)
				refused++;
			else if (z.meta.isa_set == ZYDIS_ISA_SET_I86 || z.meta.isa_set == ZYDIS_ISA_SET_I386 ||
			    z.meta.isa_set == ZYDIS_ISA_SET_I486REAL || z.meta.isa_set == ZYDIS_ISA_SET_PENTIUMREAL ||
			    z.meta.isa_set == ZYDIS_ISA_SET_X87 || z.meta.isa_set == ZYDIS_ISA_SET_LONGMODE ||
			    z.meta.isa_set == ZYDIS_ISA_SET_SSE || z.meta.isa_set == ZYDIS_ISA_SET_SSE2 ||
			    z.meta.isa_set == ZYDIS_ISA_SET_SSE4 || z.meta.isa_set == ZYDIS_ISA_SET_SSSE3 ||
			    z.meta.isa_set == ZYDIS_ISA_SET_PENTIUMMMX || z.meta.isa_set == ZYDIS_ISA_SET_CMOV)
				what = "refused";
			else
				refused++;
		}
		if (!what)
			continue;
		if (failures++ < 20) {
			printf("FAIL %s: mode %u, ours %d length %u, Zydis %s length %u:", what, m == 0 ? 64 : m == 1 ? 32 : 16, res, i.len,
			       theirs ? ZydisMnemonicGetString(z.mnemonic) : "-", theirs ? z.length : 0);
			for (unsigned k = 0; k < 15; k++)
				printf(" %02x", p[k]);
			printf("\n");
		}
	}
	printf("seed %llu: %llu strings, %llu decoded by both, %llu outside of the model, %llu failures\n", (unsigned long long)seed,
	       (unsigned long long)cases, (unsigned long long)both, (unsigned long long)refused, (unsigned long long)failures);
	return failures ? 1 : 0;
}
