/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed integer instructions on MMX registers (SDM vol. 1 chapter 9), run as MMX instructions on the host.
 *
 * Theory of operation: the host's x87 stack is empty between operations (x87.c keeps it so), hence its registers are free to use
 * and EMMS gives them back. Tags, TOP and the exponent bits that the guest sees are set by the handlers in vec_ops.c.
 */
#include "x86/vec_fn.h"

/* T: what is read when the source is in memory (the low-half unpacks read 4 bytes). */
#define MMX_OP(name, T)                                                                                            \
	VEC_FN(mm_##name)                                                                                          \
	{                                                                                                          \
		__asm__ volatile("movq %0, %%mm0\n\t" #name " %1, %%mm0\n\tmovq %%mm0, %0\n\temms"                 \
				 : "+m"(*(vec_u64 *)dst)                                                           \
				 : "m"(*(const T *)src)                                                            \
				 : "mm0");                                                                         \
	}
#define MMX_BIN(name) MMX_OP(name, vec_u64)

MMX_OP(punpcklbw, vec_u32)
MMX_OP(punpcklwd, vec_u32)
MMX_OP(punpckldq, vec_u32)
MMX_BIN(punpckhbw)
MMX_BIN(punpckhwd)
MMX_BIN(punpckhdq)
MMX_BIN(packsswb)
MMX_BIN(packuswb)
MMX_BIN(packssdw)
MMX_BIN(pcmpgtb)
MMX_BIN(pcmpgtw)
MMX_BIN(pcmpgtd)
MMX_BIN(pcmpeqb)
MMX_BIN(pcmpeqw)
MMX_BIN(pcmpeqd)
MMX_BIN(psrlw)
MMX_BIN(psrld)
MMX_BIN(psrlq)
MMX_BIN(psraw)
MMX_BIN(psrad)
MMX_BIN(psllw)
MMX_BIN(pslld)
MMX_BIN(psllq)
MMX_BIN(paddb)
MMX_BIN(paddw)
MMX_BIN(paddd)
MMX_BIN(paddq)
MMX_BIN(paddsb)
MMX_BIN(paddsw)
MMX_BIN(paddusb)
MMX_BIN(paddusw)
MMX_BIN(psubb)
MMX_BIN(psubw)
MMX_BIN(psubd)
MMX_BIN(psubq)
MMX_BIN(psubsb)
MMX_BIN(psubsw)
MMX_BIN(psubusb)
MMX_BIN(psubusw)
MMX_BIN(pmullw)
MMX_BIN(pmulhw)
MMX_BIN(pmulhuw)
MMX_BIN(pmulhrsw)
MMX_BIN(pmuludq)
MMX_BIN(pmaddwd)
MMX_BIN(pmaddubsw)
MMX_BIN(psadbw)
MMX_BIN(pavgb)
MMX_BIN(pavgw)
MMX_BIN(pminub)
MMX_BIN(pminsw)
MMX_BIN(pmaxub)
MMX_BIN(pmaxsw)
MMX_BIN(pand)
MMX_BIN(pandn)
MMX_BIN(por)
MMX_BIN(pxor)
MMX_BIN(pshufb)
MMX_BIN(phaddw)
MMX_BIN(phaddd)
MMX_BIN(phaddsw)
MMX_BIN(phsubw)
MMX_BIN(phsubd)
MMX_BIN(phsubsw)
MMX_BIN(psignb)
MMX_BIN(psignw)
MMX_BIN(psignd)
MMX_BIN(pabsb)
MMX_BIN(pabsw)
MMX_BIN(pabsd)

#define MMX_SHIFT_IMM(name)                                                                                        \
	VEC_FN(mm_##name##_i)                                                                                      \
	{                                                                                                          \
		const vec_u64 count = imm;                                                                         \
		x86_v_mm_##name(c, dst, &count, 0);                                                                \
	}
MMX_SHIFT_IMM(psrlw)
MMX_SHIFT_IMM(psrld)
MMX_SHIFT_IMM(psrlq)
MMX_SHIFT_IMM(psraw)
MMX_SHIFT_IMM(psrad)
MMX_SHIFT_IMM(psllw)
MMX_SHIFT_IMM(pslld)
MMX_SHIFT_IMM(psllq)

VEC_FN(mm_pmovmskb)
{
	const uint64_t v = *(const vec_u64 *)src;
	*(vec_u64 *)dst = (unsigned)_mm_movemask_epi8(_mm_cvtsi64_si128((long long)v));
}

VEC_FN(pshufw)
{
	const uint64_t v = *(const vec_u64 *)src;
	uint64_t r = 0;
	for (unsigned i = 0; i < 4; i++)
		r |= (v >> (imm >> 2 * i & 3) * 16 & 0xffff) << 16 * i;
	*(vec_u64 *)dst = r;
}

VEC_FN(mm_pinsrw)
{
	memcpy((uint8_t *)dst + (imm & 3) * 2, src, 2);
}

VEC_FN(mm_pextrw)
{
	*(vec_u64 *)dst = ((const vec_u16 *)src)[imm & 3];
}

VEC_FN(mm_palignr)
{
	uint8_t b[24] = {0};
	memcpy(b, src, 8);
	memcpy(b + 8, dst, 8);
	memcpy(dst, b + (imm > 16 ? 16 : imm), 8);
}

/* Conversions between MMX integers and XMM floating point. */
#define MMX_FROM_XMM(name, load)                                                                                   \
	VEC_FN(name)                                                                                               \
	{                                                                                                          \
		const __m128i s = load;                                                                            \
		uint64_t r;                                                                                        \
		__asm__ volatile(#name " %1, %%mm0\n\tmovq %%mm0, %0\n\temms" : "=m"(r) : "x"(s) : "mm0");         \
		*(vec_u64 *)dst = r;                                                                               \
	}
MMX_FROM_XMM(cvtps2pi, _mm_loadl_epi64((const __m128i_u *)src))
MMX_FROM_XMM(cvttps2pi, _mm_loadl_epi64((const __m128i_u *)src))
MMX_FROM_XMM(cvtpd2pi, vec_ld(src))
MMX_FROM_XMM(cvttpd2pi, vec_ld(src))

VEC_FN(cvtpi2ps)
{
	__m128i d = _mm_setzero_si128();
	__asm__ volatile("movq %1, %%mm0\n\tcvtpi2ps %%mm0, %0\n\temms" : "+x"(d) : "m"(*(const vec_u64 *)src) : "mm0");
	*(vec_u64 *)dst = (uint64_t)_mm_cvtsi128_si64(d);
}

VEC_FN(cvtpi2pd)
{
	__m128i d;
	__asm__("cvtdq2pd %1, %0" : "=x"(d) : "m"(*(const vec_u64 *)src));
	vec_st(dst, d);
}
