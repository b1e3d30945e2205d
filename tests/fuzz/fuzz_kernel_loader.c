/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel loaders. The first byte chooses the entry wanted (bits 0-1) and whether the file serves as initramfs too (bit 2);
 * the rest is the kernel. Whatever is accepted must lie in RAM, above the tables in low memory, with the initramfs behind it.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "boot/kernel.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	cleanup_close int fd = memfd_create("kernel", MFD_CLOEXEC);
	must(fd >= 0 && write(fd, data + 1, size - 1) == (ssize_t)(size - 1));

	struct mem m;
	struct cai_error err = {0};
	struct x86_state s;
	struct boot_info info;
	must(mem_create(&m, MEM_MIN_BYTES * 2, &err) == 0);
	struct boot_config cfg = {
		.kernel_fd = fd,
		.initrd_fd = data[0] & 4 ? fd : -1,
		.cmdline = "console=ttyS0",
		.rsdp_gpa = 0xE0000,
		.entry = (enum boot_entry)((data[0] & 3) % 3),
	};
	if (boot_load_kernel(&m, &cfg, &s, &info, &err) == 0) {
		must(info.kernel_start >= 0x100000 && info.kernel_start < info.kernel_end && info.kernel_end <= m.region[0].size);
		must(s.rip == info.entry && info.entry >= info.kernel_start && info.entry < info.kernel_end);
		if (cfg.initrd_fd >= 0)
			must(info.initrd_size == size - 1 && info.initrd_start >= info.kernel_end &&
			     mem_hva(&m, info.initrd_start, info.initrd_size));
	} else {
		must(err.text[0] && memchr(err.text, 0, sizeof(err.text)));
	}
	mem_destroy(&m);
	return 0;
}
