/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run loop of a software vCPU.
 *
 * Theory of operation: guest code runs as a chain of tail calls from operation to operation and from block to block. It comes back here when
 * the next block is not at hand, when `pending` is set, or when an instruction needs what only this loop does: deliver an exception, halt,
 * look at interrupts after something enabled them. Between two blocks the CPU is at an instruction boundary with nothing half-done.
 */
#include "hv/soft/soft.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "x86/opcodes.h"
#include "x86/paging.h"
#include "x86/translate.h"

void soft_vcpu_reset(struct soft_vcpu *v)
{
	struct x86_cpu *c = v->cpu;
	const uint64_t icount = c->icount;
	uint8_t *arena = c->arena;
	x86_cpu_init(c, c->env ? c->env : &soft_vm_of(v)->env, v, v->base.index);
	c->icount = icount;
	c->arena = arena;
	x86_update_mode(c);
	v->halted = false;
	v->event_pending = false;
	v->irq_maybe = true;
}

bool soft_take_events(struct soft_vcpu *v)
{
	uint8_t page = 0;
	unsigned ev = lapic_take_events(soft_vm_of(v)->chip, v->base.index, &page);
	if (ev & LAPIC_EV_NMI)
		v->nmi_pending = true;
	if (ev & LAPIC_EV_INIT) {
		soft_vcpu_reset(v);
		v->wait_sipi = true;
	}
	if ((ev & LAPIC_EV_SIPI) && v->wait_sipi) {
		struct x86_cpu *c = v->cpu;
		c->seg[X86_CS].selector = (uint16_t)(page << 8);
		c->seg[X86_CS].base = (uint64_t)page << 12;
		c->rip = 0;
		x86_update_mode(c);
		v->wait_sipi = false;
	}
	return ev & LAPIC_EV_INIT;
}

static void describe(const struct x86_cpu *c, struct hv_exit *exit, const char *what)
{
	snprintf(exit->text, sizeof(exit->text), "%s at rip %#" PRIx64 " (rsp %#" PRIx64 ", cr0 %#" PRIx64 ", cr2 %#" PRIx64 ", cr3 %#" PRIx64
		 ", last exception %u error %#x)", what, c->rip, c->r[X86_RSP], c->cr0, c->cr2, c->cr3, c->exc.vector, c->exc.error);
}

/* Sleeps until something may have changed for a CPU that does not run. */
static void sleep_until_event(struct soft_vcpu *v)
{
	struct soft_vm *vm = soft_vm_of(v);
	struct x86_cpu *c = v->cpu;
	atomic_store_explicit(&v->icount, c->icount, memory_order_relaxed);
	world_end(vm);
	atomic_store(&v->sleeping, 1);
	for (;;) {
		uint32_t p = atomic_load(&c->pending);
		if (p & (X86_PEND_KICK | X86_PEND_IRQ))
			break;
		uint64_t now = soft_now(), due = v->wait_sipi ? LAPIC_NO_DEADLINE : lapic_timer_deadline(vm->chip, v->base.index);
		if (due <= now)
			lapic_poll_timer(vm->chip, v->base.index, now);
		else
			soft_futex_wait(&c->pending, p, due);
	}
	atomic_store(&v->sleeping, 0);
	/* The timer thread ignored this vCPU's deadline while it slept. */
	soft_timer_changed(vm, v->base.index);
	world_begin(vm);
}

/* Makes sure that no vCPU can write to the page without its blocks being dropped (code.h). */
static void prepare_page(struct soft_vcpu *v, uint32_t page, uint64_t gpa)
{
	struct soft_vm *vm = soft_vm_of(v);
	struct code_page *p = &vm->code.pages[page];
	/* Another vCPU that finds is_code set already must not decode before the tags are gone either, so `writers` decides alone. */
	if (!atomic_load(&p->is_code))
		atomic_store(&p->is_code, 1);
	const uint32_t self = 1u << v->base.index;
	uint32_t writers = atomic_load(&vm->code.writers[page]);
	if (!writers)
		return;
	if (writers & ~self) {
		world_stop(vm, v);
		/* Read and cleared while nobody can announce: a bit cleared later could be that of a tag made since. */
		writers = atomic_exchange(&vm->code.writers[page], 0);
		for (unsigned i = 0; i < vm->base.cfg.n_vcpus; i++)
			if (writers >> i & 1)
				x86_tlb_revoke_write(vm->vcpu[i].cpu, gpa);
		world_start(vm);
	} else {
		x86_tlb_revoke_write(v->cpu, gpa);
		atomic_fetch_and(&vm->code.writers[page], ~self);
	}
}

static void empty_cache(struct soft_vcpu *v)
{
	struct soft_vm *vm = soft_vm_of(v);
	for (;;) {
		world_stop(vm, v);
		/* A vCPU that waits for its turn in the middle of a block goes on there: its block must still be. */
		if (!atomic_load(&vm->world.n_mid_block))
			break;
		world_start(vm);
		sched_yield();
	}
	code_empty(&vm->code);
	for (unsigned i = 0; i < vm->base.cfg.n_vcpus; i++) {
		struct x86_cpu *c = vm->vcpu[i].cpu;
		x86_forget_jumps(c, true, true);
		c->block = NULL;
		c->link_op = NULL;
	}
	world_start(vm);
}

/* The block at c->rip. NULL: c->exc has the fetch's fault (*step false), or the instruction must be stepped (*step true). */
static const struct x86_block *lookup(struct soft_vcpu *v, bool *step)
{
	struct soft_vm *vm = soft_vm_of(v);
	struct x86_cpu *c = v->cpu;
	const uint64_t la = c->mode == X86_MODE_64 ? c->rip : (uint32_t)(c->segbase[X86_CS] + c->rip);
	const uint64_t la_page = la & ~(uint64_t)(MEM_PAGE_SIZE - 1);
	const unsigned slot = X86_TLB_INDEX(la), off = la & (MEM_PAGE_SIZE - 1);
	const struct x86_tlb_entry *te = &c->tlbs[c->tlb_kind].e[slot];
	uint64_t gpa;
	*step = false;
	if (unlikely(te->tag_x != la_page)) {
		if (!x86_translate(c, la, X86_EXEC, &gpa))
			return NULL;
		if (te->tag_x != la_page) {
			x86_raise(c, X86_GP, 0); /* code in device memory */
			return NULL;
		}
	}
	gpa = c->tlbs[c->tlb_kind].gpa[slot] & ~(uint64_t)(MEM_PAGE_SIZE - 1);
	const uint32_t page = (uint32_t)mem_page_index(vm->base.cfg.mem, gpa);
	const struct x86_block *b = code_find(&vm->code, page, off, c->mode);
	for (unsigned tries = 0; !b; tries++) {
		bool full;
		prepare_page(v, page, gpa);
		b = code_build(&vm->code, page, (const uint8_t *)(uintptr_t)(la_page + (uint64_t)te->add), off, c->mode, &full);
		if (full) {
			empty_cache(v);
		} else if (!b && (tries > 2 || atomic_load(&vm->code.pages[page].is_code))) {
			*step = true;
			return NULL;
		}
	}
	struct x86_op *link = c->link_op;
	if (link && c->block && b->page == c->block->page && b->start == (unsigned)link->imm)
		code_link(&vm->code, c->block, link, b);
	c->link_op = NULL;
	c->r[X86_R_PAGE] = la_page;
	if (c->mode == X86_MODE_64)
		x86_note_jump(c, la, (uint32_t)((const uint8_t *)b - vm->code.arena));
	return b;
}

static void run_block(struct x86_cpu *c, const struct x86_block *b)
{
	c->block = b;
	c->icount += b->n_insns;
	const struct x86_op *u = &b->op[0];
	while (u)
		u = x86_fast_table[u->h](c, u, x86_fast_table);
}

/* Handles `pending`. False: return to the caller of hv_vcpu_run with *exit. */
static bool handle_pending(struct soft_vcpu *v, struct hv_exit *exit)
{
	struct x86_cpu *c = v->cpu;
	uint32_t p = atomic_load_explicit(&c->pending, memory_order_acquire);
	if (p & X86_PEND_WORLD) {
		atomic_fetch_and(&c->pending, ~X86_PEND_WORLD);
		world_park(soft_vm_of(v));
	}
	if (p & X86_PEND_INVAL) {
		atomic_fetch_and(&c->pending, ~X86_PEND_INVAL);
		x86_forget_jumps(c, true, true);
	}
	if (p & X86_PEND_IRQ) {
		atomic_fetch_and(&c->pending, ~X86_PEND_IRQ);
		v->irq_maybe = true;
		if (soft_take_events(v))
			x86_fp_enter(c);
	}
	if (p & X86_PEND_KICK) {
		atomic_fetch_and(&c->pending, ~X86_PEND_KICK);
		exit->reason = HV_EXIT_KICKED;
		return false;
	}
	return true;
}

/* Delivers an NMI or the highest interrupt if the CPU takes one now. -1: triple fault. */
static int take_interrupt(struct soft_vcpu *v)
{
	struct x86_cpu *c = v->cpu;
	struct irqchip *chip = soft_vm_of(v)->chip;
	if (v->nmi_pending && !c->nmi_masked) {
		v->nmi_pending = false;
		v->halted = false;
		return x86_interrupt(c, X86_NMI);
	}
	if (!v->irq_maybe)
		return 0;
	if (lapic_has_irq(chip, v->base.index) < 0) {
		v->irq_maybe = false;
		c->irq_wait = 0;
		return 0;
	}
	if (!(c->rflags & X86_FL_IF)) {
		c->irq_wait = 1;
		return 0;
	}
	int vector = lapic_ack(chip, v->base.index);
	if (vector < 0)
		return 0;
	v->halted = false;
	return x86_interrupt(c, (unsigned)vector);
}

static enum x86_leave step(struct x86_cpu *c)
{
	bool trap = c->rflags & X86_FL_TF;
	const uint8_t cpl = c->cpl;
	c->irq_shadow = 0;
	enum x86_leave why = x86_step(c);
	/* A SYSCALL that masks TF is not followed by a trap: the kernel's first instruction would find a debug exception in the way. */
	if (c->cpl < cpl)
		trap = c->rflags & X86_FL_TF;
	if (trap && why == X86_LEAVE_STEP) {
		c->dr[6] |= 0x4000; /* BS */
		x86_raise_noerr(c, X86_DB);
		c->leave = X86_LEAVE_EXCEPTION;
	}
	return c->leave;
}

int soft_vcpu_run(struct hv_vcpu *hv, struct hv_exit *exit)
{
	struct soft_vcpu *v = (struct soft_vcpu *)hv;
	struct soft_vm *vm = soft_vm_of(v);
	struct x86_cpu *c = v->cpu;
	exit->text[0] = 0;
	atomic_store(&vm->still, 0);
	world_begin(vm);
	x86_fp_enter(c);
	for (;;) {
		if (unlikely(atomic_load_explicit(&c->pending, memory_order_relaxed)) && !handle_pending(v, exit))
			break;
		if (unlikely(v->wait_sipi)) {
			sleep_until_event(v);
			continue;
		}
		if (unlikely(v->event_pending)) {
			const struct x86_exception e = v->event;
			v->event_pending = false;
			if (x86_deliver(c, &e) < 0)
				goto shutdown;
		}
		if (unlikely(v->irq_maybe | v->nmi_pending) && !c->irq_shadow) {
			if (take_interrupt(v) < 0)
				goto shutdown;
		}
		if (unlikely(v->halted)) {
			sleep_until_event(v);
			continue;
		}
		enum x86_leave why;
		if (unlikely(c->irq_shadow || v->stepping || (c->rflags & X86_FL_TF))) {
			why = step(c);
		} else {
			bool must_step;
			const struct x86_block *b = lookup(v, &must_step);
			if (likely(b)) {
				run_block(c, b);
				why = c->leave;
			} else if (must_step) {
				why = step(c);
			} else {
				why = X86_LEAVE_EXCEPTION;
			}
		}
		switch (why) {
		case X86_LEAVE_LOOKUP: case X86_LEAVE_PENDING: case X86_LEAVE_STEP:
			break;
		case X86_LEAVE_EXCEPTION: {
			const struct x86_exception e = c->exc;
			if (x86_deliver(c, &e) < 0)
				goto shutdown;
			break;
		}
		case X86_LEAVE_HALT:
			v->halted = true;
			v->irq_maybe = true;
			break;
		case X86_LEAVE_STOP:
			exit->reason = HV_EXIT_STOP;
			goto out;
		case X86_LEAVE_SHUTDOWN:
			goto shutdown;
		case X86_LEAVE_ERROR:
			exit->reason = HV_EXIT_FAILED;
			describe(c, exit, c->error ? c->error : "the software CPU cannot go on");
			goto out;
		}
		if (unlikely(v->stepping)) {
			exit->reason = HV_EXIT_DEBUG;
			break;
		}
	}
	goto out;
shutdown:
	exit->reason = HV_EXIT_SHUTDOWN;
	describe(c, exit, "triple fault");
out:
	x86_fp_leave(c);
	atomic_store_explicit(&v->icount, c->icount, memory_order_relaxed);
	world_end(vm);
	return 0;
}
