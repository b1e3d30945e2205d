/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control transfer. In 64-bit mode, branches whose target lies in the same page are linked from block to block; all others go
 * through the jump cache. The lg_ operations serve 16- and 32-bit modes and are written for brevity.
 */
#include "x86/op.h"

#include "x86/opcodes.h"

#define RSP c->r[X86_RSP]

#define DEF_J(cc, n)                                                                                               \
	HANDLER(j_##cc)                                                                                            \
	{                                                                                                          \
		if (x86_cond(c->fl, n))                                                                            \
			TAKEN(u);                                                                                  \
		TAKEN(u + 1);                                                                                      \
	}                                                                                                          \
	HANDLER(jf_##cc)                                                                                           \
	{                                                                                                          \
		if (x86_cond(c->fl, n))                                                                            \
			GO_RIP(X86_RIP_NEXT(c, u) + (uint64_t)(int64_t)u->imm);                                    \
		NEXT();                                                                                            \
	}
DEF_J(o, 0) DEF_J(no, 1) DEF_J(b, 2) DEF_J(nb, 3) DEF_J(e, 4) DEF_J(ne, 5) DEF_J(be, 6) DEF_J(nbe, 7)
DEF_J(s, 8) DEF_J(ns, 9) DEF_J(p, 10) DEF_J(np, 11) DEF_J(l, 12) DEF_J(nl, 13) DEF_J(le, 14) DEF_J(nle, 15)

HANDLER(jmp_far) /* to another page */
{
	GO_RIP(X86_RIP_NEXT(c, u) + (uint64_t)(int64_t)u->imm);
}
HANDLER(call_near)
{
	STORE(uint64_t, RSP - 8, X86_RIP_NEXT(c, u));
	RSP -= 8;
	TAKEN(u);
}
HANDLER(call_far)
{
	STORE(uint64_t, RSP - 8, X86_RIP_NEXT(c, u));
	RSP -= 8;
	GO_RIP(X86_RIP_NEXT(c, u) + (uint64_t)(int64_t)u->imm);
}
/* An indirect call stores first and then looks at the target, but the fast tier must not store before it hands over: the store could
 * overwrite the operand that the target was loaded from. */
#define PUSH_NEXT                                                                                                  \
	STORE(uint64_t, RSP - 8, X86_RIP_NEXT(c, u));                                                              \
	RSP -= 8
#if X86_TIER_FAST
#define CALL_INDIRECT(target) GO_RIP_INDIRECT(target, PUSH_NEXT)
#else
#define CALL_INDIRECT(target)                                                                                      \
	STORE(uint64_t, RSP - 8, X86_RIP_NEXT(c, u));                                                              \
	GO_RIP_INDIRECT(target, RSP -= 8)
#endif

HANDLER(jmp_r)
{
	GO_RIP_INDIRECT(REG(uint64_t, u->src), (void)0);
}
HANDLER(jmp_m)
{
	LOAD(uint64_t, target, EA0());
	GO_RIP_INDIRECT(target, (void)0);
}
HANDLER(call_r)
{
	const uint64_t target = REG(uint64_t, u->src);
	CALL_INDIRECT(target);
}
HANDLER(call_m)
{
	LOAD(uint64_t, target, EA0());
	CALL_INDIRECT(target);
}
HANDLER(ret)
{
	LOAD(uint64_t, target, RSP);
	GO_RIP_INDIRECT(target, RSP += 8);
}
HANDLER(ret_i)
{
	LOAD(uint64_t, target, RSP);
	GO_RIP_INDIRECT(target, RSP += 8 + (uint64_t)(uint16_t)u->imm);
}
/* dst: 0 LOOPNE, 1 LOOPE, 2 LOOP, 3 JRCXZ; src: address size; idx: operand size */
HANDLER(loop)
{
	uint64_t mask = u->src == 8 ? ~0ull : u->src == 4 ? 0xffffffffull : 0xffffull;
	uint64_t n = c->r[X86_RCX];
	bool taken;
	if (u->dst == 3) {
		taken = (n & mask) == 0;
	} else {
		n = (n - 1) & mask;
		c->r[X86_RCX] = u->src == 2 ? (c->r[X86_RCX] & ~mask) | n : n;
		taken = n && (u->dst == 2 || !!(c->fl & X86_F_ZF) == u->dst);
	}
	if (c->mode != X86_MODE_64) {
		uint64_t rip = X86_RIP_NEXT(c, u) - c->segbase[X86_CS] + (taken ? (uint64_t)(int64_t)u->imm : 0);
		c->rip = rip & (c->mode == X86_MODE_16 || (taken && u->idx == 2) ? 0xffffu : 0xffffffffu);
		LEAVE(X86_LEAVE_LOOKUP);
	}
	if (taken)
		GO_RIP(X86_RIP_NEXT(c, u) + (uint64_t)(int64_t)u->imm);
	NEXT();
}

#if !X86_TIER_FAST
/* 16- and 32-bit modes. u->idx: operand size (2 or 4). */
static uint64_t stack_mask(const struct x86_cpu *c)
{
	return c->seg[X86_SS].attr & X86_ATTR_DB ? 0xffffffffu : 0xffffu;
}

static void set_sp(struct x86_cpu *c, uint64_t sp)
{
	if (stack_mask(c) == 0xffff)
		REG(uint16_t, X86_RSP * 8) = (uint16_t)sp;
	else
		c->r[X86_RSP] = (uint32_t)sp;
}

static bool push(struct x86_cpu *c, uint64_t v, unsigned size)
{
	uint64_t sp = (c->r[X86_RSP] - size) & stack_mask(c);
	if (!x86_write(c, (uint32_t)(c->segbase[X86_SS] + sp), size, &v))
		return false;
	set_sp(c, sp);
	return true;
}

/* Reads the top of the stack without moving it. */
static bool peek(struct x86_cpu *c, uint64_t *v, unsigned size)
{
	*v = 0;
	return x86_read(c, (uint32_t)(c->segbase[X86_SS] + (c->r[X86_RSP] & stack_mask(c))), size, v);
}

static const struct x86_op *legacy_jump(struct x86_cpu *c, uint64_t ip, unsigned size)
{
	c->rip = ip & (size == 2 ? 0xffffu : 0xffffffffu);
	c->leave = X86_LEAVE_LOOKUP;
	return NULL;
}
#define LEGACY_NEXT_IP ((X86_RIP_NEXT(c, u) - c->segbase[X86_CS]) & 0xffffffffu)

/* src: register slot; slot ZERO: imm */
HANDLER(lg_push)
{
	uint64_t v = REG(uint64_t, u->src) + (uint64_t)(int64_t)u->imm;
	if (!push(c, v, u->idx))
		return x86_fault(c, u);
	NEXT();
}
HANDLER(lg_push_m)
{
	uint64_t v = 0;
	if (!x86_read(c, EA0(), u->idx, &v) || !push(c, v, u->idx))
		return x86_fault(c, u);
	NEXT();
}
HANDLER(lg_pop)
{
	uint64_t v;
	if (!peek(c, &v, u->idx))
		return x86_fault(c, u);
	set_sp(c, c->r[X86_RSP] + u->idx);
	if (u->idx == 2)
		W_w(u->dst, v);
	else
		W_l(u->dst, v);
	NEXT();
}
HANDLER(lg_pop_m)
{
	uint64_t v;
	if (!peek(c, &v, u->idx) || !x86_write(c, EA0(), u->idx, &v))
		return x86_fault(c, u);
	set_sp(c, c->r[X86_RSP] + u->idx);
	NEXT();
}
HANDLER(lg_call)
{
	uint64_t next = LEGACY_NEXT_IP;
	if (!push(c, next, u->idx))
		return x86_fault(c, u);
	return legacy_jump(c, next + (uint64_t)(int64_t)u->imm, u->idx);
}
HANDLER(lg_call_r)
{
	uint64_t target = REG(uint64_t, u->src);
	if (!push(c, LEGACY_NEXT_IP, u->idx))
		return x86_fault(c, u);
	return legacy_jump(c, target, u->idx);
}
HANDLER(lg_jmp)
{
	return legacy_jump(c, LEGACY_NEXT_IP + (uint64_t)(int64_t)u->imm, u->idx);
}
HANDLER(lg_jmp_r)
{
	return legacy_jump(c, REG(uint64_t, u->src), u->idx);
}
/* dst: condition */
HANDLER(lg_jcc)
{
	uint64_t next = LEGACY_NEXT_IP;
	if (!x86_cond(c->fl, u->dst))
		return legacy_jump(c, next, 4);
	return legacy_jump(c, next + (uint64_t)(int64_t)u->imm, u->idx);
}
HANDLER(lg_ret)
{
	uint64_t v;
	if (!peek(c, &v, u->idx))
		return x86_fault(c, u);
	set_sp(c, c->r[X86_RSP] + u->idx + (uint16_t)u->imm);
	return legacy_jump(c, v, u->idx);
}
HANDLER(lg_leave)
{
	uint64_t v = 0;
	uint64_t bp = c->r[X86_RBP] & stack_mask(c);
	if (!x86_read(c, (uint32_t)(c->segbase[X86_SS] + bp), u->idx, &v))
		return x86_fault(c, u);
	set_sp(c, bp + u->idx);
	if (u->idx == 2)
		W_w(X86_RBP * 8, v);
	else
		W_l(X86_RBP * 8, v);
	NEXT();
}
HANDLER(lg_pusha)
{
	uint64_t sp = c->r[X86_RSP], old = sp;
	uint8_t image[32];
	if (u->idx == 2) {
		for (unsigned i = 0; i < 8; i++)
			store_le16(image + 2 * (7 - i), (uint16_t)(i == X86_RSP ? old : c->r[i]));
	} else {
		for (unsigned i = 0; i < 8; i++)
			store_le32(image + 4 * (7 - i), (uint32_t)(i == X86_RSP ? old : c->r[i]));
	}
	sp = (sp - 8u * u->idx) & stack_mask(c);
	if (!x86_write_bytes(c, (uint32_t)(c->segbase[X86_SS] + sp), image, 8u * u->idx))
		return x86_fault(c, u);
	set_sp(c, sp);
	NEXT();
}
HANDLER(lg_popa)
{
	uint8_t image[32];
	uint64_t sp = c->r[X86_RSP] & stack_mask(c);
	if (!x86_read_bytes(c, (uint32_t)(c->segbase[X86_SS] + sp), image, 8u * u->idx))
		return x86_fault(c, u);
	for (unsigned i = 0; i < 8; i++) {
		if (i == X86_RSP)
			continue;
		if (u->idx == 2)
			W_w(i * 8, load_le16(image + 2 * (7 - i)));
		else
			W_l(i * 8, load_le32(image + 4 * (7 - i)));
	}
	set_sp(c, sp + 8u * u->idx);
	NEXT();
}

static void flags_of(struct x86_cpu *c, uint8_t v, bool cf, bool af)
{
	uint16_t ax;
	__asm__("testb %b[v_], %b[v_]\n\tlahf\n\tseto %%al" : "=&a"(ax) : [v_] "r"(v) : "cc");
	c->fl = (uint16_t)((ax & ~(X86_F_CF | X86_F_AF)) | (cf ? X86_F_CF : 0) | (af ? X86_F_AF : 0));
}

/* DAA DAS AAA AAS AAM AAD, by opcode in imm, immediate in dst. */
HANDLER(lg_bcd)
{
	uint8_t al = (uint8_t)c->r[X86_RAX], ah = (uint8_t)(c->r[X86_RAX] >> 8);
	bool cf = c->fl & X86_F_CF, af = c->fl & X86_F_AF;
	const uint8_t old = al;
	const bool old_cf = cf;
	switch (u->imm) {
	case 0x27: case 0x2f: { /* DAA, DAS */
		bool low = (al & 0xf) > 9 || af, high = old > 0x99 || old_cf;
		int sign = u->imm == 0x27 ? 1 : -1;
		cf = high || (u->imm == 0x2f && low && (old_cf || old < 6));
		al = (uint8_t)(old + sign * ((low ? 6 : 0) + (high ? 0x60 : 0)));
		af = low;
		break;
	}
	case 0x37: case 0x3f: /* AAA, AAS */
		cf = af = (al & 0xf) > 9 || af;
		if (cf) {
			uint16_t ax = (uint16_t)(ah << 8 | al);
			ax = (uint16_t)(u->imm == 0x37 ? ax + 0x106 : ax - 0x106);
			ah = (uint8_t)(ax >> 8);
			al = (uint8_t)ax;
		}
		al &= 0xf;
		break;
	case 0xd4: /* AAM */
		if (!u->dst)
			RAISE_NOERR(X86_DE);
		ah = al / u->dst;
		al %= u->dst;
		cf = af = false;
		break;
	default: /* AAD */
		al = (uint8_t)(al + ah * u->dst);
		ah = 0;
		cf = af = false;
	}
	W_w(X86_RAX * 8, ah << 8 | al);
	flags_of(c, al, cf, af);
	NEXT();
}
#endif
