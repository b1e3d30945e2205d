/* SPDX-License-Identifier: Apache-2.0 */
#include "mem/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <fcntl.h>

#include "base/util.h"

/* The kernel allows a process some 65,000 mappings. A range given back in a private mapping may split one in three. */
#define MAX_HOLES 16384u

/* Sets n bits from the first on. */
static void set_bits(_Atomic uint64_t *map, uint64_t first, uint64_t n)
{
	while (n) {
		uint64_t bit = first % 64, k = n < 64 - bit ? n : 64 - bit;
		atomic_fetch_or_explicit(&map[first / 64], (k == 64 ? ~0ull : BIT(k) - 1) << bit, memory_order_relaxed);
		first += k;
		n -= k;
	}
}

static size_t bitmap_words(uint64_t size)
{
	return ((size >> MEM_PAGE_SHIFT) + 63) / 64;
}

static int check_size(uint64_t size, struct cai_error *err)
{
	if (size < MEM_MIN_BYTES || size > MEM_MAX_BYTES || size % MEM_PAGE_SIZE)
		return cai_fail(err, EINVAL, "guest memory must be between %llu MiB and %llu GiB", MEM_MIN_BYTES >> 20,
				MEM_MAX_BYTES >> 30);
	return 0;
}

static void make_regions(struct mem *m, uint64_t size)
{
	m->size = size;
	uint64_t low = size < MEM_HOLE_START ? size : MEM_HOLE_START;
	m->region[0] = (struct mem_region){.gpa = 0, .size = low, .hva = m->base};
	m->n_regions = 1;
	if (size > low) {
		m->region[1] = (struct mem_region){.gpa = MEM_HOLE_END, .size = size - low, .hva = m->base + low};
		m->n_regions = 2;
	}
}

int mem_create(struct mem *m, uint64_t size, struct cai_error *err)
{
	*m = (struct mem){.fd = -1};
	if (check_size(size, err) < 0)
		return -1;
	m->fd = memfd_create("guest-ram", MFD_CLOEXEC);
	if (m->fd < 0)
		return cai_fail_errno(err, errno, "cannot create guest memory");
	if (ftruncate(m->fd, (off_t)size) < 0) {
		int e = errno;
		close(m->fd);
		return cai_fail_errno(err, e, "cannot size guest memory to %llu MiB", (unsigned long long)size >> 20);
	}
	m->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
	if (m->base == MAP_FAILED) {
		int e = errno;
		close(m->fd);
		m->base = NULL;
		m->fd = -1;
		return cai_fail_errno(err, e, "cannot map %llu MiB of guest memory", (unsigned long long)size >> 20);
	}
	make_regions(m, size);
	return 0;
}

int mem_create_private(struct mem *m, uint64_t size, const struct mem_part *parts, unsigned n, struct cai_error *err)
{
	*m = (struct mem){.fd = -1};
	if (check_size(size, err) < 0)
		return -1;
	const int prot = PROT_READ | PROT_WRITE;
	m->base = mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->base == MAP_FAILED) {
		m->base = NULL;
		return cai_fail_errno(err, errno, "cannot map %llu MiB of guest memory", (unsigned long long)size >> 20);
	}
	make_regions(m, size);
	m->filed = calloc(bitmap_words(size), sizeof(*m->filed));
	if (!m->filed) {
		mem_destroy(m);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	for (unsigned i = 0; i < n; i++) {
		const struct mem_part *p = &parts[i];
		if (!p->size || (p->offset | p->size) % MEM_PAGE_SIZE || p->offset > size || p->size > size - p->offset) {
			mem_destroy(m);
			return cai_fail(err, EINVAL, "a part of guest memory lies outside of it");
		}
		if (mmap(m->base + p->offset, p->size, prot, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, p->fd, (off_t)p->offset) == MAP_FAILED) {
			int e = errno;
			mem_destroy(m);
			return cai_fail_errno(err, e, "cannot map a file as guest memory");
		}
		set_bits(m->filed, p->offset >> MEM_PAGE_SHIFT, p->size >> MEM_PAGE_SHIFT);
	}
	return 0;
}

void mem_destroy(struct mem *m)
{
	free((void *)m->dirty);
	free((void *)m->filed);
	mem_check_end(m);
	if (m->base)
		munmap(m->base, m->size);
	if (m->fd >= 0)
		close(m->fd);
	*m = (struct mem){.fd = -1};
}

int mem_read(const struct mem *m, uint64_t gpa, void *buf, size_t len)
{
	const void *p = mem_hva(m, gpa, len);
	if (!p)
		return -1;
	memcpy(buf, p, len);
	return 0;
}

int mem_write(struct mem *m, uint64_t gpa, const void *buf, size_t len)
{
	void *p = mem_hva(m, gpa, len);
	if (!p)
		return -1;
	memcpy(p, buf, len);
	mem_written(m, gpa, len);
	return 0;
}

void mem_written(struct mem *m, uint64_t gpa, uint64_t len)
{
	if (!len)
		return;
	if (m->dirty) {
		uint64_t last = mem_page_index(m, gpa + len - 1);
		for (uint64_t p = mem_page_index(m, gpa); p <= last; p++)
			mem_dirty_set(m, p);
	}
	if (m->notify)
		m->notify(m->notify_ctx, gpa, len);
}

/* True when any page of [first, first + n) is still a file's; all are marked as no file's. */
static bool take_filed(struct mem *m, uint64_t first, uint64_t n)
{
	uint64_t any = 0;
	while (n) {
		uint64_t bit = first % 64, k = n < 64 - bit ? n : 64 - bit;
		uint64_t mask = (k == 64 ? ~0ull : BIT(k) - 1) << bit;
		if (atomic_load_explicit(&m->filed[first / 64], memory_order_relaxed) & mask)
			any |= atomic_fetch_and(&m->filed[first / 64], ~mask) & mask;
		first += k;
		n -= k;
	}
	return any;
}

/* A file's old content must not come back, so its mapping is replaced by one that reads as zero and costs nothing. Another thread that
 * touches the range meanwhile waits for the kernel's lock and sees either the old or the new. */
static int discard_private(struct mem *m, uint8_t *p, uint64_t len)
{
	if (!take_filed(m, (uint64_t)(p - m->base) >> MEM_PAGE_SHIFT, len >> MEM_PAGE_SHIFT))
		return madvise(p, len, MADV_DONTNEED);
	if (atomic_fetch_add_explicit(&m->n_holes, 1, memory_order_relaxed) < MAX_HOLES &&
	    mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED)
		return 0;
	/* Still the file's as far as the kernel is concerned; these copies stay until the end. */
	set_bits(m->filed, (uint64_t)(p - m->base) >> MEM_PAGE_SHIFT, len >> MEM_PAGE_SHIFT);
	memset(p, 0, len);
	return 0;
}

int mem_discard(struct mem *m, uint64_t gpa, uint64_t len)
{
	uint8_t *p = mem_hva(m, gpa, len);
	if (!p)
		return -1;
	uint64_t from = align_up(gpa, MEM_PAGE_SIZE), to = align_down(gpa + len, MEM_PAGE_SIZE);
	if (from >= to)
		return 0;
	if (m->fd < 0) {
		if (discard_private(m, p + (from - gpa), to - from) < 0)
			return -1;
	} else if (madvise(p + (from - gpa), to - from, MADV_REMOVE) < 0) {
		/* MADV_REMOVE frees the memfd's pages themselves; MADV_DONTNEED would only unmap them here. */
		return -1;
	}
	mem_written(m, from, to - from);
	return 0;
}

int mem_dirty_begin(struct mem *m, struct cai_error *err)
{
	const size_t words = bitmap_words(m->size);
	if (!m->dirty) {
		m->dirty = calloc(words, sizeof(*m->dirty));
		if (!m->dirty)
			return cai_fail(err, ENOMEM, "out of memory for the dirty log");
		return 0;
	}
	for (size_t i = 0; i < words; i++)
		atomic_store_explicit(&m->dirty[i], 0, memory_order_relaxed);
	return 0;
}

void mem_set_notify(struct mem *m, mem_write_fn *fn, void *ctx)
{
	m->notify = fn;
	m->notify_ctx = ctx;
}
