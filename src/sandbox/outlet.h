/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing to descriptors that others own and share (standard output, standard error) without ever blocking
 * and without setting O_NONBLOCK on them, which would change them under every other process that has them
 * open.
 */
#ifndef SANDBOX_OUTLET_H
#define SANDBOX_OUTLET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct outlet {
	int fd;	      /* borrowed */
	size_t chunk; /* most bytes in one write that cannot block once poll(2) said writable; 0: writes never
			 block long */
	bool socket;
	int broken; /* errno of the write that failed for good, else 0 */
};

void outlet_init(struct outlet *o, int fd);
/* Writes what can be written now. Returns how much (n when it was all); less than n means: wait for POLLOUT.
 * After a failure o->broken is set and everything is swallowed. */
size_t outlet_write(struct outlet *o, const void *p, size_t n);

#endif
