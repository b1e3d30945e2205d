/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /etc/passwd and /etc/group of an image, and what `-u` says: three texts, divided by NUL bytes. The agent reads them as PID 1.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "guest/users.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

/* The next text as an allocation of its own, exactly as long as it is. */
static char *text(const uint8_t **p, size_t *left)
{
	const uint8_t *end = *left ? memchr(*p, 0, *left) : NULL;
	size_t n = end ? (size_t)(end - *p) : *left;
	char *s = malloc(n + 1);
	must(s != NULL);
	if (n)
		memcpy(s, *p, n);
	s[n] = 0;
	*p += n + !!end;
	*left -= n + !!end;
	return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *spec = text(&data, &size), *passwd = text(&data, &size), *group = text(&data, &size);
	struct guest_user u;
	struct cai_error err = {0};
	memset(&u, 0xa5, sizeof(u));
	if (users_resolve(spec, passwd, group, &u, &err) == 0) {
		must(u.n_groups <= GUEST_MAX_GROUPS && memchr(u.home, 0, sizeof(u.home)) && u.home[0] == '/');
		must(u.uid != (uid_t)-1 && u.gid != (gid_t)-1); /* "leave it as it is" to setresuid */
		must(!strchr(spec, ':') || u.n_groups == 0);
	} else {
		must(err.text[0] && memchr(err.text, 0, sizeof(err.text)));
	}
	free(spec);
	free(passwd);
	free(group);
	return 0;
}
