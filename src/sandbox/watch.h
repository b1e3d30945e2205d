/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop source that exists only while something is awaited: a descriptor that nobody wants to hear of must
 * not be in epoll at all, since hang-ups and errors are reported whatever is asked for, and would spin the
 * loop.
 */
#ifndef SANDBOX_WATCH_H
#define SANDBOX_WATCH_H

#include <errno.h>

#include "base/loop.h"

struct watch {
	struct loop *loop;
	int fd; /* borrowed */
	loop_fd_fn *fn;
	void *ctx;
	struct loop_source *src;
	uint32_t events;
	bool unpollable; /* epoll refuses it (a regular file, /dev/null): it is always ready */
};

static inline void watch_set(struct watch *w, uint32_t events)
{
	if (w->events == events || w->unpollable || w->fd < 0)
		return;
	w->events = events;
	if (!events || !w->src) {
		loop_del(w->src);
		w->src = NULL;
	}
	if (!events)
		return;
	if (w->src) {
		loop_set_events(w->src, events);
		return;
	}
	struct cai_error e;
	w->src = loop_add_fd(w->loop, w->fd, events, w->fn, w->ctx, &e);
	if (!w->src) {
		w->unpollable = true;
		w->events = 0;
	}
}

#endif
