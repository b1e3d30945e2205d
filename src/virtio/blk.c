/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A request is a chain: a 16-byte header to read, data to read or write, and one status byte, the last byte of the
 * writable part. How the driver cut this into descriptors does not matter. Data moves between the file and guest RAM
 * directly with preadv and pwritev, on the thread that notified. Whatever a request asks for is checked against the capacity
 * before the file is touched, and whatever fails (a short read included: a file that shrank) is IOERR for that
 * request alone. Only a chain with no room for the header or the status breaks the device.
 *
 * Zeroes are punched or set with fallocate; where a file system has no such call for an attached file, a request is answered
 * "unsupported" (discard is only advice) or the zeroes are written (they are a promise).
 */
#include "virtio/blk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define SECTOR          512u
#define QUEUE_SIZE      128
#define SEG_MAX         126u         /* data segments: the queue's size less header and status */
#define SEG_BYTES       (1u << 20)
#define MAX_DATA        ((uint64_t)SEG_MAX * SEG_BYTES)
#define MAX_DISCARD     65536u       /* sectors (32 MiB) in one discard or write-zeroes segment: bounds the time one takes */
#define MAX_RANGES      16u          /* segments in one discard or write-zeroes request */
#define ZEROES          (64u << 10)
#define NOTIFY_BUDGET   64           /* requests between two looks at who else wants the device */

struct virtio_blk {
	struct virtio_dev dev;
	int fd;              /* -1: empty slot */
	bool readonly;
	uint64_t sectors;
	bool changed;        /* restored from an empty slot: the driver is to be told the new capacity */
	char serial[VIRTIO_BLK_SERIAL_LEN];
	struct virtio_blk_config config;
	struct virtio_blk_stats stats;
	struct virtq_chain chain;       /* the request being served */
	struct iovec iov[VIRTQ_MAX_SIZE];
};

static struct virtio_blk *to_blk(struct virtio_dev *d)
{
	return container_of(d, struct virtio_blk, dev);
}

/* True when [sector, sector + n) lies on the disk. */
static bool on_disk(const struct virtio_blk *b, uint64_t sector, uint64_t n)
{
	return sector <= b->sectors && n <= b->sectors - sector;
}

/* Moves n bytes between the file at off and the chain's data. 0, or -1. */
static int transfer(struct virtio_blk *b, bool to_guest, uint64_t chain_off, uint64_t off, uint64_t n)
{
	while (n) {
		/* At most SEG_MAX MiB at once, below what one call moves (2 GiB). */
		int k = (int)virtq_slice(&b->chain, to_guest, chain_off, n, b->iov);
		ssize_t r = to_guest ? preadv(b->fd, b->iov, k, (off_t)off) : pwritev(b->fd, b->iov, k, (off_t)off);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return -1; /* an error, or the end of a file that was longer when it was attached */
		if (to_guest)
			virtq_written(b->dev.mem, &b->chain, chain_off, (uint64_t)r);
		chain_off += (uint64_t)r;
		off += (uint64_t)r;
		n -= (uint64_t)r;
	}
	return 0;
}

static uint8_t read_write(struct virtio_blk *b, bool is_read, uint64_t sector, uint32_t *written)
{
	uint64_t off = is_read ? 0 : sizeof(struct virtio_blk_outhdr);
	uint64_t n = is_read ? b->chain.in_len - 1 : b->chain.out_len - off;
	if (n % SECTOR || n > MAX_DATA || !on_disk(b, sector, n / SECTOR) || b->fd < 0)
		return VIRTIO_BLK_S_IOERR;
	if (!is_read && b->readonly)
		return VIRTIO_BLK_S_IOERR;
	if (transfer(b, is_read, off, sector * SECTOR, n) < 0)
		return VIRTIO_BLK_S_IOERR;
	if (is_read) {
		*written += (uint32_t)n;
		b->stats.read_bytes += n;
		b->stats.reads++;
	} else {
		b->stats.written_bytes += n;
		b->stats.writes++;
	}
	return VIRTIO_BLK_S_OK;
}

static int write_zeroes(struct virtio_blk *b, uint64_t off, uint64_t n)
{
	static const uint8_t zeroes[ZEROES];
	while (n) {
		ssize_t r = pwrite(b->fd, zeroes, n < ZEROES ? n : ZEROES, (off_t)off);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return -1;
		off += (uint64_t)r;
		n -= (uint64_t)r;
	}
	return 0;
}

static uint8_t one_range(struct virtio_blk *b, bool discard, const struct virtio_blk_discard_write_zeroes *r)
{
	bool unmap = r->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	/* Reserved flags, and unmap on a discard, are to be refused as unsupported (section 5.2.6.2). */
	if ((r->flags & ~(uint32_t)VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) || (discard && unmap))
		return VIRTIO_BLK_S_UNSUPP;
	if (r->num_sectors > MAX_DISCARD || !on_disk(b, r->sector, r->num_sectors))
		return VIRTIO_BLK_S_IOERR;
	if (!r->num_sectors)
		return VIRTIO_BLK_S_OK;
	int mode = FALLOC_FL_KEEP_SIZE | (discard || unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
	uint64_t off = r->sector * SECTOR, n = (uint64_t)r->num_sectors * SECTOR;
	int ret;
	do
		ret = fallocate(b->fd, mode, (off_t)off, (off_t)n);
	while (ret < 0 && errno == EINTR);
	if (ret == 0)
		return VIRTIO_BLK_S_OK;
	if (discard)
		return errno == EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
	return write_zeroes(b, off, n) < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
}

static uint8_t discard_or_zero(struct virtio_blk *b, bool discard)
{
	uint64_t n = b->chain.out_len - sizeof(struct virtio_blk_outhdr);
	unsigned feature = discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES;
	struct virtio_blk_discard_write_zeroes r;
	if (!(b->dev.features & BIT(feature)))
		return VIRTIO_BLK_S_UNSUPP;
	if (b->readonly || b->fd < 0 || !n || n % sizeof(r) || n / sizeof(r) > MAX_RANGES)
		return VIRTIO_BLK_S_IOERR;
	for (uint64_t at = 0; at < n; at += sizeof(r)) {
		virtq_read(&b->chain, sizeof(struct virtio_blk_outhdr) + at, &r, sizeof(r));
		uint8_t s = one_range(b, discard, &r);
		if (s != VIRTIO_BLK_S_OK)
			return s;
	}
	return VIRTIO_BLK_S_OK;
}

static uint8_t get_id(struct virtio_blk *b, uint32_t *written)
{
	uint64_t room = b->chain.in_len - 1;
	size_t n = room < sizeof(b->serial) ? room : sizeof(b->serial);
	virtq_write(b->dev.mem, &b->chain, 0, b->serial, n);
	*written += (uint32_t)n;
	return VIRTIO_BLK_S_OK;
}

static uint8_t flush(struct virtio_blk *b)
{
	if (b->fd < 0)
		return VIRTIO_BLK_S_IOERR;
	if (b->readonly)
		return VIRTIO_BLK_S_OK; /* nothing of ours can be unwritten */
	return fdatasync(b->fd) < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
}

/* Serves the popped chain; returns bytes written to it, or -1 when it has no place for header or status. */
static int64_t serve(struct virtio_blk *b)
{
	struct virtio_blk_outhdr h;
	if (!b->chain.in_len || !virtq_read(&b->chain, 0, &h, sizeof(h)))
		return -1;
	uint32_t written = 1;
	uint8_t status;
	switch (h.type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		status = read_write(b, h.type == VIRTIO_BLK_T_IN, h.sector, &written);
		break;
	case VIRTIO_BLK_T_FLUSH:
		status = flush(b);
		break;
	case VIRTIO_BLK_T_GET_ID:
		status = get_id(b, &written);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		status = discard_or_zero(b, h.type == VIRTIO_BLK_T_DISCARD);
		break;
	default:
		status = VIRTIO_BLK_S_UNSUPP;
	}
	virtq_write(b->dev.mem, &b->chain, b->chain.in_len - 1, &status, 1);
	return written;
}

static bool blk_notify(struct virtio_dev *d, unsigned queue)
{
	struct virtio_blk *b = to_blk(d);
	struct virtq *q = &d->q[queue];
	bool more = true, any = false;

	virtq_disable_notify(q, d->mem);
	for (unsigned n = 0; n < NOTIFY_BUDGET; n++) {
		int r = virtq_pop(q, d->mem, &b->chain);
		if (r == 0) {
			more = virtq_enable_notify(q, d->mem);
			break;
		}
		int64_t written = r < 0 ? -1 : serve(b);
		if (written < 0) {
			virtio_dev_fail(d, "request");
			return false;
		}
		virtq_push(q, d->mem, b->chain.head, (uint32_t)written);
		any = true;
	}
	if (any)
		virtio_dev_used(d, q);
	return more;
}

static void blk_config_read(struct virtio_dev *d, uint32_t off, void *buf, unsigned len)
{
	struct virtio_blk *b = to_blk(d);
	virtio_config_copy(&b->config, sizeof(b->config), off, buf, len);
}

static void blk_save(struct virtio_dev *d, struct buf *out)
{
	buf_put_u64(out, to_blk(d)->sectors);
}

static int blk_load(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err)
{
	struct virtio_blk *b = to_blk(d);
	uint64_t sectors = buf_get_u64(r);
	/* What a driver knows of a disk it goes on believing; only an empty slot may have become one. */
	if (sectors != b->sectors && sectors)
		return cai_fail(err, EINVAL, "its disk had %llu sectors of 512 bytes, the one given now has %llu", (unsigned long long)sectors,
				(unsigned long long)b->sectors);
	b->changed = sectors != b->sectors;
	/* A slot made read-only stays so, whatever is behind it now. */
	b->readonly |= d->features >> VIRTIO_BLK_F_RO & 1;
	return 0;
}

static void blk_resume(struct virtio_dev *d)
{
	struct virtio_blk *b = to_blk(d);
	if (b->changed)
		virtio_dev_config_changed(d);
	b->changed = false;
}

static const struct virtio_dev_ops blk_ops = {
	.name = "blk",
	.device_id = VIRTIO_ID_BLOCK,
	.n_queues = 1,
	.queue_size = {QUEUE_SIZE},
	.config_read = blk_config_read,
	.notify = blk_notify,
	.save = blk_save,
	.load = blk_load,
	.resume = blk_resume,
	/* A discard can be answered "unsupported", zeroes can be written, and a write to a read-only disk fails. */
	.tolerated = BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES) | BIT(VIRTIO_BLK_F_RO),
};

static int size_of(int fd, uint64_t *bytes, bool *is_file, struct cai_error *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot examine a disk");
	*is_file = S_ISREG(st.st_mode);
	if (*is_file) {
		*bytes = (uint64_t)st.st_size;
		return 0;
	}
	if (!S_ISBLK(st.st_mode))
		return cai_fail(err, EINVAL, "a disk must be a regular file or a block device");
	if (ioctl(fd, BLKGETSIZE64, bytes) < 0)
		return cai_fail_errno(err, errno, "cannot tell the size of a block device");
	return 0;
}

/* The descriptor must allow what the disk promises, so that a wrong one is an error now and not IOERR later. */
static int check_mode(int fd, bool readonly, struct cai_error *err)
{
	int fl = fcntl(fd, F_GETFL);
	if (fl < 0)
		return cai_fail_errno(err, errno, "cannot examine a disk");
	int mode = fl & O_ACCMODE;
	if (mode != O_RDWR && (mode != O_RDONLY || !readonly))
		return cai_fail(err, EINVAL, "a %s disk's descriptor is not open for %s", readonly ? "read-only" : "writable",
				readonly ? "reading" : "reading and writing");
	return 0;
}

/* Whether holes can be punched, tried behind the end of the file, where there is nothing to lose. */
static bool can_punch(int fd, uint64_t bytes)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)align_up(bytes, 4096), 4096) == 0;
}

static void set_backing(struct virtio_blk *b, int fd, bool readonly, uint64_t bytes)
{
	b->fd = fd;
	b->readonly = readonly;
	b->sectors = bytes / SECTOR;
	b->config.capacity = b->sectors;
}

struct virtio_blk *virtio_blk_create(struct mem *mem, struct irq_line irq, int fd, bool readonly,
				     const char serial[VIRTIO_BLK_SERIAL_LEN], struct cai_error *err)
{
	uint64_t bytes = 0;
	bool is_file = true;
	if (fd >= 0 && (check_mode(fd, readonly, err) < 0 || size_of(fd, &bytes, &is_file, err) < 0))
		return NULL;
	struct virtio_blk *b = calloc(1, sizeof(*b));
	if (!b) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	uint64_t features = BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
			    BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC);
	if (readonly)
		features |= BIT(VIRTIO_BLK_F_RO);
	else if (fd < 0 || !is_file || can_punch(fd, bytes))
		features |= BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	virtio_dev_init(&b->dev, &blk_ops, features, mem, irq);
	memcpy(b->serial, serial, sizeof(b->serial));
	b->config = (struct virtio_blk_config){
		.size_max = SEG_BYTES,
		.seg_max = SEG_MAX,
		.blk_size = SECTOR,
		.num_queues = 1,
		.max_discard_sectors = MAX_DISCARD,
		.max_discard_seg = MAX_RANGES,
		.discard_sector_alignment = 4096 / SECTOR,
		.max_write_zeroes_sectors = MAX_DISCARD,
		.max_write_zeroes_seg = MAX_RANGES,
		.write_zeroes_may_unmap = 1,
	};
	set_backing(b, fd, readonly, bytes);
	return b;
}

void virtio_blk_destroy(struct virtio_blk *b)
{
	if (!b)
		return;
	if (b->fd >= 0)
		close(b->fd);
	virtio_dev_fini(&b->dev);
	free(b);
}

struct virtio_dev *virtio_blk_dev(struct virtio_blk *b)
{
	return &b->dev;
}

int virtio_blk_attach(struct virtio_blk *b, int fd, bool readonly, struct cai_error *err)
{
	uint64_t bytes;
	bool is_file;
	if (check_mode(fd, readonly, err) < 0 || size_of(fd, &bytes, &is_file, err) < 0)
		return -1;
	virtio_dev_lock(&b->dev);
	int r = 0;
	if (b->fd >= 0)
		r = cai_fail(err, EBUSY, "the disk slot is already in use");
	else if (!readonly && (b->dev.features & BIT(VIRTIO_BLK_F_RO)))
		r = cai_fail(err, EROFS, "the disk slot is read-only");
	if (r == 0) {
		set_backing(b, fd, readonly, bytes);
		virtio_dev_config_changed(&b->dev);
	}
	virtio_dev_unlock(&b->dev);
	return r;
}

uint64_t virtio_blk_bytes(struct virtio_blk *b)
{
	virtio_dev_lock(&b->dev);
	uint64_t n = b->sectors * SECTOR;
	virtio_dev_unlock(&b->dev);
	return n;
}

void virtio_blk_detach(struct virtio_blk *b)
{
	virtio_dev_lock(&b->dev);
	int fd = b->fd;
	set_backing(b, -1, b->dev.features >> VIRTIO_BLK_F_RO & 1, 0);
	virtio_dev_config_changed(&b->dev);
	virtio_dev_unlock(&b->dev);
	if (fd >= 0)
		close(fd);
}

void virtio_blk_get_stats(struct virtio_blk *b, struct virtio_blk_stats *s)
{
	virtio_dev_lock(&b->dev);
	*s = b->stats;
	virtio_dev_unlock(&b->dev);
}
