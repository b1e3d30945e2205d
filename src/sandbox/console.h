/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's serial port joined to the caller's descriptors: for guests without the agent, and for watching
 * a boot. */
#ifndef SANDBOX_CONSOLE_H
#define SANDBOX_CONSOLE_H

#include "base/loop.h"

struct console;

/* in -1: no input. With `lossy`, output that the outlet cannot take at once is dropped, so that watching
 * never slows the guest. *guest_out and *guest_in (-1 without input) are the monitor's ends, owned by the
 * caller. */
struct console *console_new(struct loop *l, int in, int out, bool lossy, int *guest_out, int *guest_in,
			    struct cai_error *err);
/* Moves what the guest has written already; call when the guest has ended. */
void console_drain(struct console *c);
void console_free(struct console *c); /* NULL is allowed */

#endif
