/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile guest against virtio-blk. The disk must never grow, and never change while it is read-only. */
#include "fuzz.h"
#include "fuzz_virtio.h"

#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/blk.h"

#define DISK_BYTES 65636 /* 128 sectors and a bit */
#define MARK       0x5a

struct disk {
	struct virtio_blk *b;
	int fd;        /* the target's own */
	bool writable; /* was at some time */
};

static void must(bool ok)
{
	if (!ok)
		abort();
}

static struct virtio_dev *create(struct fv *f)
{
	struct disk *k = calloc(1, sizeof(*k));
	must(k != NULL);
	k->fd = memfd_create("disk", MFD_CLOEXEC);
	must(k->fd >= 0 && ftruncate(k->fd, DISK_BYTES) == 0);
	uint8_t mark = MARK;
	must(pwrite(k->fd, &mark, 1, 1000) == 1);
	uint8_t how = fv_u8(f);
	bool readonly = how & 1;
	k->writable = !readonly;
	k->b = virtio_blk_create(&f->mem, (struct irq_line){0}, how & 2 ? -1 : dup(k->fd), readonly, "0123456789abcdefghi", NULL);
	must(k->b != NULL);
	f->device = k;
	return virtio_blk_dev(k->b);
}

static void destroy(struct fv *f)
{
	struct disk *k = f->device;
	struct stat st;
	uint8_t mark;
	must(fstat(k->fd, &st) == 0 && st.st_size == DISK_BYTES);
	must(pread(k->fd, &mark, 1, 1000) == 1 && (k->writable || mark == MARK));
	virtio_blk_destroy(k->b);
	close(k->fd);
	free(k);
}

static void extra(struct fv *f, uint8_t op)
{
	struct disk *k = f->device;
	if ((op & 0xf0) == 0xf0) {
		int fd = dup(k->fd);
		if (virtio_blk_attach(k->b, fd, true, NULL) < 0)
			close(fd);
		return;
	}
	if ((op & 0xf0) == 0xe0) {
		virtio_blk_detach(k->b);
		return;
	}
	/* a request with a good header and status around whatever the input has for data */
	struct virtio_blk_outhdr h = {.type = fv_u8(f), .sector = op & 0x10 ? fv_u16(f) : fv_u8(f)};
	if (op & 0x20)
		h.sector = 0 - h.sector;
	struct fv_seg seg[18];
	mem_write(&f->mem, 0x1f000, &h, sizeof(h));
	seg[0] = (struct fv_seg){0x1f000, sizeof(h), false};
	unsigned n = 1 + fv_segments(f, seg + 1, 16);
	if (op & 0x40) /* whole sectors */
		for (unsigned i = 1; i < n; i++)
			seg[i].len &= ~511u;
	seg[n++] = (struct fv_seg){0x1f800, 1, true};
	fv_chain(f, 0, seg, n);
	fv_notify(f, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fv_run(&(struct fv_target){create, destroy, extra}, data, size);
}
