/* SPDX-License-Identifier: Apache-2.0 */
/* Data movement: addresses, MOV and its extensions, LEA, XCHG, the stack, SETcc and CMOVcc, flag instructions without arithmetic. */
#include "x86/op.h"

/* What ends a block that no branch ended: the next operation's address is in `imm` (offset in the page). */
HANDLER(goto_near)
{
	if (unlikely(c->mode != X86_MODE_64)) {
		c->rip = (uint32_t)(c->r[X86_R_PAGE] + (uint64_t)u->imm - c->segbase[X86_CS]);
		LEAVE(X86_LEAVE_LOOKUP);
	}
	TAKEN(u);
}
/* The next page. */
HANDLER(goto_far)
{
	if (unlikely(c->mode != X86_MODE_64)) {
		c->rip = (uint32_t)(c->r[X86_R_PAGE] + (uint64_t)u->imm - c->segbase[X86_CS]);
		LEAVE(X86_LEAVE_LOOKUP);
	}
	GO_RIP(c->r[X86_R_PAGE] + (uint64_t)(int64_t)u->imm);
}
/* End of a single-stepped instruction; imm: offset of the next one from the start of the page. */
HANDLER(end)
{
	c->rip = c->r[X86_R_PAGE] + (uint64_t)u->imm - c->segbase[X86_CS];
	if (c->mode != X86_MODE_64)
		c->rip &= c->mode == X86_MODE_32 ? 0xffffffffu : 0xffffu;
	LEAVE(X86_LEAVE_STEP);
}
HANDLER(nop)
{
	NEXT();
}

/* Address of a memory operand into slot X86_R_EA: base + index * scale + disp, cut to the address size (dst: 0 64, 1 32, 2 16 bits), plus
 * the base of segment src. */
HANDLER(ea)
{
	uint64_t a = EA1();
	if (u->dst == 1)
		a = (uint32_t)a;
	else if (u->dst == 2)
		a = (uint16_t)a;
	a += c->segbase[u->src];
	if (c->mode != X86_MODE_64)
		a = (uint32_t)a;
	c->r[X86_R_EA] = a;
	NEXT();
}
HANDLER(ea_seg)
{
	c->r[X86_R_EA] = EA1() + c->segbase[u->src];
	NEXT();
}
/* A RIP-relative address whose displacement from the page start does not fit 32 bits, or that is cut to 32 bits (dst 1); imm: offset of
 * the next instruction. */
HANDLER(ea_rip)
{
	uint64_t a = c->r[X86_R_PAGE] + (uint64_t)u->imm + (uint64_t)(int64_t)u->disp;
	if (u->dst == 1)
		a = (uint32_t)a;
	c->r[X86_R_EA] = a + c->segbase[u->src];
	NEXT();
}

#define DEF_MOV(x, T)                                                                                              \
	HANDLER(mov_rr_##x)                                                                                        \
	{                                                                                                          \
		W_##x(u->dst, REG(T, u->src));                                                                     \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(mov_ri_##x)                                                                                        \
	{                                                                                                          \
		W_##x(u->dst, (int64_t)u->imm);                                                                    \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(mov_rm_##x)                                                                                        \
	{                                                                                                          \
		LOAD(T, v, EA0());                                                                                 \
		W_##x(u->dst, v);                                                                                  \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(mov_rmx_##x)                                                                                       \
	{                                                                                                          \
		LOAD(T, v, EA1());                                                                                 \
		W_##x(u->dst, v);                                                                                  \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(mov_mr_##x)                                                                                        \
	{                                                                                                          \
		STORE(T, EA0(), REG(T, u->src));                                                                   \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(mov_mrx_##x)                                                                                       \
	{                                                                                                          \
		STORE(T, EA1(), REG(T, u->src));                                                                   \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(mov_mi_##x)                                                                                        \
	{                                                                                                          \
		STORE(T, EA0(), (int64_t)u->imm);                                                                  \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(xchg_rr_##x)                                                                                       \
	{                                                                                                          \
		T a = REG(T, u->dst), b = REG(T, u->src);                                                          \
		W_##x(u->dst, b);                                                                                  \
		W_##x(u->src, a);                                                                                  \
		NEXT();                                                                                            \
	}                                                                                                          \
	/* XCHG with memory is always locked. */                                                                   \
	HANDLER(xchg_m_##x)                                                                                        \
	{                                                                                                          \
		T v = REG(T, u->src);                                                                              \
		LOCKED(T, EA0(), p, { __asm__ volatile("xchg" #x " %0, %1" : "+r"(v), "+m"(*p) : : "memory"); });  \
		W_##x(u->src, v);                                                                                  \
		NEXT();                                                                                            \
	}
DEF_MOV(b, uint8_t)
DEF_MOV(w, uint16_t)
DEF_MOV(l, uint32_t)
DEF_MOV(q, uint64_t)

HANDLER(mov_ri64)
{
	REG(uint64_t, u->dst) = (uint32_t)u->disp | (uint64_t)(uint32_t)u->imm << 32;
	NEXT();
}

/* Extending moves: name, source type, destination width. */
#define DEF_EXT_RR(name, T, x)                                                                                     \
	HANDLER(name)                                                                                              \
	{                                                                                                          \
		W_##x(u->dst, REG(T, u->src));                                                                     \
		NEXT();                                                                                            \
	}
#define DEF_EXT_RM(name, T, x, ea)                                                                                 \
	HANDLER(name)                                                                                              \
	{                                                                                                          \
		LOAD(T, v, ea);                                                                                    \
		W_##x(u->dst, v);                                                                                  \
		NEXT();                                                                                            \
	}
DEF_EXT_RR(movzx_rr_bw, uint8_t, w)
DEF_EXT_RR(movzx_rr_bl, uint8_t, l)
DEF_EXT_RR(movzx_rr_wl, uint16_t, l)
DEF_EXT_RM(movzx_rm_bw, uint8_t, w, EA0())
DEF_EXT_RM(movzx_rm_bl, uint8_t, l, EA0())
DEF_EXT_RM(movzx_rm_wl, uint16_t, l, EA0())
DEF_EXT_RM(movzx_rmx_bl, uint8_t, l, EA1())
DEF_EXT_RM(movzx_rmx_wl, uint16_t, l, EA1())
DEF_EXT_RR(movsx_rr_bw, int8_t, w)
DEF_EXT_RR(movsx_rr_bl, int8_t, l)
DEF_EXT_RR(movsx_rr_bq, int8_t, q)
DEF_EXT_RR(movsx_rr_wl, int16_t, l)
DEF_EXT_RR(movsx_rr_wq, int16_t, q)
DEF_EXT_RR(movsx_rr_lq, int32_t, q)
DEF_EXT_RM(movsx_rm_bw, int8_t, w, EA0())
DEF_EXT_RM(movsx_rm_bl, int8_t, l, EA0())
DEF_EXT_RM(movsx_rm_bq, int8_t, q, EA0())
DEF_EXT_RM(movsx_rm_wl, int16_t, l, EA0())
DEF_EXT_RM(movsx_rm_wq, int16_t, q, EA0())
DEF_EXT_RM(movsx_rm_lq, int32_t, q, EA0())

HANDLER(lea_l)
{
	W_l(u->dst, EA0());
	NEXT();
}
HANDLER(lea_q)
{
	W_q(u->dst, EA0());
	NEXT();
}
HANDLER(leax_l)
{
	W_l(u->dst, EA1());
	NEXT();
}
HANDLER(leax_q)
{
	W_q(u->dst, EA1());
	NEXT();
}

HANDLER(bswap_l)
{
	W_l(u->dst, __builtin_bswap32(REG(uint32_t, u->dst)));
	NEXT();
}
HANDLER(bswap_q)
{
	W_q(u->dst, __builtin_bswap64(REG(uint64_t, u->dst)));
	NEXT();
}

/* The stack, 64-bit mode. */
#define RSP c->r[X86_RSP]
HANDLER(push_r)
{
	uint64_t v = REG(uint64_t, u->src);
	STORE(uint64_t, RSP - 8, v);
	RSP -= 8;
	NEXT();
}
HANDLER(push_i)
{
	STORE(uint64_t, RSP - 8, (int64_t)u->imm);
	RSP -= 8;
	NEXT();
}
HANDLER(push_m)
{
	LOAD(uint64_t, v, EA0());
	STORE(uint64_t, RSP - 8, v);
	RSP -= 8;
	NEXT();
}
HANDLER(pop_r)
{
	LOAD(uint64_t, v, RSP);
	RSP += 8;
	REG(uint64_t, u->dst) = v;
	NEXT();
}
/* The destination's address is computed with RSP already incremented (SDM vol. 2 POP). */
HANDLER(pop_m)
{
	LOAD(uint64_t, v, RSP);
	STORE(uint64_t, EA0(), v);
	RSP += 8;
	NEXT();
}
HANDLER(push_w)
{
	uint16_t v = REG(uint16_t, u->src);
	STORE(uint16_t, RSP - 2, v);
	RSP -= 2;
	NEXT();
}
HANDLER(pop_w)
{
	LOAD(uint16_t, v, RSP);
	RSP += 2;
	REG(uint16_t, u->dst) = v;
	NEXT();
}
HANDLER(leave)
{
	LOAD(uint64_t, v, c->r[X86_RBP]);
	RSP = c->r[X86_RBP] + 8;
	c->r[X86_RBP] = v;
	NEXT();
}

#define DEF_CC(cc, n)                                                                                              \
	HANDLER(set_##cc)                                                                                          \
	{                                                                                                          \
		REG(uint8_t, u->dst) = x86_cond(c->fl, n);                                                         \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(cmov_l_##cc)                                                                                       \
	{                                                                                                          \
		uint32_t a = REG(uint32_t, u->dst), b = REG(uint32_t, u->src);                                     \
		W_l(u->dst, x86_cond(c->fl, n) ? b : a);                                                           \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(cmov_q_##cc)                                                                                       \
	{                                                                                                          \
		uint64_t a = REG(uint64_t, u->dst), b = REG(uint64_t, u->src);                                     \
		W_q(u->dst, x86_cond(c->fl, n) ? b : a);                                                           \
		NEXT();                                                                                            \
	}
DEF_CC(o, 0) DEF_CC(no, 1) DEF_CC(b, 2) DEF_CC(nb, 3) DEF_CC(e, 4) DEF_CC(ne, 5) DEF_CC(be, 6) DEF_CC(nbe, 7)
DEF_CC(s, 8) DEF_CC(ns, 9) DEF_CC(p, 10) DEF_CC(np, 11) DEF_CC(l, 12) DEF_CC(nl, 13) DEF_CC(le, 14) DEF_CC(nle, 15)
/* imm: condition */
HANDLER(cmov_w)
{
	if (x86_cond(c->fl, (unsigned)u->imm))
		REG(uint16_t, u->dst) = REG(uint16_t, u->src);
	NEXT();
}

#define RAX_SLOT (X86_RAX * 8)
#define RDX_SLOT (X86_RDX * 8)
HANDLER(cbw)
{
	W_w(RAX_SLOT, REG(int8_t, RAX_SLOT));
	NEXT();
}
HANDLER(cwde)
{
	W_l(RAX_SLOT, REG(int16_t, RAX_SLOT));
	NEXT();
}
HANDLER(cdqe)
{
	W_q(RAX_SLOT, REG(int32_t, RAX_SLOT));
	NEXT();
}
HANDLER(cwd)
{
	W_w(RDX_SLOT, REG(int16_t, RAX_SLOT) >> 15);
	NEXT();
}
HANDLER(cdq)
{
	W_l(RDX_SLOT, REG(int32_t, RAX_SLOT) >> 31);
	NEXT();
}
HANDLER(cqo)
{
	W_q(RDX_SLOT, REG(int64_t, RAX_SLOT) >> 63);
	NEXT();
}
HANDLER(lahf)
{
	REG(uint8_t, 1) = (uint8_t)((c->fl >> 8 & 0xd5) | 2);
	NEXT();
}
HANDLER(sahf)
{
	c->fl = (uint16_t)((c->fl & 0xff) | (((REG(uint8_t, 1) & 0xd5) | 2) << 8));
	NEXT();
}
HANDLER(clc)
{
	c->fl &= (uint16_t)~X86_F_CF;
	NEXT();
}
HANDLER(stc)
{
	c->fl |= X86_F_CF;
	NEXT();
}
HANDLER(cmc)
{
	c->fl ^= X86_F_CF;
	NEXT();
}
HANDLER(cld)
{
	c->df = 0;
	NEXT();
}
HANDLER(std)
{
	c->df = 1;
	NEXT();
}
