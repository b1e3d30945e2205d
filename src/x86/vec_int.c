/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed integer instructions on XMM registers (SSE2 to SSE4.2).
 *
 * Theory of operation: each function is the instruction itself, on the host's unit. Shifts by an immediate use the form that takes the
 * count from a register, which means the same for every count.
 */
#include "x86/vec_fn.h"

VEC_BIN(punpcklbw)
VEC_BIN(punpcklwd)
VEC_BIN(punpckldq)
VEC_BIN(punpcklqdq)
VEC_BIN(punpckhbw)
VEC_BIN(punpckhwd)
VEC_BIN(punpckhdq)
VEC_BIN(punpckhqdq)
VEC_BIN(packsswb)
VEC_BIN(packuswb)
VEC_BIN(packssdw)
VEC_BIN(packusdw)
VEC_BIN(pcmpgtb)
VEC_BIN(pcmpgtw)
VEC_BIN(pcmpgtd)
VEC_BIN(pcmpgtq)
VEC_BIN(pcmpeqb)
VEC_BIN(pcmpeqw)
VEC_BIN(pcmpeqd)
VEC_BIN(pcmpeqq)
VEC_BIN(psrlw)
VEC_BIN(psrld)
VEC_BIN(psrlq)
VEC_BIN(psraw)
VEC_BIN(psrad)
VEC_BIN(psllw)
VEC_BIN(pslld)
VEC_BIN(psllq)
VEC_BIN(paddb)
VEC_BIN(paddw)
VEC_BIN(paddd)
VEC_BIN(paddq)
VEC_BIN(paddsb)
VEC_BIN(paddsw)
VEC_BIN(paddusb)
VEC_BIN(paddusw)
VEC_BIN(psubb)
VEC_BIN(psubw)
VEC_BIN(psubd)
VEC_BIN(psubq)
VEC_BIN(psubsb)
VEC_BIN(psubsw)
VEC_BIN(psubusb)
VEC_BIN(psubusw)
VEC_BIN(pmullw)
VEC_BIN(pmulld)
VEC_BIN(pmulhw)
VEC_BIN(pmulhuw)
VEC_BIN(pmulhrsw)
VEC_BIN(pmuludq)
VEC_BIN(pmuldq)
VEC_BIN(pmaddwd)
VEC_BIN(pmaddubsw)
VEC_BIN(psadbw)
VEC_BIN(pavgb)
VEC_BIN(pavgw)
VEC_BIN(pminub)
VEC_BIN(pminuw)
VEC_BIN(pminud)
VEC_BIN(pminsb)
VEC_BIN(pminsw)
VEC_BIN(pminsd)
VEC_BIN(pmaxub)
VEC_BIN(pmaxuw)
VEC_BIN(pmaxud)
VEC_BIN(pmaxsb)
VEC_BIN(pmaxsw)
VEC_BIN(pmaxsd)
VEC_BIN(pand)
VEC_BIN(pandn)
VEC_BIN(por)
VEC_BIN(pxor)
VEC_BIN(pshufb)
VEC_BIN(phaddw)
VEC_BIN(phaddd)
VEC_BIN(phaddsw)
VEC_BIN(phsubw)
VEC_BIN(phsubd)
VEC_BIN(phsubsw)
VEC_BIN(psignb)
VEC_BIN(psignw)
VEC_BIN(psignd)
VEC_UN16(pabsb)
VEC_UN16(pabsw)
VEC_UN16(pabsd)
VEC_UN16(phminposuw)
VEC_UN(pmovsxbw, vec_u64)
VEC_UN(pmovsxbd, vec_u32)
VEC_UN(pmovsxbq, vec_u16)
VEC_UN(pmovsxwd, vec_u64)
VEC_UN(pmovsxwq, vec_u32)
VEC_UN(pmovsxdq, vec_u64)
VEC_UN(pmovzxbw, vec_u64)
VEC_UN(pmovzxbd, vec_u32)
VEC_UN(pmovzxbq, vec_u16)
VEC_UN(pmovzxwd, vec_u64)
VEC_UN(pmovzxwq, vec_u32)
VEC_UN(pmovzxdq, vec_u64)

/* PTEST's ZF and CF; the other four are cleared. c->fl has CF in bit 8, ZF in bit 14, the fixed 1 in bit 9 (SAHF's order). */
VEC_FN(ptest)
{
	const __m128i d = vec_ld(dst), s = vec_ld(src);
	bool zf, cf;
	__asm__("ptest %3, %2" : "=@ccz"(zf), "=@ccc"(cf) : "x"(d), "x"(s));
	c->fl = (uint16_t)(0x0200u | zf << 14 | cf << 8);
}

#define SHIFT_IMM(name)                                                                                            \
	VEC_FN(name##_i)                                                                                           \
	{                                                                                                          \
		__m128i d = vec_ld(dst);                                                                           \
		const __m128i n = _mm_cvtsi32_si128((int)imm);                                                     \
		__asm__(#name " %1, %0" : "+x"(d) : "x"(n));                                                       \
		vec_st(dst, d);                                                                                    \
	}
SHIFT_IMM(psrlw)
SHIFT_IMM(psrld)
SHIFT_IMM(psrlq)
SHIFT_IMM(psraw)
SHIFT_IMM(psrad)
SHIFT_IMM(psllw)
SHIFT_IMM(pslld)
SHIFT_IMM(psllq)

VEC_FN(psrldq_i)
{
	const __m128i v = vec_ld(dst);
	uint8_t b[32] = {0};
	memcpy(b, &v, 16);
	vec_st(dst, vec_ld(b + (imm > 16 ? 16 : imm)));
}

VEC_FN(pslldq_i)
{
	const __m128i v = vec_ld(dst);
	uint8_t b[32] = {0};
	memcpy(b + 16, &v, 16);
	vec_st(dst, vec_ld(b + 16 - (imm > 16 ? 16 : imm)));
}
