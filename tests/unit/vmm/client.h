/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of a monitor under test, which runs in a child process without the jail. */
#ifndef TESTS_VMM_CLIENT_H
#define TESTS_VMM_CLIENT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/control.h"
#include "vmm/fatal.h"

struct client {
	pid_t pid;
	int sock;
	struct control_config cfg;
	char console[4096]; /* what the guest has written, after client_end */
	int console_fd;
};

/* What came back, owned fields released by client_free_answer. */
struct answer {
	struct control_header h;
	char *text; /* of ERROR */
	struct control_status status;
	struct control_ended ended;
};

/* Starts a monitor; cfg is ready for a guest with that program. */
void client_begin(struct client *c, const void *program, size_t n);
/* Sends CONFIGURE as it stands in c->cfg. */
void client_configure(struct client *c);
void client_send(struct client *c, enum control_type type);
void client_send_raw(struct client *c, const void *p, size_t n, const int *fds, unsigned n_fds);
/* The next packet on a socket; fails the test when the monitor closes it instead. */
void client_receive(int sock, struct answer *a);
/* The next packet, which must have that type. */
void client_expect(struct client *c, enum control_type type, struct answer *a);
void client_free_answer(struct answer *a);
/* CONFIGURE and START, both answered with OK. */
void client_start(struct client *c);
/* Closes the socket, waits for the process, returns its wait status. */
int client_end(struct client *c);

#endif
