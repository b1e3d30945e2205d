/* SPDX-License-Identifier: Apache-2.0 */
/* The files of /etc that belong to the sandbox, not to its image. Of the current root directory. */
#ifndef GUEST_ETC_H
#define GUEST_ETC_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"
#include "proto/agent.h"

/* hostname, hosts and resolv.conf, open for writing; -1 where there is nothing prepared. */
enum { ETC_HOSTNAME, ETC_HOSTS, ETC_RESOLV, ETC_FILES };
struct etc {
	int fd[ETC_FILES];
	bool ours[ETC_FILES]; /* the image has no such file, or an empty one */
	size_t size[ETC_FILES];
	mode_t mode[ETC_FILES];
};
#define ETC_INIT {.fd = {-1, -1, -1}}

/* Makes dir's files such that etc_write, later, has the least to do: in the upper layer, with what they say now; a newline where that is nothing. Nothing else may change
 * them in between. */
void etc_prepare(struct etc *e, const char *dir);
void etc_forget(struct etc *e); /* they are not needed */

/*
 * Writes hostname, hosts and resolv.conf. hosts and resolv.conf say what m says, and where it is silent what a machine without a
 * network needs, unless the image has something there. A link in the place of one is replaced. Where the root is read-only, what m gives
 * is mounted over the image's file; only a failure with such a file is one of the function. e: what was prepared, forgotten afterwards.
 */
int etc_write(struct etc *e, const struct agent_setup *m, struct cai_error *err);

/*
 * The same for a machine on which programs run: what m gives replaces what is there at once, never leaving a moment without, and m's silence changes
 * nothing. /etc/machine-id, where it is a file that is not empty, gets a new random id. Only files of the root itself are
 * written, or those that were mounted over it by etc_write; /etc or a file of it that is another mount may be the host's, and is left alone.
 */
int etc_renew(const struct agent_setup *m, struct cai_error *err);

#endif
