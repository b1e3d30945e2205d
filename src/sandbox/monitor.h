/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One caisson-vmm process, seen from the side that started it: its control socket, its diagnostics and its
 * end. Not thread-safe; everything happens on the loop's thread.
 */
#ifndef SANDBOX_MONITOR_H
#define SANDBOX_MONITOR_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "proto/control.h"

struct monitor {
	pid_t pid;   /* 0 when there is none */
	int control; /* our end of the control socket, non-blocking; -1 when closed */
	int log;     /* read end of the monitor's stderr, non-blocking */
	uint32_t seq;
	int wait_status; /* valid once reaped */
	bool reaped;
};

void monitor_init(struct monitor *m);
/* Starts the program in a session of its own, with nothing of ours open but its end of the control socket.
 * prepare is called in the child before that. */
int monitor_start(struct monitor *m, const char *program, void (*prepare)(void *ctx), void *ctx, struct cai_error *err);
/* Sends CONFIGURE with the descriptors of *c (still the caller's), then START, without waiting; replies have
 * sequence 1 and 2. */
int monitor_boot(struct monitor *m, const struct control_config *c, struct cai_error *err);

struct monitor_event {
	enum control_type type;
	uint32_t seq;
	uint32_t errnum;	    /* CONTROL_ERROR */
	char *text;		    /* CONTROL_ERROR; owned */
	struct control_ended ended; /* CONTROL_ENDED; owned */
	struct control_status status;
};
/* The next packet: 1 and *e filled (release with monitor_event_free), 0 when there is none now, -1 when the
 * monitor is gone or sent nonsense. */
int monitor_next(struct monitor *m, struct monitor_event *e);
void monitor_event_free(struct monitor_event *e);

/* Ends the monitor: STOP, then at most 2 s for it to go, then SIGKILL; reaps it. Safe to call twice and
 * before monitor_start. */
void monitor_stop(struct monitor *m);
/* How it ended, as a clause: "was killed by signal 9 (Killed)". Call after monitor_stop. */
void monitor_describe_end(const struct monitor *m, char *out, size_t n);

#endif
