/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: sockets are made here, in the namespace where they belong, and inherited; the helper
 * is told their numbers. It is ended by closing a pipe, which happens by itself when this process dies.
 */
#include "net/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "net/helper/resolver.h"
#include "net/netns.h"

void words_free(struct words *w)
{
	for (size_t k = 0; k < w->n; k++)
		free(w->argv[k]);
	free(w->argv);
	free(w->keep);
}
void words_add(struct words *w, const char *fmt, ...)
{
	va_list ap;
	char **more = realloc(w->argv, (w->n + 2) * sizeof(*more));
	if (!more) {
		w->failed = true;
		return;
	}
	w->argv = more;
	va_start(ap, fmt);
	int r = vasprintf(&more[w->n], fmt, ap);
	va_end(ap);
	if (r < 0)
		w->failed = true;
	else
		more[++w->n] = NULL;
}

void words_keep(struct words *w, int fd)
{
	int *more = realloc(w->keep, (w->n_keep + 1) * sizeof(*more));
	if (!more) {
		w->failed = true;
		return;
	}
	w->keep = more;
	w->keep[w->n_keep++] = fd;
}

pid_t words_start(const struct words *w, int out, bool detached, struct cai_error *err)
{
	posix_spawn_file_actions_t a;
	posix_spawnattr_t attr;
	sigset_t none, usual;
	char *nothing[] = {NULL};
	pid_t pid = 0;
	if (w->failed)
		return cai_fail(err, ENOMEM, "out of memory");
	posix_spawn_file_actions_init(&a);
	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	sigemptyset(&usual);
	sigaddset(&usual, SIGINT);
	sigaddset(&usual, SIGTERM);
	sigaddset(&usual, SIGHUP);
	sigaddset(&usual, SIGCHLD);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &usual);
	/* Signals of the terminal are for the runner. */
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
	posix_spawn_file_actions_addopen(&a, 0, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_adddup2(&a, out < 0 ? 0 : out, 1);
	if (detached)
		posix_spawn_file_actions_adddup2(&a, 0, 2);
	for (size_t k = 0; k < w->n_keep; k++)
		posix_spawn_file_actions_adddup2(&a, w->keep[k], w->keep[k]); /* clears close-on-exec */
	int r = posix_spawn(&pid, w->argv[0], &a, &attr, w->argv, nothing);
	posix_spawn_file_actions_destroy(&a);
	posix_spawnattr_destroy(&attr);
	return r ? cai_fail_errno(err, r, "cannot start %s", w->argv[0]) : pid;
}

void helper_init(struct helper *h)
{
	*h = (struct helper){.leash_fd = -1};
}

void helper_stop(struct helper *h)
{
	if (h->leash_fd >= 0)
		close(h->leash_fd);
	if (h->pid > 0) {
		kill(h->pid, SIGKILL);
		while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	helper_init(h);
}

/* The common first words; the leash's other end goes into *h. Returns the end to be closed here, or -1. */
static int begin(struct words *w, struct helper *h, const char *libexec, const char *mode,
		 const struct router *r, struct cai_error *err)
{
	int ends[2];
	if (!libexec)
		return cai_fail(err, 0, "caisson-net was not found");
	if (pipe2(ends, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	h->leash_fd = ends[1];
	words_add(w, "%s/caisson-net", libexec);
	words_add(w, "%s", mode);
	words_add(w, "%d", r->ns_fd);
	words_add(w, "%d", ends[0]);
	words_keep(w, r->ns_fd);
	words_keep(w, ends[0]);
	return ends[0];
}

int helper_start_proxy(struct helper *h, const char *libexec, const struct router *r, const struct link *l,
		       const struct ports *p, struct cai_error *err)
{
	cleanup_words struct words w = {.n = 0};
	cleanup_close int leash = begin(&w, h, libexec, "proxy", r, err);
	char text[46];
	if (leash < 0)
		return -1;
	words_add(&w, "%s", l->name);
	ip_format(&l->addr4, text, sizeof(text));
	words_add(&w, "%s", text);
	ip_format(&l->addr6, text, sizeof(text));
	words_add(&w, "%s", r->has6 ? text : "-");
	for (size_t k = 0; k < p->n; k++) {
		words_add(&w, "%s%c:%d:%u", p->list[k].proto == IPPROTO_UDP ? "udp" : "tcp",
			  strchr(p->list[k].addr, ':') ? '6' : '4', p->fd[k], p->list[k].guest_port);
		words_keep(&w, p->fd[k]);
	}
	h->pid = words_start(&w, -1, false, err);
	return h->pid < 0 ? -1 : 0;
}

/* The gateway's port 53, for this sandbox's link only. In the router's namespace. */
static int bind_names(const struct router *r, const struct link *l, int type)
{
	struct ip_addr gw = plan_addr4(&r->plan, PLAN_GATEWAY);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(53)};
	memcpy(&a.sin_addr, gw.b, 4);
	cleanup_close int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, l->name, (socklen_t)strlen(l->name) + 1) < 0 ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || (type == SOCK_STREAM && listen(fd, 16) < 0))
		return -1;
	return steal_fd(&fd);
}

static int connect_server(const struct ip_addr *server)
{
	struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(53)};
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(53)};
	cleanup_close int fd = socket(server->family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	memcpy(&a4.sin_addr, server->b, 4);
	memcpy(&a6.sin6_addr, server->b, 16);
	if (fd < 0 || (server->family == AF_INET ? connect(fd, (struct sockaddr *)&a4, sizeof(a4))
						 : connect(fd, (struct sockaddr *)&a6, sizeof(a6))) < 0)
		return -1;
	return steal_fd(&fd);
}

struct name_sockets {
	int udp, tcp, netlink, server[RESOLVER_SERVERS * RESOLVER_SOCKETS];
	unsigned n;
};

static void close_name_sockets(struct name_sockets *s)
{
	if (s->udp >= 0)
		close(s->udp);
	if (s->tcp >= 0)
		close(s->tcp);
	if (s->netlink >= 0)
		close(s->netlink);
	for (unsigned k = 0; k < s->n; k++)
		close(s->server[k]);
}

static int open_name_sockets(struct name_sockets *s, const struct router *r, const struct link *l,
			     const struct resolv *servers, struct cai_error *err)
{
	if (netns_enter(r->ns_fd, err) < 0)
		return -1;
	s->udp = bind_names(r, l, SOCK_DGRAM);
	s->tcp = s->udp < 0 ? -1 : bind_names(r, l, SOCK_STREAM);
	int errnum = errno;
	s->netlink = nl_open(0 /* NETLINK_ROUTE */, NULL);
	if (netns_enter(r->host_ns_fd, err) < 0)
		return -1;
	if (s->tcp < 0 || s->netlink < 0)
		return cai_fail_errno(err, errnum, "cannot listen for the sandbox's questions about names");
	/* A server that cannot be reached at all (no route) is left out. */
	for (size_t k = 0; servers && k < servers->n_servers && k < RESOLVER_SERVERS; k++)
		for (unsigned m = 0; m < RESOLVER_SOCKETS; m++) {
			int fd = connect_server(&servers->server[k]);
			if (fd < 0)
				break;
			s->server[s->n++] = fd;
		}
	while (s->n % RESOLVER_SOCKETS)
		close(s->server[--s->n]);
	return 0;
}

int helper_start_names(struct helper *h, const char *libexec, const struct router *r, const struct link *l,
		       uint32_t group, const struct resolv *servers, struct cai_error *err)
{
	__attribute__((cleanup(close_name_sockets))) struct name_sockets s = {
	    .udp = -1, .tcp = -1, .netlink = -1};
	cleanup_words struct words w = {.n = 0};
	cleanup_close int leash = begin(&w, h, libexec, "names", r, err);
	char text[46];
	if (leash < 0 || open_name_sockets(&s, r, l, servers, err) < 0)
		return -1;
	words_add(&w, "%d", s.udp);
	words_add(&w, "%d", s.tcp);
	words_add(&w, "%d", group ? s.netlink : -1);
	words_add(&w, "%u", group);
	ip_format(&r->plan.pool4, text, sizeof(text));
	words_add(&w, "%s", text);
	ip_format(&r->plan.pool6, text, sizeof(text));
	words_add(&w, "%s", r->has6 ? text : "-");
	words_keep(&w, s.udp);
	words_keep(&w, s.tcp);
	words_keep(&w, s.netlink);
	for (unsigned k = 0; k + RESOLVER_SOCKETS <= s.n; k += RESOLVER_SOCKETS) {
		words_add(&w, "%d,%d,%d,%d", s.server[k], s.server[k + 1], s.server[k + 2], s.server[k + 3]);
		for (unsigned m = 0; m < RESOLVER_SOCKETS; m++)
			words_keep(&w, s.server[k + m]);
	}
	h->pid = words_start(&w, -1, false, err);
	return h->pid < 0 ? -1 : 0;
}

pid_t helper_start_linger(const char *libexec, int ns_fd, unsigned ms, const int *taps, unsigned n_taps,
			  struct cai_error *err)
{
	cleanup_words struct words w = {.n = 0};
	if (!libexec)
		return cai_fail(err, 0, "caisson-net was not found");
	words_add(&w, "%s/caisson-net", libexec);
	words_add(&w, "linger");
	words_add(&w, "%d", ns_fd);
	words_add(&w, "%u", ms);
	if (ns_fd >= 0)
		words_keep(&w, ns_fd);
	for (unsigned k = 0; k < n_taps; k++) {
		words_add(&w, "%d", taps[k]);
		words_keep(&w, taps[k]);
	}
	return words_start(&w, -1, true, err);
}
