/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block cache: decoded code by guest-physical page, offset and CPU mode, shared by all vCPUs.
 *
 * Theory of operation: blocks live in one arena and refer to each other by offset. Look-ups take no lock: a block is complete before it
 * is put at the head of its hash chain, and memory of dead blocks is not used again until the whole arena is emptied with
 * every vCPU stopped.
 *
 * Writing to code. A page that holds decoded code has is_code set and no vCPU has a write tag for it in its TLB, so that every write to
 * it comes through the slow tier (or the write notifier of mem, for devices) and drops the page's blocks when it touches a
 * 64-byte granule that was decoded. Two flags make this safe without a lock on the write path: a vCPU that wants a write tag first
 * marks the page in `writers`, then looks at is_code; one that wants to decode first sets is_code, then looks at `writers`, and has
 * those vCPUs' tags taken away while they stand still. Whichever comes second sees the other.
 */
#ifndef HV_SOFT_CODE_H
#define HV_SOFT_CODE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "mem/mem.h"
#include "x86/op.h"

#define CODE_CACHE_DEFAULT (16u << 20)
#define CODE_CACHE_MIN     (1u << 20)
#define CODE_CACHE_MAX     (1u << 30)
#define CODE_HASH_BITS     17

/* One guest-physical page. */
struct code_page {
	_Atomic uint32_t is_code;  /* blocks of this page may exist */
	uint32_t first;            /* arena offset of its first block; chained by page_next */
	_Atomic uint64_t granules; /* bit n: bytes 64n..64n+63 have been decoded */
};

struct code_cache {
	struct mem *mem;
	pthread_mutex_t lock;      /* changes to blocks, chains and pages */
	uint8_t *arena;
	uint32_t size, used;
	_Atomic uint32_t *heads;   /* hash chains: arena offsets, 0 none */
	struct code_page *pages;   /* by mem_page_index; touched only where there is code */
	_Atomic uint32_t *writers; /* by mem_page_index: vCPUs that may hold a write tag, one bit each */
	uint64_t n_pages;
	uint32_t *used_pages;      /* page indices that ever held code since the last emptying */
	uint32_t n_used_pages, max_used_pages;
	_Atomic uint64_t decoded;  /* blocks, since the start */
};

int code_cache_init(struct code_cache *k, struct mem *m, uint64_t bytes, struct cai_error *err);
void code_cache_destroy(struct code_cache *k);

/* The block at `off` of the page, or NULL. No lock needed. */
const struct x86_block *code_find(const struct code_cache *k, uint32_t page, unsigned off, unsigned mode);

/* Decodes a block from host (the page's bytes) and publishes it. is_code must be set and write tags revoked. NULL: the first instruction leaves
 * the page (*full false), or the arena is full (*full true): empty it with the world stopped. */
const struct x86_block *code_build(struct code_cache *k, uint32_t page, const uint8_t *host, unsigned off, unsigned mode, bool *full);

/* Links branch operation j of block `from` to `to`, unless either died meanwhile. */
void code_link(struct code_cache *k, const struct x86_block *from, struct x86_op *j, const struct x86_block *to);

/* [page offset off, off+len) of the page has been written: drops its blocks if code was decoded from there. True if so. */
bool code_invalidate(struct code_cache *k, uint32_t page, unsigned off, unsigned len);

/* code_file.c: everything to an empty file, and from one into a new cache of the same size for the same amount of RAM. Only with no vCPU in guest
 * code. id: of the snapshot it belongs to; build: of this program; jumps: n bytes more, which are what vCPUs know of the cache. What the file
 * says is believed. */
int code_save(struct code_cache *k, int fd, const uint8_t id[16], const uint8_t build[20], const void *jumps, size_t n, struct cai_error *err);
int code_load(struct code_cache *k, int fd, const uint8_t id[16], const uint8_t build[20], void *jumps, size_t n, struct cai_error *err);

/* Forgets everything. Only with no vCPU in guest code. */
void code_empty(struct code_cache *k);

#endif
