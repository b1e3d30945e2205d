/* SPDX-License-Identifier: Apache-2.0 */
/*
 * caisson-net: what a sandbox's network needs a process for. Started by the runner, with open descriptors and
 * their numbers as words:
 *
 *   caisson-net proxy NAMESPACE LEASH DEVICE ADDR4 ADDR6 PORT...        PORT:
 * tcp4|tcp6|udp4|udp6:DESCRIPTOR:GUEST-PORT caisson-net names NAMESPACE LEASH UDP TCP NETLINK GROUP POOL4
 * POOL6 SERVER...   SERVER: four descriptors D,D,D,D caisson-net linger NAMESPACE|-1 MILLISECONDS
 * DESCRIPTOR...
 *
 *   caisson-net sieve LEASH stream|tap SANDBOX PASST ADDR4 ADDR6 DNS
 *
 * NAMESPACE is the router's; LEASH a pipe whose other end the runner holds: when it closes, the helper ends.
 * ADDR6 and POOL6 may be "-". proxy, names and sieve confine themselves before the first packet. linger
 * closes the descriptors (taps), keeps the router for the next sandbox, and takes it down when none has come.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/helper/confine.h"
#include "net/helper/proxy.h"
#include "net/helper/resolver.h"
#include "net/helper/sieve.h"
#include "net/netns.h"
#include "net/router.h"

static int fail(const struct cai_error *err)
{
	fprintf(stderr, "caisson-net: %s\n", err->text);
	return 1;
}

static int number(const char *text, long max)
{
	char *end;
	long v = strtol(text, &end, 10);
	return *text && !*end && v >= 0 && v <= max ? (int)v : -1;
}

static void on_leash(void *ctx, uint32_t events)
{
	loop_stop(ctx);
}

/* Into the router's namespace, with a loop that ends when the leash does. */
static struct loop *begin(const char *ns, const char *leash, struct cai_error *err)
{
	int ns_fd = number(ns, INT32_MAX), leash_fd = number(leash, INT32_MAX);
	if (netns_enter(ns_fd, err) < 0)
		return NULL;
	close(ns_fd);
	struct loop *l = loop_new(err);
	if (l && !loop_add_fd(l, leash_fd, EPOLLIN | EPOLLHUP, on_leash, l, err))
		return NULL;
	return l;
}

static int add_port(struct proxy *p, const char *word, struct cai_error *err)
{
	char kind[8];
	int fd, port;
	if (sscanf(word, "%7[a-z0-9]:%d:%d", kind, &fd, &port) != 3 || port < 1 || port > 65535)
		return cai_fail(err, 0, "'%s' is no port", word);
	bool six = strchr(kind, '6') != NULL;
	return strncmp(kind, "udp", 3) == 0 ? proxy_add_udp(p, fd, six, (uint16_t)port, err)
					    : proxy_add_tcp(p, fd, six, (uint16_t)port, err);
}

static int run_proxy(int argc, char **argv)
{
	struct cai_error err;
	struct proxy_target t = {.device = argv[4]};
	struct loop *l = begin(argv[2], argv[3], &err);
	if (!l)
		return fail(&err);
	if (ip_parse(argv[5], &t.addr4) < 0 || (strcmp(argv[6], "-") != 0 && ip_parse(argv[6], &t.addr6) < 0))
		return 2;
	if (strcmp(argv[6], "-") == 0)
		t.addr6.family = 0;
	struct proxy *p = proxy_new(l, &t, &err);
	for (int k = 7; p && k < argc; k++)
		if (add_port(p, argv[k], &err) < 0)
			return fail(&err);
	const struct confine c = {.may_connect = 1};
	if (!p || confine_helper(&c, &err) < 0 || loop_run(l, &err) < 0)
		return fail(&err);
	return 0;
}

static int run_names(int argc, char **argv)
{
	struct cai_error err;
	struct resolver_options o = {.udp_fd = number(argv[4], INT32_MAX),
				     .tcp_fd = number(argv[5], INT32_MAX),
				     .netlink_fd = number(argv[6], INT32_MAX),
				     .group = (uint32_t)strtoul(argv[7], NULL, 10)};
	struct loop *l = begin(argv[2], argv[3], &err);
	if (!l)
		return fail(&err);
	if (ip_parse(argv[8], &o.plan.pool4) < 0)
		return 2;
	o.has6 = strcmp(argv[9], "-") != 0 && ip_parse(argv[9], &o.plan.pool6) == 0;
	for (int k = 10; k < argc && o.n_servers < RESOLVER_SERVERS; k++) {
		int *fd = o.server_fd[o.n_servers];
		if (sscanf(argv[k], "%d,%d,%d,%d", &fd[0], &fd[1], &fd[2], &fd[3]) != RESOLVER_SOCKETS)
			return 2;
		o.n_servers++;
	}
	struct resolver *r = resolver_new(l, &o, &err);
	const struct confine c = {.send_to = &o.udp_fd, .n_send_to = 1};
	if (!r || confine_helper(&c, &err) < 0 || loop_run(l, &err) < 0)
		return fail(&err);
	return 0;
}

static int run_linger(int argc, char **argv)
{
	struct cai_error err;
	int ns = number(argv[2], INT32_MAX), ms = number(argv[3], 600000);
	(void)!chdir("/");
	for (int k = 4; k < argc; k++)
		close(number(argv[k], INT32_MAX));
	if (ns < 0 || ms < 0)
		return 0;
	return router_linger(ns, (unsigned)ms, &err) < 0 ? fail(&err) : 0;
}

static bool optional_address(const char *text, struct ip_addr *a)
{
	a->family = 0;
	return strcmp(text, "-") == 0 || ip_parse(text, a) == 0;
}

/* A socket that is told of changes of the host's addresses. */
static int open_notices(struct cai_error *err)
{
	struct sockaddr_nl a = {.nl_family = AF_NETLINK,
				.nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
	cleanup_close int fd = nl_open(NETLINK_ROUTE, err);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return cai_fail_errno(err, errno, "cannot watch the host's addresses");
	return steal_fd(&fd);
}

static int run_sieve(int argc, char **argv)
{
	struct cai_error err;
	struct relay_options o = {.tap = strcmp(argv[3], "tap") == 0,
				  .sandbox_fd = number(argv[4], INT32_MAX),
				  .passt_fd = number(argv[5], INT32_MAX)};
	int leash = number(argv[2], INT32_MAX);
	if (!optional_address(argv[6], &o.sieve.addr4) || !optional_address(argv[7], &o.sieve.addr6) ||
	    !optional_address(argv[8], &o.sieve.dns))
		return 2;
	o.notice_fd = open_notices(&err);
	o.netlink_fd = o.notice_fd < 0 ? -1 : nl_open(NETLINK_ROUTE, &err);
	struct loop *l = o.netlink_fd < 0 ? NULL : loop_new(&err);
	if (!l || !loop_add_fd(l, leash, EPOLLIN | EPOLLHUP, on_leash, l, &err))
		return fail(&err);
	struct relay *r = relay_new(l, &o, &err);
	const struct confine c = {.own_network = 1};
	if (!r || confine_helper(&c, &err) < 0 || loop_run(l, &err) < 0)
		return fail(&err);
	return 0;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc >= 7 && strcmp(argv[1], "proxy") == 0)
		return run_proxy(argc, argv);
	if (argc >= 10 && strcmp(argv[1], "names") == 0)
		return run_names(argc, argv);
	if (argc >= 4 && strcmp(argv[1], "linger") == 0)
		return run_linger(argc, argv);
	if (argc == 9 && strcmp(argv[1], "sieve") == 0)
		return run_sieve(argc, argv);
	fputs("caisson-net is started by caisson\n", stderr);
	return 2;
}
