/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's address map: who lives where in guest-physical memory, in port space and on the IOAPIC's pins. Both
 * accelerators, the loaders, the ACPI tables and the device models agree on it here. A snapshot depends on every figure, so
 * a change is a new machine version. Header only.
 */
#ifndef DEV_LAYOUT_H
#define DEV_LAYOUT_H

/* Low memory. RAM is reported usable in [0, LAYOUT_LOW_END) and from LAYOUT_HIGH_START on; between them are the legacy video
 * hole and the area that ACPI tables live in (RAM too, but reported reserved). */
#define LAYOUT_LOW_END      0x000A0000ull
#define LAYOUT_ACPI_START   0x000E0000ull /* RSDP first; found there also by a scan (ACPI 6.5 section 5.2.5.1) */
#define LAYOUT_ACPI_END     0x000FF000ull
#define LAYOUT_VMGENID      0x000FF000ull /* one reserved page; the 16-byte generation id is at its start */
#define LAYOUT_RESERVED_END 0x00100000ull
#define LAYOUT_HIGH_START   0x00100000ull

/* virtio-mmio slot i: 4 KiB at LAYOUT_VIRTIO_BASE + i * LAYOUT_VIRTIO_SIZE, on GSI LAYOUT_VIRTIO_GSI + i (edge, active high). */
#define LAYOUT_VIRTIO_BASE  0xD0000000ull
#define LAYOUT_VIRTIO_SIZE  0x1000u
#define LAYOUT_VIRTIO_GSI   5u
#define LAYOUT_VIRTIO_SLOTS 16u

#define LAYOUT_IOAPIC_BASE  0xFEC00000ull
#define LAYOUT_LAPIC_BASE   0xFEE00000ull
#define LAYOUT_N_GSI        24u

/* Ports. */
#define LAYOUT_COM1_PORT    0x3F8u
#define LAYOUT_COM1_GSI     4u
#define LAYOUT_PVPANIC_PORT 0x505u
#define LAYOUT_SLEEP_PORT   0x600u /* ACPI sleep control register, one byte; the status register follows it */
#define LAYOUT_RESET_PORT   0x602u /* ACPI reset register, one byte */

/* The generic event device (ACPI0013): a pulse makes the guest look at the VM generation id again. */
#define LAYOUT_GED_GSI      21u

#endif
