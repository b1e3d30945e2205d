/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/self/mountinfo and /proc/self/cgroup, divided by a NUL byte. Both are the kernel's, but the names in them are those that users of the
 * host have given to mount points and groups.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cgroup/internal.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
	size_t n = zero ? (size_t)(zero - data) : size, rest = zero ? size - n - 1 : 0;
	char *mounts = calloc(1, n + 1), *own = calloc(1, rest + 1);
	must(mounts && own);
	if (n)
		memcpy(mounts, data, n);
	if (rest)
		memcpy(own, zero + 1, rest);
	struct cgroup_host h;
	unsigned v2;
	cgroup_host_parse(&h, mounts, &v2);
	must(!(h.have & v2) && !((h.have | v2) & ~(unsigned)CGROUP_ALL));
	for (int i = 0; i < CGROUP_N; i++)
		must(!h.base[i] == !((h.have | v2) & (1u << i)) && (!h.base[i] || h.base[i][0] == '/'));
	cgroup_host_free(&h);
	for (int i = 0; i <= CGROUP_N; i++) {
		char *dir = cgroup_own_group(own, i == CGROUP_N ? "" : cgroup_controller_name(i), "/base");
		must(!dir || (!strncmp(dir, "/base/", 6) && !strstr(dir, "/../")));
		free(dir);
	}
	free(mounts);
	free(own);
	return 0;
}
