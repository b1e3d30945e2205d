/* SPDX-License-Identifier: Apache-2.0 */
/* The IOAPIC, and kvmclock beside it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/loop.h"
#include "base/util.h"
#include "hv/soft/ioapic.h"
#include "hv/soft/kvmclock.h"
#include "hv/soft/lapic.h"

static int setup(void **state)
{
	struct irqchip *c = irqchip_new(2, NULL, NULL);
	uint32_t svr = 0x1FF;
	*state = c;
	for (unsigned i = 0; i < 2; i++)
		lapic_mmio(c, i, 0xF0, &svr, 4, true, 0);
	return 0;
}
static int teardown(void **state)
{
	irqchip_free(*state);
	return 0;
}

static uint32_t ind_rd(struct irqchip *c, uint32_t reg)
{
	uint32_t v;
	ioapic_mmio(c, 0, &reg, 4, true);
	ioapic_mmio(c, 0x10, &v, 4, false);
	return v;
}
static void ind_wr(struct irqchip *c, uint32_t reg, uint32_t v)
{
	ioapic_mmio(c, 0, &reg, 4, true);
	ioapic_mmio(c, 0x10, &v, 4, true);
}
static void set_rte(struct irqchip *c, unsigned pin, uint64_t rte)
{
	ind_wr(c, 0x11 + 2 * pin, (uint32_t)(rte >> 32));
	ind_wr(c, 0x10 + 2 * pin, (uint32_t)rte);
}
static void eoi(struct irqchip *c, unsigned cpu)
{
	uint32_t zero = 0;
	lapic_mmio(c, cpu, 0xB0, &zero, 4, true, 0);
}

static void test_registers_read_as_a_24_pin_chip(void **state)
{
	struct irqchip *c = *state;
	assert_int_equal(ind_rd(c, 1), 0x00170020);
	assert_int_equal(ind_rd(c, 0x10 + 2 * 23), 0x10000);
	assert_int_equal(ind_rd(c, 0x10 + 2 * 24), 0xFFFFFFFF);
	ind_wr(c, 0, 0x05000000);
	assert_int_equal(ind_rd(c, 0), 0x05000000);
	set_rte(c, 3, 0x01000000ABCD5FFFull & ~0xFFFE0000ull);
	assert_int_equal(ind_rd(c, 0x16) & 0x5000, 0); /* status bits are read-only */
	assert_int_equal(ind_rd(c, 0x17), 0x01000000);
}

static void test_an_edge_fires_when_the_level_rises(void **state)
{
	struct irqchip *c = *state;
	set_rte(c, 5, 1ull << 56 | 0x45);
	irqchip_set_gsi(c, 5, true);
	irqchip_set_gsi(c, 5, true);
	assert_int_equal(lapic_has_irq(c, 0), -1);
	assert_int_equal(lapic_ack(c, 1), 0x45);
	eoi(c, 1);
	assert_int_equal(lapic_ack(c, 1), -1);
	irqchip_set_gsi(c, 5, false);
	irqchip_set_gsi(c, 5, true);
	assert_int_equal(lapic_ack(c, 1), 0x45);
	eoi(c, 1);
	set_rte(c, 5, 1ull << 56 | 0x10045);
	irqchip_set_gsi(c, 5, false);
	irqchip_set_gsi(c, 5, true);
	assert_int_equal(lapic_ack(c, 1), -1);
	irqchip_set_gsi(c, 24, true);
	irqchip_set_gsi(c, 4000000000u, true);
}

static void test_a_level_fires_until_it_falls(void **state)
{
	struct irqchip *c = *state;
	set_rte(c, 9, 0x8049);
	irqchip_set_gsi(c, 9, true);
	assert_int_equal(lapic_ack(c, 0), 0x49);
	assert_true(ind_rd(c, 0x10 + 18) & 1 << 14);
	irqchip_set_gsi(c, 9, false);
	irqchip_set_gsi(c, 9, true);
	assert_int_equal(lapic_has_irq(c, 0), -1); /* remote IRR holds it back */
	eoi(c, 0);
	assert_int_equal(lapic_ack(c, 0), 0x49); /* still up: again */
	irqchip_set_gsi(c, 9, false);
	eoi(c, 0);
	assert_int_equal(lapic_ack(c, 0), -1);
	assert_false(ind_rd(c, 0x10 + 18) & 1 << 14);
	/* Unmasking a pin that is up fires. */
	set_rte(c, 9, 0x18049);
	irqchip_set_gsi(c, 9, true);
	assert_int_equal(lapic_ack(c, 0), -1);
	set_rte(c, 9, 0x8049);
	assert_int_equal(lapic_ack(c, 0), 0x49);
	/* The EOI register, for a guest that suppresses the broadcast. */
	uint32_t svr = 0x11FF, v = 0x49;
	lapic_mmio(c, 0, 0xF0, &svr, 4, true, 0);
	irqchip_set_gsi(c, 9, false);
	eoi(c, 0);
	assert_true(ind_rd(c, 0x10 + 18) & 1 << 14);
	ioapic_mmio(c, 0x40, &v, 4, true);
	assert_false(ind_rd(c, 0x10 + 18) & 1 << 14);
}

static void test_a_level_that_nobody_takes_is_not_stuck(void **state)
{
	struct irqchip *c = *state;
	set_rte(c, 9, 7ull << 56 | 0x8049);
	irqchip_set_gsi(c, 9, true);
	assert_false(ind_rd(c, 0x10 + 18) & 1 << 14);
	ind_wr(c, 0x11 + 18, 0);
	assert_int_equal(lapic_ack(c, 0), 0x49);
}

static void test_logical_destinations_reach_x2apic_cpus(void **state)
{
	struct irqchip *c = *state;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(lapic_msr_write(c, i, 0x1B, 0xFEE00C00, 0), 0);
	set_rte(c, 6, 2ull << 56 | 0x800 | 0x46);
	irqchip_set_gsi(c, 6, true);
	assert_int_equal(lapic_ack(c, 0), -1);
	assert_int_equal(lapic_ack(c, 1), 0x46);
	set_rte(c, 7, 0xFFull << 56 | 0x47);
	irqchip_set_gsi(c, 7, true);
	assert_int_equal(lapic_ack(c, 0), 0x47);
}

static void test_a_saved_ioapic_continues(void **state)
{
	struct irqchip *c = *state;
	struct ioapic_state st, again;
	set_rte(c, 9, 0x8049);
	irqchip_set_gsi(c, 9, true);
	irqchip_set_gsi(c, 4, true);
	ioapic_save(c, &st);
	struct irqchip *other = irqchip_new(2, NULL, NULL);
	ioapic_load(other, &st);
	ioapic_save(other, &again);
	assert_memory_equal(&st, &again, sizeof(st));
	memset(&st, 0xFF, sizeof(st));
	ioapic_load(other, &st);
	for (unsigned pin = 0; pin < 40; pin++)
		irqchip_set_gsi(other, pin, pin % 2);
	irqchip_free(other);
}

struct pvclock {
	uint32_t version, pad;
	uint64_t tsc, sys;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad2[2];
};

static uint64_t read_clock(struct mem *m, uint64_t gpa, uint64_t tsc)
{
	struct pvclock p;
	assert_int_equal(mem_read(m, gpa, &p, sizeof(p)), 0);
	assert_int_equal(p.version & 1, 0);
	uint64_t delta = tsc - p.tsc;
	delta = p.shift >= 0 ? delta << p.shift : delta >> -p.shift;
	return p.sys + (uint64_t)((unsigned __int128)delta * p.mul >> 32);
}

static void test_kvmclock_turns_the_tsc_into_nanoseconds(void **state)
{
	struct mem m;
	struct cai_error err;
	struct kvmclock k;
	struct pvclock p;
	uint64_t v;
	assert_int_equal(mem_create(&m, MEM_MIN_BYTES, &err), 0);
	kvmclock_init(&k, &m, 1000);
	assert_int_equal(kvmclock_msr_write(&k, 1, MSR_KVM_SYSTEM_TIME_NEW, 0x5001, 3000), 0);
	assert_int_equal(read_clock(&m, 0x5000, 3000), 2000);
	assert_int_equal(read_clock(&m, 0x5000, 1000000000000), 1000000000000 - 1000);
	mem_read(&m, 0x5000, &p, sizeof(p));
	assert_int_equal(p.flags, 1);
	assert_int_equal(p.version, 2);
	kvmclock_refresh(&k, 1, 9000, true);
	mem_read(&m, 0x5000, &p, sizeof(p));
	assert_int_equal(p.flags, 3);
	assert_int_equal(p.version, 4);
	kvmclock_msr_read(&k, 1, MSR_KVM_SYSTEM_TIME_NEW, &v);
	assert_int_equal(v, 0x5001);
	kvmclock_msr_read(&k, 0, MSR_KVM_SYSTEM_TIME_NEW, &v);
	assert_int_equal(v, 0);

	uint32_t wall[3];
	assert_int_equal(kvmclock_msr_write(&k, 0, MSR_KVM_WALL_CLOCK_NEW, 0x6000, 1000 + 5000000000), 0);
	mem_read(&m, 0x6000, wall, sizeof(wall));
	int64_t start = (int64_t)wall[1] * 1000000000 + wall[2], want = (int64_t)clock_real_ns() - 5000000000;
	assert_true(want - start < 1000000000 && start <= want);

	/* Hostile addresses. */
	static const uint64_t bad[] = {0xC0000001, 0x5003, UINT64_MAX, MEM_MIN_BYTES - 8 + 1, 1ull << 63 | 1};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(kvmclock_msr_write(&k, 0, MSR_KVM_SYSTEM_TIME_NEW, bad[i], 0), -1);
	assert_int_equal(kvmclock_msr_write(&k, 0, MSR_KVM_WALL_CLOCK_NEW, MEM_MIN_BYTES - 4, 0), -1);
	assert_int_equal(kvmclock_msr_write(&k, 0, 0x12, 0, 0), -1);
	kvmclock_load(&k, 0, 0, UINT64_MAX);
	kvmclock_refresh(&k, 0, 0, true);
	mem_destroy(&m);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers_read_as_a_24_pin_chip),
		T(test_an_edge_fires_when_the_level_rises),
		T(test_a_level_fires_until_it_falls),
		T(test_a_level_that_nobody_takes_is_not_stuck),
		T(test_logical_destinations_reach_x2apic_cpus),
		T(test_a_saved_ioapic_continues),
		cmocka_unit_test(test_kvmclock_turns_the_tsc_into_nanoseconds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
