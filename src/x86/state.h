/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The architectural state of one x86-64 CPU as accelerators exchange it: what Intel SDM vol. 1 chapter 3 and vol. 3
 * chapter 2 name, plus the interrupt state between instructions. It is plain data: no pointers, fixed sizes.
 */
#ifndef X86_STATE_H
#define X86_STATE_H

#include <stdint.h>

enum x86_gpr { X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI,
	       X86_R8, X86_R9, X86_R10, X86_R11, X86_R12, X86_R13, X86_R14, X86_R15 };
enum x86_seg { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_N_SEGS };

/* A segment register with its hidden part. attr is bits 40..55 of the descriptor shifted down to 0: type(0-3) S(4) DPL(5-6)
 * P(7) limit-high(8-11, ignored) AVL(12) L(13) D/B(14) G(15). limit is in bytes, already scaled. */
struct x86_segment {
	uint64_t base;
	uint32_t limit;
	uint16_t selector;
	uint16_t attr;
};

#define X86_ATTR_TYPE  0x000f
#define X86_ATTR_S     0x0010
#define X86_ATTR_DPL_SHIFT 5
#define X86_ATTR_P     0x0080
#define X86_ATTR_L     0x2000
#define X86_ATTR_DB    0x4000
#define X86_ATTR_G     0x8000

struct x86_dtable {
	uint64_t base;
	uint16_t limit;
};

/* The memory image of FXSAVE64 (SDM vol. 1 table 10-2): x87, MXCSR, XMM0-15. */
struct x86_fxsave {
	uint16_t fcw, fsw;
	uint8_t ftw, rsvd0; /* abridged tag word */
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[8][16]; /* ST0..ST7 in stack order, 80 bits used of each */
	uint8_t xmm[16][16];
	uint8_t rsvd1[96];
} __attribute__((aligned(16)));

enum x86_mp_state { X86_MP_RUNNABLE, X86_MP_WAIT_INIT, X86_MP_WAIT_SIPI, X86_MP_HALTED };

/* The local APIC's registers at their xAPIC offsets / 16 (SDM vol. 3 table 11-1), as KVM's KVM_GET_LAPIC keeps them. */
#define X86_LAPIC_REGS 64
#define X86_N_MTRRS    27

struct x86_state {
	uint64_t gpr[16]; /* enum x86_gpr */
	uint64_t rip, rflags;
	struct x86_segment seg[X86_N_SEGS], tr, ldtr;
	struct x86_dtable gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
	uint64_t dr[8]; /* 4 and 5 unused */
	struct x86_fxsave fx;

	/* MSRs that a guest may set. */
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, mtrr_def_type, misc_enable, tsc_aux;
	uint64_t mtrr[X86_N_MTRRS]; /* soft only: MSRs 0x200 to 0x20F, then 0x250, 0x258, 0x259, 0x268 to 0x26F */
	uint64_t apic_base, tsc_deadline;
	uint64_t tsc;         /* the guest's TSC at the moment of saving */
	uint64_t tsc_adjust;
	uint64_t kvm_wall_clock, kvm_system_time, kvm_async_pf, kvm_steal_time, kvm_poll_control, kvm_pv_eoi;

	/* Interrupt state between instructions. */
	uint32_t mp_state;         /* enum x86_mp_state */
	uint8_t irq_shadow;        /* 1: interrupts blocked by STI, 2: by MOV SS */
	uint8_t nmi_pending, nmi_masked;
	uint8_t event_pending;     /* an exception or interrupt accepted but not delivered */
	uint8_t event_vector, event_has_error, event_soft;
	uint32_t event_error;
	uint32_t lapic[X86_LAPIC_REGS];
};

#endif
