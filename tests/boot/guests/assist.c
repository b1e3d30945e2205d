/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions that an interpreting KVM lacks and the assist executes, each with its result: with operands in registers, in memory, across pages. */
#include "guest.h"

static void bits(void)
{
	uint64_t v, m = 0xf0f0000000000001;
	asm volatile("popcnt %1, %0" : "=r"(v) : "r"(0xffffull));
	CHECK_EQ(v, 16);
	asm volatile("popcnt %1, %0" : "=r"(v) : "m"(m));
	CHECK_EQ(v, 9);
	uint8_t z;
	asm volatile("popcnt %2, %0; sete %1" : "=r"(v), "=q"(z) : "r"(0ull));
	CHECK_EQ(z, 1);
}

static struct {
	uint64_t lo, hi;
} cell __attribute__((aligned(16))) = {1, 2};

static void cmpxchg16b(void)
{
	uint64_t a = 1, d = 2;
	uint8_t z;
	asm volatile("lock cmpxchg16b %0; sete %3" : "+m"(cell), "+a"(a), "+d"(d), "=q"(z) : "b"(3ull), "c"(4ull));
	CHECK_EQ(z, 1);
	CHECK_EQ(cell.lo, 3);
	CHECK_EQ(cell.hi, 4);
	asm volatile("lock cmpxchg16b %0; sete %3" : "+m"(cell), "+a"(a), "+d"(d), "=q"(z) : "b"(9ull), "c"(9ull));
	CHECK_EQ(z, 0);
	CHECK_EQ(a, 3);
	CHECK_EQ(d, 4);
	CHECK_EQ(cell.lo, 3);
	CHECK_EQ(TRY("lock cmpxchg16b (%0)", "S"((uint64_t)&cell + 8)), 13); /* misaligned */
	CHECK_EQ(TRY("lock cmpxchg16b (%0)", "S"(TEST_VA)), 14);
	CHECK_EQ(fault.error, 2);
	CHECK_EQ(fault.cr2, TEST_VA);
}

static void x87(void)
{
	uint16_t cw = 0x37f, sw = 0;
	double two = 2.0, r;
	uint8_t ext[16] = {0};
	asm volatile("fninit; fwait; fldcw %0" : : "m"(cw));
	asm volatile("fldl %1; fsqrt; fstpl %0; fwait" : "=m"(r) : "m"(two));
	uint64_t b;
	memcpy(&b, &r, 8);
	CHECK_EQ(b, 0x3ff6a09e667f3bcd);
	asm volatile("fldpi; fstpt %0" : "=m"(ext));
	CHECK_EQ(ext[9], 0x40);
	CHECK_EQ(ext[0], 0x35);
	asm volatile("fnstsw %0" : "=m"(sw));
	CHECK_EQ(sw & 0x3800, 0);
	/* state through FXSAVE and back */
	static uint8_t area[512] __attribute__((aligned(16)));
	asm volatile("fld1; fxsave64 %0; fninit; fxrstor64 %0; fstpl %1" : "+m"(area), "=m"(r));
	memcpy(&b, &r, 8);
	CHECK_EQ(b, 0x3ff0000000000000);
}

static void sse(void)
{
	static uint64_t a[2] __attribute__((aligned(16))) = {0x1111, 0x2222}, c[2] __attribute__((aligned(16)));
	asm volatile("movdqa %1, %%xmm3; paddq %%xmm3, %%xmm3; movdqa %%xmm3, %0" : "=m"(c) : "m"(a));
	CHECK_EQ(c[0], 0x2222);
	CHECK_EQ(c[1], 0x4444);
	asm volatile("movdqu %1, %%xmm1; pshufd $0x4e, %%xmm1, %%xmm2; movups %%xmm2, %0" : "=m"(c) : "m"(a));
	CHECK_EQ(c[0], 0x2222);
	double x = 1.5, y = 2.25, z;
	asm volatile("movsd %1, %%xmm0; mulsd %2, %%xmm0; movsd %%xmm0, %0" : "=m"(z) : "m"(x), "m"(y));
	uint64_t b;
	memcpy(&b, &z, 8);
	CHECK_EQ(b, 0x400b000000000000);
	int64_t i;
	asm volatile("cvttsd2si %1, %0" : "=r"(i) : "m"(z));
	CHECK_EQ(i, 3);
	/* across two pages */
	uint64_t va = TEST_VA + 0x10000;
	uint8_t *p = alloc_page(), *q = alloc_page();
	map_page(va, (uint64_t)q, PTE_P | PTE_W, 4096);
	map_page(va + 4096, (uint64_t)p, PTE_P | PTE_W, 4096);
	asm volatile("movdqu %%xmm1, (%0); movdqu (%0), %%xmm4; movups %%xmm4, %1" : : "r"(va + 4090), "m"(c) : "memory");
	CHECK_EQ(c[0], 0x1111);
	CHECK_EQ(c[1], 0x2222);
	CHECK_EQ(q[4090], 0x11);
	CHECK_EQ(p[2], 0x22);
	CHECK_EQ(TRY("movdqu (%0), %%xmm0", "S"(va + 8192 - 4)), 14);
	CHECK_EQ(fault.cr2, va + 8192);
}

static void newer(void)
{
	uint32_t r[4];
	cpuid(1, 0, r);
	if (r[2] & 1 << 20) {
		uint64_t v = 0xffffffff;
		asm volatile("crc32q %1, %0" : "+r"(v) : "r"(0x0102030405060708ull));
		CHECK_EQ(v, 0xd906fde3);
		static uint8_t s[16] __attribute__((aligned(16))) = "hello world";
		uint32_t at;
		asm volatile("movdqa %1, %%xmm0; movdqa %%xmm0, %%xmm1; pcmpistri $0x8, %%xmm0, %%xmm1" : "=c"(at) : "m"(s));
		CHECK_EQ(at, 0);
	} else {
		print("skipped: no SSE4.2\n");
	}
}

static volatile unsigned n_bp;
static void on_bp(struct frame *f)
{
	(void)f;
	n_bp++;
}

static void int3(void)
{
	set_isr(3, on_bp);
	for (unsigned i = 0; i < 10; i++)
		asm volatile("int3");
	CHECK_EQ(n_bp, 10);
	set_isr(3, NULL);
	CHECK_EQ(TRY("ud2", "i"(0)), 6);
}

static void flags(void)
{
	uint32_t r[4];
	uint64_t f;
	cpuid(7, 0, r);
	if (!(r[1] & 1 << 20))
		return;
	asm volatile("stac; pushfq; popq %0; clac" : "=r"(f) : : "cc", "memory");
	CHECK_EQ(f >> 18 & 1, 1);
	asm volatile("pushfq; popq %0" : "=r"(f) : : "memory");
	CHECK_EQ(f >> 18 & 1, 0);
}

/* The assist leaves the rest of the state alone. */
static void neighbours(void)
{
	uint64_t a, b, c, f;
	asm volatile("mov $0x1234, %%r12; mov $0x5678, %%r13; stc; mov $0xff, %%ecx; popcnt %%rcx, %%rcx; mov %%r12, %0; mov %%r13, %1; mov %%rcx, %2"
		     : "=r"(a), "=r"(b), "=r"(c) : : "r12", "r13", "rcx", "cc");
	CHECK_EQ(a, 0x1234);
	CHECK_EQ(b, 0x5678);
	CHECK_EQ(c, 8);
	asm volatile("stc; fwait; pushfq; popq %0" : "=r"(f) : : "cc", "memory");
	CHECK_EQ(f & 1, 1);
}

int guest_main(void)
{
	uint32_t r[4];
	cpuid(1, 0, r);
	bits();
	cmpxchg16b();
	print("x87\n");
	x87();
	print("sse\n");
	sse();
	newer();
	print("int3\n");
	int3();
	flags();
	neighbours();
	return guest_result();
}
