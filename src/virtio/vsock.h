/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock (virtio 1.2 section 5.10), the protocol terminated here: the guest is CID 3, we are the host, CID 2.
 *
 * Host side: a listening SOCK_STREAM Unix socket. A client connects and writes "CONNECT <port>\n" (decimal); when the guest
 * accepts it receives "OK <host port>\n", and from there on a byte stream with half-close both ways; when the guest refuses,
 * or the line is malformed, the connection is closed. A client that closes before "OK" is forgotten. While the guest's
 * driver is not up or its agent has not announced itself, connections wait, at most VIRTIO_VSOCK_MAX_WAITING of them; more
 * are closed at once.
 *
 * Guest side: a connection to AGENT_READY_PORT of CID 2 is the agent's announcement; it is accepted and whatever it carries
 * is dropped. All others are refused.
 *
 * Thread rules: create and destroy on the loop's thread. Everything else from any thread. The device has an epoll set of its
 * own, of which the loop watches the one descriptor, so that sockets are armed from vCPU threads without touching the loop.
 */
#ifndef VIRTIO_VSOCK_H
#define VIRTIO_VSOCK_H

#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "virtio/virtio.h"

#define VIRTIO_VSOCK_GUEST_CID   3
#define VIRTIO_VSOCK_HOST_CID    2
#define VIRTIO_VSOCK_READY_PORT  1024       /* AGENT_READY_PORT of proto/agent.h */
#define VIRTIO_VSOCK_MAX_CONNS   1024       /* connections in all states */
#define VIRTIO_VSOCK_MAX_WAITING 256        /* connections waiting for the agent */
#define VIRTIO_VSOCK_BUF_BYTES   (256u << 10) /* most bytes from the guest held for one slow reader */

/* The agent has announced itself: called on the loop's thread, without the device's lock, once after each announcement. */
typedef void virtio_vsock_ready_fn(void *ctx);

struct virtio_vsock_stats {
	uint32_t conns;            /* connections now, in any state */
	uint32_t waiting;          /* of these, waiting for the agent */
	uint64_t rx_bytes, tx_bytes; /* payload to and from the guest */
	uint64_t opened;           /* connections the guest accepted, so far */
	uint64_t resets;           /* connections reset by either side, so far */
};

struct virtio_vsock;

/* listen_fd: a listening Unix socket, owned from a successful return on; -1: none (virtio_vsock_open() only). loop: NULL in
 * tests that call virtio_vsock_poll() themselves. ready may be NULL. */
struct virtio_vsock *virtio_vsock_create(struct mem *mem, struct irq_line irq, struct loop *loop, int listen_fd,
					 virtio_vsock_ready_fn *ready, void *ready_ctx, struct cai_error *err);
/* On the loop's thread after vCPUs have stopped. Closes all connections. NULL is allowed. */
void virtio_vsock_destroy(struct virtio_vsock *v);
struct virtio_dev *virtio_vsock_dev(struct virtio_vsock *v); /* for the transport; borrowed */

/* Connects fd, one end of a stream socket pair, to `port` in the guest, waiting for the agent as a client of the socket does.
 * No "CONNECT" and "OK" lines: fd is closed when the guest refuses. fd: owned from a successful return on. Any thread. */
int virtio_vsock_open(struct virtio_vsock *v, uint32_t port, int fd, struct cai_error *err);

/* Handles what is ready on the sockets without blocking: what the loop calls. */
void virtio_vsock_poll(struct virtio_vsock *v);

/* Whether the agent has announced itself to us since its driver came up. Any thread. */
bool virtio_vsock_agent_ready(struct virtio_vsock *v);

void virtio_vsock_get_stats(struct virtio_vsock *v, struct virtio_vsock_stats *s); /* any thread */

#endif
