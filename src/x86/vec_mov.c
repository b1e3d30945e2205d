/* SPDX-License-Identifier: Apache-2.0 */
/* Vector moves: loads, stores, halves and duplicates. `z` clears the rest of the register. */
#include "x86/vec_fn.h"

VEC_FN(mov16)
{
	vec_st(dst, vec_ld(src));
}

VEC_FN(mov8)
{
	*(vec_u64 *)dst = *(const vec_u64 *)src;
}

VEC_FN(mov4)
{
	*(vec_u32 *)dst = *(const vec_u32 *)src;
}

VEC_FN(mov8z)
{
	vec_st(dst, _mm_loadl_epi64((const __m128i_u *)src));
}

VEC_FN(mov4z)
{
	vec_st(dst, _mm_cvtsi32_si128((int)*(const vec_u32 *)src));
}

VEC_FN(mov4_to_8)
{
	*(vec_u64 *)dst = *(const vec_u32 *)src;
}

VEC_FN(mov_to_high)
{
	((vec_u64 *)dst)[1] = *(const vec_u64 *)src;
}

VEC_FN(mov_high_to_low)
{
	*(vec_u64 *)dst = ((const vec_u64 *)src)[1];
}

VEC_FN(movddup)
{
	const __m128i v = _mm_loadl_epi64((const __m128i_u *)src);
	vec_st(dst, _mm_unpacklo_epi64(v, v));
}

VEC_UN16(movsldup)
VEC_UN16(movshdup)

VEC_FN(movmskps)
{
	*(vec_u64 *)dst = (unsigned)_mm_movemask_ps(_mm_castsi128_ps(vec_ld(src)));
}

VEC_FN(movmskpd)
{
	*(vec_u64 *)dst = (unsigned)_mm_movemask_pd(_mm_castsi128_pd(vec_ld(src)));
}

VEC_FN(pmovmskb)
{
	*(vec_u64 *)dst = (unsigned)_mm_movemask_epi8(vec_ld(src));
}
