/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory into a snapshot's memory file.
 *
 * Theory of operation: the file is a sparse image of RAM, each page at its own offset, so that a restore can map it as it is. Memory is
 * looked at by chunks of 64 KiB. First it is decided, for each chunk, where a reader will find it: in a memory file that is there
 * already, in the one being written, or nowhere (it is zero). Then runs of chunks that lie in the same file become extents, of which each
 * is one mapping at restore; small gaps between runs are closed, or fragmented memory would make thousands of them. Only then is anything written, and of
 * the chunks only pages that are not zero.
 *
 * A full snapshot looks at every chunk that may hold something: of a memfd the kernel says which; of private mappings those are the extents it
 * was restored from and what was written since. An incremental one looks at what was written since its parent and takes the rest of
 * the index from there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/util.h"
#include "vmm/snapshot.h"

#define NOWHERE    0xff /* as a chunk's layer */
#define MAPS_FULL  48u  /* extents that a full snapshot aims at: each costs a restore a microsecond or two */
#define MAPS_CHAIN 1024u
#define WRITE_MAX  MIB(1)

#define CHUNK_PAGES (SNAPSHOT_CHUNK / MEM_PAGE_SIZE)

struct plan {
	struct machine *m;
	int fd;
	uint8_t self;      /* our layer */
	uint64_t chunks;
	uint8_t *layer;    /* of each chunk */
	uint32_t *crc;
};

static uint64_t chunk_bytes(const struct plan *p, uint64_t c)
{
	const uint64_t left = p->m->mem.size - c * SNAPSHOT_CHUNK;
	return left < SNAPSHOT_CHUNK ? left : SNAPSHOT_CHUNK;
}

static const uint8_t *chunk_at(const struct plan *p, uint64_t c)
{
	return p->m->mem.base + c * SNAPSHOT_CHUNK;
}

static bool is_zero(const uint8_t *p, uint64_t n)
{
	const uint64_t *w = (const uint64_t *)p;
	for (uint64_t i = 0; i < n / 8; i += 8)
		if (w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7])
			return false;
	return true;
}

/* The chunk goes into our file, unless it is zero. */
static void take(struct plan *p, uint64_t c)
{
	p->layer[c] = is_zero(chunk_at(p, c), chunk_bytes(p, c)) ? NOWHERE : p->self;
}

static bool is_dirty(const struct plan *p, uint64_t c)
{
	/* The sixteen pages of a chunk lie in one word of the log. */
	_Static_assert(64 % CHUNK_PAGES == 0, "a chunk's pages are in one word");
	const uint64_t page = c * CHUNK_PAGES;
	return p->m->mem.dirty &&
	       (atomic_load_explicit(&p->m->mem.dirty[page / 64], memory_order_relaxed) >> (page % 64) & (BIT(CHUNK_PAGES) - 1));
}

/* What the kernel holds of a memfd: holes are not touched, which would fill them. */
static int take_memfd(struct plan *p, struct cai_error *err)
{
	const struct mem *m = &p->m->mem;
	for (off_t at = 0; (uint64_t)at < m->size;) {
		off_t data = lseek(m->fd, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break;
		off_t hole = data < 0 ? -1 : lseek(m->fd, data, SEEK_HOLE);
		if (hole < 0)
			return cai_fail_errno(err, errno, "cannot tell which guest memory is in use");
		for (uint64_t c = (uint64_t)data / SNAPSHOT_CHUNK; c * SNAPSHOT_CHUNK < (uint64_t)hole; c++)
			take(p, c);
		at = hole;
	}
	return 0;
}

static void take_dirty(struct plan *p)
{
	for (uint64_t c = 0; c < p->chunks; c++)
		if (is_dirty(p, c))
			take(p, c);
}

/* Every chunk that a saved index knows keeps its place and checksum. */
static void inherit(struct plan *p, const struct snapshot_memory *parent, bool as_ours)
{
	uint32_t k = 0;
	for (uint32_t i = 0; i < parent->n_extents; i++) {
		const struct snapshot_extent *e = &parent->extent[i];
		for (uint64_t c = e->first; c < (uint64_t)e->first + e->n; c++, k++) {
			if (as_ours) {
				take(p, c);
			} else {
				p->layer[c] = (uint8_t)e->layer;
				p->crc[c] = parent->crc[k];
			}
		}
	}
}

static unsigned count_extents(const struct plan *p)
{
	unsigned n = 0;
	for (uint64_t c = 0; c < p->chunks; c++)
		n += p->layer[c] != NOWHERE && (!c || p->layer[c - 1] != p->layer[c]);
	return n;
}

/* Takes into our file what lies between two runs of it that are at most `gap` chunks apart. */
static void close_gaps(struct plan *p, uint64_t gap)
{
	uint64_t last = UINT64_MAX;
	for (uint64_t c = 0; c < p->chunks; c++) {
		if (p->layer[c] != p->self)
			continue;
		if (last != UINT64_MAX && c - last > 1 && c - last - 1 <= gap)
			memset(p->layer + last + 1, p->self, c - last - 1);
		last = c;
	}
}

/* Chunks of our file: checksums, and pages that are not zero to the file, in long writes. */
static int write_ours(struct plan *p, struct cai_error *err)
{
	const uint8_t *const base = p->m->mem.base;
	uint64_t from = 0, to = 0; /* bytes waiting to be written */
	for (uint64_t c = 0; c < p->chunks; c++) {
		if (p->layer[c] != p->self)
			continue;
		const uint64_t at = c * SNAPSHOT_CHUNK, end = at + chunk_bytes(p, c);
		/* What is damaged must not be given a new checksum unnoticed. */
		if (p->m->mem.check)
			mem_check_range(&p->m->mem, at, end - at);
		p->crc[c] = crc32c(0, base + at, end - at);
		for (uint64_t page = at; page < end; page += MEM_PAGE_SIZE) {
			if (is_zero(base + page, MEM_PAGE_SIZE))
				continue;
			if (page != to || to - from >= WRITE_MAX) {
				if (snapshot_write_at(p->fd, base + from, to - from, from, "memory", err) < 0)
					return -1;
				from = page;
			}
			to = page + MEM_PAGE_SIZE;
		}
	}
	return snapshot_write_at(p->fd, base + from, to - from, from, "memory", err);
}

/* Lists the runs; layers that nothing is in any more are left out, but for ours. */
static int make_index(const struct plan *p, const struct snapshot_memory *parent, const uint8_t *id, struct snapshot_memory *index,
		      struct cai_error *err)
{
	uint8_t number[SNAPSHOT_MAX_LAYERS + 1];
	uint64_t n_chunks = 0;
	memset(number, NOWHERE, sizeof(number));
	index->n_extents = count_extents(p);
	if (index->n_extents > SNAPSHOT_MAX_EXTENTS)
		return cai_fail(err, E2BIG, "the guest's memory is too fragmented for an incremental snapshot: take a full one");
	for (uint64_t c = 0; c < p->chunks; c++)
		if (p->layer[c] != NOWHERE) {
			number[p->layer[c]] = 0;
			n_chunks++;
		}
	for (unsigned i = 0; i < p->self; i++) {
		if (number[i] == NOWHERE)
			continue;
		if (index->n_layers == SNAPSHOT_MAX_LAYERS - 1)
			return cai_fail(err, E2BIG, "an incremental snapshot can build on at most %d others: take a full one", SNAPSHOT_MAX_LAYERS - 1);
		number[i] = (uint8_t)index->n_layers;
		memcpy(index->layer[index->n_layers++], parent->layer[i], SNAPSHOT_ID_BYTES);
	}
	number[p->self] = (uint8_t)index->n_layers;
	memcpy(index->layer[index->n_layers++], id, SNAPSHOT_ID_BYTES);
	index->extent = calloc(index->n_extents + 1, sizeof(*index->extent));
	index->crc = calloc(n_chunks + 1, sizeof(*index->crc));
	if (!index->extent || !index->crc)
		return cai_fail(err, ENOMEM, "out of memory for the memory index");
	struct snapshot_extent *e = index->extent - 1;
	for (uint64_t c = 0; c < p->chunks; c++) {
		if (p->layer[c] == NOWHERE)
			continue;
		if (!c || p->layer[c - 1] != p->layer[c])
			*++e = (struct snapshot_extent){.first = (uint32_t)c, .layer = number[p->layer[c]]};
		e->n++;
		index->crc[index->n_chunks++] = p->crc[c];
	}
	return 0;
}

int snapshot_write_memory(struct machine *m, const struct snapshot_memory *parent, const uint8_t id[SNAPSHOT_ID_BYTES], int fd,
			  struct snapshot_memory *index, struct cai_error *err)
{
	struct plan p = {
		.m = m,
		.fd = fd,
		.self = parent ? (uint8_t)parent->n_layers : 0,
		.chunks = (m->mem.size + SNAPSHOT_CHUNK - 1) / SNAPSHOT_CHUNK,
	};
	*index = (struct snapshot_memory){0};
	cleanup_free uint8_t *layer = malloc(p.chunks);
	cleanup_free uint32_t *crc = calloc(p.chunks, sizeof(*crc));
	if (!layer || !crc)
		return cai_fail(err, ENOMEM, "out of memory for the memory index");
	memset(layer, NOWHERE, p.chunks);
	p.layer = layer;
	p.crc = crc;
	if (parent) {
		inherit(&p, parent, false);
		take_dirty(&p);
	} else if (m->mem.fd >= 0) {
		if (take_memfd(&p, err) < 0)
			return -1;
	} else {
		inherit(&p, &m->last, true);
		take_dirty(&p);
	}
	for (uint64_t gap = 1; count_extents(&p) > (parent ? MAPS_CHAIN : MAPS_FULL) && gap < p.chunks; gap *= 2)
		close_gaps(&p, gap);
	if (ftruncate(fd, (off_t)m->mem.size) < 0)
		return cai_fail_errno(err, errno, "cannot size the snapshot's memory file");
	if (write_ours(&p, err) < 0 || make_index(&p, parent, id, index, err) < 0) {
		snapshot_memory_free(index);
		return -1;
	}
	return 0;
}
