/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of virtio-net share: net.c (the device, its control queue and its descriptors), net_rx.c and net_tx.c (the two
 * ways), net_backend.c (tap and sockets). All of it with the device's lock held.
 */
#ifndef VIRTIO_NET_INTERNAL_H
#define VIRTIO_NET_INTERNAL_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtio/net.h"

#define NET_HDR         ((uint32_t)sizeof(struct virtio_net_hdr_v1))
#define NET_MIN_FRAME   14u  /* an Ethernet header */
#define NET_QUEUE_SIZE  128
#define NET_CTRL_SIZE   16
#define NET_RX_SEGS     1016 /* segments of rx buffers in hand: with the header and the spill no more than readv takes */
#define NET_STREAM_PREFIX 4u
#define NET_STREAM_IN   (2 * (VIRTIO_NET_MAX_FRAME + NET_STREAM_PREFIX)) /* bytes one read of a stream may bring */
#define NET_GSO_UDP_L4  5    /* VIRTIO_NET_HDR_GSO_UDP_L4, which older headers lack */

/* What a backend's read and write return besides a length: */
enum {
	NET_AGAIN = -1, /* nothing to read, or no room: epoll will tell */
	NET_DROP = -2,  /* this frame is lost, the next may not be */
	NET_GONE = -3,  /* the other end is no more */
};

struct net_port;

struct net_backend {
	const char *name;
	bool headers;       /* frames carry struct virtio_net_hdr_v1 */
	bool several;       /* may have a descriptor for each queue pair */
	/* Refuses a descriptor that is of another kind. 0 or -1. Uses only calls that the jail allows. */
	int (*check)(int fd, struct cai_error *err);
	/* One frame into iov[1..n) and its header, if there is one, into iov[0]. Returns NET_HDR + bytes of the frame, which may
	 * be more than there was room for, or NET_*. */
	ssize_t (*read)(struct net_port *p, const struct iovec *iov, unsigned n);
	/* The frame (len bytes) in iov[1..n) with the header in iov[0]. 0 or NET_*. */
	ssize_t (*write)(struct net_port *p, struct iovec *iov, unsigned n, uint32_t len);
};

/* One descriptor of the backend. */
struct net_port {
	int fd;              /* owned */
	unsigned index;      /* in virtio_net.port, and epoll's token */
	uint32_t armed;      /* events epoll watches fd for */
	bool again;          /* there may be something to read */
	bool starved;        /* its rx queue has too few buffers; the driver's notification is awaited */
	bool blocked;        /* takes no frames; EPOLLOUT is awaited */
	/* A frame that was read but not yet given to the guest. */
	uint8_t *hold;       /* VIRTIO_NET_MAX_FRAME bytes, made when first needed */
	uint32_t held;       /* bytes in it; 0: none */
	struct virtio_net_hdr_v1 held_hdr;
	/* NET_STREAM: what was read ahead, and the rest of a frame that was written in part. */
	uint8_t *in;         /* NET_STREAM_IN bytes */
	uint32_t in_head, in_len;
	uint8_t *tail;       /* NET_STREAM_PREFIX + VIRTIO_NET_MAX_FRAME bytes */
	uint32_t tail_head, tail_len;
};

/* Rx buffers taken from a queue and not yet used. They never outlive the section that holds the lock. */
struct net_window {
	struct iovec iov[NET_RX_SEGS];
	uint64_t gpa[NET_RX_SEGS];
	struct {
		uint16_t head;
		unsigned segs;
		uint64_t len;
	} buf[VIRTQ_MAX_SIZE];
	unsigned first_seg, n_segs; /* segments [first_seg, first_seg + n_segs) */
	unsigned first_buf, n_bufs;
	uint64_t len;               /* bytes in all of them */
};

struct virtio_net {
	struct virtio_dev dev;
	struct virtio_dev_ops ops;    /* of this device: the number of queues varies */
	struct loop *loop;            /* borrowed */
	struct loop_source *source;
	int epfd, kick_fd;
	unsigned max_pairs, pairs;    /* there are, and are in use */
	bool running;                 /* between DRIVER_OK and reset */
	bool link_wanted;
	bool tx_retry;                /* tx queues may have work that nobody will notify about */
	bool gone;                    /* the backend is to be taken away at the end of this section */
	const struct net_backend *be; /* NULL: none */
	struct net_port port[VIRTIO_NET_MAX_PAIRS];
	unsigned n_ports;
	struct virtio_net_config config;
	uint16_t restored_status;     /* the configuration's as a restored driver knows it */
	struct virtio_net_stats stats;
	struct virtq_chain chain;     /* the chain being worked on */
	struct net_window win;
	struct iovec iov[NET_RX_SEGS + 2];
	uint8_t spill;                /* where a frame goes that is longer than its buffer */
};

static inline struct virtq *net_rx_queue(struct virtio_net *n, unsigned pair)
{
	return &n->dev.q[2 * pair];
}

static inline struct virtq *net_tx_queue(struct virtio_net *n, unsigned pair)
{
	return &n->dev.q[2 * pair + 1];
}

static inline bool net_link_up(const struct virtio_net *n)
{
	return n->config.status & VIRTIO_NET_S_LINK_UP;
}

/* net.c: wakes the loop's thread for this device. */
void net_kick(struct virtio_net *n);

/* net_rx.c: moves frames from p to the guest, a bounded number. True when there may be more and buffers for it. */
bool net_rx(struct virtio_net *n, struct net_port *p);

/* net_tx.c: sends what is in a tx queue, a bounded number of frames. True when there is more that may be sent. */
bool net_tx(struct virtio_net *n, unsigned pair);
/* Checks the header the guest put before a frame of len bytes and clears what does not count in it. False: drop the frame. */
bool net_tx_header(const struct virtio_net *n, struct virtio_net_hdr_v1 *h, uint32_t len);

/* net_backend.c */
const struct net_backend *net_backend_of(enum virtio_net_kind kind);
/* What p's stream still has to be given. 0 when all is, or NET_AGAIN, NET_GONE. */
ssize_t net_stream_flush(struct net_port *p);

#endif
