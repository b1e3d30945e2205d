/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One x86-64 CPU in software: its registers, its soft TLB, and what it needs from the machine around it.
 *
 * Theory of operation: guest code is decoded (insn.h) into fixed-size operations (op.h) that handlers execute. Each handler
 * exists in two tiers compiled from one source: the fast tier uses the soft TLB inline and hands anything unusual (a miss, a
 * page-crossing access, MMIO, a page that holds decoded code) to the slow tier's handler for the same operation, which
 * goes through the functions of paging.h and can do everything. The slow tier alone is a complete CPU: x86_step() uses only that.
 *
 * Used by the software machine (hv/soft), which adds a block cache, interrupt controllers and threads, and by the KVM backend, which
 * executes single instructions with it that the host's KVM lacks.
 *
 * Thread rules: a struct x86_cpu belongs to one thread, except `pending`, which any thread may set bits in.
 */
#ifndef X86_CPU_H
#define X86_CPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/mem.h"
#include "x86/cpu_model.h"
#include "x86/state.h"

struct x86_cpu;
struct x86_block;
struct x86_op;

/* 128 bits of a vector register, in every shape. */
union x86_vec {
	uint8_t b[16];
	uint16_t w[8];
	uint32_t d[4];
	uint64_t q[2];
	int8_t sb[16];
	int16_t sw[8];
	int32_t sd[4];
	int64_t sq[2];
	float f[4];
	double lf[2];
} __attribute__((aligned(16)));

/* The register file as operations address it: by byte offset from the start of struct x86_cpu, so index * 8. */
enum x86_reg_slot {
	X86_R_ZERO = 16, /* always 0: an absent base or index */
	X86_R_PAGE = 17, /* linear address of the page that the current block lies in */
	X86_R_EA = 18,   /* result of an address-prefix operation */
	X86_R_TMP = 19,
	X86_N_SLOTS = 20,
};

/* Exception vectors (SDM vol. 3 table 6-1). */
enum x86_vector { X86_DE, X86_DB, X86_NMI, X86_BP, X86_OF, X86_BR, X86_UD, X86_NM, X86_DF, X86_TS = 10, X86_NP, X86_SS_FAULT,
		  X86_GP, X86_PF, X86_MF = 16, X86_AC, X86_MC, X86_XM };

/* RFLAGS bits. */
#define X86_FL_CF   0x0001u
#define X86_FL_PF   0x0004u
#define X86_FL_AF   0x0010u
#define X86_FL_ZF   0x0040u
#define X86_FL_SF   0x0080u
#define X86_FL_TF   0x0100u
#define X86_FL_IF   0x0200u
#define X86_FL_DF   0x0400u
#define X86_FL_OF   0x0800u
#define X86_FL_IOPL 0x3000u
#define X86_FL_NT   0x4000u
#define X86_FL_RF   0x10000u
#define X86_FL_VM   0x20000u
#define X86_FL_AC   0x40000u
#define X86_FL_ID   0x200000u
#define X86_FL_ARITH (X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_ZF | X86_FL_SF | X86_FL_OF)

/* Control register bits. */
#define X86_CR0_PE 0x1u
#define X86_CR0_MP 0x2u
#define X86_CR0_EM 0x4u
#define X86_CR0_TS 0x8u
#define X86_CR0_ET 0x10u
#define X86_CR0_NE 0x20u
#define X86_CR0_WP 0x10000u
#define X86_CR0_AM 0x40000u
#define X86_CR0_PG 0x80000000u
#define X86_CR4_TSD 0x4u
#define X86_CR4_PSE 0x10u
#define X86_CR4_PAE 0x20u
#define X86_CR4_PGE 0x80u
#define X86_CR4_OSFXSR 0x200u
#define X86_CR4_OSXMMEXCPT 0x400u
#define X86_CR4_UMIP 0x800u
#define X86_CR4_SMEP 0x100000u
#define X86_CR4_SMAP 0x200000u
#define X86_EFER_SCE 0x1u
#define X86_EFER_LME 0x100u
#define X86_EFER_LMA 0x400u
#define X86_EFER_NXE 0x800u

/* Page-fault error code bits. */
#define X86_PF_P 1u
#define X86_PF_W 2u
#define X86_PF_U 4u
#define X86_PF_RSVD 8u
#define X86_PF_I 16u

/* The soft TLB: direct-mapped by page number; one table for user mode, one for the supervisor with SMAP in force, one for the
 * supervisor with EFLAGS.AC set. A tag is the page's linear address or X86_TLB_NONE; host address = linear address + add. A tag
 * for writing exists only for RAM pages that hold no decoded code and are marked dirty. */
#define X86_TLB_BITS 10
#define X86_TLB_SIZE (1u << X86_TLB_BITS)
#define X86_TLB_NONE (~0ull)
#define X86_TLB_INDEX(la) (((la) >> MEM_PAGE_SHIFT) & (X86_TLB_SIZE - 1))
enum x86_tlb_kind { X86_TLB_USER, X86_TLB_KERNEL, X86_TLB_KERNEL_AC, X86_N_TLBS };
struct x86_tlb_entry {
	uint64_t tag_r, tag_w, tag_x;
	intptr_t add;
};
struct x86_tlb {
	struct x86_tlb_entry e[X86_TLB_SIZE];
	uint64_t gpa[X86_TLB_SIZE];    /* guest-physical page, low bit 0: global */
	uint64_t large[2][2];          /* Bloom filters of 2 MiB and 1 GiB pages that entries come from, by half of the address space */
	uint16_t local[256];           /* indices of filled entries that are not global */
	unsigned n_local;              /* more than 256: the list overflowed, look at all entries */
};

/* Reasons to leave guest code at the next block boundary, in x86_cpu.pending. */
#define X86_PEND_KICK   0x01u /* hv_vcpu_kick */
#define X86_PEND_IRQ    0x02u /* the local APIC may have something */
#define X86_PEND_WORLD  0x04u /* another vCPU stops the world */
#define X86_PEND_INVAL  0x08u /* decoded code was dropped: forget jump targets */
#define X86_PEND_TIMER  0x10u /* the APIC timer is due */
#define X86_PEND_TRACE  0x20u /* single step */
#define X86_PEND_SHADOW 0x40u /* one instruction of interrupt shadow follows */

/* Why guest code returned to the run loop. */
enum x86_leave {
	X86_LEAVE_LOOKUP,    /* the block at rip is not at hand */
	X86_LEAVE_PENDING,   /* `pending` is set */
	X86_LEAVE_EXCEPTION, /* exc is filled; the instruction at rip left no trace (a trap: rip is past it) */
	X86_LEAVE_HALT,      /* HLT completed; rip is past it */
	X86_LEAVE_SHUTDOWN,  /* triple fault */
	X86_LEAVE_STEP,      /* x86_step: the instruction completed */
	X86_LEAVE_STOP,      /* the environment asked to stop (env->stop was set by a callback) */
	X86_LEAVE_ERROR,     /* cannot go on; c->error says why */
};

struct x86_exception {
	uint8_t vector;
	bool has_error;
	bool soft;      /* INT n, INT3, INTO: a trap whose rip is past it */
	bool noncanonical; /* #GP for the address in cr2; x86_fault() makes it #SS where the stack was accessed */
	uint32_t error; /* error code; for a soft one the length of the instruction */
	uint64_t cr2;   /* for #PF; becomes CR2 at delivery */
};

/* What the CPU needs from the machine around it. All run on the CPU's thread. */
struct x86_env {
	struct mem *mem;
	const struct x86_cpu_model *model;
	/* Device accesses; false where nobody answers (a read is then all ones). */
	bool (*mmio)(struct x86_cpu *c, uint64_t gpa, void *data, unsigned len, bool is_write);
	bool (*pio)(struct x86_cpu *c, uint16_t port, void *data, unsigned len, bool is_write);
	/* MSRs that are not in struct x86_cpu (APIC, kvmclock, ...). -1: #GP. */
	int (*rdmsr)(struct x86_cpu *c, uint32_t msr, uint64_t *v);
	int (*wrmsr)(struct x86_cpu *c, uint32_t msr, uint64_t v);
	uint64_t (*rdtsc)(struct x86_cpu *c);
	uint64_t (*get_cr8)(struct x86_cpu *c);
	void (*set_cr8)(struct x86_cpu *c, uint64_t v);
	/* A write tag for the RAM page at gpa is about to be put in the TLB: false forbids it (the page holds decoded code), so that
	 * writes keep coming through code_written. NULL: always allowed. */
	bool (*may_write)(struct x86_cpu *c, uint64_t gpa);
	/* A slow-tier write to RAM at [gpa, gpa+len) has been made. True when the block being executed may be stale. NULL: ignore. */
	bool (*code_written)(struct x86_cpu *c, uint64_t gpa, unsigned len);
	/* PAUSE: the guest spins. NULL: nothing is done. */
	void (*relax)(struct x86_cpu *c);
	/* Runs a page-crossing LOCK operation with every other CPU stopped. NULL: alone anyway. */
	void (*world_lock)(struct x86_cpu *c);
	void (*world_unlock)(struct x86_cpu *c);
};

/* A jump cache entry: where the block for a linear address is, while gen matches. */
#define X86_JC_BITS 12
#define X86_JC_SIZE (1u << X86_JC_BITS)
#define X86_JC_PAGE_WORDS 128
#define X86_JC_INDEX(rip) (((rip) ^ ((rip) >> X86_JC_BITS)) & (X86_JC_SIZE - 1))
struct x86_jump {
	uint64_t rip;
	uint32_t gen;
	uint32_t block; /* offset of the block in the arena */
};

struct x86_cpu {
	/* Hot: what handlers touch in nearly every operation. */
	uint64_t r[X86_N_SLOTS]; /* enum x86_gpr, then enum x86_reg_slot */
	uint16_t fl;             /* arithmetic flags as LAHF and SETO leave them in AX: high byte SF ZF - AF - PF 1 CF, low byte OF (0/1) */
	uint8_t cpl;
	uint8_t df;              /* EFLAGS.DF, 0 or 1 */
	_Atomic uint32_t pending;
	struct x86_tlb_entry *tlb; /* &tlbs[kind].e[0] of the current kind */
	uint8_t *arena;            /* decoded blocks; links are offsets in it */
	const struct x86_block *block; /* the block being executed */
	uint64_t icount;           /* instructions retired, counted a block ahead */
	uint32_t jc_gen;           /* jump cache entries of this generation hold; the low three bits are privilege and mode */
	uint8_t mode;              /* enum x86_mode (insn.h) */
	uint8_t fp_trap;           /* 0: SSE and x87 run freely; else the slow tier looks at CR0.TS/EM, CR4.OSFXSR, unmasked exceptions */
	uint8_t smc;               /* the block being executed became stale */
	uint8_t tlb_kind;          /* enum x86_tlb_kind */
	uint8_t check_align;       /* #AC is in force */
	uint64_t segbase[8];       /* seg[].base by enum x86_seg; [6] and [7] are 0 (no segment) */
	union x86_vec xmm[16];

	/* Warm. */
	uint64_t rip;              /* valid outside of guest code */
	uint64_t rflags;           /* the bits that are in neither fl nor df; bit 1 set */
	enum x86_leave leave;
	struct x86_exception exc;
	uint32_t mxcsr;            /* masks and control; sticky flags live in the host's MXCSR while guest code runs */
	uint8_t irq_shadow;        /* interrupts held back for one instruction */
	uint8_t irq_wait;          /* the local APIC had something to deliver while IF was 0: STI must leave the block */
	bool nmi_masked;
	uint32_t jc_gens[2];       /* generations of the supervisor's [0] and the user's [1] entries, in steps of 8 */
	uint64_t jc_pages[2][X86_JC_PAGE_WORDS]; /* Bloom filters: pages that those entries lead to */
	bool kernel_local_code;    /* the supervisor ran code from a page that is not global */
	const struct x86_env *env;
	void *owner;               /* the environment's own */
	const char *error;         /* for X86_LEAVE_ERROR */

	/* x87 and MMX. st[] are the physical registers R0..R7 (MMX MMn is the low 8 bytes of st[n]); TOP is in fsw. */
	uint8_t st[8][16];
	uint16_t fcw, fsw, fop;
	uint8_t ftw;               /* bit n: Rn is not empty */
	uint64_t fip, fdp;

	struct x86_segment seg[X86_N_SEGS], tr, ldtr;
	struct x86_dtable gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, efer, dr[8];
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, mtrr_def_type, misc_enable, tsc_aux;
	uint64_t mtrr[32];
	unsigned apic_id;

	union x86_vec bounce[4];   /* operands of vector operations in memory */
	struct x86_op *link_op;    /* a branch whose link the run loop fills in with the block it finds next, or NULL */
	uint64_t stat_tlb_miss, stat_slow;
	struct x86_jump jc[X86_JC_SIZE];
	struct x86_tlb tlbs[X86_N_TLBS];
};

/* Power-on state (SDM vol. 3 table 9-1); env borrowed. */
void x86_cpu_init(struct x86_cpu *c, const struct x86_env *env, void *owner, unsigned apic_id);
void x86_cpu_load(struct x86_cpu *c, const struct x86_state *s); /* flushes the TLB; MSRs and interrupt state of env are not touched */
void x86_cpu_save(struct x86_cpu *c, struct x86_state *s);

/* Executes the one instruction at c->rip through the slow tier, between x86_fp_enter and x86_fp_leave. X86_LEAVE_STEP: done; X86_LEAVE_EXCEPTION: c->exc says which
 * and nothing changed (but a trap's instruction completed); X86_LEAVE_HALT; X86_LEAVE_ERROR; X86_LEAVE_STOP. A REP instruction
 * may return X86_LEAVE_STEP with rip unchanged: step again. Exceptions are not delivered: see x86_deliver(). */
enum x86_leave x86_step(struct x86_cpu *c);

/* Delivers an exception or interrupt through the IDT (SDM vol. 3 chapter 6). Faults on the way become #DF, then shutdown.
 * 0: done, rip is the handler; -1: triple fault. */
int x86_deliver(struct x86_cpu *c, const struct x86_exception *e);
int x86_interrupt(struct x86_cpu *c, unsigned vector); /* an external interrupt */

/* The whole RFLAGS register. */
uint64_t x86_get_rflags(const struct x86_cpu *c);
void x86_set_rflags(struct x86_cpu *c, uint64_t v);

/* Raises a fault from a slow-tier handler's helper: fills c->exc. Always returns false. */
bool x86_raise(struct x86_cpu *c, unsigned vector, uint32_t error) __attribute__((cold)); /* vectors with an error code */
bool x86_raise_noerr(struct x86_cpu *c, unsigned vector) __attribute__((cold));

/* Around guest code: puts the guest's MXCSR (all exceptions masked) on the host CPU and back. */
void x86_fp_enter(struct x86_cpu *c);
void x86_fp_leave(struct x86_cpu *c);
/* Remembers where the block for linear address rip is. */
void x86_note_jump(struct x86_cpu *c, uint64_t rip, uint32_t block);
/* Forgets jump targets on the page of la. */
void x86_forget_page_jumps(struct x86_cpu *c, uint64_t la);
/* Forgets jump targets: the user's, and the supervisor's too when `kernel`. */
void x86_forget_jumps(struct x86_cpu *c, bool user, bool kernel);
/* Recomputes fp_trap, mode, tlb_kind after CR0, CR4, EFER, CS, CPL, AC or MXCSR changed. */
void x86_update_mode(struct x86_cpu *c);

#endif
