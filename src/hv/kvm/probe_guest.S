/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The probe's guest: one routine for each thing that a guest kernel needs. Each starts in long mode, ring 0, with the state that
 * probe.c makes, and ends by writing a byte to PG_PORT_END. probe.c copies the code to PG_CODE and PG_USER.
 */
#include "probe_guest.h"

#define ABS(x) (x - probe_guest_code + PG_CODE)

	.section .rodata
	.globl	probe_guest_code, probe_guest_code_end, probe_guest_user, probe_guest_user_end
	.globl	probe_t_long_mode, probe_t_popcnt, probe_t_cmpxchg16b, probe_t_stac, probe_t_int3, probe_t_fwait
	.globl	probe_t_fxsave, probe_t_syscall, probe_t_pio, probe_t_mmio, probe_t_paging, probe_t_loop
	.globl	probe_h_bp, probe_h_pf, probe_h_other, probe_h_user_done, probe_h_syscall
	.code64
	.balign 16
probe_guest_code:

probe_t_long_mode:
	mov	$0xC0000080, %ecx
	rdmsr
	test	$0x400, %eax
	jz	bad
good:
	xor	%eax, %eax
	out	%al, $PG_PORT_END
bad:
	mov	$1, %al
	out	%al, $PG_PORT_END

probe_t_popcnt:
	mov	$0xf0f1, %eax
	popcnt	%rax, %rbx
	cmp	$9, %rbx
	jne	bad
	jmp	good

probe_t_cmpxchg16b:
	mov	$PG_SCRATCH, %edi
	movq	$1, (%rdi)
	movq	$2, 8(%rdi)
	mov	$1, %eax
	mov	$2, %edx
	mov	$3, %ebx
	mov	$4, %ecx
	lock cmpxchg16b (%rdi)
	jnz	bad
	cmpq	$3, (%rdi)
	jne	bad
	cmpq	$4, 8(%rdi)
	jne	bad
	jmp	good

probe_t_stac:
	stac
	pushfq
	pop	%rax
	clac
	pushfq
	pop	%rbx
	test	$0x40000, %eax
	jz	bad
	test	$0x40000, %ebx
	jnz	bad
	jmp	good

probe_t_int3:
	xor	%r15d, %r15d
	int3
	cmp	$1, %r15
	jne	bad
	jmp	good

probe_t_fwait:
	fninit
	fwait
	jmp	good

probe_t_fxsave:
	mov	$PG_SCRATCH, %edi
	movl	$0, 24(%rdi)
	fxsave64 (%rdi)
	cmpl	$0x1f80, 24(%rdi)
	jne	bad
	fxrstor64 (%rdi)
	jmp	good

/* Ring 3 by IRETQ, back by SYSCALL, again by SYSRETQ, and an end by INT 0x40. */
probe_t_syscall:
	mov	$0xC0000081, %ecx
	xor	%eax, %eax
	mov	$0x001b0008, %edx	/* SYSCALL: CS 8, SS 0x10; SYSRETQ: CS 0x2b, SS 0x23 */
	wrmsr
	mov	$0xC0000082, %ecx
	mov	$ABS(probe_h_syscall), %eax
	xor	%edx, %edx
	wrmsr
	mov	$0xC0000084, %ecx
	mov	$0x200, %eax
	wrmsr
	xor	%r15d, %r15d
	push	$0x23
	push	$PG_USTACK
	push	$2
	push	$0x2b
	push	$PG_USER
	iretq
probe_h_syscall:
	mov	%cs, %eax
	cmp	$8, %eax
	jne	bad
	inc	%r15
	sysretq
probe_h_user_done:
	cmp	$1, %r15
	jne	bad
	mov	8(%rsp), %rax
	cmp	$0x2b, %rax
	jne	bad
	jmp	good

probe_t_pio:
	mov	$PG_PORT_IN, %dx
	in	%dx, %eax
	cmp	$PG_MAGIC, %eax
	jne	bad
	jmp	good

probe_t_mmio:
	mov	$PG_MMIO, %edi
	movl	$PG_MAGIC, (%rdi)
	mov	4(%rdi), %eax
	cmp	$PG_MAGIC, %eax
	jne	bad
	jmp	good

/* Takes a page away, touches it, and lets the fault handler put it back. */
probe_t_paging:
	xor	%r15d, %r15d
	mov	$PG_PT + 8 * (PG_PAGE >> 12), %ebx
	mov	$PG_PAGE, %edi
	movl	$7, (%rdi)
	andb	$0xfe, (%rbx)
	invlpg	(%rdi)
	mov	(%rdi), %eax
	cmp	$7, %eax
	jne	bad
	cmp	$1, %r15
	jne	bad
	jmp	good

probe_t_loop:	/* RCX rounds of two instructions */
	dec	%rcx
	jnz	probe_t_loop
	jmp	good

probe_h_bp:
	inc	%r15
	iretq
probe_h_pf:
	pop	%rax
	test	%eax, %eax		/* not present, read, supervisor: the only one that is expected */
	jnz	bad
	mov	%cr2, %rax
	cmp	$PG_PAGE, %rax
	jne	bad
	orb	$1, (%rbx)
	inc	%r15
	iretq
probe_h_other:
	jmp	bad
probe_guest_code_end:

	.balign 16
probe_guest_user:
	syscall
	int	$0x40
	jmp	probe_guest_user
probe_guest_user_end:
	.section .note.GNU-stack, "", @progbits
