/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the KVM backend share. Nobody outside src/hv/kvm includes this. */
#ifndef HV_KVM_KVM_INT_H
#define HV_KVM_KVM_INT_H

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/ioctl.h>

#include "hv/hv.h"
#include "hv/kvm/pvm_quirks.h"

struct x86_cpu;

struct kvm_vm {
	struct hv_vm hv;
	int vm_fd;
	size_t run_size;     /* bytes of each vCPU's struct kvm_run mapping */
	unsigned quirks;     /* KVM_QUIRK_* of this host (pvm_quirks.h) */
	bool has_xcrs;
	struct x86_cpu_model cpuid; /* what the vCPUs were told */
	bool logging;        /* the memory slots have dirty logs */
	uint64_t still_tsc;  /* vCPU 0's TSC when the VM's state was saved, for the other vCPUs; 0: not saved */
};

struct kvm_vcpu {
	struct hv_vcpu hv;
	int fd;
	struct kvm_run *run;

	/* Kicking: `kicked` is the request, run->immediate_exit makes KVM_RUN return at once, the signal ends one in progress. The lock
	 * keeps `thread` alive while a signal is sent to it. */
	pthread_mutex_t lock;
	pthread_t thread;    /* the one inside hv_vcpu_run, while `running` */
	bool running;
	atomic_bool kicked;

	bool io_pending;     /* the last exit was a device access: its instruction completes in the next KVM_RUN */
	bool unblocked;      /* `unblocked_thread` can receive the kick signal */
	pthread_t unblocked_thread;

	struct x86_cpu *soft; /* the software CPU for missing instructions; made when first needed */
	struct kvm_quirk_vcpu quirk;
	_Atomic uint64_t assists;
};

static inline struct kvm_vm *kvm_vm_of(struct hv_vm *vm)
{
	return (struct kvm_vm *)vm;
}
static inline struct kvm_vcpu *kvm_vcpu_of(struct hv_vcpu *v)
{
	return (struct kvm_vcpu *)v;
}

/* ioctl() that goes on after EINTR. */
static inline int kvm_ioctl(int fd, unsigned long req, void *arg)
{
	int r;
	do
		r = ioctl(fd, req, arg);
	while (r < 0 && errno == EINTR);
	return r;
}

/* Which parts of the state kvm_load and kvm_store move. */
#define KVM_PART_REGS   0x01u
#define KVM_PART_SREGS  0x02u
#define KVM_PART_FPU    0x04u
#define KVM_PART_MSRS   0x08u
#define KVM_PART_EVENTS 0x10u
#define KVM_PART_DEBUG  0x20u
#define KVM_PART_LAPIC  0x40u
#define KVM_PART_MP     0x80u
#define KVM_PART_ALL    0xffu
/* state.c */
int kvm_state_get(struct kvm_vcpu *v, unsigned parts, struct x86_state *s, struct cai_error *err);
int kvm_state_set(struct kvm_vcpu *v, unsigned parts, const struct x86_state *s, struct cai_error *err);
int kvm_msr_get(struct kvm_vcpu *v, uint32_t index, uint64_t *val); /* 0, or -1 when the host's KVM has no such MSR */
int kvm_msr_set(struct kvm_vcpu *v, uint32_t index, uint64_t val);
/* The guest-physical address that the vCPU sees at linear address la; -1 when it is not mapped. */
int kvm_translate(struct kvm_vcpu *v, uint64_t la, uint64_t *gpa);
/* Up to n bytes of guest memory at la; returns how many could be read. */
unsigned kvm_peek(struct kvm_vcpu *v, uint64_t la, uint8_t *buf, unsigned n);

/* vm_state.c: the operations of struct hv_ops on what the vCPUs share */
int kvm_vm_get_state(struct hv_vm *hv, struct hv_vm_state *s, struct cai_error *err);
int kvm_vm_set_state(struct hv_vm *hv, const struct hv_vm_state *s, struct cai_error *err);
int kvm_dirty_begin(struct hv_vm *hv, struct cai_error *err);
int kvm_dirty_fetch(struct hv_vm *hv, struct cai_error *err);

/* cpuid.c */
int kvm_set_cpuid(struct kvm_vm *vm, struct kvm_vcpu *v, struct cai_error *err);

/* vcpu.c */
int kvm_vcpu_create(struct kvm_vm *vm, unsigned index, struct cai_error *err);
void kvm_vcpu_destroy(struct kvm_vcpu *v);
int kvm_vcpu_run(struct hv_vcpu *hv, struct hv_exit *exit);
void kvm_vcpu_kick(struct hv_vcpu *hv);
int kvm_vcpu_step(struct hv_vcpu *hv, bool on);
/* One device access through the monitor's bus; an unanswered read gives all ones. */
void kvm_bus_mmio(struct hv_vm *vm, uint64_t gpa, uint8_t *data, unsigned len, bool is_write);
void kvm_bus_pio(struct hv_vm *vm, uint16_t port, uint8_t *data, unsigned len, bool is_write);

/* assist.c: executes the instruction at the vCPU's RIP in software. 0: done, go on; -1: *why says why not; KVM_ASSIST_SHUTDOWN: it raised
 * an exception that ends in a triple fault. */
#define KVM_ASSIST_SHUTDOWN (-2)
int kvm_assist(struct kvm_vcpu *v, const char **why);
void kvm_assist_free(struct kvm_vcpu *v);

#endif
