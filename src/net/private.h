/* SPDX-License-Identifier: Apache-2.0 */
/* What struct net keeps to itself. */
#ifndef NET_PRIVATE_H
#define NET_PRIVATE_H

#include "net/link.h"
#include "net/net.h"
#include "net/router.h"

struct net_private {
	bool in_router;
	struct router router;
	struct link link;
};

#endif
