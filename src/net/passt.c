/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 *      monitor ---stream---+
 *                          sieve ---stream--- passt ---sockets of this user--- outside
 *      container's tap ----+
 *
 * passt ends when its socket closes and the sieve when its leash does, so both go with this process. Of the
 * same package, pasta would join a container's namespace by itself; but then nothing could stand between, and
 * what a container sends to 127.0.0.1 by a raw socket would reach the host's loopback.
 *
 * --no-map-gw matters: without it passt turns connections to the gateway's address into connections to the
 * host's loopback. The sandbox has the host's main address as its own, as passt likes it.
 *
 * The tap is made by a child: to enter a user namespace takes a process with one thread.
 */
#include "net/passt.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "net/netlink.h"

const char *passt_program(void)
{
	static const char *const places[] = {"/usr/bin/passt", "/usr/local/bin/passt", "/bin/passt"};
	for (size_t k = 0; k < ARRAY_LEN(places); k++)
		if (access(places[k], X_OK) == 0)
			return places[k];
	return NULL;
}

struct way {
	int index;
	uint32_t metric;
	struct ip_addr gateway;
};

static int look(const struct rtnl_route *r, void *ctx)
{
	struct way *w = ctx;
	if (r->type == RTN_UNICAST && r->prefix == 0 && r->index && (!w->index || r->metric < w->metric))
		*w = (struct way){.index = r->index, .metric = r->metric, .gateway = r->gateway};
	return 0;
}

static void take(struct passt_plan *p, const struct ifaddrs *a, const struct way *w4, const struct way *w6)
{
	int index = (int)if_nametoindex(a->ifa_name);
	if (a->ifa_addr->sa_family == AF_INET && index == w4->index && !p->addr4.family) {
		const struct sockaddr_in *in = (const void *)a->ifa_addr,
					 *mask = (const void *)a->ifa_netmask;
		p->addr4.family = AF_INET;
		memcpy(p->addr4.b, &in->sin_addr, 4);
		p->prefix4 = mask ? (unsigned)__builtin_popcount(mask->sin_addr.s_addr) : 32;
	} else if (a->ifa_addr->sa_family == AF_INET6 && index == w6->index && !p->addr6.family) {
		const struct sockaddr_in6 *in6 = (const void *)a->ifa_addr;
		if (IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr))
			return;
		p->addr6.family = AF_INET6;
		memcpy(p->addr6.b, &in6->sin6_addr, 16);
	}
}

int passt_survey(struct passt_plan *p, struct cai_error *err)
{
	struct way w4 = {.index = 0}, w6 = {.index = 0};
	struct ifaddrs *list;
	memset(p, 0, sizeof(*p));
	cleanup_close int fd = nl_open(NETLINK_ROUTE, err);
	if (fd < 0 || rtnl_each_route(fd, AF_INET, look, &w4, err) < 0 ||
	    rtnl_each_route(fd, AF_INET6, look, &w6, err) < 0)
		return -1;
	if (getifaddrs(&list) < 0)
		return cai_fail_errno(err, errno, "cannot list the host's addresses");
	for (struct ifaddrs *a = list; a; a = a->ifa_next)
		if (a->ifa_addr)
			take(p, a, &w4, &w6);
	freeifaddrs(list);
	p->gateway4 = w4.gateway;
	if (!p->addr4.family && !p->addr6.family)
		return cai_fail(err, ENETUNREACH,
				"this host has no default route, so a sandbox without root has no way out; "
				"use --network none");
	return 0;
}

/* "-t ADDR/HOST:GUEST", or none. */
static void port_words(struct words *w, const struct ports *p)
{
	bool any[2] = {false, false};
	for (size_t k = 0; k < p->n; k++) {
		bool udp = p->list[k].proto == IPPROTO_UDP;
		any[udp] = true;
		words_add(w, udp ? "-u" : "-t");
		words_add(w, "%s/%u:%u", p->list[k].addr, p->list[k].host_port, p->list[k].guest_port);
	}
	for (int udp = 0; udp < 2; udp++)
		if (!any[udp]) {
			words_add(w, udp ? "-u" : "-t");
			words_add(w, "none");
		}
}

/* The sockets reserved the ports until now; passt binds them itself. */
static void give_up_ports(struct ports *p)
{
	for (size_t k = 0; k < p->n; k++) {
		close(p->fd[k]);
		p->fd[k] = -1;
	}
}

int passt_start(struct helper *h, const struct passt_plan *p, struct ports *ports, bool forward_dns,
		struct cai_error *err)
{
	static const char *const fixed[] = {"-f", "-q", "--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ra"};
	cleanup_words struct words w = {.n = 0};
	const char *program = passt_program();
	int pair[2];
	if (!program)
		return cai_fail(err, ENOENT,
				"passt was not found; without root a network needs Debian's package passt "
				"(or use --network none)");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return cai_fail_errno(err, errno, "cannot make a socket pair");
	cleanup_close int ours = pair[0], theirs = pair[1];
	words_add(&w, "%s", program);
	for (size_t k = 0; k < ARRAY_LEN(fixed); k++)
		words_add(&w, "%s", fixed[k]);
	if (!p->addr6.family)
		words_add(&w, "-4");
	if (!p->addr4.family)
		words_add(&w, "-6");
	if (forward_dns) {
		words_add(&w, "--dns-forward");
		words_add(&w, PASST_DNS);
	}
	port_words(&w, ports);
	words_add(&w, "-F");
	words_add(&w, "%d", theirs);
	words_keep(&w, theirs);
	give_up_ports(ports);
	h->pid = words_start(&w, -1, false, err);
	return h->pid < 0 ? -1 : steal_fd(&ours);
}

static void add_address(struct words *w, const struct ip_addr *a)
{
	char text[46];
	ip_format(a, text, sizeof(text));
	words_add(w, "%s", a->family ? text : "-");
}

int passt_sieve(struct helper *h, const char *libexec, const struct passt_plan *p, bool forward_dns, bool tap,
		int sandbox_fd, int passt_fd, struct cai_error *err)
{
	cleanup_words struct words w = {.n = 0};
	int leash[2];
	if (!libexec)
		return cai_fail(err, 0, "caisson-net was not found");
	if (pipe2(leash, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	h->leash_fd = leash[1];
	cleanup_close int end = leash[0];
	words_add(&w, "%s/caisson-net", libexec);
	words_add(&w, "sieve");
	words_add(&w, "%d", end);
	words_add(&w, tap ? "tap" : "stream");
	words_add(&w, "%d", sandbox_fd);
	words_add(&w, "%d", passt_fd);
	add_address(&w, &p->addr4);
	add_address(&w, &p->addr6);
	words_add(&w, "%s", forward_dns ? PASST_DNS : "-");
	words_keep(&w, end);
	words_keep(&w, sandbox_fd);
	words_keep(&w, passt_fd);
	h->pid = words_start(&w, -1, false, err);
	return h->pid < 0 ? -1 : 0;
}

static int enter(pid_t pid, const char *which, int kind, struct cai_error *err)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, which);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, kind) < 0)
		return cai_fail_errno(err, errno, "cannot enter the container's %s namespace", which);
	return 0;
}

static int configure(const struct passt_plan *p, int index, const uint8_t mac[6], uint16_t mtu,
		     struct cai_error *err)
{
	cleanup_batch struct nl_batch b = NL_BATCH;
	cleanup_close int fd = nl_open(NETLINK_ROUTE, err);
	const struct rtnl_change lo = {.group = -1, .up = true},
				 tap = {.mac = mac, .mtu = mtu, .group = -1, .up = true};
	struct ip_addr gw6;
	if (fd < 0)
		return -1;
	rtnl_set_link(&b, 1, &lo);
	rtnl_set_link(&b, index, &tap);
	if (p->addr4.family) {
		rtnl_add_addr(&b, index, &p->addr4, p->prefix4);
		if (p->gateway4.family) {
			/* A gateway need not be in the address's own network. */
			rtnl_add_route(&b, index, &p->gateway4, 32, NULL, AF_INET);
			rtnl_add_route(&b, index, NULL, 0, &p->gateway4, AF_INET);
		}
	}
	if (p->addr6.family && ip_parse(PASST_GATEWAY6, &gw6) == 0) {
		rtnl_add_addr(&b, index, &p->addr6, 128);
		rtnl_add_route(&b, index, NULL, 0, &gw6, AF_INET6);
	}
	return nl_transact(fd, &b, NULL, err, "cannot set up the container's network");
}

static int tap_inside(const struct passt_plan *p, pid_t pid, const uint8_t mac[6], uint16_t mtu,
		      struct cai_error *err)
{
	struct ifreq q = {.ifr_name = "eth0", .ifr_flags = IFF_TAP | IFF_NO_PI};
	cleanup_close int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (tun < 0)
		return cai_fail_errno(err, errno,
				      "cannot open /dev/net/tun, which a container's network needs");
	close(steal_fd(&tun)); /* a tap belongs to the namespace in which it is opened */
	struct stat theirs, ours;
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	bool other = stat(path, &theirs) == 0 && stat("/proc/self/ns/user", &ours) == 0 &&
		     theirs.st_ino != ours.st_ino;
	if ((other && enter(pid, "user", CLONE_NEWUSER, err) < 0) || enter(pid, "net", CLONE_NEWNET, err) < 0)
		return -1;
	tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (tun < 0 || ioctl(tun, TUNSETIFF, &q) < 0)
		return cai_fail_errno(err, errno, "cannot make a tap device in the container");
	if (configure(p, (int)if_nametoindex("eth0"), mac, mtu, err) < 0)
		return -1;
	return steal_fd(&tun);
}

/* One message: an error (errnum 0: none) and with it the descriptor. */
static void send_result(int to, const struct cai_error *e, int fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.bytes = {0}};
	struct iovec v = {(void *)e, sizeof(*e)};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	if (fd >= 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	(void)!sendmsg(to, &m, MSG_NOSIGNAL);
}

static int receive_result(int from, struct cai_error *err)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct cai_error e;
	struct iovec v = {&e, sizeof(e)};
	struct msghdr m = {
	    .msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	int fd = -1;
	ssize_t n;
	while ((n = recvmsg(from, &m, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	struct cmsghdr *c = n == (ssize_t)sizeof(e) ? CMSG_FIRSTHDR(&m) : NULL;
	if (n != (ssize_t)sizeof(e))
		return cai_fail(err, EIO, "the process that enters the container's namespace has gone");
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof(int));
	if (fd < 0 && err)
		*err = e;
	return fd;
}

int passt_make_tap(const struct passt_plan *p, pid_t pid, const uint8_t mac[6], uint16_t mtu,
		   struct cai_error *err)
{
	int pair[2], status;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return cai_fail_errno(err, errno, "cannot make a socket pair");
	cleanup_close int ours = pair[0], theirs = pair[1];
	pid_t child = fork();
	if (child < 0)
		return cai_fail_errno(err, errno, "cannot start a process");
	if (child == 0) {
		struct cai_error e = {.errnum = 0};
		int fd = tap_inside(p, pid, mac, mtu, &e);
		send_result(theirs, &e, fd);
		_exit(0);
	}
	close(steal_fd(&theirs));
	int fd = receive_result(ours, err);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return fd;
}
