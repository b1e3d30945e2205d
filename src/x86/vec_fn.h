/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to vec_*.c: how row functions are written.
 *
 * A row function reads exactly the row's `mem_bytes` from src and, in a store form, writes exactly that many to dst, because
 * either may point straight at guest memory (unaligned, at the end of a page). A general register as destination is
 * written as 64 bits. What can round, trap or propagate a NaN is one host instruction with dst and src in the guest's order; compilers may commute
 * the operands of their intrinsics, so these are in assembly.
 */
#ifndef X86_VEC_FN_H
#define X86_VEC_FN_H

#include <emmintrin.h>
#include <string.h>

#include "x86/vec.h"

#define ROW(id, map, op, pfx, cond, fn, reg, rm, bytes, flags) x86_vec_fn x86_v_##fn;
#define MORE ROW
#include "x86/vec_rows.def"

#define VEC_FN(name) void x86_v_##name(struct x86_cpu *c, void *dst, const void *src, unsigned imm)

typedef uint8_t vec_u8 __attribute__((may_alias));
typedef uint16_t vec_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t vec_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t vec_u64 __attribute__((aligned(1), may_alias));
typedef float vec_f32 __attribute__((aligned(1), may_alias));
typedef double vec_f64 __attribute__((aligned(1), may_alias));

static inline __m128i vec_ld(const void *p)
{
	return _mm_loadu_si128((const __m128i_u *)p);
}
static inline void vec_st(void *p, __m128i v)
{
	_mm_storeu_si128((__m128i_u *)p, v);
}

/* dst = dst op src on 16 bytes. */
#define VEC_BIN(name)                                                                                              \
	VEC_FN(name)                                                                                               \
	{                                                                                                          \
		__m128i d = vec_ld(dst);                                                                           \
		const __m128i s = vec_ld(src);                                                                     \
		__asm__(#name " %1, %0" : "+x"(d) : "x"(s));                                                       \
		vec_st(dst, d);                                                                                    \
	}
/* dst = op src; loads n bytes through type T. */
#define VEC_UN(name, T)                                                                                            \
	VEC_FN(name)                                                                                               \
	{                                                                                                          \
		__m128i d;                                                                                         \
		__asm__(#name " %1, %0" : "=x"(d) : "m"(*(const T *)src));                                         \
		vec_st(dst, d);                                                                                    \
	}
#define VEC_UN16(name)                                                                                             \
	VEC_FN(name)                                                                                               \
	{                                                                                                          \
		__m128i d;                                                                                         \
		const __m128i s = vec_ld(src);                                                                     \
		__asm__(#name " %1, %0" : "=x"(d) : "x"(s));                                                       \
		vec_st(dst, d);                                                                                    \
	}

/* C functions of 256 (or fewer) immediates: code stubs 8 bytes apart, `insn $imm, %xmm1, %xmm0; ret`, which is exactly a function
 * __m128i (*)(__m128i, __m128i) of the System V ABI. */
typedef __m128i vec_stub(__m128i a, __m128i b);
#define VEC_STUBS(name, count)                                                                                     \
	extern const char x86_stub_##name[] __attribute__((visibility("hidden")));                                 \
	__asm__(".pushsection .text\n\t.balign 16\n\t.hidden x86_stub_" #name "\n\t.globl x86_stub_" #name "\nx86_stub_" #name    \
		":\n\t.set x86_stub_i, 0\n\t.rept " #count "\n\t.balign 8\n\t" #name                               \
		" $x86_stub_i, %xmm1, %xmm0\n\tret\n\t.set x86_stub_i, x86_stub_i + 1\n\t.endr\n\t.popsection")
#define VEC_STUB(name, imm) ((vec_stub *)(uintptr_t)(x86_stub_##name + (size_t)(imm) * 8))

#endif
