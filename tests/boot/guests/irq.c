/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupts: self-IPI, priorities and CR8, the IOAPIC's edge and level pins, the APIC timer in its three modes, HLT and waking. */
#include "guest.h"

static volatile unsigned count[256];
static volatile unsigned order[64], n_order;

static void on_irq(struct frame *f)
{
	count[f->vector]++;
	if (n_order < 64)
		order[n_order++] = (unsigned)f->vector;
	apic_eoi();
}

static void on_level(struct frame *f)
{
	count[f->vector]++;
	if (count[f->vector] == 2)
		outb(0xF2, 20); /* the line goes down: no third time */
	apic_eoi();
}

static void self_ipi(void)
{
	cli();
	wrmsr(X2APIC_SELF, 0x50);
	CHECK_EQ(count[0x50], 0);
	CHECK_EQ(rdmsr(X2APIC_IRR + 2) >> 16 & 1, 1);
	sti();
	WAIT_FOR(count[0x50], 1000);
	cli();
	CHECK_EQ(count[0x50], 1);
	/* two at once: the higher first */
	n_order = 0;
	wrmsr(X2APIC_SELF, 0x51);
	wrmsr(X2APIC_SELF, 0x91);
	sti();
	WAIT_FOR(n_order == 2, 1000);
	cli();
	CHECK_EQ(order[0], 0x91);
	CHECK_EQ(order[1], 0x51);
	/* STI takes effect one instruction later */
	uint64_t v = 0;
	wrmsr(X2APIC_SELF, 0x52);
	asm volatile("sti\n\tmov %1, %0\n\tcli" : "=r"(v) : "m"(count[0x52]));
	CHECK_EQ((uint32_t)v, 0);
}

static void priorities(void)
{
	sti();
	WRITE_CR(8, 6);
	CHECK_EQ(READ_CR(8), 6);
	CHECK_EQ(rdmsr(X2APIC_TPR), 0x60);
	wrmsr(X2APIC_SELF, 0x63);
	for (int i = 0; i < 100; i++)
		pause();
	CHECK_EQ(count[0x63], 0);
	wrmsr(X2APIC_SELF, 0x73);
	WAIT_FOR(count[0x73], 1000);
	CHECK_EQ(count[0x73], 1);
	CHECK_EQ(count[0x63], 0);
	WRITE_CR(8, 0);
	WAIT_FOR(count[0x63], 1000);
	CHECK_EQ(count[0x63], 1);
	CHECK_EQ(TRY("mov %0, %%cr8", "r"(16ull)), 13);
	cli();
}

static void ioapic(void)
{
	CHECK_EQ(ioapic_read(1) >> 16 & 0xff, 23);
	ioapic_write(0x10, 0x1F0DE | 1 << 16);
	ioapic_route(5, 0x60, 0);
	ioapic_route(20, 0x61, 1 << 15);
	sti();
	outb(0xF1, 5);
	WAIT_FOR(count[0x60] == 1, 1000);
	CHECK_EQ(count[0x60], 1);
	outb(0xF1, 5);
	outb(0xF1, 6); /* not routed */
	WAIT_FOR(count[0x60] == 2, 1000);
	CHECK_EQ(count[0x60], 2);
	/* masked: an edge is lost or kept, but not delivered now */
	ioapic_route(5, 0x60, 1 << 16);
	outb(0xF1, 5);
	for (int i = 0; i < 100; i++)
		pause();
	CHECK_EQ(count[0x60], 2);
	/* level: again and again until the line goes down */
	set_isr(0x61, on_level);
	outb(0xF2, 20 | 0x80);
	WAIT_FOR(count[0x61] == 2, 1000);
	for (int i = 0; i < 100; i++)
		pause();
	if (!guest_skip_pvm("no level interrupt after the line went down"))
		CHECK_EQ(count[0x61], 2);
	WAIT_FOR(!(ioapic_read(0x10 + 2 * 20) & 1 << 14), 500); /* remote IRR */
	CHECK_EQ(ioapic_read(0x10 + 2 * 20) & 1 << 14, 0);
	cli();
}

static void timer(void)
{
	wrmsr(X2APIC_TDCR, 0xB); /* divide by 1 */
	wrmsr(X2APIC_LVTT, 0x70);
	sti();
	uint64_t t = rdtsc();
	wrmsr(X2APIC_TMICT, 3000000); /* 3 ms of a 1 GHz bus clock */
	uint64_t left = rdmsr(X2APIC_TMCCT);
	CHECK(left > 0 || rdtsc() - t >= tsc_khz() * 3); /* the host may have been busy elsewhere */
	WAIT_FOR(count[0x70], 2000);
	t = (rdtsc() - t) * 1000 / tsc_khz();
	CHECK_EQ(count[0x70], 1);
	CHECK(t >= 2900); /* us */
	if (t < 2900)
		print("one-shot after %u us\n", t);
	CHECK_EQ(rdmsr(X2APIC_TMCCT), 0);
	/* periodic */
	wrmsr(X2APIC_LVTT, 0x71 | 1 << 17);
	wrmsr(X2APIC_TMICT, 2000000);
	WAIT_FOR(count[0x71] >= 3, 3000);
	CHECK(count[0x71] >= 3);
	wrmsr(X2APIC_TMICT, 0);
	/* TSC deadline */
	uint32_t r[4];
	cpuid(1, 0, r);
	CHECK(r[2] & 1 << 24);
	wrmsr(X2APIC_LVTT, 0x72 | 2 << 17);
	asm volatile("mfence" : : : "memory");
	uint64_t at = rdtsc() + tsc_khz() * 3;
	wrmsr(0x6E0, at);
	while (!count[0x72] && rdtsc() < at + tsc_khz() * 2000)
		pause();
	CHECK(rdtsc() >= at);
	CHECK_EQ(count[0x72], 1);
	CHECK_EQ(rdmsr(0x6E0), 0);
	wrmsr(0x6E0, 1); /* in the past: at once */
	WAIT_FOR(count[0x72] == 2, 1000);
	CHECK_EQ(count[0x72], 2);
	wrmsr(0x6E0, rdtsc() + tsc_khz() * 20);
	wrmsr(0x6E0, 0); /* disarmed */
	uint64_t until = rdtsc() + tsc_khz() * 40;
	while (rdtsc() < until)
		pause();
	CHECK_EQ(count[0x72], 2);
	cli();
}

static void halt(void)
{
	for (int i = 1; i <= 5; i++) {
		cli();
		wrmsr(0x6E0, rdtsc() + tsc_khz() * 2);
		uint64_t before = count[0x72];
		while (count[0x72] == before)
			asm volatile("sti; hlt; cli" : : : "memory");
		CHECK_EQ(count[0x72], before + 1);
	}
	/* a device wakes too */
	ioapic_route(5, 0x60, 0);
	uint64_t before = count[0x60];
	outb(0xF1, 5);
	while (count[0x60] == before)
		asm volatile("sti; hlt; cli" : : : "memory");
}

static volatile unsigned n_nmi, nmi_depth, nmi_nested;
static void on_nmi(struct frame *f)
{
	(void)f;
	if (nmi_depth++)
		nmi_nested++;
	n_nmi++;
	if (n_nmi == 1) {
		wrmsr(X2APIC_ICR, 0x4400); /* another to myself: not before IRET */
		for (int i = 0; i < 100; i++)
			pause();
	}
	nmi_depth--;
}

static void nmi(void)
{
	cli();
	set_isr(2, on_nmi);
	set_ist(2, 1);
	wrmsr(X2APIC_ICR, 0x4400);
	WAIT_FOR(n_nmi == 2, 2000);
	CHECK_EQ(n_nmi, 2);
	CHECK_EQ(nmi_nested, 0);
	set_ist(2, 0);
}

int guest_main(void)
{
	apic_enable();
	for (unsigned v = 0x40; v < 0xF0; v++)
		set_isr(v, on_irq);
	CHECK_EQ(rdmsr(X2APIC_ID), 0);
	self_ipi();
	print("priorities\n");
	priorities();
	print("ioapic\n");
	ioapic();
	print("timer\n");
	timer();
	print("halt\n");
	halt();
	print("nmi\n");
	nmi();
	return guest_result();
}
