/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the device, its queues, its requests in flight.
 *
 * A chain's readable part is one FUSE request. It gets a slot, whose number replaces the guest's `unique`, and goes to the server
 * on the thread that notifies; the reply is taken on the loop's thread; both under the device's lock. As a vCPU's thread must
 * not touch the loop, the device keeps an epoll set of its own (the connection and an eventfd for "look again"), of which the
 * loop watches the one descriptor.
 *
 * Nothing of a request but its header is looked at here: it is the server that judges it. The device only makes sure that the
 * length on the wire is the chain's, and that a reply fits the buffers of the request it answers.
 */
#include "virtio/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define QUEUE_SIZE VIRTQ_MAX_SIZE /* Linux makes requests of at most this many pages, less a few */
#define BUDGET     64             /* requests between two looks at who else wants the device */
#define HANGUP     (EPOLLERR | EPOLLHUP | EPOLLRDHUP)
#define TOKEN_LINK 0
#define TOKEN_KICK 1

static struct virtio_fs *to_fs(struct virtio_dev *d)
{
	return container_of(d, struct virtio_fs, dev);
}

static void kick(struct virtio_fs *f)
{
	uint64_t one = 1;
	ssize_t r = write(f->kick_fd, &one, sizeof(one));
	(void)r; /* a full counter already is a kick */
}

static uint64_t token_of(const struct virtio_fs *f, const struct fs_request *r)
{
	/* Even, since FUSE takes odd numbers for interrupts. */
	return (uint64_t)r->turn << 32 | (uint64_t)(r - f->request) << 1;
}

struct fs_request *fs_find(struct virtio_fs *f, uint64_t unique)
{
	uint64_t slot = (uint32_t)unique >> 1;
	if (slot >= VIRTIO_FS_MAX_REQUESTS)
		return NULL;
	struct fs_request *r = &f->request[slot];
	return r->used && token_of(f, r) == unique ? r : NULL;
}

unsigned fs_slice(const struct virtio_fs *f, const struct fs_request *r, uint32_t off, uint32_t n, struct iovec *out)
{
	unsigned k = 0;
	for (unsigned i = 0; i < r->n_segs && n; i++) {
		uint32_t have = r->seg[i].len;
		if (off >= have) {
			off -= have;
			continue;
		}
		have = have - off < n ? have - off : n;
		out[k++] = (struct iovec){.iov_base = mem_hva(f->dev.mem, r->seg[i].gpa + off, have), .iov_len = have};
		n -= have;
		off = 0;
	}
	return k;
}

void fs_written(struct virtio_fs *f, const struct fs_request *r, uint32_t off, uint32_t n)
{
	for (unsigned i = 0; i < r->n_segs && n; i++) {
		uint32_t have = r->seg[i].len;
		if (off >= have) {
			off -= have;
			continue;
		}
		have = have - off < n ? have - off : n;
		mem_written(f->dev.mem, r->seg[i].gpa + off, have);
		n -= have;
		off = 0;
	}
}

void fs_copy_in(struct virtio_fs *f, const struct fs_request *r, uint32_t off, const void *p, uint32_t n)
{
	const uint8_t *from = p;
	unsigned k = fs_slice(f, r, off, n, f->iov);
	for (unsigned i = 0; i < k; i++) {
		memcpy(f->iov[i].iov_base, from, f->iov[i].iov_len);
		from += f->iov[i].iov_len;
	}
	fs_written(f, r, off, n);
}

static void release(struct virtio_fs *f, struct fs_request *r)
{
	r->used = false;
	f->free[f->n_free++] = (uint16_t)(r - f->request);
	f->retry = true; /* a queue may have waited for a slot */
}

void fs_finish(struct virtio_fs *f, struct fs_request *r, uint32_t len)
{
	if (!r->orphan && virtio_dev_live(&f->dev)) {
		virtq_push(&f->dev.q[r->queue], f->dev.mem, r->head, len);
		f->used[r->queue] = true;
	}
	release(f, r);
}

void fs_fail_all(struct virtio_fs *f, int error)
{
	for (unsigned i = 0; i < VIRTIO_FS_MAX_REQUESTS && f->n_free < VIRTIO_FS_MAX_REQUESTS; i++) {
		struct fs_request *r = &f->request[i];
		if (!r->used)
			continue;
		struct fuse_out_header h = {.len = sizeof(h), .error = -error, .unique = r->unique};
		if (!r->orphan)
			fs_copy_in(f, r, 0, &h, sizeof(h));
		fs_finish(f, r, sizeof(h));
	}
}

/* The connection has ended: nobody waits for ever. */
static void drop_link(struct virtio_fs *f)
{
	epoll_ctl(f->epfd, EPOLL_CTL_DEL, f->fd, NULL);
	close(f->fd);
	f->fd = -1;
	f->gone = f->blocked = false;
	f->armed = 0;
	f->current = NULL;
	f->in_len = f->in_head = f->tail_len = 0;
	fs_fail_all(f, ENOTCONN);
	f->retry = true;
}

static void arm(struct virtio_fs *f)
{
	if (f->fd < 0)
		return;
	uint32_t want = EPOLLIN | EPOLLRDHUP | (f->blocked || f->tail_len ? (uint32_t)EPOLLOUT : 0);
	struct epoll_event ev = {.events = want, .data.u64 = TOKEN_LINK};
	if (want != f->armed && epoll_ctl(f->epfd, EPOLL_CTL_MOD, f->fd, &ev) == 0)
		f->armed = want;
}

void fs_settle(struct virtio_fs *f)
{
	if (f->gone) {
		log_warn("virtio-fs: the server of the shared directory %.36s has gone", f->config.tag);
		drop_link(f);
	}
	for (unsigned q = 0; q < FS_QUEUES; q++) {
		if (f->used[q] && virtio_dev_live(&f->dev))
			virtio_dev_used(&f->dev, &f->dev.q[q]);
		f->used[q] = false;
	}
	if (f->retry)
		kick(f);
	arm(f);
}

/* Answers the popped chain without the server. */
static void answer(struct virtio_fs *f, unsigned queue, const struct fuse_in_header *in, int error)
{
	struct fuse_out_header h = {.len = sizeof(h), .error = -error, .unique = in->unique};
	bool told = error && virtq_write(f->dev.mem, &f->chain, 0, &h, sizeof(h));
	virtq_push(&f->dev.q[queue], f->dev.mem, f->chain.head, told ? sizeof(h) : 0);
	f->used[queue] = true;
}

static void fill_slot(struct virtio_fs *f, struct fs_request *r, unsigned queue, const struct fuse_in_header *h)
{
	const struct virtq_chain *c = &f->chain;
	uint32_t turn = r->turn + 1;
	uint64_t body = c->out_len - sizeof(*h);
	r->used = true;
	r->orphan = false;
	r->turn = turn;
	r->queue = (uint8_t)queue;
	r->head = c->head;
	r->opcode = h->opcode;
	r->payload = h->opcode == FUSE_WRITE && body > sizeof(struct fuse_write_in) ? (uint32_t)(body - sizeof(struct fuse_write_in)) : 0;
	r->unique = h->unique;
	r->room = c->in_len > VIRTIO_FS_MAX_MESSAGE ? VIRTIO_FS_MAX_MESSAGE : (uint32_t)c->in_len;
	r->n_segs = (uint16_t)c->n_in;
	for (unsigned i = 0; i < c->n_in; i++) {
		r->seg[i].gpa = c->gpa[c->n_out + i];
		r->seg[i].len = (uint32_t)c->iov[c->n_out + i].iov_len;
	}
}

/* Passes the popped chain on. False when the chain is no request at all. */
static bool forward(struct virtio_fs *f, unsigned queue, bool *again)
{
	struct fuse_in_header h;
	if (!virtq_read(&f->chain, 0, &h, sizeof(h)))
		return false;
	bool silent = h.opcode == FUSE_FORGET || h.opcode == FUSE_BATCH_FORGET || h.opcode == FUSE_INTERRUPT;
	bool ours = h.opcode == VIRTIO_FS_OP_SAVE || h.opcode == VIRTIO_FS_OP_LOAD;
	bool fits = !ours && f->chain.out_len <= VIRTIO_FS_MAX_MESSAGE && (silent || f->chain.in_len >= sizeof(struct fuse_out_header));
	if (f->fd < 0 || f->gone || !fits) {
		answer(f, queue, &h, silent ? 0 : fits ? ENOTCONN : EIO);
		f->stats.requests++;
		return true;
	}
	struct fs_request *r = &f->request[f->free[f->n_free - 1]];
	uint64_t unique = h.unique;
	fill_slot(f, r, queue, &h);
	h.len = (uint32_t)f->chain.out_len;
	h.unique = silent ? 0 : token_of(f, r);
	f->iov[0] = (struct iovec){.iov_base = &h, .iov_len = sizeof(h)};
	unsigned n = 1 + virtq_slice(&f->chain, false, sizeof(h), h.len - sizeof(h), f->iov + 1);
	enum fs_sent sent = fs_link_send(f, f->iov, n, h.len);
	h.unique = unique;
	if (sent == FS_SENT && !silent) {
		f->n_free--;
		f->stats.requests++;
		return true;
	}
	r->used = false;
	if (sent == FS_AGAIN) {
		*again = true;
		return true;
	}
	f->gone |= sent == FS_GONE;
	answer(f, queue, &h, silent ? 0 : ENOTCONN);
	f->stats.requests++;
	return true;
}

static bool fs_process(struct virtio_fs *f, unsigned queue)
{
	struct virtq *q = &f->dev.q[queue];
	virtq_disable_notify(q, f->dev.mem);
	for (unsigned i = 0; i < BUDGET; i++) {
		/* Whoever frees a slot or room in the socket looks again. */
		if (f->fd >= 0 && (f->blocked || !f->n_free))
			return false;
		int got = virtq_pop(q, f->dev.mem, &f->chain);
		if (got == 0) {
			if (!virtq_enable_notify(q, f->dev.mem))
				return false;
			continue;
		}
		bool again = false;
		if (got < 0 || !forward(f, queue, &again)) {
			virtio_dev_fail(&f->dev, "request");
			return false;
		}
		if (again) {
			virtq_unpop(q);
			f->blocked = true;
			return false;
		}
	}
	return true;
}

static bool fs_notify(struct virtio_dev *d, unsigned queue)
{
	struct virtio_fs *f = to_fs(d);
	bool more = fs_process(f, queue);
	fs_settle(f);
	return more;
}

static void fs_reset(struct virtio_dev *d)
{
	struct virtio_fs *f = to_fs(d);
	/* The server will answer them, and the answers go nowhere. The rest of a request on its way must still go out. */
	if (f->n_free < VIRTIO_FS_MAX_REQUESTS)
		for (unsigned i = 0; i < VIRTIO_FS_MAX_REQUESTS; i++)
			f->request[i].orphan = true;
	memset(f->used, 0, sizeof(f->used));
}

static void fs_config_read(struct virtio_dev *d, uint32_t off, void *buf, unsigned len)
{
	struct virtio_fs *f = to_fs(d);
	virtio_config_copy(&f->config, sizeof(f->config), off, buf, len);
}

static const struct virtio_dev_ops fs_ops = {
	.name = "fs",
	.device_id = VIRTIO_ID_FS,
	.n_queues = FS_QUEUES,
	.queue_size = {QUEUE_SIZE, QUEUE_SIZE},
	.config_read = fs_config_read,
	.notify = fs_notify,
	.reset = fs_reset,
	.save = fs_state_save,
	.load = fs_state_load,
	.resume = fs_state_resume,
};

/* Goes on with queues that waited, or that a turn left unfinished. */
static void resume(struct virtio_fs *f)
{
	f->retry = false;
	for (unsigned q = 0; q < FS_QUEUES; q++)
		if (virtio_dev_live(&f->dev) && f->dev.q[q].ready && fs_process(f, q))
			f->retry = true;
}

/* One look at the connection, with the lock held. */
static void look(struct virtio_fs *f)
{
	struct epoll_event ev[2];
	int k = epoll_wait(f->epfd, ev, ARRAY_LEN(ev), 0);
	uint32_t events = 0;
	for (int i = 0; i < k; i++) {
		uint64_t count;
		if (ev[i].data.u64 == TOKEN_LINK)
			events |= ev[i].events;
		else if (read(f->kick_fd, &count, sizeof(count)) < 0)
			continue;
	}
	bool more = false;
	if (f->fd >= 0 && (events & EPOLLIN))
		more = fs_link_receive(f);
	if (f->fd >= 0 && (events & EPOLLOUT)) {
		enum fs_sent s = fs_link_flush(f);
		f->gone |= s == FS_GONE;
		f->retry |= s == FS_SENT && f->blocked;
		f->blocked &= s != FS_SENT;
	}
	/* Last, after what the server still had to say. */
	if (f->fd >= 0 && (events & HANGUP) && !more)
		f->gone = true;
}

void virtio_fs_poll(struct virtio_fs *f)
{
	virtio_dev_lock(&f->dev);
	look(f);
	if (f->gone)
		drop_link(f);
	if (f->retry)
		resume(f);
	fs_settle(f);
	virtio_dev_unlock(&f->dev);
}

bool virtio_fs_drain(struct virtio_fs *f, unsigned ms)
{
	uint64_t end = clock_mono_ns() + (uint64_t)ms * 1000000;
	virtio_dev_lock(&f->dev);
	while (f->n_free < VIRTIO_FS_MAX_REQUESTS && f->fd >= 0) {
		uint64_t now = clock_mono_ns();
		struct pollfd p = {.fd = f->fd, .events = (short)(POLLIN | (f->tail_len ? POLLOUT : 0))};
		if (now >= end || poll(&p, 1, (int)((end - now) / 1000000) + 1) == 0)
			break;
		look(f);
		fs_settle(f);
	}
	bool idle = f->n_free == VIRTIO_FS_MAX_REQUESTS;
	virtio_dev_unlock(&f->dev);
	return idle;
}

static void on_loop(void *ctx, uint32_t events)
{
	virtio_fs_poll(ctx);
}

static int set_up(struct virtio_fs *f, struct cai_error *err)
{
	f->epfd = epoll_create1(EPOLL_CLOEXEC);
	f->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (f->epfd < 0 || f->kick_fd < 0)
		return cai_fail_errno(err, errno, "cannot make the shared directory's descriptors");
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = TOKEN_KICK};
	if (epoll_ctl(f->epfd, EPOLL_CTL_ADD, f->kick_fd, &ev) < 0)
		return cai_fail_errno(err, errno, "cannot watch the shared directory's descriptors");
	if (!f->loop)
		return 0;
	f->source = loop_add_fd(f->loop, f->epfd, EPOLLIN, on_loop, f, err);
	return f->source ? 0 : -1;
}

static int connect_link(struct virtio_fs *f, int fd, struct cai_error *err)
{
	int fl = fcntl(fd, F_GETFL);
	if (fl < 0 || fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0)
		return cai_fail_errno(err, errno, "cannot use the shared directory's socket");
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP, .data.u64 = TOKEN_LINK};
	if (epoll_ctl(f->epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return cai_fail_errno(err, errno, "cannot watch the shared directory's socket");
	f->fd = fd;
	f->armed = ev.events;
	return 0;
}

struct virtio_fs *virtio_fs_create(struct mem *mem, struct irq_line irq, struct loop *loop, int fd, const char tag[VIRTIO_FS_TAG_LEN],
				   struct cai_error *err)
{
	struct virtio_fs *f = calloc(1, sizeof(*f));
	if (!f) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	f->loop = loop;
	f->epfd = f->kick_fd = f->fd = -1;
	for (unsigned i = 0; i < VIRTIO_FS_MAX_REQUESTS; i++)
		f->free[f->n_free++] = (uint16_t)(VIRTIO_FS_MAX_REQUESTS - 1 - i);
	memcpy(f->config.tag, tag, VIRTIO_FS_TAG_LEN);
	f->config.num_request_queues = FS_QUEUES - 1;
	virtio_dev_init(&f->dev, &fs_ops, BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC), mem, irq);
	if (set_up(f, err) < 0 || (fd >= 0 && connect_link(f, fd, err) < 0)) {
		virtio_fs_destroy(f);
		return NULL;
	}
	return f;
}

void virtio_fs_destroy(struct virtio_fs *f)
{
	if (!f)
		return;
	loop_del(f->source);
	if (f->fd >= 0)
		close(f->fd);
	if (f->epfd >= 0)
		close(f->epfd);
	if (f->kick_fd >= 0)
		close(f->kick_fd);
	free(f->tail);
	free(f->state);
	virtio_dev_fini(&f->dev);
	free(f);
}

struct virtio_dev *virtio_fs_dev(struct virtio_fs *f)
{
	return &f->dev;
}

int virtio_fs_attach(struct virtio_fs *f, int fd, struct cai_error *err)
{
	virtio_dev_lock(&f->dev);
	int r = f->fd >= 0 ? cai_fail(err, EBUSY, "the shared directory is already connected") : connect_link(f, fd, err);
	virtio_dev_unlock(&f->dev);
	return r;
}

void virtio_fs_get_stats(struct virtio_fs *f, struct virtio_fs_stats *s)
{
	virtio_dev_lock(&f->dev);
	*s = f->stats;
	s->in_flight = VIRTIO_FS_MAX_REQUESTS - f->n_free;
	s->connected = f->fd >= 0;
	virtio_dev_unlock(&f->dev);
}
