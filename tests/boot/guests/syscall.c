/* SPDX-License-Identifier: Apache-2.0 */
/* SYSCALL and SYSRET: selectors, RCX, R11, flag mask; IRETQ between rings; system calls in a row; faults around them. */
#include "guest.h"

static volatile uint64_t n_calls, seen_cs, seen_ss, seen_rcx, seen_r11, seen_rflags, seen_rsp;
uint64_t syscall_stack_top, syscall_user_rsp;
void syscall_entry(void);
void syscall_note(uint64_t rcx, uint64_t r11, uint64_t rflags, uint64_t cs, uint64_t ss, uint64_t rsp);

asm(".globl syscall_entry\n"
    "syscall_entry:\n"
    "	mov %rsp, syscall_user_rsp(%rip)\n"
    "	mov syscall_stack_top(%rip), %rsp\n"
    "	push %rcx\n"
    "	push %r11\n"
    "	push %rdi\n"
    "	push %rsi\n"
    "	pushfq\n"
    "	pop %rdx\n"
    "	mov %rcx, %rdi\n"
    "	mov %r11, %rsi\n"
    "	xor %ecx, %ecx\n"
    "	mov %cs, %ecx\n"
    "	xor %r8d, %r8d\n"
    "	mov %ss, %r8d\n"
    "	mov syscall_user_rsp(%rip), %r9\n"
    "	cld\n"
    "	call syscall_note\n"
    "	pop %rsi\n"
    "	pop %rdi\n"
    "	pop %r11\n"
    "	pop %rcx\n"
    "	mov syscall_user_rsp(%rip), %rsp\n"
    "	sysretq\n");

void syscall_note(uint64_t rcx, uint64_t r11, uint64_t rflags, uint64_t cs, uint64_t ss, uint64_t rsp)
{
	n_calls++;
	seen_rcx = rcx;
	seen_r11 = r11;
	seen_rflags = rflags;
	seen_cs = cs;
	seen_ss = ss;
	seen_rsp = rsp;
}

/* mov %rdi, %rcx; 1: push %rcx; syscall; pop %rcx; dec %rcx; jnz 1b; mov %ss, %eax; mov %cs, %ecx; ud2 */
static const uint8_t user_loop[] = {0x48, 0x89, 0xf9, 0x51, 0x0f, 0x05, 0x59, 0x48, 0xff, 0xc9, 0x75, 0xf7,
				    0x8c, 0xd0, 0x8c, 0xc9, 0x0f, 0x0b};
static const uint8_t user_one[] = {0x0f, 0x05, 0x0f, 0x0b};

int guest_main(void)
{
	uint8_t *page = alloc_page(), *stack = alloc_page();
	uint64_t va = TEST_VA;
	syscall_stack_top = (uint64_t)stack + 4096;
	map_page(va, (uint64_t)page, PTE_P | PTE_W | PTE_U, 4096);
	wrmsr(0xC0000081, 0x00230010ull << 32);
	wrmsr(0xC0000084, 0x700);
	wrmsr(0xC0000082, (uint64_t)syscall_entry);

	memcpy(page, user_one, sizeof user_one);
	CHECK_EQ(run_user((void *)va, (void *)(va + 0x1000), 0x601, 0), 6);
	CHECK_EQ(n_calls, 1);
	CHECK_EQ(seen_cs, 0x10);
	CHECK_EQ(seen_ss, 0x18);
	CHECK_EQ(seen_rcx, va + 2);
	CHECK_EQ(seen_r11 & 0x601, 0x601);
	CHECK_EQ(seen_rflags & 0x700, 0);
	CHECK_EQ(seen_rflags & 1, 1);
	CHECK_EQ(seen_rsp, va + 0x1000);
	CHECK_EQ(fault.cs, 0x33);
	CHECK_EQ(fault.ss, 0x2b);
	CHECK_EQ(fault.rflags & 0x601, 0x601);
	CHECK_EQ(fault.rip, va + 2);
	CHECK_EQ(fault.rcx, va + 2);

	memcpy(page, user_loop, sizeof user_loop);
	n_calls = 0;
	CHECK_EQ(run_user((void *)va, (void *)(va + 0x1000), 0x200, 100), 6);
	CHECK_EQ(n_calls, 100);
	CHECK_EQ(fault.rax & 0xffff, 0x2b);
	CHECK_EQ(fault.rcx & 0xffff, 0x33);
	CHECK_EQ(fault.rsp, va + 0x1000);

	/* single-stepping into a system call whose mask has TF: nothing traps on the kernel's side */
	if (!guest_skip_pvm("TF across SYSCALL")) {
		memcpy(page, user_one, sizeof user_one);
		n_calls = 0;
		const uint64_t v = run_user((void *)va, (void *)(va + 0x1000), 0x300, 0);
		CHECK(v == 6 || v == 1);
		CHECK_EQ(n_calls, 1);
		CHECK_EQ(seen_rflags & 0x100, 0);
		CHECK_EQ(seen_r11 & 0x100, 0x100);
		CHECK_EQ(fault.cs, 0x33);
		CHECK_EQ(fault.rip, va + 2);
	}

	/* a jump to the entry from ring 3 is no system call */
	page[0] = 0xff; /* jmp *%rdi */
	page[1] = 0xe7;
	n_calls = 0;
	CHECK_EQ(run_user((void *)va, (void *)(va + 0x1000), 0x200, (uint64_t)syscall_entry), 14);
	CHECK_EQ(fault.error, 0x15);
	CHECK_EQ(fault.cr2, (uint64_t)syscall_entry);
	CHECK_EQ(n_calls, 0);

	/* without EFER.SCE there is none */
	if (guest_skip_pvm("SYSCALL without EFER.SCE"))
		return guest_result();
	wrmsr(0xC0000080, rdmsr(0xC0000080) & ~1ull);
	memcpy(page, user_one, sizeof user_one);
	CHECK_EQ(run_user((void *)va, (void *)(va + 0x1000), 0x200, 0), 6);
	CHECK_EQ(fault.rip, va);
	wrmsr(0xC0000080, rdmsr(0xC0000080) | 1);
	return guest_result();
}
