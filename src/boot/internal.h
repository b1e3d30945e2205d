/* SPDX-License-Identifier: Apache-2.0 */
/* What the loader's files share. Nothing outside src/boot includes this. */
#ifndef BOOT_INTERNAL_H
#define BOOT_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "boot/kernel.h"
#include "mem/mem.h"
#include "x86/state.h"

/* A file to load from; name is for messages. */
struct boot_file {
	int fd;
	const char *name;
	uint64_t size;
};

/* The part of boot_params from setup_sects on that a bzImage brings along (boot.rst "The Real-Mode Kernel Header"). */
#define SETUP_HEADER_START 0x1F1u
#define SETUP_HEADER_END   0x290u

/* What a loader found and put into RAM. */
struct boot_image {
	bool is_bzimage;
	bool is_linux;                 /* a Linux kernel for certain */
	bool has_entry64, has_pvh;
	uint64_t entry64;
	uint32_t pvh_entry;
	uint64_t start, end;           /* guest-physical; end includes bss and what decompression needs */
	uint64_t initrd_max;           /* the last address an initramfs may occupy */
	uint64_t cmdline_max;          /* bytes of command line without the NUL */
	uint8_t header[SETUP_HEADER_END - SETUP_HEADER_START];
};

/* Loaders: RAM from LAYOUT_HIGH_START up to the end of the lower region. */
int boot_load_elf(struct mem *m, const struct boot_file *f, enum boot_entry want, struct boot_image *img,
		  struct cai_error *err);
int boot_load_bzimage(struct mem *m, const struct boot_file *f, struct boot_image *img, struct cai_error *err);

/* Reads exactly n bytes at off, or fails with a sentence that says that `what` is missing. */
int boot_read(const struct boot_file *f, uint64_t off, void *buf, uint64_t n, const char *what, struct cai_error *err);
/* The same, straight into guest RAM. */
int boot_read_guest(struct mem *m, const struct boot_file *f, uint64_t off, uint64_t gpa, uint64_t n, const char *what,
		    struct cai_error *err);
/* Makes [gpa, gpa+n) read as zero. */
int boot_zero_guest(struct mem *m, uint64_t gpa, uint64_t n);
/* Fails unless the lower region of RAM reaches up to end. */
int boot_need(const struct mem *m, const char *name, uint64_t end, struct cai_error *err);

/* Low memory: GDT, page tables, boot_params, PVH start info. -1 when RAM has no room (it always has: MEM_MIN_BYTES). */
int boot_write_tables(struct mem *m);
int boot_write_params(struct mem *m, const struct boot_config *cfg, const struct boot_image *img,
		      const struct boot_info *info);
int boot_write_pvh(struct mem *m, const struct boot_config *cfg, const struct boot_info *info);

/* vCPU 0's state. */
void boot_state_64(struct x86_state *s, uint64_t entry);
void boot_state_pvh(struct x86_state *s, uint32_t entry);

#endif
