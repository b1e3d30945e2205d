/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The software interrupt controllers and kvmclock under a hostile guest: a program of steps of twelve bytes (operation, vCPU,
 * register, length, value). What must hold at all times: vectors below 16 are never delivered, an acknowledged vector was
 * the one announced, a timer that is polled at its deadline fires, and a saved chip loads into the same state.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "hv/soft/ioapic.h"
#include "hv/soft/kvmclock.h"
#include "hv/soft/lapic.h"

#define N 3

static void must(bool ok)
{
	if (!ok)
		abort();
}
static void on_kick(void *ctx, unsigned vcpu)
{
	must(vcpu < N);
}

static void take(struct irqchip *c, unsigned cpu)
{
	uint8_t vec;
	int v = lapic_has_irq(c, cpu);
	must(v == -1 || (v >= 16 && v <= 255));
	must(lapic_ack(c, cpu) == v);
	lapic_take_events(c, cpu, &vec);
}

static void poll(struct irqchip *c, unsigned cpu, uint64_t *now, uint64_t step)
{
	uint64_t due = lapic_timer_deadline(c, cpu);
	if (due != LAPIC_NO_DEADLINE && due > *now && step & 1)
		*now = due;
	else
		*now += step;
	if (*now > UINT64_MAX / 2)
		*now = UINT64_MAX / 2;
	must(lapic_poll_timer(c, cpu, *now) == (due != LAPIC_NO_DEADLINE && due <= *now));
	due = lapic_timer_deadline(c, cpu);
	must(due > *now);
}

static void save_and_load(struct irqchip *c, unsigned cpu, uint64_t now, unsigned at, uint8_t change)
{
	struct x86_state s, a = {0}, b = {0};
	struct ioapic_state io, io2;
	memset(&s, 0, sizeof(s));
	lapic_save(c, cpu, &s, now);
	s.lapic[at % X86_LAPIC_REGS] ^= (uint32_t)change << (at / 64 * 8 % 32);
	s.apic_base ^= (uint64_t)(change & 0x0C) << 8;
	lapic_load(c, cpu, &s, now);
	/* What was taken in is a fixed point. */
	lapic_save(c, cpu, &a, now);
	lapic_load(c, cpu, &a, now);
	lapic_save(c, cpu, &b, now);
	must(memcmp(&a, &b, sizeof(a)) == 0);
	ioapic_save(c, &io);
	io.rte[at % IOAPIC_PINS] ^= (uint64_t)change << 8;
	ioapic_load(c, &io);
	ioapic_save(c, &io);
	ioapic_load(c, &io);
	ioapic_save(c, &io2);
	must(memcmp(io.rte, io2.rte, sizeof(io.rte)) == 0 && io.level == io2.level);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct irqchip *c = irqchip_new(N, on_kick, NULL);
	struct mem m;
	struct kvmclock k;
	uint64_t now = 1000;
	must(c && mem_create(&m, MEM_MIN_BYTES, NULL) == 0);
	kvmclock_init(&k, &m, 0);
	for (; size >= 12; data += 12, size -= 12) {
		unsigned cpu = data[1] % N, reg = data[2], len = 1u << (data[3] & 3);
		uint64_t val = load_le64(data + 4), v = val;
		switch (data[0] % 14) {
		case 0:
		case 1: /* aligned registers most of the time */
			lapic_mmio(c, cpu, reg * 16ull, &v, 4, data[0] % 14 == 0, now);
			break;
		case 2:
			lapic_mmio(c, cpu, load_le16(data + 2) & 0xFFF, &v, len, data[1] & 0x80, now);
			break;
		case 3:
			lapic_msr_write(c, cpu, 0x800 + reg, val, now);
			break;
		case 4:
			lapic_msr_read(c, cpu, 0x800 + reg, &v, now);
			break;
		case 5:
			lapic_msr_write(c, cpu, reg & 1 ? 0x1B : 0x6E0, val, now);
			lapic_msr_read(c, cpu, reg & 1 ? 0x1B : 0x6E0, &v, now);
			break;
		case 6:
			v = reg;
			ioapic_mmio(c, 0, &v, 4, true);
			ioapic_mmio(c, 0x10, &val, 4, data[3] & 1);
			break;
		case 7:
			ioapic_mmio(c, reg, &v, len, data[1] & 0x80);
			break;
		case 8:
			irqchip_set_gsi(c, reg, val & 1);
			break;
		case 9:
			poll(c, cpu, &now, val >> 20);
			break;
		case 10:
			lapic_set_cr8(c, cpu, val & 15);
			must(lapic_get_cr8(c, cpu) == (val & 15));
			break;
		case 11:
			save_and_load(c, cpu, now, load_le16(data + 2), data[4]);
			break;
		case 12:
			lapic_set_tsc_offset(c, cpu, (int64_t)val);
			lapic_post_nmi(c, cpu);
			break;
		default:
			kvmclock_msr_write(&k, cpu, MSR_KVM_WALL_CLOCK_NEW + (reg & 1), val, now);
			kvmclock_refresh(&k, cpu, now, true);
			break;
		}
		take(c, cpu);
	}
	mem_destroy(&m);
	irqchip_free(c);
	return 0;
}
