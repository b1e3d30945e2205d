/* SPDX-License-Identifier: Apache-2.0 */
/* kvmclock: the page tells how TSC becomes time; it runs forward, at the right speed, and agrees with the wall clock's page. */
#include "guest.h"

#define MSR_WALL 0x4B564D00
#define MSR_TIME 0x4B564D01

struct time_info {
	uint32_t version, pad0;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags, pad[2];
} __attribute__((packed));
struct wall_clock {
	uint32_t version, sec, nsec;
} __attribute__((packed));

static volatile struct time_info *info;

static uint64_t read_ns(void)
{
	uint32_t v;
	uint64_t ns;
	do {
		v = info->version;
		asm volatile("lfence" : : : "memory");
		uint64_t d = rdtsc() - info->tsc_timestamp;
		d = info->tsc_shift >= 0 ? d << info->tsc_shift : d >> -info->tsc_shift;
		uint64_t hi;
		asm("mulq %2" : "=a"(d), "=d"(hi) : "rm"((uint64_t)info->tsc_to_system_mul), "0"(d));
		ns = info->system_time + (d >> 32 | hi << 32);
		asm volatile("" : : : "memory");
	} while ((v & 1) || v != info->version);
	return ns;
}

int guest_main(void)
{
	uint32_t r[4];
	cpuid(0x40000001, 0, r);
	CHECK(r[0] & 1 << 3);
	info = alloc_page();
	wrmsr(MSR_TIME, (uint64_t)info | 1);
	CHECK(info->tsc_to_system_mul != 0);
	uint64_t last = read_ns();
	bool forward = true;
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t now = read_ns();
		forward = forward && now >= last;
		last = now;
	}
	CHECK(forward);
	/* What passes by the clock is what passes by the TSC, however long the host takes over it. */
	uint64_t a0 = rdtsc(), t0 = read_ns(), a1 = rdtsc();
	while (rdtsc() - a1 < tsc_khz() * 50)
		pause();
	uint64_t b0 = rdtsc(), t1 = read_ns(), b1 = rdtsc(), dt = t1 - t0;
	CHECK(dt >= (b0 - a1) / tsc_khz() * 1000000 - 1000000);
	CHECK(dt <= (b1 - a0) / tsc_khz() * 1000000 + 2000000);
	print("50 ms took %u ns; TSC %u kHz, mul %u shift %d, flags %u\n", dt, tsc_khz(), (uint64_t)info->tsc_to_system_mul,
	      (int64_t)info->tsc_shift, (uint64_t)info->flags);
	volatile struct wall_clock *w = alloc_page();
	wrmsr(MSR_WALL, (uint64_t)w);
	CHECK(w->sec > 1700000000u);
	CHECK(w->nsec < 1000000000u);
	CHECK_EQ(w->version & 1, 0);
	return guest_result();
}
