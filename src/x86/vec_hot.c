/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of their own for the vector instructions that programs execute most (vec_hot.def).
 *
 * Theory of operation: the fields of the operation are those of the general handlers in vec_ops.c, so the slow tier's handlers here
 * are those; the fast tier's do the one instruction in place, without the call through the row.
 */
#include "x86/op.h"
#include "x86/vec_fn.h"

#if !X86_TIER_FAST

x86_handler x86_slow_vec_rr, x86_slow_vec_rm, x86_slow_vec_mr, x86_slow_vec_xmi, x86_slow_vec_mxi;

#define FORWARD(name, to)                                                                                          \
	HANDLER(vh_##name)                                                                                         \
	{                                                                                                          \
		return x86_slow_##to(c, u, table);                                                                 \
	}
#define XX(row)   FORWARD(row##_xx, vec_rr)
#define XM(row)   FORWARD(row##_xm, vec_rm)
#define XMI(row)  FORWARD(row##_xmi, vec_xmi)
#define MX(row)   FORWARD(row##_mx, vec_mr)
#define MXI(row)  FORWARD(row##_mxi, vec_mxi)
#define HOT_BIN(row)           XX(row) XM(row)
#define HOT_SCALAR(row, T)     XX(row) XM(row) XMI(row)
#define HOT_CONVERT(row, D, S) XX(row) XM(row)
#define HOT_COMPARE(row, T)    XX(row) XM(row)
#include "x86/vec_hot.def"
XM(ld16) XMI(ld16) XM(ld16a) XMI(ld16a) XM(ld8z) XMI(ld8z) XM(ld4z) XMI(ld4z) XM(ld8lo) XMI(ld8lo) XM(ld8hi) XMI(ld8hi)
MX(st16) MXI(st16) MX(st16a) MXI(st16a) MX(st8) MXI(st8) MX(st4) MXI(st4) MX(st8hi) MXI(st8hi)
#define RR(name) FORWARD(name, vec_rr)
RR(mov16) RR(mov8z) RR(mov8) RR(mov4) RR(movd_xr) RR(movq_xr) RR(movd_rx) RR(movq_rx) RR(pmovmskb_rx) RR(pshufd_xx) RR(cvtsi2sd_xr)
RR(cvtsi2sd64_xr) RR(cvtsi2ss_xr) RR(cvtsi2ss64_xr) RR(cvttsd2si_rx) RR(cvttsd2si64_rx) RR(cvttss2si_rx) RR(movhlps_xx) RR(movlhps_xx)

#else

#define D (&c->xmm[u->dst])
#define S (&c->xmm[u->src])

/* A register form: nothing can go wrong but what fp_trap tells. */
#define REG_FORM(name, body)                                                                                       \
	HANDLER(vh_##name)                                                                                         \
	{                                                                                                          \
		if (unlikely(c->fp_trap))                                                                          \
			return x86_go_slow(c, u, table);                                                           \
		body;                                                                                              \
		NEXT();                                                                                            \
	}
/* A memory form of n bytes at ea, whose linear address has the bits of `align` clear; p is the host pointer. */
#define MEM_FORM(name, tag, n, align, EA, body)                                                                    \
	HANDLER(vh_##name)                                                                                         \
	{                                                                                                          \
		const uint64_t ea = EA;                                                                            \
		const struct x86_tlb_entry *te = &c->tlb[X86_TLB_INDEX(ea)];                                       \
		if (unlikely(te->tag != X86_TLB_MATCH(ea, n) || ea & (align) || c->fp_trap))                       \
			return x86_go_slow(c, u, table);                                                           \
		uint8_t *p = (uint8_t *)(ea + (uint64_t)te->add);                                                  \
		body;                                                                                              \
		NEXT();                                                                                            \
	}

#define BIN(insn, src)                                                                                             \
	__m128i d = vec_ld(D);                                                                                     \
	const __m128i s = vec_ld(src);                                                                             \
	__asm__(insn " %1, %0" : "+x"(d) : "x"(s));                                                                \
	vec_st(D, d)
#define HOT_BIN(row)                                                                                               \
	REG_FORM(row##_xx, BIN(#row, S))                                                                           \
	MEM_FORM(row##_xm, tag_r, 16, 15, EA0(), BIN(#row, p))

#define SCALAR(insn, T, src)                                                                                       \
	T d = *(T *)D;                                                                                             \
	__asm__(insn " %1, %0" : "+x"(d) : "m"(*(const T *)(src)));                                                \
	*(T *)D = d
#define HOT_SCALAR(row, T)                                                                                         \
	REG_FORM(row##_xx, SCALAR(#row, T, S))                                                                     \
	MEM_FORM(row##_xm, tag_r, sizeof(T), 0, EA0(), SCALAR(#row, T, p))                                         \
	MEM_FORM(row##_xmi, tag_r, sizeof(T), 0, EA1(), SCALAR(#row, T, p))

/* The destination register is cleared first: the instruction would otherwise wait for its last value. */
#define CONVERT(insn, Td, Ts, src)                                                                                 \
	Td d = 0;                                                                                                  \
	__asm__(insn " %1, %0" : "+x"(d) : "m"(*(const Ts *)(src)));                                               \
	*(Td *)D = d
#define HOT_CONVERT(row, Td, Ts)                                                                                   \
	REG_FORM(row##_xx, CONVERT(#row, Td, Ts, S))                                                               \
	MEM_FORM(row##_xm, tag_r, sizeof(Ts), 0, EA0(), CONVERT(#row, Td, Ts, p))

#define COMPARE(insn, T, src)                                                                                      \
	const T d = *(const T *)D;                                                                                 \
	uint32_t ax;                                                                                               \
	__asm__(insn " %2, %1\n\tlahf\n\tmovb $0, %%al" : "=&a"(ax) : "x"(d), "m"(*(const T *)(src)) : "cc");      \
	c->fl = (uint16_t)ax
#define HOT_COMPARE(row, T)                                                                                        \
	REG_FORM(row##_xx, COMPARE(#row, T, S))                                                                    \
	MEM_FORM(row##_xm, tag_r, sizeof(T), 0, EA0(), COMPARE(#row, T, p))
#include "x86/vec_hot.def"

#define LOAD_FORMS(name, n, align, body)                                                                           \
	MEM_FORM(name##_xm, tag_r, n, align, EA0(), body)                                                          \
	MEM_FORM(name##_xmi, tag_r, n, align, EA1(), body)
#define STORE_FORMS(name, n, align, body)                                                                          \
	MEM_FORM(name##_mx, tag_w, n, align, EA0(), body)                                                          \
	MEM_FORM(name##_mxi, tag_w, n, align, EA1(), body)

LOAD_FORMS(ld16, 16, 0, vec_st(D, vec_ld(p)))
LOAD_FORMS(ld16a, 16, 15, vec_st(D, vec_ld(p)))
LOAD_FORMS(ld8z, 8, 0, vec_st(D, _mm_loadl_epi64((const __m128i_u *)p)))
LOAD_FORMS(ld4z, 4, 0, vec_st(D, _mm_cvtsi32_si128((int)*(const vec_u32 *)p)))
LOAD_FORMS(ld8lo, 8, 0, D->q[0] = *(const vec_u64 *)p)
LOAD_FORMS(ld8hi, 8, 0, D->q[1] = *(const vec_u64 *)p)
STORE_FORMS(st16, 16, 0, vec_st(p, vec_ld(S)))
STORE_FORMS(st16a, 16, 15, vec_st(p, vec_ld(S)))
STORE_FORMS(st8, 8, 0, *(vec_u64 *)p = S->q[0])
STORE_FORMS(st4, 4, 0, *(vec_u32 *)p = S->d[0])
STORE_FORMS(st8hi, 8, 0, *(vec_u64 *)p = S->q[1])

REG_FORM(mov16, vec_st(D, vec_ld(S)))
REG_FORM(mov8z, vec_st(D, _mm_loadl_epi64((const __m128i_u *)S)))
REG_FORM(mov8, D->q[0] = S->q[0])
REG_FORM(mov4, D->d[0] = S->d[0])
REG_FORM(movhlps_xx, D->q[0] = S->q[1])
REG_FORM(movlhps_xx, D->q[1] = S->q[0])
REG_FORM(movd_xr, vec_st(D, _mm_cvtsi32_si128((int)c->r[u->src])))
REG_FORM(movq_xr, vec_st(D, _mm_cvtsi64_si128((long long)c->r[u->src])))
REG_FORM(movd_rx, c->r[u->dst] = S->d[0])
REG_FORM(movq_rx, c->r[u->dst] = S->q[0])
REG_FORM(pmovmskb_rx, c->r[u->dst] = (unsigned)_mm_movemask_epi8(vec_ld(S)))

extern const char x86_stub_pshufd[] __attribute__((visibility("hidden")));
REG_FORM(pshufd_xx, const __m128i s = vec_ld(S); vec_st(D, VEC_STUB(pshufd, (uint8_t)u->imm)(s, s)))

#define FROM_INT(insn, Td, T)                                                                                      \
	Td d = 0;                                                                                                  \
	const T s = (T)c->r[u->src];                                                                               \
	__asm__(insn " %1, %0" : "+x"(d) : "r"(s));                                                                \
	*(Td *)D = d
#define TO_INT(insn, Ts, T)                                                                                        \
	T d;                                                                                                       \
	__asm__(insn " %1, %0" : "=r"(d) : "m"(*(const Ts *)S));                                                   \
	c->r[u->dst] = d
REG_FORM(cvtsi2sd_xr, FROM_INT("cvtsi2sdl", vec_f64, uint32_t))
REG_FORM(cvtsi2sd64_xr, FROM_INT("cvtsi2sdq", vec_f64, uint64_t))
REG_FORM(cvtsi2ss_xr, FROM_INT("cvtsi2ssl", vec_f32, uint32_t))
REG_FORM(cvtsi2ss64_xr, FROM_INT("cvtsi2ssq", vec_f32, uint64_t))
REG_FORM(cvttsd2si_rx, TO_INT("cvttsd2si", vec_f64, uint32_t))
REG_FORM(cvttsd2si64_rx, TO_INT("cvttsd2si", vec_f64, uint64_t))
REG_FORM(cvttss2si_rx, TO_INT("cvttss2si", vec_f32, uint32_t))

#endif
