/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a process runs as: `-u` of the command line, resolved against /etc/passwd and /etc/group of the guest's root. Both files
 * come from an image, so they are hostile: read with a size limit, lines that are no entries are skipped.
 */
#ifndef GUEST_USERS_H
#define GUEST_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

#define GUEST_MAX_GROUPS 64

struct guest_user {
	uid_t uid;
	gid_t gid;
	gid_t groups[GUEST_MAX_GROUPS]; /* supplementary ones, the first n_groups */
	unsigned n_groups;
	char home[256]; /* "/" where passwd does not say */
};

/*
 * spec: "", "user", "user:group"; each a name or a number, a name first. "" is root. A number that passwd does not know is that
 * uid with group 0; a name that it does not know is an error. With a group given there are no supplementary groups; else they
 * are those that group lists the user in. passwd and group are the files' texts; NULL is an empty file.
 */
int users_resolve(const char *spec, const char *passwd, const char *group, struct guest_user *u, struct cai_error *err);

/* The same with the files below the current root directory. */
int users_lookup(const char *spec, struct guest_user *u, struct cai_error *err);

/* For turning numbers into names: the text of /etc/passwd, owned by the caller, NULL without one; and a uid's name in it. */
char *users_passwd(void);
bool users_name(const char *passwd, uid_t uid, char *name, size_t size);

#endif
