/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz_x86_exec.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "x86/fp.h"
#include "x86/insn.h"
#include "x86/op.h"
#include "x86/paging.h"

#define GUARD        (64ull << 20)
#define DEVICE_CALLS 512 /* then REP instructions end their turn */

/* Where handlers call each other (gcc without a sanitizer), nothing can count operations, so blocks must not be linked. */
#if defined(__clang__) || defined(__SANITIZE_ADDRESS__)
#define COUNTED 1
#else
#define COUNTED 0
#endif

/* The checks look at thousands of entries each time; counting those comparisons would cost more than all the rest. */
#ifdef __clang__
#define UNCOUNTED __attribute__((no_sanitize("coverage")))
#else
#define UNCOUNTED
#endif

static void must(bool ok)
{
	if (!ok)
		abort();
}

static bool device(struct x86_cpu *c, uint64_t gpa, void *data, unsigned len, bool is_write)
{
	struct xm *m = c->owner;
	must(len >= 1 && len <= 8);
	if (++m->device_calls >= DEVICE_CALLS)
		atomic_fetch_or(&c->pending, X86_PEND_KICK);
	if (!is_write)
		memset(data, (int)(m->device_calls + gpa), len);
	return m->device_calls % 7;
}
static bool port(struct x86_cpu *c, uint16_t p, void *data, unsigned len, bool is_write)
{
	must(len == 1 || len == 2 || len == 4);
	return device(c, p, data, len, is_write);
}
static int rdmsr(struct x86_cpu *c, uint32_t msr, uint64_t *v)
{
	*v = msr;
	return msr & 1 ? -1 : 0;
}
static int wrmsr(struct x86_cpu *c, uint32_t msr, uint64_t v)
{
	return msr & 1 ? -1 : 0;
}
static uint64_t rdtsc(struct x86_cpu *c)
{
	return ((struct xm *)c->owner)->tsc += 1000;
}
static uint64_t get_cr8(struct x86_cpu *c)
{
	return 5;
}
static void set_cr8(struct x86_cpu *c, uint64_t v)
{
}

/* The software machine's own protocol for decoded code (hv/soft/vm.c), for one CPU. */
static bool may_write(struct x86_cpu *c, uint64_t gpa)
{
	struct xm *m = c->owner;
	const uint64_t page = mem_page_index(&m->mem, gpa);
	must(page < XM_RAM / MEM_PAGE_SIZE);
	if (!m->use_code)
		return false; /* so that every write is told: see code_written() */
	if (atomic_load(&m->code.pages[page].is_code))
		return false;
	atomic_fetch_or(&m->code.writers[page], 1);
	return true;
}
static bool code_written(struct x86_cpu *c, uint64_t gpa, unsigned len)
{
	struct xm *m = c->owner;
	must(mem_hva(&m->mem, gpa, len) && len && (gpa & (MEM_PAGE_SIZE - 1)) + len <= MEM_PAGE_SIZE);
	const uint32_t page = (uint32_t)mem_page_index(&m->mem, gpa);
	/* A REP instruction that overwrites itself is decoded anew after a chunk, in a block; so single steps must do that too. */
	uint64_t code;
	if (!m->use_code && x86_translate_peek(c, c->rip, &code) && code >> MEM_PAGE_SHIFT == gpa >> MEM_PAGE_SHIFT)
		return (code & (MEM_PAGE_SIZE - 1)) <= MEM_PAGE_SIZE - X86_MAX_LEN;
	if (!m->use_code || !code_invalidate(&m->code, page, gpa & (MEM_PAGE_SIZE - 1), len))
		return false;
	x86_forget_jumps(c, true, true);
	return c->block && c->block->page == page;
}

void xm_create(struct xm *m)
{
	*m = (struct xm){.env = {.mem = &m->mem, .model = &m->model, .mmio = device, .pio = port, .rdmsr = rdmsr, .wrmsr = wrmsr,
				 .rdtsc = rdtsc, .get_cr8 = get_cr8, .set_cr8 = set_cr8, .may_write = may_write,
				 .code_written = code_written}};
	uint8_t *p = mmap(NULL, XM_RAM + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(p != MAP_FAILED && mprotect(p + GUARD, XM_RAM, PROT_READ | PROT_WRITE) == 0);
	p += GUARD;
	m->mem = (struct mem){.region = {{0, XM_LOW, p}, {MEM_HOLE_END, XM_HIGH, p + XM_LOW}}, .n_regions = 2, .size = XM_RAM, .base = p, .fd = -1};
	must(x86_cpu_model_init(&m->model, "v2", 1000000, 1) == 0 && code_cache_init(&m->code, &m->mem, CODE_CACHE_MIN, NULL) == 0);
	must(posix_memalign((void **)&m->c, 64, sizeof(*m->c)) == 0);
}

static void put(struct xm *m, uint64_t gpa, uint64_t v)
{
	must(mem_write(&m->mem, gpa, &v, 8) == 0);
}

static void make_page_tables(struct xm *m, bool user)
{
	enum { P = 1, W = 2, U = 4, PS = 0x80, G = 0x100 };
	const uint64_t pml4 = XM_TABLES, pdpt = pml4 + 0x1000, pd = pml4 + 0x2000, pt = pml4 + 0x3000, nx = 1ull << 63;
	/* User code sees only its own part, so that it cannot change the tables. */
	const uint64_t large = user ? 0 : U;
	put(m, pml4, pdpt | P | W | U);
	put(m, pml4 + 511 * 8, pdpt | P | W | large);
	put(m, pdpt, pd | P | W | U);
	put(m, pdpt + 8, 0 | P | W | large | PS);
	put(m, pdpt + 511 * 8, pd | P | W | large);
	put(m, pd, pt | P | W | U);
	put(m, pd + 8, 0 | P | W | PS | G);
	for (unsigned i = 0; i < XM_RAM >> 12; i++) {
		uint64_t gpa = i < XM_LOW >> 12 ? i * 0x1000ull : MEM_HOLE_END + i * 0x1000ull - XM_LOW;
		put(m, pt + i * 8, gpa | P | W | (i >= XM_CODE >> 12 ? U : 0));
	}
	put(m, pt + (XM_DEVICE_PAGE >> 12) * 8, 0xfee00000 | P | W | U);
	put(m, pt + (XM_RO_PAGE >> 12) * 8, XM_DATA | P | U);
	put(m, pt + (XM_NX_PAGE >> 12) * 8, XM_CODE | P | W | U | nx);
	put(m, pt + (XM_TABLE_PAGE >> 12) * 8, pt | P | W);
}

static void make_descriptors(struct xm *m)
{
	static const uint64_t gdt[] = {
		0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cffa000000ffff, 0x00cff2000000ffff, 0x00affa000000ffff,
		0x0000890000000067 | (uint64_t)(XM_TSS & 0xffffff) << 16, 0, /* TSS */
		0x00cf9a000000ffff, 0x00009a000000ffff, 0x000092000000ffff,  /* 32- and 16-bit */
		0x0000820000000067 | (uint64_t)(XM_GDT & 0xffffff) << 16, 0, /* LDT: the GDT again */
		0x00cf9e000000ffff, 0x00cf96000000ffff, 0x00af98000000ffff, /* conforming, expand-down, execute-only */
	};
	for (unsigned i = 0; i < ARRAY_LEN(gdt); i++)
		put(m, XM_GDT + i * 8, gdt[i]);
	/* Handlers go on at the byte behind: +0 for vectors with an error code drops it and falls into +4. */
	static const uint8_t code[] = {0x48, 0x83, 0xc4, 0x08, 0x48, 0xff, 0x04, 0x24, 0x48, 0xcf};
	must(mem_write(&m->mem, XM_HANDLERS, code, sizeof(code)) == 0);
	for (unsigned v = 0; v < 256; v++) {
		bool error = v == 8 || (v >= 10 && v <= 14) || v == 17;
		uint64_t ist = v == X86_DF ? 1 : v == X86_PF ? 2 : 0;
		uint64_t at = XM_HANDLERS + (error ? 0 : v >= 32 ? 8 : 4);
		put(m, XM_IDT + v * 16, at | 0x08 << 16 | ist << 32 | (v & 1 ? 0xefull : 0xeeull) << 40);
	}
	put(m, XM_TSS + 4, 0xa000);
	put(m, XM_TSS + 36, 0xb000);
	put(m, XM_TSS + 44, 0xc000);
}

static struct x86_segment segment(uint16_t selector, uint16_t attr, uint32_t limit)
{
	return (struct x86_segment){.selector = selector, .attr = attr, .limit = limit};
}

void xm_reset(struct xm *m, enum xm_mode mode, struct x86_state *s)
{
	memset(m->mem.base, 0, XM_RAM);
	make_page_tables(m, mode == XM_USER);
	make_descriptors(m);
	*s = (struct x86_state){
		.rip = XM_CODE, .rflags = 0x202, .efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE, .cr3 = XM_TABLES,
		.cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG,
		.cr4 = X86_CR4_PAE | X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT,
		.gdtr = {XM_GDT, 16 * 8 - 1}, .idtr = {XM_IDT, 0xfff}, .tr = {XM_TSS, 0x67, 0x30, 0x8b},
		.star = 0x0018000800000000ull, .lstar = XM_CODE + 0x800, .sfmask = 0x700, .pat = 0x0007040600070406ull,
		.fx = {.fcw = 0x37f, .mxcsr = 0x1f80},
	};
	const bool user = mode == XM_USER;
	for (unsigned i = 0; i < X86_N_SEGS; i++)
		s->seg[i] = user ? segment(0x23, 0xc0f3, ~0u) : segment(0x10, 0xc093, ~0u);
	s->seg[X86_CS] = user ? segment(0x2b, 0xa0fb, ~0u) : mode == XM_COMPAT ? segment(0x40, 0xc09b, ~0u) : segment(0x08, 0xa09b, ~0u);
	if (mode == XM_REAL) {
		s->cr0 = X86_CR0_ET;
		s->efer = 0;
		for (unsigned i = 0; i < X86_N_SEGS; i++)
			s->seg[i] = segment(0x0800, 0x93, 0xffff), s->seg[i].base = 0x8000;
		s->seg[X86_CS] = segment(XM_CODE >> 4, 0x9b, 0xffff);
		s->seg[X86_CS].base = XM_CODE;
		s->rip = 0;
		s->idtr = (struct x86_dtable){0, 0x3ff};
	}
	/* Not for the kernel: it runs the input's code too, which lies in user pages. */
	if (mode == XM_USER)
		s->cr4 |= X86_CR4_SMEP | X86_CR4_SMAP;
	m->device_calls = 0;
	m->tsc = 0;
}

void xm_load(struct xm *m, const struct x86_state *s, bool blocks)
{
	x86_cpu_init(m->c, &m->env, m, 0);
	atomic_store(&m->c->pending, 0);
	if (m->use_code) {
		code_empty(&m->code);
		memset((void *)m->code.writers, 0, XM_RAM / MEM_PAGE_SIZE * sizeof(*m->code.writers));
		for (unsigned i = 0; i < XM_RAM / MEM_PAGE_SIZE; i++)
			atomic_store(&m->code.pages[i].is_code, 0);
	}
	m->use_code = blocks;
	m->c->arena = m->code.arena;
	x86_cpu_load(m->c, s);
}

UNCOUNTED void xm_check(const struct xm *m)
{
	const struct x86_cpu *c = m->c;
	must(c->r[X86_R_ZERO] == 0 && c->segbase[6] == 0 && c->segbase[7] == 0);
	must(c->cpl <= 3 && c->mode <= X86_MODE_64 && c->df <= 1 && c->tlb_kind < X86_N_TLBS);
	must(!(c->mxcsr & ~X86_MXCSR_VALID) && c->env == &m->env && c->owner == m && c->arena == m->code.arena);
	for (unsigned k = 0; k < X86_N_TLBS; k++) {
		for (unsigned i = 0; i < X86_TLB_SIZE; i++) {
			const struct x86_tlb_entry *e = &c->tlbs[k].e[i];
			const uint64_t gpa = c->tlbs[k].gpa[i] & ~(uint64_t)(MEM_PAGE_SIZE - 1), tag[] = {e->tag_r, e->tag_w, e->tag_x};
			for (unsigned t = 0; t < ARRAY_LEN(tag); t++) {
				if (tag[t] == X86_TLB_NONE)
					continue;
				must(X86_TLB_INDEX(tag[t]) == i && !(tag[t] & (MEM_PAGE_SIZE - 1)));
				/* What the fast tier would touch is that page of RAM, and nothing else. */
				must((uint8_t *)(uintptr_t)(tag[t] + (uint64_t)e->add) == mem_hva(&m->mem, gpa, MEM_PAGE_SIZE));
				/* And decoded code is never written behind the cache's back. */
				must(t != 1 || !m->use_code || !m->code.pages[mem_page_index(&m->mem, gpa)].first);
			}
		}
	}
}

/* What the run loop of the software machine does behind each return. True: go on. */
static bool after(struct xm *m, enum x86_leave *why, unsigned n, bool deliver, uint8_t vector)
{
	struct x86_cpu *c = m->c;
	if (*why == X86_LEAVE_EXCEPTION && deliver) {
		const struct x86_exception e = c->exc;
		if (x86_deliver(c, &e) < 0) {
			*why = X86_LEAVE_SHUTDOWN;
			return false;
		}
	} else if (*why == X86_LEAVE_HALT && deliver && vector) {
		n = 0;
	} else if (*why != X86_LEAVE_LOOKUP && *why != X86_LEAVE_STEP && *why != X86_LEAVE_PENDING) {
		return false;
	}
	if (m->device_calls >= DEVICE_CALLS) {
		*why = X86_LEAVE_PENDING;
		return false;
	}
	if (vector && n % 37 == 0 && (c->rflags & X86_FL_IF) && !c->irq_shadow && x86_interrupt(c, vector | 32) < 0) {
		*why = X86_LEAVE_SHUTDOWN;
		return false;
	}
	return true;
}

enum x86_leave xm_step(struct xm *m, unsigned limit, bool deliver, uint8_t vector)
{
	enum x86_leave why;
	unsigned n = 0;
	/* REP then ends its turn after each chunk; when nothing is delivered a fault's flags tell such turns apart. */
	if (deliver)
		atomic_store(&m->c->pending, X86_PEND_TRACE);
	x86_fp_enter(m->c);
	do {
		m->c->irq_shadow = 0;
		why = x86_step(m->c);
		n++;
	} while (after(m, &why, n, deliver, vector) && n < limit);
	x86_fp_leave(m->c);
	return n < limit || why == X86_LEAVE_EXCEPTION ? why : X86_LEAVE_PENDING;
}

/* As in hv/soft/vcpu.c. */
static const struct x86_block *lookup(struct xm *m, bool *step)
{
	struct x86_cpu *c = m->c;
	const uint64_t la = c->mode == X86_MODE_64 ? c->rip : (uint32_t)(c->segbase[X86_CS] + c->rip);
	const uint64_t la_page = la & ~(uint64_t)(MEM_PAGE_SIZE - 1);
	const struct x86_tlb_entry *te = &c->tlbs[c->tlb_kind].e[X86_TLB_INDEX(la)];
	uint64_t gpa;
	*step = false;
	if (te->tag_x != la_page && !x86_translate(c, la, X86_EXEC, &gpa))
		return NULL;
	if (te->tag_x != la_page) {
		x86_raise(c, X86_GP, 0);
		return NULL;
	}
	gpa = c->tlbs[c->tlb_kind].gpa[X86_TLB_INDEX(la)] & ~(uint64_t)(MEM_PAGE_SIZE - 1);
	const uint32_t page = (uint32_t)mem_page_index(&m->mem, gpa);
	const unsigned off = la & (MEM_PAGE_SIZE - 1);
	const struct x86_block *b = code_find(&m->code, page, off, c->mode);
	if (!b) {
		bool full;
		atomic_store(&m->code.pages[page].is_code, 1);
		if (atomic_load(&m->code.writers[page])) {
			x86_tlb_revoke_write(c, gpa);
			atomic_store(&m->code.writers[page], 0);
		}
		b = code_build(&m->code, page, (const uint8_t *)(uintptr_t)(la_page + (uint64_t)te->add), off, c->mode, &full);
		if (full) {
			code_empty(&m->code);
			x86_forget_jumps(c, true, true);
			c->block = NULL;
			c->link_op = NULL;
		}
		if (!b) {
			*step = true;
			return NULL;
		}
	}
	if (c->link_op && c->block && b->page == c->block->page && b->start == (unsigned)c->link_op->imm)
		code_link(&m->code, c->block, c->link_op, b);
	c->link_op = NULL;
	c->r[X86_R_PAGE] = la_page;
	if (c->mode == X86_MODE_64)
		x86_note_jump(c, la, (uint32_t)((const uint8_t *)b - m->code.arena));
	return b;
}

enum x86_leave xm_blocks(struct xm *m, unsigned limit, bool deliver, uint8_t vector, bool linked)
{
	struct x86_cpu *c = m->c;
	enum x86_leave why;
	unsigned n = 0, ops = 0;
	if (!linked || !COUNTED)
		atomic_store(&c->pending, X86_PEND_TRACE);
	x86_fp_enter(c);
	do {
		bool step;
		const struct x86_block *b = c->irq_shadow ? NULL : lookup(m, &step);
		if (b) {
			must(b->page < XM_RAM / MEM_PAGE_SIZE && !b->dead);
			c->block = b;
			c->icount += b->n_insns;
			const struct x86_op *u = &b->op[0];
			while (u) {
				u = x86_fast_table[u->h](c, u, x86_fast_table);
				if (++ops == limit * 4)
					atomic_fetch_or(&c->pending, X86_PEND_KICK);
			}
			why = c->leave;
		} else if (c->irq_shadow || step) {
			c->irq_shadow = 0;
			why = x86_step(c);
		} else {
			why = X86_LEAVE_EXCEPTION;
		}
		n++;
	} while (after(m, &why, n, deliver, vector) && n < limit && ops < limit * 4);
	x86_fp_leave(c);
	return (n < limit && ops < limit * 4) || why == X86_LEAVE_EXCEPTION ? why : X86_LEAVE_PENDING;
}
