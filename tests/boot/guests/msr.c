/* SPDX-License-Identifier: Apache-2.0 */
/* MSRs that an operating system writes, segment bases, SWAPGS, CPUID and the time stamp. */
#include "guest.h"

static uint64_t try_rdmsr(uint32_t msr)
{
	return TRY("mov %0, %%ecx\n\trdmsr", "S"(msr));
}

static uint64_t try_wrmsr(uint32_t msr, uint64_t v)
{
	return TRY("mov %0, %%ecx\n\tmov %1, %%rax\n\tmov %1, %%rdx\n\tshr $32, %%rdx\n\twrmsr", "S"(msr), "D"(v));
}

static void bases(void)
{
	uint64_t v;
	static uint64_t a = 0x1111, b = 0x2222;
	wrmsr(0xC0000100, (uint64_t)&a);
	wrmsr(0xC0000101, (uint64_t)&b);
	wrmsr(0xC0000102, 0xffff888012345678);
	asm volatile("mov %%fs:0, %0" : "=r"(v));
	CHECK_EQ(v, 0x1111);
	asm volatile("mov %%gs:0, %0" : "=r"(v));
	CHECK_EQ(v, 0x2222);
	asm volatile("swapgs");
	CHECK_EQ(rdmsr(0xC0000101), 0xffff888012345678);
	CHECK_EQ(rdmsr(0xC0000102), (uint64_t)&b);
	asm volatile("swapgs");
	CHECK_EQ(rdmsr(0xC0000101), (uint64_t)&b);
	CHECK_EQ(try_wrmsr(0xC0000100, (uint64_t)0x80000000 << 32 | (0)), 13);
	/* loading a null selector clears the base on Intel and keeps it on AMD; either is a CPU */
}

static void round_trips(void)
{
	static const struct {
		uint32_t msr;
		uint64_t v;
	} t[] = {
		{0xC0000081, 0x0023001000000000}, {0xC0000082, 0xffffffff81000000}, {0xC0000083, 0xffffffff81000010},
		{0xC0000084, 0x257fd5},		  {0x277, 0x0007040600070406},	    {0x277, 0x0407050600070106},
		{0x174, 0x10},			  {0x175, 0xffffffff80000000},	    {0x176, 0xffffffff81000020},
	};
	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		wrmsr(t[i].msr, t[i].v);
		CHECK_EQ(rdmsr(t[i].msr), t[i].v);
	}
	wrmsr(0xC0000082, 0);
}

static void faults(void)
{
	CHECK_EQ(try_rdmsr(0xdeadbeef), 13);
	CHECK_EQ(fault.error, 0);
	CHECK_EQ(try_wrmsr(0xdeadbeef, (uint64_t)0 << 32 | (0)), 13);
	CHECK_EQ(try_wrmsr(0xC0000082, (uint64_t)0x80000000 << 32 | (0)), 13); /* not canonical */
	if (!guest_skip_pvm("PAT refuses a reserved type"))
		CHECK_EQ(try_wrmsr(0x277, (uint64_t)0 << 32 | (2)), 13);		     /* reserved memory type */
	CHECK_EQ(try_wrmsr(0xC0000080, (uint64_t)1 << 32 | (0x400)), 13);     /* reserved EFER bits */
	/* LME cannot change while paging is on */
	uint32_t efer = (uint32_t)rdmsr(0xC0000080);
	CHECK_EQ(try_wrmsr(0xC0000080, (uint64_t)0 << 32 | (efer & ~0x100u)), 13);
}

static void identity(void)
{
	uint32_t r[4];
	cpuid(0, 0, r);
	CHECK(r[0] >= 7);
	cpuid(0x40000000, 0, r);
	CHECK_EQ(r[1], 0x4b4d564b); /* KVMKVMKVM */
	cpuid(0x80000001, 0, r);
	CHECK(r[3] & 1 << 29);
	CHECK(r[3] & 1 << 20);
	cpuid(1, 0, r);
	CHECK(r[2] & 1u << 31);
	CHECK(r[2] & 1 << 21);
	cpuid(0x80000001, 0, r);
	if (r[3] & 1 << 27) {
		uint32_t lo, hi, aux;
		wrmsr(0xC0000103, 0x1234);
		asm volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
		CHECK_EQ(aux, 0x1234);
	}
}

static void time_stamp(void)
{
	uint64_t a = rdtsc(), b = rdtsc();
	CHECK(b >= a);
	WRITE_CR(4, READ_CR(4) | 4); /* TSD */
	CHECK(rdtsc() >= b);	     /* ring 0 may */
	uint8_t *page = alloc_page();
	map_page(TEST_VA, (uint64_t)page, PTE_P | PTE_W | PTE_U, 4096);
	static const uint8_t code[] = {0x0f, 0x31, 0x0f, 0x0b};
	memcpy(page, code, sizeof code);
	if (!guest_skip_pvm("CR4.TSD"))
		CHECK_EQ(run_user((void *)TEST_VA, (void *)(TEST_VA + 0x1000), 0x200, 0), 13);
	WRITE_CR(4, READ_CR(4) & ~4ull);
	CHECK_EQ(run_user((void *)TEST_VA, (void *)(TEST_VA + 0x1000), 0x200, 0), 6);
}

int guest_main(void)
{
	bases();
	round_trips();
	faults();
	identity();
	time_stamp();
	return guest_result();
}
