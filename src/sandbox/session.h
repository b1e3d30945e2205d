/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One process in the guest, seen from the host: the agent's stream, and the caller's stdin, stdout and stderr
 * joined to it.
 *
 * Single-threaded on the loop. Descriptors are borrowed except the stream, which the session owns.
 */
#ifndef SANDBOX_SESSION_H
#define SANDBOX_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "proto/agent.h"

struct session;

enum session_end {
	SESSION_EXITED = 1, /* exit and signal are set */
	SESSION_REFUSED,    /* the agent said ERROR: error_code and text are set */
	SESSION_DETACHED,   /* as session_detach asked: pid is set, the process goes on */
	SESSION_LOST,	    /* the stream ended or carried nonsense: text says which */
};

struct session_config {
	int stream;	  /* connected agent.sock, non-blocking; owned by the session from now on */
	bool connect_line; /* it is a monitor's, which is told the port first */
	int in, out, err; /* in -1: no standard input */
	const struct agent_setup *setup; /* borrowed until the session has ended; the clock and entropy are
					    filled in when it is sent; NULL: the machine is set up already */
	const struct agent_start *start; /* borrowed until the session has ended; NULL: attach, or POWEROFF */
	uint32_t attach;		 /* the process of a detached session to go on with; 0: none */
	void (*output)(void *ctx, int fd, const void *p, size_t n); /* all that the program writes (fd 1 or 2), once;
								       or NULL */
	void (*started)(void *ctx);	 /* the process runs */
	void (*ended)(void *ctx);	 /* called once; session_result tells how */
	void *ctx;
};

struct session_result {
	enum session_end end; /* 0: not ended */
	uint32_t status, signal, error_code, pid;
	bool oom;	 /* something in the guest was killed for memory */
	int lost_output; /* errno when standard output failed other than by a closed reader */
	char text[480];
};

/* Begins: sends CONNECT. NULL with *err on failure; the stream is closed then too. */
struct session *session_new(struct loop *l, const struct session_config *c, struct cai_error *err);
void session_free(struct session *s); /* NULL is allowed */

/* Takes the stream off the process, which goes on: ends with SESSION_DETACHED, or as the process ends. */
void session_detach(struct session *s);
bool session_running(const struct session *s); /* between started and ended */
void session_signal(struct session *s, int signo);
void session_resize(struct session *s, uint16_t rows, uint16_t cols);
const struct session_result *session_result(const struct session *s);
const char *session_guest_kernel(const struct session *s); /* from HELLO; NULL before it */

#endif
