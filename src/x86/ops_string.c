/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions (SDM vol. 2 MOVS, STOS, LODS, SCAS, CMPS, INS, OUTS and REP).
 *
 * Theory of operation: a REP instruction works in chunks that stay within one page of source and destination, runs the host's own
 * `rep` on each, and writes rSI, rDI and rCX back after it, so that a fault or an interrupt finds exact partial progress and the
 * instruction resumes. Elements that cross a page or touch a device go one at a time.
 *
 * Operation fields: dst element size; src address size; idx segment of the source; imm 0 no prefix, 1 REP/REPE, 2 REPNE.
 */
#include "x86/op.h"

#include "x86/system.h"

#if !X86_TIER_FAST
/* Address registers under the address size. */
static uint64_t get_reg(const struct x86_cpu *c, unsigned r, unsigned asize)
{
	return asize == 8 ? c->r[r] : asize == 4 ? (uint32_t)c->r[r] : (uint16_t)c->r[r];
}

static void set_reg(struct x86_cpu *c, unsigned r, unsigned asize, uint64_t v)
{
	if (asize == 2)
		REG(uint16_t, r * 8) = (uint16_t)v;
	else
		c->r[r] = asize == 4 ? (uint32_t)v : v;
}

static uint64_t linear(const struct x86_cpu *c, unsigned seg, uint64_t off)
{
	uint64_t la = c->segbase[seg] + off;
	return c->mode == X86_MODE_64 ? la : (uint32_t)la;
}

/* How many elements of size s from la stay in its page, in the direction of DF. 0: not even one. */
static uint64_t room(uint64_t la, unsigned s, bool down)
{
	uint64_t off = la & (MEM_PAGE_SIZE - 1);
	if (off + s > MEM_PAGE_SIZE)
		return 0;
	return down ? off / s + 1 : (MEM_PAGE_SIZE - off) / s;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Leaves a REP instruction that has more to do: it is executed again. */
static const struct x86_op *again(struct x86_cpu *c, const struct x86_op *u)
{
	x86_uncount(c, u);
	c->rip = X86_RIP(c, u) - c->segbase[X86_CS];
	c->leave = X86_LEAVE_LOOKUP;
	return NULL;
}

/* Another vCPU or an interrupt wants attention between chunks; also, decoded code may have been overwritten. */
static bool interrupted(const struct x86_cpu *c)
{
	return c->smc || atomic_load_explicit(&c->pending, memory_order_relaxed);
}

static void host_movs(void *d, const void *s, uint64_t n, unsigned size, bool down)
{
	if (down)
		__asm__ volatile("std" ::: "cc");
	switch (size) {
	case 1: __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory"); break;
	case 2: __asm__ volatile("rep movsw" : "+D"(d), "+S"(s), "+c"(n) : : "memory"); break;
	case 4: __asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(n) : : "memory"); break;
	default: __asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(n) : : "memory"); break;
	}
	if (down)
		__asm__ volatile("cld" ::: "cc");
}

static void host_stos(void *d, uint64_t v, uint64_t n, unsigned size, bool down)
{
	if (down)
		__asm__ volatile("std" ::: "cc");
	switch (size) {
	case 1: __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(v) : "memory"); break;
	case 2: __asm__ volatile("rep stosw" : "+D"(d), "+c"(n) : "a"(v) : "memory"); break;
	case 4: __asm__ volatile("rep stosl" : "+D"(d), "+c"(n) : "a"(v) : "memory"); break;
	default: __asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(v) : "memory"); break;
	}
	if (down)
		__asm__ volatile("cld" ::: "cc");
}

HANDLER(movs)
{
	const unsigned size = u->dst, asize = u->src;
	const bool down = c->df, rep = u->imm;
	const uint64_t step = down ? (uint64_t)-(int64_t)size : size;
	uint64_t count = rep ? get_reg(c, X86_RCX, asize) : 1;
	while (count) {
		const uint64_t si = get_reg(c, X86_RSI, asize), di = get_reg(c, X86_RDI, asize);
		const uint64_t from = linear(c, u->idx, si), to = linear(c, X86_ES, di);
		uint64_t n = least(count, least(room(from, size, down), room(to, size, down)));
		uint8_t *s = n ? x86_host(c, from, size, X86_READ) : NULL;
		if (n && !s && c->exc.vector != X86_NOT_PLAIN)
			return x86_fault(c, u);
		uint8_t *d = s ? x86_host(c, to, size, X86_WRITE) : NULL;
		if (s && !d && c->exc.vector != X86_NOT_PLAIN)
			return x86_fault(c, u);
		if (d) {
			host_movs(d, s, n, size, down);
			x86_host_written(c, down ? to - (n - 1) * size : to, (unsigned)(n * size));
		} else {
			uint64_t v = 0;
			n = 1;
			if (!x86_read(c, from, size, &v) || !x86_write(c, to, size, &v))
				return x86_fault(c, u);
		}
		set_reg(c, X86_RSI, asize, si + n * step);
		set_reg(c, X86_RDI, asize, di + n * step);
		count -= n;
		if (rep)
			set_reg(c, X86_RCX, asize, count);
		if (count && interrupted(c))
			return again(c, u);
	}
	NEXT();
}

HANDLER(stos)
{
	const unsigned size = u->dst, asize = u->src;
	const bool down = c->df, rep = u->imm;
	const uint64_t step = down ? (uint64_t)-(int64_t)size : size;
	uint64_t count = rep ? get_reg(c, X86_RCX, asize) : 1;
	while (count) {
		const uint64_t di = get_reg(c, X86_RDI, asize), to = linear(c, X86_ES, di);
		uint64_t n = least(count, room(to, size, down));
		uint8_t *d = n ? x86_host(c, to, size, X86_WRITE) : NULL;
		if (n && !d && c->exc.vector != X86_NOT_PLAIN)
			return x86_fault(c, u);
		if (d) {
			host_stos(d, c->r[X86_RAX], n, size, down);
			x86_host_written(c, down ? to - (n - 1) * size : to, (unsigned)(n * size));
		} else {
			n = 1;
			if (!x86_write(c, to, size, &c->r[X86_RAX]))
				return x86_fault(c, u);
		}
		set_reg(c, X86_RDI, asize, di + n * step);
		count -= n;
		if (rep)
			set_reg(c, X86_RCX, asize, count);
		if (count && interrupted(c))
			return again(c, u);
	}
	NEXT();
}

HANDLER(lods)
{
	const unsigned size = u->dst, asize = u->src;
	uint64_t count = u->imm ? get_reg(c, X86_RCX, asize) : 1;
	while (count) {
		uint64_t v = 0, si = get_reg(c, X86_RSI, asize);
		if (!x86_read(c, linear(c, u->idx, si), size, &v))
			return x86_fault(c, u);
		switch (size) {
		case 1: W_b(X86_RAX * 8, v); break;
		case 2: W_w(X86_RAX * 8, v); break;
		case 4: W_l(X86_RAX * 8, v); break;
		default: W_q(X86_RAX * 8, v);
		}
		set_reg(c, X86_RSI, asize, c->df ? si - size : si + size);
		count--;
		if (u->imm)
			set_reg(c, X86_RCX, asize, count);
		if (count && interrupted(c))
			return again(c, u);
	}
	NEXT();
}

/* Flags of a - b at the element size. */
static uint16_t compare(uint64_t a, uint64_t b, unsigned size)
{
	uint16_t ax;
	switch (size) {
	case 1: __asm__("cmpb %b2, %b1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc"); break;
	case 2: __asm__("cmpw %w2, %w1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc"); break;
	case 4: __asm__("cmpl %k2, %k1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc"); break;
	default: __asm__("cmpq %q2, %q1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc"); break;
	}
	return ax;
}

HANDLER(scas)
{
	const unsigned size = u->dst, asize = u->src;
	const uint16_t flags = c->fl; /* what a fault in the middle leaves (SDM vol. 2 REP) */
	uint64_t count = u->imm ? get_reg(c, X86_RCX, asize) : 1;
	while (count) {
		uint64_t v = 0, di = get_reg(c, X86_RDI, asize);
		if (!x86_read(c, linear(c, X86_ES, di), size, &v)) {
			c->fl = flags;
			return x86_fault(c, u);
		}
		c->fl = compare(c->r[X86_RAX], v, size);
		set_reg(c, X86_RDI, asize, c->df ? di - size : di + size);
		count--;
		if (u->imm)
			set_reg(c, X86_RCX, asize, count);
		if (u->imm && !!(c->fl & X86_F_ZF) != (u->imm == 1))
			break;
		if (count && interrupted(c))
			return again(c, u);
	}
	NEXT();
}

HANDLER(cmps)
{
	const unsigned size = u->dst, asize = u->src;
	const uint16_t flags = c->fl; /* what a fault in the middle leaves (SDM vol. 2 REP) */
	uint64_t count = u->imm ? get_reg(c, X86_RCX, asize) : 1;
	while (count) {
		uint64_t a = 0, b = 0, si = get_reg(c, X86_RSI, asize), di = get_reg(c, X86_RDI, asize);
		if (!x86_read(c, linear(c, X86_ES, di), size, &b) || !x86_read(c, linear(c, u->idx, si), size, &a)) {
			c->fl = flags;
			return x86_fault(c, u);
		}
		c->fl = compare(a, b, size);
		set_reg(c, X86_RSI, asize, c->df ? si - size : si + size);
		set_reg(c, X86_RDI, asize, c->df ? di - size : di + size);
		count--;
		if (u->imm)
			set_reg(c, X86_RCX, asize, count);
		if (u->imm && !!(c->fl & X86_F_ZF) != (u->imm == 1))
			break;
		if (count && interrupted(c))
			return again(c, u);
	}
	NEXT();
}

HANDLER(ins)
{
	const unsigned size = u->dst, asize = u->src;
	uint64_t count = u->imm ? get_reg(c, X86_RCX, asize) : 1;
	if (!x86_io_allowed(c))
		return x86_fault(c, u);
	while (count) {
		uint64_t v = ~0ull, di = get_reg(c, X86_RDI, asize), to = linear(c, X86_ES, di);
		/* The port must not be read when the store would fault. */
		if (!x86_probe_write(c, to, size))
			return x86_fault(c, u);
		if (!c->env->pio(c, (uint16_t)c->r[X86_RDX], &v, size, false))
			v = ~0ull;
		if (!x86_write(c, to, size, &v))
			return x86_fault(c, u);
		set_reg(c, X86_RDI, asize, c->df ? di - size : di + size);
		count--;
		if (u->imm)
			set_reg(c, X86_RCX, asize, count);
		if (count && interrupted(c))
			return again(c, u);
	}
	NEXT();
}

HANDLER(outs)
{
	const unsigned size = u->dst, asize = u->src;
	uint64_t count = u->imm ? get_reg(c, X86_RCX, asize) : 1;
	if (!x86_io_allowed(c))
		return x86_fault(c, u);
	while (count) {
		uint64_t v = 0, si = get_reg(c, X86_RSI, asize);
		if (!x86_read(c, linear(c, u->idx, si), size, &v))
			return x86_fault(c, u);
		c->env->pio(c, (uint16_t)c->r[X86_RDX], &v, size, true);
		set_reg(c, X86_RSI, asize, c->df ? si - size : si + size);
		count--;
		if (u->imm)
			set_reg(c, X86_RCX, asize, count);
		if (count && interrupted(c))
			return again(c, u);
	}
	NEXT();
}
#endif
