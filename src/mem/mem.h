/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM.
 *
 * Theory of operation: RAM is one memfd, or private mappings of a snapshot's files side by side with zeroes between them, in one
 * range of addresses. Guest-physical addresses see it as at most two regions around the hole below 4 GiB that devices and interrupt controllers use. Every
 * guest-physical address that comes from the guest goes through mem_hva() or a function built on it: the one
 * bounds-checked accessor. No pointer it returns may be kept across a guest exit.
 *
 * Every write that is not made by the guest's own CPU through an accelerator (devices, loaders, debugger) ends in
 * mem_written(), which marks the pages dirty and tells the accelerator, so that decoded code for them is dropped.
 *
 * Thread rules: after mem_create, all functions may be called from any thread. Guest memory itself is racy by nature:
 * other vCPUs write it at any time, so each field is read once and then checked.
 */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

#define MEM_PAGE_SIZE 4096u
#define MEM_PAGE_SHIFT 12
#define MEM_HOLE_START 0xC0000000ull /* RAM below 4 GiB ends here at the latest; devices live above it */
#define MEM_HOLE_END   0x100000000ull
#define MEM_MIN_BYTES  (16ull << 20)
#define MEM_MAX_BYTES  (512ull << 30)
#define MEM_MAX_REGIONS 2

struct mem_region {
	uint64_t gpa;  /* first guest-physical address */
	uint64_t size; /* bytes, a multiple of the page size */
	uint8_t *hva;  /* where it is mapped in this process */
};

/* Told of each range of RAM written from outside the guest's CPUs. Must not call back into mem. */
typedef void mem_write_fn(void *ctx, uint64_t gpa, uint64_t len);

struct mem_check;

struct mem {
	struct mem_region region[MEM_MAX_REGIONS];
	unsigned n_regions;
	uint64_t size; /* bytes of RAM in all */
	uint8_t *base; /* start of the one mapping behind all regions */
	int fd;        /* the memfd behind it; -1: private mappings */
	_Atomic uint64_t *dirty; /* one bit a page, by offset in the mapping; NULL while no dirty log is kept */
	_Atomic uint64_t *filed; /* private: likewise, pages whose mapping is still a file's */
	_Atomic uint32_t n_holes; /* private: ranges of a file given back, each of which may cost the kernel a mapping */
	struct mem_check *check; /* chunks that are to be compared with a checksum when they are first used; NULL: none (any more) */
	mem_write_fn *notify;
	void *notify_ctx;
};

/* Makes size bytes (a multiple of 4 KiB between MEM_MIN_BYTES and MEM_MAX_BYTES) of zeroed RAM. */
int mem_create(struct mem *m, uint64_t size, struct cai_error *err);
void mem_destroy(struct mem *m);

/* A part of a file that is to be seen in RAM at the same offset as it has in the file. */
struct mem_part {
	uint64_t offset, size; /* whole pages */
	int fd;                /* borrowed: not needed after the call */
};

/* Makes RAM from parts of files, mapped privately: pages are read when they are first touched, shared with everyone else who reads that file, and
 * copied when they are written. What no part covers is zero. parts are sorted and apart from each other, and lie within size; a
 * file that ends before its part does is SIGBUS when the guest gets there. */
int mem_create_private(struct mem *m, uint64_t size, const struct mem_part *parts, unsigned n, struct cai_error *err);

/*
 * Checks memory by chunks when they are first used, before anybody sees or changes what is in them. expected: a CRC-32C for each chunk of
 * chunk_bytes bytes (a power of two, whole pages) whose bit in pending is set; both are taken over. failed is told the offset of a chunk that
 * differs, on the thread that met it, once each; the chunk is used all the same. Only for accelerators that get to guest memory by mem_hva() alone.
 */
typedef void mem_check_fn(void *ctx, uint64_t offset);
int mem_check_begin(struct mem *m, uint64_t chunk_bytes, uint32_t *expected, uint64_t *pending, mem_check_fn *failed, void *ctx, struct cai_error *err);
void mem_check_end(struct mem *m);
void mem_check_range(const struct mem *m, uint64_t offset, uint64_t len); /* offset in the mapping */

/* Host address of [gpa, gpa+len), or NULL unless all of it lies within one region of RAM. len may be 0. */
static inline void *mem_hva(const struct mem *m, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < m->n_regions; i++) {
		const struct mem_region *r = &m->region[i];
		uint64_t off = gpa - r->gpa;
		if (gpa >= r->gpa && off < r->size && len <= r->size - off) {
			if (__builtin_expect(m->check != NULL, 0))
				mem_check_range(m, (uint64_t)(r->hva - m->base) + off, len);
			return r->hva + off;
		}
	}
	return NULL;
}

/* Copy out of or into guest RAM. Return 0, or -1 when the range is not all RAM (nothing copied). mem_write notifies. */
int mem_read(const struct mem *m, uint64_t gpa, void *buf, size_t len);
int mem_write(struct mem *m, uint64_t gpa, const void *buf, size_t len);

/* The dirty log: which pages were written since mem_dirty_begin(), which begins anew with all of them clean. Only while no vCPU runs; the
 * accelerator must have been told to report writes (hv_dirty_begin). */
int mem_dirty_begin(struct mem *m, struct cai_error *err);
static inline bool mem_dirty_test(const struct mem *m, uint64_t page)
{
	return atomic_load_explicit(&m->dirty[page / 64], memory_order_relaxed) >> (page % 64) & 1;
}
/* Any thread: the page with this index in the mapping is about to be written or has been. */
static inline void mem_dirty_set(struct mem *m, uint64_t page)
{
	const uint64_t bit = 1ull << (page % 64);
	if (m->dirty && !(atomic_load_explicit(&m->dirty[page / 64], memory_order_relaxed) & bit))
		atomic_fetch_or_explicit(&m->dirty[page / 64], bit, memory_order_relaxed);
}

/* To be called after writing [gpa, gpa+len) through a pointer from mem_hva(). */
void mem_written(struct mem *m, uint64_t gpa, uint64_t len);

/* Gives whole pages back to the host (they read as zero afterwards); the ends are rounded inwards to pages. Notifies. */
int mem_discard(struct mem *m, uint64_t gpa, uint64_t len);

/* Sets the one write listener. Set before any vCPU runs. */
void mem_set_notify(struct mem *m, mem_write_fn *fn, void *ctx);

/* Index of the page at host offset of gpa in the mapping, for dirty logs and code maps; RAM only. */
static inline uint64_t mem_page_index(const struct mem *m, uint64_t gpa)
{
	return (gpa < MEM_HOLE_START ? gpa : gpa - m->region[1].gpa + m->region[0].size) >> MEM_PAGE_SHIFT;
}

#endif
