/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tar stream from a sandbox, extracted into a directory of its own. The first byte chooses the options. What lies beside that
 * directory must not change; the process is not confined here, so only the extractor's own care keeps it so.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/copy.h"

static int drop(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const from[] = {NULL, "t", ".", NULL}, *const name[] = {NULL, "new", NULL, "x"};
	if (!size)
		return 0;
	struct copy_in_options o = {.from = from[data[0] & 3], .name = name[data[0] >> 2 & 3], .contents = data[0] >> 4 & 1, .owner = false};
	struct copy_result r;
	struct cai_error err;
	struct stat st;
	char top[64], path[100];
	snprintf(top, sizeof(top), "%s/caisson-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(top))
		abort();
	snprintf(path, sizeof(path), "%s/beside", top);
	int beside = open(path, O_CREAT | O_WRONLY, 0600);
	snprintf(path, sizeof(path), "%s/dest", top);
	if (beside < 0 || mkdir(path, 0700) < 0)
		abort();
	int dir = open(path, O_RDONLY | O_DIRECTORY), in = memfd_create("in", 0);
	if (dir < 0 || in < 0 || symlinkat("..", dir, "out") < 0 || symlinkat("../beside", dir, "link") < 0 || write(in, data + 1, size - 1) < 0)
		abort();
	lseek(in, 0, SEEK_SET);
	int quiet = open("/dev/null", O_WRONLY), saved = dup(2);
	dup2(quiet, 2); /* what is left out is said there */
	copy_in_at(dir, &o, in, &r, &err);
	dup2(saved, 2);
	close(quiet);
	close(saved);
	if (fstat(beside, &st) < 0 || st.st_nlink != 1 || st.st_size != 0 || (st.st_mode & 0777) != 0600)
		abort();
	if (stat(top, &st) < 0 || st.st_nlink != 3)
		abort();
	close(in);
	close(dir);
	close(beside);
	nftw(top, drop, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
