/* SPDX-License-Identifier: Apache-2.0 */
/* A small driver for virtio-rng over MMIO: negotiation, a queue, notifications, interrupts (polled and slept for). */
#include "guest.h"

#define REG(off) (*(volatile uint32_t *)(0xD0000000ull + (off)))
#define QSIZE 8
#define GSI   5

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
static struct desc *desc;
static volatile uint16_t *avail; /* flags, idx, ring[] */
static volatile struct {
	uint16_t flags, idx;
	struct {
		uint32_t id, len;
	} ring[QSIZE];
} *used;
static volatile unsigned n_irq;

static void on_irq(struct frame *f)
{
	(void)f;
	n_irq++;
	REG(0x64) = REG(0x60);
	apic_eoi();
}

static void set_addr(unsigned off, void *p)
{
	REG(off) = (uint32_t)(uint64_t)p;
	REG(off + 4) = (uint32_t)((uint64_t)p >> 32);
}

static void submit(unsigned d)
{
	uint16_t i = avail[1];
	avail[2 + i % QSIZE] = (uint16_t)d;
	asm volatile("" : : : "memory");
	avail[1] = (uint16_t)(i + 1);
	asm volatile("mfence" : : : "memory");
	REG(0x50) = 0;
}

int guest_main(void)
{
	apic_enable();
	set_isr(0x45, on_irq);
	ioapic_route(GSI, 0x45, 0);
	CHECK_EQ(REG(0), 0x74726976);
	CHECK_EQ(REG(4), 2);
	CHECK_EQ(REG(8), 4); /* entropy source */
	REG(0x70) = 0;
	REG(0x70) = 1;
	REG(0x70) = 3;
	REG(0x14) = 1;
	CHECK_EQ(REG(0x10) & 1, 1); /* VIRTIO_F_VERSION_1 */
	REG(0x24) = 0;
	REG(0x20) = 0;
	REG(0x24) = 1;
	REG(0x20) = 1;
	REG(0x70) = 11;
	CHECK_EQ(REG(0x70), 11);
	REG(0x30) = 0;
	CHECK(REG(0x34) >= QSIZE);
	REG(0x38) = QSIZE;
	desc = alloc_page();
	avail = alloc_page();
	used = alloc_page();
	set_addr(0x80, desc);
	set_addr(0x90, (void *)avail);
	set_addr(0xA0, (void *)used);
	REG(0x44) = 1;
	CHECK_EQ(REG(0x44), 1);
	REG(0x70) = 15;

	uint8_t *buf = alloc_page();
	desc[0] = (struct desc){(uint64_t)buf, 64, 2, 0};
	sti();
	submit(0);
	WAIT_FOR(n_irq == 1, 3000);
	CHECK_EQ(n_irq, 1);
	CHECK_EQ(used->idx, 1);
	CHECK_EQ(used->ring[0].id, 0);
	CHECK_EQ(used->ring[0].len, 64);
	unsigned ones = 0;
	for (unsigned i = 0; i < 64; i++)
		for (unsigned b = 0; b < 8; b++)
			ones += buf[i] >> b & 1;
	CHECK(ones > 128 && ones < 384);
	CHECK_EQ(buf[64], 0);

	/* many, each slept for */
	for (unsigned i = 0; i < 40; i++) {
		desc[i % QSIZE] = (struct desc){(uint64_t)buf + 128 + i, 1 + i, 2, 0};
		cli();
		unsigned before = n_irq;
		submit(i % QSIZE);
		uint64_t until = rdtsc() + tsc_khz() * 3000;
		while (n_irq == before && rdtsc() < until) {
			wrmsr(X2APIC_LVTT, 0x46);
			asm volatile("sti; hlt; cli" : : : "memory");
		}
		CHECK_EQ(n_irq, before + 1);
		CHECK_EQ(used->idx, 2 + i);
		CHECK_EQ(used->ring[(1 + i) % QSIZE].len, 1 + i);
		if (n_irq == before)
			break;
	}
	/* a rule broken: the device asks for a reset and says so by an interrupt */
	desc[3] = (struct desc){0xffffffff00000000, 64, 2, 0};
	sti();
	submit(3);
	WAIT_FOR(REG(0x70) & 64, 3000);
	CHECK_EQ(REG(0x70) & 64, 64);
	REG(0x70) = 0;
	CHECK_EQ(REG(0x70), 0);
	cli();
	return guest_result();
}
