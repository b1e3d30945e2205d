/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a kernel that panics says so in two ways. With pvpanic it writes a port and we know at once; without,
 * all there is is its console, where it ends its report with a line of its own ("---[ end Kernel panic") and then either
 * hangs or resets. Only whole lines that begin like the kernel's count, so that a log shown on the console does not look
 * like one.
 */
#include "vmm/ending.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PANIC     "Kernel panic - not syncing: "
#define PANIC_END "---[ end Kernel panic - not syncing"

void ending_init(struct ending *e)
{
	*e = (struct ending){0};
	pthread_mutex_init(&e->lock, NULL);
}

bool ending_set(struct ending *e, enum control_end reason, const char *fmt, ...)
{
	pthread_mutex_lock(&e->lock);
	bool first = !e->reason;
	if (first) {
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(e->text, sizeof(e->text), fmt, ap);
		va_end(ap);
		e->reason = reason;
	}
	pthread_mutex_unlock(&e->lock);
	return first;
}

enum control_end ending_get(struct ending *e, char *text)
{
	pthread_mutex_lock(&e->lock);
	enum control_end r = e->reason;
	if (r)
		snprintf(text, sizeof(e->text), "%s", e->text);
	pthread_mutex_unlock(&e->lock);
	return r;
}

/* Past "[   12.345678] " and, with CONFIG_PRINTK_CALLER, "[    T1] ". */
static const char *skip_stamp(const char *p)
{
	for (int i = 0; i < 2 && *p == '['; i++) {
		const char *q = p + 1;
		q += strspn(q, " 0123456789.TC");
		if (q[0] != ']' || q[1] != ' ')
			break;
		p = q + 2;
	}
	return p;
}

bool ending_find_panic(const char *console, bool finished, char *text, unsigned long n)
{
	bool found = false, end = false;
	for (const char *line = console; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		const char *p = skip_stamp(line);
		size_t len = strcspn(p, "\r\n");
		if (!strncmp(p, PANIC, strlen(PANIC)) && p[len]) {
			len -= strlen(PANIC);
			snprintf(text, n, "%.*s", (int)(len < 300 ? len : 300), p + strlen(PANIC));
			found = true;
		} else if (found && !strncmp(p, PANIC_END, strlen(PANIC_END)) && p[len]) {
			end = true;
		}
	}
	return found && (end || !finished);
}
