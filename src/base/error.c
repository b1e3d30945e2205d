/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <stdio.h>
#include <string.h>

/* Names and answers of others end up in these sentences, and the sentences on terminals: nothing that one would obey
 * stays (C0, DEL, and C1 in UTF-8). */
static void put(struct cai_error *err, const char *fmt, va_list ap)
{
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	for (unsigned char *s = (unsigned char *)err->text; *s; s++)
		if (*s < 32 || *s == 127)
			*s = '?';
		else if (s[0] == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0)
			s[0] = s[1] = '?';
}

int cai_fail(struct cai_error *err, int errnum, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		put(err, fmt, ap);
		va_end(ap);
		err->errnum = errnum;
	}
	return -1;
}

int cai_fail_errno(struct cai_error *err, int errnum, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		put(err, fmt, ap);
		va_end(ap);
		size_t n = strlen(err->text);
		snprintf(err->text + n, sizeof(err->text) - n, ": %s", strerror(errnum));
		err->errnum = errnum;
	}
	return -1;
}

int cai_wrap(struct cai_error *err, const char *fmt, ...)
{
	if (err) {
		char old[sizeof(err->text)];
		memcpy(old, err->text, sizeof(old));
		va_list ap;
		va_start(ap, fmt);
		put(err, fmt, ap);
		va_end(ap);
		size_t n = strlen(err->text);
		int room = (int)(sizeof(err->text) - n);
		if (room > 1)
			snprintf(err->text + n, (size_t)room, ": %s", old);
	}
	return -1;
}
