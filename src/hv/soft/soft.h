/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the software machine: the VM, its vCPUs, and what they share.
 *
 * Theory of operation: each vCPU is a struct x86_cpu that its thread drives through decoded blocks (vcpu.c). All time is
 * CLOCK_MONOTONIC: the guest's TSC ticks at 1 GHz, so a TSC value is nanoseconds. A timer thread sets a flag for running vCPUs whose APIC
 * timer is due; a halted vCPU sleeps on its own flag word until then. One stop-the-world primitive (world.c) holds every vCPU at a
 * block boundary for code revocation, emptying the block cache and page-crossing LOCK operations.
 */
#ifndef HV_SOFT_SOFT_H
#define HV_SOFT_SOFT_H

#include <pthread.h>

#include "hv/hv.h"
#include "hv/soft/code.h"
#include "hv/soft/ioapic.h"
#include "hv/soft/kvmclock.h"
#include "hv/soft/lapic.h"
#include "x86/cpu.h"

/* Stop the world. n_running counts vCPUs that are in guest code or in a device callback of theirs. */
struct world {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned n_running;
	bool stopping;
	_Atomic unsigned n_mid_block; /* vCPUs in world_stop from within an operation, not between blocks */
};

struct soft_vcpu {
	struct hv_vcpu base;
	struct x86_cpu *cpu;      /* own mapping: it is large and mostly tables */
	bool halted;              /* HLT, until an interrupt */
	bool wait_sipi;           /* an application processor that has not been started */
	bool irq_maybe;           /* the APIC may have a vector that IF or the shadow held back */
	bool nmi_pending;
	bool event_pending;       /* loaded from an accelerator that had accepted it: `event` is delivered before the next instruction */
	struct x86_exception event;
	bool stepping;            /* hv step(): leave after one instruction */
	_Atomic uint32_t sleeping; /* in futex wait on cpu->pending */
	_Atomic uint64_t icount;  /* published at every return to the run loop's slow part, for statistics */
	int64_t tsc_offset;       /* guest TSC = time since t0 + this */
	uint32_t spins;           /* PAUSEs, to give the core away now and then */
};

struct soft_vm {
	struct hv_vm base;
	struct irqchip *chip;
	struct kvmclock clock;
	struct code_cache code;
	struct world world;
	struct x86_env env;
	uint64_t t0;              /* CLOCK_MONOTONIC when the guest's TSC was 0 */
	/* The moment that states are saved or loaded at: one for all vCPUs, so that their TSCs agree. 0: each is asked when it comes. */
	_Atomic uint64_t still;
	struct soft_vcpu vcpu[HV_MAX_VCPUS];
	/* the timer thread */
	pthread_t timer_thread;
	bool timer_started;
	_Atomic uint32_t timer_word;   /* bumped to make it look again */
	_Atomic uint64_t timer_target; /* when it will wake by itself, ns */
	_Atomic bool timer_stop;
};

static inline struct soft_vcpu *soft_vcpu_of(const struct x86_cpu *c)
{
	return c->owner;
}
static inline struct soft_vm *soft_vm_of(const struct soft_vcpu *v)
{
	return (struct soft_vm *)v->base.vm;
}

/* world.c */
void world_init(struct world *w);
void world_destroy(struct world *w);
/* Around running guest code: begin waits while the world is stopped. */
void world_begin(struct soft_vm *vm);
void world_end(struct soft_vm *vm);
/* A running vCPU that saw X86_PEND_WORLD stands still until the world goes on. */
void world_park(struct soft_vm *vm);
/* Called by a running vCPU: returns when all others stand still; they go on at world_start. */
void world_stop(struct soft_vm *vm, struct soft_vcpu *self);
void world_start(struct soft_vm *vm);

/* Sets bits in a vCPU's pending word, and wakes it if it sleeps. Any thread. */
void soft_post(struct soft_vcpu *v, uint32_t bits);

/* vcpu.c */
int soft_vcpu_run(struct hv_vcpu *hv, struct hv_exit *exit);
void soft_vcpu_reset(struct soft_vcpu *v);
/* NMI, INIT and SIPI from the APIC. True when the CPU was reset: while it runs, the host's floating-point registers must follow. */
bool soft_take_events(struct soft_vcpu *v);

/* timer.c */
int soft_timer_start(struct soft_vm *vm, struct cai_error *err);
void soft_timer_stop(struct soft_vm *vm);
void soft_timer_changed(void *ctx, unsigned vcpu); /* irqchip_timer_fn */
uint64_t soft_now(void); /* CLOCK_MONOTONIC, ns */
void soft_futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t deadline);
void soft_futex_wake(_Atomic uint32_t *word);

#endif
