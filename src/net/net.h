/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox's network, seen from the host: private, none, or a named one that it shares with others.
 *
 * As root, each sandbox has one link into the *router*, a network namespace that all of Caisson's sandboxes
 * on this host share and that exists while at least one of them does (router.h). A container has one end of a
 * veth pair in a namespace of its own; a microVM has the descriptors of a tap. Addresses, routes and rules
 * belong to the link or to the router, so all of it goes when the processes that hold it do, whatever killed
 * them. Without root, passt stands in between, behind a sieve (passt.h).
 *
 * What a sandbox can reach: the outside through NAT (except the cloud's metadata services), the router's DNS,
 * other members of its named network. What it cannot: other sandboxes, any address of the host, loopback.
 * What can reach it: the ports that were published.
 *
 * Order, in the process that runs the sandbox (the runner), which must stay alive as long as the sandbox:
 *   net_setup  ->  start the engine with what struct net holds  ->  (only when net.attach_later) net_attach
 * ->  tell the agent addresses, resolv.conf and hosts  ->  ...  ->  stop the engine  ->  net_teardown. Thread
 * rules: one struct net, one thread at a time. Nothing here changes the namespace of the calling thread for
 * longer than the call.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define NET_MAX_QUEUES	8
#define NET_MAX_ADDRS	2
#define NET_MAX_PUBLISH 256
#define NET_NAME_MAX                                                                                         \
	63 /* of a named network: letters, digits, '.', '_', '-', starting with a letter or digit */

enum net_mode { NET_PRIVATE, NET_NONE, NET_NAMED };

/* One published port; made by net_publish_parse (publish.h). */
struct net_publish {
	char addr[46]; /* address of the host; never empty: "127.0.0.1" is the default. "0.0.0.0", "::": all
			  of that family */
	uint16_t host_port; /* 0: any free one; net_setup reports which in struct net */
	uint16_t guest_port;
	uint8_t proto; /* IPPROTO_TCP or IPPROTO_UDP */
};

struct net_request {
	int root_fd;		     /* Caisson's root directory (borrowed): networks/ is in it */
	const char *id;		     /* the sandbox's id */
	const char *name, *hostname; /* other names that it is known by in a named network and its own hosts
					file; NULL: none */
	enum net_mode mode;
	const char *network; /* NET_NAMED: which */
	const struct net_publish *publish;
	size_t n_publish;
	const char *const *dns; /* --dns: addresses; NULL-terminated or NULL: the host's */
	const char *const *dns_search, *const *dns_option; /* NULL-terminated, or NULL: the host's */
	const char *const *add_host; /* --add-host NAME:ADDRESS; NULL-terminated or NULL */
	bool have_mac;
	uint8_t mac[6]; /* --mac; else one is made from the sandbox's address */
	bool microvm;	/* taps; else a namespace for a container */
	unsigned
	    queues; /* microVM: queue pairs wanted, 1..NET_MAX_QUEUES (min(vCPUs, 8)); fewer may come back */
	uint16_t mtu;	     /* 0: the host's way out decides */
	const char *libexec; /* the directory that holds caisson-net */
};

enum net_kind {
	NET_KIND_NONE,	 /* no interface at all (--network none) */
	NET_KIND_TAP,	 /* fd[0..n_fds): a tap's queues: IFF_TAP|IFF_NO_PI|IFF_VNET_HDR, header of 12 bytes,
			    offloads set */
	NET_KIND_STREAM, /* fd[0]: a connected stream socket of passt: each frame with a 32-bit big-endian
			    length in front */
	NET_KIND_NETNS,	 /* netns_fd: a namespace with lo and eth0 up, addressed, routed: the container is put
			    into it as it is */
};

struct net {
	enum net_kind kind;
	int fd[NET_MAX_QUEUES];
	unsigned n_fds;
	uint64_t offloads; /* NET_KIND_TAP: VIRTIO_NET_F_* bits that the tap can do (control_net.offloads) */
	int netns_fd;	   /* NET_KIND_NETNS; else -1 */
	bool attach_later; /* rootless container: call net_attach once the container's namespaces exist */

	uint8_t mac[6];
	uint16_t mtu;
	char addr[NET_MAX_ADDRS][50]; /* CIDR, "10.213.0.5/16", "fd...::5/128"; for agent_iface and inspect */
	unsigned n_addrs;
	char gateway4[16], gateway6[46]; /* empty: none. gateway6 is link-local */
	char *resolv_conf, *hosts;	 /* whole files for the sandbox's /etc; never NULL after net_setup */
	struct net_publish *publish;	 /* what is published, with the ports that were chosen */
	size_t n_publish;
	char *warning; /* one sentence that the user should read (no way out over IPv6, ...), or NULL */

	struct net_private *priv;
};

/* Puts *n into the state that net_teardown accepts. */
void net_init(struct net *n);
/*
 * Makes the network. On failure nothing is left and *err says what failed; a port in use is named.
 * Descriptors in *n belong to *n and are close-on-exec; the tap's and passt's may be passed on and then
 * closed with net_release_fds.
 */
int net_setup(const struct net_request *r, struct net *n, struct cai_error *err);
/* Rootless container: joins `pid`'s network namespace to the outside. Before anything of the user's runs. */
int net_attach(struct net *n, pid_t pid, struct cai_error *err);
/* Closes fd[] and netns_fd once the engine has them. The tap lives as long as the monitor's copies do. */
void net_release_fds(struct net *n);
/* Stops helpers, gives the ports back, removes the link; the last one on the host removes the router and what
 * it needed. Safe after net_init. */
void net_teardown(struct net *n);

struct net_counters {
	uint64_t rx_bytes, rx_packets, rx_dropped, tx_bytes, tx_packets,
	    tx_dropped; /* rx: what the sandbox received */
};
int net_stats(struct net *n, struct net_counters *out, struct cai_error *err);

/*
 * Removes what dead sandboxes left on this host: called at the start of any command, at any time, by anyone;
 * does nothing for those alive. Almost always there is nothing: everything but the router's rules on the host
 * dies with its owner. 0, or -1.
 */
int net_heal(int root_fd, struct cai_error *err);

/* Whether this process can make a router network (root with CAP_NET_ADMIN); else passt is used. */
bool net_privileged(void);
/* One line for `doctor`: what the network of a sandbox would be here, or what is missing. Returns 0 when it
 * would work. */
int net_describe(char *text, size_t n);

#endif
