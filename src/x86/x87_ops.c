/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of x87 operations.
 *
 * Theory of operation: the slow tier goes through x87.c for everything. The fast tier does the frequent instructions with the operands
 * alone: FLD the guest's registers onto the host's empty stack, the operation, FNSTSW, FSTP the result. It does so only when
 * all x87 exceptions are masked and the registers involved are in use (or free, for a push); the rest goes to the slow tier. The host's
 * exception flags are not cleared in between: they are a subset of the guest's (fp.h), so OR-ing them in is right. A rounding mode or
 * precision other than the default is put on the host around the operation.
 */
#include <string.h>

#include "x86/fp.h"
#include "x86/op.h"
#include "x86/x87.h"

#if !X86_TIER_FAST

#define SLOW_FORM(name, call)                                                                                      \
	HANDLER(name)                                                                                              \
	{                                                                                                          \
		if (unlikely(!(call)))                                                                             \
			return x86_fault(c, u);                                                                    \
		NEXT();                                                                                            \
	}
SLOW_FORM(fwait, x86_fwait(c))
SLOW_FORM(fxsave, x86_fxsave(c, EA0(), u->idx == 8))
SLOW_FORM(fxrstor, x86_fxrstor(c, EA0(), u->idx == 8))

#define R_FORM(name) SLOW_FORM(name, x86_x87_reg(c, (unsigned)u->imm, X86_RIP(c, u)))
#define M_FORM(name) SLOW_FORM(name, x86_x87_mem(c, (unsigned)u->imm, X86_RIP(c, u), EA0()))
R_FORM(x87_r)
R_FORM(x87_fld_st)
R_FORM(x87_fld1)
R_FORM(x87_fldz)
R_FORM(x87_fst_st)
R_FORM(x87_fstp_st)
R_FORM(x87_fxch)
R_FORM(x87_fchs)
R_FORM(x87_fabs)
R_FORM(x87_arith_st0)
R_FORM(x87_arith_sti)
R_FORM(x87_arith_pop)
R_FORM(x87_fcomi)
R_FORM(x87_fucomi)
R_FORM(x87_fsqrt)
R_FORM(x87_frndint)
R_FORM(x87_fnstsw)
M_FORM(x87_m)
M_FORM(x87_fld_m32)
M_FORM(x87_fld_m64)
M_FORM(x87_fld_m80)
M_FORM(x87_fild_m16)
M_FORM(x87_fild_m32)
M_FORM(x87_fild_m64)
M_FORM(x87_fst_m32)
M_FORM(x87_fst_m64)
M_FORM(x87_fstp_m32)
M_FORM(x87_fstp_m64)
M_FORM(x87_fstp_m80)
M_FORM(x87_fist_m32)
M_FORM(x87_fistp_m16)
M_FORM(x87_fistp_m32)
M_FORM(x87_fistp_m64)
M_FORM(x87_fisttp_m16)
M_FORM(x87_fisttp_m32)
M_FORM(x87_fisttp_m64)
M_FORM(x87_arith_m32)
M_FORM(x87_arith_m64)
M_FORM(x87_fnstcw)
M_FORM(x87_fldcw)

#else /* the fast tier */

#define SLOWLY() return x86_go_slow(c, u, table)

/* A register of 80 bits as an operand of assembly. */
struct f80 {
	uint8_t b[10];
};
typedef uint16_t un16 __attribute__((aligned(1), may_alias));
typedef uint32_t un32 __attribute__((aligned(1), may_alias));
typedef uint64_t un64 __attribute__((aligned(1), may_alias));

static inline unsigned top_of(const struct x86_cpu *c)
{
	return c->fsw >> 11 & 7;
}
static inline struct f80 *st(struct x86_cpu *c, unsigned i)
{
	return (struct f80 *)c->st[(top_of(c) + i) & 7];
}
static inline bool full(const struct x86_cpu *c, unsigned i)
{
	return c->ftw >> ((top_of(c) + i) & 7) & 1;
}
/* Nothing about CR0 or the masks needs a look. With all exceptions masked none is pending. */
static inline bool quick(const struct x86_cpu *c)
{
	return !c->fp_trap && (c->fcw & 0x3f) == 0x3f;
}
static inline bool odd_control(const struct x86_cpu *c)
{
	return (c->fcw & 0x0f00) != 0x0300;
}
static inline void control_in(const struct x86_cpu *c)
{
	if (unlikely(odd_control(c))) {
		const uint16_t cw = c->fcw;
		__asm__ volatile("fldcw %0" : : "m"(cw));
	}
}
static inline void control_out(const struct x86_cpu *c)
{
	if (unlikely(odd_control(c))) {
		const uint16_t cw = 0x37f;
		__asm__ volatile("fldcw %0" : : "m"(cw));
	}
}
static inline void take_status(struct x86_cpu *c, uint16_t sw)
{
	c->fsw = (uint16_t)((c->fsw & ~X86_FSW_C1) | (sw & (0x3fu | X86_FSW_C1)));
}
/* Makes room for a push; the new ST(0). */
static inline struct f80 *push(struct x86_cpu *c)
{
	const unsigned top = (top_of(c) - 1) & 7;
	c->fsw = (uint16_t)((c->fsw & ~X86_FSW_TOP) | top << 11);
	c->ftw |= (uint8_t)(1u << top);
	return (struct f80 *)c->st[top];
}
static inline void pop(struct x86_cpu *c)
{
	const unsigned top = top_of(c);
	c->ftw &= (uint8_t)~(1u << top);
	c->fsw = (uint16_t)((c->fsw & ~X86_FSW_TOP) | ((top + 1) & 7) << 11);
}
static inline void note(struct x86_cpu *c, const struct x86_op *u)
{
	c->fip = X86_RIP(c, u);
}
static inline void *host(const struct x86_cpu *c, uint64_t ea, unsigned size, bool write)
{
	const struct x86_tlb_entry *te = &c->tlb[X86_TLB_INDEX(ea)];
	if (unlikely((write ? te->tag_w : te->tag_r) != X86_TLB_MATCH(ea, size)))
		return NULL;
	return (void *)(ea + (uint64_t)te->add);
}

HANDLER(x87_r)
{
	SLOWLY();
}
HANDLER(x87_m)
{
	SLOWLY();
}
HANDLER(fwait)
{
	if (unlikely(c->fp_trap || c->fsw & X86_FSW_ES))
		SLOWLY();
	NEXT();
}

/* FNSTSW writes AX before the last operands are used, so no address may live there: "=&a". */
#define LOAD_FORM(name, T, insn)                                                                                   \
	HANDLER(x87_##name)                                                                                        \
	{                                                                                                          \
		const uint64_t ea = EA0();                                                                         \
		const T *p = host(c, ea, sizeof(T), false);                                                        \
		if (unlikely(!p || !quick(c) || full(c, 7)))                                                       \
			SLOWLY();                                                                                  \
		struct f80 *d = push(c);                                                                           \
		uint16_t sw;                                                                                       \
		__asm__ volatile(insn " %2\n\tfnstsw %0\n\tfstpt %1" : "=&a"(sw), "=m"(*d) : "m"(*p) : "st");       \
		take_status(c, sw);                                                                                \
		note(c, u);                                                                                        \
		c->fdp = ea;                                                                                       \
		NEXT();                                                                                            \
	}
LOAD_FORM(fld_m32, un32, "flds")
LOAD_FORM(fld_m64, un64, "fldl")
LOAD_FORM(fild_m16, un16, "filds")
LOAD_FORM(fild_m32, un32, "fildl")
LOAD_FORM(fild_m64, un64, "fildll")

/* These two move bits: an 80-bit load or store raises nothing. */
HANDLER(x87_fld_m80)
{
	const uint64_t ea = EA0();
	const struct f80 *p = host(c, ea, 10, false);
	if (unlikely(!p || !quick(c) || full(c, 7)))
		SLOWLY();
	*push(c) = *p;
	c->fsw &= (uint16_t)~X86_FSW_C1;
	note(c, u);
	c->fdp = ea;
	NEXT();
}
HANDLER(x87_fstp_m80)
{
	const uint64_t ea = EA0();
	struct f80 *p = host(c, ea, 10, true);
	if (unlikely(!p || !quick(c) || !full(c, 0)))
		SLOWLY();
	*p = *st(c, 0);
	pop(c);
	c->fsw &= (uint16_t)~X86_FSW_C1;
	note(c, u);
	c->fdp = ea;
	NEXT();
}

/* The status is taken before the host's register is dropped: FSTP to a register would clear C1. */
#define STORE_FORM(name, T, insn, after)                                                                           \
	HANDLER(x87_##name)                                                                                        \
	{                                                                                                          \
		const uint64_t ea = EA0();                                                                         \
		T *p = host(c, ea, sizeof(T), true);                                                               \
		if (unlikely(!p || !quick(c) || !full(c, 0)))                                                      \
			SLOWLY();                                                                                  \
		uint16_t sw;                                                                                       \
		control_in(c);                                                                                     \
		__asm__ volatile("fldt %2\n\t" insn " %1\n\tfnstsw %0" : "=&a"(sw), "=m"(*p) : "m"(*st(c, 0)) : "st"); \
		control_out(c);                                                                                    \
		take_status(c, sw);                                                                                \
		after;                                                                                             \
		note(c, u);                                                                                        \
		c->fdp = ea;                                                                                       \
		NEXT();                                                                                            \
	}
#define NO_POP (void)0
STORE_FORM(fst_m32, un32, "fstps", NO_POP)
STORE_FORM(fst_m64, un64, "fstpl", NO_POP)
STORE_FORM(fstp_m32, un32, "fstps", pop(c))
STORE_FORM(fstp_m64, un64, "fstpl", pop(c))
STORE_FORM(fist_m32, un32, "fistpl", NO_POP)
STORE_FORM(fistp_m16, un16, "fistps", pop(c))
STORE_FORM(fistp_m32, un32, "fistpl", pop(c))
STORE_FORM(fistp_m64, un64, "fistpll", pop(c))
/* SSE3's FISTTP, by its bytes on [rdx]. */
#define FISTTP_FORM(name, T, bytes)                                                                                \
	HANDLER(x87_##name)                                                                                        \
	{                                                                                                          \
		const uint64_t ea = EA0();                                                                         \
		T *p = host(c, ea, sizeof(T), true);                                                               \
		if (unlikely(!p || !quick(c) || !full(c, 0)))                                                      \
			SLOWLY();                                                                                  \
		uint16_t sw;                                                                                       \
		__asm__ volatile("fldt %2\n\t.byte " bytes "\n\tfnstsw %0"                                         \
				 : "=&a"(sw), "=m"(*p)                                                              \
				 : "m"(*st(c, 0)), "d"(p)                                                          \
				 : "st");                                                                          \
		take_status(c, sw);                                                                                \
		pop(c);                                                                                            \
		note(c, u);                                                                                        \
		c->fdp = ea;                                                                                       \
		NEXT();                                                                                            \
	}
FISTTP_FORM(fisttp_m16, un16, "0xdf,0x0a")
FISTTP_FORM(fisttp_m32, un32, "0xdb,0x0a")
FISTTP_FORM(fisttp_m64, un64, "0xdd,0x0a")

HANDLER(x87_fld_st)
{
	const unsigned i = u->imm & 7;
	if (unlikely(!quick(c) || full(c, 7) || !full(c, i)))
		SLOWLY();
	const struct f80 v = *st(c, i);
	*push(c) = v;
	c->fsw &= (uint16_t)~X86_FSW_C1;
	note(c, u);
	NEXT();
}

#define CONSTANT(name, insn)                                                                                       \
	HANDLER(x87_##name)                                                                                        \
	{                                                                                                          \
		if (unlikely(!quick(c) || full(c, 7)))                                                             \
			SLOWLY();                                                                                  \
		__asm__ volatile(insn "\n\tfstpt %0" : "=m"(*push(c)) : : "st");                                   \
		c->fsw &= (uint16_t)~X86_FSW_C1;                                                                   \
		note(c, u);                                                                                        \
		NEXT();                                                                                            \
	}
CONSTANT(fld1, "fld1")
CONSTANT(fldz, "fldz")

#define COPY_FORM(name, after)                                                                                     \
	HANDLER(x87_##name)                                                                                        \
	{                                                                                                          \
		const unsigned i = u->imm & 7;                                                                     \
		if (unlikely(!quick(c) || !full(c, 0)))                                                            \
			SLOWLY();                                                                                  \
		*st(c, i) = *st(c, 0);                                                                             \
		c->ftw |= (uint8_t)(1u << ((top_of(c) + i) & 7));                                                  \
		after;                                                                                             \
		c->fsw &= (uint16_t)~X86_FSW_C1;                                                                   \
		note(c, u);                                                                                        \
		NEXT();                                                                                            \
	}
COPY_FORM(fst_st, NO_POP)
COPY_FORM(fstp_st, pop(c))

HANDLER(x87_fxch)
{
	const unsigned i = u->imm & 7;
	if (unlikely(!quick(c) || !full(c, 0) || !full(c, i)))
		SLOWLY();
	const struct f80 v = *st(c, i);
	*st(c, i) = *st(c, 0);
	*st(c, 0) = v;
	c->fsw &= (uint16_t)~X86_FSW_C1;
	note(c, u);
	NEXT();
}

#define SIGN_FORM(name, operation)                                                                                 \
	HANDLER(x87_##name)                                                                                        \
	{                                                                                                          \
		if (unlikely(!quick(c) || !full(c, 0)))                                                            \
			SLOWLY();                                                                                  \
		st(c, 0)->b[9] operation;                                                                          \
		c->fsw &= (uint16_t)~X86_FSW_C1;                                                                   \
		note(c, u);                                                                                        \
		NEXT();                                                                                            \
	}
SIGN_FORM(fchs, ^= 0x80)
SIGN_FORM(fabs, &= 0x7f)

/* One of FADD FMUL FSUB FSUBR FDIV FDIVR by ModRM.reg, in a switch of six statements. */
#define ARITH_SWITCH(run, add, mul, sub, subr, div, divr)                                                          \
	uint16_t sw;                                                                                               \
	control_in(c);                                                                                             \
	switch (reg) {                                                                                             \
	case 0:                                                                                                    \
		run(add);                                                                                          \
		break;                                                                                             \
	case 1:                                                                                                    \
		run(mul);                                                                                          \
		break;                                                                                             \
	case 4:                                                                                                    \
		run(sub);                                                                                          \
		break;                                                                                             \
	case 5:                                                                                                    \
		run(subr);                                                                                         \
		break;                                                                                             \
	case 6:                                                                                                    \
		run(div);                                                                                          \
		break;                                                                                             \
	default:                                                                                                   \
		run(divr);                                                                                         \
		break;                                                                                             \
	}                                                                                                          \
	control_out(c);                                                                                            \
	take_status(c, sw)

/* *d = a op b, a in ST(1) and b in ST(0) of the host. The opcodes are given as bytes because assemblers disagree about the names of
 * the reversed pops. */
#define RUN_REG(bytes)                                                                                             \
	__asm__ volatile("fldt %2\n\tfldt %3\n\t.byte 0xde," bytes "\n\tfnstsw %0\n\tfstpt %1"                      \
			 : "=&a"(sw), "=m"(*d)                                                                      \
			 : "m"(*a), "m"(*b)                                                                        \
			 : "st", "st(1)")
/* *d = *d op memory. Loading the operand first would report a denormal even where the operation is invalid. */
#define RUN_MEM(insn)                                                                                              \
	__asm__ volatile("fldt %1\n\t" insn " %2\n\tfnstsw %0\n\tfstpt %1" : "=&a"(sw), "+m"(*d) : "m"(*b) : "st")

#define ARITH_REG(name, dest, after)                                                                               \
	HANDLER(x87_##name)                                                                                        \
	{                                                                                                          \
		const unsigned i = u->imm & 7, reg = u->imm >> 3 & 7;                                              \
		if (unlikely(!quick(c) || !full(c, 0) || !full(c, i)))                                             \
			SLOWLY();                                                                                  \
		struct f80 *d = st(c, dest);                                                                       \
		const struct f80 *a = st(c, 0), *b = st(c, i);                                                     \
		ARITH_SWITCH(RUN_REG, "0xc1", "0xc9", "0xe9", "0xe1", "0xf9", "0xf1");                                                                              \
		after;                                                                                             \
		note(c, u);                                                                                        \
		NEXT();                                                                                            \
	}
ARITH_REG(arith_st0, 0, NO_POP)
ARITH_REG(arith_sti, i, NO_POP)
ARITH_REG(arith_pop, i, pop(c))

#define ARITH_MEM(name, T, s)                                                                                      \
	HANDLER(x87_##name)                                                                                        \
	{                                                                                                          \
		const unsigned reg = u->imm >> 3 & 7;                                                              \
		const uint64_t ea = EA0();                                                                         \
		const T *b = host(c, ea, sizeof(T), false);                                                        \
		if (unlikely(!b || !quick(c) || !full(c, 0)))                                                      \
			SLOWLY();                                                                                  \
		struct f80 *d = st(c, 0);                                                                          \
		ARITH_SWITCH(RUN_MEM, "fadd" s, "fmul" s, "fsub" s, "fsubr" s, "fdiv" s, "fdivr" s);                                                                                \
		note(c, u);                                                                                        \
		c->fdp = ea;                                                                                       \
		NEXT();                                                                                            \
	}
ARITH_MEM(arith_m32, un32, "s")
ARITH_MEM(arith_m64, un64, "l")

/* FCOMI, FUCOMI and, with bit 10 of imm (opcode DF), their popping forms. */
#define COMPARE_FORM(name, insn)                                                                                   \
	HANDLER(x87_##name)                                                                                        \
	{                                                                                                          \
		const unsigned i = u->imm & 7;                                                                     \
		if (unlikely(!quick(c) || !full(c, 0) || !full(c, i)))                                             \
			SLOWLY();                                                                                  \
		uint32_t fl;                                                                                       \
		uint16_t sw;                                                                                       \
		__asm__ volatile("fldt %2\n\tfldt %3\n\t" insn " %%st(1), %%st\n\t"                                \
				 "lahf\n\tseto %%al\n\tmovzwl %%ax, %1\n\tfnstsw %0\n\tfstp %%st(0)"               \
				 : "=&a"(sw), "=&r"(fl)                                                            \
				 : "m"(*st(c, i)), "m"(*st(c, 0))                                                  \
				 : "cc", "st", "st(1)");                                                           \
		c->fl = (uint16_t)fl;                                                                              \
		c->fsw |= sw & 0x3f; /* C1 stays as it is */                                                       \
		if (u->imm & 0x400)                                                                                \
			pop(c);                                                                                    \
		note(c, u);                                                                                        \
		NEXT();                                                                                            \
	}
COMPARE_FORM(fcomi, "fcomip")
COMPARE_FORM(fucomi, "fucomip")

#define UNARY_FORM(name)                                                                                           \
	HANDLER(x87_##name)                                                                                        \
	{                                                                                                          \
		if (unlikely(!quick(c) || !full(c, 0)))                                                            \
			SLOWLY();                                                                                  \
		struct f80 *d = st(c, 0);                                                                          \
		uint16_t sw;                                                                                       \
		control_in(c);                                                                                     \
		__asm__ volatile("fldt %1\n\t" #name "\n\tfnstsw %0\n\tfstpt %1" : "=&a"(sw), "+m"(*d) : : "st");   \
		control_out(c);                                                                                    \
		take_status(c, sw);                                                                                \
		note(c, u);                                                                                        \
		NEXT();                                                                                            \
	}
UNARY_FORM(fsqrt)
UNARY_FORM(frndint)

HANDLER(x87_fnstcw)
{
	if (unlikely(c->fp_trap))
		SLOWLY();
	STORE(uint16_t, EA0(), c->fcw);
	NEXT();
}
HANDLER(x87_fldcw)
{
	if (unlikely(!quick(c)))
		SLOWLY();
	LOAD(uint16_t, v, EA0());
	if (unlikely((v & 0x3f) != 0x3f))
		SLOWLY();
	c->fcw = (uint16_t)((v & 0x1f3f) | 0x40);
	NEXT();
}
HANDLER(x87_fnstsw)
{
	if (unlikely(c->fp_trap))
		SLOWLY();
	REG(uint16_t, X86_RAX * 8) = c->fsw;
	NEXT();
}

#endif
