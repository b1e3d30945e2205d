/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: binding is the reservation. IPv6 sockets are for IPv6 only, so that 0.0.0.0 and :: can
 * both be published. No SO_REUSEADDR for UDP, where it would share the port with whoever asks; with TCP it
 * only forgives connections that are closing.
 *
 * A port left to us (0) that several entries share (the same guest port over tcp and udp, or on two
 * addresses) is not made equal: each is reported for itself.
 */
#include "net/ports.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/publish.h"
#include "net/rtnl.h"

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static int to_address(const struct net_publish *p, union address *a, socklen_t *n)
{
	struct ip_addr ip;
	memset(a, 0, sizeof(*a));
	if (ip_parse(p->addr, &ip) < 0)
		return -1;
	if (ip.family == AF_INET6) {
		a->in6.sin6_family = AF_INET6;
		a->in6.sin6_port = htons(p->host_port);
		memcpy(&a->in6.sin6_addr, ip.b, 16);
		*n = sizeof(a->in6);
	} else {
		a->in.sin_family = AF_INET;
		a->in.sin_port = htons(p->host_port);
		memcpy(&a->in.sin_addr, ip.b, 4);
		*n = sizeof(a->in);
	}
	return 0;
}

static int refused(const struct net_publish *p, int errnum, struct cai_error *err)
{
	const char *proto = p->proto == IPPROTO_UDP ? "udp" : "tcp";
	if (errnum == EADDRINUSE)
		return cai_fail(err, errnum, "port %u/%s on %s is in use", p->host_port, proto, p->addr);
	if (errnum == EADDRNOTAVAIL)
		return cai_fail(err, errnum, "cannot publish on %s: this host has no such address", p->addr);
	return cai_fail_errno(err, errnum, "cannot publish port %u/%s on %s", p->host_port, proto, p->addr);
}

static int bind_one(struct net_publish *p, struct cai_error *err)
{
	union address a;
	socklen_t n;
	int on = 1;
	bool udp = p->proto == IPPROTO_UDP;
	if (to_address(p, &a, &n) < 0)
		return cai_fail(err, EINVAL, "cannot publish on '%s', which is no address", p->addr);
	cleanup_close int fd =
	    socket(a.sa.sa_family, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return refused(p, errno, err);
	if (a.sa.sa_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
		return refused(p, errno, err);
	if (!udp)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	else if (a.sa.sa_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
	else
		(void)setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
	if (bind(fd, &a.sa, n) < 0 || (!udp && listen(fd, 512) < 0) || getsockname(fd, &a.sa, &n) < 0)
		return refused(p, errno, err);
	p->host_port = ntohs(a.sa.sa_family == AF_INET6 ? a.in6.sin6_port : a.in.sin_port);
	return steal_fd(&fd);
}

int ports_bind(const struct net_publish *list, size_t n, struct ports *out, struct cai_error *err)
{
	memset(out, 0, sizeof(*out));
	if (n == 0)
		return 0;
	if (n > NET_MAX_PUBLISH)
		return cai_fail(err, E2BIG, "more than %d published ports", NET_MAX_PUBLISH);
	out->list = malloc(n * sizeof(*out->list));
	out->fd = malloc(n * sizeof(*out->fd));
	if (!out->list || !out->fd) {
		ports_free(out);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	memcpy(out->list, list, n * sizeof(*list));
	for (out->n = 0; out->n < n; out->n++) {
		out->fd[out->n] = bind_one(&out->list[out->n], err);
		if (out->fd[out->n] < 0) {
			ports_free(out);
			return -1;
		}
	}
	return 0;
}

void ports_free(struct ports *p)
{
	for (size_t k = 0; p->fd && k < p->n; k++)
		if (p->fd[k] >= 0)
			close(p->fd[k]);
	free(p->fd);
	free(p->list);
	memset(p, 0, sizeof(*p));
}
