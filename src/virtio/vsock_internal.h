/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the three parts of virtio-vsock share: vsock.c (the device and its host sockets), vsock_conn.c (one connection's state
 * and the way from guest to host), vsock_rx.c (the way from host to guest). All of it with the device's lock held.
 */
#ifndef VIRTIO_VSOCK_INTERNAL_H
#define VIRTIO_VSOCK_INTERNAL_H

#include <linux/virtio_vsock.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "virtio/vsock.h"

enum { VSOCK_Q_RX, VSOCK_Q_TX, VSOCK_Q_EVENT, VSOCK_N_QUEUES };

#define VSOCK_QUEUE_SIZE   128
#define VSOCK_MAX_RSTS     64 /* resets waiting for an rx buffer that belong to no connection; more are dropped */
#define VSOCK_MAX_ANNOUNCE 16 /* connections from the guest at once */
#define VSOCK_LINGER_NS    8000000000ull /* how long the guest may take to reset what the host has closed */
/*
 * Unread packets a connection may have in the guest. Linux charges each for its bookkeeping (some 600 bytes) against the
 * credit it gave and resets the connection when the sum exceeds it, so many small packets must count for more than their
 * bytes. 128 full ones are more than any credit it gives.
 */
#define VSOCK_MAX_UNREAD   128

#define VSOCK_BATCH        16   /* rx buffers filled by one read */
#define VSOCK_MAX_IOV      1024 /* segments in it: what readv takes */

enum vsock_state {
	VSOCK_HELLO,      /* a client that has not finished its CONNECT line */
	VSOCK_WAITING,    /* the agent has not announced itself */
	VSOCK_CONNECTING, /* REQUEST is sent or pending */
	VSOCK_OPEN,
	VSOCK_LINGER,     /* the host's end is gone and the guest knows; its RST is awaited */
	VSOCK_DRAIN,      /* the guest's end is gone; its last data goes to the host, and perhaps an RST to the guest */
	VSOCK_DEAD,       /* to be freed by vsock_reap() */
};

/* Control packets that wait for an rx buffer. */
#define VSOCK_PEND_REQUEST        (1u << 0)
#define VSOCK_PEND_RESPONSE       (1u << 1)
#define VSOCK_PEND_RST            (1u << 2)
#define VSOCK_PEND_CREDIT_UPDATE  (1u << 3)
#define VSOCK_PEND_CREDIT_REQUEST (1u << 4)

struct vsock_conn {
	struct virtio_vsock *v;
	TAILQ_ENTRY(vsock_conn) state_link; /* v->waiting, v->announced, v->linger or v->dead, by state */
	TAILQ_ENTRY(vsock_conn) ctl_link;   /* v->ctl, when on_ctl */
	TAILQ_ENTRY(vsock_conn) rd_link;    /* v->rd, when on_rd */
	enum vsock_state state;
	uint32_t slot;           /* index in v->conn */
	uint32_t host_port, guest_port;
	int fd;                  /* the host's end; owned; -1: gone, or the agent's announcement */
	bool handshake;          /* "OK" is due */
	bool from_guest;         /* the agent's announcement */
	bool on_ctl, on_rd;
	uint32_t pend;           /* VSOCK_PEND_* */
	uint32_t shut_want, shut_told; /* VIRTIO_VSOCK_SHUTDOWN_*: what the guest should know, what it was told */

	/* host to guest */
	bool readable;           /* fd may have data: cleared by EAGAIN, set by epoll's next edge */
	bool hup;                /* the client has closed */
	bool bulk;               /* the last read filled all it was given: the next is given more */
	bool host_eof;           /* all the client's data was read */
	bool guest_no_recv;      /* the guest takes no more data */
	bool asked;              /* CREDIT_REQUEST was sent since credit ran out */
	uint32_t peer_buf_alloc, peer_fwd_cnt; /* the guest's credit, as of its last packet */
	uint32_t tx_cnt;         /* payload bytes sent to the guest, free-running */
	uint32_t unread_end[VSOCK_MAX_UNREAD]; /* tx_cnt at the end of each packet the guest has not consumed */
	uint32_t unread_first, unread_n;

	/* guest to host */
	bool host_gone;          /* the client takes no more data: what the guest sends is dropped */
	bool guest_no_send;      /* the guest sends no more data */
	bool eof_told;           /* fd was shut down for writing */
	uint32_t rx_cnt;         /* payload bytes the guest has sent, free-running */
	uint32_t fwd_cnt;        /* of these, handed to the client or dropped */
	uint32_t told_fwd_cnt;   /* fwd_cnt as the guest knows it */
	uint8_t *out;            /* ring of VIRTIO_VSOCK_BUF_BYTES, while the client is slow; NULL otherwise */
	uint32_t out_head, out_len;

	uint64_t deadline;       /* LINGER: CLOCK_MONOTONIC, ns */
};

TAILQ_HEAD(vsock_list, vsock_conn);

/* A reset that belongs to no connection. */
struct vsock_rst {
	uint64_t src_cid;
	uint32_t src_port, dst_port;
	uint16_t type;
};

struct virtio_vsock {
	struct virtio_dev dev;
	struct loop *loop;            /* borrowed */
	struct loop_source *source;
	int epfd, listen_fd, timer_fd, kick_fd;
	bool listen_ready;            /* the backlog may hold clients */
	bool agent_ready;             /* the agent has announced itself to this driver */
	bool tell_ready;              /* the callback is due */
	virtio_vsock_ready_fn *ready;
	void *ready_ctx;

	struct vsock_conn *conn[VIRTIO_VSOCK_MAX_CONNS];
	uint32_t generation[VIRTIO_VSOCK_MAX_CONNS]; /* of each slot: tells old epoll events and old ports from new */
	uint16_t free_slot[VIRTIO_VSOCK_MAX_CONNS];
	uint32_t n_free, n_waiting, n_announced;
	struct vsock_list waiting, announced, linger, dead;
	struct vsock_list ctl;        /* have a control packet for the guest */
	struct vsock_list rd;         /* have data for the guest, and credit */
	struct vsock_rst rst[VSOCK_MAX_RSTS];
	uint32_t rst_first, rst_n;

	struct virtio_vsock_stats stats;
	struct virtio_vsock_config config;
	struct virtq_chain chain;     /* the chain being worked on: a packet from the guest, or room for a control packet */
	struct virtq_chain batch[VSOCK_BATCH]; /* room for data packets */
	struct iovec iov[VSOCK_MAX_IOV];
};

/* vsock_conn.c */

/* A connection in state HELLO with fd (owned on success; may be -1), or NULL when there is no slot or no memory. */
struct vsock_conn *vsock_conn_new(struct virtio_vsock *v, int fd);
/* Goes on from HELLO: connects, or waits for the agent; dies when too many wait. */
void vsock_conn_start(struct vsock_conn *c, uint32_t guest_port);
/* Sends REQUEST for one that waits. */
void vsock_conn_request(struct vsock_conn *c);
/* The agent's announcement. */
void vsock_conn_accept(struct virtio_vsock *v, const struct virtio_vsock_hdr *h);
/* Puts c on the lists where its state says it belongs. To be called after every change. */
void vsock_conn_update(struct vsock_conn *c);
/* Closes the host's end and forgets what was buffered for it. */
void vsock_conn_drop_host(struct vsock_conn *c);
/* Ends c at once, telling the guest with RST if it knows of it. */
void vsock_conn_abort(struct vsock_conn *c);
void vsock_conn_kill(struct vsock_conn *c);
/* The guest's end has gone without our telling (RST, or the driver's reset). */
void vsock_conn_guest_gone(struct vsock_conn *c);
/* epoll's events for c's socket, in every state but HELLO. */
void vsock_conn_event(struct vsock_conn *c, uint32_t events);
/* The host's end has no more data. */
void vsock_conn_host_eof(struct vsock_conn *c);
/* Bytes that may be sent to the guest now. */
uint32_t vsock_conn_credit(const struct vsock_conn *c);
/* One packet from the guest, in v->chain. -1: the chain breaks the protocol of the device itself. */
int vsock_packet(struct virtio_vsock *v);
/* Frees the dead. At the end of every section that holds the lock. */
void vsock_reap(struct virtio_vsock *v);

/* vsock_rx.c */

/* Moves control packets and data into the guest's rx buffers, until there is nothing to send or nowhere to put it. */
void vsock_pump(struct virtio_vsock *v);

/* vsock_state.c: the operations of struct virtio_dev_ops */
void vsock_save(struct virtio_dev *d, struct buf *out);
int vsock_load(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err);
void vsock_resume(struct virtio_dev *d);

/* vsock.c */

/* Wakes the loop's thread for this device. */
void vsock_kick(struct virtio_vsock *v);
/* Arms the timer for the first lingering connection. */
void vsock_arm_linger(struct virtio_vsock *v);
/* Makes the rst for the packet h, if it is not one itself. */
void vsock_refuse(struct virtio_vsock *v, const struct virtio_vsock_hdr *h);

#endif
