/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "boot/kernel.h"
#include "hv/hv.h"
#include "dev/layout.h"

/* A small kernel: header, two program headers, a note, 64 bytes of code at 1 MiB with 8 KiB of bss behind. */
struct tiny_elf {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[2];
	struct {
		Elf64_Nhdr h;
		char name[8];
		uint32_t desc[2];
	} note;
	uint8_t code[64];
};

static struct tiny_elf tiny_elf(void)
{
	struct tiny_elf k = {
		.eh = {.e_ident = "\177ELF\2\1\1",
		       .e_type = ET_EXEC,
		       .e_machine = EM_X86_64,
		       .e_entry = 0x100010,
		       .e_phoff = offsetof(struct tiny_elf, ph),
		       .e_phentsize = sizeof(Elf64_Phdr),
		       .e_phnum = 2},
		.ph = {{.p_type = PT_LOAD,
			.p_offset = offsetof(struct tiny_elf, code),
			.p_vaddr = 0xFFFFFFFF80100000,
			.p_paddr = 0x100000,
			.p_filesz = 64,
			.p_memsz = 64 + 8192},
		       {.p_type = PT_NOTE,
			.p_offset = offsetof(struct tiny_elf, note),
			.p_filesz = sizeof(k.note),
			.p_align = 4}},
	};
	memset(k.code, 0xF4, sizeof(k.code));
	return k;
}

static void set_note(struct tiny_elf *k, const char *name, uint32_t type, uint32_t value)
{
	uint32_t n = (uint32_t)strlen(name) + 1;
	k->note.h = (Elf64_Nhdr){n, n <= 4 ? 8 : 4, type};
	memset(k->note.name, 0, sizeof(k->note.name));
	memcpy(k->note.name, name, n);
	if (n <= 4)
		memcpy(k->note.name + 4, &value, 4);
	k->note.desc[0] = value;
}

static int file_of(const void *p, size_t n)
{
	int fd = memfd_create("kernel", 0);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), n);
	return fd;
}

struct result {
	int rc;
	struct x86_state s;
	struct boot_info info;
	struct cai_error err;
};

static struct result load(struct mem *m, const void *kernel, size_t n, struct boot_config cfg)
{
	struct result r = {0};
	cleanup_close int fd = file_of(kernel, n);
	cfg.kernel_fd = fd;
	cfg.kernel_name = "K";
	r.rc = boot_load_kernel(m, &cfg, &r.s, &r.info, &r.err);
	return r;
}

static const struct boot_config plain = {.initrd_fd = -1, .cmdline = "quiet", .rsdp_gpa = 0xE0000};

static int setup(void **state)
{
	static struct mem m;
	struct cai_error err;
	*state = &m;
	return mem_create(&m, MIB(64), &err);
}
static int teardown(void **state)
{
	mem_destroy(*state);
	return 0;
}

static uint64_t walk(struct mem *m, uint64_t cr3, uint64_t va)
{
	uint64_t e = cr3;
	for (int shift = 39; shift >= 21; shift -= 9) {
		e = load_le64(mem_hva(m, (e & 0xFFFFFFFFFF000) + (va >> shift & 511) * 8, 8));
		assert_true(e & 1);
	}
	assert_true(e & 0x80);
	return (e & 0xFFFFFFFE00000) | (va & 0x1FFFFF);
}

static void test_a_bare_elf_starts_in_long_mode_at_its_entry(void **state)
{
	struct mem *m = *state;
	struct tiny_elf k = tiny_elf();
	memset(mem_hva(m, 0x100000, 65536), 0xAA, 65536); /* bss must be cleared although memory is not */
	struct result r = load(m, &k, sizeof(k), plain);
	assert_int_equal(r.rc, 0);
	assert_int_equal(r.info.kind, BOOT_KIND_ELF64);
	assert_int_equal(r.info.kernel_start, 0x100000);
	assert_int_equal(r.info.kernel_end, 0x100000 + 64 + 8192);
	assert_int_equal(r.s.rip, 0x100010);
	assert_int_equal(r.s.cr0, 0x80000011);
	assert_int_equal(r.s.cr4, 0x20);
	assert_int_equal(r.s.efer, 0x500);
	assert_int_equal(r.s.rflags, 2);
	assert_int_equal(r.s.gpr[X86_RSI], BOOT_PARAMS_GPA);
	assert_int_equal(r.s.seg[X86_CS].attr, 0xA09B);
	assert_int_equal(r.s.seg[X86_SS].attr, 0xC093);
	assert_int_equal(r.s.tr.attr, 0x8B);
	assert_int_equal(r.s.mp_state, X86_MP_RUNNABLE);
	static const uint64_t va[] = {0, 0x100010, 0x3FFFFFFF, HV_LAPIC_BASE, 0xFFFFFFFF};
	for (size_t i = 0; i < ARRAY_LEN(va); i++)
		assert_int_equal(walk(m, r.s.cr3, va[i]), va[i]);
	const uint8_t *p = mem_hva(m, 0x100000, 65536);
	assert_memory_equal(p, k.code, 64);
	for (unsigned i = 64; i < 64 + 8192; i++)
		assert_int_equal(p[i], 0);
	assert_int_equal(p[64 + 8192], 0xAA);
}

static void test_segment_registers_agree_with_the_gdt(void **state)
{
	struct mem *m = *state;
	struct tiny_elf k = tiny_elf();
	set_note(&k, "Xen", 18, 0x100020);
	for (enum boot_entry e = BOOT_ENTRY_64; e <= BOOT_ENTRY_PVH; e++) {
		struct boot_config cfg = plain;
		cfg.entry = e;
		struct result r = load(m, &k, sizeof(k), cfg);
		assert_int_equal(r.rc, 0);
		const struct x86_segment *seg[] = {&r.s.seg[X86_CS], &r.s.seg[X86_DS], &r.s.seg[X86_SS], &r.s.tr};
		for (size_t i = 0; i < ARRAY_LEN(seg); i++) {
			assert_true(seg[i]->selector + 7 <= r.s.gdtr.limit);
			uint64_t d = load_le64(mem_hva(m, r.s.gdtr.base + seg[i]->selector, 8));
			assert_int_equal(d >> 40 & 0xF0FF, seg[i]->attr);
			uint32_t limit = (uint32_t)((d & 0xFFFF) | (d >> 32 & 0xF0000));
			assert_int_equal(d >> 55 & 1 ? limit << 12 | 0xFFF : limit, seg[i]->limit);
		}
	}
}

static void test_the_zero_page_tells_memory_cmdline_initrd_rsdp_and_seed(void **state)
{
	struct mem *m = *state;
	struct tiny_elf k = tiny_elf();
	struct boot_config cfg = plain;
	cleanup_close int initrd = file_of("initramfs!", 10);
	cfg.initrd_fd = initrd;
	struct result r = load(m, &k, sizeof(k), cfg);
	assert_int_equal(r.rc, 0);
	const uint8_t *bp = mem_hva(m, BOOT_PARAMS_GPA, 4096);
	assert_memory_equal(bp + 0x202, "HdrS", 4);
	assert_int_equal(load_le64(bp + 0x70), 0xE0000);
	assert_string_equal(mem_hva(m, load_le32(bp + 0x228), 6), "quiet");
	assert_int_equal(load_le32(bp + 0x21C), 10);
	assert_int_equal(load_le32(bp + 0x218), r.info.initrd_start);
	assert_int_equal(r.info.initrd_start, MIB(64) - 4096);
	assert_memory_equal(mem_hva(m, r.info.initrd_start, 10), "initramfs!", 10);
	/* The map covers RAM but for the legacy hole, and nothing twice. */
	assert_int_equal(bp[0x1E8], 3);
	assert_int_equal(load_le64(bp + 0x2D0 + 20), LAYOUT_ACPI_START);
	assert_int_equal(load_le32(bp + 0x2D0 + 20 + 16), 2);
	assert_int_equal(load_le64(bp + 0x2D0 + 40) + load_le64(bp + 0x2D0 + 48), MIB(64));
	const uint8_t *sd = mem_hva(m, load_le64(bp + 0x250), 48);
	assert_int_equal(load_le32(sd + 8), 9);
	assert_int_equal(load_le32(sd + 12), 32);
	static const uint8_t zero[32];
	assert_memory_not_equal(sd + 16, zero, 32);
}

static void test_pvh_is_taken_for_a_note_unless_it_is_linux(void **state)
{
	struct mem *m = *state;
	struct boot_config cfg = plain;
	struct tiny_elf k = tiny_elf();
	set_note(&k, "Xen", 18, 0x100020);
	cleanup_close int initrd = file_of("initramfs!", 10);
	cfg.initrd_fd = initrd;
	struct result r = load(m, &k, sizeof(k), cfg);
	assert_int_equal(r.rc, 0);
	assert_int_equal(r.info.kind, BOOT_KIND_PVH);
	assert_int_equal(r.s.rip, 0x100020);
	assert_int_equal(r.s.cr0, 0x11);
	assert_int_equal(r.s.efer, 0);
	assert_int_equal(r.s.seg[X86_CS].attr, 0xC09B);
	const uint8_t *p = mem_hva(m, r.s.gpr[X86_RBX], 4096);
	assert_int_equal(load_le32(p), 0x336EC578);
	assert_int_equal(load_le32(p + 12), 1);
	assert_int_equal(load_le64(mem_hva(m, load_le64(p + 16), 32)), r.info.initrd_start);
	assert_string_equal(mem_hva(m, load_le64(p + 24), 6), "quiet");
	assert_int_equal(load_le64(p + 32), 0xE0000);
	assert_int_equal(load_le32(p + 48), 3);

	set_note(&k, "Linux", 0x100, 0);
	r = load(m, &k, sizeof(k), plain);
	assert_int_equal(r.info.kind, BOOT_KIND_ELF64);
	cfg.entry = BOOT_ENTRY_PVH;
	r = load(m, &k, sizeof(k), cfg);
	assert_int_equal(r.rc, -1);
	assert_string_equal(r.err.text, "K has no PVH entry");
}

/* A bzImage of 2 setup sectors and 4 KiB of code that unpacks into 1 MiB at 16 MiB. */
static void tiny_bzimage(uint8_t k[3 * 512 + 4096])
{
	memset(k, 0, 3 * 512 + 4096);
	k[0x1F1] = 2;
	store_le32(k + 0x1F4, 4096 / 16);
	store_le16(k + 0x1FE, 0xAA55);
	k[0x201] = 0x6A;
	memcpy(k + 0x202, "HdrS", 4);
	store_le16(k + 0x206, 0x20F);
	k[0x211] = 1;
	store_le32(k + 0x22C, 0x7FFFFFFF);
	store_le16(k + 0x236, 1);
	store_le32(k + 0x238, 2047);
	store_le64(k + 0x258, MIB(16));
	store_le32(k + 0x260, MIB(1));
	memset(k + 3 * 512, 0x90, 4096);
}

static void test_a_bzimage_starts_at_its_64_bit_entry(void **state)
{
	struct mem *m = *state;
	uint8_t k[3 * 512 + 4096];
	tiny_bzimage(k);
	struct result r = load(m, k, sizeof(k), plain);
	assert_int_equal(r.rc, 0);
	assert_int_equal(r.info.kind, BOOT_KIND_BZIMAGE);
	assert_int_equal(r.s.rip, MIB(16) + 0x200);
	assert_int_equal(r.info.kernel_end, MIB(17));
	const uint8_t *bp = mem_hva(m, BOOT_PARAMS_GPA, 4096);
	assert_int_equal(load_le32(bp + 0x260), MIB(1)); /* the header was carried over */
	assert_int_equal(bp[0x210], 0xFF);
	assert_memory_equal(mem_hva(m, MIB(16), 4096), k + 3 * 512, 4096);
}

static void test_what_cannot_boot_is_refused_with_a_sentence(void **state)
{
	struct mem *m = *state;
	struct tiny_elf k;
	struct result r;
	uint8_t bz[3 * 512 + 4096];
	struct boot_config cfg;

#define REFUSED(kernel, n, config, part)                                                                           \
	do {                                                                                                       \
		r = load(m, kernel, n, config);                                                                    \
		assert_int_equal(r.rc, -1);                                                                        \
		if (!strstr(r.err.text, part))                                                                     \
			fail_msg("'%s' does not say '%s'", r.err.text, part);                                      \
	} while (0)
#define REFUSED_ELF(change, part)                                                                                  \
	do {                                                                                                       \
		k = tiny_elf();                                                                                    \
		change;                                                                                            \
		REFUSED(&k, sizeof(k), plain, part);                                                               \
	} while (0)
#define REFUSED_BZ(change, part)                                                                                   \
	do {                                                                                                       \
		tiny_bzimage(bz);                                                                                  \
		change;                                                                                            \
		REFUSED(bz, sizeof(bz), plain, part);                                                              \
	} while (0)

	REFUSED("", 0, plain, "K is empty");
	REFUSED("#!/bin/sh\n", 10, plain, "K is not a kernel Caisson can boot: neither an ELF vmlinux nor a bzImage");
	REFUSED("\177ELF", 4, plain, "K is truncated");
	REFUSED_ELF(k.eh.e_machine = EM_AARCH64, "for another machine (number 183)");
	REFUSED_ELF(k.eh.e_type = ET_REL, "not a kernel");
	REFUSED_ELF(k.eh.e_ident[EI_DATA] = ELFDATA2MSB, "little-endian");
	REFUSED_ELF(k.eh.e_phnum = 0, "damaged ELF header");
	REFUSED_ELF(k.eh.e_phnum = 9999, "damaged ELF header");
	REFUSED_ELF(k.eh.e_phentsize = 32, "damaged ELF header");
	REFUSED_ELF(k.eh.e_phoff = 1 << 20, "truncated");
	REFUSED_ELF(k.eh.e_phoff = UINT64_MAX - 60, "K ");
	REFUSED_ELF(k.eh.e_entry = 0xFFFFFFFF80100000, "not a physical address");
	REFUSED_ELF(k.ph[0].p_type = PT_NULL, "nothing to load");
	REFUSED_ELF(k.ph[0].p_filesz = 65 + 8192, "damaged ELF segment");
	REFUSED_ELF(k.ph[0].p_filesz = 4096, "truncated");
	REFUSED_ELF(k.ph[0].p_offset = UINT64_MAX, "truncated");
	REFUSED_ELF(k.ph[0].p_paddr = 0x1000, "below the first MiB");
	REFUSED_ELF(k.ph[0].p_paddr = UINT64_MAX - 100, "damaged ELF segment");
	REFUSED_ELF(k.ph[0].p_paddr = MIB(64) - 64, "memory is too small: K needs at least 65 MiB, the guest has 64 MiB");
	REFUSED_ELF(k.ph[0].p_memsz = GIB(4), "past the 3 GiB");
	REFUSED_ELF(set_note(&k, "Xen", 18, 0x5000), "PVH entry 0x5000 lies outside");
	REFUSED_BZ(store_le16(bz + 0x206, 0x20A), "boot protocol 2.10, too old");
	REFUSED_BZ(bz[0x236] = 0, "without a 64-bit entry");
	REFUSED_BZ(store_le32(bz + 0x1F4, 99999), "damaged bzImage header");
	REFUSED_BZ(store_le32(bz + 0x1F4, 4096 / 16 + 1), "K is truncated: it has 5632 bytes, but its compressed kernel");
	REFUSED_BZ(store_le64(bz + 0x258, 0), "damaged bzImage header");
	REFUSED_BZ(store_le64(bz + 0x258, UINT64_MAX - 4095), "damaged bzImage header");
	REFUSED_BZ(store_le32(bz + 0x260, MIB(100)), "needs at least 116 MiB");

	k = tiny_elf();
	cfg = plain;
	cleanup_close int big = memfd_create("big", 0);
	cfg.initrd_fd = big;
	cfg.initrd_name = "I";
	REFUSED(&k, sizeof(k), cfg, "I is empty");
	assert_int_equal(ftruncate(big, (off_t)MIB(64)), 0);
	REFUSED(&k, sizeof(k), cfg, "memory is too small: I needs at least 66 MiB");
	assert_int_equal(ftruncate(big, (off_t)GIB(5000)), 0);
	REFUSED(&k, sizeof(k), cfg, "I is too large");

	cfg = plain;
	char *text = calloc(1, BOOT_CMDLINE_MAX + 1);
	memset(text, 'x', BOOT_CMDLINE_MAX);
	cfg.cmdline = text;
	REFUSED(&k, sizeof(k), cfg, "command line is too long: 65536 bytes");
	tiny_bzimage(bz);
	REFUSED(bz, sizeof(bz), cfg, "this kernel takes 2047");
	free(text);

	cfg = plain;
	cfg.kernel_fd = STDIN_FILENO;
	int dir[2];
	assert_int_equal(pipe(dir), 0);
	cfg.kernel_fd = dir[0];
	assert_int_equal(boot_load_kernel(m, &cfg, &r.s, NULL, &r.err), -1);
	assert_string_equal(r.err.text, "the kernel is not a regular file");
	close(dir[0]);
	close(dir[1]);
}

static void test_application_processors_wait_as_after_reset(void **state)
{
	struct x86_state s;
	boot_ap_state(&s, 3);
	assert_int_equal(s.mp_state, X86_MP_WAIT_INIT);
	assert_int_equal(s.cr0, 0x60000010);
	assert_int_equal(s.apic_base, HV_LAPIC_BASE | 0x800);
	assert_int_equal(s.lapic[2], 3u << 24);
	assert_int_equal(HV_LAPIC_BASE, LAYOUT_LAPIC_BASE);
	assert_int_equal(HV_IOAPIC_BASE, LAYOUT_IOAPIC_BASE);
	assert_int_equal(HV_N_GSI, LAYOUT_N_GSI);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_bare_elf_starts_in_long_mode_at_its_entry, setup, teardown),
		cmocka_unit_test_setup_teardown(test_segment_registers_agree_with_the_gdt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_zero_page_tells_memory_cmdline_initrd_rsdp_and_seed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pvh_is_taken_for_a_note_unless_it_is_linux, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_bzimage_starts_at_its_64_bit_entry, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_cannot_boot_is_refused_with_a_sentence, setup, teardown),
		cmocka_unit_test(test_application_processors_wait_as_after_reset),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
