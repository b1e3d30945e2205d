/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Last words: signals after which the monitor cannot go on. SIGSYS is a call that the jail forbids; SIGBUS inside guest RAM is
 * the host being unable to provide a page of it. Both end in a CONTROL_ENDED to every control client and in _exit().
 * Other crashes are left to kill the process; the client sees its socket close.
 */
#ifndef VMM_FATAL_H
#define VMM_FATAL_H

#include <stdatomic.h>

#include "base/buf.h"
#include "base/error.h"
#include "mem/mem.h"

#define FATAL_MAX_SOCKETS 8
#define FATAL_EXIT        1 /* exit status after last words */

/* What the handler may use: nothing in it is allocated or locked when a signal comes. */
struct fatal {
	atomic_bool speaking; /* a thread is sending the last packet */
	atomic_int socket[FATAL_MAX_SOCKETS]; /* control clients, -1 where none; the server keeps them up to date */
	const struct mem *mem;                /* borrowed; NULL before there is any */
	struct buf packet;                    /* big enough from the start */
};

/* Prepares *f, which must live as long as the process, and installs the handlers. Once a process. */
int fatal_install(struct fatal *f, struct cai_error *err);

#endif
