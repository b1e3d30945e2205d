/* SPDX-License-Identifier: Apache-2.0 */
#include "mem/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <fcntl.h>

#include "base/util.h"

int mem_create(struct mem *m, uint64_t size, struct cai_error *err)
{
	*m = (struct mem){.fd = -1};
	if (size < MEM_MIN_BYTES || size > MEM_MAX_BYTES || size % MEM_PAGE_SIZE)
		return cai_fail(err, EINVAL, "guest memory must be between %llu MiB and %llu GiB", MEM_MIN_BYTES >> 20,
				MEM_MAX_BYTES >> 30);
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
	m->size = size;
	uint64_t low = size < MEM_HOLE_START ? size : MEM_HOLE_START;
	m->region[0] = (struct mem_region){.gpa = 0, .size = low, .hva = m->base};
	m->n_regions = 1;
	if (size > low) {
		m->region[1] = (struct mem_region){.gpa = MEM_HOLE_END, .size = size - low, .hva = m->base + low};
		m->n_regions = 2;
	}
	return 0;
}

void mem_destroy(struct mem *m)
{
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
			atomic_fetch_or_explicit(&m->dirty[p / 64], BIT(p % 64), memory_order_relaxed);
	}
	if (m->notify)
		m->notify(m->notify_ctx, gpa, len);
}

int mem_discard(struct mem *m, uint64_t gpa, uint64_t len)
{
	uint8_t *p = mem_hva(m, gpa, len);
	if (!p)
		return -1;
	uint64_t from = align_up(gpa, MEM_PAGE_SIZE), to = align_down(gpa + len, MEM_PAGE_SIZE);
	if (from >= to)
		return 0;
	/* MADV_REMOVE frees the memfd's pages themselves; MADV_DONTNEED would only unmap them here. */
	if (madvise(p + (from - gpa), to - from, MADV_REMOVE) < 0)
		return -1;
	mem_written(m, from, to - from);
	return 0;
}

void mem_set_notify(struct mem *m, mem_write_fn *fn, void *ctx)
{
	m->notify = fn;
	m->notify_ctx = ctx;
}
