/* SPDX-License-Identifier: Apache-2.0 */
/* What must be equal, what may differ, and how a difference is shown. */
#include "compare.h"

#include <stdio.h>
#include <string.h>

#include "x86/cpu.h"
#include "x86/vec.h"

#define KERNEL_HALF 0x00007ffffffff000ull

static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
				      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

static void normalise(struct outcome *o)
{
	o->rflags &= ~(uint64_t)X86_FL_RF;
	if (o->vector != X86_PF)
		o->cr2 = 0;
	/* Linux reports faults on its own half of the address space as protection violations, whatever the tables say. */
	else if (o->cr2 >= KERNEL_HALF)
		o->error |= X86_PF_P;
}

void normalise_native(struct outcome *o)
{
	if (o->vector == X86_BP) {
		o->rip--; /* the INT3 behind the case */
		o->error = 0;
	} else if (o->vector == X86_PF && o->error & X86_PF_I && o->cr2 == o->rip && o->rip != CODE_START) {
		o->vector = X86_BP; /* a jump that completed, to where nothing can be fetched */
		o->error = 0;
	}
	normalise(o);
}

void normalise_soft(struct outcome *o)
{
	normalise(o);
}

static bool same(const struct test_case *t, const struct outcome *s, struct difference *d)
{
	const struct outcome *n = &t->native;
	d->what = NULL;
	if (n->vector != s->vector)
		d->what = "vector";
	else if (n->error != s->error)
		d->what = "error code";
	else if (n->cr2 != s->cr2)
		d->what = "fault address";
	else if (n->rip != s->rip)
		d->what = "rip";
	else if (memcmp(n->r, s->r, sizeof(n->r)))
		d->what = "registers";
	else if (n->rflags != s->rflags)
		d->what = "flags";
	else if (memcmp(n->win, s->win, sizeof(n->win)))
		d->what = "memory";
	else if (memcmp(n->fx.xmm, s->fx.xmm, sizeof(n->fx.xmm)))
		d->what = "xmm";
	else if (n->fx.mxcsr != s->fx.mxcsr)
		d->what = "mxcsr";
	else if (n->fx.fcw != s->fx.fcw)
		d->what = "x87 control";
	else if (n->fx.ftw != s->fx.ftw)
		d->what = "x87 tags";
	else if (n->fx.fsw != s->fx.fsw)
		d->what = "x87 status";
	else
		for (unsigned i = 0; i < 8; i++)
			if (memcmp(n->fx.st[i], s->fx.st[i], 10))
				d->what = "x87 registers";
	return !d->what;
}

/*
 * Where the architecture leaves a choice, or the software CPU's rule that a faulting instruction leaves no trace makes a difference,
 * the software CPU's outcome is made the host's:
 *
 *   rotates by more than one    OF is undefined, and the host's depends on the form of the instruction
 *   AAM and AAD                 OF, AF and CF are undefined
 *   67-prefixed string ops      whether the upper halves of rCX, rSI, rDI are cleared before the first iteration completes
 *   PUSHA and POPA, likewise
 *   16-bit addresses            whether an operand wraps at 64 KiB
 *   ENTER                       which of its stores faults first, and that the ones before it have been made
 *   stores of 10 bytes          the part before the page that faults has been written
 *   MMX, when faulting          TOP and tags have been changed already
 *   MASKMOV, when faulting      the address reported; with a mask of zeros, whether it faults
 *   DPPS, DPPD, when faulting   the flags: the host stops between multiplying and adding
 *   SIMD over- and underflow, unmasked    PE: it is about a result that nobody sees
 */
static unsigned family_in_32(const struct x86_insn *i)
{
	if (i->map != X86_MAP_1)
		return x86_vec_lookup(i) >= 0 ? FAM_SSE : FAM_MISC;
	switch (i->op) {
	case 0xc0: case 0xc1: case 0xd0 ... 0xd3:
		return FAM_SHIFT;
	case 0xa4 ... 0xa7: case 0xaa ... 0xaf:
		return FAM_STRING;
	case 0x60: case 0x61: case 0xc8:
		return FAM_STACK;
	case 0xd8 ... 0xdf:
		return FAM_X87;
	default:
		return FAM_MISC;
	}
}

static void allow(const struct test_case *t, struct outcome *s)
{
	const struct outcome *n = &t->native;
	struct x86_insn i;
	if (x86_decode(t->code, 15, t->mode32 ? X86_MODE_32 : X86_MODE_64, &i) != X86_DECODE_OK)
		return;
	const bool both_fault = n->vector != X86_BP && n->vector == s->vector;
	const bool memory = i.has_modrm && i.mod != 3;
	if (i.addrsize == 2 && both_fault && n->vector == X86_PF && (uint16_t)n->cr2 == (uint16_t)s->cr2)
		s->cr2 = n->cr2;
	switch (t->mode32 ? family_in_32(&i) : t->family) {
	case FAM_SHIFT:
		if (i.map == X86_MAP_1 && (i.reg & 7) < 4)
			s->rflags = (s->rflags & ~(uint64_t)X86_FL_OF) | (n->rflags & X86_FL_OF);
		break;
	case FAM_MISC:
		if (t->mode32 && i.map == X86_MAP_1 && (i.op & 0xfe) == 0xd4) {
			const uint64_t undefined = X86_FL_OF | X86_FL_AF | X86_FL_CF;
			s->rflags = (s->rflags & ~undefined) | (n->rflags & undefined);
		}
		break;
	case FAM_STRING:
		for (unsigned k = 0; k < 16 && i.addrsize == 4; k++)
			if ((k == X86_RCX || k == X86_RSI || k == X86_RDI) && n->r[k] == (uint32_t)s->r[k])
				s->r[k] = n->r[k];
		break;
	case FAM_STACK:
		if (i.op == 0xc8 && both_fault) {
			s->cr2 = n->cr2;
			s->error = n->error;
			memcpy(s->win, n->win, sizeof(s->win));
		}
		if ((i.op & 0xfe) == 0x60 && both_fault) {
			s->cr2 = n->cr2;
			s->error = n->error;
			memcpy(s->win, n->win, sizeof(s->win));
			memcpy(s->r, n->r, sizeof(s->r));
		}
		break;
	case FAM_X87:
		if (both_fault && memory && ((i.op == 0xdb && (i.reg & 7) == 7) || (i.op == 0xdf && (i.reg & 7) == 6)))
			memcpy(s->win, n->win, sizeof(s->win));
		break;
	case FAM_SSE: {
		const int row = x86_vec_lookup(&i);
		if (row < 0)
			break;
		const struct x86_vec_row *v = &x86_vec_table[row];
		if (both_fault && (v->reg == X86_VK_MM || v->rm == X86_VK_MM)) {
			s->fx.fsw = n->fx.fsw;
			s->fx.ftw = n->fx.ftw;
			memcpy(s->fx.st, n->fx.st, sizeof(s->fx.st));
		}
		if (both_fault && i.op == 0xf7 && n->vector == X86_PF) {
			s->cr2 = n->cr2;
			s->error = n->error;
		}
		if (both_fault && n->vector == X86_XM && i.map == X86_MAP_0F3A && (i.op & 0xfe) == 0x40)
			s->fx.mxcsr = n->fx.mxcsr;
		if (i.op == 0xf7 && n->vector == X86_PF && s->vector == X86_BP)
			*s = *n;
		if (both_fault && n->vector == X86_XM && n->fx.mxcsr & ~(n->fx.mxcsr >> 7) & 0x18)
			s->fx.mxcsr = (s->fx.mxcsr & ~0x20u) | (n->fx.mxcsr & 0x20);
		break;
	}
	}
}

bool compare(const struct test_case *t, struct outcome *s, struct difference *d)
{
	if (t->mode32)
		for (unsigned k = 0; k < 16; k++) /* what is above 32 bits is undefined in 32-bit mode */
			s->r[k] = (k < 8 ? s->r[k] & 0xffffffff : 0) | (t->native.r[k] & (k < 8 ? ~0xffffffffull : ~0ull));
	if (same(t, s, d))
		return true;
	allow(t, s);
	if (same(t, s, d))
		return true;
	struct x86_insn i;
	if (!host_is_amd() || t->family == FAM_SEQUENCE || x86_decode(t->code, 15, t->mode32 ? X86_MODE_32 : X86_MODE_64, &i) != X86_DECODE_OK)
		return false;
	if (vendor_incomparable(t->code, t->mode32, &i))
		return true;
	vendor_allow(t, &i, s);
	return same(t, s, d);
}

static void hex(const uint8_t *p, unsigned n)
{
	while (n--)
		printf("%02x", p[n]);
}

void print_outcomes(const struct test_case *t, const struct outcome *s)
{
	const struct outcome *n = &t->native;
	printf("  outcome: native vector %u error %x cr2 %llx rip %llx | soft vector %u error %x cr2 %llx rip %llx\n", n->vector, n->error,
	       (unsigned long long)n->cr2, (unsigned long long)n->rip, s->vector, s->error, (unsigned long long)s->cr2,
	       (unsigned long long)s->rip);
	for (unsigned i = 0; i < 16; i++)
		printf("  %-4s %016llx -> %016llx | %016llx%s\n", names[i], (unsigned long long)t->r[i], (unsigned long long)n->r[i],
		       (unsigned long long)s->r[i], n->r[i] == s->r[i] ? "" : "  <--");
	printf("  flags %llx -> %llx | %llx%s   boundary %llx\n", (unsigned long long)t->rflags, (unsigned long long)n->rflags,
	       (unsigned long long)s->rflags, n->rflags == s->rflags ? "" : "  <--", (unsigned long long)t->boundary);
	if (t->family == FAM_SSE || t->family == FAM_X87 || t->family == FAM_SEQUENCE) {
		for (unsigned i = 0; i < 16 && t->family != FAM_X87; i++) {
			printf("  xmm%-2u ", i);
			hex(t->fx.xmm[i], 16);
			if (memcmp(n->fx.xmm[i], s->fx.xmm[i], 16) || memcmp(t->fx.xmm[i], s->fx.xmm[i], 16)) {
				printf(" -> ");
				hex(n->fx.xmm[i], 16);
				printf(" | ");
				hex(s->fx.xmm[i], 16);
				printf("%s", memcmp(n->fx.xmm[i], s->fx.xmm[i], 16) ? "  <--" : "");
			}
			printf("\n");
		}
		for (unsigned i = 0; i < 8; i++) {
			printf("  st%u ", i);
			hex(t->fx.st[i], 10);
			printf(" -> ");
			hex(n->fx.st[i], 10);
			printf(" | ");
			hex(s->fx.st[i], 10);
			printf("%s\n", memcmp(n->fx.st[i], s->fx.st[i], 10) ? "  <--" : "");
		}
		printf("  mxcsr %x -> %x | %x   fcw %x -> %x | %x   fsw %x -> %x | %x   ftw %x -> %x | %x\n", t->fx.mxcsr, n->fx.mxcsr,
		       s->fx.mxcsr, t->fx.fcw, n->fx.fcw, s->fx.fcw, t->fx.fsw, n->fx.fsw, s->fx.fsw, t->fx.ftw, n->fx.ftw, s->fx.ftw);
	}
	unsigned shown = 0;
	for (unsigned i = 0; i < WINDOW && shown < 24; i++)
		if (n->win[i] != t->win[i] || s->win[i] != t->win[i]) {
			printf("  [%llx] %02x -> %02x | %02x%s\n", (unsigned long long)(t->boundary - WINDOW / 2 + i), t->win[i], n->win[i],
			       s->win[i], n->win[i] == s->win[i] ? "" : "  <--");
			shown++;
		}
}
