/* SPDX-License-Identifier: Apache-2.0 */
/* Shuffles, blends, insertions and extractions on XMM registers: nothing here rounds or raises. */
#include "x86/vec_fn.h"

VEC_BIN(unpcklps)
VEC_BIN(unpcklpd)
VEC_BIN(unpckhps)
VEC_BIN(unpckhpd)

/* The shuffles that compilers emit all the time get one host instruction for each immediate. */
VEC_STUBS(pshufd, 256);
VEC_STUBS(pshufhw, 256);
VEC_STUBS(pshuflw, 256);
VEC_STUBS(shufps, 256);
VEC_STUBS(mpsadbw, 8);

VEC_FN(pshufd)
{
	const __m128i s = vec_ld(src);
	vec_st(dst, VEC_STUB(pshufd, imm)(s, s));
}
VEC_FN(pshufhw)
{
	const __m128i s = vec_ld(src);
	vec_st(dst, VEC_STUB(pshufhw, imm)(s, s));
}
VEC_FN(pshuflw)
{
	const __m128i s = vec_ld(src);
	vec_st(dst, VEC_STUB(pshuflw, imm)(s, s));
}
VEC_FN(shufps)
{
	vec_st(dst, VEC_STUB(shufps, imm)(vec_ld(dst), vec_ld(src)));
}
VEC_FN(mpsadbw)
{
	vec_st(dst, VEC_STUB(mpsadbw, imm & 7)(vec_ld(dst), vec_ld(src)));
}

VEC_FN(shufpd)
{
	union x86_vec d, s;
	memcpy(&d, dst, 16);
	memcpy(&s, src, 16);
	vec_st(dst, _mm_set_epi64x(s.sq[imm >> 1 & 1], d.sq[imm & 1]));
}

/* Takes from src the elements whose bit of imm is set. */
static inline void blend(void *dst, const void *src, unsigned imm, unsigned elements)
{
	uint8_t s[16];
	memcpy(s, src, 16);
	const unsigned size = 16 / elements;
	for (unsigned i = 0; i < elements; i++)
		if (imm >> i & 1)
			memcpy((uint8_t *)dst + i * size, s + i * size, size);
}
VEC_FN(blendps)
{
	blend(dst, src, imm, 4);
}
VEC_FN(blendpd)
{
	blend(dst, src, imm, 2);
}
VEC_FN(pblendw)
{
	blend(dst, src, imm, 8);
}

/* The mask is XMM0, implicitly. */
#define BLENDV(name)                                                                                               \
	VEC_FN(name)                                                                                               \
	{                                                                                                          \
		__m128i d = vec_ld(dst);                                                                           \
		const __m128i s = vec_ld(src), mask = vec_ld(&c->xmm[0]);                                          \
		__asm__(#name " %%xmm0, %1, %0" : "+x"(d) : "x"(s), "Yz"(mask));                                   \
		vec_st(dst, d);                                                                                    \
	}
BLENDV(pblendvb)
BLENDV(blendvps)
BLENDV(blendvpd)

VEC_FN(palignr)
{
	uint8_t b[48] = {0};
	memcpy(b, src, 16);
	memcpy(b + 16, dst, 16);
	memcpy(dst, b + (imm > 32 ? 32 : imm), 16);
}

VEC_FN(pinsrb)
{
	((vec_u8 *)dst)[imm & 15] = *(const vec_u8 *)src;
}
VEC_FN(pinsrw)
{
	((vec_u16 *)dst)[imm & 7] = *(const vec_u16 *)src;
}
VEC_FN(pinsrd)
{
	((vec_u32 *)dst)[imm & 3] = *(const vec_u32 *)src;
}
VEC_FN(pinsrq)
{
	((vec_u64 *)dst)[imm & 1] = *(const vec_u64 *)src;
}

VEC_FN(pextrb)
{
	*(vec_u64 *)dst = ((const vec_u8 *)src)[imm & 15];
}
VEC_FN(pextrw)
{
	*(vec_u64 *)dst = ((const vec_u16 *)src)[imm & 7];
}
VEC_FN(pextrd)
{
	*(vec_u64 *)dst = ((const vec_u32 *)src)[imm & 3];
}
VEC_FN(pextrq)
{
	*(vec_u64 *)dst = ((const vec_u64 *)src)[imm & 1];
}
VEC_FN(pextrb_st)
{
	*(vec_u8 *)dst = ((const vec_u8 *)src)[imm & 15];
}
VEC_FN(pextrw_st)
{
	*(vec_u16 *)dst = ((const vec_u16 *)src)[imm & 7];
}
VEC_FN(pextrd_st)
{
	*(vec_u32 *)dst = ((const vec_u32 *)src)[imm & 3];
}

static inline void insertps(void *dst, uint32_t v, unsigned imm)
{
	vec_u32 *d = dst;
	d[imm >> 4 & 3] = v;
	for (unsigned i = 0; i < 4; i++)
		if (imm >> i & 1)
			d[i] = 0;
}
VEC_FN(insertps)
{
	insertps(dst, ((const vec_u32 *)src)[imm >> 6 & 3], imm);
}
VEC_FN(insertps_ld)
{
	insertps(dst, *(const vec_u32 *)src, imm);
}
