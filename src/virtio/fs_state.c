/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a shared directory in a snapshot.
 *
 *   36 bytes of tag
 *   u16 requests in flight, each: u8 queue, u16 head, u64 unique, u32 room, u16 segments, each: u64 address, u32 length
 *   parts of the server's state, each: u32 length (not 0), bytes; then a u32 0
 *
 * Requests in flight were drained before, if the server answered; what it did not answer is answered with EIO in the restored guest.
 * The server's state is asked for part by part, and told to the new server when the guest is about to run. A server that cannot say
 * it is no reason to fail: the guest then finds its files unknown, looks them up again, and only those it has open are lost.
 */
#include "virtio/fs_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"

#define WAIT_MS 2000 /* for one answer of the server */

static void save_requests(struct virtio_fs *f, struct buf *out)
{
	unsigned n = 0;
	for (unsigned i = 0; i < VIRTIO_FS_MAX_REQUESTS && f->n_free < VIRTIO_FS_MAX_REQUESTS; i++)
		n += f->request[i].used && !f->request[i].orphan;
	buf_put_u16(out, (uint16_t)n);
	for (unsigned i = 0; n && i < VIRTIO_FS_MAX_REQUESTS; i++) {
		const struct fs_request *r = &f->request[i];
		if (!r->used || r->orphan)
			continue;
		buf_put_u8(out, r->queue);
		buf_put_u16(out, r->head);
		buf_put_u64(out, r->unique);
		buf_put_u32(out, r->room);
		buf_put_u16(out, r->n_segs);
		for (unsigned k = 0; k < r->n_segs; k++) {
			buf_put_u64(out, r->seg[k].gpa);
			buf_put_u32(out, r->seg[k].len);
		}
	}
}

/* Appends the server's parts. False: what was appended is to be taken back. */
static bool save_server(struct virtio_fs *f, struct buf *out)
{
	size_t start = out->len;
	uint64_t at = 0;
	do {
		uint32_t len;
		cleanup_free uint8_t *reply = fs_link_exchange(f, VIRTIO_FS_OP_SAVE, at, NULL, 0, &len, WAIT_MS);
		if (!reply || len < sizeof(at) || out->len - start + len > VIRTIO_FS_MAX_STATE)
			return false;
		uint64_t next = load_le64(reply);
		if (next && next <= at)
			return false;
		at = next;
		if (len > sizeof(at)) {
			buf_put_u32(out, len - (uint32_t)sizeof(at));
			buf_put_bytes(out, reply + sizeof(at), len - sizeof(at));
		}
	} while (at);
	return true;
}

void fs_state_save(struct virtio_dev *d, struct buf *out)
{
	struct virtio_fs *f = container_of(d, struct virtio_fs, dev);
	buf_put_bytes(out, f->config.tag, sizeof(f->config.tag));
	save_requests(f, out);
	size_t start = out->len;
	bool quiet = f->n_free == VIRTIO_FS_MAX_REQUESTS;
	if (f->fd >= 0 && (!quiet || !save_server(f, out))) {
		log_warn("virtio-fs: the server of the shared directory %.36s does not tell its state; a restored guest loses the files it has "
			 "open there", f->config.tag);
		out->len = start;
	}
	buf_put_u32(out, 0);
}

static int load_request(struct virtio_fs *f, struct buf_reader *r, struct cai_error *err)
{
	uint8_t queue = buf_get_u8(r);
	uint16_t head = buf_get_u16(r);
	uint64_t unique = buf_get_u64(r);
	uint32_t room = buf_get_u32(r);
	uint16_t n = buf_get_u16(r);
	uint64_t sum = 0;
	if (r->bad || queue >= FS_QUEUES || !f->dev.q[queue].ready || head >= f->dev.q[queue].size || !n || n > VIRTQ_MAX_SIZE || !f->n_free)
		return cai_fail(err, EINVAL, "a request in flight is none that there can be");
	struct fs_request *q = &f->request[f->free[f->n_free - 1]];
	for (unsigned k = 0; k < n; k++) {
		q->seg[k].gpa = buf_get_u64(r);
		q->seg[k].len = buf_get_u32(r);
		sum += q->seg[k].len;
		if (r->bad || !mem_hva(f->dev.mem, q->seg[k].gpa, q->seg[k].len))
			return cai_fail(err, EINVAL, "a request in flight has buffers outside of memory");
	}
	if (room < sizeof(struct fuse_out_header) || room > sum)
		return cai_fail(err, EINVAL, "a request in flight has no room for a reply");
	f->n_free--;
	q->used = true;
	q->orphan = false;
	q->queue = queue;
	q->head = head;
	q->unique = unique;
	q->room = room;
	q->n_segs = n;
	q->turn++;
	return 0;
}

/* Keeps the parts, each behind its length, until fs_state_resume(). */
static int load_server(struct virtio_fs *f, struct buf_reader *r, struct cai_error *err)
{
	const uint8_t *start = r->p;
	uint64_t total = 0;
	for (uint32_t n; (n = buf_get_u32(r)) && !r->bad;) {
		total += sizeof(n) + n;
		if (n > VIRTIO_FS_MAX_MESSAGE - sizeof(struct fuse_in_header) || total > VIRTIO_FS_MAX_STATE + (64u << 10) || !buf_get_bytes(r, n))
			return cai_fail(err, EINVAL, "the state of its server is too long or cut short");
	}
	if (r->bad)
		return cai_fail(err, EINVAL, "the state of its server is cut short");
	free(f->state);
	f->state_len = (uint32_t)total;
	f->state = total ? malloc(total) : NULL;
	if (total && !f->state)
		return cai_fail(err, ENOMEM, "out of memory");
	if (total)
		memcpy(f->state, start, total);
	return 0;
}

int fs_state_load(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err)
{
	struct virtio_fs *f = container_of(d, struct virtio_fs, dev);
	const char *tag = buf_get_bytes(r, sizeof(f->config.tag));
	if (tag && memcmp(tag, f->config.tag, sizeof(f->config.tag)))
		return cai_fail(err, EINVAL, "it shared another directory (its tag is not \"%.36s\")", (const char *)f->config.tag);
	uint16_t n = buf_get_u16(r);
	if (r->bad || n > VIRTIO_FS_MAX_REQUESTS)
		return cai_fail(err, EINVAL, "it is cut short, or has too many requests in flight");
	for (unsigned i = 0; i < n; i++)
		if (load_request(f, r, err) < 0)
			return -1;
	return load_server(f, r, err);
}

static bool tell_server(struct virtio_fs *f)
{
	for (uint32_t at = 0; at < f->state_len;) {
		uint32_t n = load_le32(f->state + at), len;
		uint64_t how = (at == 0 ? VIRTIO_FS_LOAD_FIRST : 0) | (at + 4 + n == f->state_len ? VIRTIO_FS_LOAD_LAST : 0);
		cleanup_free uint8_t *reply = fs_link_exchange(f, VIRTIO_FS_OP_LOAD, how, f->state + at + 4, n, &len, WAIT_MS);
		if (!reply)
			return false;
		at += 4 + n;
	}
	return true;
}

void fs_state_resume(struct virtio_dev *d)
{
	struct virtio_fs *f = container_of(d, struct virtio_fs, dev);
	fs_fail_all(f, EIO);
	if (f->fd >= 0 && f->state && !tell_server(f))
		log_warn("virtio-fs: the server of the shared directory %.36s does not take the state of the one before", f->config.tag);
	free(f->state);
	f->state = NULL;
	f->state_len = 0;
	f->retry = true;
	fs_settle(f);
}
