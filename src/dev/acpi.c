/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: all tables are built in one host buffer that is an image of guest memory from LAYOUT_ACPI_START on, each
 * on a 16-byte boundary, then copied in one write. The order is RSDP (so that a scan finds it first), DSDT, FADT, MADT, XSDT: each
 * table is complete before another points at it.
 *
 * The machine is "hardware-reduced": no PM1 registers, no SCI, no FACS, no PIC. Devices that need to call for attention do it
 * through the generic event device's interrupt, whose _EVT method notifies the device concerned.
 */
#include "dev/acpi.h"

#include <stdio.h>

#include "base/buf.h"
#include "base/util.h"
#include "dev/aml.h"
#include "dev/layout.h"
#include "dev/reset.h"

#define HEADER_BYTES 36
#define RSDP_BYTES   36
#define FADT_BYTES   276

/* FADT (ACPI 6.5 table 5.9) */
#define FADT_DSDT          40
#define FADT_BOOT_ARCH     109
#define FADT_FLAGS         112
#define FADT_RESET_REG     116
#define FADT_RESET_VALUE   128
#define FADT_MINOR         131
#define FADT_X_DSDT        140
#define FADT_SLEEP_CONTROL 244
#define FADT_SLEEP_STATUS  256
#define FADT_HYPERVISOR    268
#define BOOT_ARCH_NO_VGA   BIT(2)
#define BOOT_ARCH_NO_RTC   BIT(5)
#define FADT_F_WBINVD      BIT(0)
#define FADT_F_NO_BUTTONS  (BIT(4) | BIT(5)) /* no fixed power and sleep buttons */
#define FADT_F_RESET_REG   BIT(10)
#define FADT_F_HW_REDUCED  BIT(20)

static uint8_t checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;
	for (size_t i = 0; i < n; i++)
		sum = (uint8_t)(sum + p[i]);
	return (uint8_t)-sum;
}

static size_t table_begin(struct buf *b, const char sig[4], uint8_t revision)
{
	while (!b->failed && b->len % 16)
		buf_put_u8(b, 0);
	size_t at = b->len;
	buf_put_bytes(b, sig, 4);
	buf_put_u32(b, 0); /* length, filled in at the end */
	buf_put_u8(b, revision);
	buf_put_u8(b, 0); /* checksum, likewise */
	buf_put_bytes(b, "CAISSN", 6);
	buf_put_bytes(b, "CAISSON ", 8);
	buf_put_u32(b, 1);
	buf_put_bytes(b, "CAIS", 4);
	buf_put_u32(b, 1);
	return at;
}

/* Fills in length and checksum; returns the table's guest-physical address. */
static uint64_t table_end(struct buf *b, size_t at)
{
	if (!b->failed) {
		store_le32(b->p + at + 4, (uint32_t)(b->len - at));
		b->p[at + 9] = checksum(b->p + at, b->len - at);
	}
	return LAYOUT_ACPI_START + at;
}

static void put_virtio(struct buf *b, unsigned slot)
{
	char name[8];
	snprintf(name, sizeof(name), "VR%02X", slot & 0xFF);
	size_t dev = aml_device(b, name);
	aml_name(b, "_HID");
	aml_string(b, "LNRO0005");
	aml_name(b, "_UID");
	aml_integer(b, slot);
	aml_name(b, "_CCA"); /* coherent */
	aml_integer(b, 1);
	aml_name(b, "_CRS");
	size_t crs = aml_resources(b);
	aml_res_memory32(b, (uint32_t)(LAYOUT_VIRTIO_BASE + slot * LAYOUT_VIRTIO_SIZE), LAYOUT_VIRTIO_SIZE);
	aml_res_irq_edge(b, LAYOUT_VIRTIO_GSI + slot);
	aml_resources_end(b, crs);
	aml_close(b, dev);
}

static void put_ports_device(struct buf *b)
{
	size_t dev = aml_device(b, "COM1");
	aml_name(b, "_HID");
	aml_eisaid(b, "PNP0501");
	aml_name(b, "_UID");
	aml_integer(b, 1);
	aml_name(b, "_CRS");
	size_t crs = aml_resources(b);
	aml_res_io(b, LAYOUT_COM1_PORT, 8);
	aml_res_irq_edge(b, LAYOUT_COM1_GSI);
	aml_resources_end(b, crs);
	aml_close(b, dev);

	dev = aml_device(b, "PEVT");
	aml_name(b, "_HID");
	aml_string(b, "QEMU0001");
	aml_name(b, "_CRS");
	crs = aml_resources(b);
	aml_res_io(b, LAYOUT_PVPANIC_PORT, 1);
	aml_resources_end(b, crs);
	aml_close(b, dev);
}

static void put_generation_id(struct buf *b)
{
	size_t dev = aml_device(b, "VGEN");
	aml_name(b, "_HID");
	aml_string(b, "CAIS0001");
	aml_name(b, "_CID");
	aml_string(b, "VM_Gen_Counter");
	aml_name(b, "_DDN");
	aml_string(b, "VM_Gen_Counter");
	aml_name(b, "ADDR");
	size_t pkg = aml_package(b, 2);
	aml_integer(b, (uint32_t)LAYOUT_VMGENID);
	aml_integer(b, (uint32_t)(LAYOUT_VMGENID >> 32));
	aml_close(b, pkg);
	aml_close(b, dev);

	dev = aml_device(b, "GED0");
	aml_name(b, "_HID");
	aml_string(b, "ACPI0013");
	aml_name(b, "_UID");
	aml_integer(b, 0);
	aml_name(b, "_CRS");
	size_t crs = aml_resources(b);
	aml_res_irq_edge(b, LAYOUT_GED_GSI);
	aml_resources_end(b, crs);
	size_t evt = aml_method(b, "_EVT", 1, true);
	size_t cond = aml_if_arg0_equals(b, LAYOUT_GED_GSI);
	aml_notify(b, "\\_SB_.VGEN", 0x80);
	aml_close(b, cond);
	aml_close(b, evt);
	aml_close(b, dev);
}

static uint64_t put_dsdt(struct buf *b, unsigned n_virtio)
{
	size_t at = table_begin(b, "DSDT", 2);
	size_t sb = aml_scope(b, "\\_SB_");
	for (unsigned i = 0; i < n_virtio; i++)
		put_virtio(b, i);
	put_ports_device(b);
	put_generation_id(b);
	aml_close(b, sb);
	aml_name(b, "\\_S5_");
	size_t pkg = aml_package(b, 4);
	aml_integer(b, RESET_SLEEP_S5);
	aml_integer(b, RESET_SLEEP_S5);
	aml_integer(b, 0);
	aml_integer(b, 0);
	aml_close(b, pkg);
	return table_end(b, at);
}

/* A generic address structure: one byte-wide port. */
static void set_port_gas(uint8_t *p, uint16_t port)
{
	p[0] = 1; /* system I/O */
	p[1] = 8; /* bits wide */
	p[2] = 0; /* bit offset */
	p[3] = 1; /* byte access */
	store_le64(p + 4, port);
}

static uint64_t put_fadt(struct buf *b, uint64_t dsdt)
{
	uint8_t body[FADT_BYTES] = {0};
	store_le32(body + FADT_DSDT, (uint32_t)dsdt);
	store_le16(body + FADT_BOOT_ARCH, BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_RTC);
	store_le32(body + FADT_FLAGS, FADT_F_WBINVD | FADT_F_NO_BUTTONS | FADT_F_RESET_REG | FADT_F_HW_REDUCED);
	set_port_gas(body + FADT_RESET_REG, LAYOUT_RESET_PORT);
	body[FADT_RESET_VALUE] = 1;
	body[FADT_MINOR] = 5;
	store_le64(body + FADT_X_DSDT, dsdt);
	set_port_gas(body + FADT_SLEEP_CONTROL, LAYOUT_SLEEP_PORT);
	set_port_gas(body + FADT_SLEEP_STATUS, LAYOUT_SLEEP_PORT + 1);
	memcpy(body + FADT_HYPERVISOR, "CAISSON", 8);
	size_t at = table_begin(b, "FACP", 6);
	buf_put_bytes(b, body + HEADER_BYTES, FADT_BYTES - HEADER_BYTES);
	return table_end(b, at);
}

static uint64_t put_madt(struct buf *b, unsigned n_vcpus)
{
	size_t at = table_begin(b, "APIC", 5);
	buf_put_u32(b, (uint32_t)LAYOUT_LAPIC_BASE);
	buf_put_u32(b, 0); /* no 8259 */
	for (unsigned i = 0; i < n_vcpus; i++) {
		buf_put_u8(b, 0); /* processor local APIC */
		buf_put_u8(b, 8);
		buf_put_u8(b, (uint8_t)i); /* processor UID */
		buf_put_u8(b, (uint8_t)i); /* APIC id */
		buf_put_u32(b, 1);         /* enabled */
	}
	buf_put_u8(b, 1); /* IOAPIC */
	buf_put_u8(b, 12);
	buf_put_u8(b, 0); /* id */
	buf_put_u8(b, 0);
	buf_put_u32(b, (uint32_t)LAYOUT_IOAPIC_BASE);
	buf_put_u32(b, 0); /* first GSI */
	buf_put_u8(b, 4); /* local APIC NMI: LINT1 of every processor */
	buf_put_u8(b, 6);
	buf_put_u8(b, 0xFF);
	buf_put_u16(b, 0);
	buf_put_u8(b, 1);
	return table_end(b, at);
}

static uint64_t put_xsdt(struct buf *b, uint64_t fadt, uint64_t madt)
{
	size_t at = table_begin(b, "XSDT", 1);
	buf_put_u64(b, fadt);
	buf_put_u64(b, madt);
	return table_end(b, at);
}

static void set_rsdp(uint8_t *p, uint64_t xsdt)
{
	memset(p, 0, RSDP_BYTES);
	memcpy(p, "RSD PTR ", 8);
	memcpy(p + 9, "CAISSN", 6);
	p[15] = 2; /* revision */
	store_le32(p + 20, RSDP_BYTES);
	store_le64(p + 24, xsdt);
	p[8] = checksum(p, 20);
	p[32] = checksum(p, RSDP_BYTES);
}

int acpi_build(struct mem *m, const struct acpi_config *cfg, uint64_t *rsdp_gpa, struct cai_error *err)
{
	if (cfg->n_vcpus < 1 || cfg->n_vcpus > 254 || cfg->n_virtio > LAYOUT_VIRTIO_SLOTS)
		return cai_fail(err, 0, "ACPI tables cannot describe %u CPUs and %u devices", cfg->n_vcpus, cfg->n_virtio);

	struct buf b = {0};
	int rc = 0;
	buf_put_bytes(&b, (uint8_t[RSDP_BYTES]){0}, RSDP_BYTES);
	uint64_t dsdt = put_dsdt(&b, cfg->n_virtio);
	uint64_t fadt = put_fadt(&b, dsdt);
	uint64_t madt = put_madt(&b, cfg->n_vcpus);
	uint64_t xsdt = put_xsdt(&b, fadt, madt);
	if (b.failed) {
		rc = cai_fail(err, 0, "out of memory while building ACPI tables");
	} else if (b.len > LAYOUT_ACPI_END - LAYOUT_ACPI_START) {
		rc = cai_fail(err, 0, "the ACPI tables are too large: %zu bytes", b.len);
	} else {
		set_rsdp(b.p, xsdt);
		if (mem_write(m, LAYOUT_ACPI_START, b.p, b.len) < 0 || acpi_set_generation(m, (const uint8_t[16]){0}) < 0)
			rc = cai_fail(err, 0, "guest memory has no room for ACPI tables");
	}
	buf_free(&b);
	if (rc == 0)
		*rsdp_gpa = LAYOUT_ACPI_START;
	return rc;
}

int acpi_set_generation(struct mem *m, const uint8_t id[16])
{
	return mem_write(m, LAYOUT_VMGENID, id, 16);
}
