/* SPDX-License-Identifier: Apache-2.0 */
/* Starting one process of the guest: user, limits, directory, environment, terminal or pipes. */
#ifndef GUEST_SPAWN_H
#define GUEST_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "proto/agent.h"

/* The agent's side of a process. Descriptors are non-blocking, close-on-exec, and the caller's; -1 where absent. */
struct spawned {
	pid_t pid;
	bool tty;   /* in and out are two descriptors of the same terminal */
	int in;     /* where its stdin is written; -1 without AGENT_START_STDIN */
	int out;    /* its stdout, or the terminal; -1 with AGENT_START_DETACH */
	int err;    /* its stderr; -1 with a terminal or AGENT_START_DETACH */
	int report; /* readable once the program runs (end of file) or could not be started (a struct spawn_report) */
};
#define SPAWNED_NONE ((struct spawned){.pid = -1, .in = -1, .out = -1, .err = -1, .report = -1})

/* What a child that could not become the program says; one write of less than PIPE_BUF bytes. */
struct spawn_report {
	uint32_t code;   /* enum agent_error_code */
	int32_t errnum;
	char text[480];  /* NUL-terminated */
};

enum spawn_how {
	SPAWN_APART,    /* the child gets a copy of memory */
	SPAWN_TOGETHER, /* it shares the caller's until it is the program, and the caller waits: much less work, for when nothing can make it wait */
};

/*
 * Forks; everything that may block or fail on what the image holds happens in the child, so that it costs only this process.
 * 0, or -1 with *err when there is not even a child.
 */
int spawn_process(const struct agent_start *m, enum spawn_how how, struct spawned *s, struct cai_error *err);

/*
 * Sends sig to every process of the session that process `leader` began (POSIX sense: what setsid began, in all its process groups);
 * with sig 0 only counts them. Returns how many there were, zombies not counted. Reads /proc.
 */
unsigned spawn_signal_session(pid_t leader, int sig);

/* Closes what is open and forgets it; the process itself is left alone. */
void spawned_close(struct spawned *s);

#endif
