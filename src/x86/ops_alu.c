/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integer arithmetic and logic: ADD OR ADC SBB AND SUB XOR CMP TEST INC DEC NEG NOT, their LOCK forms, and CMP and TEST fused with
 * the conditional branch that follows.
 *
 * Theory of operation: each handler executes the host's own instruction and takes the flags with LAHF and SETO, so that every flag,
 * AF and the undefined ones included, is what a real CPU gives. Forms whose name has an n before the size (add_rrn_l) are chosen by
 * the translator where no later instruction can see the flags.
 */
#include "x86/op.h"

#define TAKE_FLAGS "\n\tlahf\n\tseto %%al"
/* Whether an instruction takes the carry flag in: chosen by pasting cfin or nocf. */
#define PRE_cfin "btl $8, %k[f_]\n\t"
#define IN_cfin  , [f_] "r"((uint32_t)c->fl)
#define PRE_nocf ""
#define IN_nocf

/* d op= s with flags in ax. */
#define ASM2(pre, insn, m, d, s, ax)                                                                               \
	__asm__(PRE_##pre insn " %" m "[s_], %" m "[d_]" TAKE_FLAGS                                                      \
		: [d_] "+r"(d), "=&a"(ax)                                                                          \
		: [s_] "r"(s) IN_##pre                                                                             \
		: "cc")
#define ASM2_NF(pre, insn, m, d, s) __asm__(PRE_##pre insn " %" m "[s_], %" m "[d_]" : [d_] "+r"(d) : [s_] "r"(s) IN_##pre : "cc")
#define ASM_CMP(insn, m, d, s, ax)                                                                                 \
	__asm__(insn " %" m "[s_], %" m "[d_]" TAKE_FLAGS : "=&a"(ax) : [d_] "r"(d), [s_] "r"(s) : "cc")
#define ASM1(pre, insn, m, d, ax)                                                                                  \
	__asm__(PRE_##pre insn " %" m "[d_]" TAKE_FLAGS : [d_] "=r"(d), "=&a"(ax) : "0"(d) IN_##pre : "cc")
#define ASM_LOCK2(pre, insn, m, p, s, ax)                                                                          \
	__asm__ volatile(PRE_##pre "lock " insn " %" m "[s_], %[p_]" TAKE_FLAGS                                          \
			 : [p_] "+m"(*(p)), "=&a"(ax)                                                              \
			 : [s_] "r"(s) IN_##pre                                                                    \
			 : "cc", "memory")

#define IMM(T) ((T)(int64_t)u->imm)

#define DEF_ALU(op, pre, insn, x, T, m)                                                                            \
	HANDLER(op##_rr_##x)                                                                                       \
	{                                                                                                          \
		T d = REG(T, u->dst), s = REG(T, u->src);                                                          \
		uint16_t ax;                                                                                       \
		ASM2(pre, insn #x, m, d, s, ax);                                                                   \
		W_##x(u->dst, d);                                                                                  \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(op##_ri_##x)                                                                                       \
	{                                                                                                          \
		T d = REG(T, u->dst), s = IMM(T);                                                                  \
		uint16_t ax;                                                                                       \
		ASM2(pre, insn #x, m, d, s, ax);                                                                   \
		W_##x(u->dst, d);                                                                                  \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(op##_rm_##x)                                                                                       \
	{                                                                                                          \
		LOAD(T, s, EA0());                                                                                 \
		T d = REG(T, u->dst);                                                                              \
		uint16_t ax;                                                                                       \
		ASM2(pre, insn #x, m, d, s, ax);                                                                   \
		W_##x(u->dst, d);                                                                                  \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(op##_mr_##x)                                                                                       \
	{                                                                                                          \
		LOAD_RMW(T, d, EA0());                                                                             \
		T s = REG(T, u->src);                                                                              \
		uint16_t ax;                                                                                       \
		ASM2(pre, insn #x, m, d, s, ax);                                                                   \
		STORE_RMW(T, d);                                                                                   \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(op##_mi_##x)                                                                                       \
	{                                                                                                          \
		LOAD_RMW(T, d, EA0());                                                                             \
		T s = IMM(T);                                                                                      \
		uint16_t ax;                                                                                       \
		ASM2(pre, insn #x, m, d, s, ax);                                                                   \
		STORE_RMW(T, d);                                                                                   \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	/* src: register slot, or slot X86_R_TMP holding an immediate */                                           \
	HANDLER(lock_##op##_##x)                                                                                   \
	{                                                                                                          \
		T s = REG(T, u->src);                                                                              \
		uint16_t ax;                                                                                       \
		LOCKED(T, EA0(), p, { ASM_LOCK2(pre, insn #x, m, p, s, ax); });                                    \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}

#define DEF_ALU_N(op, pre, insn, x, T, m)                                                                          \
	HANDLER(op##_rrn_##x)                                                                                      \
	{                                                                                                          \
		T d = REG(T, u->dst), s = REG(T, u->src);                                                          \
		ASM2_NF(pre, insn #x, m, d, s);                                                                    \
		W_##x(u->dst, d);                                                                                  \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(op##_rin_##x)                                                                                      \
	{                                                                                                          \
		T d = REG(T, u->dst), s = IMM(T);                                                                  \
		ASM2_NF(pre, insn #x, m, d, s);                                                                    \
		W_##x(u->dst, d);                                                                                  \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(op##_rmn_##x)                                                                                      \
	{                                                                                                          \
		LOAD(T, s, EA0());                                                                                 \
		T d = REG(T, u->dst);                                                                              \
		ASM2_NF(pre, insn #x, m, d, s);                                                                    \
		W_##x(u->dst, d);                                                                                  \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(op##_mrn_##x)                                                                                      \
	{                                                                                                          \
		LOAD_RMW(T, d, EA0());                                                                             \
		T s = REG(T, u->src);                                                                              \
		ASM2_NF(pre, insn #x, m, d, s);                                                                    \
		STORE_RMW(T, d);                                                                                   \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(op##_min_##x)                                                                                      \
	{                                                                                                          \
		LOAD_RMW(T, d, EA0());                                                                             \
		T s = IMM(T);                                                                                      \
		ASM2_NF(pre, insn #x, m, d, s);                                                                    \
		STORE_RMW(T, d);                                                                                   \
		NEXT();                                                                                            \
	}

#define DEF_ALL(op, pre, insn)                                                                                     \
	DEF_ALU(op, pre, insn, b, uint8_t, "b")                                                                    \
	DEF_ALU(op, pre, insn, w, uint16_t, "w")                                                                   \
	DEF_ALU(op, pre, insn, l, uint32_t, "k")                                                                   \
	DEF_ALU(op, pre, insn, q, uint64_t, "q")                                                                   \
	DEF_ALU_N(op, pre, insn, l, uint32_t, "k")                                                                 \
	DEF_ALU_N(op, pre, insn, q, uint64_t, "q")

DEF_ALL(add, nocf, "add")
DEF_ALL(or, nocf, "or")
DEF_ALL(adc, cfin, "adc")
DEF_ALL(sbb, cfin, "sbb")
DEF_ALL(and, nocf, "and")
DEF_ALL(sub, nocf, "sub")
DEF_ALL(xor, nocf, "xor")

/* XOR reg, reg of one register (32- or 64-bit): zero, with the flags that it always has. */
HANDLER(zero)
{
	REG(uint64_t, u->dst) = 0;
	c->fl = X86_F_ZF | X86_F_PF | 0x0200;
	NEXT();
}

#define DEF_CMP(x, T, m)                                                                                           \
	HANDLER(cmp_rr_##x)                                                                                        \
	{                                                                                                          \
		T d = REG(T, u->dst), s = REG(T, u->src);                                                          \
		uint16_t ax;                                                                                       \
		ASM_CMP("cmp" #x, m, d, s, ax);                                                                    \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(cmp_ri_##x)                                                                                        \
	{                                                                                                          \
		T d = REG(T, u->dst), s = IMM(T);                                                                  \
		uint16_t ax;                                                                                       \
		ASM_CMP("cmp" #x, m, d, s, ax);                                                                    \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(cmp_rm_##x)                                                                                        \
	{                                                                                                          \
		LOAD(T, s, EA0());                                                                                 \
		T d = REG(T, u->dst);                                                                              \
		uint16_t ax;                                                                                       \
		ASM_CMP("cmp" #x, m, d, s, ax);                                                                    \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(cmp_mr_##x)                                                                                        \
	{                                                                                                          \
		LOAD(T, d, EA0());                                                                                 \
		T s = REG(T, u->src);                                                                              \
		uint16_t ax;                                                                                       \
		ASM_CMP("cmp" #x, m, d, s, ax);                                                                    \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(cmp_mi_##x)                                                                                        \
	{                                                                                                          \
		LOAD(T, d, EA0());                                                                                 \
		T s = IMM(T);                                                                                      \
		uint16_t ax;                                                                                       \
		ASM_CMP("cmp" #x, m, d, s, ax);                                                                    \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(test_rr_##x)                                                                                       \
	{                                                                                                          \
		T d = REG(T, u->dst), s = REG(T, u->src);                                                          \
		uint16_t ax;                                                                                       \
		ASM_CMP("test" #x, m, d, s, ax);                                                                   \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(test_ri_##x)                                                                                       \
	{                                                                                                          \
		T d = REG(T, u->dst), s = IMM(T);                                                                  \
		uint16_t ax;                                                                                       \
		ASM_CMP("test" #x, m, d, s, ax);                                                                   \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(test_mr_##x)                                                                                       \
	{                                                                                                          \
		LOAD(T, d, EA0());                                                                                 \
		T s = REG(T, u->src);                                                                              \
		uint16_t ax;                                                                                       \
		ASM_CMP("test" #x, m, d, s, ax);                                                                   \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(test_mi_##x)                                                                                       \
	{                                                                                                          \
		LOAD(T, d, EA0());                                                                                 \
		T s = IMM(T);                                                                                      \
		uint16_t ax;                                                                                       \
		ASM_CMP("test" #x, m, d, s, ax);                                                                   \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}
DEF_CMP(b, uint8_t, "b")
DEF_CMP(w, uint16_t, "w")
DEF_CMP(l, uint32_t, "k")
DEF_CMP(q, uint64_t, "q")

/* INC and DEC keep CF, NEG sets it, NOT touches no flag. */
#define DEF_UNARY(x, T, m)                                                                                         \
	DEF_UNARY1(inc, cfin, x, T, m) DEF_UNARY1(dec, cfin, x, T, m) DEF_UNARY1(neg, nocf, x, T, m)            \
	HANDLER(not_r_##x)                                                                                         \
	{                                                                                                          \
		T d = (T)~REG(T, u->dst);                                                                          \
		W_##x(u->dst, d);                                                                                  \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(not_m_##x)                                                                                         \
	{                                                                                                          \
		LOAD_RMW(T, d, EA0());                                                                             \
		STORE_RMW(T, ~d);                                                                                  \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(lock_inc_##x) DEF_LOCK1(cfin, "inc", x, T)                                                        \
	HANDLER(lock_dec_##x) DEF_LOCK1(cfin, "dec", x, T)                                                        \
	HANDLER(lock_neg_##x) DEF_LOCK1(nocf, "neg", x, T)                                                        \
	HANDLER(lock_not_##x)                                                                                      \
	{                                                                                                          \
		LOCKED(T, EA0(), p, { __asm__ volatile("lock not" #x " %0" : "+m"(*p) : : "memory"); });           \
		NEXT();                                                                                            \
	}
#define DEF_UNARY1(op, pre, x, T, m)                                                                               \
	HANDLER(op##_r_##x)                                                                                        \
	{                                                                                                          \
		T d = REG(T, u->dst);                                                                              \
		uint16_t ax;                                                                                       \
		ASM1(pre, #op #x, m, d, ax);                                                                       \
		W_##x(u->dst, d);                                                                                  \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(op##_m_##x)                                                                                        \
	{                                                                                                          \
		LOAD_RMW(T, d, EA0());                                                                             \
		uint16_t ax;                                                                                       \
		ASM1(pre, #op #x, m, d, ax);                                                                       \
		STORE_RMW(T, d);                                                                                   \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}
#define DEF_LOCK1(pre, insn, x, T)                                                                                 \
	{                                                                                                          \
		uint16_t ax;                                                                                       \
		LOCKED(T, EA0(), p, {                                                                              \
			__asm__ volatile(PRE_##pre "lock " insn #x " %[p_]" TAKE_FLAGS                                   \
					 : [p_] "+m"(*p), "=&a"(ax)                                                \
					 : [f_] "r"((uint32_t)c->fl)                                               \
					 : "cc", "memory");                                                        \
		});                                                                                                \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}
DEF_UNARY(b, uint8_t, "b")
DEF_UNARY(w, uint16_t, "w")
DEF_UNARY(l, uint32_t, "k")
DEF_UNARY(q, uint64_t, "q")

#define DEF_NF1(op, x, T, expr)                                                                                    \
	HANDLER(op##_rn_##x)                                                                                       \
	{                                                                                                          \
		T d = REG(T, u->dst);                                                                              \
		W_##x(u->dst, expr);                                                                               \
		NEXT();                                                                                            \
	}
DEF_NF1(inc, l, uint32_t, d + 1)
DEF_NF1(inc, q, uint64_t, d + 1)
DEF_NF1(dec, l, uint32_t, d - 1)
DEF_NF1(dec, q, uint64_t, d - 1)
DEF_NF1(neg, l, uint32_t, 0 - d)
DEF_NF1(neg, q, uint64_t, 0 - d)

/* Fused forms: u is the compare, u + 1 the branch (its link and target), u + 2 the jump to the next block when it is not taken. */
#define FUSED(name, m, x, insn, get, cc, test)                                                                     \
	HANDLER(name##_##cc)                                                                                       \
	{                                                                                                          \
		get;                                                                                               \
		uint16_t ax;                                                                                       \
		ASM_CMP(insn #x, m, d, s, ax);                                                                     \
		c->fl = ax;                                                                                        \
		if (test)                                                                                          \
			TAKEN(u + 1);                                                                              \
		TAKEN(u + 2);                                                                                      \
	}
/* T: unsigned type, S: signed type of the operand. The comparison is made again in C, where the compiler sees its result. */
#define FUSED_CMP(name, x, T, S, m, get)                                                                           \
	FUSED(name, m, x, "cmp", get, o, ax & 1)                                                                   \
	FUSED(name, m, x, "cmp", get, no, !(ax & 1))                                                               \
	FUSED(name, m, x, "cmp", get, b, d < s)                                                                    \
	FUSED(name, m, x, "cmp", get, nb, d >= s)                                                                  \
	FUSED(name, m, x, "cmp", get, e, d == s)                                                                   \
	FUSED(name, m, x, "cmp", get, ne, d != s)                                                                  \
	FUSED(name, m, x, "cmp", get, be, d <= s)                                                                  \
	FUSED(name, m, x, "cmp", get, nbe, d > s)                                                                  \
	FUSED(name, m, x, "cmp", get, s, (S)(T)(d - s) < 0)                                                        \
	FUSED(name, m, x, "cmp", get, ns, (S)(T)(d - s) >= 0)                                                      \
	FUSED(name, m, x, "cmp", get, p, ax & X86_F_PF)                                                            \
	FUSED(name, m, x, "cmp", get, np, !(ax & X86_F_PF))                                                        \
	FUSED(name, m, x, "cmp", get, l, (S)d < (S)s)                                                              \
	FUSED(name, m, x, "cmp", get, nl, (S)d >= (S)s)                                                            \
	FUSED(name, m, x, "cmp", get, le, (S)d <= (S)s)                                                            \
	FUSED(name, m, x, "cmp", get, nle, (S)d > (S)s)
#define FUSED_TEST(name, x, T, S, m, get)                                                                          \
	FUSED(name, m, x, "test", get, o, 0)                                                                       \
	FUSED(name, m, x, "test", get, no, 1)                                                                      \
	FUSED(name, m, x, "test", get, b, 0)                                                                       \
	FUSED(name, m, x, "test", get, nb, 1)                                                                      \
	FUSED(name, m, x, "test", get, e, (d & s) == 0)                                                            \
	FUSED(name, m, x, "test", get, ne, (d & s) != 0)                                                           \
	FUSED(name, m, x, "test", get, be, (d & s) == 0)                                                           \
	FUSED(name, m, x, "test", get, nbe, (d & s) != 0)                                                          \
	FUSED(name, m, x, "test", get, s, (S)(d & s) < 0)                                                          \
	FUSED(name, m, x, "test", get, ns, (S)(d & s) >= 0)                                                        \
	FUSED(name, m, x, "test", get, p, ax & X86_F_PF)                                                           \
	FUSED(name, m, x, "test", get, np, !(ax & X86_F_PF))                                                       \
	FUSED(name, m, x, "test", get, l, (S)(d & s) < 0)                                                          \
	FUSED(name, m, x, "test", get, nl, (S)(d & s) >= 0)                                                        \
	FUSED(name, m, x, "test", get, le, (S)(d & s) <= 0)                                                        \
	FUSED(name, m, x, "test", get, nle, (S)(d & s) > 0)

#define GET_RR(T)                                                                                                  \
	const T d = REG(T, u->dst);                                                                                \
	const T s = REG(T, u->src)
#define GET_RI(T)                                                                                                  \
	const T d = REG(T, u->dst);                                                                                \
	const T s = IMM(T)
#define GET_RM(T)                                                                                                  \
	LOAD(T, s, EA0());                                                                                         \
	const T d = REG(T, u->dst)
#define GET_MI(T)                                                                                                  \
	LOAD(T, d, EA0());                                                                                         \
	const T s = IMM(T)
#define GET_MR(T)                                                                                                  \
	LOAD(T, d, EA0());                                                                                         \
	const T s = REG(T, u->src)
FUSED_CMP(cmp_rr_l_j, l, uint32_t, int32_t, "k", GET_RR(uint32_t))
FUSED_CMP(cmp_rr_q_j, q, uint64_t, int64_t, "q", GET_RR(uint64_t))
FUSED_CMP(cmp_ri_b_j, b, uint8_t, int8_t, "b", GET_RI(uint8_t))
FUSED_CMP(cmp_ri_l_j, l, uint32_t, int32_t, "k", GET_RI(uint32_t))
FUSED_CMP(cmp_ri_q_j, q, uint64_t, int64_t, "q", GET_RI(uint64_t))
FUSED_CMP(cmp_rm_l_j, l, uint32_t, int32_t, "k", GET_RM(uint32_t))
FUSED_CMP(cmp_rm_q_j, q, uint64_t, int64_t, "q", GET_RM(uint64_t))
FUSED_CMP(cmp_mi_b_j, b, uint8_t, int8_t, "b", GET_MI(uint8_t))
FUSED_CMP(cmp_mi_l_j, l, uint32_t, int32_t, "k", GET_MI(uint32_t))
FUSED_CMP(cmp_mi_q_j, q, uint64_t, int64_t, "q", GET_MI(uint64_t))
FUSED_CMP(cmp_mr_q_j, q, uint64_t, int64_t, "q", GET_MR(uint64_t))
FUSED_TEST(test_rr_b_j, b, uint8_t, int8_t, "b", GET_RR(uint8_t))
FUSED_TEST(test_rr_l_j, l, uint32_t, int32_t, "k", GET_RR(uint32_t))
FUSED_TEST(test_rr_q_j, q, uint64_t, int64_t, "q", GET_RR(uint64_t))
FUSED_TEST(test_ri_b_j, b, uint8_t, int8_t, "b", GET_RI(uint8_t))
FUSED_TEST(test_ri_l_j, l, uint32_t, int32_t, "k", GET_RI(uint32_t))
FUSED_TEST(test_mi_b_j, b, uint8_t, int8_t, "b", GET_MI(uint8_t))
