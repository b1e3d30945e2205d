/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of virtio-fs share: fs.c (the device and its queues), fs_link.c (the connection) and fs_state.c (snapshots). All
 * of it with the device's lock held. */
#ifndef VIRTIO_FS_INTERNAL_H
#define VIRTIO_FS_INTERNAL_H

#include <linux/fuse.h>
#include <linux/virtio_fs.h>

#include "virtio/fs.h"

#define FS_QUEUES   2   /* high priority, requests */
#define FS_IN_BYTES 8192 /* read ahead from the socket: a row of small replies, or the start of a large one */

/* What fs_link_send() returns: */
enum fs_sent {
	FS_SENT,  /* wholly, or a copy of the rest is kept */
	FS_AGAIN, /* nothing: there is no room */
	FS_GONE,  /* the connection ended */
};

/* A request that waits for its reply. The guest's buffers are remembered by their guest-physical addresses, which the queue has
 * checked once and which are resolved again when the reply is there. */
struct fs_request {
	bool used;
	bool orphan;       /* the driver it came from has reset the device: nobody waits any more */
	uint8_t queue;
	uint16_t head;     /* of its chain */
	uint16_t n_segs;
	uint32_t opcode;
	uint32_t room;     /* bytes in the buffers */
	uint32_t payload;  /* bytes of file contents in a WRITE */
	uint32_t turn;     /* counts the uses of this slot, so that a late reply to an earlier one is not taken for this one's */
	uint64_t unique;   /* the guest's */
	struct {
		uint64_t gpa;
		uint32_t len;
	} seg[VIRTQ_MAX_SIZE];
};

struct virtio_fs {
	struct virtio_dev dev;
	struct loop *loop;          /* borrowed */
	struct loop_source *source;
	int epfd, kick_fd;
	int fd;                     /* the connection; -1: none */
	uint32_t armed;             /* events epoll watches fd for */
	bool blocked;               /* the socket is full; EPOLLOUT is awaited */
	bool retry;                 /* a queue may have work that nobody will notify about */
	bool gone;                  /* the connection is to be dropped at the end of this section */
	struct virtio_fs_config config;
	struct virtio_fs_stats stats;
	struct fs_request request[VIRTIO_FS_MAX_REQUESTS];
	uint16_t free[VIRTIO_FS_MAX_REQUESTS]; /* a stack of slots */
	unsigned n_free;
	uint8_t *state;             /* between load and resume: parts of the server's state, each behind its length; owned */
	uint32_t state_len;
	bool used[FS_QUEUES];       /* chains were pushed in this section */
	/* The rest of a request that was sent in part. */
	uint8_t *tail;              /* VIRTIO_FS_MAX_MESSAGE bytes, made when first needed */
	uint32_t tail_head, tail_len;
	/* What was received: [in_head, in_head + in_len) of `in`, and the reply whose body is coming. */
	uint8_t in[FS_IN_BYTES];
	uint32_t in_head, in_len;
	struct fs_request *current; /* NULL: a header is next */
	uint32_t body_done, body_len;
	int32_t error;              /* of the current reply */
	struct virtq_chain chain;   /* the chain being worked on */
	struct iovec iov[VIRTQ_MAX_SIZE + 2];
};

/* fs.c */
/* Gives the chain of a finished request, `len` bytes of whose buffers are filled, back to the driver and frees the slot. */
void fs_finish(struct virtio_fs *f, struct fs_request *r, uint32_t len);
/* The request that a reply's `unique` names, or NULL. */
struct fs_request *fs_find(struct virtio_fs *f, uint64_t unique);
/* Copies into a request's buffers at offset off, and reports the write to mem; the caller has checked that it fits. */
void fs_copy_in(struct virtio_fs *f, const struct fs_request *r, uint32_t off, const void *p, uint32_t n);
/* The segments of [off, off + n) of a request's buffers; returns their number. */
unsigned fs_slice(const struct virtio_fs *f, const struct fs_request *r, uint32_t off, uint32_t n, struct iovec *out);
/* After n bytes at off were written through fs_slice(). */
void fs_written(struct virtio_fs *f, const struct fs_request *r, uint32_t off, uint32_t n);

/* fs_link.c */
/* Sends the n parts in iov, total bytes in all. */
enum fs_sent fs_link_send(struct virtio_fs *f, struct iovec *iov, unsigned n, uint32_t total);
/* Sends what is left of the last request. FS_SENT when nothing is left. */
enum fs_sent fs_link_flush(struct virtio_fs *f);
/* Takes replies, a bounded number. True when there may be more. */
bool fs_link_receive(struct virtio_fs *f);

/* A request of our own, and its reply, which is waited for at most ms milliseconds; no other request may be in flight. The reply's
 * body, *len bytes of it, is owned by the caller; NULL when there is none. */
uint8_t *fs_link_exchange(struct virtio_fs *f, uint32_t opcode, uint64_t nodeid, const void *body, uint32_t n, uint32_t *len, unsigned ms);

/* fs_state.c: struct virtio_dev_ops */
void fs_state_save(struct virtio_dev *d, struct buf *out);
int fs_state_load(struct virtio_dev *d, struct buf_reader *r, struct cai_error *err);
void fs_state_resume(struct virtio_dev *d);

/* fs.c */
/* Answers all requests in flight with an error. */
void fs_fail_all(struct virtio_fs *f, int error);
/* Ends every section that may have done something. */
void fs_settle(struct virtio_fs *f);

#endif
