/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's function "prepare" (proto/agent.h): its mounts are made by the agent itself, so that they stay; everything else, the warm-up, by a
 * process that leaves nothing behind but what the kernel has in memory.
 */
#ifndef GUEST_PREPARE_H
#define GUEST_PREPARE_H

#include <stdbool.h>

#include "base/error.h"
#include "guest/rootfs.h"

struct prepare {
	struct rootfs_plan root; /* borrowed from argv, as is command */
	char *const *command;    /* NULL: the usual */
};

/* argv: "prepare" and the words behind it. */
int prepare_parse(char *const *argv, struct prepare *p, struct cai_error *err);
/* The warm-up, in a process of its own, once p's mounts are made. */
int prepare_warm_up(char *const *argv, struct cai_error *err);

#endif
