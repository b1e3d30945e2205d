/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: clients are few and their requests tiny; each is answered at once, except that waiting is being connected. A
 * client that does not read its replies fills its own socket and is dropped.
 */
#include "sandbox/runner.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define MAX_CLIENTS 256

struct client {
	struct runner *r;
	struct client *next;
	int fd;
	struct loop_source *src;
};

struct runner {
	struct loop *loop;
	struct sandbox *sandbox;
	struct sandbox_dir *dir;
	int fd;
	struct loop_source *src;
	struct client *clients, *saver; /* saver: who waits for a checkpoint */
	unsigned n;
};

static int send_json(int fd, json_t *o)
{
	cleanup_free char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (!text) {
		errno = ENOMEM;
		return -1;
	}
	ssize_t n = send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
	return n < 0 ? -1 : 0;
}

static void drop(struct client *c)
{
	struct runner *r = c->r;
	for (struct client **p = &r->clients; *p; p = &(*p)->next)
		if (*p == c) {
			*p = c->next;
			break;
		}
	if (r->saver == c)
		r->saver = NULL;
	r->n--;
	loop_del(c->src);
	close(c->fd);
	free(c);
}

static json_t *ok(void)
{
	return json_pack("{s:b}", "ok", 1);
}

static unsigned number(json_t *o, const char *key, unsigned max)
{
	json_int_t v = json_integer_value(json_object_get(o, key));
	return v < 0 ? 0 : v > max ? max : (unsigned)v;
}

static void on_saved(void *ctx, const struct cai_error *err)
{
	struct runner *r = ctx;
	struct client *c = r->saver;
	r->saver = NULL;
	if (c)
		send_json(c->fd, err ? json_pack("{s:s,s:i}", "error", err->text, "errno", err->errnum) : ok());
}

/* A new reference to the reply; NULL with *err, or with an empty one when the reply comes later. */
static json_t *handle(struct client *c, json_t *o, struct cai_error *err)
{
	const char *op = json_string_value(json_object_get(o, "op"));
	struct runner *r = c->r;
	struct sandbox *s = r->sandbox;
	if (!op) {
		cai_fail(err, EPROTO, "a request without an operation");
		return NULL;
	}
	if (!strcmp(op, "signal")) {
		unsigned signo = number(o, "signal", 65);
		if (signo < 1 || signo > 64) {
			cai_fail(err, EINVAL, "there is no such signal");
			return NULL;
		}
		return sandbox_signal(s, (int)signo, err) < 0 ? NULL : ok();
	}
	if (!strcmp(op, "stop")) {
		sandbox_stop(s, number(o, "timeout", 1000000));
		return ok();
	}
	if (!strcmp(op, "wait"))
		return ok();
	if (!strcmp(op, "pause") || !strcmp(op, "unpause"))
		return sandbox_pause(s, op[0] == 'p', err) < 0 ? NULL : ok();
	if (!strcmp(op, "stats")) {
		json_t *st = json_object();
		if (sandbox_stats(s, st, err) < 0) {
			json_decref(st);
			return NULL;
		}
		return json_pack("{s:o}", "stats", st);
	}
	if (!strcmp(op, "checkpoint")) {
		const char *dir = json_string_value(json_object_get(o, "dir"));
		if (!dir || r->saver) {
			cai_fail(err, EBUSY, dir ? "the sandbox is being saved already" : "a checkpoint needs a directory");
			return NULL;
		}
		r->saver = c;
		sandbox_checkpoint(s, dir, json_is_true(json_object_get(o, "stop")), on_saved, r);
		return NULL;
	}
	if (!strcmp(op, "update"))
		return sandbox_update(s, err) < 0 ? NULL : ok();
	if (!strcmp(op, "resize")) {
		sandbox_resize(s, (uint16_t)number(o, "rows", 65535), (uint16_t)number(o, "cols", 65535));
		return ok();
	}
	cai_fail(err, ENOSYS, "the runner knows no operation '%.32s'", op);
	return NULL;
}

static void on_client(void *ctx, uint32_t events)
{
	struct client *c = ctx;
	cleanup_free char *packet = malloc(RUNNER_MAX_PACKET);
	ssize_t n = packet ? recv(c->fd, packet, RUNNER_MAX_PACKET, MSG_DONTWAIT) : -1;
	if (n < 0 && packet && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop(c);
		return;
	}
	struct cai_error err = {0};
	json_t *o = json_loadb(packet, (size_t)n, JSON_REJECT_DUPLICATES, NULL), *reply = NULL;
	if (o)
		reply = handle(c, o, &err);
	else
		cai_fail(&err, EPROTO, "the request is no JSON object");
	json_decref(o);
	if (!reply && !err.text[0])
		return;
	if (!reply)
		reply = json_pack("{s:s,s:i}", "error", err.text, "errno", err.errnum);
	if (send_json(c->fd, reply) < 0)
		drop(c);
}

static void on_listener(void *ctx, uint32_t events)
{
	struct runner *r = ctx;
	cleanup_close int fd = accept4(r->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c = fd >= 0 && r->n < MAX_CLIENTS ? calloc(1, sizeof(*c)) : NULL;
	struct cai_error err;
	if (!c) {
		if (fd >= 0)
			send_json(fd, json_pack("{s:s}", "error", "too many commands at once look at this sandbox"));
		return;
	}
	*c = (struct client){.r = r, .next = r->clients, .fd = fd};
	c->src = loop_add_fd(r->loop, fd, EPOLLIN, on_client, c, &err);
	if (!c->src) {
		free(c);
		return;
	}
	steal_fd(&fd);
	r->clients = c;
	r->n++;
}

struct runner *runner_new(struct loop *l, struct sandbox *s, struct sandbox_dir *dir, struct cai_error *err)
{
	struct runner *r = calloc(1, sizeof(*r));
	if (!r) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	*r = (struct runner){.loop = l, .sandbox = s, .dir = dir};
	r->fd = sandbox_dir_listen(dir, "runner.sock", SOCK_SEQPACKET, err);
	if (r->fd >= 0)
		r->src = loop_add_fd(l, r->fd, EPOLLIN, on_listener, r, err);
	if (!r->src) {
		runner_free(r);
		return NULL;
	}
	return r;
}

void runner_conclude(struct runner *r, int status)
{
	if (!r)
		return;
	if (r->dir->dir_fd >= 0)
		unlinkat(r->dir->dir_fd, "runner.sock", 0);
	/* Those who have connected and were not accepted yet are clients, too. */
	for (;;) {
		cleanup_close int fd = accept4(r->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			break;
		send_json(fd, json_pack("{s:i}", "exit", status));
	}
	for (struct client *c = r->clients; c; c = c->next)
		send_json(c->fd, json_pack("{s:i}", "exit", status));
}

void runner_free(struct runner *r)
{
	if (!r)
		return;
	while (r->clients)
		drop(r->clients);
	loop_del(r->src);
	if (r->fd >= 0)
		close(r->fd);
	free(r);
}

int runner_connect(struct sandbox_dir *d, struct cai_error *err)
{
	return sandbox_dir_connect(d, "runner.sock", SOCK_SEQPACKET, err);
}

json_t *runner_next(int fd, int timeout_ms, struct cai_error *err)
{
	cleanup_free char *packet = malloc(RUNNER_MAX_PACKET);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int n;
	while ((n = poll(&p, 1, timeout_ms)) < 0 && errno == EINTR)
		;
	if (n == 0) {
		cai_fail(err, ETIMEDOUT, "the process that runs the sandbox does not answer");
		return NULL;
	}
	ssize_t got = packet ? recv(fd, packet, RUNNER_MAX_PACKET, 0) : -1;
	json_t *o = got > 0 ? json_loadb(packet, (size_t)got, 0, NULL) : NULL;
	if (!o)
		cai_fail(err, EPIPE, "the process that ran the sandbox is gone");
	return o;
}

json_t *runner_ask(int fd, json_t *request, int timeout_ms, struct cai_error *err)
{
	if (send_json(fd, request) < 0) {
		cai_fail_errno(err, errno, "cannot reach the process that runs the sandbox");
		return NULL;
	}
	json_t *o = runner_next(fd, timeout_ms, err);
	const char *error = json_string_value(json_object_get(o, "error"));
	if (error) {
		cai_fail(err, (int)json_integer_value(json_object_get(o, "errno")), "%s", error);
		json_decref(o);
		return NULL;
	}
	return o;
}
