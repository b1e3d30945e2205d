/* SPDX-License-Identifier: Apache-2.0 */
/* Network namespaces of the calling thread. Needs /proc. */
#ifndef NET_NETNS_H
#define NET_NETNS_H

#include <stdint.h>

#include "base/error.h"

/* The calling thread's namespace, close-on-exec; -1 on failure. */
int netns_current(struct cai_error *err);
/* Moves the calling thread into a new, empty one and returns it. */
int netns_create(struct cai_error *err);
int netns_enter(int fd, struct cai_error *err);
/* A number that no other namespace of this boot has (its inode's where the kernel is too old to say). */
uint64_t netns_cookie(int fd);

/* /proc/sys/net/NAME, of the calling thread's namespace. Reading: -1 when there is none. */
int sysctl_read(const char *name);
int sysctl_write(const char *name, int value); /* 0, or -1 with errno */

#endif
