/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the guest's serial port and the two descriptors the client gave for it. All on the loop's thread, but for
 * console_wake and console_space, which are the serial port's callbacks and may come from any.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/loop.h"
#include "dev/serial.h"

struct console {
	struct loop *loop;        /* borrowed */
	struct serial *serial;    /* borrowed */
	int out_fd, in_fd;        /* borrowed; -1: none */
	struct loop_source *out_source, *in_source, *timer;
	atomic_bool out_wanted;   /* the port has output waiting */
	atomic_bool in_wanted;    /* the port has room for input again */
	bool armed;               /* the timer runs */
	bool whole_line;          /* some line has been completed in this round */
	bool out_blocked;         /* waiting for the descriptor to take more */
	char out[1024], in[256];
	size_t out_len, in_len;   /* bytes pending in each */
	void (*written)(void *ctx); /* a line has been completed; set by the caller, or NULL */
	void *ctx;
};

/* c->serial is set by the caller when it exists (the port's callbacks point here first). */
int console_init(struct console *c, struct loop *loop, int out_fd, int in_fd, struct cai_error *err);
void console_wake(void *console);
void console_space(void *console);
/* Called on the loop's thread after loop_wake(). */
void console_on_wake(struct console *c);
/* Writes what can be written now: before the monitor ends. */
void console_flush(struct console *c);
/* The last output as text, NULs left out, malloc'd; NULL only without memory. */
char *console_tail(struct console *c);

#endif
