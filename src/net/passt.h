/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks without root: passt (Debian's package) opens the sandbox's connections as this user's own, and
 * caisson-net's sieve stands before it in place of a packet filter. A microVM's frames come from the monitor,
 * a container's from a tap in its namespace.
 */
#ifndef NET_PASST_H
#define NET_PASST_H

#include "net/helper.h"
#include "net/net.h"
#include "net/ports.h"
#include "net/resolv.h"

/* What the host's way out looks like; the sandbox gets the same addresses, as passt does it. */
struct passt_plan {
	struct ip_addr addr4, addr6, gateway4; /* family 0: none */
	unsigned prefix4;
};

/* Where passt is, or NULL: not installed. Static. */
const char *passt_program(void);
int passt_survey(struct passt_plan *p, struct cai_error *err);
/* "nameserver" for the sandbox when the host's own cannot be reached from it: passt asks for it. */
#define PASST_DNS "169.254.1.1"
/* passt answers for any neighbour. */
#define PASST_GATEWAY6 "fe80::1"

/* Starts passt; returns our end of its socket. ports: bound until now to find them free, given up here. */
int passt_start(struct helper *h, const struct passt_plan *p, struct ports *ports, bool forward_dns,
		struct cai_error *err);
/* Starts the sieve between the sandbox (a stream, or a tap) and passt. Both descriptors may be closed here
 * afterwards. */
int passt_sieve(struct helper *h, const char *libexec, const struct passt_plan *p, bool forward_dns, bool tap,
		int sandbox_fd, int passt_fd, struct cai_error *err);
/* A tap named eth0 in the network namespace of pid (with pid's user namespace), addressed and routed; -1 on
 * failure. */
int passt_make_tap(const struct passt_plan *p, pid_t pid, const uint8_t mac[6], uint16_t mtu,
		   struct cai_error *err);

#endif
