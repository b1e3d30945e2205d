/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instruction assist: executes in software the one instruction that the host's KVM could not.
 *
 * Theory of operation: the vCPU's state is loaded into a struct x86_cpu, which executes one instruction against the same guest
 * memory; only the groups of state that changed go back. An exception that the instruction raises is delivered by the software
 * CPU too, through the guest's IDT, because a KVM that needs this at all is not to be trusted with injecting one. Interrupts
 * stay with the kernel's local APIC.
 *
 * Hardware never gets here: there KVM interprets almost nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "hv/kvm/kvm_int.h"
#include "x86/cpu.h"

#define MSR_TSC 0x10

/* What one instruction or exception delivery can depend on. MSRs and the local APIC are asked for one at a time. */
#define ASSIST_PARTS (KVM_PART_REGS | KVM_PART_SREGS | KVM_PART_FPU | KVM_PART_EVENTS)

static struct kvm_vcpu *owner(struct x86_cpu *c)
{
	return c->owner;
}

/* The interrupt controllers live in the kernel, which offers no access to their registers from here. */
static bool is_irqchip(uint64_t gpa)
{
	return align_down(gpa, MEM_PAGE_SIZE) == HV_LAPIC_BASE || align_down(gpa, MEM_PAGE_SIZE) == HV_IOAPIC_BASE;
}

static bool env_mmio(struct x86_cpu *c, uint64_t gpa, void *data, unsigned len, bool is_write)
{
	struct kvm_vcpu *v = owner(c);
	if (is_irqchip(gpa)) {
		c->error = "it accesses an interrupt controller";
		return false;
	}
	kvm_bus_mmio(v->hv.vm, gpa, data, len, is_write);
	return true;
}

static bool env_pio(struct x86_cpu *c, uint16_t port, void *data, unsigned len, bool is_write)
{
	kvm_bus_pio(owner(c)->hv.vm, port, data, len, is_write);
	return true;
}

static int env_rdmsr(struct x86_cpu *c, uint32_t msr, uint64_t *val)
{
	return kvm_msr_get(owner(c), msr, val);
}

static int env_wrmsr(struct x86_cpu *c, uint32_t msr, uint64_t val)
{
	return kvm_msr_set(owner(c), msr, val);
}

static uint64_t env_rdtsc(struct x86_cpu *c)
{
	uint64_t t = 0;
	kvm_msr_get(owner(c), MSR_TSC, &t);
	return t;
}

static uint64_t env_get_cr8(struct x86_cpu *c)
{
	return owner(c)->run->cr8;
}

static void env_set_cr8(struct x86_cpu *c, uint64_t val)
{
	struct kvm_sregs s;
	struct kvm_vcpu *v = owner(c);
	if (kvm_ioctl(v->fd, KVM_GET_SREGS, &s) == 0) {
		s.cr8 = val;
		kvm_ioctl(v->fd, KVM_SET_SREGS, &s);
	}
}

/* KVM's own dirty log does not see these. */
static bool env_code_written(struct x86_cpu *c, uint64_t gpa, unsigned len)
{
	struct mem *m = owner(c)->hv.vm->cfg.mem;
	mem_dirty_set(m, mem_page_index(m, gpa));
	return false;
}

static bool env_may_write(struct x86_cpu *c, uint64_t gpa)
{
	return false; /* so that each write is told */
}

struct kvm_assist_cpu {
	struct x86_env env;
	struct x86_cpu cpu;
};

static struct x86_cpu *assist_cpu(struct kvm_vcpu *v)
{
	if (!v->soft) {
		struct kvm_assist_cpu *a = aligned_alloc(64, align_up(sizeof *a, 64));
		if (!a)
			return NULL;
		memset(a, 0, sizeof *a);
		a->env = (struct x86_env){
			.mem = v->hv.vm->cfg.mem,
			.model = v->hv.vm->cfg.model,
			.mmio = env_mmio,
			.pio = env_pio,
			.rdmsr = env_rdmsr,
			.wrmsr = env_wrmsr,
			.rdtsc = env_rdtsc,
			.get_cr8 = env_get_cr8,
			.set_cr8 = env_set_cr8,
			.may_write = env_may_write,
			.code_written = env_code_written,
		};
		x86_cpu_init(&a->cpu, &a->env, v, v->hv.index);
		v->soft = &a->cpu;
	}
	return v->soft;
}

void kvm_assist_free(struct kvm_vcpu *v)
{
	if (v->soft)
		free(container_of(v->soft, struct kvm_assist_cpu, cpu));
	v->soft = NULL;
}

/* Which groups of the state differ. */
static unsigned changed_parts(const struct x86_state *a, const struct x86_state *b)
{
	unsigned parts = 0;
	if (memcmp(a->gpr, b->gpr, sizeof a->gpr) || a->rip != b->rip || a->rflags != b->rflags)
		parts |= KVM_PART_REGS;
	if (memcmp(a->seg, b->seg, sizeof a->seg) || memcmp(&a->tr, &b->tr, sizeof a->tr) ||
	    memcmp(&a->ldtr, &b->ldtr, sizeof a->ldtr) || a->gdtr.base != b->gdtr.base ||
	    a->gdtr.limit != b->gdtr.limit || a->idtr.base != b->idtr.base || a->idtr.limit != b->idtr.limit ||
	    a->cr0 != b->cr0 || a->cr2 != b->cr2 || a->cr3 != b->cr3 || a->cr4 != b->cr4 || a->efer != b->efer)
		parts |= KVM_PART_SREGS;
	if (memcmp(a->fx.st, b->fx.st, sizeof a->fx.st) || memcmp(a->fx.xmm, b->fx.xmm, sizeof a->fx.xmm) ||
	    a->fx.fcw != b->fx.fcw || a->fx.fsw != b->fx.fsw || a->fx.ftw != b->fx.ftw || a->fx.mxcsr != b->fx.mxcsr)
		parts |= KVM_PART_FPU;
	if (a->irq_shadow != b->irq_shadow || a->nmi_masked != b->nmi_masked)
		parts |= KVM_PART_EVENTS;
	return parts;
}

int kvm_assist(struct kvm_vcpu *v, const char **why)
{
	struct x86_state before = {0}, after;
	struct cai_error err;
	struct x86_cpu *c = assist_cpu(v);
	*why = "out of memory";
	if (!c)
		return -1;
	*why = "its state cannot be read";
	if (kvm_state_get(v, ASSIST_PARTS, &before, &err) < 0)
		return -1;
	x86_cpu_load(c, &before);
	c->error = NULL;
	bool halted = false;
	x86_fp_enter(c);
	const enum x86_leave leave = x86_step(c);
	x86_fp_leave(c);
	switch (leave) {
	case X86_LEAVE_STEP:
	case X86_LEAVE_STOP:
		break;
	case X86_LEAVE_HALT:
		halted = true;
		break;
	case X86_LEAVE_EXCEPTION:
		if (x86_deliver(c, &c->exc) < 0) {
			*why = "triple fault";
			return KVM_ASSIST_SHUTDOWN;
		}
		break;
	default:
		*why = c->error ? c->error : "the software CPU does not know it";
		return -1;
	}
	if (c->error) {
		*why = c->error;
		return -1;
	}
	after = before;
	x86_cpu_save(c, &after);
	*why = "KVM does not accept the result";
	if (kvm_state_set(v, changed_parts(&before, &after), &after, &err) < 0)
		return -1;
	if (halted) {
		struct kvm_mp_state m = {.mp_state = KVM_MP_STATE_HALTED};
		kvm_ioctl(v->fd, KVM_SET_MP_STATE, &m);
	}
	atomic_fetch_add_explicit(&v->assists, 1, memory_order_relaxed);
	return 0;
}
