/* SPDX-License-Identifier: Apache-2.0 */
/* The user's terminal: raw while the guest has it, and as it was afterwards, however that comes. */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>
#include <termios.h>

struct terminal {
	int fd; /* borrowed; -1: there is none */
	struct termios saved;
	bool raw;
	bool keep_quit; /* Ctrl-\ still raises SIGQUIT here */
};

/* Raw mode; may stop this process (SIGTTOU) until it is brought to the foreground. Again after a stop is
 * harmless. */
void terminal_raw(struct terminal *t);
void terminal_restore(struct terminal *t); /* harmless when not raw */
/* The size of the first of the descriptors that is a terminal; zeros when none is. */
void terminal_size(const int *fds, unsigned n, uint16_t *rows, uint16_t *cols);

#endif
