/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An EROFS file, read without mounting it: every inode that can be reached within a budget, all contents' places, links' targets.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "image/erofs_read.h"

#define BUDGET 2000

struct walk {
	struct erofs_reader e;
	unsigned budget, depth;
};

static void must(bool ok)
{
	if (!ok)
		abort();
}

static int attribute(const char *name, const void *value, size_t len, void *arg, struct cai_error *err)
{
	must(strchr(name, '.') && len <= 65535);
	return 0;
}

static int visit(const char *name, uint64_t nid, void *arg, struct cai_error *err)
{
	struct walk *w = arg;
	struct erofs_node n;
	char target[4096];
	must(*name && strlen(name) <= 255 && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, ".."));
	if (!w->budget || w->depth == 20)
		return -1;
	w->budget--;
	if (erofs_read_node(&w->e, nid, &n, err) < 0)
		return 0; /* the walk of a fuzzer goes on where an unpacker stops */
	must(n.nid == nid && n.mtime_ns < 1000000000u);
	erofs_read_xattrs(&w->e, &n, attribute, w, err);
	if (S_ISDIR(n.mode)) {
		w->depth++;
		erofs_read_dir(&w->e, &n, visit, w, err);
		w->depth--;
	} else if (S_ISLNK(n.mode)) {
		if (erofs_read_link(&w->e, &n, target, sizeof(target), err) == 0)
			must(target[0] && strlen(target) == n.size);
	} else if (S_ISREG(n.mode)) {
		struct erofs_extent x;
		for (uint64_t off = 0; off < n.size && w->budget; off += x.len, w->budget--) {
			if (erofs_read_extent(&w->e, &n, off, &x, err) < 0)
				break;
			must(x.len && x.len <= n.size - off && (x.hole || (x.at <= w->e.size && x.len <= w->e.size - x.at)));
		}
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct walk w = {.budget = BUDGET};
	struct cai_error err = {0};
	struct erofs_node root;
	int fd = memfd_create("image", 0);
	must(fd >= 0 && file_write_full(fd, data, size) == 0);
	if (erofs_read_open(&w.e, fd, &err) == 0 && erofs_read_node(&w.e, w.e.root, &root, &err) == 0 && S_ISDIR(root.mode))
		erofs_read_dir(&w.e, &root, visit, &w, &err);
	close(fd);
	return 0;
}
