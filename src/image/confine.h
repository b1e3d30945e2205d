/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jail of the process that reads layers. After confine_enter() a process can compute, use the descriptors
 * it has, get memory up to a limit, and exit: no file can be opened, no socket made, no program run, no
 * process started.
 */
#ifndef IMAGE_CONFINE_H
#define IMAGE_CONFINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct confine_limits {
	uint64_t memory; /* bytes of address space */
	uint64_t file;	 /* largest file written */
};

/*
 * In the child: drops to nobody where that is possible, enters namespaces of its own with an empty root (as
 * far as the host allows them; they are a second wall), lowers limits, empties the capability sets, and
 * installs the system call filter, which is required. files: the process must read a directory tree of the
 * user's (an import of a directory); it then keeps its identity, root and CAP_DAC_READ_SEARCH, and may open
 * files for reading.
 */
int confine_enter(const struct confine_limits *l, bool files, struct cai_error *err);

#endif
