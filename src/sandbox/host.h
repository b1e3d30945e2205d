/* SPDX-License-Identifier: Apache-2.0 */
/* What this host offers to sandboxes: the findings behind `caisson doctor`. */
#ifndef SANDBOX_HOST_H
#define SANDBOX_HOST_H

#include "sandbox/accel.h"

enum finding_state {
	FINDING_OK,
	FINDING_DEGRADED, /* works, but less well or with a feature less */
	FINDING_MISSING,  /* nothing runs, or the named feature does not */
};

struct finding {
	const char *id; /* stable key for --json: "kvm", "cgroups", ... */
	enum finding_state state;
	bool required;	/* without it no sandbox runs */
	char text[320]; /* what was found */
	char mend[320]; /* what to do about it; empty when nothing is to be done */
};

#define HOST_MAX_FINDINGS 24
struct host_report {
	struct finding f[HOST_MAX_FINDINGS];
	unsigned n;
	struct kvm_verdict kvm;
	bool kvm_known;
	enum boundary boundary; /* what `--accel auto` gives */
	bool can_run;		/* no required finding is missing */
};

/* Looks at everything; fresh: probes KVM anew. Never fails: what cannot be found out is itself a finding. */
void host_examine(struct host_report *r, bool fresh);

const char *finding_state_name(enum finding_state s);

#endif
