/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket's server: takes packets apart, keeps the order of requests, answers. What a request does is the
 * business of the operations it is given. All on the loop's thread.
 */
#ifndef VMM_SERVER_H
#define VMM_SERVER_H

#include <stdbool.h>

#include "base/error.h"
#include "base/loop.h"
#include "proto/control.h"
#include "vmm/fatal.h"

#define SERVER_MAX_CLIENTS FATAL_MAX_SOCKETS

struct server_ops {
	/* Takes *cfg over in every case. After a failure, which is told to the client, the server stops the loop. */
	int (*configure)(void *ctx, struct control_config *cfg, struct cai_error *err);
	int (*start)(void *ctx, struct cai_error *err);
	int (*pause)(void *ctx, struct cai_error *err);
	int (*resume)(void *ctx, struct cai_error *err);
	/* The guest is paused or, with running, has to be for it and goes on afterwards; with CONTROL_SNAPSHOT_STOP it does not after success. The
	 * request's descriptors stay the caller's. */
	int (*snapshot)(void *ctx, const struct control_snapshot *q, bool running, struct cai_error *err);
	/* a->fd is the machine's after success. */
	int (*attach)(void *ctx, const struct control_attach *a, struct cai_error *err);
	/* All but state and ready is to be filled. */
	void (*query)(void *ctx, struct control_status *s);
	/* A client asked for the end (and has its OK), or (gone = true) no client is left. */
	void (*stop)(void *ctx, bool gone);
};

struct server;
struct server_client {
	struct server *server;
	int fd; /* -1: free */
	struct loop_source *source;
};

struct server {
	struct loop *loop; /* borrowed */
	const struct server_ops *ops;
	void *ctx;
	struct fatal *fatal; /* borrowed: told of the clients' sockets; may be NULL */
	struct server_client client[SERVER_MAX_CLIENTS];
	int listen_fd; /* owned; -1: none */
	struct loop_source *listen_source, *listen_timer;
	enum control_state state;
	bool ready, failed; /* the agent has announced itself; CONFIGURE failed */
	uint8_t *packet;    /* CONTROL_MAX_PACKET */
};

/* fd: the first client's socket, owned from a successful return on and made non-blocking. */
int server_init(struct server *s, struct loop *loop, int fd, struct fatal *fatal, const struct server_ops *ops, void *ctx,
		struct cai_error *err);
void server_fini(struct server *s);

/* Further clients may connect to fd, a listening socket, owned from a successful return on. */
int server_listen(struct server *s, int fd, struct cai_error *err);

/* READY to every client; later ones see it in STATUS. */
void server_send_ready(struct server *s);
/* ENDED to every client; waits a moment for one that reads slowly. */
void server_send_ended(struct server *s, const struct control_ended *e);

/* Without a server: reads one request from fd and answers it with *why. */
void server_refuse(int fd, const struct cai_error *why);

#endif
