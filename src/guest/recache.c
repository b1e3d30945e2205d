/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: fanotify gives a descriptor for each file that is opened. On an overlay, dropping from the cache and reading go to the
 * file of the layer that has it, whose pages are those of all overlays above that layer.
 */
#include "guest/recache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define MIN_FILE   (16u << 10)
#define MAX_FILE   (32u << 20)
#define MAX_TOTAL  (128u << 20)
#define FIRST_READ 4096u /* the kernel begins with pieces as small as what is asked for first, and doubles them */

void recache_watch(struct recache *r, const char *path)
{
	struct sysinfo si;
	r->n = 0;
	r->left = sysinfo(&si) == 0 ? (uint64_t)si.freeram * si.mem_unit / 4 : 0;
	if (r->left > MAX_TOTAL)
		r->left = MAX_TOTAL;
	r->watch = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY | O_LARGEFILE | O_CLOEXEC);
	if (r->watch >= 0 && fanotify_mark(r->watch, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN, AT_FDCWD, path) < 0) {
		close(r->watch);
		r->watch = -1;
	}
}

/* Takes fd. */
static void note_one(struct recache *r, int fd)
{
	struct stat st;
	bool take = r->n < RECACHE_FILES && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= MIN_FILE && st.st_size <= MAX_FILE &&
		    (uint64_t)st.st_size <= r->left;
	for (unsigned i = 0; take && i < r->n; i++)
		take = r->ino[i] != st.st_ino;
	if (!take) {
		close(fd);
		return;
	}
	r->left -= (uint64_t)st.st_size;
	r->ino[r->n] = st.st_ino;
	r->fd[r->n++] = fd;
}

void recache_note(struct recache *r)
{
	_Alignas(struct fanotify_event_metadata) char events[4096];
	for (;;) {
		ssize_t n = r->watch < 0 ? 0 : read(r->watch, events, sizeof(events));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		const struct fanotify_event_metadata *e = (const void *)events;
		for (; FAN_EVENT_OK(e, n); e = FAN_EVENT_NEXT(e, n))
			if (e->fd >= 0) /* -1: more was opened than the kernel keeps */
				note_one(r, e->fd);
	}
}

void recache_read(struct recache *r)
{
	static char chunk[64u << 10];
	recache_note(r);
	for (unsigned i = 0; i < r->n; i++) {
		size_t size = FIRST_READ;
		posix_fadvise(r->fd[i], 0, 0, POSIX_FADV_DONTNEED);
		posix_fadvise(r->fd[i], 0, 0, POSIX_FADV_NORMAL);
		while (read(r->fd[i], chunk, size) == (ssize_t)size)
			;
		close(r->fd[i]);
	}
	r->n = 0;
	if (r->watch >= 0)
		close(r->watch);
	r->watch = -1;
}
