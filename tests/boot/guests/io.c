/* SPDX-License-Identifier: Apache-2.0 */
/* Port I/O of every size, strings of it, and MMIO of every size and kind. */
#include "guest.h"

#define SCRATCH 0xD0100000ull

static void ports(void)
{
	outl(0xE0, 0x44332211);
	CHECK_EQ(inl(0xE0), 0x44332211);
	CHECK_EQ(inb(0xE2), 0x33);
	CHECK_EQ(inw(0xE2), 0x4433);
	outb(0xE1, 0xaa);
	outw(0xE2, 0xccbb);
	CHECK_EQ(inl(0xE0), 0xccbbaa11);
	CHECK_EQ(inl(0x7777), 0xffffffff); /* nobody there */
	CHECK_EQ(inb(0x7777), 0xff);
	uint64_t rax;
	asm volatile("inb $0xE0, %%al" : "=a"(rax) : "a"(0x1122334455667788));
	CHECK_EQ(rax, 0x1122334455667711);
	asm volatile("inl $0xE0, %%eax" : "=a"(rax) : "a"(0x1122334455667788));
	CHECK_EQ(rax, 0xccbbaa11);
}

static void strings(void)
{
	uint8_t buf[64];
	void *p = buf;
	uint64_t n = 5;
	memset(buf, 0xee, sizeof buf);
	uint8_t first = inb(0xE8);
	asm volatile("cld; rep insb" : "+D"(p), "+c"(n) : "d"(0xE8) : "memory");
	CHECK_EQ(n, 0);
	CHECK_EQ((uint64_t)p, (uint64_t)buf + 5);
	for (int i = 0; i < 5; i++)
		CHECK_EQ(buf[i], (uint8_t)(first + 1 + i));
	CHECK_EQ(buf[5], 0xee);
	p = buf;
	n = 4;
	asm volatile("rep insl" : "+D"(p), "+c"(n) : "d"(0xE8) : "memory");
	CHECK_EQ(buf[15], (uint8_t)(first + 9));
	CHECK_EQ(buf[12], (uint8_t)(first + 9));
	CHECK_EQ(buf[0], (uint8_t)(first + 6));
	/* backwards */
	p = buf + 20;
	n = 3;
	asm volatile("std; rep insb; cld" : "+D"(p), "+c"(n) : "d"(0xE8) : "memory");
	CHECK_EQ((uint64_t)p, (uint64_t)buf + 17);
	CHECK_EQ(buf[20], (uint8_t)(first + 10));
	CHECK_EQ(buf[18], (uint8_t)(first + 12));
	static const char text[] = "a string through one REP OUTSB\n";
	const void *s = text;
	n = sizeof text - 1;
	asm volatile("rep outsb" : "+S"(s), "+c"(n) : "d"(0xE9) : "memory");
	CHECK_EQ((uint64_t)s, (uint64_t)text + sizeof text - 1);
	uint32_t words[3] = {1, 2, 0x8899aabb};
	s = words;
	n = 3;
	asm volatile("rep outsl" : "+S"(s), "+c"(n) : "d"(0xE0) : "memory");
	CHECK_EQ(inl(0xE0), 0x8899aabb);
	/* a count of 0 does nothing */
	p = buf;
	n = 0;
	asm volatile("rep insb" : "+D"(p), "+c"(n) : "d"(0xE8) : "memory");
	CHECK_EQ((uint64_t)p, (uint64_t)buf);
	/* into a page that is missing: the fault tells where, and nothing is lost */
	uint64_t va = TEST_VA;
	map_page(va, (uint64_t)alloc_page(), PTE_P | PTE_W, 4096);
	CHECK_EQ(TRY("mov %0, %%rdi\n\tmov $8, %%ecx\n\tmov $0xE8, %%edx\n\trep insb", "S"(va + 4092)), 14);
	CHECK_EQ(fault.cr2, va + 4096);
	CHECK_EQ(fault.rcx, 4);
	CHECK_EQ(fault.rdi, va + 4096);
}

static void mmio(void)
{
	volatile uint8_t *b = (void *)SCRATCH;
	volatile uint16_t *w = (void *)SCRATCH;
	volatile uint32_t *d = (void *)SCRATCH;
	volatile uint64_t *q = (void *)SCRATCH;
	*q = 0x1122334455667788;
	CHECK_EQ(*q, 0x1122334455667788);
	CHECK_EQ(*d, 0x55667788);
	CHECK_EQ(w[3], 0x1122);
	CHECK_EQ(b[1], 0x77);
	b[1] = 0xaa;
	w[1] = 0xbbcc;
	d[1] = 0xdeadbeef;
	CHECK_EQ(*q, 0xdeadbeefbbccaa88);
	CHECK_EQ(*(volatile uint32_t *)(SCRATCH + 1), 0xefbbccaa); /* unaligned */
	/* read-modify-write, extension, comparison, exchange */
	d[2] = 5;
	asm volatile("addl $7, %0" : "+m"(d[2]));
	CHECK_EQ(d[2], 12);
	asm volatile("lock; orl $0x30, %0" : "+m"(d[2]));
	CHECK_EQ(d[2], 0x3c);
	int64_t s;
	b[8] = 0x80;
	asm volatile("movsbq %1, %0" : "=r"(s) : "m"(b[8]));
	CHECK_EQ(s, -128);
	uint32_t x = 0x77;
	asm volatile("xchgl %0, %1" : "+r"(x), "+m"(d[3]));
	CHECK_EQ(d[3], 0x77);
	uint8_t z;
	asm volatile("cmpl $0x77, %1; sete %0" : "=r"(z) : "m"(d[3]));
	CHECK_EQ(z, 1);
	/* strings to, from and between */
	uint8_t buf[32];
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (uint8_t)(i * 3);
	memcpy((void *)(SCRATCH + 16), buf, 32);
	memset(buf, 0, 32);
	memcpy(buf, (void *)(SCRATCH + 16), 32);
	for (unsigned i = 0; i < 32; i++)
		CHECK_EQ(buf[i], i * 3);
	memcpy((void *)SCRATCH, (void *)(SCRATCH + 32), 16);
	CHECK_EQ(b[1], 17 * 3);
	CHECK_EQ(*(volatile uint32_t *)0xD0200000, 0xffffffff); /* nobody there */
	*(volatile uint32_t *)0xD0200000 = 1;
	/* push from it and a stack of it */
	q[0] = 0x123456789abcdef0;
	uint64_t v;
	asm volatile("pushq %1; popq %0" : "=r"(v) : "m"(q[0]));
	CHECK_EQ(v, 0x123456789abcdef0);
}

int guest_main(void)
{
	ports();
	print("strings\n");
	strings();
	print("mmio\n");
	mmio();
	return guest_result();
}
