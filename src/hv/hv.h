/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPU contract: what an accelerator (src/hv/kvm, src/hv/soft) offers the machine monitor.
 *
 * Theory of operation: the monitor makes one hv_vm and one hv_vcpu for each CPU, then runs each vCPU on a thread of its own
 * with hv_vcpu_run(), which returns only for what the monitor must decide. Device accesses do not return: they call the
 * monitor's bus on the vCPU's thread, so an instruction is always complete when hv_vcpu_run() returns. The local APICs,
 * the IOAPIC, kvmclock and the TSC-deadline timer belong to the accelerator (in the kernel for KVM).
 *
 * Thread rules: hv_vcpu_run and the state functions are called on the vCPU's own thread, or by anyone while no vCPU runs.
 * hv_vcpu_kick, hv_irq_line and hv_irqfd may be called from any thread.
 */
#ifndef HV_HV_H
#define HV_HV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "mem/mem.h"
#include "x86/cpu_model.h"
#include "x86/state.h"

#define HV_MAX_VCPUS   32
#define HV_N_GSI       24           /* pins of the IOAPIC */
#define HV_IOAPIC_BASE 0xFEC00000ull
#define HV_LAPIC_BASE  0xFEE00000ull

/* The monitor's side of device accesses. Called on vCPU threads, several at once. data is len (1, 2, 4 or 8) bytes,
 * little-endian; a read that nobody answers must return false and is all ones; such a write is dropped. */
struct hv_bus {
	void *ctx;
	bool (*mmio)(void *ctx, uint64_t gpa, void *data, unsigned len, bool is_write);
	bool (*pio)(void *ctx, uint16_t port, void *data, unsigned len, bool is_write); /* len 1, 2 or 4 */
};

struct hv_config {
	struct mem *mem;                   /* borrowed; outlives the VM */
	unsigned n_vcpus;                  /* 1..HV_MAX_VCPUS; APIC id = index */
	const struct x86_cpu_model *model; /* borrowed */
	struct hv_bus bus;
	uint64_t code_cache_bytes;         /* soft: bound of the decoded-block cache, 0 = default (16 MiB) */
	int kvm_fd;                        /* kvm: an open /dev/kvm, borrowed */
};

enum hv_exit_reason {
	HV_EXIT_KICKED,       /* hv_vcpu_kick() was called (or a signal came); nothing else happened */
	HV_EXIT_SHUTDOWN,     /* triple fault */
	HV_EXIT_STOP,         /* a bus callback asked for it with hv_vcpu_stop() (reset or power-off was written) */
	HV_EXIT_FAILED,       /* the accelerator cannot go on; text says why */
	HV_EXIT_DEBUG,        /* breakpoint or single step completed */
};

struct hv_exit {
	enum hv_exit_reason reason;
	char text[240]; /* for SHUTDOWN and FAILED: what happened, with registers where they help */
};

struct hv_stats {
	uint64_t instructions; /* retired guest instructions (a REP counts once); 0 where the accelerator cannot say */
	uint64_t blocks_decoded, code_cache_bytes, tlb_misses, assists; /* soft; assists: kvm */
};

/* What belongs to the VM and to no vCPU: the I/O APIC (redirection entries as in the 82093AA's registers, remote IRR included) and kvmclock. */
struct hv_vm_state {
	uint8_t ioapic_id, ioapic_select;
	uint32_t ioapic_level;            /* levels of the pins, one bit each */
	uint64_t ioapic_rte[HV_N_GSI];
	uint64_t clock_ns;                /* kvmclock's system time ... */
	uint64_t clock_tsc;               /* ... when a TSC that nobody adjusted was this */
};

struct hv_vm;
struct hv_vcpu;

/* What an accelerator implements. Only hv.c and the accelerators use this table; all others call the functions below. */
struct hv_ops {
	const char *name; /* "kvm" or "soft" */
	void (*vm_destroy)(struct hv_vm *);
	int (*irq_line)(struct hv_vm *, unsigned gsi, bool level);
	int (*irqfd)(struct hv_vm *, unsigned gsi, int fd, struct cai_error *);
	int (*ioeventfd)(struct hv_vm *, uint64_t gpa, unsigned len, uint32_t match, int fd, struct cai_error *);
	int (*vcpu_run)(struct hv_vcpu *, struct hv_exit *);
	void (*vcpu_kick)(struct hv_vcpu *);
	int (*get_state)(struct hv_vcpu *, struct x86_state *, struct cai_error *);
	int (*set_state)(struct hv_vcpu *, const struct x86_state *, struct cai_error *);
	const struct x86_cpu_model *(*cpuid)(struct hv_vm *);
	int (*get_vm_state)(struct hv_vm *, struct hv_vm_state *, struct cai_error *);
	int (*set_vm_state)(struct hv_vm *, const struct hv_vm_state *, struct cai_error *);
	int (*dirty_begin)(struct hv_vm *, struct cai_error *);
	int (*dirty_fetch)(struct hv_vm *, struct cai_error *);
	int (*save_code)(struct hv_vm *, int fd, const uint8_t id[16], const uint8_t build[20], struct cai_error *);
	int (*load_code)(struct hv_vm *, int fd, const uint8_t id[16], const uint8_t build[20], struct cai_error *);
	int (*step)(struct hv_vcpu *, bool on);
	void (*vcpu_stats)(struct hv_vcpu *, struct hv_stats *);
};

/* First member of each accelerator's own structures. */
struct hv_vm {
	const struct hv_ops *ops;
	struct hv_config cfg;
	struct hv_vcpu *vcpu[HV_MAX_VCPUS]; /* all made by create */
};
struct hv_vcpu {
	struct hv_vm *vm;
	unsigned index;
};

/* Create a VM with all its vCPUs. vCPU 0 is runnable with the state it is then given by hv_set_state(); the others wait
 * for INIT and SIPI. The VM is owned by the caller. */
int hv_soft_create(const struct hv_config *cfg, struct hv_vm **out, struct cai_error *err);
int hv_kvm_create(const struct hv_config *cfg, struct hv_vm **out, struct cai_error *err);

static inline void hv_destroy(struct hv_vm *vm)
{
	if (vm)
		vm->ops->vm_destroy(vm);
}
/* Runs until there is something to tell. Returns 0 with *exit filled (also for HV_EXIT_FAILED). */
static inline int hv_vcpu_run(struct hv_vcpu *v, struct hv_exit *exit)
{
	return v->vm->ops->vcpu_run(v, exit);
}
/* Makes a running or halted vCPU return HV_EXIT_KICKED soon; sticky until the next return if it is not running now. */
static inline void hv_vcpu_kick(struct hv_vcpu *v)
{
	v->vm->ops->vcpu_kick(v);
}
/* Drives an IOAPIC pin. Edge pins fire on a rising level. */
static inline int hv_irq_line(struct hv_vm *vm, unsigned gsi, bool level)
{
	return vm->ops->irq_line(vm, gsi, level);
}
/* kvm only (ENOTSUP elsewhere): a pulse on gsi for each write to the eventfd; the eventfd signalled for each guest write
 * of `match` to gpa, without an exit. */
static inline int hv_irqfd(struct hv_vm *vm, unsigned gsi, int fd, struct cai_error *err)
{
	if (!vm->ops->irqfd)
		return cai_fail(err, 95 /* ENOTSUP */, "irqfd is not offered by the %s accelerator", vm->ops->name);
	return vm->ops->irqfd(vm, gsi, fd, err);
}
static inline int hv_ioeventfd(struct hv_vm *vm, uint64_t gpa, unsigned len, uint32_t match, int fd, struct cai_error *err)
{
	if (!vm->ops->ioeventfd)
		return cai_fail(err, 95 /* ENOTSUP */, "ioeventfd is not offered by the %s accelerator", vm->ops->name);
	return vm->ops->ioeventfd(vm, gpa, len, match, fd, err);
}
/* Architectural state, complete enough to continue elsewhere (x86/state.h). */
static inline int hv_get_state(struct hv_vcpu *v, struct x86_state *s, struct cai_error *err)
{
	return v->vm->ops->get_state(v, s, err);
}
static inline int hv_set_state(struct hv_vcpu *v, const struct x86_state *s, struct cai_error *err)
{
	return v->vm->ops->set_state(v, s, err);
}
/* What CPUID tells the guest: the model, cut down to what the accelerator has. Borrowed from the VM. */
static inline const struct x86_cpu_model *hv_cpuid(struct hv_vm *vm)
{
	return vm->ops->cpuid(vm);
}
/* The same for what the vCPUs share. Only while no vCPU runs. Saving: before the vCPUs, whose TSCs are then told as of the same moment;
 * loading: before them too. */
static inline int hv_get_vm_state(struct hv_vm *vm, struct hv_vm_state *s, struct cai_error *err)
{
	return vm->ops->get_vm_state(vm, s, err);
}
static inline int hv_set_vm_state(struct hv_vm *vm, const struct hv_vm_state *s, struct cai_error *err)
{
	return vm->ops->set_vm_state(vm, s, err);
}
/* The dirty log (mem_dirty_test). begin: from now on, with all pages clean; fetch: what the accelerator knows and mem does not yet. Only while no
 * vCPU runs. */
static inline int hv_dirty_begin(struct hv_vm *vm, struct cai_error *err)
{
	return mem_dirty_begin(vm->cfg.mem, err) < 0 ? -1 : vm->ops->dirty_begin(vm, err);
}
/* Decoded code, for accelerators that have any (others: ENOTSUP): to an empty file, and, after all state is set and before any vCPU runs, from one that this very build wrote
 * for the snapshot `id`. What is in such a file is believed, so nobody else may be able to write to it. */
static inline int hv_save_code(struct hv_vm *vm, int fd, const uint8_t id[16], const uint8_t build[20], struct cai_error *err)
{
	if (!vm->ops->save_code)
		return cai_fail(err, 95 /* ENOTSUP */, "the %s accelerator has no decoded code", vm->ops->name);
	return vm->ops->save_code(vm, fd, id, build, err);
}
static inline int hv_load_code(struct hv_vm *vm, int fd, const uint8_t id[16], const uint8_t build[20], struct cai_error *err)
{
	if (!vm->ops->load_code)
		return cai_fail(err, 95 /* ENOTSUP */, "the %s accelerator has no decoded code", vm->ops->name);
	return vm->ops->load_code(vm, fd, id, build, err);
}
static inline int hv_dirty_fetch(struct hv_vm *vm, struct cai_error *err)
{
	return vm->ops->dirty_fetch(vm, err);
}
static inline void hv_vcpu_stats(struct hv_vcpu *v, struct hv_stats *st)
{
	*st = (struct hv_stats){0};
	if (v->vm->ops->vcpu_stats)
		v->vm->ops->vcpu_stats(v, st);
}

#endif
