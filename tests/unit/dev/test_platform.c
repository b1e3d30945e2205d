/* SPDX-License-Identifier: Apache-2.0 */
/* Reset, pvpanic and the ACPI tables. With an argument, writes the tables there (DSDT, FADT, MADT in separate files) for iasl. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "bus/bus.h"
#include "dev/acpi.h"
#include "dev/layout.h"
#include "dev/pvpanic.h"
#include "dev/reset.h"

static void on_ended(void *ctx, enum reset_kind kind)
{
	((unsigned *)ctx)[kind]++;
}
static void on_panic(void *ctx)
{
	++*(unsigned *)ctx;
}

static void test_only_the_right_writes_end_the_machine(void **state)
{
	static const struct {
		uint16_t port;
		uint8_t value;
		unsigned reboots, poweroffs;
	} cases[] = {
		{0x64, 0xFE, 1, 0}, {0x64, 0xFC, 1, 0}, {0x64, 0xFF, 0, 0}, {0x64, 0xAA, 0, 0},  {0x60, 0xFE, 0, 0},
		{0xCF9, 0x06, 1, 0}, {0xCF9, 0x02, 0, 0}, {0x600, 0x34, 0, 1}, {0x600, 0x14, 0, 0}, {0x600, 0x30, 0, 0},
		{0x601, 0x34, 0, 0}, {0x602, 0x01, 1, 0}, {0x602, 0x00, 0, 0},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		unsigned ended[2] = {0};
		struct reset_dev dev = {on_ended, ended};
		struct bus pio = {0};
		uint8_t v = cases[i].value;
		assert_int_equal(reset_attach(&dev, &pio), 0);
		assert_true(bus_access(&pio, cases[i].port, &v, 1, true));
		assert_int_equal(ended[RESET_REBOOT], cases[i].reboots);
		assert_int_equal(ended[RESET_POWEROFF], cases[i].poweroffs);
		assert_true(bus_access(&pio, cases[i].port, &v, 1, false));
	}
}

static void test_pvpanic_reports_a_panic_and_nothing_else(void **state)
{
	unsigned n = 0;
	struct pvpanic dev = {on_panic, &n};
	struct bus pio = {0};
	uint8_t v = 0;
	assert_int_equal(pvpanic_attach(&dev, &pio), 0);
	assert_true(bus_access(&pio, 0x505, &v, 1, false));
	assert_int_equal(v, PVPANIC_PANICKED);
	v = PVPANIC_CRASH_LOADED;
	bus_access(&pio, 0x505, &v, 1, true);
	assert_int_equal(n, 0);
	v = PVPANIC_PANICKED;
	bus_access(&pio, 0x505, &v, 1, true);
	assert_int_equal(n, 1);
}

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;
	while (n--)
		s = (uint8_t)(s + *p++);
	return s;
}

static const uint8_t *table(const struct mem *m, uint64_t gpa, const char sig[4], uint32_t *len)
{
	assert_true(gpa >= LAYOUT_ACPI_START && gpa < LAYOUT_ACPI_END);
	const uint8_t *p = mem_hva(m, gpa, 36);
	assert_memory_equal(p, sig, 4);
	*len = load_le32(p + 4);
	assert_true(gpa + *len <= LAYOUT_ACPI_END);
	assert_int_equal(sum(p, *len), 0);
	return p;
}

/* The bytes of needle occur n times. */
static void assert_count(const uint8_t *p, size_t len, const void *needle, size_t n_len, unsigned n)
{
	unsigned found = 0;
	for (size_t i = 0; i + n_len <= len; i++)
		found += memcmp(p + i, needle, n_len) == 0;
	assert_int_equal(found, n);
}

static void test_every_table_is_found_from_the_rsdp_and_sums_to_zero(void **state)
{
	struct mem m;
	struct cai_error err;
	uint64_t rsdp_gpa = 0;
	uint32_t len;
	assert_int_equal(mem_create(&m, MEM_MIN_BYTES, &err), 0);
	assert_int_equal(acpi_build(&m, &(struct acpi_config){.n_vcpus = 4, .n_virtio = 16}, &rsdp_gpa, &err), 0);
	assert_int_equal(rsdp_gpa, 0xE0000);

	const uint8_t *rsdp = mem_hva(&m, rsdp_gpa, 36);
	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	const uint8_t *xsdt = table(&m, load_le64(rsdp + 24), "XSDT", &len);
	assert_int_equal(len, 36 + 2 * 8);
	const uint8_t *fadt = table(&m, load_le64(xsdt + 36), "FACP", &len);
	assert_int_equal(len, 276);
	assert_true(load_le32(fadt + 112) & BIT(20)); /* hardware-reduced */
	assert_true(load_le32(fadt + 112) & BIT(10)); /* has a reset register */
	assert_int_equal(load_le64(fadt + 116 + 4), LAYOUT_RESET_PORT);
	assert_int_equal(load_le64(fadt + 244 + 4), LAYOUT_SLEEP_PORT);
	assert_int_equal(load_le64(fadt + 256 + 4), LAYOUT_SLEEP_PORT + 1);

	const uint8_t *madt = table(&m, load_le64(xsdt + 44), "APIC", &len);
	unsigned lapics = 0, ioapics = 0;
	for (uint32_t at = 44; at < len; at += madt[at + 1]) {
		assert_true(madt[at + 1] >= 2 && at + madt[at + 1] <= len);
		lapics += madt[at] == 0;
		ioapics += madt[at] == 1;
	}
	assert_int_equal(lapics, 4);
	assert_int_equal(ioapics, 1);

	const uint8_t *dsdt = table(&m, load_le64(fadt + 140), "DSDT", &len);
	assert_count(dsdt, len, "LNRO0005", 9, 16);
	assert_count(dsdt, len, "ACPI0013", 9, 1);
	assert_count(dsdt, len, "VM_Gen_Counter", 15, 2);
	assert_count(dsdt, len, "\x41\xD0\x05\x01", 4, 1); /* PNP0501 */
	mem_destroy(&m);
}

static void test_a_machine_that_the_tables_cannot_describe_is_refused(void **state)
{
	struct mem m;
	struct cai_error err;
	uint64_t rsdp;
	assert_int_equal(mem_create(&m, MEM_MIN_BYTES, &err), 0);
	assert_int_equal(acpi_build(&m, &(struct acpi_config){.n_vcpus = 0}, &rsdp, &err), -1);
	assert_int_equal(acpi_build(&m, &(struct acpi_config){.n_vcpus = 255}, &rsdp, &err), -1);
	assert_int_equal(acpi_build(&m, &(struct acpi_config){.n_vcpus = 1, .n_virtio = 17}, &rsdp, &err), -1);
	assert_int_equal(acpi_build(&m, &(struct acpi_config){.n_vcpus = 254, .n_virtio = 16}, &rsdp, &err), 0);
	mem_destroy(&m);
}

static void test_the_generation_id_can_be_replaced(void **state)
{
	struct mem m;
	struct cai_error err;
	const uint8_t id[16] = "0123456789abcdef";
	assert_int_equal(mem_create(&m, MEM_MIN_BYTES, &err), 0);
	assert_int_equal(acpi_set_generation(&m, id), 0);
	assert_memory_equal(mem_hva(&m, LAYOUT_VMGENID, 16), id, 16);
	mem_destroy(&m);
}

static int dump(const char *dir)
{
	struct mem m;
	struct cai_error err;
	uint64_t rsdp;
	char path[256];
	if (mem_create(&m, MEM_MIN_BYTES, &err) < 0 ||
	    acpi_build(&m, &(struct acpi_config){.n_vcpus = 4, .n_virtio = 16}, &rsdp, &err) < 0)
		return 1;
	for (uint64_t gpa = LAYOUT_ACPI_START + 48; gpa < LAYOUT_ACPI_END;) {
		const uint8_t *p = mem_hva(&m, gpa, 36);
		uint32_t len = load_le32(p + 4);
		if (len == 0)
			break;
		snprintf(path, sizeof(path), "%s/%.4s.aml", dir, (const char *)p);
		FILE *f = fopen(path, "w");
		if (!f || fwrite(p, 1, len, f) != len || fclose(f))
			return 1;
		gpa = align_up(gpa + len, 16);
	}
	mem_destroy(&m);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_the_right_writes_end_the_machine),
		cmocka_unit_test(test_pvpanic_reports_a_panic_and_nothing_else),
		cmocka_unit_test(test_every_table_is_found_from_the_rsdp_and_sums_to_zero),
		cmocka_unit_test(test_a_machine_that_the_tables_cannot_describe_is_refused),
		cmocka_unit_test(test_the_generation_id_can_be_replaced),
	};
	if (argc > 1)
		return dump(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
