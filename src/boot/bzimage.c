/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a bzImage is a real-mode part of setup_sects sectors, which we only read the header of, and a protected-mode
 * part that is loaded at the address it prefers and started 0x200 bytes in, at its 64-bit entry. There it decompresses
 * the kernel within init_size bytes from that address. The header is copied into boot_params as the protocol demands.
 */
#include <string.h>

#include "base/util.h"
#include "boot/internal.h"
#include "dev/layout.h"

/* Offsets in the file, and in boot_params (boot.rst). */
#define HDR_SETUP_SECTS   0x1F1u
#define HDR_SYSSIZE       0x1F4u
#define HDR_JUMP_DISTANCE 0x201u
#define HDR_VERSION       0x206u
#define HDR_LOADFLAGS     0x211u
#define HDR_INITRD_MAX    0x22Cu
#define HDR_XLOADFLAGS    0x236u
#define HDR_CMDLINE_SIZE  0x238u
#define HDR_PREF_ADDRESS  0x258u
#define HDR_INIT_SIZE     0x260u

#define VERSION_MIN        0x020Cu
#define LOADED_HIGH        0x01u
#define XLF_KERNEL_64      0x01u
#define SECTOR             512u
#define DEFAULT_SECTS      4u
#define ENTRY64_OFFSET     0x200u
#define INITRD_MAX_DEFAULT 0x7FFFFFFFu

int boot_load_bzimage(struct mem *m, const struct boot_file *f, struct boot_image *img, struct cai_error *err)
{
	uint8_t h[SETUP_HEADER_END] = {0};
	uint64_t n = f->size < sizeof(h) ? f->size : sizeof(h);
	if (boot_read(f, 0, h, n, "setup header", err) < 0)
		return -1;

	unsigned version = load_le16(h + HDR_VERSION);
	if (version < VERSION_MIN)
		return cai_fail(err, 0, "%s is a bzImage of boot protocol %u.%02u, too old: 2.12 is needed", f->name, version >> 8,
				version & 0xFF);
	if (!(load_le16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64) || !(h[HDR_LOADFLAGS] & LOADED_HIGH))
		return cai_fail(err, 0, "%s is a bzImage without a 64-bit entry: is it a 32-bit kernel?", f->name);

	uint64_t setup = (uint64_t)((h[HDR_SETUP_SECTS] ? h[HDR_SETUP_SECTS] : DEFAULT_SECTS) + 1) * SECTOR;
	uint64_t body = (uint64_t)load_le32(h + HDR_SYSSIZE) * 16;
	uint64_t load = load_le64(h + HDR_PREF_ADDRESS), init_size = load_le32(h + HDR_INIT_SIZE);
	if (body <= ENTRY64_OFFSET || init_size < body || load < LAYOUT_HIGH_START || load > MEM_HOLE_START ||
	    load % MEM_PAGE_SIZE)
		return cai_fail(err, 0, "%s has a damaged bzImage header: %llu bytes for address 0x%llx, %llu when unpacked", f->name,
				(unsigned long long)body, (unsigned long long)load, (unsigned long long)init_size);
	/* Load and init_size are below 4 GiB each: the sum cannot overflow. */
	if (boot_need(m, f->name, load + init_size, err) < 0 ||
	    boot_read_guest(m, f, setup, load, body, "compressed kernel", err) < 0)
		return -1;

	uint64_t end = HDR_JUMP_DISTANCE + 1 + h[HDR_JUMP_DISTANCE];
	if (end > SETUP_HEADER_END)
		end = SETUP_HEADER_END;
	memcpy(img->header, h + SETUP_HEADER_START, end - SETUP_HEADER_START);
	img->is_bzimage = img->is_linux = img->has_entry64 = true;
	img->entry64 = load + ENTRY64_OFFSET;
	img->start = load;
	img->end = load + init_size;
	img->initrd_max = load_le32(h + HDR_INITRD_MAX);
	if (img->initrd_max == 0 || img->initrd_max > INITRD_MAX_DEFAULT)
		img->initrd_max = INITRD_MAX_DEFAULT;
	img->cmdline_max = load_le32(h + HDR_CMDLINE_SIZE);
	return 0;
}
