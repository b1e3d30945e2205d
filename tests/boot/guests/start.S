/* SPDX-License-Identifier: Apache-2.0 */
/* Entry, interrupt stubs, ring changes and the secondary CPUs' way from real mode into long mode. */
	.section .text.start, "ax"
	.code64
	.globl _start
_start:
	lea	boot_stack_top(%rip), %rsp
	mov	%rdi, guest_cpus(%rip)
	mov	%rsi, guest_accel(%rip)
	xor	%ebp, %ebp
	call	guest_init
	call	guest_main
	mov	%eax, %edi
	call	guest_exit
1:	cli
	hlt
	jmp	1b

	.text
/* 256 stubs of 16 bytes: push a zero where the CPU pushes no error code, then the vector. */
	.globl	isr_stubs
	.balign 16
isr_stubs:
	.set	v, 0
	.rept	256
	.balign 16
	.if	!(v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21)
	push	$0
	.endif
	push	$v
	jmp	isr_common
	.set	v, v + 1
	.endr

isr_common:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	cld
	mov	%rsp, %rdi
	mov	%rsp, %rbx
	and	$-16, %rsp
	call	guest_isr
	mov	%rbx, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	iretq

/* void enter_user(rip rdi, rsp rsi, rflags rdx, arg rcx): runs ring 3 code until the first event that nobody handles; then
 * leave_user() makes it return here. */
	.globl	enter_user
enter_user:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	pushfq
	mov	%rsp, user_return_rsp(%rip)
	mov	$0x2b, %eax
	mov	%eax, %ds
	mov	%eax, %es
	push	$0x2b
	push	%rsi
	push	%rdx
	push	enter_user_cs(%rip)
	push	%rdi
	mov	%rcx, %rdi
	iretq

	.globl	leave_user
leave_user:
	mov	user_return_rsp(%rip), %rsp
	mov	$0x18, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	popfq
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

	.globl	reload_segments
reload_segments:
	pop	%rax
	push	$0x10
	push	%rax
	mov	$0x18, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	lretq

/* Copied to AP_TRAMPOLINE (0x8000) and entered in real mode with CS = 0x800, IP = 0. */
	.globl	ap_trampoline, ap_trampoline_end
	.code16
ap_trampoline:
	cli
	mov	%cs, %ax
	mov	%ax, %ds
	lgdtl	(ap_gdtr - ap_trampoline)
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$0x08, $(0x8000 + ap_32 - ap_trampoline)
	.code32
ap_32:
	mov	$0x18, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%cr4, %eax
	or	$0x20, %eax
	mov	%eax, %cr4
	mov	(0x8000 + ap_cr3 - ap_trampoline), %eax
	mov	%eax, %cr3
	mov	$0xC0000080, %ecx
	rdmsr
	or	$0x900, %eax
	wrmsr
	mov	%cr0, %eax
	and	$0x9fffffff, %eax
	or	$0x80010000, %eax
	mov	%eax, %cr0
	ljmpl	$0x10, $(0x8000 + ap_64 - ap_trampoline)
	.code64
ap_64:
	mov	$0x18, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$1, %eax
	lock xadd %eax, ap_next
	inc	%eax			/* CPU number, 1 and up */
	mov	%eax, %edi
	shl	$14, %eax
	lea	ap_stacks(%rax), %rsp	/* CPU n's stack ends at ap_stacks + n * 16 KiB */
	mov	$ap_entry, %rax
	call	*%rax
1:	cli
	hlt
	jmp	1b
	.balign 8
ap_gdt:
	.quad	0
	.quad	0x00CF9B000000FFFF	/* 0x08: 32-bit code */
	.quad	0x00AF9B000000FFFF	/* 0x10: 64-bit code */
	.quad	0x00CF93000000FFFF	/* 0x18: data */
ap_gdtr:
	.word	. - ap_gdt - 1
	.long	0x8000 + ap_gdt - ap_trampoline
	.balign 8
	.globl	ap_cr3
ap_cr3:
	.long	0
ap_trampoline_end:

	.data
	.globl	enter_user_cs
	.balign 8
enter_user_cs: .quad 0x33

	.bss
	.balign 16
	.skip	65536
boot_stack_top:
	.globl	guest_cpus, guest_accel, user_return_rsp, ap_next, ap_stacks
guest_cpus: .quad 0
guest_accel: .quad 0
user_return_rsp: .quad 0
ap_next: .quad 0
	.balign 16
ap_stacks:
	.skip	32 * 16384 + 16384
	.section .note.GNU-stack, "", @progbits
