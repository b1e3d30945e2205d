/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What makes a sandbox's boundary: a microVM (microvm.c) or a container (containers.c), behind one table. An engine is started with
 * everything open (struct sandbox_plan), offers the agent's socket in the sandbox's directory (agent.sock), and tells when it is
 * gone. It knows nothing of the program that runs in it.
 *
 * Single-threaded, on the loop.
 */
#ifndef SANDBOX_ENGINE_H
#define SANDBOX_ENGINE_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/loop.h"
#include "net/net.h"
#include "proto/agent.h"
#include "sandbox/plan.h"
#include "sandbox/store.h"

struct engine; /* each engine's own struct begins with struct engine_base */

struct engine_hooks {
	void (*booted)(void *ctx); /* the machine was started; before it, an end means that it never could be */
	void (*gone)(void *ctx);   /* ops->over() has become true, or more is known about why */
	void *ctx;
	int in, out, err; /* with spec->console: the serial port's other end; borrowed */
};

struct engine_ops {
	bool connect_line; /* agent.sock wants "CONNECT port" first */
	/* NULL with *err on failure, with nothing left. plan, dir and net are borrowed and outlive the engine. */
	struct engine *(*start)(struct loop *l, const struct sandbox_plan *p, struct sandbox_dir *dir, struct net *net,
				const struct engine_hooks *h, struct cai_error *err);
	/*
	 * A connection to the agent, made while the listener was still ours, so that a machine that refuses and exits at once cannot turn that
	 * into another error. The caller's from then on; -1 after the first call.
	 */
	int (*take_stream)(struct engine *e);
	/* Whether it has ended, or has said that it will. */
	bool (*over)(struct engine *e);
	bool (*booted)(struct engine *e);
	/* After the end: one sentence. Returns true when that is how such a sandbox is meant to end (console: powered off). */
	bool (*explain)(struct engine *e, char *why, size_t n);
	const char *(*console_tail)(struct engine *e); /* last console lines of a machine that failed, or "" */
	pid_t (*pid)(struct engine *e);
	/* What identifies pid after a crash of ours (field 22 of /proc/PID/stat), and what is weaker here than asked for, or "". */
	void (*about)(struct engine *e, uint64_t *start_time, const char **note);
	bool (*oom)(struct engine *e); /* something was killed for memory */
	int (*pause)(struct engine *e, struct cai_error *err);
	int (*resume)(struct engine *e, struct cai_error *err);
	/* Adds "cpu_ns", "memory", "memory_limit", "pids", "disk_read", "disk_write", ... as far as known. */
	int (*stats)(struct engine *e, json_t *into, struct cai_error *err);
	/*
	 * Saves the machine into the open directory: state, memory, and with disk a copy of its writable disk (upper.ext4); it stands still
	 * meanwhile. stop: it does not go on. NULL: this engine cannot.
	 */
	int (*snapshot)(struct engine *e, int dir, bool disk, bool stop, struct cai_error *err);
	/* New limits of spec->memory (containers), cpu_milli and pids. */
	int (*update)(struct engine *e, const struct sandbox_spec *spec, struct cai_error *err);
	/* Ends what runs at once, removes every trace. NULL is allowed. */
	void (*free)(struct engine *e);
};

struct engine_base {
	const struct engine_ops *ops;
};

extern const struct engine_ops engine_microvm, engine_container;

static inline const struct engine_ops *engine_of(enum engine_kind k)
{
	return k == ENGINE_CONTAINER ? &engine_container : &engine_microvm;
}

/* Adds to the agent's SETUP what this engine needs: disks, mounts. Strings are borrowed from the plan. */
void engine_microvm_setup(struct engine *e, struct agent_setup *m);
/* Makes the template of the plan's image anew, for machines on such a network; warm as for template_get. */
int engine_microvm_template(const struct sandbox_plan *p, const struct net *net, char *const *warm, struct cai_error *err);

#endif
