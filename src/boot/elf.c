/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: both ELF classes are reduced to one form of header and segment. Each loadable segment goes to its
 * physical address; notes are searched for the PVH entry (name "Xen", type 18) and for the name "Linux", which tells a
 * vmlinux from other programs: the kernel's own build salt note has carried it since 5.0, stripped or not.
 */
#include <elf.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/util.h"
#include "boot/internal.h"
#include "dev/layout.h"

#define MAX_SEGMENTS          64u
#define MAX_NOTE_BYTES        65536u
#define NOTE_XEN_PHYS32_ENTRY 18u
#define LINUX_CMDLINE_MAX     2047u /* COMMAND_LINE_SIZE - 1 on x86 */
#define LINUX_INITRD_MAX      0x7FFFFFFFu

struct elf_image {
	bool is64;
	uint64_t entry, phoff;
	unsigned n_segments, phentsize;
};

struct segment {
	uint32_t type;
	uint64_t offset, paddr, filesz, memsz, align;
};

static int read_header(const struct boot_file *f, struct elf_image *e, struct cai_error *err)
{
	union {
		unsigned char ident[EI_NIDENT];
		Elf64_Ehdr h64;
		Elf32_Ehdr h32;
	} h;
	unsigned type, machine, want_phentsize;

	if (boot_read(f, 0, &h, sizeof(h.h32), "ELF header", err) < 0)
		return -1;
	if (h.ident[EI_DATA] != ELFDATA2LSB || (h.ident[EI_CLASS] != ELFCLASS64 && h.ident[EI_CLASS] != ELFCLASS32))
		return cai_fail(err, 0, "%s is an ELF file, but not a little-endian one of 32 or 64 bits", f->name);
	e->is64 = h.ident[EI_CLASS] == ELFCLASS64;
	if (e->is64) {
		if (boot_read(f, 0, &h.h64, sizeof(h.h64), "ELF header", err) < 0)
			return -1;
		type = h.h64.e_type;
		machine = h.h64.e_machine;
		e->entry = h.h64.e_entry;
		e->phoff = h.h64.e_phoff;
		e->n_segments = h.h64.e_phnum;
		e->phentsize = h.h64.e_phentsize;
		want_phentsize = sizeof(Elf64_Phdr);
	} else {
		type = h.h32.e_type;
		machine = h.h32.e_machine;
		e->entry = h.h32.e_entry;
		e->phoff = h.h32.e_phoff;
		e->n_segments = h.h32.e_phnum;
		e->phentsize = h.h32.e_phentsize;
		want_phentsize = sizeof(Elf32_Phdr);
	}
	if (machine != EM_X86_64 && machine != EM_386)
		return cai_fail(err, 0, "%s is an ELF file for another machine (number %u), not for x86-64", f->name, machine);
	if (type != ET_EXEC)
		return cai_fail(err, 0, "%s is an ELF file, but not a kernel: its type is %u instead of executable", f->name, type);
	if (e->n_segments == 0 || e->n_segments > MAX_SEGMENTS || e->phentsize != want_phentsize)
		return cai_fail(err, 0, "%s has a damaged ELF header: %u program headers of %u bytes", f->name, e->n_segments,
				e->phentsize);
	return 0;
}

static int read_segment(const struct boot_file *f, const struct elf_image *e, unsigned i, struct segment *s,
			struct cai_error *err)
{
	uint64_t off = e->phoff + (uint64_t)i * e->phentsize;
	if (off < e->phoff)
		return cai_fail(err, 0, "%s has a damaged ELF header: its program headers lie outside the file", f->name);
	if (e->is64) {
		Elf64_Phdr p;
		if (boot_read(f, off, &p, sizeof(p), "program header", err) < 0)
			return -1;
		*s = (struct segment){p.p_type, p.p_offset, p.p_paddr, p.p_filesz, p.p_memsz, p.p_align};
	} else {
		Elf32_Phdr p;
		if (boot_read(f, off, &p, sizeof(p), "program header", err) < 0)
			return -1;
		*s = (struct segment){p.p_type, p.p_offset, p.p_paddr, p.p_filesz, p.p_memsz, p.p_align};
	}
	return 0;
}

static int load_segment(struct mem *m, const struct boot_file *f, const struct segment *s, struct boot_image *img,
			struct cai_error *err)
{
	if (s->memsz == 0)
		return 0;
	if (s->filesz > s->memsz || s->paddr + s->memsz < s->paddr)
		return cai_fail(err, 0, "%s has a damaged ELF segment: %llu bytes in the file for %llu in memory", f->name,
				(unsigned long long)s->filesz, (unsigned long long)s->memsz);
	if (s->paddr < LAYOUT_HIGH_START)
		return cai_fail(err, 0, "%s wants to be loaded at address 0x%llx, below the first MiB's end", f->name,
				(unsigned long long)s->paddr);
	if (boot_need(m, f->name, s->paddr + s->memsz, err) < 0 ||
	    boot_read_guest(m, f, s->offset, s->paddr, s->filesz, "segment", err) < 0)
		return -1;
	if (boot_zero_guest(m, s->paddr + s->filesz, s->memsz - s->filesz) < 0)
		return cai_fail(err, 0, "a segment of %s does not fit into the guest's memory", f->name);
	if (img->start == 0 || s->paddr < img->start)
		img->start = s->paddr;
	if (s->paddr + s->memsz > img->end)
		img->end = s->paddr + s->memsz;
	return 0;
}

/* Notes are advice: a malformed one ends the search, it does not fail the load. */
static void scan_notes(const uint8_t *p, size_t n, uint64_t align, struct boot_image *img)
{
	struct buf_reader r = buf_reader(p, n);
	align = align == 8 ? 8 : 4;
	while (r.left >= sizeof(Elf32_Nhdr)) {
		uint32_t namesz = buf_get_u32(&r), descsz = buf_get_u32(&r), type = buf_get_u32(&r);
		/* 64-bit sums of two 32-bit values: no overflow. */
		const char *name = buf_get_bytes(&r, align_up((uint64_t)namesz, 4));
		const uint8_t *desc = buf_get_bytes(&r, descsz);
		if (!name || !desc)
			return;
		uint64_t pad = align_up((uint64_t)(desc + descsz - p), align) - (uint64_t)(desc + descsz - p);
		if (!buf_get_bytes(&r, pad < r.left ? pad : r.left))
			return;
		if (namesz == 4 && memcmp(name, "Xen", 4) == 0 && type == NOTE_XEN_PHYS32_ENTRY && descsz >= 4) {
			img->has_pvh = true;
			img->pvh_entry = load_le32(desc);
		} else if (namesz == 6 && memcmp(name, "Linux", 6) == 0) {
			img->is_linux = true;
		}
	}
}

static int read_notes(const struct boot_file *f, const struct segment *s, struct boot_image *img, struct cai_error *err)
{
	if (s->filesz == 0 || s->filesz > MAX_NOTE_BYTES)
		return 0;
	cleanup_free uint8_t *notes = malloc(s->filesz);
	if (!notes)
		return cai_fail(err, 0, "out of memory");
	if (boot_read(f, s->offset, notes, s->filesz, "notes", err) < 0)
		return -1;
	scan_notes(notes, s->filesz, s->align, img);
	return 0;
}

int boot_load_elf(struct mem *m, const struct boot_file *f, enum boot_entry want, struct boot_image *img,
		  struct cai_error *err)
{
	struct elf_image e = {0};
	struct segment s;
	bool entry_inside = false, pvh_inside = false;

	if (read_header(f, &e, err) < 0)
		return -1;
	/* Notes first: they say whether e_entry means anything. */
	for (unsigned i = 0; i < e.n_segments; i++)
		if (read_segment(f, &e, i, &s, err) < 0 || (s.type == PT_NOTE && read_notes(f, &s, img, err) < 0))
			return -1;
	for (unsigned i = 0; i < e.n_segments; i++) {
		if (read_segment(f, &e, i, &s, err) < 0)
			return -1;
		if (s.type != PT_LOAD)
			continue;
		if (load_segment(m, f, &s, img, err) < 0)
			return -1;
		entry_inside |= e.entry >= s.paddr && e.entry - s.paddr < s.memsz;
		pvh_inside |= img->pvh_entry >= s.paddr && img->pvh_entry - s.paddr < s.memsz;
	}
	if (img->end == 0)
		return cai_fail(err, 0, "%s is an ELF file with nothing to load", f->name);
	if (img->has_pvh && !pvh_inside)
		return cai_fail(err, 0, "%s is damaged: its PVH entry 0x%x lies outside of what is loaded", f->name, img->pvh_entry);
	img->has_entry64 = e.is64 && entry_inside;
	img->entry64 = e.entry;
	if (!img->has_entry64 && (!img->has_pvh || want == BOOT_ENTRY_64)) {
		if (!e.is64)
			return cai_fail(err, 0, "%s is a 32-bit ELF file without a PVH entry", f->name);
		return cai_fail(err, 0, "%s cannot be started: its entry 0x%llx is not a physical address inside of what is loaded",
				f->name, (unsigned long long)e.entry);
	}
	if (img->is_linux) {
		img->cmdline_max = LINUX_CMDLINE_MAX;
		img->initrd_max = LINUX_INITRD_MAX;
	}
	return 0;
}
