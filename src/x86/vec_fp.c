/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SSE floating point: arithmetic, comparisons, rounding, conversions.
 *
 * Theory of operation: the host's MXCSR holds the guest's rounding mode, FZ and DAZ with all exceptions masked (fpstate.c), so each function
 * is the instruction itself; sticky flags gather in the host's register. Scalars load and store only their own bytes and so leave the
 * rest of the destination alone.
 */
#include "x86/vec_fn.h"

#define SCALAR_BIN(name, T)                                                                                        \
	VEC_FN(name)                                                                                               \
	{                                                                                                          \
		T d = *(T *)dst;                                                                                   \
		__asm__(#name " %1, %0" : "+x"(d) : "m"(*(const T *)src));                                         \
		*(T *)dst = d;                                                                                     \
	}
#define SCALAR_UN(name, Td, Ts)                                                                                    \
	VEC_FN(name)                                                                                               \
	{                                                                                                          \
		Td d;                                                                                              \
		__asm__(#name " %1, %0" : "=x"(d) : "m"(*(const Ts *)src));                                        \
		*(Td *)dst = d;                                                                                    \
	}
#define ARITH(n) VEC_BIN(n##ps) VEC_BIN(n##pd) SCALAR_BIN(n##ss, vec_f32) SCALAR_BIN(n##sd, vec_f64)

ARITH(add)
ARITH(mul)
ARITH(sub)
ARITH(min)
ARITH(div)
ARITH(max)
VEC_UN16(sqrtps)
VEC_UN16(sqrtpd)
SCALAR_UN(sqrtss, vec_f32, vec_f32)
SCALAR_UN(sqrtsd, vec_f64, vec_f64)
VEC_UN16(rsqrtps)
VEC_UN16(rcpps)
SCALAR_UN(rsqrtss, vec_f32, vec_f32)
SCALAR_UN(rcpss, vec_f32, vec_f32)
VEC_BIN(andps)
VEC_BIN(andpd)
VEC_BIN(andnps)
VEC_BIN(andnpd)
VEC_BIN(orps)
VEC_BIN(orpd)
VEC_BIN(xorps)
VEC_BIN(xorpd)
VEC_BIN(haddps)
VEC_BIN(haddpd)
VEC_BIN(hsubps)
VEC_BIN(hsubpd)
VEC_BIN(addsubps)
VEC_BIN(addsubpd)

/* ZF, PF and CF say how the operands compare; OF, SF and AF are cleared. c->fl: SF ZF - AF - PF 1 CF above OF. */
#define COMPARE(name, T)                                                                                           \
	VEC_FN(name)                                                                                               \
	{                                                                                                          \
		const T d = *(const T *)dst;                                                                       \
		bool zf, pf, cf;                                                                                   \
		__asm__(#name " %4, %3" : "=@ccz"(zf), "=@ccp"(pf), "=@ccc"(cf) : "x"(d), "m"(*(const T *)src));   \
		c->fl = (uint16_t)(0x0200u | zf << 14 | pf << 10 | cf << 8);                                       \
	}
COMPARE(ucomiss, vec_f32)
COMPARE(ucomisd, vec_f64)
COMPARE(comiss, vec_f32)
COMPARE(comisd, vec_f64)

VEC_STUBS(cmpps, 8);
VEC_STUBS(cmppd, 8);
VEC_STUBS(cmpss, 8);
VEC_STUBS(cmpsd, 8);
VEC_STUBS(roundps, 16);
VEC_STUBS(roundpd, 16);
VEC_STUBS(roundss, 16);
VEC_STUBS(roundsd, 16);
VEC_STUBS(dpps, 256);
VEC_STUBS(dppd, 256);

static inline __m128i ld4(const void *p)
{
	return _mm_cvtsi32_si128((int)*(const vec_u32 *)p);
}
static inline __m128i ld8(const void *p)
{
	return _mm_loadl_epi64((const __m128i_u *)p);
}
static inline void st4(void *p, __m128i v)
{
	*(vec_u32 *)p = (uint32_t)_mm_cvtsi128_si32(v);
}
static inline void st8(void *p, __m128i v)
{
	*(vec_u64 *)p = (uint64_t)_mm_cvtsi128_si64(v);
}

#define STUB_FN(name, mask, load, store)                                                                           \
	VEC_FN(name)                                                                                               \
	{                                                                                                          \
		store(dst, VEC_STUB(name, imm & (mask))(load(dst), load(src)));                                    \
	}
STUB_FN(cmpps, 7, vec_ld, vec_st)
STUB_FN(cmppd, 7, vec_ld, vec_st)
STUB_FN(cmpss, 7, ld4, st4)
STUB_FN(cmpsd, 7, ld8, st8)
STUB_FN(roundps, 15, vec_ld, vec_st)
STUB_FN(roundpd, 15, vec_ld, vec_st)
STUB_FN(roundss, 15, ld4, st4)
STUB_FN(roundsd, 15, ld8, st8)
STUB_FN(dpps, 255, vec_ld, vec_st)
STUB_FN(dppd, 255, vec_ld, vec_st)

/* Conversions. To a general register: 64 bits are written. */
#define TO_INT(name, insn, Ts, Ti)                                                                                 \
	VEC_FN(name)                                                                                               \
	{                                                                                                          \
		Ti d;                                                                                              \
		__asm__(insn " %1, %0" : "=r"(d) : "m"(*(const Ts *)src));                                         \
		*(vec_u64 *)dst = d;                                                                               \
	}
TO_INT(cvttss2si, "cvttss2si", vec_f32, uint32_t)
TO_INT(cvttss2si64, "cvttss2si", vec_f32, uint64_t)
TO_INT(cvttsd2si, "cvttsd2si", vec_f64, uint32_t)
TO_INT(cvttsd2si64, "cvttsd2si", vec_f64, uint64_t)
TO_INT(cvtss2si, "cvtss2si", vec_f32, uint32_t)
TO_INT(cvtss2si64, "cvtss2si", vec_f32, uint64_t)
TO_INT(cvtsd2si, "cvtsd2si", vec_f64, uint32_t)
TO_INT(cvtsd2si64, "cvtsd2si", vec_f64, uint64_t)

#define FROM_INT(name, insn, Td, Ti)                                                                               \
	VEC_FN(name)                                                                                               \
	{                                                                                                          \
		Td d = 0;                                                                                          \
		const Ti s = *(const Ti *)src;                                                                     \
		__asm__(insn " %1, %0" : "+x"(d) : "r"(s));                                                        \
		*(Td *)dst = d;                                                                                    \
	}
FROM_INT(cvtsi2ss, "cvtsi2ssl", vec_f32, vec_u32)
FROM_INT(cvtsi2ss64, "cvtsi2ssq", vec_f32, vec_u64)
FROM_INT(cvtsi2sd, "cvtsi2sdl", vec_f64, vec_u32)
FROM_INT(cvtsi2sd64, "cvtsi2sdq", vec_f64, vec_u64)

SCALAR_UN(cvtss2sd, vec_f64, vec_f32)
SCALAR_UN(cvtsd2ss, vec_f32, vec_f64)
VEC_UN(cvtps2pd, vec_u64)
VEC_UN(cvtdq2pd, vec_u64)
VEC_UN16(cvtpd2ps)
VEC_UN16(cvtdq2ps)
VEC_UN16(cvtps2dq)
VEC_UN16(cvttps2dq)
VEC_UN16(cvttpd2dq)
VEC_UN16(cvtpd2dq)
