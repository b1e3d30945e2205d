/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmclock for the software CPU (Linux Documentation/virt/kvm/x86/msr.rst and pvclock-abi.h): a page in guest RAM tells how to
 * turn the TSC into nanoseconds since the machine started. The guest's TSC runs at exactly 1 GHz and is the same on all vCPUs, so
 * a page is written when the guest asks and after a restore, never in between.
 *
 * Thread rules: the functions with a vcpu are called on that vCPU's thread or while no vCPU runs.
 */
#ifndef HV_SOFT_KVMCLOCK_H
#define HV_SOFT_KVMCLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "hv/soft/lapic.h"
#include "mem/mem.h"

#define MSR_KVM_WALL_CLOCK_NEW  0x4B564D00u
#define MSR_KVM_SYSTEM_TIME_NEW 0x4B564D01u

struct kvmclock {
	struct mem *mem;      /* borrowed */
	int64_t sys_offset;   /* system time (ns since the machine started) = guest TSC + sys_offset */
	uint64_t wall_msr;    /* as last written */
	uint64_t time_msr[IRQCHIP_MAX_VCPUS];
};

/* System time is 0 when the guest TSC is tsc0 (0 for a machine whose TSC starts at 0). */
void kvmclock_init(struct kvmclock *k, struct mem *m, uint64_t tsc0);

/* Handle the two MSRs; tsc is the vCPU's TSC now. Return 0, or -1 where the guest gets #GP (not RAM, misaligned). */
int kvmclock_msr_read(struct kvmclock *k, unsigned vcpu, uint32_t msr, uint64_t *val);
int kvmclock_msr_write(struct kvmclock *k, unsigned vcpu, uint32_t msr, uint64_t val, uint64_t tsc);

/* Takes a saved MSR pair without touching guest memory, then kvmclock_refresh() writes the pages anew: after a restore, with
 * `stopped` so that the guest's watchdogs forgive the time that passed. */
void kvmclock_load(struct kvmclock *k, unsigned vcpu, uint64_t wall_msr, uint64_t time_msr);
void kvmclock_refresh(struct kvmclock *k, unsigned vcpu, uint64_t tsc, bool stopped);

#endif
