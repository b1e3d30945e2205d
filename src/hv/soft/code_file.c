/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block cache in a file, beside a local snapshot of the machine it was decoded for.
 *
 * Theory of operation: blocks hold no pointers: handler numbers, register slots, offsets in the arena, indices of guest pages. So the
 * file is the cache's own tables one after the other, each on a page boundary, and loading it is four private mappings: what a guest
 * does not execute is never read, what all clones execute is in memory once, and a link or a chain that one of them changes is its own
 * copy. Handler numbers are those of one build, so a file is only taken by the very program that wrote it.
 *
 * What the file says is executed without another look: it is as trusted as the program. The header's checksum only tells a
 * damaged file from a whole one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/util.h"
#include "hv/soft/code.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define MAGIC   "CAISCODE"
#define VERSION 1

struct header {
	char magic[8];
	uint32_t version, crc; /* of the header with crc 0 */
	uint8_t build[20];
	uint8_t id[16];
	uint32_t size, used, n_used_pages;
	uint64_t n_pages, jumps_bytes;
	uint64_t arena_at, heads_at, pages_at, used_pages_at, jumps_at, bytes; /* offsets in the file, and its size */
};

#define HEADS_BYTES (sizeof(uint32_t) << CODE_HASH_BITS)

static uint64_t pages(uint64_t n)
{
	return align_up(n, MEM_PAGE_SIZE);
}

static void lay_out(struct header *h)
{
	h->arena_at = pages(sizeof(*h));
	h->heads_at = h->arena_at + pages(h->used);
	h->pages_at = h->heads_at + pages(HEADS_BYTES);
	h->used_pages_at = h->pages_at + pages(h->n_pages * sizeof(struct code_page));
	h->jumps_at = h->used_pages_at + pages(h->n_used_pages * 4ull);
	h->bytes = h->jumps_at + pages(h->jumps_bytes);
}

static uint32_t header_crc(const struct header *h)
{
	struct header copy = *h;
	copy.crc = 0;
	return crc32c(0, &copy, sizeof(copy));
}

static int write_at(int fd, const void *p, uint64_t n, uint64_t off, struct cai_error *err)
{
	const char *from = p;
	while (n) {
		ssize_t k = pwrite(fd, from, n, (off_t)off);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return cai_fail_errno(err, k < 0 ? errno : EIO, "cannot write decoded code");
		from += k;
		off += (uint64_t)k;
		n -= (uint64_t)k;
	}
	return 0;
}

static bool test_and_set(uint64_t *map, uint64_t i)
{
	const uint64_t bit = BIT(i % 64), old = map[i / 64];
	map[i / 64] |= bit;
	return old & bit;
}

/* The entries of pages that hold code, whole blocks of the file at a time: the others stay holes. seen: a clear bit for each page of the machine. */
static int write_pages(struct code_cache *k, const uint32_t *list, uint32_t n, uint64_t *seen, int fd, const struct header *h, struct cai_error *err)
{
	const uint32_t per_block = MEM_PAGE_SIZE / sizeof(struct code_page);
	for (uint32_t i = 0; i < n; i++) {
		const uint64_t block = list[i] / per_block;
		uint64_t count = h->n_pages - block * per_block;
		if (count > per_block)
			count = per_block;
		if (!test_and_set(seen, block) && write_at(fd, &k->pages[block * per_block], count * sizeof(struct code_page),
							   h->pages_at + block * MEM_PAGE_SIZE, err) < 0)
			return -1;
	}
	return 0;
}

int code_save(struct code_cache *k, int fd, const uint8_t id[16], const uint8_t build[20], const void *jumps, size_t n_jumps, struct cai_error *err)
{
	struct header h = {.magic = MAGIC, .version = VERSION, .size = k->size, .used = k->used, .n_pages = k->n_pages, .jumps_bytes = n_jumps};
	cleanup_free uint32_t *list = malloc(sizeof(*list) * (k->n_used_pages + 1));
	const size_t words = (size_t)(k->n_pages / 64 + 1);
	cleanup_free uint64_t *seen = calloc(words, sizeof(*seen));
	if (!list || !seen)
		return cai_fail(err, ENOMEM, "out of memory");
	/* A page may be in the list several times, and without code by now. */
	uint32_t n = 0;
	for (uint32_t i = 0; i < k->n_used_pages; i++)
		if (k->pages[k->used_pages[i]].first && !test_and_set(seen, k->used_pages[i]))
			list[n++] = k->used_pages[i];
	memset(seen, 0, words * sizeof(*seen));
	h.n_used_pages = n;
	memcpy(h.id, id, sizeof(h.id));
	memcpy(h.build, build, sizeof(h.build));
	lay_out(&h);
	h.crc = header_crc(&h);
	if (ftruncate(fd, (off_t)h.bytes) < 0)
		return cai_fail_errno(err, errno, "cannot size the file for decoded code");
	if (write_at(fd, k->arena, k->used, h.arena_at, err) < 0 || write_at(fd, (const void *)k->heads, HEADS_BYTES, h.heads_at, err) < 0 ||
	    write_pages(k, list, n, seen, fd, &h, err) < 0 || write_at(fd, list, n * 4ull, h.used_pages_at, err) < 0 ||
	    write_at(fd, jumps, n_jumps, h.jumps_at, err) < 0)
		return -1;
	return write_at(fd, &h, sizeof(h), 0, err);
}

static int map_over(void *to, uint64_t n, int fd, uint64_t at, struct cai_error *err)
{
	if (n && mmap(to, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)at) == MAP_FAILED)
		return cai_fail_errno(err, errno, "cannot map decoded code");
	return 0;
}

int code_load(struct code_cache *k, int fd, const uint8_t id[16], const uint8_t build[20], void *jumps, size_t n_jumps, struct cai_error *err)
{
	struct header h, want;
	struct stat st;
	static const uint8_t none[20];
	ssize_t n = pread(fd, &h, sizeof(h), 0);
	if (n < 0)
		return cai_fail_errno(err, errno, "cannot read decoded code");
	if (n != (ssize_t)sizeof(h) || memcmp(h.magic, MAGIC, 8) || h.version != VERSION || header_crc(&h) != h.crc)
		return cai_fail(err, EINVAL, "the file of decoded code is none, or damaged");
	if (!memcmp(build, none, 20) || memcmp(h.build, build, 20))
		return cai_fail(err, ESTALE, "the decoded code was written by another build of the monitor");
	if (memcmp(h.id, id, 16))
		return cai_fail(err, ESTALE, "the decoded code belongs to another snapshot");
	want = h;
	lay_out(&want);
	if (h.size != k->size || h.used > k->size || h.n_pages != k->n_pages || h.n_used_pages > k->max_used_pages ||
	    h.jumps_bytes != n_jumps || memcmp(&want, &h, sizeof(h)))
		return cai_fail(err, EINVAL, "the decoded code is that of a machine of another size");
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < h.bytes)
		return cai_fail(err, EINVAL, "the file of decoded code is cut short");
	if (map_over(k->arena, pages(h.used), fd, h.arena_at, err) < 0 || map_over((void *)k->heads, HEADS_BYTES, fd, h.heads_at, err) < 0 ||
	    map_over(k->pages, pages(h.n_pages * sizeof(struct code_page)), fd, h.pages_at, err) < 0 ||
	    map_over(k->used_pages, pages(h.n_used_pages * 4ull), fd, h.used_pages_at, err) < 0)
		return -1;
	if (pread(fd, jumps, n_jumps, (off_t)h.jumps_at) != (ssize_t)n_jumps)
		return cai_fail(err, EINVAL, "the file of decoded code cannot be read");
	/* Page tables only, and best effort: a guest that starts looks at most of it within milliseconds, a fault at a time. */
	madvise(k->arena, pages(h.used), MADV_POPULATE_READ);
	madvise((void *)k->heads, HEADS_BYTES, MADV_POPULATE_READ);
	k->used = h.used;
	k->n_used_pages = h.n_used_pages;
	return 0;
}
