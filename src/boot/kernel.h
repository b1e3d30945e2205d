/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads a guest kernel, its command line and its initramfs into guest RAM and says in what state vCPU 0 starts.
 *
 * Recognised: an ELF64 x86-64 image (a Linux vmlinux, or a bare-metal test kernel), an ELF32 or ELF64 image with a PVH note,
 * and a bzImage of boot protocol 2.12 or later with a 64-bit entry (Linux Documentation/arch/x86/boot.rst; Xen
 * docs/misc/pvh.pandoc). Descriptors are read with pread from offset 0 and must be seekable; all of their content is hostile.
 *
 * State at a 64-bit entry: long mode, ring 0, the first 4 GiB mapped one to one with 2 MiB pages, flat segments (CS 0x10,
 * data 0x18), interrupts off, RSI = the boot_params page, RSP = the top of a small stack, the other registers 0. A bare-metal
 * ELF without a note starts in the same way, with the same boot_params. State at a PVH entry: 32-bit protected mode,
 * paging off, flat segments, EBX = struct hvm_start_info.
 *
 * Guest RAM below 0x30000 is used for this: BOOT_* below. The ACPI tables (dev/acpi.h) are not touched.
 */
#ifndef BOOT_KERNEL_H
#define BOOT_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "mem/mem.h"
#include "x86/state.h"

#define BOOT_GDT_GPA      0x00000500ull
#define BOOT_PVH_GPA      0x00006000ull /* hvm_start_info, module list, memory map: one page */
#define BOOT_PARAMS_GPA   0x00007000ull /* the zero page */
#define BOOT_STACK_TOP    0x00008ff0ull /* 4 KiB below belong to the stack */
#define BOOT_PML4_GPA     0x00009000ull /* PML4, PDPT and four page directories: 0x9000..0xEFFF */
#define BOOT_SEED_GPA     0x0000F000ull /* setup_data with the random seed */
#define BOOT_CMDLINE_GPA  0x00020000ull
#define BOOT_CMDLINE_MAX  0x00010000u   /* bytes with the NUL; a bzImage may state less */

enum boot_entry {
	BOOT_ENTRY_AUTO, /* 64-bit for bzImage, Linux vmlinux and ELFs without a PVH note; PVH for any other ELF with a note */
	BOOT_ENTRY_64,   /* the 64-bit entry, or fail */
	BOOT_ENTRY_PVH,  /* the PVH entry, or fail */
};

struct boot_config {
	int kernel_fd;           /* borrowed */
	const char *kernel_name; /* for messages; NULL for "the kernel" */
	int initrd_fd;           /* borrowed; -1 for none */
	const char *initrd_name; /* for messages; NULL for "the initramfs" */
	const char *cmdline;     /* NULL for empty */
	uint64_t rsdp_gpa;       /* 0 for no ACPI */
	enum boot_entry entry;
};

enum boot_kind { BOOT_KIND_ELF64, BOOT_KIND_PVH, BOOT_KIND_BZIMAGE };

struct boot_info {
	enum boot_kind kind;
	uint64_t entry;                  /* where vCPU 0 starts */
	uint64_t kernel_start, kernel_end; /* guest-physical range that the kernel needs at the start (bss included) */
	uint64_t initrd_start, initrd_size;
};

/* Fills guest RAM and *bsp (all of it, the local APIC's reset values included). info may be NULL. Returns 0, or -1 with a sentence
 * that names the file and what is wrong with it, or how much memory would be needed. */
int boot_load_kernel(struct mem *m, const struct boot_config *cfg, struct x86_state *bsp, struct boot_info *info,
		     struct cai_error *err);

/* The state of an application processor: waiting for INIT and SIPI, everything else as after RESET (SDM vol. 3 table 10-1). */
void boot_ap_state(struct x86_state *s, uint32_t apic_id);

#endif
