/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-fs (virtio 1.2 section 5.11): one high-priority and one request queue, whose FUSE requests another process serves
 * (caisson-fs(8)) at the other end of a connected Unix stream socket.
 *
 * The rings stay here and requests are passed on by copy, because guest memory that was restored from a snapshot is a private
 * mapping that no other process can share; and so the server, which holds descriptors of the host's files, sees nothing of the guest
 * but its requests.
 *
 * On the socket a request is its FUSE message (struct fuse_in_header and body), a reply its own (struct fuse_out_header and
 * body); `len` in the header tells where it ends. `unique` is the device's, not the guest's. FORGET, BATCH_FORGET and INTERRUPT
 * have no reply.
 *
 * The server is trusted no more than the guest: a reply that nobody waits for, or longer than the guest's buffers, ends the
 * connection. When the connection ends, every request is answered with ENOTCONN, those in flight too.
 *
 * A snapshot holds what the server knows of the guest's files; the monitor asks it for that with requests of its own (VIRTIO_FS_OP_*, which
 * no guest can send), and tells another server after a restore. Requests still in flight when the state is saved fail with EIO in
 * the restored guest.
 *
 * At most VIRTIO_FS_MAX_REQUESTS are in flight; beyond that, and while the socket is full, the queues wait.
 *
 * Thread rules: create and destroy on the loop's thread. Everything else from any thread. The device has an epoll set of its
 * own, of which the loop watches the one descriptor.
 */
#ifndef VIRTIO_FS_H
#define VIRTIO_FS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "virtio/virtio.h"

#define VIRTIO_FS_TAG_LEN      36
#define VIRTIO_FS_MAX_REQUESTS 256
#define VIRTIO_FS_MAX_MESSAGE  ((1u << 20) + (64u << 10)) /* bytes in a request or reply */

/* The same as FS_OP_* and FS_LOAD_* in fs/server.h, which says what they do. */
#define VIRTIO_FS_OP_SAVE    0x43530001u
#define VIRTIO_FS_OP_LOAD    0x43530002u
#define VIRTIO_FS_LOAD_FIRST 1u
#define VIRTIO_FS_LOAD_LAST  2u
#define VIRTIO_FS_MAX_STATE  (16u << 20) /* bytes; what is more is not saved, and the guest looks its files up again */

struct virtio_fs_stats {
	uint64_t requests;                  /* taken from the queues */
	uint64_t read_bytes, written_bytes; /* of files */
	unsigned in_flight;                 /* waiting for the server */
	bool connected;
};

struct virtio_fs;

/* fd: a connected Unix stream socket, owned from a successful return on and made non-blocking; -1: none yet. tag: NUL-padded.
 * loop: NULL in tests that call virtio_fs_poll() themselves. */
struct virtio_fs *virtio_fs_create(struct mem *mem, struct irq_line irq, struct loop *loop, int fd, const char tag[VIRTIO_FS_TAG_LEN],
				   struct cai_error *err);
/* On the loop's thread after vCPUs have stopped. Closes the socket. NULL is allowed. */
void virtio_fs_destroy(struct virtio_fs *f);
struct virtio_dev *virtio_fs_dev(struct virtio_fs *f); /* for the transport; borrowed */

/* Gives a device without a connection one. fd: owned from a successful return on. */
int virtio_fs_attach(struct virtio_fs *f, int fd, struct cai_error *err);

/* Handles what is ready on the socket without blocking: what the loop calls. */
void virtio_fs_poll(struct virtio_fs *f);
/* Before the machine's state is saved, with vCPUs stopped: waits until no request is in flight, at most ms milliseconds. True when
 * none is. */
bool virtio_fs_drain(struct virtio_fs *f, unsigned ms);

void virtio_fs_get_stats(struct virtio_fs *f, struct virtio_fs_stats *s);

#endif
