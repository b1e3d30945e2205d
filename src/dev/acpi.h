/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables of a hardware-reduced machine (ACPI 6.5 chapters 4.1, 5.2, 19): RSDP, XSDT, FADT, MADT and a DSDT that names the
 * virtio-mmio devices, the serial port, pvpanic, the VM generation id and the event device that announces its change.
 */
#ifndef DEV_ACPI_H
#define DEV_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "mem/mem.h"

struct acpi_config {
	unsigned n_vcpus;  /* 1..254; APIC id = index */
	unsigned n_virtio; /* virtio-mmio slots 0..n-1 that the DSDT names; at most LAYOUT_VIRTIO_SLOTS */
};

/* Writes the tables to LAYOUT_ACPI_START and zeroes the generation id's page. *rsdp_gpa is for the loader. Returns 0, or -1
 * when the configuration does not fit. */
int acpi_build(struct mem *m, const struct acpi_config *cfg, uint64_t *rsdp_gpa, struct cai_error *err);

/* Stores a new 16-byte generation id. A running guest is told by a pulse on LAYOUT_GED_GSI afterwards. */
int acpi_set_generation(struct mem *m, const uint8_t id[16]);

#endif
