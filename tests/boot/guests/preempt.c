/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts at any moment change nothing: while the APIC timer fires as fast as it can, a long computation, strings, page faults and stack
 * traffic give the same results as without; threads with page tables of their own are switched from the handler.
 */
#include "guest.h"

static volatile uint64_t ticks, switches;
static uint64_t period;

static void on_tick(struct frame *f)
{
	(void)f;
	ticks++;
	apic_eoi();
	wrmsr(0x6E0, rdtsc() + period);
}

static uint64_t compute(void)
{
	uint64_t a = 1, b = 0x9e3779b97f4a7c15, carry = 0;
	for (unsigned i = 0; i < (guest_accel & 2 ? 5000 : 300000); i++) {
		a = a * 6364136223846793005ull + b;
		b ^= a >> 7 | a << 57;
		/* flags live across an instruction boundary */
		asm volatile("add %2, %0; adc $0, %1" : "+r"(a), "+r"(carry) : "r"(b) : "cc");
	}
	return a ^ b ^ carry;
}

static uint8_t src[65536], dst[65536];

static bool strings(void)
{
	for (unsigned i = 0; i < sizeof src; i++)
		src[i] = (uint8_t)(i * 31 + (i >> 8));
	memset(dst, 0, sizeof dst);
	for (unsigned i = 0; i < 4; i++) {
		void *d = dst, *s = src;
		uint64_t n = sizeof src;
		asm volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
		if (n || d != dst + sizeof dst)
			return false;
	}
	return memcmp(src, dst, sizeof src) == 0;
}

static uint64_t n_faults;
static void on_fault(struct frame *f)
{
	(void)f;
	n_faults++;
	map_page(READ_CR(2) & ~0xfffull, (uint64_t)alloc_page(), PTE_P | PTE_W, 4096);
}

static uint64_t faults(uint64_t va)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < 40; i++) {
		*(volatile uint64_t *)(va + i * 4096 + i * 8) = i + 1;
		sum += *(volatile uint64_t *)(va + i * 4096 + i * 8);
	}
	return sum;
}

static uint64_t recurse(unsigned n)
{
	volatile uint64_t local = n;
	return n ? local + recurse(n - 1) : 0;
}

/* Two threads, each with a PML4 of its own in which one address leads to a page of its own. */
struct thread {
	struct frame frame;
	uint64_t cr3, count;
	uint8_t stack[8192];
};
static struct thread thread[2];
static unsigned current;
static volatile bool stop_threads;
static uint64_t *main_frame_cr3;
static struct frame main_frame;
#define PRIVATE (TEST_VA + (1ull << 39)) /* in another PML4 slot than everything else */

static void thread_main(void)
{
	struct thread *t = &thread[*(volatile uint64_t *)PRIVATE];
	uint64_t me = *(volatile uint64_t *)PRIVATE;
	for (;;) {
		if (*(volatile uint64_t *)PRIVATE != me)
			check_failed("preempt.c", __LINE__, "a thread sees its own page");
		t->count++;
	}
}

static void on_switch(struct frame *f)
{
	static bool started;
	apic_eoi();
	ticks++;
	if (!started) {
		main_frame = *f;
		started = true;
	} else {
		thread[current].frame = *f;
	}
	if (++switches == (guest_accel & 2 ? 40 : 400)) {
		WRITE_CR(3, (uint64_t)main_frame_cr3);
		*f = main_frame;
		stop_threads = true;
		return;
	}
	current ^= 1;
	WRITE_CR(3, thread[current].cr3);
	*f = thread[current].frame;
	wrmsr(0x6E0, rdtsc() + period * 4);
}

static void threads(void)
{
	main_frame_cr3 = (uint64_t *)READ_CR(3);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t *pml4 = alloc_page(), *page = alloc_page();
		memcpy(pml4, main_frame_cr3, 4096);
		/* map_page works on the main table: borrow its slot, then move the entry */
		map_page(PRIVATE, (uint64_t)page, PTE_P, 4096);
		pml4[PRIVATE >> 39 & 511] = main_frame_cr3[PRIVATE >> 39 & 511];
		main_frame_cr3[PRIVATE >> 39 & 511] = 0;
		*page = i;
		thread[i].cr3 = (uint64_t)pml4;
		thread[i].frame = (struct frame){.rip = (uint64_t)thread_main, .cs = 0x10, .ss = 0x18, .rflags = 0x202,
						 .rsp = ((uint64_t)(thread[i].stack + sizeof thread[i].stack) & ~15ull) - 8};
	}
	set_isr(0x40, on_switch);
	wrmsr(0x6E0, rdtsc() + period);
	sti();
	while (!stop_threads)
		pause();
	cli();
	CHECK(thread[0].count > 0);
	CHECK(thread[1].count > 0);
}

int guest_main(void)
{
	apic_enable();
	set_isr(14, on_fault);
	uint64_t want = compute();
	set_isr(0x40, on_tick);
	period = tsc_khz() / 50; /* 20 us */
	wrmsr(X2APIC_LVTT, 0x40 | 2 << 17);
	asm volatile("mfence" : : : "memory");
	wrmsr(0x6E0, rdtsc() + period);
	sti();
	CHECK_EQ(compute(), want);
	CHECK(strings());
	CHECK_EQ(faults(TEST_VA), 820);
	CHECK_EQ(n_faults, 40);
	CHECK_EQ(recurse(500), 125250);
	/* On a busy host the timer is late. */
	for (unsigned i = 0; ticks <= 20 && i < 500; i++)
		CHECK_EQ(compute(), want);
	uint64_t seen = ticks;
	CHECK(WAIT_FOR(ticks > seen + 3, 2000));
	cli();
	wrmsr(0x6E0, 0);
	print("%u ticks\n", ticks);
	CHECK(ticks > 20);
	threads();
	print("%u switches\n", switches);
	return guest_result();
}
