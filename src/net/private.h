/* SPDX-License-Identifier: Apache-2.0 */
/* What struct net keeps to itself. */
#ifndef NET_PRIVATE_H
#define NET_PRIVATE_H

#include "net/helper.h"
#include "net/link.h"
#include "net/net.h"
#include "net/passt.h"
#include "net/router.h"

struct net_private {
	bool in_router;
	struct router router;
	struct link link;
	int tap[NET_MAX_QUEUES]; /* kept until the teardown: see helper_start_linger */
	unsigned n_taps;
	bool taps_handed;
	char *libexec;
	struct helper proxy, names;
	/* without root */
	struct passt_plan passt;
	struct helper outside, sieve;
	int passt_fd;	    /* until net_attach; -1 */
	struct ports ports; /* until net_attach */
	bool forward_dns;
};

#endif
