/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/events.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "sandbox/state.h"

#define MAX_FILE (1 << 20)

void events_add(struct store *s, const char *what, const struct sandbox_dir *d, const struct sandbox_spec *spec, json_t *more)
{
	char when[40];
	int64_t now = (int64_t)clock_real_ns();
	format_time(now, when);
	json_t *o = json_pack("{s:s,s:I,s:s,s:s,s:s,s:s}", "time", when, "time_ns", (json_int_t)now, "event", what, "id", d->id, "name",
			      spec->name ? spec->name : d->id, "image", spec->image ? spec->image : "");
	if (o && more)
		json_object_update(o, more);
	json_decref(more);
	cleanup_free char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (!text)
		return;
	size_t n = strlen(text);
	text[n] = '\n'; /* in place of the NUL */
	cleanup_close int fd = openat(s->root_fd, "events", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat st;
	if (fd < 0 || write(fd, text, n + 1) < 0)
		return;
	if (fstat(fd, &st) == 0 && st.st_size > MAX_FILE)
		renameat(s->root_fd, "events", s->root_fd, "events.1");
}
