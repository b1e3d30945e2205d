/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations: what an instruction is decoded into, and how handlers are written.
 *
 * An operation is 16 bytes and position-independent: a handler number, register slots as byte offsets into struct x86_cpu, and offsets
 * within the page for guest addresses, so that decoded blocks can be saved and mapped elsewhere. Nearly every instruction is one
 * operation; an addressing form that a handler has no fast path for is computed by an address-prefix operation in front
 * of it (X86_OP_ea*), into slot X86_R_EA. Both carry the same `ip`.
 *
 * Tiers: a handler file is compiled twice, with X86_TIER_FAST 1 and 0. In the fast tier HANDLER bodies end in a tail call of the next
 * handler; where the compiler does not make tail calls (no optimisation, sanitizers) X86_THREADED is 0 and they return the next operation to
 * a loop. The slow tier always returns it. NULL leaves guest code with c->leave set.
 *
 * Every instruction completes or leaves no trace: memory macros that fail leave the handler before anything was changed, so loads and
 * stores come before register and flag updates.
 */
#ifndef X86_OP_H
#define X86_OP_H

#include "base/util.h"
#include "x86/cpu.h"
#include "x86/insn.h"
#include "x86/paging.h"

struct x86_op {
	uint16_t h;   /* enum x86_opcode */
	uint16_t ip;  /* bits 0-11: offset of the instruction in its page; bits 12-15: its length (slot X86_R_PAGE + ip + len = next rip) */
	uint8_t dst;  /* byte offset of a register slot (AH is 1, ...), or a register number where the handler says so */
	uint8_t src;
	uint8_t base; /* byte offset of the base's slot */
	uint8_t idx;  /* (index slot * 8) | scale */
	int32_t disp; /* displacement, or the link to a chained block */
	int32_t imm;
};
_Static_assert(sizeof(struct x86_op) == 16, "operations are 16 bytes");

/* A decoded block in the arena: straight-line code within one page. */
struct x86_block {
	uint32_t hash_next;  /* arena offset of the next block in the hash chain, 0: none */
	uint32_t page_next;  /* arena offset of the next block of the same page */
	uint32_t page;       /* mem_page_index of its guest-physical page */
	uint16_t start;      /* offset of the first byte in the page */
	uint16_t bytes;      /* of guest code */
	uint16_t n_insns, n_ops;
	uint8_t mode;        /* enum x86_mode */
	uint8_t dead;
	uint8_t pad[10];
	struct x86_op op[];
};
_Static_assert(sizeof(struct x86_block) == 32, "block headers keep operations aligned");

typedef const struct x86_op *x86_handler(struct x86_cpu *c, const struct x86_op *u, const void *table);

#define X86_IP_OFF(u) ((u)->ip & 0xfffu)
#define X86_IP_LEN(u) ((unsigned)(u)->ip >> 12)
#define X86_RIP(c, u)      ((c)->r[X86_R_PAGE] + X86_IP_OFF(u))
#define X86_RIP_NEXT(c, u) ((c)->r[X86_R_PAGE] + X86_IP_OFF(u) + X86_IP_LEN(u))

/* The two tables of handlers, by enum x86_opcode. */
extern x86_handler *const x86_fast_table[];
extern x86_handler *const x86_slow_table[];

/* Fast tier: runs this operation through the slow tier and goes on. */
x86_handler x86_go_slow;
/* Slow tier: leaves with the exception in c->exc at the instruction of u. */
const struct x86_op *x86_fault(struct x86_cpu *c, const struct x86_op *u) __attribute__((cold));

/* A branch whose target block is not linked yet: leaves for the run loop, which links it. */
const struct x86_op *x86_unlinked(struct x86_cpu *c, const struct x86_op *j);
/* Takes back the count of the current block's instructions from u on, which will not be executed now. */
void x86_uncount(struct x86_cpu *c, const struct x86_op *u);

#ifndef X86_THREADED
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#define X86_THREADED 1
#else
#define X86_THREADED 0
#endif
#endif

#ifdef X86_TIER_FAST
/* HANDLER(name) { ... NEXT(); } defines x86_fast_NAME or x86_slow_NAME; c, u and table are in scope. */
#if X86_TIER_FAST
#define X86_H(name) x86_fast_##name
#else
#define X86_H(name) x86_slow_##name
#endif
#define HANDLER(name)                                                                                              \
	x86_handler X86_H(name);                                                                                   \
	const struct x86_op *X86_H(name)(struct x86_cpu * c, const struct x86_op *u, const void *table)

#if X86_TIER_FAST && X86_THREADED
#define DISPATCH(n) return ((x86_handler *const *)table)[(n)->h](c, (n), table)
#else
#define DISPATCH(n) return (n)
#endif
#define NEXT() DISPATCH(u + 1)

/* A register slot by byte offset, as an lvalue of type T. */
#define REG(T, off) (*(T *)((char *)c->r + (off)))

/* Effective addresses: base + disp; base + index * scale + disp. */
#define EA0() (REG(uint64_t, u->base) + (int64_t)u->disp)
#define EA1() (EA0() + (REG(uint64_t, u->idx & 0xf8) << (u->idx & 3)))

/* LOAD(T, v, ea): T v = memory at linear address ea. STORE(T, ea, v). Leave the handler when they cannot. */
#define X86_TLB_MATCH(ea, size) (((ea) + (size)-1) & ~(uint64_t)(MEM_PAGE_SIZE - 1))

#if X86_TIER_FAST
#define LOAD(T, v, ea)                                                                                             \
	T v;                                                                                                       \
	do {                                                                                                       \
		const uint64_t ea_ = (ea);                                                                         \
		const struct x86_tlb_entry *te_ = &c->tlb[X86_TLB_INDEX(ea_)];                                     \
		if (unlikely(te_->tag_r != X86_TLB_MATCH(ea_, sizeof(T))))                                         \
			return x86_go_slow(c, u, table);                                                           \
		typedef T unaligned_ __attribute__((aligned(1), may_alias));                                       \
		v = *(volatile unaligned_ *)(ea_ + (uint64_t)te_->add);                                            \
	} while (0)
#define STORE(T, ea, val)                                                                                          \
	do {                                                                                                       \
		const uint64_t ea_ = (ea);                                                                         \
		const struct x86_tlb_entry *te_ = &c->tlb[X86_TLB_INDEX(ea_)];                                     \
		if (unlikely(te_->tag_w != X86_TLB_MATCH(ea_, sizeof(T))))                                         \
			return x86_go_slow(c, u, table);                                                           \
		typedef T unaligned_ __attribute__((aligned(1), may_alias));                                       \
		*(volatile unaligned_ *)(ea_ + (uint64_t)te_->add) = (T)(val);                                     \
	} while (0)
#else
#define LOAD(T, v, ea)                                                                                             \
	T v;                                                                                                       \
	do {                                                                                                       \
		if (unlikely(!x86_read(c, (ea), sizeof(T), &v)))                                                   \
			return x86_fault(c, u);                                                                    \
	} while (0)
#define STORE(T, ea, val)                                                                                          \
	do {                                                                                                       \
		T val_ = (T)(val);                                                                                 \
		if (unlikely(!x86_write(c, (ea), sizeof(T), &val_)))                                               \
			return x86_fault(c, u);                                                                    \
	} while (0)
#endif

/* Read-modify-write of plain memory without LOCK: LOAD_RMW checks for writing first, so STORE_RMW cannot fail. LOCKED runs `body` with
 * `p` pointing at the operand in memory itself, for host LOCK instructions; a page-crossing or MMIO operand is a copy worked on
 * with every other CPU stopped. */
#if X86_TIER_FAST
#define LOAD_RMW(T, v, ea)                                                                                         \
	typedef T rmw_t_ __attribute__((aligned(1), may_alias));                                                   \
	const uint64_t rmw_ea_ = (ea);                                                                             \
	const struct x86_tlb_entry *rmw_te_ = &c->tlb[X86_TLB_INDEX(rmw_ea_)];                                     \
	if (unlikely(rmw_te_->tag_w != X86_TLB_MATCH(rmw_ea_, sizeof(T))))                                         \
		return x86_go_slow(c, u, table);                                                                   \
	volatile rmw_t_ *const rmw_p_ = (volatile rmw_t_ *)(rmw_ea_ + (uint64_t)rmw_te_->add);                     \
	T v = *rmw_p_
#define STORE_RMW(T, val) (*rmw_p_ = (T)(val))
#define LOCKED(T, ea, p, body)                                                                                     \
	do {                                                                                                       \
		const uint64_t ea_ = (ea);                                                                         \
		const struct x86_tlb_entry *te_ = &c->tlb[X86_TLB_INDEX(ea_)];                                     \
		if (unlikely(te_->tag_w != X86_TLB_MATCH(ea_, sizeof(T))))                                         \
			return x86_go_slow(c, u, table);                                                           \
		typedef T locked_t_ __attribute__((aligned(1), may_alias));                                        \
		volatile locked_t_ *const p = (volatile locked_t_ *)(ea_ + (uint64_t)te_->add);                    \
		body                                                                                               \
	} while (0)
#else
#define LOAD_RMW(T, v, ea)                                                                                         \
	const uint64_t rmw_ea_ = (ea);                                                                             \
	T v;                                                                                                       \
	if (unlikely(!x86_probe_write(c, rmw_ea_, sizeof(T)) || !x86_read(c, rmw_ea_, sizeof(T), &v)))             \
	return x86_fault(c, u)
#define STORE_RMW(T, val)                                                                                          \
	do {                                                                                                       \
		T val_ = (T)(val);                                                                                 \
		if (unlikely(!x86_write(c, rmw_ea_, sizeof(T), &val_)))                                            \
			return x86_fault(c, u);                                                                    \
	} while (0)
#define LOCKED(T, ea, p, body)                                                                                     \
	do {                                                                                                       \
		const uint64_t ea_ = (ea);                                                                         \
		typedef T locked_t_ __attribute__((aligned(1), may_alias));                                        \
		T copy_;                                                                                           \
		volatile locked_t_ *p = x86_host(c, ea_, sizeof(T), X86_WRITE);                                    \
		const bool plain_ = p;                                                                             \
		if (!plain_) {                                                                                     \
			if (c->exc.vector != X86_NOT_PLAIN)                                                        \
				return x86_fault(c, u);                                                            \
			if (c->env->world_lock)                                                                    \
				c->env->world_lock(c);                                                             \
			p = (volatile locked_t_ *)&copy_;                                                          \
			/* With the world stopped, so that the store cannot fault after this. */                   \
			if (!x86_probe_write(c, ea_, sizeof(T)) || !x86_read(c, ea_, sizeof(T), &copy_)) {         \
				if (c->env->world_unlock)                                                          \
					c->env->world_unlock(c);                                                   \
				return x86_fault(c, u);                                                            \
			}                                                                                          \
		}                                                                                                  \
		body                                                                                               \
		if (plain_) {                                                                                      \
			x86_host_written(c, ea_, sizeof(T));                                                       \
		} else {                                                                                           \
			x86_write(c, ea_, sizeof(T), &copy_);                                                      \
			if (c->env->world_unlock)                                                                  \
				c->env->world_unlock(c);                                                           \
		}                                                                                                  \
	} while (0)
#endif

/* Leaving a block. GO_RIP jumps to a linear address in 64-bit mode; TAKEN follows the link of a branch operation to a target in the same
 * page (imm: its offset in the page). */
#define LEAVE(why)                                                                                                 \
	do {                                                                                                       \
		c->leave = (why);                                                                                  \
		return NULL;                                                                                       \
	} while (0)
#if X86_TIER_FAST
#define ENTER(blk)                                                                                                 \
	do {                                                                                                       \
		const struct x86_block *b_ = (blk);                                                                \
		if (unlikely(atomic_load_explicit(&c->pending, memory_order_relaxed))) {                           \
			c->rip = c->r[X86_R_PAGE] + b_->start;                                                     \
			LEAVE(X86_LEAVE_PENDING);                                                                  \
		}                                                                                                  \
		c->block = b_;                                                                                     \
		c->icount += b_->n_insns;                                                                          \
		DISPATCH(&b_->op[0]);                                                                              \
	} while (0)
#define GO_RIP(target)                                                                                             \
	do {                                                                                                       \
		const uint64_t t_ = (target);                                                                      \
		const struct x86_jump *j_ = &c->jc[X86_JC_INDEX(t_)];                                              \
		if (likely(j_->rip == t_ && j_->gen == c->jc_gen)) {                                               \
			c->r[X86_R_PAGE] = t_ & ~(uint64_t)(MEM_PAGE_SIZE - 1);                                    \
			ENTER((const struct x86_block *)(c->arena + j_->block));                                   \
		}                                                                                                  \
		c->rip = t_;                                                                                       \
		LEAVE(X86_LEAVE_LOOKUP);                                                                           \
	} while (0)
/* The same for an indirect branch: a target that is not canonical is #GP at the branch, before `commit` (the change of RSP). A
 * target in the jump cache needs no look. */
#define GO_RIP_INDIRECT(target, commit)                                                                            \
	do {                                                                                                       \
		const uint64_t t_ = (target);                                                                      \
		const struct x86_jump *j_ = &c->jc[X86_JC_INDEX(t_)];                                              \
		if (likely(j_->rip == t_ && j_->gen == c->jc_gen)) {                                               \
			commit;                                                                                    \
			c->r[X86_R_PAGE] = t_ & ~(uint64_t)(MEM_PAGE_SIZE - 1);                                    \
			ENTER((const struct x86_block *)(c->arena + j_->block));                                   \
		}                                                                                                  \
		if (unlikely((uint64_t)((int64_t)(t_ << 16) >> 16) != t_))                                         \
			return x86_go_slow(c, u, table);                                                           \
		commit;                                                                                            \
		c->rip = t_;                                                                                       \
		LEAVE(X86_LEAVE_LOOKUP);                                                                           \
	} while (0)
#define TAKEN(j)                                                                                                   \
	do {                                                                                                       \
		const struct x86_op *l_ = (j);                                                                     \
		const uint32_t link_ = (uint32_t)*(const volatile int32_t *)&l_->disp;                             \
		if (likely(link_))                                                                                 \
			ENTER((const struct x86_block *)(c->arena + link_));                                       \
		return x86_unlinked(c, l_);                                                                        \
	} while (0)
#else
#define GO_RIP(target)                                                                                             \
	do {                                                                                                       \
		c->rip = (target);                                                                                 \
		LEAVE(X86_LEAVE_LOOKUP);                                                                           \
	} while (0)
#define GO_RIP_INDIRECT(target, commit)                                                                            \
	do {                                                                                                       \
		const uint64_t t_ = (target);                                                                      \
		if (unlikely((uint64_t)((int64_t)(t_ << 16) >> 16) != t_))                                         \
			RAISE(X86_GP, 0);                                                                          \
		commit;                                                                                            \
		c->rip = t_;                                                                                       \
		LEAVE(X86_LEAVE_LOOKUP);                                                                           \
	} while (0)
#define TAKEN(j) GO_RIP(c->r[X86_R_PAGE] + (uint64_t)(int64_t)(j)->imm)
#endif

/* Condition codes (SDM vol. 1 appendix B) from the flags as struct x86_cpu keeps them. */
#define X86_F_CF 0x0100u
#define X86_F_PF 0x0400u
#define X86_F_AF 0x1000u
#define X86_F_ZF 0x4000u
#define X86_F_SF 0x8000u
#define X86_F_OF 0x0001u
static inline bool x86_cond(uint32_t fl, unsigned cc)
{
	bool r;
	switch (cc >> 1) {
	case 0: r = fl & X86_F_OF; break;
	case 1: r = fl & X86_F_CF; break;
	case 2: r = fl & X86_F_ZF; break;
	case 3: r = fl & (X86_F_CF | X86_F_ZF); break;
	case 4: r = fl & X86_F_SF; break;
	case 5: r = fl & X86_F_PF; break;
	case 6: r = ((fl >> 15) ^ fl) & 1; break;
	default: r = (((fl >> 15) ^ fl) & 1) | (fl & X86_F_ZF); break;
	}
	return r != (cc & 1);
}

/* Writing a result to a register slot, by operand size: 32-bit results zero-extend (SDM vol. 1 section 3.4.1.1). */
#define W_b(off, v) (REG(uint8_t, off) = (uint8_t)(v))
#define W_w(off, v) (REG(uint16_t, off) = (uint16_t)(v))
#define W_l(off, v) (REG(uint64_t, off) = (uint32_t)(v))
#define W_q(off, v) (REG(uint64_t, off) = (uint64_t)(v))

/* Slow tier: raise a fault from a handler. */
#define RAISE(vector, error) return (x86_raise(c, (vector), (error)), x86_fault(c, u))
#define RAISE_NOERR(vector) return (x86_raise_noerr(c, (vector)), x86_fault(c, u))
#endif /* X86_TIER_FAST */

#endif
