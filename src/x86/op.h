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
#define X86_TLB_INDEX(ea) (((ea) >> MEM_PAGE_SHIFT) & (X86_TLB_SIZE - 1))
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

/* Slow tier: raise a fault from a handler. */
#define RAISE(vector, error) return (x86_raise(c, (vector), (error)), x86_fault(c, u))
#define RAISE_NOERR(vector) return (x86_raise_noerr(c, (vector)), x86_fault(c, u))
#endif /* X86_TIER_FAST */

#endif
