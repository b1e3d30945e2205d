/* SPDX-License-Identifier: Apache-2.0 */
/* String instructions: sizes, directions, overlap, counts, prefixes, and faults in the middle with exact partial progress. */
#include "guest.h"

static uint8_t buf[12288] __attribute__((aligned(4096)));

static void moves(void)
{
	for (unsigned i = 0; i < sizeof buf; i++)
		buf[i] = (uint8_t)(i * 7 + (i >> 8));
	uint8_t want = buf[100];
	void *d = buf + 5000, *s = buf + 100;
	uint64_t n = 4000;
	asm volatile("cld; rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	CHECK_EQ(n, 0);
	CHECK_EQ((uint64_t)d, (uint64_t)buf + 9000);
	CHECK_EQ((uint64_t)s, (uint64_t)buf + 4100);
	CHECK_EQ(buf[5000], want);
	CHECK_EQ(memcmp(buf + 5000, buf + 100, 4000), 0);
	d = buf + 1;
	s = buf;
	n = 1000;
	buf[0] = 0x42; /* overlap by one: propagates bytewise */
	asm volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	CHECK_EQ(buf[1], 0x42);
	CHECK_EQ(buf[1000], 0x42);
	CHECK(buf[1001] != 0x42 || buf[1002] != 0x42);
	/* overlap closer than the unit: quadwords at distance 4 */
	for (unsigned i = 0; i < 64; i++)
		buf[i] = (uint8_t)i;
	d = buf + 4;
	s = buf;
	n = 3;
	asm volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	CHECK_EQ(buf[4], 0);
	CHECK_EQ(buf[11], 7);
	CHECK_EQ(buf[12], 4); /* bytes 8 to 11 were written before they were read */
	CHECK_EQ(buf[16], 12);
	/* backwards */
	for (unsigned i = 0; i < 64; i++)
		buf[i] = (uint8_t)i;
	d = buf + 31 + 8;
	s = buf + 31;
	n = 32;
	asm volatile("std; rep movsb; cld" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	CHECK_EQ(buf[8], 0);
	CHECK_EQ(buf[39], 31);
	CHECK_EQ((uint64_t)d, (uint64_t)buf + 7);
	/* 32-bit addressing uses ECX, ESI, EDI */
	d = buf + 2000;
	s = buf + 3000;
	n = 0xffffffff00000003;
	asm volatile("addr32 rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	CHECK_EQ(n & 0xffffffff, 0);
	CHECK_EQ((uint64_t)d, (uint64_t)buf + 2003);
}

static void stores_and_scans(void)
{
	void *d = buf;
	uint64_t n = 100;
	asm volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(0x1122334455667788) : "memory");
	CHECK_EQ(*(uint64_t *)(buf + 792), 0x1122334455667788);
	CHECK_EQ((uint64_t)d, (uint64_t)buf + 800);
	memset(buf, 'x', 100);
	buf[50] = 'y';
	d = buf;
	n = 100;
	uint8_t z;
	asm volatile("repne scasb; sete %2" : "+D"(d), "+c"(n), "=q"(z) : "a"('y') : "memory", "cc");
	CHECK_EQ((uint64_t)d, (uint64_t)buf + 51);
	CHECK_EQ(n, 49);
	CHECK_EQ(z, 1);
	d = buf;
	n = 100;
	asm volatile("repe scasb; sete %2" : "+D"(d), "+c"(n), "=q"(z) : "a"('x') : "memory", "cc");
	CHECK_EQ((uint64_t)d, (uint64_t)buf + 51);
	CHECK_EQ(z, 0);
	memset(buf + 200, 'x', 100);
	void *s = buf + 200;
	d = buf;
	n = 100;
	asm volatile("repe cmpsb; setb %3" : "+D"(d), "+S"(s), "+c"(n), "=q"(z) : : "memory", "cc");
	CHECK_EQ(n, 49);
	CHECK_EQ(z, 1); /* 'x' - 'y' borrows */
	uint64_t v = 0;
	s = buf + 50;
	asm volatile("lodsb" : "+S"(s), "+a"(v));
	CHECK_EQ(v, 'y');
	/* a count of 0 leaves everything, flags too */
	n = 0;
	d = buf;
	asm volatile("cmp %%rax, %%rax; repne scasb; sete %2" : "+D"(d), "+c"(n), "=q"(z) : "a"(1) : "memory", "cc");
	CHECK_EQ(z, 1);
	CHECK_EQ((uint64_t)d, (uint64_t)buf);
}

static void faults(void)
{
	uint64_t va = TEST_VA;
	uint8_t *a = alloc_page(), *b = alloc_page();
	map_page(va, (uint64_t)a, PTE_P | PTE_W, 4096);
	map_page(va + 0x2000, (uint64_t)b, PTE_P | PTE_W, 4096);
	memset(a, 1, 4096);
	memset(b, 2, 4096);
	/* store runs into a hole after 96 bytes */
	CHECK_EQ(TRY("mov $200, %%ecx\n\tmov $0x77, %%al\n\tcld\n\trep stosb", "D"(va + 4000)), 14);
	CHECK_EQ(fault.error, 2);
	CHECK_EQ(fault.cr2, va + 4096);
	CHECK_EQ(fault.rcx, 104);
	CHECK_EQ(fault.rdi, va + 4096);
	CHECK_EQ(a[4095], 0x77);
	/* copy whose source ends first */
	CHECK_EQ(TRY("mov $200, %%ecx\n\trep movsb", "S"(va + 4096 - 40), "D"(va + 0x2000)), 14);
	CHECK_EQ(fault.error, 0);
	CHECK_EQ(fault.cr2, va + 4096);
	CHECK_EQ(fault.rcx, 160);
	CHECK_EQ(fault.rsi, va + 4096);
	CHECK_EQ(fault.rdi, va + 0x2000 + 40);
	CHECK_EQ(b[39], 0x77);
	CHECK_EQ(b[40], 2);
	/* copy whose destination ends first */
	CHECK_EQ(TRY("mov $200, %%ecx\n\trep movsb", "S"(va + 0x2000), "D"(va + 4096 - 10)), 14);
	CHECK_EQ(fault.error, 2);
	CHECK_EQ(fault.rcx, 190);
	/* quadwords: the one across the border does nothing */
	memset(a, 1, 4096);
	CHECK_EQ(TRY("mov $10, %%ecx\n\tmov $-1, %%rax\n\trep stosq", "D"(va + 4096 - 20)), 14);
	CHECK_EQ(fault.rcx, 8);
	CHECK_EQ(fault.rdi, va + 4096 - 4);
	CHECK_EQ(fault.cr2, va + 4096);
	if (!guest_skip_pvm("a faulting string store across two pages changes neither"))
		CHECK_EQ(a[4093], 1);
	/* backwards into a hole */
	CHECK_EQ(TRY("mov $100, %%ecx\n\tstd\n\trep stosb\n\tcld", "D"(va + 0x2000 + 9)), 14);
	asm volatile("cld");
	CHECK_EQ(fault.rcx, 90);
	CHECK_EQ(fault.cr2, va + 0x1fff);
	CHECK_EQ(fault.rdi, va + 0x1fff);
	/* scan and compare */
	memset(a, 1, 4096);
	CHECK_EQ(TRY("mov $100, %%ecx\n\tmov $9, %%al\n\trepne scasb", "D"(va + 4096 - 30)), 14);
	CHECK_EQ(fault.rcx, 70);
	CHECK_EQ(fault.rdi, va + 4096);
	/* the handler mends it and the instruction goes on */
}

static volatile unsigned n_mended;
static void mend(struct frame *f)
{
	uint64_t page = READ_CR(2) & ~0xfffull;
	(void)f;
	n_mended++;
	map_page(page, (uint64_t)alloc_page(), PTE_P | PTE_W, 4096);
}

static void resume(void)
{
	set_isr(14, mend);
	void *d = (void *)(TEST_VA + 0x100123);
	uint64_t n = 20000;
	asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(0x3c) : "memory");
	CHECK_EQ(n, 0);
	CHECK_EQ(n_mended, 6 - (0x123 + 20000 <= 5 * 4096));
	bool ok = true;
	for (unsigned i = 0; i < 20000; i++)
		ok = ok && *(volatile uint8_t *)(TEST_VA + 0x100123 + i) == 0x3c;
	CHECK(ok);
	CHECK_EQ(*(volatile uint8_t *)(TEST_VA + 0x100122), 0);
	set_isr(14, NULL);
}

int guest_main(void)
{
	moves();
	stores_and_scans();
	faults();
	resume();
	return guest_result();
}
