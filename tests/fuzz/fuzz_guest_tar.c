/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's reader of tar archives. Byte 0: how much the source gives at a time; with bit 0, blocks that look like headers get the right
 * checksum first, which no mutation would find. An entry that is read must be written by the agent's
 * own writer so that its reader finds the same; no more data comes out than went in.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "guest/tar.h"

struct source {
	const uint8_t *p;
	size_t left, step;
};

static void must(bool ok)
{
	if (!ok)
		abort();
}

static ssize_t give(void *ctx, void *buf, size_t n)
{
	struct source *s = ctx;
	n = n < s->left ? n : s->left;
	n = n < s->step ? n : s->step;
	memcpy(buf, s->p, n);
	s->p += n;
	s->left -= n;
	return (ssize_t)n;
}

static void write_and_read(const struct tar_entry *e)
{
	struct buf b = {0};
	struct cai_error err;
	struct tar_entry got;

	tar_put_header(&b, e);
	must(!b.failed && b.len % TAR_BLOCK == 0);
	struct source s = {.p = b.p, .left = b.len, .step = b.len};
	struct tar_reader *r = tar_reader_new(give, &s, &err);
	must(r && tar_next(r, &got, &err) == 1);
	must(s.left == 0 && got.type == e->type && !strcmp(got.name, e->name) && !strcmp(got.target, e->target));
	must(got.mode == e->mode && got.uid == e->uid && got.gid == e->gid && got.size == e->size && got.mtime == e->mtime);
	tar_reader_free(r);
	buf_free(&b);
}

static void set_checksums(uint8_t *p, size_t n)
{
	for (; n >= TAR_BLOCK; p += TAR_BLOCK, n -= TAR_BLOCK) {
		unsigned sum = 0;
		if (memcmp(p + 257, "usta", 4) != 0)
			continue;
		memset(p + 148, ' ', 8);
		for (unsigned i = 0; i < TAR_BLOCK; i++)
			sum += p[i];
		for (unsigned i = 0; i < 6; i++)
			p[148 + i] = (uint8_t)('0' + (sum >> (15 - 3 * i) & 7));
		p[154] = 0;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cai_error err = {.text = ""};
	struct tar_entry e;
	size_t total = 0;
	int rc;

	if (size < 1)
		return 0;
	uint8_t *copy = malloc(size);
	must(copy != NULL);
	memcpy(copy, data, size);
	if (data[0] & 1)
		set_checksums(copy + 1, size - 1);
	struct source s = {.p = copy + 1, .left = size - 1, .step = 1 + (size_t)data[0] * 5};
	struct tar_reader *r = tar_reader_new(give, &s, &err);
	must(r != NULL);
	while ((rc = tar_next(r, &e, &err)) == 1) {
		uint8_t buf[300];
		ssize_t n;
		must(e.name[0] && e.mode <= 07777 && e.mtime_ns < 1000000000 && (e.type == TAR_FILE || e.size == 0));
		write_and_read(&e);
		if (e.mode & 1) /* some are skipped, as a reader may */
			continue;
		while ((n = tar_data(r, buf, sizeof(buf), &err)) > 0)
			total += (size_t)n;
		if (n < 0)
			break;
	}
	must(total <= size && (rc >= 0 || err.text[0]));
	tar_reader_free(r);
	free(copy);
	return 0;
}
