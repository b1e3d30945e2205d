/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work that shows any loss: on each CPU a hash goes round and round over memory that it changes, beside a counter, through vector and
 * x87 registers too, while the APIC timer interrupts and CPUs interrupt each other. Done twice, both times must end alike; a page that
 * comes back old, a register that changes, an interrupt or a step that is lost or done twice shows.
 */
#include "guest.h"

#define BUF    16384u
#define ROUNDS (guest_accel & 4 ? 200u : guest_accel & 2 ? 4u : 1500u)
#define CPUS   8
/* A KVM that interprets ring 0 gives its guests the host's TSC, which makes a jump of a hop to it. */
#define LONG   (guest_accel & 4 ? 1000000000u : 60000u)

static uint64_t buf[CPUS][BUF / 8];
static uint64_t result[CPUS][2];
static volatile uint64_t done, ticks[CPUS], pings[CPUS];
static volatile uint64_t last_tsc;

static void on_tick(struct frame *f)
{
	(void)f;
	ticks[rdmsr(X2APIC_ID)]++;
	apic_eoi();
}

static void on_ping(struct frame *f)
{
	(void)f;
	__atomic_fetch_add(&pings[rdmsr(X2APIC_ID)], 1, __ATOMIC_SEQ_CST);
	apic_eoi();
}

/* All CPUs read one clock: what one has seen, no other comes after. */
static void check_clock(void)
{
	uint64_t seen = __atomic_load_n(&last_tsc, __ATOMIC_SEQ_CST), now = rdtsc();
	if (!(guest_accel & 1))
		CHECK(now >= seen);
	while (now > seen && !__atomic_compare_exchange_n(&last_tsc, &seen, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

static uint64_t hash(unsigned cpu)
{
	uint64_t h = 0xcbf29ce484222325ull + cpu, count = 0;
	for (unsigned i = 0; i < BUF / 8; i++)
		buf[cpu][i] = i * 0x9e3779b97f4a7c15ull;
	asm volatile("fninit; fldpi; movq %0, %%xmm5" : : "r"(h));
	for (unsigned r = 0; r < ROUNDS; r++) {
		for (unsigned i = 0; i < BUF / 8; i++) {
			h = (h ^ buf[cpu][i]) * 0x100000001b3ull;
			buf[cpu][i] += h >> 11;
			count++;
		}
		/* Registers that the loop above leaves alone. */
		asm volatile("movq %0, %%xmm1; paddq %%xmm1, %%xmm5" : : "r"(h));
		asm volatile("fldpi; fmulp; fldpi; fdivrp" : :);
		check_clock();
	}
	uint64_t x;
	uint8_t st[16] = {0};
	asm volatile("movq %%xmm5, %0; fstpt %1" : "=r"(x), "=m"(st));
	CHECK_EQ(count, (uint64_t)ROUNDS * (BUF / 8));
	uint64_t low;
	memcpy(&low, st, 8);
	return h ^ x ^ low;
}

static void work(unsigned cpu)
{
	wrmsr(X2APIC_TDCR, 0xb);
	wrmsr(X2APIC_LVTT, 0x20000 | 0x40); /* periodic */
	wrmsr(X2APIC_TMICT, 700000 + cpu * 10000);
	sti();
	for (unsigned k = 0; k < 2; k++)
		result[cpu][k] = hash(cpu);
	__atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
}

static void ap(unsigned cpu)
{
	apic_enable();
	work(cpu);
	for (;;)
		asm volatile("hlt");
}

int guest_main(void)
{
	uint64_t sent = 0;
	WRITE_CR(0, (READ_CR(0) & ~0xcull) | 2);
	WRITE_CR(4, READ_CR(4) | 0x600);
	set_isr(0x40, on_tick);
	set_isr(0x41, on_ping);
	apic_enable();
	if (guest_cpus > 1)
		start_aps(ap);
	work(0);
	/* Ping-pong with CPUs that are busy or asleep: none may be lost. */
	for (unsigned c = 1; c < guest_cpus; c++)
		for (unsigned i = 0; i < 50; i++) {
			uint64_t before = pings[c];
			wrmsr(X2APIC_ICR, (uint64_t)c << 32 | 0x4041);
			sent++;
			CHECK(WAIT_FOR(pings[c] == before + 1, LONG));
		}
	CHECK(WAIT_FOR(done == guest_cpus, LONG));
	uint64_t got = 0;
	for (unsigned c = 0; c < guest_cpus; c++) {
		CHECK_EQ(result[c][0], result[c][1]);
		CHECK(ticks[c]);
		got += pings[c];
	}
	CHECK_EQ(got, sent);
	return guest_result();
}
