/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host's side of the agent protocol for tests: an agent in a child process that serves a Unix socket, and blocking helpers that fail
 * the test when nothing comes within WAIT_MS.
 */
#ifndef TEST_GUEST_CLIENT_H
#define TEST_GUEST_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/agent.h"

#define WAIT_MS 20000

struct server {
	pid_t pid;
	char path[108];
};

/* What a whole session brought. */
struct outcome {
	struct buf out, err;        /* STDOUT and STDERR */
	uint32_t pid;               /* of STARTED, 0 without */
	bool exited;                /* EXIT came */
	struct agent_exit exit;
	uint32_t error_code;        /* of ERROR, 0 without */
	char error[1100];
};

void server_start(struct server *s);      /* past SETUP */
void server_start_bare(struct server *s); /* SETUP is still to come */
void put_setup(struct buf *b, const char *dev); /* "/dev/bad" fails, at first */
/* POWEROFF, and the agent's process must end with status 0 (no leak, no fault). */
void server_stop(struct server *s);

int client_connect(const struct server *s);                 /* past HELLO */
void client_send(int fd, const struct buf *b);               /* and frees b */
unsigned client_recv(int fd, uint8_t **body, uint32_t *len); /* a frame's type, 0 at the stream's end; body is the caller's */
void client_start(int fd, const struct agent_start *m);
/* Reads to EXIT, ERROR or the stream's end. */
void client_finish(int fd, struct outcome *o);
void outcome_free(struct outcome *o);

/* START of "sh -c script" with pipes, to its end. stdin_flag: AGENT_START_STDIN or 0. */
void run_script(const struct server *s, const char *script, struct outcome *o);
bool outcome_says(const struct outcome *o, const char *text); /* STDOUT is exactly this */

#endif
