/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a helper keeps when it has its descriptors: an empty root directory, namespaces of its own (but the
 * network's), nobody's user, no capabilities, no_new_privs, and a list of system calls. It can open no file,
 * start no program, signal nobody.
 */
#ifndef NET_HELPER_CONFINE_H
#define NET_HELPER_CONFINE_H

#include "base/error.h"

struct confine {
	int own_network; /* true: an empty network namespace too; what sockets there are stay where they are
			  */
	int may_connect; /* true: may make IPv4 and IPv6 sockets and connect them (it parses nothing); false:
			    may not */
	const int *send_to; /* the descriptors on which it may choose where a datagram goes; others send only
			       where they are connected */
	unsigned n_send_to;
};

int confine_helper(const struct confine *c, struct cai_error *err);

#endif
