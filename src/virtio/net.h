/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net (virtio 1.2 section 5.1): up to VIRTIO_NET_MAX_PAIRS queue pairs and a control queue that chooses how many are
 * used. Merged rx buffers, checksum and segmentation offload where the backend has them, link status, MTU.
 *
 * The device is made without a backend, its link down, and gets one with virtio_net_attach(): at once, or, in a machine that
 * was restored, after the MAC was set. Backends:
 *
 *   NET_TAP     a tap descriptor a queue pair, opened and configured by the caller (virtio/net_tap.h), which also decides which
 *               offloads the device may offer. Frames go between the tap and guest memory without a copy.
 *   NET_DGRAM   a connected SOCK_DGRAM or SOCK_SEQPACKET socket, a frame a message, no header, so no offloads.
 *   NET_DGRAM_HDR  the same with the 12 bytes of struct virtio_net_hdr_v1 in front of each frame, and offloads.
 *   NET_STREAM  a connected SOCK_STREAM socket, each frame behind its length in 4 bytes, big-endian: what passt speaks.
 *
 * A backend that goes away (the tap deleted, the socket closed, a stream that makes no sense) takes the link down; another can
 * be attached.
 *
 * The offloads offered are fixed when the device is made. What a driver does not accept of them: checksums are completed here,
 * segmented frames for it are dropped, so a caller that knows such a driver is coming offers less.
 *
 * Nothing is queued here but, for each backend descriptor, one frame that found too few rx buffers and, for a stream, what one
 * read brought and the rest of one frame. While the guest offers no rx buffers the backend is not read; while the backend
 * takes no frames the tx queue waits.
 *
 * Thread rules: create and destroy on the loop's thread. Everything else from any thread. The device has an epoll set of its
 * own, of which the loop watches the one descriptor.
 */
#ifndef VIRTIO_NET_H
#define VIRTIO_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "virtio/net_tap.h"
#include "virtio/virtio.h"

#define VIRTIO_NET_MAX_PAIRS 8
#define VIRTIO_NET_MAX_FRAME 65554u /* bytes: 64 KiB and an Ethernet header with a VLAN tag */

enum virtio_net_kind { NET_TAP, NET_DGRAM, NET_DGRAM_HDR, NET_STREAM };

struct virtio_net_options {
	uint8_t mac[6];
	uint16_t mtu;        /* bytes, at least 68; 0: nothing is said about it */
	unsigned max_pairs;  /* 1 to VIRTIO_NET_MAX_PAIRS */
	uint64_t offloads;   /* subset of NET_OFFLOADS; 0 for backends without headers */
};

struct virtio_net_stats {
	uint64_t rx_frames, rx_bytes; /* given to the guest; bytes without headers */
	uint64_t tx_frames, tx_bytes; /* taken by the backend */
	uint64_t rx_dropped;          /* longer than the guest's buffers, or with an offload it has not accepted */
	uint64_t tx_dropped;          /* malformed, refused by the backend, or sent while the link was down */
	unsigned pairs;               /* in use */
	bool link_up;
};

struct virtio_net;

/* loop: NULL in tests that call virtio_net_poll() themselves. */
struct virtio_net *virtio_net_create(struct mem *mem, struct irq_line irq, struct loop *loop,
				     const struct virtio_net_options *opt, struct cai_error *err);
/* On the loop's thread after vCPUs have stopped. Closes the backend. NULL is allowed. */
void virtio_net_destroy(struct virtio_net *n);
struct virtio_dev *virtio_net_dev(struct virtio_net *n); /* for the transport; borrowed */

/*
 * Gives the device its backend; the link goes up unless virtio_net_set_link() keeps it down. fds: n_fds (1 to max_pairs; 1 but
 * for taps) descriptors, all owned from a successful return on, none otherwise; queue pair i uses fds[i % n_fds]. They
 * are made non-blocking. Fails with EBUSY while another backend is there, and with EINVAL when the device offers offloads that
 * this kind of backend has not.
 */
int virtio_net_attach(struct virtio_net *n, enum virtio_net_kind kind, const int *fds, unsigned n_fds, struct cai_error *err);
/* Takes the backend away and the link down. */
void virtio_net_detach(struct virtio_net *n);
/* false holds the link down even with a backend: nothing is received, and what is sent is dropped. */
void virtio_net_set_link(struct virtio_net *n, bool up);
/* What the configuration says from now on. Drivers read it when they start, so a running one must be told another way. */
void virtio_net_set_mac(struct virtio_net *n, const uint8_t mac[6]);

/* Handles what is ready on the backend without blocking: what the loop calls. */
void virtio_net_poll(struct virtio_net *n);

void virtio_net_get_stats(struct virtio_net *n, struct virtio_net_stats *s);

#endif
