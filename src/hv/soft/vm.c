/* SPDX-License-Identifier: Apache-2.0 */
/* The software machine as an accelerator (hv.h): making it, its environment for struct x86_cpu, state in and out. */
#include "hv/soft/soft.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "x86/paging.h"

#define MSR_TSC        0x10u
#define MSR_TSC_ADJUST 0x3bu

static uint64_t guest_tsc(const struct soft_vcpu *v)
{
	return soft_now() - soft_vm_of(v)->t0 + (uint64_t)v->tsc_offset;
}

static uint64_t env_rdtsc(struct x86_cpu *c)
{
	return guest_tsc(soft_vcpu_of(c));
}

static bool env_mmio(struct x86_cpu *c, uint64_t gpa, void *data, unsigned len, bool is_write)
{
	struct soft_vcpu *v = soft_vcpu_of(c);
	struct soft_vm *vm = soft_vm_of(v);
	if (gpa >= HV_LAPIC_BASE && gpa < HV_LAPIC_BASE + MEM_PAGE_SIZE)
		return lapic_mmio(vm->chip, v->base.index, gpa - HV_LAPIC_BASE, data, len, is_write, soft_now());
	if (gpa >= HV_IOAPIC_BASE && gpa < HV_IOAPIC_BASE + MEM_PAGE_SIZE) {
		ioapic_mmio(vm->chip, gpa - HV_IOAPIC_BASE, data, len, is_write);
		return true;
	}
	return vm->base.cfg.bus.mmio && vm->base.cfg.bus.mmio(vm->base.cfg.bus.ctx, gpa, data, len, is_write);
}

static bool env_pio(struct x86_cpu *c, uint16_t port, void *data, unsigned len, bool is_write)
{
	const struct hv_bus *bus = &soft_vm_of(soft_vcpu_of(c))->base.cfg.bus;
	return bus->pio && bus->pio(bus->ctx, port, data, len, is_write);
}

static void set_tsc_offset(struct soft_vcpu *v, int64_t offset)
{
	v->tsc_offset = offset;
	lapic_set_tsc_offset(soft_vm_of(v)->chip, v->base.index, offset - (int64_t)soft_vm_of(v)->t0);
}

static int env_rdmsr(struct x86_cpu *c, uint32_t msr, uint64_t *val)
{
	struct soft_vcpu *v = soft_vcpu_of(c);
	struct soft_vm *vm = soft_vm_of(v);
	if (lapic_is_msr(msr))
		return lapic_msr_read(vm->chip, v->base.index, msr, val, soft_now());
	switch (msr) {
	case MSR_TSC:
		*val = guest_tsc(v);
		return 0;
	case MSR_TSC_ADJUST:
		*val = (uint64_t)v->tsc_offset;
		return 0;
	}
	return kvmclock_msr_read(&vm->clock, v->base.index, msr, val);
}

static int env_wrmsr(struct x86_cpu *c, uint32_t msr, uint64_t val)
{
	struct soft_vcpu *v = soft_vcpu_of(c);
	struct soft_vm *vm = soft_vm_of(v);
	if (lapic_is_msr(msr))
		return lapic_msr_write(vm->chip, v->base.index, msr, val, soft_now());
	switch (msr) {
	case MSR_TSC:
		set_tsc_offset(v, v->tsc_offset + (int64_t)(val - guest_tsc(v)));
		return 0;
	case MSR_TSC_ADJUST:
		set_tsc_offset(v, (int64_t)val);
		return 0;
	}
	return kvmclock_msr_write(&vm->clock, v->base.index, msr, val, guest_tsc(v));
}

static uint64_t env_get_cr8(struct x86_cpu *c)
{
	return lapic_get_cr8(soft_vm_of(soft_vcpu_of(c))->chip, c->apic_id);
}

static void env_set_cr8(struct x86_cpu *c, uint64_t val)
{
	lapic_set_cr8(soft_vm_of(soft_vcpu_of(c))->chip, c->apic_id, val);
}

static bool env_may_write(struct x86_cpu *c, uint64_t gpa)
{
	struct soft_vm *vm = soft_vm_of(soft_vcpu_of(c));
	const uint64_t page = mem_page_index(vm->base.cfg.mem, gpa);
	const uint32_t bit = 1u << c->apic_id;
	/* Announce, then look: the other half of the handshake is prepare_page() in vcpu.c. A page known to hold code is not announced: whoever
	 * decodes more of it would have to stop the world for nothing. */
	if (atomic_load(&vm->code.pages[page].is_code))
		return false;
	if (!(atomic_load(&vm->code.writers[page]) & bit))
		atomic_fetch_or(&vm->code.writers[page], bit);
	mem_dirty_set(vm->base.cfg.mem, page);
	return !atomic_load(&vm->code.pages[page].is_code);
}

/* Drops decoded code behind a write and tells the vCPUs that may be about to jump to it. */
static bool invalidate(struct soft_vm *vm, const struct x86_cpu *writer, uint32_t page, unsigned off, unsigned len)
{
	if (!code_invalidate(&vm->code, page, off, len))
		return false;
	for (unsigned i = 0; i < vm->base.cfg.n_vcpus; i++)
		if (vm->vcpu[i].cpu != writer)
			atomic_fetch_or(&vm->vcpu[i].cpu->pending, X86_PEND_INVAL);
	return true;
}

static bool env_code_written(struct x86_cpu *c, uint64_t gpa, unsigned len)
{
	struct soft_vm *vm = soft_vm_of(soft_vcpu_of(c));
	const uint32_t page = (uint32_t)mem_page_index(vm->base.cfg.mem, gpa);
	mem_dirty_set(vm->base.cfg.mem, page);
	if (!invalidate(vm, c, page, gpa & (MEM_PAGE_SIZE - 1), len))
		return false;
	x86_forget_jumps(c, true, true);
	return c->block && c->block->page == page;
}

/* A device or the loader wrote to guest RAM. */
static void mem_changed(void *ctx, uint64_t gpa, uint64_t len)
{
	struct soft_vm *vm = ctx;
	uint64_t end = gpa + len;
	while (gpa < end) {
		unsigned off = gpa & (MEM_PAGE_SIZE - 1);
		uint64_t n = MEM_PAGE_SIZE - off;
		if (n > end - gpa)
			n = end - gpa;
		invalidate(vm, NULL, (uint32_t)mem_page_index(vm->base.cfg.mem, gpa), off, (unsigned)n);
		gpa += n;
	}
}

/* A spinning guest gives the core away now and then: with more vCPUs than cores its lock holder may be waiting for one. */
static void env_relax(struct x86_cpu *c)
{
	struct soft_vcpu *v = soft_vcpu_of(c);
	if (soft_vm_of(v)->base.cfg.n_vcpus > 1 && ++v->spins % 16 == 0)
		sched_yield();
}

static void env_world_lock(struct x86_cpu *c)
{
	struct soft_vm *vm = soft_vm_of(soft_vcpu_of(c));
	atomic_fetch_add(&vm->world.n_mid_block, 1);
	world_stop(vm, soft_vcpu_of(c));
	atomic_fetch_sub(&vm->world.n_mid_block, 1);
}

static void env_world_unlock(struct x86_cpu *c)
{
	world_start(soft_vm_of(soft_vcpu_of(c)));
}

static void kick_from_chip(void *ctx, unsigned vcpu)
{
	struct soft_vm *vm = ctx;
	struct soft_vcpu *v = &vm->vcpu[vcpu];
	if (atomic_load(&v->sleeping))
		soft_futex_wake(&v->cpu->pending);
}

static void vcpu_kick(struct hv_vcpu *hv)
{
	soft_post((struct soft_vcpu *)hv, X86_PEND_KICK);
}

static int irq_line(struct hv_vm *hv, unsigned gsi, bool level)
{
	irqchip_set_gsi(((struct soft_vm *)hv)->chip, gsi, level);
	return 0;
}

static uint64_t state_time(struct soft_vm *vm)
{
	const uint64_t still = atomic_load(&vm->still);
	return still ? still : soft_now();
}

static int get_state(struct hv_vcpu *hv, struct x86_state *s, struct cai_error *err)
{
	struct soft_vcpu *v = (struct soft_vcpu *)hv;
	struct soft_vm *vm = soft_vm_of(v);
	const uint64_t now = state_time(vm);
	memset(s, 0, sizeof(*s));
	/* What others sent while this CPU stood still, and a timer that ran out unnoticed, belong to the state. */
	soft_take_events(v);
	lapic_poll_timer(vm->chip, v->base.index, now);
	x86_cpu_save(v->cpu, s);
	lapic_save(vm->chip, v->base.index, s, now);
	s->tsc = now - vm->t0 + (uint64_t)v->tsc_offset;
	s->tsc_adjust = (uint64_t)v->tsc_offset;
	kvmclock_msr_read(&vm->clock, v->base.index, MSR_KVM_WALL_CLOCK_NEW, &s->kvm_wall_clock);
	kvmclock_msr_read(&vm->clock, v->base.index, MSR_KVM_SYSTEM_TIME_NEW, &s->kvm_system_time);
	s->mp_state = v->wait_sipi ? X86_MP_WAIT_SIPI : v->halted ? X86_MP_HALTED : X86_MP_RUNNABLE;
	s->nmi_pending = v->nmi_pending;
	s->event_pending = v->event_pending;
	if (v->event_pending) {
		s->event_vector = v->event.vector;
		s->event_has_error = v->event.has_error;
		s->event_error = v->event.error;
		s->event_soft = v->event.soft;
	}
	return 0;
}

static int set_state(struct hv_vcpu *hv, const struct x86_state *s, struct cai_error *err)
{
	struct soft_vcpu *v = (struct soft_vcpu *)hv;
	struct soft_vm *vm = soft_vm_of(v);
	const uint64_t now = state_time(vm);
	x86_cpu_load(v->cpu, s);
	/* A loader's state has no APIC in it: the reset values stay. */
	if (s->apic_base) {
		/* A machine that starts has TSC 0 in every state: all CPUs keep the common clock. The offset comes before the deadline that counts by it. */
		if (s->tsc)
			set_tsc_offset(v, (int64_t)(s->tsc - (now - vm->t0)));
		lapic_load(vm->chip, v->base.index, s, now);
		kvmclock_load(&vm->clock, v->base.index, s->kvm_wall_clock, s->kvm_system_time);
		kvmclock_refresh(&vm->clock, v->base.index, now - vm->t0 + (uint64_t)v->tsc_offset, true);
	}
	v->wait_sipi = s->mp_state == X86_MP_WAIT_INIT || s->mp_state == X86_MP_WAIT_SIPI;
	v->halted = s->mp_state == X86_MP_HALTED;
	v->nmi_pending = s->nmi_pending;
	v->event_pending = s->event_pending;
	v->event = (struct x86_exception){.vector = s->event_vector, .has_error = s->event_has_error, .soft = s->event_soft, .error = s->event_error,
					  .cr2 = s->cr2};
	v->irq_maybe = true;
	return 0;
}

static const struct x86_cpu_model *get_cpuid(struct hv_vm *hv)
{
	return hv->cfg.model;
}

static int get_vm_state(struct hv_vm *hv, struct hv_vm_state *s, struct cai_error *err)
{
	struct soft_vm *vm = (struct soft_vm *)hv;
	struct ioapic_state io;
	const uint64_t now = soft_now();
	_Static_assert(HV_N_GSI == IOAPIC_PINS, "a GSI is a pin");
	atomic_store(&vm->still, now);
	ioapic_save(vm->chip, &io);
	*s = (struct hv_vm_state){.ioapic_id = io.id, .ioapic_select = io.select, .ioapic_level = io.level};
	memcpy(s->ioapic_rte, io.rte, sizeof(s->ioapic_rte));
	s->clock_tsc = now - vm->t0;
	s->clock_ns = s->clock_tsc + (uint64_t)vm->clock.sys_offset;
	return 0;
}

static int set_vm_state(struct hv_vm *hv, const struct hv_vm_state *s, struct cai_error *err)
{
	struct soft_vm *vm = (struct soft_vm *)hv;
	struct ioapic_state io = {.id = s->ioapic_id, .select = s->ioapic_select, .level = s->ioapic_level};
	const uint64_t now = soft_now();
	atomic_store(&vm->still, now);
	memcpy(io.rte, s->ioapic_rte, sizeof(io.rte));
	ioapic_load(vm->chip, &io);
	/* The common clock goes on where it stood, so that a vCPU's offset stays what its TSC_ADJUST was. */
	vm->t0 = now - s->clock_tsc;
	vm->clock.sys_offset = (int64_t)(s->clock_ns - s->clock_tsc);
	return 0;
}

static int dirty_begin(struct hv_vm *hv, struct cai_error *err)
{
	struct soft_vm *vm = (struct soft_vm *)hv;
	/* A page that may be written without our notice is marked when its write tag is made: so there must be none now. */
	for (unsigned i = 0; i < hv->cfg.n_vcpus; i++)
		x86_tlb_revoke_write(vm->vcpu[i].cpu, ~0ull);
	return 0;
}

static int dirty_fetch(struct hv_vm *hv, struct cai_error *err)
{
	return 0; /* all is in mem's log already */
}

/* What a vCPU knows of where blocks are: good as long as its page tables are those of the same moment. */
struct jumps {
	uint32_t gens[2], kernel_local_code, pad;
	uint64_t pages[2][X86_JC_PAGE_WORDS];
	struct x86_jump jc[X86_JC_SIZE];
};

static int save_code(struct hv_vm *hv, int fd, const uint8_t id[16], const uint8_t build[20], struct cai_error *err)
{
	struct soft_vm *vm = (struct soft_vm *)hv;
	const unsigned n = hv->cfg.n_vcpus;
	cleanup_free struct jumps *j = calloc(n, sizeof(*j));
	if (!j)
		return cai_fail(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < n; i++) {
		const struct x86_cpu *c = vm->vcpu[i].cpu;
		j[i].kernel_local_code = c->kernel_local_code;
		memcpy(j[i].gens, c->jc_gens, sizeof(j[i].gens));
		memcpy(j[i].pages, c->jc_pages, sizeof(j[i].pages));
		memcpy(j[i].jc, c->jc, sizeof(j[i].jc));
	}
	return code_save(&vm->code, fd, id, build, j, n * sizeof(*j), err);
}

static int load_code(struct hv_vm *hv, int fd, const uint8_t id[16], const uint8_t build[20], struct cai_error *err)
{
	struct soft_vm *vm = (struct soft_vm *)hv;
	const unsigned n = hv->cfg.n_vcpus;
	cleanup_free struct jumps *j = malloc(n * sizeof(*j));
	if (!j)
		return cai_fail(err, ENOMEM, "out of memory");
	if (code_load(&vm->code, fd, id, build, j, n * sizeof(*j), err) < 0)
		return -1;
	for (unsigned i = 0; i < n; i++) {
		struct x86_cpu *c = vm->vcpu[i].cpu;
		memcpy(c->jc_gens, j[i].gens, sizeof(c->jc_gens));
		memcpy(c->jc_pages, j[i].pages, sizeof(c->jc_pages));
		memcpy(c->jc, j[i].jc, sizeof(c->jc));
		x86_update_mode(c); /* its generation is one of those now */
		c->kernel_local_code = j[i].kernel_local_code;
		/* Written already, but before there was any code to drop. */
		kvmclock_refresh(&vm->clock, i, state_time(vm) - vm->t0 + (uint64_t)vm->vcpu[i].tsc_offset, true);
	}
	return 0;
}

static int set_step(struct hv_vcpu *hv, bool on)
{
	((struct soft_vcpu *)hv)->stepping = on;
	return 0;
}

static void vcpu_stats(struct hv_vcpu *hv, struct hv_stats *st)
{
	struct soft_vcpu *v = (struct soft_vcpu *)hv;
	struct soft_vm *vm = soft_vm_of(v);
	/* Exact on the vCPU's own thread and when it has stopped; otherwise a recent value. */
	uint64_t live = *(volatile uint64_t *)&v->cpu->icount, published = atomic_load_explicit(&v->icount, memory_order_relaxed);
	st->instructions = live > published ? live : published;
	st->tlb_misses = *(volatile uint64_t *)&v->cpu->stat_tlb_miss;
	if (v->base.index == 0) {
		st->blocks_decoded = atomic_load_explicit(&vm->code.decoded, memory_order_relaxed);
		st->code_cache_bytes = vm->code.used;
	}
}

static void vm_destroy(struct hv_vm *hv)
{
	struct soft_vm *vm = (struct soft_vm *)hv;
	soft_timer_stop(vm);
	mem_set_notify(vm->base.cfg.mem, NULL, NULL);
	for (unsigned i = 0; i < HV_MAX_VCPUS; i++)
		if (vm->vcpu[i].cpu)
			munmap(vm->vcpu[i].cpu, sizeof(struct x86_cpu));
	irqchip_free(vm->chip);
	code_cache_destroy(&vm->code);
	world_destroy(&vm->world);
	free(vm);
}

static const struct hv_ops soft_ops = {
	.name = "soft",
	.vm_destroy = vm_destroy,
	.irq_line = irq_line,
	.vcpu_run = soft_vcpu_run,
	.vcpu_kick = vcpu_kick,
	.get_state = get_state,
	.set_state = set_state,
	.cpuid = get_cpuid,
	.get_vm_state = get_vm_state,
	.set_vm_state = set_vm_state,
	.save_code = save_code,
	.load_code = load_code,
	.dirty_begin = dirty_begin,
	.dirty_fetch = dirty_fetch,
	.step = set_step,
	.vcpu_stats = vcpu_stats,
};

int hv_soft_create(const struct hv_config *cfg, struct hv_vm **out, struct cai_error *err)
{
	if (cfg->n_vcpus < 1 || cfg->n_vcpus > HV_MAX_VCPUS)
		return cai_fail(err, EINVAL, "a machine has 1 to %d vCPUs, not %u", HV_MAX_VCPUS, cfg->n_vcpus);
	struct soft_vm *vm = calloc(1, sizeof(*vm));
	if (!vm)
		return cai_fail(err, ENOMEM, "out of memory for a virtual machine");
	vm->base.ops = &soft_ops;
	vm->base.cfg = *cfg;
	world_init(&vm->world);
	vm->t0 = soft_now();
	vm->env = (struct x86_env){.mem = cfg->mem, .model = cfg->model, .mmio = env_mmio, .pio = env_pio, .rdmsr = env_rdmsr, .wrmsr = env_wrmsr,
				   .rdtsc = env_rdtsc, .get_cr8 = env_get_cr8, .set_cr8 = env_set_cr8, .may_write = env_may_write,
				   .code_written = env_code_written, .relax = env_relax, .world_lock = env_world_lock,
				   .world_unlock = env_world_unlock};
	kvmclock_init(&vm->clock, cfg->mem, 0);
	vm->chip = irqchip_new(cfg->n_vcpus, kick_from_chip, vm);
	if (!vm->chip) {
		cai_fail(err, ENOMEM, "out of memory for the interrupt controllers");
		goto fail;
	}
	if (code_cache_init(&vm->code, cfg->mem, cfg->code_cache_bytes, err) < 0)
		goto fail;
	for (unsigned i = 0; i < cfg->n_vcpus; i++) {
		struct soft_vcpu *v = &vm->vcpu[i];
		v->base = (struct hv_vcpu){.vm = &vm->base, .index = i};
		vm->base.vcpu[i] = &v->base;
		v->cpu = mmap(NULL, sizeof(struct x86_cpu), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (v->cpu == MAP_FAILED) {
			v->cpu = NULL;
			cai_fail(err, ENOMEM, "out of memory for vCPU %u", i);
			goto fail;
		}
		v->cpu->arena = vm->code.arena;
		soft_vcpu_reset(v);
		v->wait_sipi = i > 0;
		irqchip_set_flag(vm->chip, i, &v->cpu->pending, X86_PEND_IRQ);
		set_tsc_offset(v, 0);
	}
	irqchip_set_timer_hook(vm->chip, soft_timer_changed, vm);
	mem_set_notify(cfg->mem, mem_changed, vm);
	if (soft_timer_start(vm, err) < 0)
		goto fail;
	*out = &vm->base;
	return 0;
fail:
	vm_destroy(&vm->base);
	return -1;
}
