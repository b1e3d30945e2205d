/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest finds in low memory at its start: a GDT, identity page tables, and either boot_params (the "zero page", Linux
 * Documentation/arch/x86/zero-page.rst) or hvm_start_info (Xen public/arch-x86/hvm/start_info.h). Each is built in a host
 * buffer and written in one piece.
 */
#include <sys/random.h>

#include "base/util.h"
#include "boot/internal.h"
#include "dev/layout.h"

#define E820_RAM      1u
#define E820_RESERVED 2u
#define MAX_RANGES    4u

struct range {
	uint64_t start, size;
	uint32_t type;
};

/* The memory map that both kinds of guest are told. Memory between LAYOUT_LOW_END and LAYOUT_ACPI_START is not mentioned. */
static unsigned memory_map(const struct mem *m, struct range r[MAX_RANGES])
{
	unsigned n = 0;
	r[n++] = (struct range){0, LAYOUT_LOW_END, E820_RAM};
	r[n++] = (struct range){LAYOUT_ACPI_START, LAYOUT_RESERVED_END - LAYOUT_ACPI_START, E820_RESERVED};
	r[n++] = (struct range){LAYOUT_HIGH_START, m->region[0].size - LAYOUT_HIGH_START, E820_RAM};
	if (m->n_regions > 1)
		r[n++] = (struct range){m->region[1].gpa, m->region[1].size, E820_RAM};
	return n;
}

#define PTE_PRESENT_RW 0x3u
#define PTE_LARGE      0x80u
#define TABLE_BYTES    (6 * MEM_PAGE_SIZE)

/* 4 GiB one to one: 2 MiB pages, since not every host offers 1 GiB ones. */
static int write_page_tables(struct mem *m)
{
	uint8_t t[TABLE_BYTES] = {0};
	const uint64_t pdpt = BOOT_PML4_GPA + MEM_PAGE_SIZE, pd = pdpt + MEM_PAGE_SIZE;
	store_le64(t, pdpt | PTE_PRESENT_RW);
	for (unsigned i = 0; i < 4; i++)
		store_le64(t + MEM_PAGE_SIZE + 8 * i, (pd + i * MEM_PAGE_SIZE) | PTE_PRESENT_RW);
	for (unsigned i = 0; i < 4 * 512; i++)
		store_le64(t + 2 * MEM_PAGE_SIZE + 8 * i, ((uint64_t)i << 21) | PTE_PRESENT_RW | PTE_LARGE);
	return mem_write(m, BOOT_PML4_GPA, t, sizeof(t));
}

int boot_write_tables(struct mem *m)
{
	/* The selectors are those of the boot protocol: 0x10 code, 0x18 data. Ours besides: 0x20 a task state
	 * segment (two entries), 0x30 32-bit code. */
	const uint64_t gdt[] = {0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00008B0000000067, 0, 0x00CF9B000000FFFF};
	if (mem_write(m, BOOT_GDT_GPA, gdt, sizeof(gdt)) < 0)
		return -1;
	return write_page_tables(m);
}

/* boot_params offsets */
#define BP_RSDP           0x070u
#define BP_E820_ENTRIES   0x1E8u
#define BP_SETUP_SECTS    0x1F1u
#define BP_BOOT_FLAG      0x1FEu
#define BP_MAGIC          0x202u
#define BP_VERSION        0x206u
#define BP_LOADER         0x210u
#define BP_LOADFLAGS      0x211u
#define BP_RAMDISK        0x218u
#define BP_RAMDISK_SIZE   0x21Cu
#define BP_CMDLINE        0x228u
#define BP_INITRD_MAX     0x22Cu
#define BP_ALIGNMENT      0x230u
#define BP_CMDLINE_SIZE   0x238u
#define BP_SETUP_DATA     0x250u
#define BP_E820_TABLE     0x2D0u
#define LOADER_UNKNOWN    0xFFu
#define LOADED_HIGH       0x01u
#define SETUP_RNG_SEED    9u
#define SEED_BYTES        32u

/* A vmlinux has no setup header; this is the one that its own boot code would have filled in. */
static void synthesise_header(uint8_t *bp, const struct boot_image *img)
{
	store_le16(bp + BP_BOOT_FLAG, 0xAA55);
	store_le32(bp + BP_MAGIC, 0x53726448); /* HdrS */
	store_le16(bp + BP_VERSION, 0x020F);
	bp[BP_LOADFLAGS] = LOADED_HIGH;
	store_le32(bp + BP_ALIGNMENT, 0x1000000);
	store_le32(bp + BP_INITRD_MAX, 0x7FFFFFFF);
	store_le32(bp + BP_CMDLINE_SIZE, (uint32_t)(img->cmdline_max < BOOT_CMDLINE_MAX ? img->cmdline_max : 2047));
}

/* 32 bytes from the host's generator, so that the guest's is ready from its first moment. Without them the guest still boots. */
static int write_seed(struct mem *m, uint64_t *setup_data)
{
	uint8_t node[16 + SEED_BYTES] = {0};
	*setup_data = 0;
	if (getrandom(node + 16, SEED_BYTES, GRND_NONBLOCK) != SEED_BYTES)
		return 0;
	store_le32(node + 8, SETUP_RNG_SEED);
	store_le32(node + 12, SEED_BYTES);
	*setup_data = BOOT_SEED_GPA;
	int rc = mem_write(m, BOOT_SEED_GPA, node, sizeof(node));
	explicit_bzero(node, sizeof(node));
	return rc;
}

int boot_write_params(struct mem *m, const struct boot_config *cfg, const struct boot_image *img,
		      const struct boot_info *info)
{
	uint8_t bp[4096] = {0};
	struct range r[MAX_RANGES];
	uint64_t setup_data;

	if (img->is_bzimage)
		memcpy(bp + SETUP_HEADER_START, img->header, sizeof(img->header));
	else
		synthesise_header(bp, img);
	if (write_seed(m, &setup_data) < 0)
		return -1;
	bp[BP_LOADER] = LOADER_UNKNOWN;
	store_le64(bp + BP_RSDP, cfg->rsdp_gpa);
	store_le32(bp + BP_CMDLINE, (uint32_t)BOOT_CMDLINE_GPA);
	store_le32(bp + BP_RAMDISK, (uint32_t)info->initrd_start);
	store_le32(bp + BP_RAMDISK_SIZE, (uint32_t)info->initrd_size);
	store_le64(bp + BP_SETUP_DATA, setup_data);

	unsigned n = memory_map(m, r);
	bp[BP_E820_ENTRIES] = (uint8_t)n;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *e = bp + BP_E820_TABLE + 20 * i;
		store_le64(e, r[i].start);
		store_le64(e + 8, r[i].size);
		store_le32(e + 16, r[i].type);
	}
	return mem_write(m, BOOT_PARAMS_GPA, bp, sizeof(bp));
}

#define PVH_MAGIC      0x336EC578u
#define PVH_MODULES    0x80u /* offsets in the page at BOOT_PVH_GPA */
#define PVH_MEMORY_MAP 0x100u

int boot_write_pvh(struct mem *m, const struct boot_config *cfg, const struct boot_info *info)
{
	uint8_t p[MEM_PAGE_SIZE] = {0};
	struct range r[MAX_RANGES];
	unsigned n = memory_map(m, r);

	store_le32(p, PVH_MAGIC);
	store_le32(p + 4, 1); /* version: with a memory map */
	if (info->initrd_size) {
		store_le32(p + 12, 1);
		store_le64(p + 16, BOOT_PVH_GPA + PVH_MODULES);
		store_le64(p + PVH_MODULES, info->initrd_start);
		store_le64(p + PVH_MODULES + 8, info->initrd_size);
	}
	store_le64(p + 24, BOOT_CMDLINE_GPA);
	store_le64(p + 32, cfg->rsdp_gpa);
	store_le64(p + 40, BOOT_PVH_GPA + PVH_MEMORY_MAP);
	store_le32(p + 48, n);
	for (unsigned i = 0; i < n; i++) {
		uint8_t *e = p + PVH_MEMORY_MAP + 24 * i;
		store_le64(e, r[i].start);
		store_le64(e + 8, r[i].size);
		store_le32(e + 16, r[i].type);
	}
	return mem_write(m, BOOT_PVH_GPA, p, sizeof(p));
}
