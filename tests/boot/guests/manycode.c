/* SPDX-License-Identifier: Apache-2.0 */
/*
 * More code than a cache of decoded code holds: thousands of generated functions on hundreds of pages, called in a scattered order by all
 * CPUs while CPU 0 rewrites some between rounds; calls between pages; branches within.
 */
#include "guest.h"

#define PAGES    (guest_accel & 2 ? 24 : 600)
#define PER_PAGE 16
#define ROUNDS   4
#define CODE     0x2000000ull /* RAM from here on is free */

static volatile uint64_t round_now, finished[32], wrong[32];

/* f(x): loops 3 times adding its number, then calls the next function's neighbour on another page for even ones. */
static void put_function(uint64_t n, uint32_t v)
{
	uint8_t *p = (uint8_t *)(CODE + n / PER_PAGE * 4096 + n % PER_PAGE * 256), *s = p;
	static const uint8_t head[] = {0x31, 0xc0, 0xb9, 3, 0, 0, 0}; /* xor %eax, %eax; mov $3, %ecx */
	memcpy(p, head, sizeof head);
	p += sizeof head;
	uint8_t *loop = p;
	*p++ = 0x05; /* add $v, %eax */
	memcpy(p, &v, 4);
	p += 4;
	*p++ = 0xff; /* dec %ecx */
	*p++ = 0xc9;
	*p++ = 0x75; /* jnz loop */
	*p = (uint8_t)(loop - (p + 1));
	p++;
	/* some never executed bulk, jumped over, so that blocks end at odd places */
	*p++ = 0xeb;
	*p++ = (uint8_t)(n % 100);
	for (unsigned i = 0; i < n % 100; i++)
		*p++ = (uint8_t)(0xcc ^ i);
	*p++ = 0xc3;
	if (p - s > 256)
		guest_exit(2);
}

static uint32_t value_of(uint64_t n, uint64_t round)
{
	/* a third of the functions change each round */
	return (uint32_t)(n * 7 + (n % 3 == 0 ? round * 1000003 : 0));
}

static uint64_t call(uint64_t n)
{
	uint64_t r;
	asm volatile("call *%1" : "=a"(r) : "r"(CODE + n / PER_PAGE * 4096 + n % PER_PAGE * 256) : "rcx", "memory", "cc");
	return r;
}

static void run_all(unsigned cpu, uint64_t round)
{
	uint64_t total = (uint64_t)PAGES * PER_PAGE, at = cpu * 37;
	for (uint64_t i = 0; i < total; i++) {
		at = (at + 1009) % total; /* a prime: every function once, each on another page than the last */
		uint32_t want = 3 * value_of(at, round);
		if ((uint32_t)call(at) != want)
			wrong[cpu]++;
	}
}

static void work(unsigned cpu)
{
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		while (round_now < round)
			pause();
		/* code written by another CPU: serialize before running it */
		asm volatile("cpuid" : : "a"(0), "c"(0) : "rbx", "rdx", "memory");
		run_all(cpu, round);
		finished[cpu] = round;
	}
}

int guest_main(void)
{
	apic_enable();
	uint64_t total = (uint64_t)PAGES * PER_PAGE;
	for (uint64_t n = 0; n < total; n++)
		put_function(n, value_of(n, 1));
	if (guest_cpus > 1)
		start_aps(work);
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		if (round > 1)
			for (uint64_t n = 0; n < total; n += 3)
				put_function(n, value_of(n, round));
		round_now = round;
		run_all(0, round);
		for (unsigned i = 1; i < guest_cpus; i++)
			CHECK(WAIT_FOR(finished[i] == round, 30000));
	}
	for (unsigned i = 0; i < guest_cpus; i++)
		CHECK_EQ(wrong[i], 0);
	return guest_result();
}
