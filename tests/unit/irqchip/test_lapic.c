/* SPDX-License-Identifier: Apache-2.0 */
/* The local APICs and their timer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "hv/hv.h"
#include "hv/soft/ioapic.h"
#include "hv/soft/lapic.h"

#define N 4
#define BASE_X2 (HV_LAPIC_BASE | 0xC00)

struct rig {
	struct irqchip *c;
	_Atomic uint32_t flag[N];
	_Atomic unsigned kicks[N];
	unsigned timer_changes;
};

static void on_kick(void *ctx, unsigned vcpu)
{
	struct rig *r = ctx;
	atomic_fetch_add(&r->kicks[vcpu], 1);
}
static void on_timer(void *ctx, unsigned vcpu)
{
	((struct rig *)ctx)->timer_changes++;
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	*state = r;
	r->c = irqchip_new(N, on_kick, r);
	for (unsigned i = 0; i < N; i++)
		irqchip_set_flag(r->c, i, &r->flag[i], 2);
	irqchip_set_timer_hook(r->c, on_timer, r);
	return r->c ? 0 : -1;
}
static int teardown(void **state)
{
	irqchip_free(((struct rig *)*state)->c);
	free(*state);
	return 0;
}

static uint32_t rd(struct rig *r, unsigned cpu, unsigned off, uint64_t now)
{
	uint32_t v = 0xDEADBEEF;
	assert_true(lapic_mmio(r->c, cpu, off, &v, 4, false, now));
	return v;
}
static void wr(struct rig *r, unsigned cpu, unsigned off, uint32_t v, uint64_t now)
{
	assert_true(lapic_mmio(r->c, cpu, off, &v, 4, true, now));
}
static void enable(struct rig *r)
{
	for (unsigned i = 0; i < N; i++)
		wr(r, i, 0xF0, 0x1FF, 0);
}
static void enable_x2(struct rig *r)
{
	enable(r);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(lapic_msr_write(r->c, i, 0x1B, BASE_X2, 0), 0);
}
static int msr_wr(struct rig *r, unsigned cpu, uint32_t msr, uint64_t v)
{
	return lapic_msr_write(r->c, cpu, msr, v, 0);
}
/* Which CPUs have vector pending, one bit each; clears them all. */
static unsigned taken(struct rig *r, int vector)
{
	unsigned mask = 0;
	for (unsigned i = 0; i < N; i++) {
		if (lapic_has_irq(r->c, i) != vector)
			continue;
		mask |= 1u << i;
		assert_int_equal(lapic_ack(r->c, i), vector);
		if (lapic_msr_write(r->c, i, 0x80B, 0, 0) < 0)
			wr(r, i, 0xB0, 0, 0);
	}
	return mask;
}

static void test_a_disabled_lapic_takes_nothing(void **state)
{
	struct rig *r = *state;
	lapic_post_irq(r->c, 0, 0x40, false);
	assert_int_equal(lapic_has_irq(r->c, 0), -1);
	assert_int_equal(r->kicks[0], 0);
	enable(r);
	assert_int_equal(lapic_has_irq(r->c, 0), -1);
}

static void test_a_post_sets_the_flag_and_kicks_once(void **state)
{
	struct rig *r = *state;
	enable(r);
	lapic_post_irq(r->c, 2, 0x40, false);
	lapic_post_irq(r->c, 2, 0x40, false);
	assert_int_equal(r->kicks[2], 1);
	assert_int_equal(r->flag[2], 2);
	assert_int_equal(r->flag[1], 0);
	assert_int_equal(lapic_has_irq(r->c, 2), 0x40);
	assert_int_equal(lapic_ack(r->c, 2), 0x40);
	assert_int_equal(lapic_has_irq(r->c, 2), -1);
	/* While in service the same vector can be pending again. */
	lapic_post_irq(r->c, 2, 0x40, false);
	assert_int_equal(r->kicks[2], 2);
	assert_int_equal(lapic_has_irq(r->c, 2), -1);
	r->flag[2] = 0;
	wr(r, 2, 0xB0, 0, 0);
	assert_int_equal(r->flag[2], 2); /* the end of the first makes the second deliverable */
	assert_int_equal(lapic_has_irq(r->c, 2), 0x40);
}

static void test_priorities_nest_by_class(void **state)
{
	struct rig *r = *state;
	enable(r);
	lapic_post_irq(r->c, 0, 0x41, false);
	assert_int_equal(lapic_ack(r->c, 0), 0x41);
	lapic_post_irq(r->c, 0, 0x4F, false); /* same class: waits */
	assert_int_equal(lapic_ack(r->c, 0), -1);
	lapic_post_irq(r->c, 0, 0xEF, false);
	assert_int_equal(lapic_ack(r->c, 0), 0xEF);
	assert_int_equal(rd(r, 0, 0xA0, 0), 0xE0);
	wr(r, 0, 0xB0, 0, 0); /* ends 0xEF */
	assert_int_equal(lapic_ack(r->c, 0), -1);
	wr(r, 0, 0xB0, 0, 0); /* ends 0x41 */
	assert_int_equal(lapic_ack(r->c, 0), 0x4F);
	wr(r, 0, 0xB0, 0, 0);
	/* TPR and CR8 are one. */
	lapic_set_cr8(r->c, 0, 5);
	assert_int_equal(rd(r, 0, 0x80, 0), 0x50);
	lapic_post_irq(r->c, 0, 0x55, false);
	assert_int_equal(lapic_has_irq(r->c, 0), -1);
	r->flag[0] = 0;
	lapic_set_cr8(r->c, 0, 4);
	assert_int_equal(r->flag[0], 2);
	assert_int_equal(lapic_has_irq(r->c, 0), 0x55);
	assert_int_equal(lapic_get_cr8(r->c, 0), 4);
}

static void test_xapic_ipis_reach_their_destinations(void **state)
{
	struct rig *r = *state;
	static const struct {
		uint32_t hi, lo;
		unsigned want;
	} cases[] = {
		{2u << 24, 0x00040, 1 << 2},          /* physical */
		{9u << 24, 0x00040, 0},               /* nobody */
		{0xFFu << 24, 0x00040, 0xF},          /* broadcast */
		{0x05u << 24, 0x00840, 1 << 0 | 1 << 2}, /* logical, flat */
		{0, 0x40040, 1 << 1},                 /* self */
		{0, 0x80040, 0xF},                    /* all */
		{0, 0xC0040, 0xD},                    /* all others */
		{0, 0xC0740, 0},                      /* ExtINT: nothing */
	};
	enable(r);
	for (unsigned i = 0; i < N; i++)
		wr(r, i, 0xD0, 1u << (24 + i), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		wr(r, 1, 0x310, cases[i].hi, 0);
		wr(r, 1, 0x300, cases[i].lo, 0);
		assert_int_equal(taken(r, 0x40), cases[i].want);
	}
	assert_int_equal(r->kicks[1], 0); /* a vCPU need not kick itself */
	/* Cluster model: cluster 2, members 0 and 1. */
	for (unsigned i = 0; i < N; i++) {
		wr(r, i, 0xE0, 0x0FFFFFFF, 0);
		wr(r, i, 0xD0, (i < 2 ? 0x20u | 1u << i : 0x30u | 1u << (i - 2)) << 24, 0);
	}
	wr(r, 3, 0x310, 0x23u << 24, 0);
	wr(r, 3, 0x300, 0x840, 0);
	assert_int_equal(taken(r, 0x40), 0x3);
	/* Lowest priority: exactly one of them. */
	wr(r, 3, 0x300, 0x940, 0);
	assert_int_equal(__builtin_popcount(taken(r, 0x40)), 1);
}

static void test_x2apic_ipis_reach_their_destinations(void **state)
{
	struct rig *r = *state;
	enable_x2(r);
	static const struct {
		uint64_t icr;
		unsigned want;
	} cases[] = {
		{3ull << 32 | 0x40, 1 << 3},
		{0xFFull << 32 | 0x40, 0},                    /* 255 is a mere id here */
		{0xFFFFFFFFull << 32 | 0x40, 0xF},
		{0x6ull << 32 | 0x840, 1 << 1 | 1 << 2},      /* cluster 0 */
		{0x10006ull << 32 | 0x840, 0},                /* cluster 1 */
		{0xC0040, 0xE},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(msr_wr(r, 0, 0x830, cases[i].icr), 0);
		assert_int_equal(taken(r, 0x40), cases[i].want);
	}
	assert_int_equal(msr_wr(r, 2, 0x83F, 0x77), 0);
	assert_int_equal(taken(r, 0x77), 1 << 2);
}

static void test_x2apic_registers_fault_where_the_manual_says(void **state)
{
	struct rig *r = *state;
	uint64_t v;
	assert_int_equal(lapic_msr_read(r->c, 0, 0x802, &v, 0), -1); /* not in x2APIC mode yet */
	enable_x2(r);
	uint32_t dummy;
	assert_false(lapic_mmio(r->c, 1, 0x20, &dummy, 4, false, 0));
	assert_int_equal(lapic_msr_read(r->c, 1, 0x802, &v, 0), 0);
	assert_int_equal(v, 1);
	assert_int_equal(lapic_msr_read(r->c, 1, 0x80D, &v, 0), 0);
	assert_int_equal(v, 2);
	static const uint32_t no_read[] = {0x800, 0x801, 0x809, 0x80B, 0x80C, 0x80E, 0x82F, 0x831, 0x83F, 0x840, 0x8FF};
	for (size_t i = 0; i < ARRAY_LEN(no_read); i++)
		assert_int_equal(lapic_msr_read(r->c, 0, no_read[i], &v, 0), -1);
	static const struct {
		uint32_t msr;
		uint64_t val;
		int rc;
	} writes[] = {
		{0x802, 0, -1},      {0x803, 0, -1},        {0x80D, 0, -1},  {0x80E, 0, -1},       {0x810, 0, -1},
		{0x80B, 1, -1},      {0x80B, 0, 0},         {0x828, 1, -1},  {0x828, 0, 0},        {0x808, 0x100, -1},
		{0x808, 0xFF, 0},    {0x80F, 0x10000, -1},  {0x80F, 0x1FF, 0}, {0x832, 1u << 31, -1}, {0x832, 0x400EC, 0},
		{0x838, 1ull << 32, -1}, {0x83E, 0x10, -1}, {0x83E, 0xB, 0}, {0x839, 0, -1},       {0x831, 0, -1},
	};
	for (size_t i = 0; i < ARRAY_LEN(writes); i++)
		if (msr_wr(r, 0, writes[i].msr, writes[i].val) != writes[i].rc)
			fail_msg("writing 0x%llx to 0x%x", (unsigned long long)writes[i].val, writes[i].msr);
}

static void test_apic_base_changes_mode_only_as_allowed(void **state)
{
	struct rig *r = *state;
	uint64_t v;
	assert_int_equal(lapic_msr_read(r->c, 0, 0x1B, &v, 0), 0);
	assert_int_equal(v, HV_LAPIC_BASE | 0x900);
	lapic_msr_read(r->c, 1, 0x1B, &v, 0);
	assert_int_equal(v, HV_LAPIC_BASE | 0x800);
	assert_int_equal(msr_wr(r, 0, 0x1B, HV_LAPIC_BASE | 0x400), -1);
	assert_int_equal(msr_wr(r, 0, 0x1B, 0xFEC00800), -1);
	assert_int_equal(msr_wr(r, 0, 0x1B, BASE_X2 | 1), -1);
	assert_int_equal(msr_wr(r, 0, 0x1B, BASE_X2), 0);
	assert_int_equal(msr_wr(r, 0, 0x1B, HV_LAPIC_BASE | 0x800), -1);
	assert_int_equal(msr_wr(r, 0, 0x1B, HV_LAPIC_BASE), 0);
	uint32_t dummy;
	assert_false(lapic_mmio(r->c, 0, 0x20, &dummy, 4, false, 0));
	assert_int_equal(msr_wr(r, 0, 0x1B, BASE_X2), -1);
	assert_int_equal(msr_wr(r, 0, 0x1B, HV_LAPIC_BASE | 0x800), 0);
	lapic_msr_read(r->c, 0, 0x1B, &v, 0);
	assert_int_equal(v, HV_LAPIC_BASE | 0x900);
}

static void test_init_and_sipi_start_a_cpu(void **state)
{
	struct rig *r = *state;
	uint8_t vec = 0;
	enable(r);
	lapic_post_irq(r->c, 2, 0x40, false);
	wr(r, 0, 0x310, 2u << 24, 0);
	wr(r, 0, 0x300, 0xC500, 0); /* INIT, asserted */
	wr(r, 0, 0x300, 0x8500, 0); /* de-asserted: nothing */
	assert_int_equal(lapic_take_events(r->c, 2, &vec), LAPIC_EV_INIT);
	assert_int_equal(lapic_has_irq(r->c, 2), -1);
	assert_int_equal(rd(r, 2, 0xF0, 0), 0xFF);
	wr(r, 0, 0x300, 0x0469A, 0);
	assert_int_equal(lapic_take_events(r->c, 2, &vec), LAPIC_EV_SIPI);
	assert_int_equal(vec, 0x9A);
	assert_int_equal(lapic_take_events(r->c, 2, &vec), 0);
	/* Both before the target looks: one report. An INIT overtakes an older SIPI. */
	wr(r, 0, 0x300, 0x04611, 0);
	wr(r, 0, 0x300, 0xC500, 0);
	assert_int_equal(lapic_take_events(r->c, 2, &vec), LAPIC_EV_INIT);
	wr(r, 0, 0x300, 0xC500, 0);
	wr(r, 0, 0x300, 0x04622, 0);
	assert_int_equal(lapic_take_events(r->c, 2, &vec), LAPIC_EV_INIT | LAPIC_EV_SIPI);
	assert_int_equal(vec, 0x22);
	wr(r, 0, 0x300, 0xC0400, 0); /* NMI to all others */
	assert_int_equal(lapic_take_events(r->c, 0, &vec), 0);
	assert_int_equal(lapic_take_events(r->c, 3, &vec), LAPIC_EV_NMI);
}

static void test_illegal_vectors_and_registers_are_reported(void **state)
{
	struct rig *r = *state;
	enable(r);
	wr(r, 0, 0x370, 0xFE, 0);
	wr(r, 0, 0x300, 0x40005, 0);
	assert_int_equal(lapic_ack(r->c, 0), 0xFE);
	wr(r, 0, 0xB0, 0, 0);
	wr(r, 0, 0x280, 0, 0);
	assert_int_equal(rd(r, 0, 0x280, 0), 1 << 5);
	lapic_post_irq(r->c, 0, 3, false);
	rd(r, 0, 0x3F0, 0);
	wr(r, 0, 0x280, 0, 0);
	assert_int_equal(rd(r, 0, 0x280, 0), 1 << 6 | 1 << 7);
	wr(r, 0, 0x280, 0, 0);
	assert_int_equal(rd(r, 0, 0x280, 0), 0);
	/* An error vector that is illegal itself ends there. */
	wr(r, 0, 0x370, 0x01, 0);
	lapic_post_irq(r->c, 0, 3, false);
}

static void test_a_one_shot_timer_fires_once(void **state)
{
	struct rig *r = *state;
	enable(r);
	wr(r, 0, 0x3E0, 0x3, 0);  /* divide by 16 */
	wr(r, 0, 0x320, 0xEC, 0);
	wr(r, 0, 0x380, 100, 1000);
	assert_int_equal(r->timer_changes, 1);
	assert_int_equal(lapic_timer_deadline(r->c, 0), 2600);
	assert_int_equal(rd(r, 0, 0x390, 1800), 50);
	assert_false(lapic_poll_timer(r->c, 0, 2599));
	assert_true(lapic_poll_timer(r->c, 0, 2600));
	assert_int_equal(lapic_ack(r->c, 0), 0xEC);
	assert_false(lapic_poll_timer(r->c, 0, 99999));
	assert_int_equal(lapic_timer_deadline(r->c, 0), LAPIC_NO_DEADLINE);
	assert_int_equal(rd(r, 0, 0x390, 99999), 0);
	/* Changing the divider keeps the count. */
	wr(r, 0, 0x380, 100, 1000);
	wr(r, 0, 0x3E0, 0xB, 1800);
	assert_int_equal(lapic_timer_deadline(r->c, 0), 1850);
	wr(r, 0, 0x380, 0, 1800);
	assert_int_equal(lapic_timer_deadline(r->c, 0), LAPIC_NO_DEADLINE);
}

static void test_a_periodic_timer_keeps_its_phase_when_polled_late(void **state)
{
	struct rig *r = *state;
	enable(r);
	wr(r, 0, 0x3E0, 0xB, 0);
	wr(r, 0, 0x320, 0x200EC, 0);
	wr(r, 0, 0x380, 1000000, 0);
	assert_true(lapic_poll_timer(r->c, 0, 1000000));
	assert_int_equal(lapic_timer_deadline(r->c, 0), 2000000);
	assert_true(lapic_poll_timer(r->c, 0, 5300000));
	assert_int_equal(lapic_timer_deadline(r->c, 0), 6000000);
	/* Masked: it runs on without interrupts. */
	lapic_ack(r->c, 0);
	wr(r, 0, 0xB0, 0, 0);
	wr(r, 0, 0x320, 0x300EC, 5400000);
	assert_true(lapic_poll_timer(r->c, 0, 6000000));
	assert_int_equal(lapic_has_irq(r->c, 0), -1);
}

static void test_a_periodic_timer_cannot_keep_the_host_busy(void **state)
{
	struct rig *r = *state;
	enable(r);
	wr(r, 0, 0x3E0, 0xB, 0);
	wr(r, 0, 0x320, 0x200EC, 0);
	wr(r, 0, 0x380, 1, 0);
	assert_true(lapic_poll_timer(r->c, 0, 1000));
	assert_true(lapic_timer_deadline(r->c, 0) > 50000);
}

static void test_the_tsc_deadline_timer(void **state)
{
	struct rig *r = *state;
	uint64_t v;
	enable(r);
	lapic_set_tsc_offset(r->c, 0, -1000);
	assert_int_equal(lapic_msr_write(r->c, 0, 0x6E0, 5000, 2000), 0); /* other mode: ignored */
	assert_int_equal(lapic_timer_deadline(r->c, 0), LAPIC_NO_DEADLINE);
	wr(r, 0, 0x320, 0x400EC, 2000);
	lapic_msr_write(r->c, 0, 0x6E0, 5000, 2000);
	assert_int_equal(lapic_timer_deadline(r->c, 0), 6000);
	lapic_msr_read(r->c, 0, 0x6E0, &v, 2000);
	assert_int_equal(v, 5000);
	lapic_set_tsc_offset(r->c, 0, -500);
	assert_int_equal(lapic_timer_deadline(r->c, 0), 5500);
	assert_true(lapic_poll_timer(r->c, 0, 5500));
	lapic_msr_read(r->c, 0, 0x6E0, &v, 5500);
	assert_int_equal(v, 0);
	assert_int_equal(lapic_ack(r->c, 0), 0xEC);
	lapic_msr_write(r->c, 0, 0x6E0, 1, 9000); /* in the past: due at once */
	assert_true(lapic_poll_timer(r->c, 0, 9000));
	lapic_msr_write(r->c, 0, 0x6E0, UINT64_MAX, 9000);
	assert_false(lapic_poll_timer(r->c, 0, UINT64_MAX / 2));
	lapic_msr_write(r->c, 0, 0x6E0, 0, 9000);
	assert_int_equal(lapic_timer_deadline(r->c, 0), LAPIC_NO_DEADLINE);
	lapic_msr_write(r->c, 0, 0x6E0, 99999, 9000);
	wr(r, 0, 0x320, 0xEC, 9000); /* leaving the mode disarms */
	assert_int_equal(lapic_timer_deadline(r->c, 0), LAPIC_NO_DEADLINE);
}

static void test_a_saved_lapic_continues_elsewhere(void **state)
{
	struct rig *r = *state;
	struct x86_state s = {0}, again = {0};
	enable_x2(r);
	msr_wr(r, 1, 0x83E, 0xB);
	msr_wr(r, 1, 0x832, 0x200EC);
	lapic_msr_write(r->c, 1, 0x838, 1000, 0);
	lapic_post_irq(r->c, 1, 0x91, false);
	lapic_ack(r->c, 1);
	lapic_post_irq(r->c, 1, 0x51, true);
	lapic_set_cr8(r->c, 1, 3);
	lapic_post_nmi(r->c, 1);
	lapic_save(r->c, 1, &s, 400);
	assert_int_equal(s.cr8, 3);
	assert_int_equal(s.nmi_pending, 1);
	assert_int_equal(s.lapic[0x39], 600);

	struct irqchip *other = irqchip_new(N, NULL, NULL);
	lapic_load(other, 1, &s, 70000);
	assert_int_equal(lapic_timer_deadline(other, 1), 70600);
	lapic_save(other, 1, &again, 70000);
	assert_memory_equal(&s, &again, sizeof(s));
	assert_int_equal(lapic_has_irq(other, 1), -1); /* 0x91 is in service */
	assert_int_equal(lapic_msr_write(other, 1, 0x80B, 0, 0), 0);
	assert_int_equal(lapic_ack(other, 1), 0x51);

	memset(&s, 0xFF, sizeof(s)); /* any content is safe */
	lapic_load(other, 1, &s, 0);
	lapic_ack(other, 1);
	lapic_poll_timer(other, 1, UINT64_MAX - 1);
	irqchip_free(other);
}

/* Posters on other threads against a vCPU that clears its flag and takes what is there: nothing may be lost. */
struct poster {
	struct rig *r;
	_Atomic bool *armed;
	uint8_t vector;
};
#define ROUNDS 10000

static void *post_thread(void *arg)
{
	struct poster *p = arg;
	for (unsigned i = 0; i < ROUNDS; i++) {
		while (atomic_load_explicit(p->armed, memory_order_acquire))
			sched_yield();
		atomic_store_explicit(p->armed, true, memory_order_release);
		lapic_post_irq(p->r->c, 0, p->vector, false);
	}
	return NULL;
}

static void test_no_interrupt_is_lost_between_threads(void **state)
{
	struct rig *r = *state;
	_Atomic bool armed[2] = {false, false};
	struct poster p[2] = {{r, &armed[0], 0x41}, {r, &armed[1], 0x82}};
	pthread_t t[2];
	unsigned got = 0;
	enable(r);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, post_thread, &p[i]);
	while (got < 2 * ROUNDS) {
		if (!(atomic_load_explicit(&r->flag[0], memory_order_relaxed) & 2))
			continue;
		atomic_fetch_and_explicit(&r->flag[0], ~2u, memory_order_acquire);
		for (int v; (v = lapic_ack(r->c, 0)) >= 0; got++) {
			wr(r, 0, 0xB0, 0, 0);
			atomic_store_explicit(&armed[v == 0x82], false, memory_order_release);
		}
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(got, 2 * ROUNDS);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_a_disabled_lapic_takes_nothing),
		T(test_a_post_sets_the_flag_and_kicks_once),
		T(test_priorities_nest_by_class),
		T(test_xapic_ipis_reach_their_destinations),
		T(test_x2apic_ipis_reach_their_destinations),
		T(test_x2apic_registers_fault_where_the_manual_says),
		T(test_apic_base_changes_mode_only_as_allowed),
		T(test_init_and_sipi_start_a_cpu),
		T(test_illegal_vectors_and_registers_are_reported),
		T(test_a_one_shot_timer_fires_once),
		T(test_a_periodic_timer_keeps_its_phase_when_polled_late),
		T(test_a_periodic_timer_cannot_keep_the_host_busy),
		T(test_the_tsc_deadline_timer),
		T(test_a_saved_lapic_continues_elsewhere),
		T(test_no_interrupt_is_lost_between_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
