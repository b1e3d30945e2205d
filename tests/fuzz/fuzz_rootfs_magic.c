/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A root file system as a file: how its superblock is recognised. Bytes 0 and 1 place the rest in the file, at and around offset 1024.
 * A file that is taken has a magic number where its kind has it, and an ext4 file system does not wait for its journal.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "sandbox/rootfs.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	const off_t at = data[0] & 0x80 ? load_le16(data) & 0x7fff : 1024;
	int fd = memfd_create("rootfs", MFD_CLOEXEC);
	must(fd >= 0 && pwrite(fd, data + 2, size - 2, at) == (ssize_t)(size - 2));
	char path[32];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);

	struct rootfs r;
	struct cai_error err = {0};
	uint8_t sb[128] = {0};
	bool whole = pread(fd, sb, sizeof(sb), 1024) == (ssize_t)sizeof(sb);
	bool erofs = whole && !memcmp(sb, "\xe2\xe1\xf5\xe0", 4), ext4 = whole && !memcmp(sb + 56, "\x53\xef", 2);
	if (rootfs_open(path, &r, &err) == 0) {
		must(r.fd >= 0 && r.fstype);
		must(strcmp(r.fstype, "erofs") ? ext4 && !erofs && !(sb[96] & 4) : erofs);
		rootfs_close(&r);
	} else {
		must(r.fd == -1 && err.text[0] && !erofs && (!ext4 || (sb[96] & 4)));
	}
	close(fd);
	return 0;
}
