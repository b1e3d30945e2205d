/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What became of a sandbox (state.json), and the truth about it: a record that says "running" while nobody holds the sandbox's lock
 * was left by a runner that was killed or by a host that restarted, and is healed by whoever sees it first.
 */
#ifndef SANDBOX_STATE_H
#define SANDBOX_STATE_H

#include <stdint.h>
#include <sys/types.h>

#include "sandbox/spec.h"
#include "sandbox/store.h"

enum sandbox_status { STATUS_CREATED, STATUS_RUNNING, STATUS_PAUSED, STATUS_EXITED, STATUS_SUSPENDED };

struct sandbox_state {
	enum sandbox_status status;
	bool starting;	     /* a process is about to run it, and may have made something for it already */
	int64_t created_ns, started_ns, finished_ns; /* CLOCK_REALTIME; 0: not yet */
	int exit_code;
	bool oom;	     /* something in it was killed for memory */
	pid_t runner, engine_pid;
	uint64_t engine_start; /* of a container: when engine_pid started, in clock ticks since the host's boot */
	char note[200];	       /* what is weaker on this host than asked for, one sentence, or "" */
	bool kvm;	     /* microVM: which accelerator */
	enum boundary boundary;
	unsigned starts;     /* how often it was started */
	char boot_id[40];    /* of the host, at the last start */
	char error[640];     /* one sentence, or "" */
	json_t *network;     /* owned; what net_setup gave, for people; NULL: none */
};

void sandbox_state_init(struct sandbox_state *s);
void sandbox_state_free(struct sandbox_state *s);
int sandbox_state_write(struct sandbox_dir *d, const struct sandbox_state *s, bool durable, struct cai_error *err);
int sandbox_state_read(const struct sandbox_dir *d, struct sandbox_state *s, struct cai_error *err);
const char *sandbox_status_name(enum sandbox_status s);
/* A time as RFC 3339 with nanoseconds, UTC; "" for 0. */
void format_time(int64_t ns, char out[40]);

/* A sandbox as commands see it. */
struct sandbox_view {
	struct sandbox_dir dir;
	struct spec_loaded conf;
	struct sandbox_state state;
	const char *name; /* its name, or its id; borrowed */
};

/*
 * Reads a sandbox and heals it when its runner is gone. 1; 0 when there is nothing to see (it is being made or removed, or healing
 * removed it); -1 with *err. On 1 d's descriptors belong to the view (release with sandbox_view_free); else they are left alone.
 */
int sandbox_view_open(struct store *s, struct sandbox_dir *d, struct sandbox_view *v, struct cai_error *err);
void sandbox_view_free(struct sandbox_view *v);
/* By name or id. -1 with *err when there is none. */
int sandbox_view_find(struct store *s, const char *what, struct sandbox_view *v, struct cai_error *err);

/* Looks at up to max sandboxes and heals those that need it; for commands that do not list them all anyway. */
void store_heal(struct store *s, unsigned max);

/* Removes a sandbox whose lock is held, and whatever its last runner left when it was killed. */
void sandbox_remove(struct store *s, struct sandbox_view *v);

/* Removes what a sandbox that nobody runs has on the host besides its directory: container, network. */
void sandbox_sweep(struct store *s, const struct sandbox_dir *d);

#endif
