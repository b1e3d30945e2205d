/* SPDX-License-Identifier: Apache-2.0 */
/* Every exception that software can raise: vector, error code, saved RIP, and the stack it is delivered on. */
#include "guest.h"

static void faults(void)
{
	CHECK_EQ(TRY("xor %%ecx, %%ecx\n\txor %%edx, %%edx\n\tmov $5, %%eax\n\tdiv %%ecx", "i"(0)), 0);
	CHECK_EQ(TRY("mov $0x80000000, %%eax\n\tcltd\n\tmov $-1, %%ecx\n\tidiv %%ecx", "i"(0)), 0);
	CHECK_EQ(TRY("ud2", "i"(0)), 6);
	CHECK_EQ(fault.error, 0);
	CHECK_EQ(TRY(".byte 0x0f, 0xff, 0xc0", "i"(0)), 6);
	CHECK_EQ(TRY(".byte 0xf0, 0x90", "i"(0)), 6); /* LOCK NOP */
	CHECK_EQ(TRY("movb (%0), %%r11b", "r"(0x0000800000000000)), 13);
	CHECK_EQ(fault.error, 0);
	set_ist(12, 1); /* the stack that it happens on cannot take the frame */
	CHECK_EQ(TRY("mov %0, %%rsp\n\tpush %%rax", "r"(0x0000900000000000)), 12);
	CHECK_EQ(fault.error, 0);
	set_ist(12, 0);
	CHECK_EQ(TRY("mov %0, %%cr0", "r"(0x20000000ull)), 13);       /* NW without CD, PG without PE */
	CHECK_EQ(TRY("mov %0, %%cr4", "r"(READ_CR(4) | 1ull << 31)), 13);
	CHECK_EQ(TRY("mov %0, %%cr3", "r"(1ull << 60)), 13);
	CHECK_EQ(TRY("mov %0, %%ds", "r"(0x78)), 13); /* past nothing: slot 15 is empty */
	CHECK_EQ(fault.error, 0x78);
	CHECK_EQ(TRY("mov %0, %%ds", "r"(0x1000)), 13);
	CHECK_EQ(fault.error, 0x1000);
}

static void traps(void)
{
	uint64_t after;
	CHECK_EQ(TRY("int3", "i"(0)), 3);
	CHECK_EQ(TRY("int $0x77", "i"(0)), 0x77);
	asm volatile("leaq 5f(%%rip), %0" : "=r"(after));
	/* RIP of a trap is behind it, of a fault at it */
	CHECK_EQ(TRY("leaq 5f(%%rip), %%rcx\n\tint $0x77\n5:", "i"(0)), 0x77);
	CHECK_EQ(fault.rip, fault.rcx);
	CHECK_EQ(TRY("leaq 5f(%%rip), %%rcx\n5:\tud2", "i"(0)), 6);
	CHECK_EQ(fault.rip, fault.rcx);
	CHECK_EQ(TRY("leaq 5f(%%rip), %%rcx\n\tint3\n5:", "i"(0)), 3);
	CHECK_EQ(fault.rip, fault.rcx);
	(void)after;
	/* single step: the trap comes after the instruction behind POPF */
	CHECK_EQ(TRY("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\tnop\n5:\tnop\n\tnop\n\tleaq 5b(%%rip), %%rcx", "i"(0)), 1);
	CHECK(READ_ONCE(fault.rflags) & 0x100);
}

static void step_rip(void)
{
	uint64_t want;
	asm volatile("leaq step_after(%%rip), %0" : "=r"(want));
	CHECK_EQ(TRY("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\tnop\nstep_after:\tnop\n\tnop", "i"(0)), 1);
	CHECK_EQ(fault.rip, want);
}

static void fpu(void)
{
	uint64_t cr0 = READ_CR(0);
	WRITE_CR(0, cr0 | 8); /* TS */
	CHECK_EQ(TRY("fnop", "i"(0)), 7);
	CHECK_EQ(TRY("xorps %%xmm0, %%xmm0", "i"(0)), 7);
	asm volatile("clts");
	CHECK_EQ(TRY("xorps %%xmm0, %%xmm0", "i"(0)), NO_FAULT);
	WRITE_CR(0, (cr0 | 4) & ~8ull); /* EM */
	CHECK_EQ(TRY("fnop", "i"(0)), 7);
	CHECK_EQ(TRY("xorps %%xmm0, %%xmm0", "i"(0)), 6);
	WRITE_CR(0, cr0);
	/* unmasked division by zero: #MF at the next waiting instruction, #XM at once */
	WRITE_CR(0, cr0 | 0x20);
	uint16_t cw = 0x037b;
	CHECK_EQ(TRY("fninit\n\tfldcw %0\n\tfldz\n\tfld1\n\tfdivp\n\tfwait", "m"(cw)), 16);
	asm volatile("fninit");
	uint32_t mxcsr = 0x1d80, usual = 0x1f80;
	uint64_t one = 0x3ff0000000000000;
	CHECK_EQ(TRY("ldmxcsr %0\n\tmovq %1, %%xmm0\n\txorps %%xmm1, %%xmm1\n\tdivsd %%xmm1, %%xmm0", "m"(mxcsr), "m"(one)), 19);
	asm volatile("ldmxcsr %0" : : "m"(usual));
	/* without OSXMMEXCPT the same is #UD */
	WRITE_CR(4, READ_CR(4) & ~0x400ull);
	CHECK_EQ(TRY("ldmxcsr %0\n\tmovq %1, %%xmm0\n\txorps %%xmm1, %%xmm1\n\tdivsd %%xmm1, %%xmm0", "m"(mxcsr), "m"(one)), 6);
	WRITE_CR(4, READ_CR(4) | 0x400);
	asm volatile("ldmxcsr %0" : : "m"(usual));
	CHECK_EQ(TRY("ldmxcsr %0", "m"((uint32_t){0x10000})), 13);
	/* misaligned operand of an aligned move */
	CHECK_EQ(TRY("movaps (%0), %%xmm0", "r"(0x100001)), 13);
}

static volatile uint64_t seen_rsp, nested;
static void note_rsp(struct frame *f)
{
	seen_rsp = (uint64_t)f;
	f->rip = fault_recover;
	fault_recover = 0;
	fault.vector = f->vector;
	fault.error = f->error;
}

static void ists(void)
{
	uint64_t top = tss.ist[0], top2 = tss.ist[1];
	set_isr(6, note_rsp);
	set_ist(6, 1);
	CHECK_EQ(TRY("ud2", "i"(0)), 6);
	CHECK_EQ(seen_rsp, top - sizeof(struct frame));
	set_ist(6, 2);
	CHECK_EQ(TRY("ud2", "i"(0)), 6);
	CHECK_EQ(seen_rsp, top2 - sizeof(struct frame));
	set_ist(6, 0);
	set_isr(6, NULL);
	/* without an IST the stack is the current one, aligned down to 16 */
	uint64_t rsp;
	asm volatile("mov %%rsp, %0" : "=r"(rsp));
	CHECK_EQ(TRY("ud2", "i"(0)), 6);
	CHECK_EQ(fault.rsp, rsp);
}

/* A page fault that cannot be pushed becomes #DF on its own stack. */
static void double_fault(void)
{
	set_isr(8, note_rsp);
	set_ist(8, 2);
	uint64_t bad = TEST_VA + 0x1000;
	CHECK_EQ(TRY("mov %0, %%rsp\n\tmov 0x700000000000, %%al\n\tnop", "r"(bad)), 8);
	CHECK_EQ(fault.error, 0);
	set_isr(8, NULL);
	set_ist(8, 0);
}

static const uint8_t user_ud2[] = {0x0f, 0x0b};
static const uint8_t user_cli[] = {0xfa};
static const uint8_t user_int3[] = {0xcc};
static const uint8_t user_int1[] = {0xf1}; /* whose gate is closed to ring 3 */
static const uint8_t user_int_kernel[] = {0xcd, 0x31};
static const uint8_t user_hlt[] = {0xf4};
static const uint8_t user_out[] = {0xe6, 0x80};
static const uint8_t user_ac[] = {0x9c, 0x81, 0x0c, 0x24, 0, 0, 4, 0, 0x9d, 0x8b, 0x47, 0x01, 0x0f, 0x0b};
static const struct {
	const void *code;
	uint8_t n, vector, error;
} from_user[] = {
	{user_ud2, sizeof user_ud2, 6, 0},
	{user_cli, sizeof user_cli, 13, 0},
	{user_int3, sizeof user_int3, 3, 0},
	{user_int1, sizeof user_int1, 1, 0},
	{user_int_kernel, sizeof user_int_kernel, 13, (0x31 * 8 + 2) & 0xff},
	{user_hlt, sizeof user_hlt, 13, 0},
	{user_out, sizeof user_out, 13, 0},
};

static void user(void)
{
	uint8_t *page = alloc_page();
	uint64_t va = TEST_VA + 0x80000;
	map_page(va, (uint64_t)page, PTE_P | PTE_W | PTE_U, 4096);
	for (unsigned i = 0; i < sizeof from_user / sizeof *from_user; i++) {
		memcpy(page, from_user[i].code, from_user[i].n);
		if (from_user[i].code == user_int_kernel && guest_skip_pvm("INT n from ring 3"))
			continue;
		uint64_t v = run_user((void *)va, (void *)(va + 0x1000), 0x200, va);
		if (v != from_user[i].vector || (fault.error & 0xff) != from_user[i].error)
			print("case %u: vector %u error %x\n", (uint64_t)i, v, fault.error);
		CHECK_EQ(v, from_user[i].vector);
		CHECK_EQ(fault.error & 0xff, from_user[i].error);
		CHECK_EQ(fault.cs, 0x33);
		CHECK_EQ(fault.rsp, va + 0x1000);
	}
	/* an address relative to the instruction is cut to 32 bits with the rest */
	static const uint8_t lea_eip[] = {0x67, 0x48, 0x8d, 0x05, 0x10, 0, 0, 0, 0x0f, 0x0b}; /* lea 0x10(%eip), %rax; ud2 */
	memcpy(page, lea_eip, sizeof lea_eip);
	CHECK_EQ(run_user((void *)va, (void *)(va + 0x1000), 0x200, va), 6);
	CHECK_EQ(fault.rax, (uint32_t)(va + 8 + 0x10));
	WRITE_CR(0, READ_CR(0) | 0x40000); /* AM */
	memcpy(page, user_ac, sizeof user_ac);
	CHECK_EQ(run_user((void *)va, (void *)(va + 0x1000), 0x200, va), 17);
	CHECK_EQ(fault.error, 0);
	WRITE_CR(0, READ_CR(0) & ~0x40000ull);
	if (!guest_skip_pvm("CR0.AM clear in ring 3"))
		CHECK_EQ(run_user((void *)va, (void *)(va + 0x1000), 0x200, va), 6);
}

int guest_main(void)
{
	faults();
	print("traps\n");
	traps();
	step_rip();
	print("fpu\n");
	fpu();
	print("ists\n");
	ists();
	double_fault();
	print("user\n");
	user();
	return guest_result();
}
