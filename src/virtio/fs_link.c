/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the connection of a virtio-fs device to its server.
 *
 * Requests go out from guest memory with one sendmsg(). What does not fit into the socket is copied and sent later, because the
 * guest may change its buffers meanwhile and the length at the front must stay true.
 *
 * Replies are read ahead into a small buffer, so that a row of short ones costs one system call. The body of a long one goes on
 * right into the guest's buffers, with what may follow it behind in the small buffer.
 */
#include "virtio/fs_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/util.h"

#define RX_BUDGET 64   /* reads of the socket before the loop gets a turn */
#define MAX_ERRNO 4095

enum fs_sent fs_link_flush(struct virtio_fs *f)
{
	while (f->tail_len) {
		ssize_t r = send(f->fd, f->tail + f->tail_head, f->tail_len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return errno == EAGAIN ? FS_AGAIN : FS_GONE;
		f->tail_head += (uint32_t)r;
		f->tail_len -= (uint32_t)r;
	}
	return FS_SENT;
}

/* Keeps what follows the first `done` bytes of iov. */
static void keep(struct virtio_fs *f, const struct iovec *iov, unsigned n, size_t done)
{
	f->tail_head = f->tail_len = 0;
	for (unsigned i = 0; i < n; i++) {
		if (done >= iov[i].iov_len) {
			done -= iov[i].iov_len;
			continue;
		}
		size_t k = iov[i].iov_len - done;
		memcpy(f->tail + f->tail_len, (const uint8_t *)iov[i].iov_base + done, k);
		f->tail_len += (uint32_t)k;
		done = 0;
	}
}

enum fs_sent fs_link_send(struct virtio_fs *f, struct iovec *iov, unsigned n, uint32_t total)
{
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
	enum fs_sent s = fs_link_flush(f);
	if (s != FS_SENT)
		return s;
	if (!f->tail && !(f->tail = malloc(VIRTIO_FS_MAX_MESSAGE)))
		return FS_AGAIN;
	ssize_t r;
	do
		r = sendmsg(f->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? FS_AGAIN : FS_GONE;
	if ((size_t)r < total)
		keep(f, iov, n, (size_t)r);
	return FS_SENT;
}

/* Takes the header at the front of the buffer. False when the server makes no sense. */
static bool begin_reply(struct virtio_fs *f)
{
	struct fuse_out_header h;
	memcpy(&h, f->in + f->in_head, sizeof(h));
	struct fs_request *r = fs_find(f, h.unique);
	if (!r || h.len < sizeof(h) || h.len > r->room || h.error > 0 || h.error < -MAX_ERRNO || (h.error && h.len != sizeof(h))) {
		log_warn("virtio-fs: the server sent a reply that makes no sense");
		return false;
	}
	f->in_head += (uint32_t)sizeof(h);
	f->in_len -= (uint32_t)sizeof(h);
	h.unique = r->unique;
	if (!r->orphan)
		fs_copy_in(f, r, 0, &h, sizeof(h));
	f->current = r;
	f->body_done = sizeof(h);
	f->body_len = h.len;
	f->error = h.error;
	return true;
}

static void count(struct virtio_fs *f, const struct fs_request *r, uint32_t len)
{
	if (f->error || r->orphan)
		return;
	if (r->opcode == FUSE_READ)
		f->stats.read_bytes += len - sizeof(struct fuse_out_header);
	else if (r->opcode == FUSE_WRITE)
		f->stats.written_bytes += r->payload;
}

/* Works off what is in the buffer. False when the connection makes no sense. */
static bool digest(struct virtio_fs *f)
{
	for (;;) {
		if (!f->current) {
			if (f->in_len < sizeof(struct fuse_out_header))
				return true;
			if (!begin_reply(f))
				return false;
		}
		uint32_t left = f->body_len - f->body_done, k = left < f->in_len ? left : f->in_len;
		if (k && !f->current->orphan)
			fs_copy_in(f, f->current, f->body_done, f->in + f->in_head, k);
		f->body_done += k;
		f->in_head += k;
		f->in_len -= k;
		if (f->body_done < f->body_len)
			return true;
		struct fs_request *r = f->current;
		f->current = NULL;
		count(f, r, f->body_len);
		fs_finish(f, r, f->body_len);
	}
}

/* One read of the socket: what is left of a body goes where it belongs. Bytes, 0 at the end, or -1. */
static ssize_t read_some(struct virtio_fs *f)
{
	if (f->in_len && f->in_head)
		memmove(f->in, f->in + f->in_head, f->in_len);
	f->in_head = 0;
	uint32_t left = f->current && !f->current->orphan ? f->body_len - f->body_done : 0;
	unsigned n = left ? fs_slice(f, f->current, f->body_done, left, f->iov) : 0;
	f->iov[n++] = (struct iovec){.iov_base = f->in + f->in_len, .iov_len = sizeof(f->in) - f->in_len};
	struct msghdr m = {.msg_iov = f->iov, .msg_iovlen = n};
	ssize_t r;
	do
		r = recvmsg(f->fd, &m, MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	if (r <= 0)
		return r;
	uint32_t direct = (uint64_t)r < left ? (uint32_t)r : left;
	if (direct)
		fs_written(f, f->current, f->body_done, direct);
	f->body_done += direct;
	f->in_len += (uint32_t)r - direct;
	return r;
}

bool fs_link_receive(struct virtio_fs *f)
{
	for (unsigned i = 0; i < RX_BUDGET; i++) {
		ssize_t r = read_some(f);
		if (r < 0 && errno == EAGAIN)
			return false;
		if (r <= 0 || !digest(f)) {
			f->gone = true;
			return false;
		}
	}
	return true;
}

static int remaining(uint64_t end)
{
	uint64_t now = clock_mono_ns();
	return now >= end ? 0 : (int)((end - now) / 1000000) + 1;
}

/* All n bytes one way or the other before `end`; false when that is not possible. */
static bool transfer(int fd, uint8_t *p, size_t n, bool out, uint64_t end)
{
	while (n) {
		ssize_t r = out ? send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(fd, p, n, MSG_DONTWAIT);
		if (r > 0) {
			p += r;
			n -= (size_t)r;
			continue;
		}
		struct pollfd pf = {.fd = fd, .events = out ? POLLOUT : POLLIN};
		if (r == 0 || (errno != EAGAIN && errno != EINTR) || poll(&pf, 1, remaining(end)) == 0)
			return false;
	}
	return true;
}

uint8_t *fs_link_exchange(struct virtio_fs *f, uint32_t opcode, uint64_t nodeid, const void *body, uint32_t n, uint32_t *len, unsigned ms)
{
	struct fuse_in_header in = {.len = (uint32_t)sizeof(in) + n, .opcode = opcode, .nodeid = nodeid, .unique = 1};
	struct fuse_out_header out;
	uint64_t end = clock_mono_ns() + (uint64_t)ms * 1000000;
	uint8_t *reply = NULL;
	bool ok = f->fd >= 0 && !f->gone && !f->current && !f->in_len && !f->tail_len && n <= VIRTIO_FS_MAX_MESSAGE - sizeof(in) &&
		  transfer(f->fd, (uint8_t *)&in, sizeof(in), true, end) &&
		  transfer(f->fd, (uint8_t *)(uintptr_t)body, n, true, end) && transfer(f->fd, (uint8_t *)&out, sizeof(out), false, end);
	if (ok && out.unique == 1 && out.len >= sizeof(out) && out.len <= VIRTIO_FS_MAX_MESSAGE && (!out.error || out.len == sizeof(out))) {
		*len = out.len - (uint32_t)sizeof(out);
		reply = malloc(*len + 1);
		if (reply && transfer(f->fd, reply, *len, false, end)) {
			if (!out.error)
				return reply;
			free(reply);
			return NULL;
		}
	}
	free(reply);
	/* What half an exchange leaves behind would be taken for something else. */
	if (f->fd >= 0)
		f->gone = true;
	return NULL;
}
