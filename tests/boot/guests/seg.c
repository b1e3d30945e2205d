/* SPDX-License-Identifier: Apache-2.0 */
/* Segment registers, descriptors and what is wrong with them, LDT, task register, far transfers, LAR, LSL, VERR, compatibility mode. */
#include "guest.h"

#define SLOT 10 /* first free GDT slot */
#define SEL(i) ((uint64_t)((SLOT + (i)) * 8))

static uint64_t load_ds(uint64_t sel)
{
	uint64_t v = TRY("mov %0, %%ds", "r"(sel));
	asm volatile("mov %0, %%ds" : : "r"(0x18));
	return v;
}

static uint64_t load_ss(uint64_t sel)
{
	/* the stack must not move: bases are ignored in 64-bit mode */
	uint64_t v = TRY("mov %0, %%ss", "r"(sel));
	asm volatile("mov %0, %%ss" : : "r"(0x18));
	return v;
}

#define EXPECT(expr, vec, err)                                                                                     \
	do {                                                                                                       \
		CHECK_EQ(expr, vec);                                                                               \
		if ((vec) != NO_FAULT)                                                                             \
			CHECK_EQ(fault.error, err);                                                                \
	} while (0)

static void data_segments(void)
{
	gdt[SLOT] = 0x00CF92000000FFFF;	    /* data, not yet accessed */
	gdt[SLOT + 1] = 0x00CF12000000FFFF; /* not present */
	gdt[SLOT + 2] = 0x00AF98000000FFFF; /* code, execute only */
	gdt[SLOT + 3] = 0x00CF90000000FFFF; /* data, read-only */
	EXPECT(load_ds(SEL(0)), NO_FAULT, 0);
	CHECK_EQ(gdt[SLOT] >> 40 & 1, 1); /* accessed now */
	EXPECT(load_ds(SEL(1)), 11, SEL(1));
	EXPECT(load_ds(SEL(2)), 13, SEL(2));
	EXPECT(load_ds(SEL(3)), NO_FAULT, 0);
	EXPECT(load_ds(0x40), 13, 0x40); /* a TSS */
	EXPECT(load_ds(0), NO_FAULT, 0); /* null is fine in DS */
	EXPECT(load_ds(3), NO_FAULT, 0);
	EXPECT(load_ds(SEL(6)), 13, SEL(6)); /* past the limit: 16 slots */
	EXPECT(load_ds(SEL(0) | 4), 13, SEL(0) | 4); /* no LDT */
	EXPECT(load_ss(SEL(1)), 12, SEL(1));
	EXPECT(load_ss(SEL(3)), 13, SEL(3)); /* read-only stack */
	EXPECT(load_ss(SEL(2)), 13, SEL(2));
	EXPECT(load_ss(0x2b), 13, 0x28); /* DPL 3 */
	EXPECT(load_ss(0), NO_FAULT, 0); /* null SS is allowed in ring 0 of 64-bit mode */
	/* bases of FS come from the descriptor */
	static uint8_t where[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	uint64_t b = (uint64_t)where, v;
	gdt[SLOT] = 0x00CF92000000FFFF | (b & 0xffffff) << 16 | (b >> 24 & 0xff) << 56;
	asm volatile("mov %1, %%fs; mov %%fs:0, %0; mov %2, %%fs" : "=&r"(v) : "r"(SEL(0)), "r"(0));
	CHECK_EQ(v, 0x0807060504030201);
}

static void ldt(void)
{
	static uint64_t table[4] = {0, 0x00CF92000000FFFF, 0, 0};
	uint64_t b = (uint64_t)table;
	gdt[SLOT + 4] = (sizeof table - 1) | (b & 0xffffff) << 16 | 0x82ull << 40 | (b >> 24 & 0xff) << 56;
	gdt[SLOT + 5] = b >> 32;
	asm volatile("lldt %0" : : "r"((uint16_t)SEL(4)));
	uint64_t v = 0;
	asm volatile("sldt %0" : "=r"(v));
	CHECK_EQ(v & 0xffff, SEL(4));
	EXPECT(load_ds(8 | 4), NO_FAULT, 0);
	EXPECT(load_ds(16 | 4), 13, 16 | 4);
	EXPECT(load_ds(0x20 | 4), 13, 0x20 | 4); /* past its limit */
	EXPECT(TRY("lldt %w0", "r"(0x18)), 13, 0x18);
	asm volatile("lldt %0" : : "r"((uint16_t)0));
	EXPECT(load_ds(8 | 4), 13, 8 | 4);
	EXPECT(TRY("ltr %w0", "r"(0x40)), 13, 0x40); /* busy */
	EXPECT(TRY("ltr %w0", "r"(0)), 13, 0);
	asm volatile("str %0" : "=r"(v));
	CHECK_EQ(v & 0xffff, 0x40);
	CHECK_EQ(gdt[8] >> 40 & 15, 11);
}

static void queries(void)
{
	uint64_t v = 0;
	uint8_t z;
	gdt[SLOT] = 0x00CF92000000FFFF;
	asm volatile("lar %2, %0; sete %1" : "=r"(v), "=q"(z) : "r"(0x10ull) : "cc");
	CHECK_EQ(z, 1);
	CHECK_EQ(v & 0xf0ff00, 0xa09b00);
	asm volatile("lsl %2, %0; sete %1" : "=r"(v), "=q"(z) : "r"(0x18ull) : "cc");
	CHECK_EQ(z, 1);
	CHECK_EQ(v, 0xffffffff);
	asm volatile("lsl %2, %0; sete %1" : "=r"(v), "=q"(z) : "r"(0x40ull) : "cc");
	CHECK_EQ(v, sizeof tss - 1);
	v = 0x55;
	asm volatile("lar %2, %0; sete %1" : "+r"(v), "=q"(z) : "r"(0x1000ull) : "cc");
	CHECK_EQ(z, 0);
	CHECK_EQ(v, 0x55);
	asm volatile("verr %w1; sete %0" : "=q"(z) : "r"(0x18) : "cc");
	CHECK_EQ(z, 1);
	asm volatile("verw %w1; sete %0" : "=q"(z) : "r"(0x10) : "cc");
	CHECK_EQ(z, 0);
	asm volatile("verw %w1; sete %0" : "=q"(z) : "r"(0x2b) : "cc");
	CHECK_EQ(z, 1);
}

static void far(void)
{
	uint64_t cs = 0;
	asm volatile("pushq $0x10; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1: mov %%cs, %0" : "=r"(cs) : : "rax", "memory");
	CHECK_EQ(cs & 0xffff, 0x10);
	EXPECT(TRY("pushq $0x2b\n\tpushq $0\n\tlretq", "i"(0)), 13, 0x28); /* no code */
	EXPECT(TRY("pushq %0\n\tpushq $0\n\tlretq", "r"(SEL(1))), 13, SEL(1)); /* data, absent: the type is looked at first */
	gdt[SLOT + 1] = 0x00AF1A000000FFFF; /* code, absent */
	EXPECT(TRY("pushq %0\n\tpushq $0\n\tlretq", "r"(SEL(1))), 11, SEL(1));
	EXPECT(TRY("pushq $0\n\tpushq $0\n\tlretq", "i"(0)), 13, 0);
	struct {
		uint32_t off;
		uint16_t sel;
	} __attribute__((packed)) ptr;
	asm volatile("leaq 1f(%%rip), %%rax; movl %%eax, %0; movw $0x10, 4+%0; ljmpl *%0; 1:" : "+m"(ptr) : : "rax", "memory");
}

/* 32-bit code in ring 0, and back. */
static void compatibility(void)
{
	uint64_t r = 0;
	asm volatile("pushq $0x08\n\t"
		     "leaq 1f(%%rip), %%rax\n\t"
		     "pushq %%rax\n\t"
		     "lretq\n"
		     ".code32\n"
		     "1: movl $0x12345678, %%eax\n\t"
		     "incl %%eax\n\t" /* 0x40: a REX prefix in 64-bit mode */
		     "pushl %%eax\n\t"
		     "popl %%ebx\n\t"
		     "ljmp $0x10, $2f\n"
		     ".code64\n"
		     "2: movl %%ebx, %k0"
		     : "=r"(r) : : "rax", "rbx", "memory");
	CHECK_EQ(r, 0x12345679);
}

/* The same bytes in ring 3, by a 64-bit and by a 32-bit code segment: 0x40 is a REX prefix in one and INC EAX in the other. */
static void user_modes(void)
{
	/* mov $-1, %eax; (rex | inc %eax); mov $7, %ecx; ud2 */
	static const uint8_t code[] = {0xb8, 0xff, 0xff, 0xff, 0xff, 0x40, 0xb9, 7, 0, 0, 0, 0x0f, 0x0b};
	uint8_t *page = alloc_page();
	uint64_t va = 0x7f000000; /* 32-bit code needs it low; here instead of the one-to-one page */
	memcpy(page, code, sizeof code);
	map_page(TEST_VA, (uint64_t)page, PTE_P | PTE_W | PTE_U, 4096);
	CHECK_EQ(run_user((void *)TEST_VA, (void *)(TEST_VA + 0x1000), 0x200, 0), 6);
	CHECK_EQ(fault.rax, 0xffffffff);
	CHECK_EQ(fault.rcx, 7);
	volatile uint64_t *pde = map_page(va & ~0x1fffffull, 0, 0, 1 << 21);
	*pde = 0;
	flush_tlb();
	map_page(va, (uint64_t)page, PTE_P | PTE_W | PTE_U, 4096);
	allow_user(va);
	CHECK_EQ(run_user32((void *)va, (void *)(va + 0x1000), 0x200), 6);
	CHECK_EQ(fault.rax, 0);
	CHECK_EQ(fault.rcx, 7);
	CHECK_EQ(fault.cs, 0x23);
	CHECK_EQ(fault.rip, va + 11);
}

int guest_main(void)
{
	data_segments();
	print("ldt\n");
	ldt();
	print("queries\n");
	queries();
	print("far\n");
	far();
	compatibility();
	user_modes();
	return guest_result();
}
