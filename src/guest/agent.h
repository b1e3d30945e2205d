/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's core: sessions of the agent protocol (proto/agent.h) over connected stream sockets. It knows nothing of being
 * PID 1, of vsock or of mounts: what touches the machine comes in as operations, so that it runs as well in a test on the host.
 *
 * One thread owns an agent and everything in it. The thread must have SIGCHLD blocked and SIGPIPE ignored.
 */
#ifndef GUEST_AGENT_H
#define GUEST_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "guest/spawn.h"
#include "proto/agent.h"

#define AGENT_MAX_SESSIONS 256

struct agent_ops {
	/* SETUP. On failure *code is what the host is told (enum agent_error_code). */
	int (*setup)(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err);
	/* START of the function "prepare", before its process is started; likewise. NULL: there is nothing to prepare. */
	int (*prepare)(void *ctx, char *const *argv, uint32_t *code, struct cai_error *err);
	void (*prepared)(void *ctx); /* its process has ended with 0; NULL where prepare is */
	/* SETUP of a machine that is set up already, likewise. NULL: accepted, there is nothing to do. */
	int (*renew)(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err);
	/* POWEROFF. Does not return in a real machine; where it does, the agent's loop stops. */
	void (*poweroff)(void *ctx);
	/* START: spawn_process, or what a test puts in its place. */
	int (*spawn)(const struct agent_start *m, enum spawn_how how, struct spawned *s, struct cai_error *err);
	unsigned (*signal_session)(pid_t leader, int sig); /* spawn_signal_session, likewise */
	uint64_t (*oom_kills)(void *ctx); /* what the kernel has killed for memory so far, for EXIT's AGENT_EXIT_OOM; may be NULL */
	void *ctx;
	bool first_together; /* SPAWN_TOGETHER for the first process after a SETUP without shared directories: only local disks can make it wait */
	bool reap_all; /* PID 1: reap every child, also those it never started */
};

struct agent;

/* ops is copied. */
struct agent *agent_new(const struct agent_ops *ops, struct cai_error *err);
/* Closes all streams; processes get SIGKILL. NULL is allowed. */
void agent_free(struct agent *a);

/* Accepts connections from a listening socket; owned by the agent from here on, also on failure. */
int agent_listen(struct agent *a, int fd, struct cai_error *err);
/* Serves one connected stream socket; owned by the agent from here on, also on failure. */
int agent_add_stream(struct agent *a, int fd, struct cai_error *err);

int agent_run(struct agent *a, struct cai_error *err); /* until agent_stop */
void agent_stop(struct agent *a);
unsigned agent_sessions(const struct agent *a);

#endif
