/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums of memory that comes from a file, looked at as chunks are first used.
 *
 * Theory of operation: a bit says that a chunk has not been compared yet. Whoever finds it set takes the lock, compares, clears it; whoever comes
 * meanwhile waits, so that nobody changes a chunk while it is summed up. After that a chunk costs the look at its bit.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/util.h"
#include "mem/mem.h"

struct mem_check {
	uint64_t chunk_bytes;
	uint32_t *expected;          /* owned */
	_Atomic uint64_t *pending;   /* owned */
	pthread_mutex_t lock;
	mem_check_fn *failed;
	void *ctx;
};

int mem_check_begin(struct mem *m, uint64_t chunk_bytes, uint32_t *expected, uint64_t *pending, mem_check_fn *failed, void *ctx, struct cai_error *err)
{
	struct mem_check *k = calloc(1, sizeof(*k));
	if (!k) {
		free(expected);
		free(pending);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	*k = (struct mem_check){.chunk_bytes = chunk_bytes, .expected = expected, .pending = (_Atomic uint64_t *)pending, .failed = failed, .ctx = ctx};
	pthread_mutex_init(&k->lock, NULL);
	m->check = k;
	return 0;
}

void mem_check_end(struct mem *m)
{
	struct mem_check *k = m->check;
	m->check = NULL;
	if (!k)
		return;
	pthread_mutex_destroy(&k->lock);
	free(k->expected);
	free((void *)k->pending);
	free(k);
}

static bool is_pending(const struct mem_check *k, uint64_t c)
{
	/* Acquire: a chunk that is found compared is not written to before it was. */
	return atomic_load_explicit(&k->pending[c / 64], memory_order_acquire) >> (c % 64) & 1;
}

static void compare(const struct mem *m, uint64_t c)
{
	struct mem_check *k = m->check;
	const uint64_t at = c * k->chunk_bytes, left = m->size - at;
	bool bad = false;
	pthread_mutex_lock(&k->lock);
	if (is_pending(k, c)) {
		bad = crc32c(0, m->base + at, left < k->chunk_bytes ? left : k->chunk_bytes) != k->expected[c];
		atomic_fetch_and_explicit(&k->pending[c / 64], ~BIT(c % 64), memory_order_release);
	}
	pthread_mutex_unlock(&k->lock);
	if (bad)
		k->failed(k->ctx, at);
}

void mem_check_range(const struct mem *m, uint64_t offset, uint64_t len)
{
	const struct mem_check *k = m->check;
	if (!len)
		return;
	for (uint64_t c = offset / k->chunk_bytes; c <= (offset + len - 1) / k->chunk_bytes; c++)
		if (is_pending(k, c))
			compare(m, c);
}
