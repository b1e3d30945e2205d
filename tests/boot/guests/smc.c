/* SPDX-License-Identifier: Apache-2.0 */
/* Code that changes itself: by stores of every kind, by strings, through another mapping, in the block that runs, across a page, with INT3. */
#include "guest.h"

static uint8_t *code;
typedef uint64_t fn_t(void);

/* mov $v, %eax; ret */
static void put_ret(uint8_t *p, uint32_t v)
{
	p[0] = 0xb8;
	memcpy(p + 1, &v, 4);
	p[5] = 0xc3;
}

static uint64_t run(void *p)
{
	return ((fn_t *)(uint64_t)p)();
}

static void stores(void)
{
	put_ret(code, 1);
	for (unsigned i = 0; i < 20; i++)
		CHECK_EQ(run(code), 1);
	code[1] = 2;
	CHECK_EQ(run(code), 2);
	*(volatile uint16_t *)(code + 1) = 0x303;
	CHECK_EQ(run(code), 0x303);
	*(volatile uint32_t *)(code + 1) = 0x4040404;
	CHECK_EQ(run(code), 0x4040404);
	asm volatile("lock incl %0" : "+m"(*(uint32_t *)(code + 1)));
	CHECK_EQ(run(code), 0x4040405);
	uint32_t x = 77;
	asm volatile("xchgl %0, %1" : "+r"(x), "+m"(*(uint32_t *)(code + 1)));
	CHECK_EQ(run(code), 77);
	uint8_t other[6];
	put_ret(other, 99);
	memcpy(code, other, 6);
	CHECK_EQ(run(code), 99);
	asm volatile("pushq %%rax; mov %%rsp, %%rbx; lea 8(%0), %%rsp; pushq %1; mov %%rbx, %%rsp; popq %%rax"
		     : : "r"(code), "r"(0xc30000006eb8ull) : "rbx", "memory");
	CHECK_EQ(run(code), 0x6e);
	/* a byte at the very end of the instruction and of the block */
	for (unsigned i = 0; i < 256; i++) {
		*(volatile uint8_t *)(code + 4) = (uint8_t)i;
		CHECK_EQ(run(code), 0x6eull | (uint64_t)i << 24);
	}
}

/* The store changes an instruction right behind it in the same straight run. */
static void same_block(void)
{
	uint64_t r;
	for (unsigned i = 1; i < 10; i++) {
		asm volatile("movb %b1, 8f+1(%%rip)\n\t"
			     "jmp 7f\n"
			     "7:\n"
			     "8: mov $0, %%eax\n\t"
			     : "=&a"(r) : "q"(i) : "memory");
		CHECK_EQ(r, i);
	}
	for (unsigned i = 1; i < 10; i++) {
		/* no jump between: x86 CPUs see it at once all the same */
		asm volatile("movb %b1, 8f+1(%%rip)\n"
			     "8: mov $0, %%eax\n\t"
			     : "=&a"(r) : "q"(i) : "memory");
		CHECK_EQ(r, i);
	}
	/* a loop that rewrites its own body */
	uint64_t sum = 0, n = 20;
	asm volatile("1: incb 2f+3(%%rip)\n"
		     "2: add $0, %0\n\t"
		     "dec %1\n\t"
		     "jnz 1b"
		     : "+r"(sum), "+r"(n) : : "memory");
	CHECK_EQ(sum, 210);
}

static void other_mapping(void)
{
	uint64_t va = TEST_VA;
	map_page(va, (uint64_t)code, PTE_P | PTE_W, 4096);
	map_page(va + 0x1000, (uint64_t)code, PTE_P | PTE_W, 4096);
	put_ret(code, 5);
	CHECK_EQ(run((void *)va), 5);
	CHECK_EQ(run((void *)(va + 0x1000)), 5);
	*(volatile uint8_t *)(va + 0x1001) = 6;
	CHECK_EQ(run((void *)va), 6);
	CHECK_EQ(run(code), 6);
	/* another page behind the same address */
	uint8_t *page = alloc_page();
	put_ret(page, 7);
	map_page(va, (uint64_t)page, PTE_P | PTE_W, 4096);
	invlpg((void *)va);
	CHECK_EQ(run((void *)va), 7);
	/* an instruction across two pages, changed in either */
	uint8_t *a = alloc_page(), *b = alloc_page();
	map_page(va + 0x10000, (uint64_t)b, PTE_P | PTE_W, 4096);
	map_page(va + 0x11000, (uint64_t)a, PTE_P | PTE_W, 4096);
	uint8_t *p = (uint8_t *)va + 0x10000 + 4096 - 3;
	put_ret(p, 0x01010101);
	for (int i = 0; i < 5; i++)
		CHECK_EQ(run(p), 0x01010101);
	a[0] = 9; /* third byte of the immediate */
	CHECK_EQ(run(p), 0x01090101);
	b[4094] = 8;
	CHECK_EQ(run(p), 0x01090108);
	/* the second page replaced */
	uint8_t *c = alloc_page();
	memcpy(c, a, 64);
	c[1] = 0x55;
	map_page(va + 0x11000, (uint64_t)c, PTE_P | PTE_W, 4096);
	invlpg((void *)(va + 0x11000));
	CHECK_EQ(run(p), 0x55090108);
}

static volatile unsigned n_bp;
static void on_bp(struct frame *f)
{
	n_bp++;
	code[0] = 0xb8;
	f->rip--;
}

/* As a kernel patches code: INT3 first, the rest, then the first byte. */
static void int3_patch(void)
{
	set_isr(3, on_bp);
	put_ret(code, 1);
	CHECK_EQ(run(code), 1);
	for (unsigned i = 2; i < 12; i++) {
		code[0] = 0xcc;
		code[1] = (uint8_t)i;
		CHECK_EQ(run(code), i);
		CHECK_EQ(n_bp, i - 1);
	}
	set_isr(3, NULL);
}

/* Many blocks made and thrown away. */
static void churn(void)
{
	uint8_t *pages[16];
	for (unsigned i = 0; i < 16; i++)
		pages[i] = alloc_page();
	for (unsigned round = 0; round < 20; round++)
		for (unsigned i = 0; i < 16; i++)
			for (unsigned j = 0; j < 8; j++) {
				put_ret(pages[i] + 500 * j, round * 1000 + i * 10 + j);
				CHECK_EQ(run(pages[i] + 500 * j), round * 1000 + i * 10 + j);
			}
}

int guest_main(void)
{
	code = alloc_page();
	stores();
	print("same block\n");
	same_block();
	print("other mapping\n");
	other_mapping();
	print("churn\n");
	churn();
	print("int3\n");
	int3_patch();
	return guest_result();
}
