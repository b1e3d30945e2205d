/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM vol. 2, section 4.1).
 *
 * Theory of operation: the immediate is part of the instruction, so there is one code stub for each of the 128 that differ (bit 7 does not
 * matter), called as a C function. Lengths beyond the element count mean the same as the count, so 64-bit lengths are
 * cut down to what the 32-bit form takes.
 */
#include "x86/vec_fn.h"

/* Stubs are 32 bytes apart. The index forms return ECX in bits 0-31 and RFLAGS in bits 32-63; the mask forms return XMM0 and leave
 * RFLAGS in *flags (rdx, moved to r8 because the instruction takes a length there). */
#define STR_STUBS(name, before, after)                                                                             \
	extern const char x86_stub_##name[] __attribute__((visibility("hidden")));                                 \
	__asm__(".pushsection .text\n\t.balign 32\n\t.hidden x86_stub_" #name "\n\t.globl x86_stub_" #name "\nx86_stub_" #name    \
		":\n\t.set x86_stub_i, 0\n\t.rept 128\n\t.balign 32\n\t" before #name                              \
		" $x86_stub_i, %xmm1, %xmm0\n\t" after "ret\n\t.set x86_stub_i, x86_stub_i + 1\n\t.endr\n\t.popsection")
#define LENGTHS "movl %edi, %eax\n\tmovl %esi, %edx\n\t"
#define INDEX   "pushfq\n\tpopq %rax\n\tshlq $32, %rax\n\torq %rcx, %rax\n\t"
#define MASK    "pushfq\n\tpopq (%r8)\n\t"

STR_STUBS(pcmpestri, LENGTHS, INDEX);
STR_STUBS(pcmpistri, "", INDEX);
STR_STUBS(pcmpestrm, "movq %rdx, %r8\n\t" LENGTHS, MASK);
STR_STUBS(pcmpistrm, "movq %rdx, %r8\n\t", MASK);

typedef uint64_t index_stub(__m128i a, __m128i b, int la, int lb);
typedef __m128i mask_stub(__m128i a, __m128i b, int la, int lb, uint64_t *flags);
/* Integer arguments come in edi, esi, rdx in both. */
#define STR_STUB(T, name) ((T *)(uintptr_t)(x86_stub_##name + (size_t)(imm & 127) * 32))

static void set_flags(struct x86_cpu *c, uint64_t f)
{
	c->fl = (uint16_t)((f & 0xd5) << 8 | 0x0200u | (f >> 11 & 1));
}

static int clip(int64_t len)
{
	return len > 100 ? 100 : len < -100 ? -100 : (int)len;
}

static void estri(struct x86_cpu *c, const void *dst, const void *src, unsigned imm, int la, int lb)
{
	const uint64_t r = STR_STUB(index_stub, pcmpestri)(vec_ld(dst), vec_ld(src), la, lb);
	c->r[X86_RCX] = (uint32_t)r;
	set_flags(c, r >> 32);
}
VEC_FN(pcmpestri)
{
	estri(c, dst, src, imm, clip((int32_t)c->r[X86_RAX]), clip((int32_t)c->r[X86_RDX]));
}
VEC_FN(pcmpestri64)
{
	estri(c, dst, src, imm, clip((int64_t)c->r[X86_RAX]), clip((int64_t)c->r[X86_RDX]));
}

static void estrm(struct x86_cpu *c, const void *dst, const void *src, unsigned imm, int la, int lb)
{
	uint64_t f;
	const __m128i r = STR_STUB(mask_stub, pcmpestrm)(vec_ld(dst), vec_ld(src), la, lb, &f);
	vec_st(&c->xmm[0], r);
	set_flags(c, f);
}
VEC_FN(pcmpestrm)
{
	estrm(c, dst, src, imm, clip((int32_t)c->r[X86_RAX]), clip((int32_t)c->r[X86_RDX]));
}
VEC_FN(pcmpestrm64)
{
	estrm(c, dst, src, imm, clip((int64_t)c->r[X86_RAX]), clip((int64_t)c->r[X86_RDX]));
}

VEC_FN(pcmpistri)
{
	const uint64_t r = STR_STUB(index_stub, pcmpistri)(vec_ld(dst), vec_ld(src), 0, 0);
	c->r[X86_RCX] = (uint32_t)r;
	set_flags(c, r >> 32);
}
VEC_FN(pcmpistrm)
{
	uint64_t f;
	const __m128i r = STR_STUB(mask_stub, pcmpistrm)(vec_ld(dst), vec_ld(src), 0, 0, &f);
	vec_st(&c->xmm[0], r);
	set_flags(c, f);
}
