/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the device, its control queue and its descriptors.
 *
 * Frames from the guest are sent on the thread that notifies, frames for it are read on the loop's thread; both under the
 * device's lock. As a vCPU's thread must not touch the loop, the device keeps an epoll set of its own (the backend's descriptors
 * and an eventfd for "look again"), of which the loop watches the one descriptor. It is level-triggered: a descriptor is
 * watched only for what we could do about it, which at the end of every section arm() brings up to date.
 *
 * A backend descriptor i belongs to tx queues i, i + n_ports, ... and feeds rx queue i % pairs: a tap with more queues than the
 * driver uses still spreads over all of its own, and no frame may be left lying in one.
 *
 * Work is bounded per turn: what is left over raises the eventfd.
 */
#include "virtio/net_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define MIN_MTU     68 /* virtio 1.2 section 5.1.4.1 */
#define TOKEN_KICK  VIRTIO_NET_MAX_PAIRS
#define CTRL_BUDGET 16
/* Reported whether asked for or not, or asked for always: the other end is no more. */
#define HANGUP      (EPOLLERR | EPOLLHUP | EPOLLRDHUP)

static struct virtio_net *to_net(struct virtio_dev *d)
{
	return container_of(d, struct virtio_net, dev);
}

void net_kick(struct virtio_net *n)
{
	uint64_t one = 1;
	ssize_t r = write(n->kick_fd, &one, sizeof(one));
	(void)r; /* a full counter already is a kick */
}

static bool active(const struct virtio_net *n)
{
	return n->running && virtio_dev_live(&n->dev) && net_link_up(n) && !n->gone;
}

static void update_link(struct virtio_net *n)
{
	uint16_t status = n->link_wanted && n->be ? VIRTIO_NET_S_LINK_UP : 0;
	if (status == n->config.status)
		return;
	n->config.status = status;
	virtio_dev_config_changed(&n->dev);
}

/* Everything may have something to say: the driver came, the link came up, queues were assigned anew. */
static void look_again(struct virtio_net *n)
{
	for (unsigned i = 0; i < n->n_ports; i++) {
		n->port[i].again = true;
		n->port[i].starved = false;
	}
	net_kick(n);
}

static void drop_backend(struct virtio_net *n)
{
	for (unsigned i = 0; i < n->n_ports; i++) {
		struct net_port *p = &n->port[i];
		/* Taken out by hand: closing does not, if somebody has a copy of the descriptor. */
		epoll_ctl(n->epfd, EPOLL_CTL_DEL, p->fd, NULL);
		close(p->fd);
		free(p->hold);
		free(p->in);
		free(p->tail);
		*p = (struct net_port){.fd = -1};
	}
	n->n_ports = 0;
	n->be = NULL;
	n->gone = false;
	update_link(n);
	/* Queues that waited for room in it: what they hold is dropped, or the driver would wait for ever. */
	n->tx_retry = true;
	net_kick(n);
}

static void arm(struct virtio_net *n)
{
	bool run = active(n);
	for (unsigned i = 0; i < n->n_ports; i++) {
		struct net_port *p = &n->port[i];
		uint32_t want = EPOLLRDHUP;
		if (run && !p->starved)
			want |= EPOLLIN;
		if ((run && p->blocked) || p->tail_len)
			want |= EPOLLOUT;
		if (want == p->armed)
			continue;
		struct epoll_event ev = {.events = want, .data.u64 = i};
		if (epoll_ctl(n->epfd, EPOLL_CTL_MOD, p->fd, &ev) == 0)
			p->armed = want;
	}
}

/* Ends every section that may have done something. */
static void settle(struct virtio_net *n)
{
	if (n->gone) {
		log_warn("virtio-net: the %s has gone; the link is down", n->be->name);
		drop_backend(n);
	}
	arm(n);
}

static uint8_t control(struct virtio_net *n)
{
	struct virtio_net_ctrl_hdr h;
	uint16_t pairs;
	virtq_read(&n->chain, 0, &h, sizeof(h));
	if (h.class != VIRTIO_NET_CTRL_MQ || h.cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
	    !virtio_dev_has(&n->dev, VIRTIO_NET_F_MQ))
		return VIRTIO_NET_ERR;
	if (!virtq_read(&n->chain, sizeof(h), &pairs, sizeof(pairs)) || !pairs || pairs > n->max_pairs)
		return VIRTIO_NET_ERR;
	n->pairs = pairs;
	look_again(n);
	return VIRTIO_NET_OK;
}

static bool net_ctrl(struct virtio_net *n, struct virtq *q)
{
	bool more = true, any = false;
	virtq_disable_notify(q, n->dev.mem);
	for (unsigned i = 0; i < CTRL_BUDGET; i++) {
		int r = virtq_pop(q, n->dev.mem, &n->chain);
		if (r == 0) {
			more = virtq_enable_notify(q, n->dev.mem);
			break;
		}
		if (r < 0 || !n->chain.in_len || n->chain.out_len < sizeof(struct virtio_net_ctrl_hdr)) {
			virtio_dev_fail(&n->dev, "control command");
			return false;
		}
		uint8_t ack = control(n);
		virtq_write(n->dev.mem, &n->chain, 0, &ack, sizeof(ack));
		virtq_push(q, n->dev.mem, n->chain.head, sizeof(ack));
		any = true;
	}
	if (any)
		virtio_dev_used(&n->dev, q);
	return more;
}

static void rx_buffers_came(struct virtio_net *n, unsigned pair)
{
	bool any = false;
	for (unsigned i = 0; i < n->n_ports; i++) {
		struct net_port *p = &n->port[i];
		if (i % n->pairs != pair || !p->starved)
			continue;
		p->starved = false;
		p->again = any = true;
	}
	if (any)
		net_kick(n);
}

static bool net_notify(struct virtio_dev *d, unsigned queue)
{
	struct virtio_net *n = to_net(d);
	/* Without MQ the control queue follows the first pair, and there are no others (section 5.1.2). */
	unsigned pairs = virtio_dev_has(d, VIRTIO_NET_F_MQ) ? n->max_pairs : 1;
	bool more = false;
	if (queue == 2 * pairs && virtio_dev_has(d, VIRTIO_NET_F_CTRL_VQ))
		more = net_ctrl(n, &d->q[queue]);
	else if (queue >= 2 * pairs)
		return false;
	else if (queue % 2)
		more = net_tx(n, queue / 2);
	else
		rx_buffers_came(n, queue / 2);
	settle(n);
	return more;
}

static void net_activate(struct virtio_dev *d)
{
	struct virtio_net *n = to_net(d);
	n->running = true;
	look_again(n);
	arm(n);
}

static void net_reset(struct virtio_dev *d)
{
	struct virtio_net *n = to_net(d);
	n->running = false;
	n->pairs = 1;
	for (unsigned i = 0; i < n->n_ports; i++) {
		/* What was read for the old driver is not the new one's; the rest of a stream's frame must still go out. */
		n->port[i].held = 0;
		n->port[i].blocked = n->port[i].starved = false;
	}
	arm(n);
}

static void net_config_read(struct virtio_dev *d, uint32_t off, void *buf, unsigned len)
{
	struct virtio_net *n = to_net(d);
	virtio_config_copy(&n->config, sizeof(n->config), off, buf, len);
}

static void net_save(struct virtio_dev *d, struct buf *out)
{
	struct virtio_net *n = to_net(d);
	buf_put_u16(out, (uint16_t)n->pairs);
	buf_put_u16(out, n->config.status);
	buf_put_u16(out, n->config.mtu);
}

/* Frames on their way are lost, as a network loses frames: one that was held back, and the rest of one half written to a stream. */
static int net_load(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err)
{
	struct virtio_net *n = to_net(d);
	uint16_t pairs = buf_get_u16(r), status = buf_get_u16(r), mtu = buf_get_u16(r);
	if (!pairs || pairs > n->max_pairs)
		return cai_fail(err, EINVAL, "it used %u queue pairs, this device has %u", pairs, n->max_pairs);
	if (virtio_dev_has(d, VIRTIO_NET_F_MTU) && mtu != n->config.mtu)
		return cai_fail(err, EINVAL, "its MTU was %u and is %u now", mtu, n->config.mtu);
	n->pairs = pairs;
	n->restored_status = status;
	return 0;
}

static void net_resume(struct virtio_dev *d)
{
	struct virtio_net *n = to_net(d);
	n->running = virtio_dev_live(d);
	if (n->restored_status != n->config.status)
		virtio_dev_config_changed(d);
	n->tx_retry = true;
	look_again(n);
	arm(n);
}

static const struct virtio_dev_ops net_ops = {
	.name = "net",
	.device_id = VIRTIO_ID_NET,
	.config_read = net_config_read,
	.activate = net_activate,
	.notify = net_notify,
	.reset = net_reset,
	.save = net_save,
	.load = net_load,
	.resume = net_resume,
};

/* Goes on with tx queues that waited for their descriptor, or that a turn left unfinished. */
static void resume_tx(struct virtio_net *n)
{
	unsigned pairs = virtio_dev_has(&n->dev, VIRTIO_NET_F_MQ) ? n->max_pairs : 1;
	n->tx_retry = false;
	for (unsigned i = 0; i < pairs; i++)
		if (n->running && virtio_dev_live(&n->dev) && net_tx_queue(n, i)->ready && net_tx(n, i))
			n->tx_retry = true;
}

/* There is room in p again. */
static void unblock(struct virtio_net *n, struct net_port *p)
{
	ssize_t r = net_stream_flush(p);
	if (r == NET_GONE)
		n->gone = true;
	if (r < 0)
		return;
	n->tx_retry |= p->blocked;
	p->blocked = false;
}

void virtio_net_poll(struct virtio_net *n)
{
	struct epoll_event ev[VIRTIO_NET_MAX_PAIRS + 1];
	bool left = false;

	virtio_dev_lock(&n->dev);
	/* Fetched under the lock, so that no event is older than the descriptor it names. */
	int k = epoll_wait(n->epfd, ev, ARRAY_LEN(ev), 0);
	uint32_t hangup = 0;
	for (int i = 0; i < k; i++) {
		if (ev[i].data.u64 >= n->n_ports) {
			uint64_t count;
			ssize_t r = read(n->kick_fd, &count, sizeof(count));
			(void)r;
			continue;
		}
		struct net_port *p = &n->port[ev[i].data.u64];
		if (ev[i].events & EPOLLOUT)
			unblock(n, p);
		p->again |= (ev[i].events & EPOLLIN) != 0;
		hangup |= ev[i].events & HANGUP;
	}
	if (n->tx_retry)
		resume_tx(n);
	for (unsigned i = 0; i < n->n_ports; i++) {
		struct net_port *p = &n->port[i];
		if (p->again && !p->starved && active(n))
			p->again = net_rx(n, p);
		left |= p->again && !p->starved && active(n);
	}
	/* Last, after what the other end still had to say. */
	if (hangup && n->be)
		n->gone = true;
	if (left || n->tx_retry)
		net_kick(n);
	settle(n);
	virtio_dev_unlock(&n->dev);
}

static void on_loop(void *ctx, uint32_t events)
{
	virtio_net_poll(ctx);
}

static int set_up(struct virtio_net *n, struct cai_error *err)
{
	n->epfd = epoll_create1(EPOLL_CLOEXEC);
	n->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (n->epfd < 0 || n->kick_fd < 0)
		return cai_fail_errno(err, errno, "cannot make the network device's descriptors");
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = TOKEN_KICK};
	if (epoll_ctl(n->epfd, EPOLL_CTL_ADD, n->kick_fd, &ev) < 0)
		return cai_fail_errno(err, errno, "cannot watch the network device's descriptors");
	if (!n->loop)
		return 0;
	n->source = loop_add_fd(n->loop, n->epfd, EPOLLIN, on_loop, n, err);
	return n->source ? 0 : -1;
}

static void set_features(struct virtio_net *n, const struct virtio_net_options *opt, struct mem *mem, struct irq_line irq)
{
	uint64_t features = BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_STATUS) |
			    BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | opt->offloads;
	n->ops = net_ops;
	n->ops.n_queues = 2 * opt->max_pairs;
	for (unsigned i = 0; i < n->ops.n_queues; i++)
		n->ops.queue_size[i] = NET_QUEUE_SIZE;
	n->config.max_virtqueue_pairs = (uint16_t)opt->max_pairs;
	n->config.mtu = opt->mtu;
	memcpy(n->config.mac, opt->mac, sizeof(opt->mac));
	if (opt->mtu)
		features |= BIT(VIRTIO_NET_F_MTU);
	if (opt->max_pairs > 1) {
		/* Where the control queue is when MQ is accepted. When it is not, it is queue 2, of the size of the others. */
		n->ops.queue_size[n->ops.n_queues++] = NET_CTRL_SIZE;
		features |= BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ);
	}
	virtio_dev_init(&n->dev, &n->ops, features, mem, irq);
}

struct virtio_net *virtio_net_create(struct mem *mem, struct irq_line irq, struct loop *loop,
				     const struct virtio_net_options *opt, struct cai_error *err)
{
	if (!opt->max_pairs || opt->max_pairs > VIRTIO_NET_MAX_PAIRS || (opt->mtu && opt->mtu < MIN_MTU) ||
	    (opt->offloads & ~NET_OFFLOADS) || (opt->mac[0] & 1)) {
		cai_fail(err, EINVAL, "a network device cannot be made this way (1 to %d queue pairs, an MTU of at least %d, a "
			 "MAC address of one station)", VIRTIO_NET_MAX_PAIRS, MIN_MTU);
		return NULL;
	}
	struct virtio_net *n = calloc(1, sizeof(*n));
	if (!n) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	n->loop = loop;
	n->epfd = n->kick_fd = -1;
	n->max_pairs = opt->max_pairs;
	n->pairs = 1;
	n->link_wanted = true;
	for (unsigned i = 0; i < VIRTIO_NET_MAX_PAIRS; i++)
		n->port[i].fd = -1;
	set_features(n, opt, mem, irq);
	if (set_up(n, err) < 0) {
		virtio_net_destroy(n);
		return NULL;
	}
	return n;
}

void virtio_net_destroy(struct virtio_net *n)
{
	if (!n)
		return;
	loop_del(n->source);
	n->running = false;
	n->config.status = 0; /* nobody is to be told any more */
	if (n->epfd >= 0 && n->kick_fd >= 0)
		drop_backend(n);
	if (n->epfd >= 0)
		close(n->epfd);
	if (n->kick_fd >= 0)
		close(n->kick_fd);
	virtio_dev_fini(&n->dev);
	free(n);
}

struct virtio_dev *virtio_net_dev(struct virtio_net *n)
{
	return &n->dev;
}

/* Fills the ports in; on failure epoll watches none of the descriptors. */
static int watch(struct virtio_net *n, const int *fds, unsigned n_fds, struct cai_error *err)
{
	for (unsigned i = 0; i < n_fds; i++) {
		struct epoll_event ev = {.events = EPOLLRDHUP, .data.u64 = i};
		if (epoll_ctl(n->epfd, EPOLL_CTL_ADD, fds[i], &ev) < 0) {
			int e = errno;
			while (i--)
				epoll_ctl(n->epfd, EPOLL_CTL_DEL, fds[i], NULL);
			return cai_fail_errno(err, e, "cannot watch the network's descriptor");
		}
	}
	for (unsigned i = 0; i < n_fds; i++)
		n->port[i] = (struct net_port){.fd = fds[i], .index = i, .armed = EPOLLRDHUP};
	n->n_ports = n_fds;
	return 0;
}

int virtio_net_attach(struct virtio_net *n, enum virtio_net_kind kind, const int *fds, unsigned n_fds, struct cai_error *err)
{
	const struct net_backend *be = net_backend_of(kind);
	if (!be || !n_fds || n_fds > n->max_pairs || (n_fds > 1 && !be->several))
		return cai_fail(err, EINVAL, "the network cannot use %u descriptors", n_fds);
	if (!be->headers && (n->dev.features & NET_OFFLOADS))
		return cai_fail(err, EINVAL, "a network device with offloads cannot use a %s without headers", be->name);
	for (unsigned i = 0; i < n_fds; i++) {
		if (be->check(fds[i], err) < 0)
			return -1;
		int fl = fcntl(fds[i], F_GETFL);
		if (fl < 0 || fcntl(fds[i], F_SETFL, fl | O_NONBLOCK) < 0)
			return cai_fail_errno(err, errno, "cannot use the descriptor for the network");
	}
	virtio_dev_lock(&n->dev);
	int r = n->be ? cai_fail(err, EBUSY, "the network device is already connected") : watch(n, fds, n_fds, err);
	if (r == 0) {
		n->be = be;
		update_link(n);
		look_again(n);
		arm(n);
	}
	virtio_dev_unlock(&n->dev);
	return r;
}

void virtio_net_detach(struct virtio_net *n)
{
	virtio_dev_lock(&n->dev);
	drop_backend(n);
	virtio_dev_unlock(&n->dev);
}

void virtio_net_set_link(struct virtio_net *n, bool up)
{
	virtio_dev_lock(&n->dev);
	n->link_wanted = up;
	update_link(n);
	n->tx_retry = true; /* queues that waited for room: with the link down they are emptied */
	look_again(n);
	arm(n);
	virtio_dev_unlock(&n->dev);
}

void virtio_net_set_mac(struct virtio_net *n, const uint8_t mac[6])
{
	virtio_dev_lock(&n->dev);
	memcpy(n->config.mac, mac, sizeof(n->config.mac));
	virtio_dev_config_changed(&n->dev);
	virtio_dev_unlock(&n->dev);
}

void virtio_net_get_stats(struct virtio_net *n, struct virtio_net_stats *s)
{
	virtio_dev_lock(&n->dev);
	*s = n->stats;
	s->pairs = n->pairs;
	s->link_up = net_link_up(n);
	virtio_dev_unlock(&n->dev);
}
