/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several CPUs: started by INIT and SIPI through real mode, IPIs both ways, LOCK across CPUs, memory order, code changed by one and run
 * by another, TLB shootdown by IPI.
 */
#include "guest.h"

#define ROUNDS (guest_accel & 2 ? 2000 : 50000)

static volatile uint64_t counter, stage, done[32], got_ipi[32], apic_ids[32];
static volatile uint64_t split_area[16] __attribute__((aligned(64)));
static volatile uint64_t seq_lock, seq_value, wrong;
static volatile uint64_t mailbox, flag;
static uint8_t *code;
static volatile uint64_t code_bad, code_last[32];

static void on_ipi(struct frame *f)
{
	(void)f;
	got_ipi[rdmsr(X2APIC_ID)]++;
	apic_eoi();
}

static bool all_have(uint64_t v)
{
	for (unsigned i = 1; i < guest_cpus; i++)
		if (done[i] != v)
			return false;
	return true;
}

static void wait_stage(uint64_t n)
{
	while (stage < n)
		pause();
}

static void count_up(unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++) {
		asm volatile("lock incq %0" : "+m"(counter));
		uint64_t one = 1;
		asm volatile("lock xaddq %0, %1" : "+r"(one), "+m"(counter));
		uint64_t old, new;
		do {
			old = counter;
			new = old + 1;
		} while (!__sync_bool_compare_and_swap(&counter, old, new));
	}
}

/* A word that crosses a cache line: still atomic. */
static void count_split(unsigned rounds)
{
	volatile uint64_t *p = (volatile uint64_t *)((uint64_t)split_area + 60);
	for (unsigned i = 0; i < rounds; i++)
		asm volatile("lock incq %0" : "+m"(*p));
}

/* XCHG as a lock around plain increments. */
static void count_locked(unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t v = 1;
		do {
			v = 1;
			asm volatile("xchgq %0, %1" : "+r"(v), "+m"(seq_lock) : : "memory");
			if (v)
				pause();
		} while (v);
		seq_value++;
		asm volatile("" : : : "memory");
		seq_lock = 0;
	}
}

static void ap_main(unsigned cpu)
{
	apic_ids[cpu] = rdmsr(X2APIC_ID);
	done[cpu] = 1;
	wait_stage(1);
	count_up(ROUNDS);
	done[cpu] = 2;
	wait_stage(2);
	count_split(ROUNDS / 20);
	count_locked(ROUNDS / 20);
	done[cpu] = 3;
	wait_stage(3);
	/* sleep until an IPI comes */
	while (!got_ipi[cpu])
		asm volatile("sti; hlt; cli" : : : "memory");
	done[cpu] = 4;
	if (cpu == 1) {
		/* message passing: flag after mailbox, never the other way round */
		for (uint64_t i = 1; i <= 1000; i++) {
			while (flag != i)
				pause();
			if (mailbox != i * 3)
				wrong++;
			flag = 0;
		}
	}
	done[cpu] = 5;
	/* run code that CPU 0 changes */
	uint64_t (*fn)(void) = (uint64_t(*)(void))(uint64_t)code;
	while (stage < 6) {
		uint64_t v = fn();
		if (v < code_last[cpu])
			code_bad++;
		code_last[cpu] = v;
	}
	asm volatile("cpuid" : : "a"(0), "c"(0) : "rbx", "rdx", "memory");
	if (fn() != 50)
		code_bad++;
	done[cpu] = 6;
	for (;;)
		asm volatile("sti; hlt" : : : "memory");
}

static volatile uint64_t *shoot_at;
static volatile uint64_t n_shot;

static void on_shootdown(struct frame *f)
{
	(void)f;
	invlpg((void *)shoot_at);
	__atomic_fetch_add(&n_shot, 1, __ATOMIC_SEQ_CST);
	apic_eoi();
}

static void on_read(struct frame *f)
{
	(void)f;
	/* Whatever the page holds now, into the CPU's slot. */
	done[rdmsr(X2APIC_ID)] = *shoot_at;
	apic_eoi();
}

/* A page is replaced while other CPUs have the old one in their TLBs. */
static void shootdown(void)
{
	uint64_t *a = alloc_page(), *b = alloc_page();
	a[0] = 1001;
	b[0] = 1002;
	shoot_at = (volatile uint64_t *)TEST_VA;
	volatile uint64_t *pte = map_page(TEST_VA, (uint64_t)a, PTE_P | PTE_W, 4096);
	set_isr(0x42, on_shootdown);
	set_isr(0x43, on_read);
	for (unsigned round = 0; round < 10; round++) {
		uint64_t want = round & 1 ? 1001 : 1002;
		wrmsr(X2APIC_ICR, 0xC4043);
		WAIT_FOR(all_have(want == 1001 ? 1002 : 1001), 5000);
		CHECK(all_have(want == 1001 ? 1002 : 1001));
		*pte = (uint64_t)(want == 1001 ? a : b) | PTE_P | PTE_W;
		invlpg((void *)shoot_at);
		n_shot = 0;
		wrmsr(X2APIC_ICR, 0xC4042);
		WAIT_FOR(n_shot == guest_cpus - 1, 5000);
		CHECK_EQ(n_shot, guest_cpus - 1);
		wrmsr(X2APIC_ICR, 0xC4043);
		WAIT_FOR(all_have(want), 5000);
		CHECK(all_have(want));
	}
}

/* A CPU that runs is stopped by INIT and started again. */
static volatile uint64_t again;
static void ap_again(unsigned cpu)
{
	(void)cpu;
	again++;
	for (;;)
		asm volatile("cli; hlt" : : : "memory");
}

static void restart(void)
{
	extern volatile uint64_t ap_next;
	for (unsigned i = 0; i < 3; i++) {
		uint64_t before = again;
		ap_next = 0;
		set_ap_work(ap_again);
		wrmsr(X2APIC_ICR, 1ull << 32 | 0x4500);
		wrmsr(X2APIC_ICR, 1ull << 32 | 0x4608);
		WAIT_FOR(again == before + 1, 5000);
		CHECK_EQ(again, before + 1);
	}
}

static bool all(uint64_t n)
{
	for (unsigned i = 1; i < guest_cpus; i++)
		if (done[i] < n)
			return false;
	return true;
}

int guest_main(void)
{
	apic_enable();
	set_isr(0x41, on_ipi);
	code = alloc_page();
	static const uint8_t fn[] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov $0, %eax; ret */
	memcpy(code, fn, sizeof fn);
	CHECK_EQ(start_aps(ap_main), guest_cpus - 1);
	WAIT_FOR(all(1), 5000);
	CHECK(all(1));
	for (unsigned i = 1; i < guest_cpus; i++)
		CHECK_EQ(apic_ids[i], i);
	print("LOCK\n");
	stage = 1;
	count_up(ROUNDS);
	WAIT_FOR(all(2), 20000);
	CHECK(all(2));
	CHECK_EQ(counter, guest_cpus * ROUNDS * 3);
	stage = 2;
	count_split(ROUNDS / 20);
	count_locked(ROUNDS / 20);
	WAIT_FOR(all(3), 20000);
	CHECK(all(3));
	CHECK_EQ(*(volatile uint64_t *)((uint64_t)split_area + 60), guest_cpus * (ROUNDS / 20));
	CHECK_EQ(seq_value, guest_cpus * (ROUNDS / 20));
	print("IPI\n");
	stage = 3;
	for (unsigned i = 1; i < guest_cpus; i++) {
		/* long enough for the CPU to be in HLT, most of the time */
		uint64_t until = rdtsc() + tsc_khz() * 2;
		while (rdtsc() < until)
			pause();
		wrmsr(X2APIC_ICR, (uint64_t)i << 32 | 0x4041);
		WAIT_FOR(done[i] >= 4, 5000);
		CHECK_EQ(got_ipi[i], 1);
	}
	for (uint64_t i = 1; i <= 1000; i++) {
		mailbox = i * 3;
		flag = i;
		if (!WAIT_FOR(flag == 0, 5000)) {
			CHECK(!"the other CPU sees the flag");
			break;
		}
	}
	CHECK_EQ(wrong, 0);
	WAIT_FOR(all(5), 5000);
	print("cross-modifying code\n");
	stage = 5;
	for (uint32_t i = 1; i <= 50; i++) {
		*(volatile uint32_t *)(code + 1) = i; /* one aligned-enough store: the old or the new value */
		if (!WAIT_FOR(code_last[1] == i, 5000)) {
			CHECK(!"the other CPU sees the changed code");
			print("    round %u, it has %u\n", (uint64_t)i, code_last[1]);
			break;
		}
	}
	stage = 6;
	WAIT_FOR(all(6), 5000);
	CHECK(all(6));
	CHECK_EQ(code_bad, 0);
	/* everybody, and all but me */
	for (unsigned i = 0; i < guest_cpus; i++)
		got_ipi[i] = 0;
	wrmsr(X2APIC_ICR, 0xC4041);
	for (unsigned i = 1; i < guest_cpus; i++)
		CHECK(WAIT_FOR(got_ipi[i] == 1, 5000));
	CHECK_EQ(got_ipi[0], 0);
	sti();
	wrmsr(X2APIC_ICR, 0x84041);
	for (unsigned i = 0; i < guest_cpus; i++)
		CHECK(WAIT_FOR(got_ipi[i] == (i ? 2 : 1), 5000));
	cli();
	print("TLB shootdown\n");
	shootdown();
	print("INIT again\n");
	restart();
	return guest_result();
}
