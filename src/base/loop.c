/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: every source is a node of one list and, for descriptors and timers (timerfd), one epoll entry that
 * points at it. Removing marks the node dead and unhooks it from epoll at once; memory is freed after the batch of events
 * that may still name it has been handled.
 */
#include "base/loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

struct loop_source {
	struct loop *loop;
	struct loop_source *next, **link; /* list of all sources */
	int fd;                           /* borrowed, or the timerfd, which is ours */
	bool is_timer, dead;
	loop_fd_fn *fd_fn;
	loop_timer_fn *timer_fn;
	void *ctx;
};

struct loop {
	int epfd, wakefd;
	atomic_bool stop;
	struct loop_source *sources, *graveyard;
	loop_timer_fn *wake_fn;
	void *wake_ctx;
};

uint64_t clock_mono_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t clock_real_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct loop *loop_new(struct cai_error *err)
{
	struct loop *l = calloc(1, sizeof(*l));
	if (!l) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	l->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	if (l->epfd < 0 || l->wakefd < 0 || epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->wakefd, &ev) < 0) {
		cai_fail_errno(err, errno, "cannot make an event loop");
		loop_free(l);
		return NULL;
	}
	return l;
}

static void bury(struct loop *l)
{
	while (l->graveyard) {
		struct loop_source *s = l->graveyard;
		l->graveyard = s->next;
		free(s);
	}
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	while (l->sources)
		loop_del(l->sources);
	bury(l);
	if (l->epfd >= 0)
		close(l->epfd);
	if (l->wakefd >= 0)
		close(l->wakefd);
	free(l);
}

static struct loop_source *add(struct loop *l, int fd, uint32_t events, struct cai_error *err)
{
	struct loop_source *s = calloc(1, sizeof(*s));
	if (!s) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	s->loop = l;
	s->fd = fd;
	struct epoll_event ev = {.events = events, .data.ptr = s};
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		cai_fail_errno(err, errno, "cannot watch descriptor %d", fd);
		free(s);
		return NULL;
	}
	s->next = l->sources;
	s->link = &l->sources;
	if (s->next)
		s->next->link = &s->next;
	l->sources = s;
	return s;
}

struct loop_source *loop_add_fd(struct loop *l, int fd, uint32_t events, loop_fd_fn *fn, void *ctx, struct cai_error *err)
{
	struct loop_source *s = add(l, fd, events, err);
	if (s) {
		s->fd_fn = fn;
		s->ctx = ctx;
	}
	return s;
}

void loop_set_events(struct loop_source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};
	epoll_ctl(s->loop->epfd, EPOLL_CTL_MOD, s->fd, &ev);
}

void loop_del(struct loop_source *s)
{
	if (!s || s->dead)
		return;
	struct loop *l = s->loop;
	epoll_ctl(l->epfd, EPOLL_CTL_DEL, s->fd, NULL);
	if (s->is_timer)
		close(s->fd);
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	s->dead = true;
	s->next = l->graveyard;
	l->graveyard = s;
}

struct loop_source *loop_add_timer(struct loop *l, loop_timer_fn *fn, void *ctx, struct cai_error *err)
{
	cleanup_close int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd < 0) {
		cai_fail_errno(err, errno, "cannot make a timer");
		return NULL;
	}
	struct loop_source *s = add(l, fd, EPOLLIN, err);
	if (!s)
		return NULL;
	steal_fd(&fd);
	s->is_timer = true;
	s->timer_fn = fn;
	s->ctx = ctx;
	return s;
}

void loop_timer_set(struct loop_source *s, uint64_t deadline_ns)
{
	struct itimerspec its = {.it_value = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
					      .tv_nsec = (long)(deadline_ns % 1000000000u)}};
	timerfd_settime(s->fd, TFD_TIMER_ABSTIME, &its, NULL);
}

void loop_on_wake(struct loop *l, loop_timer_fn *fn, void *ctx)
{
	l->wake_fn = fn;
	l->wake_ctx = ctx;
}

void loop_wake(struct loop *l)
{
	uint64_t one = 1;
	ssize_t r = write(l->wakefd, &one, sizeof(one));
	(void)r; /* a full counter already means "awake" */
}

void loop_stop(struct loop *l)
{
	atomic_store(&l->stop, true);
	loop_wake(l);
}

/* One batch of events; timeout as for epoll_wait. */
static int turn(struct loop *l, int timeout, struct cai_error *err)
{
	struct epoll_event ev[32];
	int n = epoll_wait(l->epfd, ev, 32, timeout);
	if (n < 0 && errno == EINTR)
		return 0;
	if (n < 0)
		return cai_fail_errno(err, errno, "waiting for events failed");
	for (int i = 0; i < n; i++) {
		struct loop_source *s = ev[i].data.ptr;
		uint64_t count;
		if (!s) {
			ssize_t r = read(l->wakefd, &count, sizeof(count));
			(void)r;
			if (l->wake_fn)
				l->wake_fn(l->wake_ctx);
		} else if (s->dead) {
			continue;
		} else if (s->is_timer) {
			/* A timer set again between its expiry and here reads as "not yet". */
			if (read(s->fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
				s->timer_fn(s->ctx);
		} else {
			s->fd_fn(s->ctx, ev[i].events);
		}
	}
	bury(l);
	return 0;
}

int loop_run(struct loop *l, struct cai_error *err)
{
	while (!atomic_load(&l->stop))
		if (turn(l, -1, err) < 0)
			return -1;
	return 0;
}

int loop_fd(const struct loop *l)
{
	return l->epfd;
}

int loop_poll(struct loop *l, struct cai_error *err)
{
	return turn(l, 0, err);
}
