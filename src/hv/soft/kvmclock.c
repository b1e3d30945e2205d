/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the guest computes time = system_time + (((tsc - tsc_timestamp) << shift) * mul >> 32). At 1 GHz, mul 2^31
 * and shift 1 make that the plain difference. A page is rewritten under an odd version number, which tells a reader to try
 * again; since the vCPU it belongs to is the writer, other readers (the vDSO maps vCPU 0's page) are the only ones who can see it.
 */
#include "hv/soft/kvmclock.h"

#include <string.h>

#include "base/loop.h"
#include "base/util.h"

#define TIME_ENABLED    1u
#define TIME_BYTES      32u
#define WALL_BYTES      12u
#define MUL_1GHZ        0x80000000u
#define SHIFT_1GHZ      1
#define FLAG_TSC_STABLE 1u
#define FLAG_STOPPED    2u
#define NS_PER_S        1000000000ull

void kvmclock_init(struct kvmclock *k, struct mem *m, uint64_t tsc0)
{
	memset(k, 0, sizeof(*k));
	k->mem = m;
	k->sys_offset = -(int64_t)tsc0;
}

/* Writes body (from offset 4 on) behind the next even version number. */
static int publish(struct kvmclock *k, uint64_t gpa, const uint8_t *body, size_t n)
{
	uint8_t word[4];
	if (mem_read(k->mem, gpa, word, 4) < 0 || !mem_hva(k->mem, gpa, n))
		return -1;
	uint32_t version = (load_le32(word) & ~1u) + 2;
	store_le32(word, version - 1);
	mem_write(k->mem, gpa, word, 4);
	atomic_thread_fence(memory_order_seq_cst); /* odd version before the body */
	mem_write(k->mem, gpa + 4, body + 4, n - 4);
	atomic_thread_fence(memory_order_seq_cst); /* body before the even one */
	store_le32(word, version);
	mem_write(k->mem, gpa, word, 4);
	return 0;
}

static int write_time(struct kvmclock *k, uint64_t msr, uint64_t tsc, bool stopped)
{
	uint8_t page[TIME_BYTES] = {0};
	store_le64(page + 8, tsc);
	store_le64(page + 16, tsc + (uint64_t)k->sys_offset);
	store_le32(page + 24, MUL_1GHZ);
	page[28] = SHIFT_1GHZ;
	page[29] = (uint8_t)(FLAG_TSC_STABLE | (stopped ? FLAG_STOPPED : 0));
	return publish(k, msr & ~(uint64_t)TIME_ENABLED, page, sizeof(page));
}

/* The wall clock page holds the time of day at system time 0; the guest adds its system time. */
static int write_wall(struct kvmclock *k, uint64_t gpa, uint64_t tsc)
{
	uint8_t page[WALL_BYTES] = {0};
	uint64_t sys = tsc + (uint64_t)k->sys_offset, real = clock_real_ns();
	uint64_t start = real > sys ? real - sys : 0;
	store_le32(page + 4, (uint32_t)(start / NS_PER_S));
	store_le32(page + 8, (uint32_t)(start % NS_PER_S));
	return publish(k, gpa, page, sizeof(page));
}

int kvmclock_msr_read(struct kvmclock *k, unsigned vcpu, uint32_t msr, uint64_t *val)
{
	if (msr == MSR_KVM_WALL_CLOCK_NEW)
		*val = k->wall_msr;
	else if (msr == MSR_KVM_SYSTEM_TIME_NEW && vcpu < IRQCHIP_MAX_VCPUS)
		*val = k->time_msr[vcpu];
	else
		return -1;
	return 0;
}

int kvmclock_msr_write(struct kvmclock *k, unsigned vcpu, uint32_t msr, uint64_t val, uint64_t tsc)
{
	if (msr == MSR_KVM_WALL_CLOCK_NEW) {
		if (val % 4 || write_wall(k, val, tsc) < 0)
			return -1;
		k->wall_msr = val;
		return 0;
	}
	if (msr != MSR_KVM_SYSTEM_TIME_NEW || vcpu >= IRQCHIP_MAX_VCPUS || (val & 2))
		return -1;
	if ((val & TIME_ENABLED) && write_time(k, val, tsc, false) < 0)
		return -1;
	k->time_msr[vcpu] = val;
	return 0;
}

void kvmclock_load(struct kvmclock *k, unsigned vcpu, uint64_t wall_msr, uint64_t time_msr)
{
	if (vcpu >= IRQCHIP_MAX_VCPUS)
		return;
	k->wall_msr = wall_msr;
	k->time_msr[vcpu] = time_msr;
}

void kvmclock_refresh(struct kvmclock *k, unsigned vcpu, uint64_t tsc, bool stopped)
{
	/* A page that is no RAM any more (a hostile snapshot) is skipped: the guest's clock stands still. */
	if (vcpu < IRQCHIP_MAX_VCPUS && (k->time_msr[vcpu] & TIME_ENABLED))
		write_time(k, k->time_msr[vcpu], tsc, stopped);
}
