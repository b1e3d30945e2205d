/* SPDX-License-Identifier: Apache-2.0 */
#include "hv/soft/code.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "x86/translate.h"

#define MAX_BLOCK_OPS 128
#define ARENA_FIRST   64 /* offset 0 means "none" */

static struct x86_block *at(const struct code_cache *k, uint32_t off)
{
	return (struct x86_block *)(k->arena + off);
}

static uint32_t offset_of(const struct code_cache *k, const struct x86_block *b)
{
	return (uint32_t)((const uint8_t *)b - k->arena);
}

static uint32_t hash(uint32_t page, unsigned off, unsigned mode)
{
	uint32_t h = (page * 0x9e3779b1u) ^ (off * 0x85ebca6bu) ^ mode;
	return (h ^ h >> 15) & ((1u << CODE_HASH_BITS) - 1);
}

/* Zeroed memory that costs nothing until it is touched. */
static void *reserve(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

int code_cache_init(struct code_cache *k, struct mem *m, uint64_t bytes, struct cai_error *err)
{
	*k = (struct code_cache){.mem = m};
	if (!bytes)
		bytes = CODE_CACHE_DEFAULT;
	if (bytes < CODE_CACHE_MIN || bytes > CODE_CACHE_MAX)
		return cai_fail(err, EINVAL, "the code cache must be between %u MiB and %u MiB", CODE_CACHE_MIN >> 20, CODE_CACHE_MAX >> 20);
	pthread_mutex_init(&k->lock, NULL);
	k->size = (uint32_t)bytes;
	k->used = ARENA_FIRST;
	k->n_pages = m->size >> MEM_PAGE_SHIFT;
	/* A page cannot hold code without a block, so the arena bounds the number of code pages. */
	k->max_used_pages = k->size / (sizeof(struct x86_block) + sizeof(struct x86_op)) + 1;
	k->arena = reserve(k->size);
	k->heads = reserve(sizeof(*k->heads) << CODE_HASH_BITS);
	k->pages = reserve(sizeof(*k->pages) * k->n_pages);
	k->writers = reserve(sizeof(*k->writers) * k->n_pages);
	k->used_pages = reserve(sizeof(*k->used_pages) * k->max_used_pages);
	if (!k->arena || !k->heads || !k->pages || !k->writers || !k->used_pages) {
		code_cache_destroy(k);
		return cai_fail(err, ENOMEM, "no address space for a code cache of %llu MiB", (unsigned long long)bytes >> 20);
	}
	return 0;
}

void code_cache_destroy(struct code_cache *k)
{
	if (k->arena)
		munmap(k->arena, k->size);
	if (k->heads)
		munmap(k->heads, sizeof(*k->heads) << CODE_HASH_BITS);
	if (k->pages)
		munmap(k->pages, sizeof(*k->pages) * k->n_pages);
	if (k->writers)
		munmap(k->writers, sizeof(*k->writers) * k->n_pages);
	if (k->used_pages)
		munmap(k->used_pages, sizeof(*k->used_pages) * k->max_used_pages);
	k->arena = NULL;
	k->heads = NULL;
	k->pages = NULL;
	k->writers = NULL;
	k->used_pages = NULL;
}

const struct x86_block *code_find(const struct code_cache *k, uint32_t page, unsigned off, unsigned mode)
{
	/* Acquire pairs with the release in code_build: the block's contents are there. */
	uint32_t o = atomic_load_explicit(&k->heads[hash(page, off, mode)], memory_order_acquire);
	while (o) {
		const struct x86_block *b = at(k, o);
		if (b->page == page && b->start == off && b->mode == mode && !b->dead)
			return b;
		o = b->hash_next;
	}
	return NULL;
}

static uint64_t granule_mask(unsigned off, unsigned len)
{
	unsigned first = off / 64, last = (off + len - 1) / 64;
	return (last == 63 ? ~0ull : (1ull << (last + 1)) - 1) & ~((1ull << first) - 1);
}

const struct x86_block *code_build(struct code_cache *k, uint32_t page, const uint8_t *host, unsigned off, unsigned mode, bool *full)
{
	*full = false;
	pthread_mutex_lock(&k->lock);
	const struct x86_block *found = code_find(k, page, off, mode);
	if (found) {
		pthread_mutex_unlock(&k->lock);
		return found;
	}
	struct x86_block *b = NULL;
	struct code_page *p = &k->pages[page];
	if (k->used + sizeof(*b) + MAX_BLOCK_OPS * sizeof(struct x86_op) > k->size) {
		*full = true;
		goto out;
	}
	/* Someone wrote to the page between the caller's preparation and here, or another vCPU has announced the page but not yet taken the
	 * write tags away. Under the lock nobody resets is_code, so once both are seen no write tag can appear. */
	if (!atomic_load(&p->is_code) || atomic_load(&k->writers[page]))
		goto out;
	b = at(k, k->used);
	unsigned n_insns, bytes;
	unsigned n = x86_build_block(host, off, mode, b->op, MAX_BLOCK_OPS, &n_insns, &bytes);
	if (!n) {
		b = NULL;
		goto out;
	}
	atomic_fetch_or_explicit(&p->granules, granule_mask(off, bytes), memory_order_relaxed);
	uint32_t here = k->used, h = hash(page, off, mode);
	k->used += (uint32_t)align_up(sizeof(*b) + n * sizeof(struct x86_op), 32);
	b->page = page;
	b->start = (uint16_t)off;
	b->bytes = (uint16_t)bytes;
	b->n_insns = (uint16_t)n_insns;
	b->n_ops = (uint16_t)n;
	b->mode = (uint8_t)mode;
	b->dead = 0;
	if (!p->first && k->n_used_pages < k->max_used_pages)
		k->used_pages[k->n_used_pages++] = page;
	b->page_next = p->first;
	p->first = here;
	b->hash_next = atomic_load_explicit(&k->heads[h], memory_order_relaxed);
	atomic_store_explicit(&k->heads[h], here, memory_order_release);
	atomic_fetch_add_explicit(&k->decoded, 1, memory_order_relaxed);
out:
	pthread_mutex_unlock(&k->lock);
	return b;
}

void code_link(struct code_cache *k, const struct x86_block *from, struct x86_op *j, const struct x86_block *to)
{
	pthread_mutex_lock(&k->lock);
	if (!from->dead && !to->dead && from->page == to->page && from->mode == to->mode)
		*(volatile int32_t *)&j->disp = (int32_t)offset_of(k, to);
	pthread_mutex_unlock(&k->lock);
}

static void unhash(struct code_cache *k, struct x86_block *b)
{
	uint32_t here = offset_of(k, b), h = hash(b->page, b->start, b->mode);
	uint32_t o = atomic_load_explicit(&k->heads[h], memory_order_relaxed);
	if (o == here) {
		atomic_store_explicit(&k->heads[h], b->hash_next, memory_order_release);
		return;
	}
	while (o) {
		struct x86_block *prev = at(k, o);
		if (prev->hash_next == here) {
			prev->hash_next = b->hash_next;
			return;
		}
		o = prev->hash_next;
	}
}

bool code_invalidate(struct code_cache *k, uint32_t page, unsigned off, unsigned len)
{
	struct code_page *p = &k->pages[page];
	/* The write must be visible before is_code is looked at: who decodes sets is_code and then reads the bytes. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load_explicit(&p->is_code, memory_order_seq_cst))
		return false;
	bool dropped = false;
	pthread_mutex_lock(&k->lock);
	if (!p->first) {
		/* Marked for decoding, but nothing was decoded: let writes be fast again. */
		atomic_store_explicit(&p->is_code, 0, memory_order_seq_cst);
	} else if (atomic_load_explicit(&p->granules, memory_order_relaxed) & granule_mask(off, len)) {
		for (uint32_t o = p->first; o;) {
			struct x86_block *b = at(k, o);
			b->dead = 1;
			unhash(k, b);
			o = b->page_next;
		}
		p->first = 0;
		atomic_store_explicit(&p->granules, 0, memory_order_relaxed);
		atomic_store_explicit(&p->is_code, 0, memory_order_seq_cst);
		dropped = true;
	}
	pthread_mutex_unlock(&k->lock);
	return dropped;
}

void code_empty(struct code_cache *k)
{
	pthread_mutex_lock(&k->lock);
	memset((void *)k->heads, 0, sizeof(*k->heads) << CODE_HASH_BITS);
	for (uint32_t i = 0; i < k->n_used_pages; i++) {
		struct code_page *p = &k->pages[k->used_pages[i]];
		p->first = 0;
		atomic_store(&p->granules, 0);
		atomic_store(&p->is_code, 0);
	}
	k->n_used_pages = 0;
	k->used = ARENA_FIRST;
	pthread_mutex_unlock(&k->lock);
}
