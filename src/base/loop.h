/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An event loop over epoll: one thread runs it; file descriptors and one-shot timers call back on that thread.
 *
 * Thread rules: everything must be called on the loop's thread, except loop_wake() and loop_stop(), which any thread and
 * any signal handler may call. A callback may remove its own or any other source; a removed source's callback is not
 * called again, not even for an event already fetched.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct loop;
struct loop_source;

/* events: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR of epoll(7). */
typedef void loop_fd_fn(void *ctx, uint32_t events);
typedef void loop_timer_fn(void *ctx);

struct loop *loop_new(struct cai_error *err);
void loop_free(struct loop *l); /* frees all sources; closes no descriptor of the caller's */

/* Watches fd (borrowed) for events; NULL on failure. The source is owned by the loop; drop it with loop_del. */
struct loop_source *loop_add_fd(struct loop *l, int fd, uint32_t events, loop_fd_fn *fn, void *ctx, struct cai_error *err);
void loop_set_events(struct loop_source *s, uint32_t events); /* 0 keeps the source but delivers only HUP and ERR */
void loop_del(struct loop_source *s);                         /* NULL is allowed */

/* A timer, created disarmed. loop_timer_set arms it at an absolute CLOCK_MONOTONIC time in ns; 0 disarms. */
struct loop_source *loop_add_timer(struct loop *l, loop_timer_fn *fn, void *ctx, struct cai_error *err);
void loop_timer_set(struct loop_source *s, uint64_t deadline_ns);

/* Called on the loop thread after any loop_wake(); wakes coalesce. */
void loop_on_wake(struct loop *l, loop_timer_fn *fn, void *ctx);
void loop_wake(struct loop *l);

int loop_run(struct loop *l, struct cai_error *err); /* until loop_stop; 0, or -1 when epoll itself failed */
void loop_stop(struct loop *l);

/* To nest a loop in another: the outer one watches loop_fd() (owned by the loop) for EPOLLIN and calls loop_poll() on the
 * same thread, which handles what is ready without waiting. 0, or -1 when epoll itself failed. */
int loop_fd(const struct loop *l);
int loop_poll(struct loop *l, struct cai_error *err);

/* CLOCK_MONOTONIC in ns. */
uint64_t clock_mono_ns(void);
/* CLOCK_REALTIME in ns. */
uint64_t clock_real_ns(void);

#endif
