/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the first bytes tell an ELF file from a bzImage; a loader for each puts the kernel where it wants to be
 * and reports the entries it offers. Then comes what is the same for all: the initramfs as high as the kernel allows, the
 * command line, the tables in low memory, and vCPU 0's registers for the entry that was chosen.
 *
 * Which entry: a Linux vmlinux offers both PVH (32-bit, the kernel builds page tables and switches modes itself) and its 64-bit
 * entry, at the ELF header's e_entry. We take the 64-bit one for Linux, known by the ELF note that it alone carries: it is
 * shorter, and the zero page can hold a random seed, which hvm_start_info cannot. Any other ELF with a PVH note gets PVH: its
 * e_entry need not be a physical address or 64-bit code. An ELF without a note is a bare-metal program for the 64-bit entry.
 *
 * The files are hostile: every offset and size in them is checked against the file's size and the guest's RAM before use, and data
 * goes by pread straight into guest RAM, never through a buffer of a size that the file chose.
 */
#include "boot/kernel.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/util.h"
#include "boot/internal.h"

#define SETUP_MAGIC_OFF 0x202u

int boot_read(const struct boot_file *f, uint64_t off, void *buf, uint64_t n, const char *what, struct cai_error *err)
{
	if (off > f->size || n > f->size - off)
		return cai_fail(err, 0, "%s is truncated: it has %llu bytes, but its %s ends at byte %llu", f->name,
				(unsigned long long)f->size, what, (unsigned long long)(off + n));
	ssize_t got = file_pread_full(f->fd, buf, n, (off_t)off);
	if (got < 0)
		return cai_fail_errno(err, errno, "cannot read %s", f->name);
	if ((uint64_t)got != n)
		return cai_fail(err, 0, "%s became shorter while it was read", f->name);
	return 0;
}

int boot_read_guest(struct mem *m, const struct boot_file *f, uint64_t off, uint64_t gpa, uint64_t n, const char *what,
		    struct cai_error *err)
{
	void *hva = mem_hva(m, gpa, n);
	if (!hva)
		return cai_fail(err, 0, "the %s of %s does not fit into the guest's memory", what, f->name);
	if (boot_read(f, off, hva, n, what, err) < 0)
		return -1;
	mem_written(m, gpa, n);
	return 0;
}

int boot_zero_guest(struct mem *m, uint64_t gpa, uint64_t n)
{
	uint8_t *hva = mem_hva(m, gpa, n);
	if (!hva)
		return -1;
	uint64_t first = align_up(gpa, MEM_PAGE_SIZE), last = align_down(gpa + n, MEM_PAGE_SIZE);
	if (first >= last) {
		memset(hva, 0, n);
	} else {
		/* Whole pages are given back instead of written, so that an untouched bss costs no memory. */
		memset(hva, 0, first - gpa);
		memset(hva + (last - gpa), 0, gpa + n - last);
		if (mem_discard(m, first, last - first) < 0)
			memset(hva + (first - gpa), 0, last - first);
	}
	mem_written(m, gpa, n);
	return 0;
}

int boot_need(const struct mem *m, const char *name, uint64_t end, struct cai_error *err)
{
	if (end <= m->region[0].size)
		return 0;
	unsigned long long need = (end + MIB(1) - 1) >> 20, have = m->size >> 20;
	if (end > MEM_HOLE_START)
		return cai_fail(err, 0, "%s wants memory up to address 0x%llx, past the 3 GiB where low memory ends", name,
				(unsigned long long)end);
	return cai_fail(err, 0, "memory is too small: %s needs at least %llu MiB, the guest has %llu MiB", name, need, have);
}

static int open_file(struct boot_file *f, int fd, const char *name, struct cai_error *err)
{
	struct stat st;
	f->fd = fd;
	f->name = name;
	if (fstat(fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot read %s", name);
	if (S_ISDIR(st.st_mode))
		return cai_fail(err, EISDIR, "%s is a directory", name);
	if (!S_ISREG(st.st_mode))
		return cai_fail(err, 0, "%s is not a regular file", name);
	f->size = (uint64_t)st.st_size;
	return 0;
}

static int load_image(struct mem *m, const struct boot_file *f, enum boot_entry want, struct boot_image *img,
		      struct cai_error *err)
{
	uint8_t magic[SETUP_MAGIC_OFF + 4] = {0};
	if (f->size == 0)
		return cai_fail(err, 0, "%s is empty", f->name);
	uint64_t n = f->size < sizeof(magic) ? f->size : sizeof(magic);
	if (boot_read(f, 0, magic, n, "header", err) < 0)
		return -1;
	if (memcmp(magic, "\177ELF", 4) == 0)
		return boot_load_elf(m, f, want, img, err);
	if (memcmp(magic + SETUP_MAGIC_OFF, "HdrS", 4) == 0)
		return boot_load_bzimage(m, f, img, err);
	return cai_fail(err, 0, "%s is not a kernel Caisson can boot: neither an ELF vmlinux nor a bzImage", f->name);
}

static int load_initrd(struct mem *m, const struct boot_config *cfg, const struct boot_image *img,
		       struct boot_info *info, struct cai_error *err)
{
	if (cfg->initrd_fd < 0)
		return 0;
	struct boot_file f;
	if (open_file(&f, cfg->initrd_fd, cfg->initrd_name ? cfg->initrd_name : "the initramfs", err) < 0)
		return -1;
	if (f.size == 0)
		return cai_fail(err, 0, "%s is empty", f.name);
	uint64_t top = m->region[0].size;
	if (img->initrd_max < top)
		top = img->initrd_max + 1;
	top = align_down(top, MEM_PAGE_SIZE);
	if (top < img->end || f.size > top - img->end || align_down(top - f.size, MEM_PAGE_SIZE) < img->end) {
		if (f.size > MEM_HOLE_START || img->end + align_up(f.size, MEM_PAGE_SIZE) > img->initrd_max)
			return cai_fail(err, 0, "%s is too large: %llu MiB do not fit below the address that the kernel allows",
					f.name, (unsigned long long)(f.size >> 20));
		return boot_need(m, f.name, align_up(img->end, MEM_PAGE_SIZE) + align_up(f.size, MEM_PAGE_SIZE), err);
	}
	info->initrd_start = align_down(top - f.size, MEM_PAGE_SIZE);
	info->initrd_size = f.size;
	return boot_read_guest(m, &f, 0, info->initrd_start, f.size, "content", err);
}

static int put_cmdline(struct mem *m, const struct boot_config *cfg, const struct boot_image *img, struct cai_error *err)
{
	const char *text = cfg->cmdline ? cfg->cmdline : "";
	size_t n = strlen(text);
	uint64_t max = img->cmdline_max < BOOT_CMDLINE_MAX - 1 ? img->cmdline_max : BOOT_CMDLINE_MAX - 1;
	if (n > max)
		return cai_fail(err, 0, "the kernel command line is too long: %zu bytes, and this kernel takes %llu", n,
				(unsigned long long)max);
	if (mem_write(m, BOOT_CMDLINE_GPA, text, n + 1) < 0)
		return cai_fail(err, 0, "guest memory has no room for the kernel command line");
	return 0;
}

/* Decides between the entries that the image offers. */
static int choose_entry(const struct boot_file *f, enum boot_entry want, const struct boot_image *img, bool *pvh,
			struct cai_error *err)
{
	*pvh = want == BOOT_ENTRY_PVH || (want == BOOT_ENTRY_AUTO && img->has_pvh && !(img->has_entry64 && img->is_linux));
	if (*pvh && !img->has_pvh)
		return cai_fail(err, 0, "%s has no PVH entry", f->name);
	if (!*pvh && !img->has_entry64)
		return cai_fail(err, 0, "%s has no 64-bit entry", f->name);
	return 0;
}

int boot_load_kernel(struct mem *m, const struct boot_config *cfg, struct x86_state *bsp, struct boot_info *info_out,
		     struct cai_error *err)
{
	struct boot_image img = {.initrd_max = UINT64_MAX, .cmdline_max = BOOT_CMDLINE_MAX};
	struct boot_info info = {0};
	struct boot_file f;
	bool pvh;

	if (open_file(&f, cfg->kernel_fd, cfg->kernel_name ? cfg->kernel_name : "the kernel", err) < 0 ||
	    load_image(m, &f, cfg->entry, &img, err) < 0 || choose_entry(&f, cfg->entry, &img, &pvh, err) < 0 ||
	    load_initrd(m, cfg, &img, &info, err) < 0 || put_cmdline(m, cfg, &img, err) < 0)
		return -1;

	info.kind = pvh ? BOOT_KIND_PVH : img.is_bzimage ? BOOT_KIND_BZIMAGE : BOOT_KIND_ELF64;
	info.entry = pvh ? img.pvh_entry : img.entry64;
	info.kernel_start = img.start;
	info.kernel_end = img.end;
	if (boot_write_tables(m) < 0 ||
	    (pvh ? boot_write_pvh(m, cfg, &info) : boot_write_params(m, cfg, &img, &info)) < 0)
		return cai_fail(err, 0, "guest memory has no room for the boot tables");
	if (pvh)
		boot_state_pvh(bsp, img.pvh_entry);
	else
		boot_state_64(bsp, img.entry64);
	if (info_out)
		*info_out = info;
	return 0;
}
