/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of 4 KiB, 2 MiB and 1 GiB; every kind of page fault with its exact error code and CR2; accessed and dirty bits; the TLB. */
#include "guest.h"

#define P 1
#define W 2
#define U 4
#define RSVD 8
#define I 16

static uint8_t code_ret[4] = {0xc3};

#define EXPECT_PF(expr, err, addr)                                                                                 \
	do {                                                                                                       \
		CHECK_EQ(expr, 14);                                                                                \
		CHECK_EQ(fault.error, err);                                                                        \
		CHECK_EQ(fault.cr2, addr);                                                                         \
	} while (0)

static void sizes(void)
{
	uint8_t *page = alloc_page();
	uint64_t pa = (uint64_t)page;
	page[5] = 0x77;
	map_page(TEST_VA, pa, PTE_P | PTE_W, 4096);
	CHECK_EQ(*(volatile uint8_t *)(TEST_VA + 5), 0x77);
	*(volatile uint8_t *)(TEST_VA + 6) = 0x66;
	CHECK_EQ(page[6], 0x66);
	map_page(TEST_VA + 0x40000000, pa & ~0x1fffffull, PTE_P | PTE_W, 1 << 21);
	CHECK_EQ(*(volatile uint8_t *)(TEST_VA + 0x40000000 + (pa & 0x1fffff) + 5), 0x77);
	uint32_t r[4];
	cpuid(0x80000001, 0, r);
	map_page(TEST_VA + 0x80000000, 0, PTE_P | PTE_W, 1 << 30);
	if (r[3] & 1 << 26) {
		CHECK_EQ(*(volatile uint8_t *)(TEST_VA + 0x80000000 + pa + 5), 0x77);
	} else {
		print("skipped: no pages of 1 GiB\n");
		EXPECT_PF(TRY_READ((void *)(TEST_VA + 0x80000000 + pa)), P | RSVD, TEST_VA + 0x80000000 + pa);
	}
	/* an access across two pages that are not neighbours in memory */
	uint8_t *a = alloc_page(), *b = alloc_page();
	map_page(TEST_VA + 0x10000, (uint64_t)b, PTE_P | PTE_W, 4096);
	map_page(TEST_VA + 0x11000, (uint64_t)a, PTE_P | PTE_W, 4096);
	*(volatile uint64_t *)(TEST_VA + 0x10ffd) = 0x1122334455667788;
	CHECK_EQ(b[4093], 0x88);
	CHECK_EQ(b[4095], 0x66);
	CHECK_EQ(a[0], 0x55);
	CHECK_EQ(a[4], 0x11);
	CHECK_EQ(*(volatile uint64_t *)(TEST_VA + 0x10ffd), 0x1122334455667788);
}

static void faults(void)
{
	uint8_t *page = alloc_page();
	uint64_t va = TEST_VA + 0x20000, pa = (uint64_t)page;
	void *p = (void *)(va + 0x123);
	memcpy(page + 0x123, code_ret, 1);
	volatile uint64_t *pte = map_page(va, 0, 0, 4096);
	EXPECT_PF(TRY_READ(p), 0, va + 0x123);
	EXPECT_PF(TRY_WRITE(p), W, va + 0x123);
	EXPECT_PF(TRY_CALL(p), I, va + 0x123);
	/* nothing at an upper level */
	EXPECT_PF(TRY_READ((void *)(TEST_VA + (5ull << 30) + 7)), 0, TEST_VA + (5ull << 30) + 7);
	EXPECT_PF(TRY_WRITE((void *)0x700000000018), W, 0x700000000018);
	/* a write across a border: CR2 is the first byte of the second page */
	map_page(va - 0x1000, (uint64_t)alloc_page(), PTE_P | PTE_W, 4096);
	uint64_t before = *(volatile uint32_t *)(va - 4);
	EXPECT_PF(TRY("movq $-1, (%0)", "r"(va - 4)), W, va);
	if (!guest_skip_pvm("a faulting write across two pages changes neither"))
		CHECK_EQ(*(volatile uint32_t *)(va - 4), before);

	*pte = pa | PTE_P | PTE_W;
	CHECK_EQ(TRY_READ(p), NO_FAULT);
	CHECK_EQ(TRY_CALL(p), NO_FAULT);
	/* read-only, with WP */
	WRITE_CR(0, READ_CR(0) | 0x10000);
	*pte = pa | PTE_P;
	invlpg(p);
	EXPECT_PF(TRY_WRITE(p), P | W, va + 0x123);
	CHECK_EQ(TRY_READ(p), NO_FAULT);
	WRITE_CR(0, READ_CR(0) & ~0x10000ull);
	CHECK_EQ(TRY("movb $0xc3, (%0)", "r"(p)), NO_FAULT);
	WRITE_CR(0, READ_CR(0) | 0x10000);
	EXPECT_PF(TRY_WRITE(p), P | W, va + 0x123);
	/* no execution */
	*pte = pa | PTE_P | PTE_W | PTE_NX;
	invlpg(p);
	EXPECT_PF(TRY_CALL(p), P | I, va + 0x123);
	CHECK_EQ(TRY_READ(p), NO_FAULT);
	/* a reserved bit */
	*pte = pa | PTE_P | PTE_W | 1ull << 51;
	invlpg(p);
	EXPECT_PF(TRY_READ(p), P | RSVD, va + 0x123);
	EXPECT_PF(TRY_WRITE(p), P | W | RSVD, va + 0x123);
}

/* Ring 3 code: does what arg says at the test page, then UD2. */
static const uint8_t user_read[] = {0x8a, 0x07, 0x0f, 0x0b};        /* mov (%rdi), %al; ud2 */
static const uint8_t user_write[] = {0xc6, 0x07, 0x5a, 0x0f, 0x0b}; /* movb $0x5a, (%rdi); ud2 */
static const uint8_t user_call[] = {0xff, 0xe7};                    /* jmp *%rdi */

static uint64_t in_user(const void *code, size_t n, uint64_t arg)
{
	static uint8_t *page;
	if (!page) {
		page = alloc_page();
		map_page(TEST_VA + 0x30000, (uint64_t)page, PTE_P | PTE_W | PTE_U, 4096);
	}
	memcpy(page, code, n);
	return run_user((void *)(TEST_VA + 0x30000), (void *)(TEST_VA + 0x31000), 0, arg);
}

static void user_pages(void)
{
	uint8_t *page = alloc_page();
	uint64_t va = TEST_VA + 0x40000, pa = (uint64_t)page;
	void *p = (void *)va;
	page[0] = 0x0f; /* ud2 */
	page[1] = 0x0b;
	volatile uint64_t *pte = map_page(va, pa, PTE_P | PTE_W | PTE_U, 4096);
	CHECK_EQ(in_user(user_read, sizeof user_read, va), 6);
	CHECK_EQ(in_user(user_call, sizeof user_call, va), 6);
	CHECK_EQ(fault.cs, 0x33);
	CHECK_EQ(fault.ss, 0x2b);
	*pte = pa | PTE_P | PTE_W;
	invlpg(p);
	EXPECT_PF(in_user(user_read, sizeof user_read, va), P | U, va);
	EXPECT_PF(in_user(user_write, sizeof user_write, va), P | W | U, va);
	EXPECT_PF(in_user(user_call, sizeof user_call, va), P | U | I, va);
	*pte = 0;
	invlpg(p);
	EXPECT_PF(in_user(user_read, sizeof user_read, va), U, va);
	EXPECT_PF(in_user(user_write, sizeof user_write, va), W | U, va);
	EXPECT_PF(in_user(user_call, sizeof user_call, va), U | I, va);
	*pte = pa | PTE_P | PTE_U | PTE_NX;
	invlpg(p);
	EXPECT_PF(in_user(user_write, sizeof user_write, va), P | W | U, va);
	EXPECT_PF(in_user(user_call, sizeof user_call, va), P | U | I, va);
}

static void smep_smap(void)
{
	uint32_t r[4];
	uint8_t *page = alloc_page();
	uint64_t va = TEST_VA + 0x50000;
	void *p = (void *)va;
	page[0] = 0xc3;
	map_page(va, (uint64_t)page, PTE_P | PTE_W | PTE_U, 4096);
	cpuid(7, 0, r);
	CHECK_EQ(TRY_CALL(p), NO_FAULT);
	if (r[1] & 1 << 7) {
		WRITE_CR(4, READ_CR(4) | 1 << 20);
		EXPECT_PF(TRY_CALL(p), P | I, va);
		CHECK_EQ(TRY_READ(p), NO_FAULT);
		WRITE_CR(4, READ_CR(4) & ~(1ull << 20));
		CHECK_EQ(TRY_CALL(p), NO_FAULT);
	} else {
		print("skipped: no SMEP\n");
	}
	if (r[1] & 1 << 20) {
		WRITE_CR(4, READ_CR(4) | 1 << 21);
		EXPECT_PF(TRY_READ(p), P, va);
		EXPECT_PF(TRY_WRITE(p), P | W, va);
		CHECK_EQ(TRY("stac\n\tmovb (%0), %%r11b\n\tclac", "r"(p)), NO_FAULT);
		EXPECT_PF(TRY_READ(p), P, va);
		WRITE_CR(4, READ_CR(4) & ~(1ull << 21));
		CHECK_EQ(TRY_READ(p), NO_FAULT);
	} else {
		print("skipped: no SMAP\n");
	}
}

static void accessed_dirty(void)
{
	uint64_t va = TEST_VA + 0x60000, pa = (uint64_t)alloc_page();
	volatile uint8_t *p = (void *)va;
	volatile uint64_t *pte = map_page(va, pa, PTE_P | PTE_W, 4096);
	CHECK_EQ(*pte & (PTE_A | PTE_D), 0);
	(void)*p;
	CHECK_EQ(*pte & (PTE_A | PTE_D), PTE_A);
	*p = 1;
	CHECK_EQ(*pte & (PTE_A | PTE_D), PTE_A | PTE_D);
	*pte = pa | PTE_P | PTE_W;
	invlpg((void *)p);
	*p = 2;
	CHECK_EQ(*pte & (PTE_A | PTE_D), PTE_A | PTE_D);
	/* a faulting write leaves D alone */
	*pte = pa | PTE_P;
	invlpg((void *)p);
	CHECK_EQ(TRY_WRITE(p), 14);
	CHECK_EQ(*pte & PTE_D, 0);
}

static void tlb(void)
{
	uint64_t va = TEST_VA + 0x70000;
	uint8_t *a = alloc_page(), *b = alloc_page();
	volatile uint8_t *p = (void *)va;
	a[0] = 1;
	b[0] = 2;
	volatile uint64_t *pte = map_page(va, (uint64_t)a, PTE_P | PTE_W, 4096);
	CHECK_EQ(*p, 1);
	*pte = (uint64_t)b | PTE_P | PTE_W;
	invlpg((void *)p);
	CHECK_EQ(*p, 2);
	*pte = (uint64_t)a | PTE_P | PTE_W;
	flush_tlb();
	CHECK_EQ(*p, 1);
	/* global pages go by INVLPG and by turning CR4.PGE off */
	*pte = (uint64_t)a | PTE_P | PTE_W | PTE_G;
	flush_tlb();
	CHECK_EQ(*p, 1);
	*pte = (uint64_t)b | PTE_P | PTE_W | PTE_G;
	invlpg((void *)p);
	CHECK_EQ(*p, 2);
	*pte = (uint64_t)a | PTE_P | PTE_W | PTE_G;
	WRITE_CR(4, READ_CR(4) & ~0x80ull);
	WRITE_CR(4, READ_CR(4) | 0x80ull);
	CHECK_EQ(*p, 1);
}

int guest_main(void)
{
	sizes();
	faults();
	user_pages();
	smep_smap();
	accessed_dirty();
	tlb();
	return guest_result();
}
