/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: find() turns a linear address into a host pointer or an MMIO address: first through the soft TLB, then by a
 * walk of the guest's page tables, which fills the TLB for pages that are plain RAM. All the slow tier's accessors are built on it.
 *
 * Accessed and dirty bits are set with compare-and-swap after all checks have passed, so a walk that faults changes nothing
 * and two vCPUs never lose each other's updates; when the swap fails, the walk starts again.
 */
#include "x86/insn.h"
#include "x86/paging.h"

#include <string.h>

#include "base/util.h"

#define PTE_P   BIT(0)
#define PTE_W   BIT(1)
#define PTE_U   BIT(2)
#define PTE_A   BIT(5)
#define PTE_D   BIT(6)
#define PTE_PS  BIT(7)
#define PTE_G   BIT(8)
#define PTE_NX  BIT(63)
#define PHYS_BITS 46
#define PTE_ADDR  (((1ull << PHYS_BITS) - 1) & ~0xfffull)
#define PTE_RSVD  (((1ull << 52) - 1) & ~((1ull << PHYS_BITS) - 1))

static const uint64_t page_mask = ~(uint64_t)(MEM_PAGE_SIZE - 1);

/* What a walk found. */
struct walk {
	uint64_t gpa;
	bool writable; /* a write with this privilege would not fault */
	bool dirty;    /* and the D bit is set already */
	bool executable;
	bool global;
	uint8_t level; /* of the leaf: 0 4 KiB, 1 2 MiB, 2 1 GiB */
};

static bool is_canonical(uint64_t la)
{
	return (uint64_t)((int64_t)(la << 16) >> 16) == la;
}

/* Fills c->exc with a page fault; always false. */
static bool page_fault(struct x86_cpu *c, uint64_t la, uint32_t code)
{
	c->exc = (struct x86_exception){.vector = X86_PF, .has_error = true, .error = code, .cr2 = la};
	return false;
}

/* 4-level paging, SDM vol. 3 section 4.5. `peek`: report, but change neither tables nor c->exc. */
static bool walk_4level(struct x86_cpu *c, enum x86_tlb_kind kind, uint64_t la, enum x86_access access, bool peek, struct walk *w)
{
	const bool nxe = c->efer & X86_EFER_NXE;
	const bool user = kind == X86_TLB_USER;
	uint32_t code = (access == X86_WRITE ? X86_PF_W : 0) | (user ? X86_PF_U : 0) |
			(access == X86_EXEC && (nxe || (c->cr4 & X86_CR4_SMEP)) ? X86_PF_I : 0);
	_Atomic uint64_t *slot[4];
	uint64_t pte[4], entry_gpa[4];
	unsigned level;

again:
	level = 3;
	uint64_t table = c->cr3 & PTE_ADDR;
	bool w_all = true, u_all = true, nx_any = false;
	for (unsigned n = 0;; n++, level--) {
		unsigned index = (unsigned)(la >> (12 + 9 * level)) & 511;
		entry_gpa[n] = table + index * 8;
		slot[n] = mem_hva(c->env->mem, entry_gpa[n], 8);
		/* Tables outside RAM read as all ones on the bus: reserved bits set. */
		pte[n] = slot[n] ? atomic_load_explicit(slot[n], memory_order_relaxed) : ~0ull;
		uint64_t e = pte[n];
		if (!(e & PTE_P))
			return peek ? false : page_fault(c, la, code);
		uint64_t rsvd = PTE_RSVD | (nxe ? 0 : PTE_NX);
		if (level == 3)
			rsvd |= PTE_PS;
		bool leaf = level == 0 || (level < 3 && (e & PTE_PS));
		if (leaf && level)
			rsvd |= (1ull << (12 + 9 * level)) - (1ull << 13);
		if (e & rsvd)
			return peek ? false : page_fault(c, la, code | X86_PF_P | X86_PF_RSVD);
		w_all &= !!(e & PTE_W);
		u_all &= !!(e & PTE_U);
		nx_any |= nxe && (e & PTE_NX);
		if (leaf) {
			uint64_t span = (1ull << (12 + 9 * level)) - 1;
			w->gpa = (e & PTE_ADDR & ~span) | (la & span);
			break;
		}
		table = e & PTE_ADDR;
	}
	const unsigned last = 3 - level;
	w->level = (uint8_t)level;
	const uint64_t leaf = pte[last];

	/* Access rights, SDM vol. 3 section 4.6.1. */
	const bool smap = (c->cr4 & X86_CR4_SMAP) && kind == X86_TLB_KERNEL;
	w->executable = !nx_any && (user ? u_all : !(u_all && (c->cr4 & X86_CR4_SMEP)));
	const bool data_ok = user ? u_all : !(u_all && smap);
	w->writable = data_ok && (w_all || (!user && !(c->cr0 & X86_CR0_WP)));
	w->dirty = leaf & PTE_D;
	w->global = (leaf & PTE_G) && (c->cr4 & X86_CR4_PGE);
	if (peek)
		return true;
	bool ok = access == X86_EXEC ? w->executable : access == X86_WRITE ? w->writable : data_ok;
	if (!ok)
		return page_fault(c, la, code | X86_PF_P);

	for (unsigned n = 0; n <= last; n++) {
		uint64_t want = pte[n] | PTE_A | (n == last && access == X86_WRITE ? PTE_D : 0);
		if (want == pte[n])
			continue;
		uint64_t seen = pte[n];
		if (!atomic_compare_exchange_strong(slot[n], &seen, want))
			goto again;
		mem_dirty_set(c->env->mem, mem_page_index(c->env->mem, entry_gpa[n]));
		if (n == last)
			w->dirty = want & PTE_D;
	}
	return true;
}

static bool walk(struct x86_cpu *c, enum x86_tlb_kind kind, uint64_t la, enum x86_access access, bool peek, struct walk *w)
{
	if (!(c->cr0 & X86_CR0_PG)) {
		*w = (struct walk){.gpa = la & 0xffffffffu, .writable = true, .dirty = true, .executable = true};
		return true;
	}
	if (!is_canonical(la)) {
		if (!peek) {
			x86_raise(c, X86_GP, 0);
			c->exc.noncanonical = true;
			c->exc.cr2 = la;
		}
		return false;
	}
	return walk_4level(c, kind, la, access, peek, w);
}

static struct x86_tlb_entry *entry(struct x86_cpu *c, enum x86_tlb_kind kind, uint64_t la)
{
	return &c->tlbs[kind].e[(la >> MEM_PAGE_SHIFT) & (X86_TLB_SIZE - 1)];
}

/* A Bloom filter of the large pages that TLB entries were cut from: INVLPG on one must drop all its pieces. */
static uint64_t region_bit(uint64_t la, unsigned level)
{
	uint64_t region = la >> (12 + 9 * level);
	return 1ull << ((region ^ region >> 6 ^ region >> 12) & 63);
}

/* The halves of the address space have filters of their own: kernels map much by large pages, programs little. */
static uint64_t *large_filter(struct x86_tlb *t, uint64_t la, unsigned level)
{
	return &t->large[la >> 63][level - 1];
}

static void fill(struct x86_cpu *c, enum x86_tlb_kind kind, uint64_t la, enum x86_access access, const struct walk *w, uint8_t *host)
{
	struct x86_tlb *t = &c->tlbs[kind];
	const unsigned at = (la >> MEM_PAGE_SHIFT) & (X86_TLB_SIZE - 1);
	struct x86_tlb_entry *e = &t->e[at];
	const uint64_t page = la & page_mask, gpa = w->gpa & page_mask;
	const intptr_t add = (intptr_t)((uint64_t)(uintptr_t)host - page);
	if ((e->tag_r != page && e->tag_w != page && e->tag_x != page) || e->add != add)
		*e = (struct x86_tlb_entry){X86_TLB_NONE, X86_TLB_NONE, X86_TLB_NONE, add};
	t->gpa[at] = gpa | (w->global ? 1 : 0);
	if (w->level)
		*large_filter(t, la, w->level) |= region_bit(la, w->level);
	if (!w->global) {
		if (t->n_local < ARRAY_LEN(t->local))
			t->local[t->n_local] = (uint16_t)at;
		if (t->n_local <= ARRAY_LEN(t->local))
			t->n_local++;
	}
	if (access == X86_EXEC) {
		/* Supervisor code that is not global, or in the lower half: its jumps must go whenever the user's do. */
		if (kind != X86_TLB_USER && (!w->global || !(page >> 63)))
			c->kernel_local_code = true;
		e->tag_x = page;
		return;
	}
	e->tag_r = page;
	if (w->writable && w->dirty && (access == X86_WRITE || kind == X86_TLB_USER) &&
	    (!c->env->may_write || c->env->may_write(c, gpa)))
		e->tag_w = page;
}

/* Host pointer for la, or NULL with *gpa set (MMIO) and true, or false with a fault. Never looks past the page. */
static bool find(struct x86_cpu *c, enum x86_tlb_kind kind, uint64_t la, enum x86_access access, uint8_t **host, uint64_t *gpa)
{
	struct x86_tlb_entry *e = entry(c, kind, la);
	uint64_t tag = access == X86_READ ? e->tag_r : access == X86_WRITE ? e->tag_w : e->tag_x;
	if (tag == (la & page_mask)) {
		*host = (uint8_t *)(uintptr_t)(la + (uint64_t)e->add);
		*gpa = (c->tlbs[kind].gpa[(la >> MEM_PAGE_SHIFT) & (X86_TLB_SIZE - 1)] & page_mask) | (la & ~page_mask);
		return true;
	}
	c->stat_tlb_miss++;
	struct walk w;
	if (!walk(c, kind, la, access, false, &w))
		return false;
	*gpa = w.gpa;
	uint8_t *page = mem_hva(c->env->mem, w.gpa & page_mask, MEM_PAGE_SIZE);
	*host = page ? page + (w.gpa & ~page_mask) : NULL;
	if (page)
		fill(c, kind, la, access, &w, page);
	return true;
}

/* After a write through a host pointer that may not have come from a write tag. */
static void written(struct x86_cpu *c, uint64_t gpa, unsigned n)
{
	if (c->env->code_written && c->env->code_written(c, gpa, n))
		c->smc = 1;
}

/* One access as the hardware makes it: a single load or store of that size. */
static void host_load(const uint8_t *p, unsigned size, void *v)
{
	switch (size) {
	case 1: *(uint8_t *)v = *(volatile const uint8_t *)p; break;
	case 2: { typedef uint16_t u __attribute__((aligned(1), may_alias)); *(u *)v = *(volatile const u *)p; break; }
	case 4: { typedef uint32_t u __attribute__((aligned(1), may_alias)); *(u *)v = *(volatile const u *)p; break; }
	case 8: { typedef uint64_t u __attribute__((aligned(1), may_alias)); *(u *)v = *(volatile const u *)p; break; }
	default: memcpy(v, p, size);
	}
}

static void host_store(uint8_t *p, unsigned size, const void *v)
{
	switch (size) {
	case 1: *(volatile uint8_t *)p = *(const uint8_t *)v; break;
	case 2: { typedef uint16_t u __attribute__((aligned(1), may_alias)); *(volatile u *)p = *(const u *)v; break; }
	case 4: { typedef uint32_t u __attribute__((aligned(1), may_alias)); *(volatile u *)p = *(const u *)v; break; }
	case 8: { typedef uint64_t u __attribute__((aligned(1), may_alias)); *(volatile u *)p = *(const u *)v; break; }
	default: memcpy(p, v, size);
	}
}

/* Device accesses are at most 8 bytes each. */
static void mmio(struct x86_cpu *c, uint64_t gpa, void *v, unsigned n, bool is_write)
{
	uint8_t *p = v;
	while (n) {
		unsigned k = n >= 8 ? 8 : n >= 4 ? 4 : n >= 2 ? 2 : 1;
		if (!c->env->mmio(c, gpa, p, k, is_write) && !is_write)
			memset(p, 0xff, k);
		p += k;
		gpa += k;
		n -= k;
	}
}

static unsigned in_page(uint64_t la, unsigned n)
{
	unsigned room = (unsigned)(MEM_PAGE_SIZE - (la & ~page_mask));
	return n < room ? n : room;
}

/* Where an access goes on in the page behind. 32-bit addresses wrap at 4 GiB; descriptor tables may lie above it even while 32-bit code runs. */
static uint64_t page_behind(const struct x86_cpu *c, uint64_t la)
{
	const uint64_t next = (la & page_mask) + MEM_PAGE_SIZE;
	return c->mode != X86_MODE_64 && next == 1ull << 32 ? 0 : next;
}

/* n <= 4096, so at most two pages. Everything is checked before anything is touched. */
static bool transfer(struct x86_cpu *c, enum x86_tlb_kind kind, uint64_t la, void *v, unsigned n, enum x86_access access)
{
	uint8_t *host[2] = {NULL, NULL};
	uint64_t gpa[2];
	const unsigned first = in_page(la, n);
	if (!find(c, kind, la, access, &host[0], &gpa[0]))
		return false;
	if (first < n && !find(c, kind, page_behind(c, la), access, &host[1], &gpa[1]))
		return false;
	for (unsigned i = 0, at = 0; at < n; i++) {
		unsigned k = i == 0 ? first : n - first;
		if (!host[i]) {
			mmio(c, gpa[i], (uint8_t *)v + at, k, access == X86_WRITE);
		} else if (access == X86_WRITE) {
			host_store(host[i], k, (uint8_t *)v + at);
			written(c, gpa[i], k);
		} else {
			host_load(host[i], k, (uint8_t *)v + at);
		}
		at += k;
	}
	return true;
}

static bool aligned(struct x86_cpu *c, uint64_t la, unsigned size)
{
	return likely(!c->check_align) || !(la & (size - 1)) || x86_raise(c, X86_AC, 0);
}

bool x86_read(struct x86_cpu *c, uint64_t la, unsigned size, void *v)
{
	return aligned(c, la, size) && transfer(c, c->tlb_kind, la, v, size, X86_READ);
}

bool x86_write(struct x86_cpu *c, uint64_t la, unsigned size, const void *v)
{
	return aligned(c, la, size) && transfer(c, c->tlb_kind, la, (void *)(uintptr_t)v, size, X86_WRITE);
}

bool x86_read_bytes(struct x86_cpu *c, uint64_t la, void *v, unsigned n)
{
	return transfer(c, c->tlb_kind, la, v, n, X86_READ);
}

bool x86_write_bytes(struct x86_cpu *c, uint64_t la, const void *v, unsigned n)
{
	return transfer(c, c->tlb_kind, la, (void *)(uintptr_t)v, n, X86_WRITE);
}

/* Implicit supervisor accesses obey SMAP whatever EFLAGS.AC says. */
static enum x86_tlb_kind system_kind(const struct x86_cpu *c)
{
	return c->cr4 & X86_CR4_SMAP ? X86_TLB_KERNEL : X86_TLB_KERNEL_AC;
}

bool x86_read_system(struct x86_cpu *c, uint64_t la, void *v, unsigned n)
{
	return transfer(c, system_kind(c), la, v, n, X86_READ);
}

bool x86_write_system(struct x86_cpu *c, uint64_t la, const void *v, unsigned n)
{
	return transfer(c, system_kind(c), la, (void *)(uintptr_t)v, n, X86_WRITE);
}

bool x86_probe_write(struct x86_cpu *c, uint64_t la, unsigned n)
{
	uint8_t *host;
	uint64_t gpa;
	unsigned first = in_page(la, n);
	return find(c, c->tlb_kind, la, X86_WRITE, &host, &gpa) &&
	       (first >= n || find(c, c->tlb_kind, page_behind(c, la), X86_WRITE, &host, &gpa));
}

void *x86_host(struct x86_cpu *c, uint64_t la, unsigned size, enum x86_access a)
{
	uint8_t *host;
	uint64_t gpa;
	if (in_page(la, size) < size) {
		c->exc.vector = X86_NOT_PLAIN;
		return NULL;
	}
	if (!find(c, c->tlb_kind, la, a, &host, &gpa))
		return NULL;
	if (!host)
		c->exc.vector = X86_NOT_PLAIN;
	return host;
}

void x86_host_written(struct x86_cpu *c, uint64_t la, unsigned size)
{
	const struct x86_tlb_entry *e = entry(c, c->tlb_kind, la);
	/* With a write tag in place the page holds no code, so there is nothing to tell. */
	if (e->tag_w == (la & page_mask))
		return;
	/* The page that was written is the one that the entry stands for, whatever the page tables say by now. */
	if (e->tag_r == (la & page_mask)) {
		written(c, (c->tlbs[c->tlb_kind].gpa[X86_TLB_INDEX(la)] & page_mask) | (la & ~page_mask), size);
		return;
	}
	uint8_t *host;
	uint64_t gpa;
	struct x86_exception saved = c->exc;
	if (find(c, c->tlb_kind, la, X86_WRITE, &host, &gpa) && host)
		written(c, gpa, size);
	else
		c->exc = saved;
}

bool x86_fetch(struct x86_cpu *c, uint64_t la, uint8_t *buf, unsigned want, unsigned *n)
{
	unsigned first = in_page(la, want);
	uint8_t *host;
	uint64_t gpa;
	*n = 0;
	if (!find(c, c->tlb_kind, la, X86_EXEC, &host, &gpa))
		return false;
	if (!host) {
		x86_raise(c, X86_GP, 0); /* code in device memory: not supported */
		return false;
	}
	memcpy(buf, host, first);
	*n = first;
	if (first == want)
		return true;
	if (!find(c, c->tlb_kind, page_behind(c, la), X86_EXEC, &host, &gpa))
		return true; /* c->exc says why, should the instruction really reach that far */
	if (!host) {
		x86_raise(c, X86_GP, 0);
		return true;
	}
	memcpy(buf + first, host, want - first);
	*n = want;
	return true;
}

bool x86_translate(struct x86_cpu *c, uint64_t la, enum x86_access a, uint64_t *gpa)
{
	uint8_t *host;
	return find(c, c->tlb_kind, la, a, &host, gpa);
}

bool x86_translate_peek(struct x86_cpu *c, uint64_t la, uint64_t *gpa)
{
	struct walk w;
	/* Rights do not matter to a debugger: the walk alone does. */
	if (!walk(c, X86_TLB_KERNEL_AC, la, X86_READ, true, &w))
		return false;
	*gpa = w.gpa;
	return true;
}

static void drop(struct x86_tlb_entry *e)
{
	e->tag_r = e->tag_w = e->tag_x = X86_TLB_NONE;
}

void x86_tlb_flush(struct x86_cpu *c, bool global_too)
{
	for (unsigned k = 0; k < X86_N_TLBS; k++) {
		struct x86_tlb *t = &c->tlbs[k];
		if (global_too || t->n_local > ARRAY_LEN(t->local)) {
			for (unsigned i = 0; i < X86_TLB_SIZE; i++)
				if (global_too || !(t->gpa[i] & 1))
					drop(&t->e[i]);
		} else {
			for (unsigned i = 0; i < t->n_local; i++)
				if (!(t->gpa[t->local[i]] & 1))
					drop(&t->e[t->local[i]]);
		}
		t->n_local = 0;
		if (global_too)
			memset(t->large, 0, sizeof(t->large));
	}
	/* Kernels run from global pages, so that their jumps outlive a change of address space. */
	x86_forget_jumps(c, true, global_too || c->kernel_local_code);
	if (global_too)
		c->kernel_local_code = false;
}

static void drop_region(struct x86_tlb *t, uint64_t la, unsigned shift)
{
	for (unsigned i = 0; i < X86_TLB_SIZE; i++) {
		struct x86_tlb_entry *e = &t->e[i];
		uint64_t tag = e->tag_r != X86_TLB_NONE ? e->tag_r : e->tag_w != X86_TLB_NONE ? e->tag_w : e->tag_x;
		if (tag >> shift == la >> shift)
			drop(e);
	}
}

void x86_tlb_flush_page(struct x86_cpu *c, uint64_t la)
{
	bool large = false;
	for (unsigned k = 0; k < X86_N_TLBS; k++) {
		struct x86_tlb_entry *e = entry(c, k, la);
		uint64_t page = la & page_mask;
		if (e->tag_r == page || e->tag_w == page || e->tag_x == page)
			drop(e);
		for (unsigned level = 1; level <= 2; level++) {
			if (*large_filter(&c->tlbs[k], la, level) & region_bit(la, level)) {
				drop_region(&c->tlbs[k], la, 12 + 9 * level);
				large = true;
			}
		}
	}
	if (large)
		x86_forget_jumps(c, true, true);
	else
		x86_forget_page_jumps(c, la);
}

void x86_tlb_revoke_write(struct x86_cpu *c, uint64_t gpa)
{
	for (unsigned k = 0; k < X86_N_TLBS; k++) {
		struct x86_tlb *t = &c->tlbs[k];
		for (unsigned i = 0; i < X86_TLB_SIZE; i++)
			if (gpa == ~0ull || (t->gpa[i] & page_mask) == (gpa & page_mask))
				t->e[i].tag_w = X86_TLB_NONE;
	}
}
