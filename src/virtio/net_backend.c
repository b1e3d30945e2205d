/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: tap and sockets.
 *
 * A tap and a datagram socket keep frames apart themselves, so they read and write guest memory directly. A stream does not:
 * it is read ahead into a buffer, many frames a call, from which frames are copied out; a frame that was written in part is
 * finished from a copy, since the guest may change its buffers meanwhile and the length in front of the frame must stay true.
 *
 * The other end is trusted less than the host's kernel: a length that no frame has ends a stream.
 */
#include "virtio/net_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"

static ssize_t outcome(int e)
{
	switch (e) {
	case EAGAIN:
		return NET_AGAIN;
	case EBADFD:      /* the tap was deleted */
	case EBADF:
	case ENOTCONN:
	case ECONNREFUSED:
	case ECONNRESET:
	case EPIPE:
		return NET_GONE;
	default:
		return NET_DROP; /* no memory, too long, interface down, ... */
	}
}

static int tap_check(int fd, struct cai_error *err)
{
	/* What is not a socket is taken for a tap: nothing tells them apart without an ioctl, and read and write fail cleanly. */
	if (recv(fd, NULL, 0, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == ENOTSOCK)
		return 0;
	return cai_fail(err, EINVAL, "the descriptor for the network is not a tap device");
}

static ssize_t tap_read(struct net_port *p, const struct iovec *iov, unsigned n)
{
	ssize_t r;
	do
		r = readv(p->fd, iov, (int)n);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno != EAGAIN && errno != EFAULT)
		return NET_GONE; /* nothing was taken, so it would only fail again */
	return r < 0 ? outcome(errno) : r ? r : NET_GONE;
}

static ssize_t tap_write(struct net_port *p, struct iovec *iov, unsigned n, uint32_t len)
{
	ssize_t r;
	do
		r = writev(p->fd, iov, (int)n);
	while (r < 0 && errno == EINTR);
	return r < 0 ? outcome(errno) : 0;
}

static int socket_check(int fd, struct cai_error *err)
{
	struct msghdr m = {0};
	/* Looking at nothing tells a socket from anything else, with a call that the jail allows. */
	if (recvmsg(fd, &m, MSG_PEEK | MSG_DONTWAIT) < 0 && errno != EAGAIN)
		return cai_fail_errno(err, errno, "the network needs a connected socket");
	return 0;
}

static ssize_t dgram_read_iov(struct net_port *p, const struct iovec *iov, unsigned n)
{
	struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n};
	ssize_t r;
	do
		r = recvmsg(p->fd, &m, MSG_DONTWAIT | MSG_TRUNC);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno != EAGAIN && errno != EFAULT)
		return NET_GONE;
	/* An empty message, or the end of a SOCK_SEQPACKET: if so, epoll says that it hung up. */
	return r < 0 ? outcome(errno) : r ? r : NET_DROP;
}

static ssize_t dgram_write_iov(struct net_port *p, struct iovec *iov, unsigned n)
{
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
	ssize_t r;
	do
		r = sendmsg(p->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	return r < 0 ? outcome(errno) : 0;
}

static ssize_t dgram_read(struct net_port *p, const struct iovec *iov, unsigned n)
{
	ssize_t r = dgram_read_iov(p, iov + 1, n - 1);
	return r > 0 ? r + (ssize_t)NET_HDR : r;
}

static ssize_t dgram_write(struct net_port *p, struct iovec *iov, unsigned n, uint32_t len)
{
	return dgram_write_iov(p, iov + 1, n - 1);
}

static ssize_t dgram_hdr_read(struct net_port *p, const struct iovec *iov, unsigned n)
{
	return dgram_read_iov(p, iov, n);
}

static ssize_t dgram_hdr_write(struct net_port *p, struct iovec *iov, unsigned n, uint32_t len)
{
	return dgram_write_iov(p, iov, n);
}

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* Makes the first frame in p->in whole. Its length, or NET_*. */
static ssize_t stream_frame(struct net_port *p)
{
	if (!p->in && !(p->in = malloc(NET_STREAM_IN)))
		return NET_GONE;
	for (;;) {
		if (p->in_len >= NET_STREAM_PREFIX) {
			uint32_t len = get_be32(p->in + p->in_head);
			if (len < NET_MIN_FRAME || len > VIRTIO_NET_MAX_FRAME)
				return NET_GONE;
			if (p->in_len - NET_STREAM_PREFIX >= len)
				return len;
		}
		/* Less than one frame is left: there is room for the rest of it behind, or there will be after the move. */
		if (p->in_head) {
			memmove(p->in, p->in + p->in_head, p->in_len);
			p->in_head = 0;
		}
		ssize_t r = recv(p->fd, p->in + p->in_len, NET_STREAM_IN - p->in_len, MSG_DONTWAIT);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 && errno == EAGAIN ? NET_AGAIN : NET_GONE;
		p->in_len += (uint32_t)r;
	}
}

static ssize_t stream_read(struct net_port *p, const struct iovec *iov, unsigned n)
{
	ssize_t len = stream_frame(p);
	if (len < 0)
		return len;
	const uint8_t *from = p->in + p->in_head + NET_STREAM_PREFIX;
	size_t left = (size_t)len;
	for (unsigned i = 1; i < n && left; i++) {
		size_t k = iov[i].iov_len < left ? iov[i].iov_len : left;
		memcpy(iov[i].iov_base, from, k);
		from += k;
		left -= k;
	}
	p->in_head += NET_STREAM_PREFIX + (uint32_t)len;
	p->in_len -= NET_STREAM_PREFIX + (uint32_t)len;
	return len + (ssize_t)NET_HDR;
}

ssize_t net_stream_flush(struct net_port *p)
{
	while (p->tail_len) {
		ssize_t r = send(p->fd, p->tail + p->tail_head, p->tail_len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return errno == EAGAIN ? NET_AGAIN : NET_GONE;
		p->tail_head += (uint32_t)r;
		p->tail_len -= (uint32_t)r;
	}
	return 0;
}

/* Keeps what follows the first `done` bytes of iov. */
static void stream_keep(struct net_port *p, const struct iovec *iov, unsigned n, size_t done)
{
	p->tail_head = p->tail_len = 0;
	for (unsigned i = 0; i < n; i++) {
		if (done >= iov[i].iov_len) {
			done -= iov[i].iov_len;
			continue;
		}
		size_t k = iov[i].iov_len - done;
		memcpy(p->tail + p->tail_len, (const uint8_t *)iov[i].iov_base + done, k);
		p->tail_len += (uint32_t)k;
		done = 0;
	}
}

static ssize_t stream_write(struct net_port *p, struct iovec *iov, unsigned n, uint32_t len)
{
	uint8_t prefix[NET_STREAM_PREFIX];
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
	ssize_t r = net_stream_flush(p);
	if (r < 0)
		return r;
	if (!p->tail && !(p->tail = malloc(NET_STREAM_PREFIX + VIRTIO_NET_MAX_FRAME)))
		return NET_DROP;
	put_be32(prefix, len);
	iov[0] = (struct iovec){.iov_base = prefix, .iov_len = sizeof(prefix)};
	do
		r = sendmsg(p->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return errno == EAGAIN || errno == EFAULT || errno == ENOBUFS || errno == ENOMEM ? outcome(errno) : NET_GONE;
	if ((size_t)r < sizeof(prefix) + len)
		stream_keep(p, iov, n, (size_t)r);
	return 0;
}

const struct net_backend *net_backend_of(enum virtio_net_kind kind)
{
	static const struct net_backend table[] = {
		[NET_TAP] = {"tap", true, true, tap_check, tap_read, tap_write},
		[NET_DGRAM] = {"datagram socket", false, false, socket_check, dgram_read, dgram_write},
		[NET_DGRAM_HDR] = {"datagram socket", true, false, socket_check, dgram_hdr_read, dgram_hdr_write},
		[NET_STREAM] = {"stream socket", false, false, socket_check, stream_read, stream_write},
	};
	return (unsigned)kind < ARRAY_LEN(table) ? &table[kind] : NULL;
}
