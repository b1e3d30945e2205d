/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jail of a process that reads what is hostile: layers, archives, what a sandbox sends. After
 * confine_enter() a process can compute, use the descriptors it has, get memory up to a limit, and exit: no
 * socket can be made, no program run, no process started, and of files only what its kind allows.
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

enum confine_kind {
	/* No file is opened any more; root becomes nobody. */
	CONFINE_NO_FILES,
	/* Files below a directory are opened for reading; the process keeps its identity, root
	 * CAP_DAC_READ_SEARCH. */
	CONFINE_READ_TREE,
	/* Files below a directory are made, replaced and removed; the process keeps its identity, root what
	 * ignores permissions. */
	CONFINE_WRITE_TREE,
	/* The same, and root may give files away and make them set-user-id. */
	CONFINE_WRITE_TREE_OWNERS,
};

/*
 * Enters namespaces of its own (as far as the host allows them; they are a second wall), restricts the
 * process to the directory tree (open for reading; ignored for CONFINE_NO_FILES) through Landlock where the
 * kernel has it, lowers limits, empties the capability sets, and installs the system call filter, which is
 * required. With CONFINE_WRITE_TREE the tree becomes the process's root directory where the host allows that,
 * and the descriptor leads to that root. There is no way back.
 */
int confine_enter(const struct confine_limits *l, enum confine_kind kind, int tree, struct cai_error *err);

#endif
