/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the loop's thread is the only one that talks to clients. Others leave what they have to say where the loop
 * looks when woken: an end in machine.ending, everything else in the devices. The order of CONFIGURE is what the jail needs:
 * build all, make all threads, then the filter; only then OK, so a START always finds a sealed monitor.
 */
#include "vmm/monitor.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "vmm/machine.h"
#include "vmm/server.h"
#include "vmm/snapshot.h"

struct monitor {
	struct loop *loop;
	struct server server;
	struct machine *machine;
	struct jail_status *jail;
	struct fatal *fatal;
	bool seal;
	uint64_t started_ns;
	uint64_t instructions_at_ready;
	char probe[16]; /* jail self-test: what to try at START; empty: nothing */
	enum control_end stopped; /* the end without a machine */
	char stopped_text[80];
};

static void on_ready(void *ctx)
{
	struct monitor *o = ctx;
	if (o->server.ready)
		return;
	struct control_status s = {0};
	machine_stats(o->machine, &s);
	o->instructions_at_ready = s.instructions;
	server_send_ready(&o->server);
}

static void on_ended(void *ctx)
{
	struct monitor *o = ctx;
	loop_wake(o->loop);
}

static void on_wake(void *ctx)
{
	struct monitor *o = ctx;
	char text[480];
	if (o->machine && ending_get(&o->machine->ending, text))
		loop_stop(o->loop);
}

static int configure(void *ctx, struct control_config *cfg, struct cai_error *err)
{
	struct monitor *o = ctx;
	struct machine_hooks hooks = {.ready = on_ready, .ended = on_ended, .ctx = o};
	if (cfg->flags & CONTROL_FLAG_SELFTEST_JAIL)
		memcpy(o->probe, cfg->jail_probe, sizeof(o->probe));
	o->machine = machine_create(cfg, o->loop, &hooks, err);
	if (!o->machine)
		return -1;
	o->fatal->mem = &o->machine->mem;
	bool kvm = o->machine->cfg.accel == CONTROL_ACCEL_KVM;
	if (o->seal && jail_seal(o->jail, machine_max_file(o->machine), kvm, err) < 0)
		return -1;
	log_debug("jail: user namespace %d, own uid %d (%u), filter %d", o->jail->user_ns, o->jail->own_uid,
		  (unsigned)o->jail->uid, o->jail->sealed);
	return 0;
}

static int start(void *ctx, struct cai_error *err)
{
	struct monitor *o = ctx;
	if (o->probe[0]) {
		struct cai_error why;
		jail_probe(o->probe, &why);
		machine_end(o->machine, CONTROL_END_INTERNAL, "%s", why.text);
		return cai_fail(err, why.errnum, "%s", why.text);
	}
	o->started_ns = clock_mono_ns();
	machine_run(o->machine);
	return 0;
}

static int pause_guest(void *ctx, struct cai_error *err)
{
	struct monitor *o = ctx;
	return machine_pause(o->machine, err);
}

static int resume_guest(void *ctx, struct cai_error *err)
{
	struct monitor *o = ctx;
	machine_run(o->machine);
	return 0;
}

static int snapshot(void *ctx, const struct control_snapshot *q, bool running, struct cai_error *err)
{
	struct monitor *o = ctx;
	if (running && machine_pause(o->machine, err) < 0)
		return -1;
	int rc = machine_snapshot(o->machine, q, err);
	if (running && (rc < 0 || !(q->flags & CONTROL_SNAPSHOT_STOP)))
		machine_run(o->machine);
	return rc;
}

static int attach(void *ctx, const struct control_attach *a, struct cai_error *err)
{
	struct monitor *o = ctx;
	return machine_attach_disk(o->machine, a, err);
}

static void query(void *ctx, struct control_status *s)
{
	struct monitor *o = ctx;
	machine_stats(o->machine, s);
	s->vcpus = o->machine->cfg.vcpus;
	s->accel = o->machine->cfg.accel;
	s->mem_bytes = o->machine->mem.size;
	s->uptime_ns = o->started_ns ? clock_mono_ns() - o->started_ns : 0;
	s->instructions_at_ready = o->instructions_at_ready;
}

static void stop(void *ctx, bool gone)
{
	struct monitor *o = ctx;
	const char *why = gone ? "whoever had started it went away" : "it was asked to stop";
	o->stopped = CONTROL_END_STOPPED;
	if (o->machine)
		machine_end(o->machine, CONTROL_END_STOPPED, "the guest was ended because %s", why);
	loop_stop(o->loop);
}

static const struct server_ops ops = {
	.configure = configure,
	.start = start,
	.pause = pause_guest,
	.resume = resume_guest,
	.snapshot = snapshot,
	.attach = attach,
	.query = query,
	.stop = stop,
};

/* Tells everyone how it ended. */
static enum monitor_status farewell(struct monitor *o)
{
	char text[480] = "the monitor was stopped before it had a guest";
	struct control_ended e = {.text = text};
	e.reason = o->machine ? ending_get(&o->machine->ending, text) : o->stopped;
	cleanup_free char *console = NULL;
	if (o->machine) {
		/* What the reader of the console gets comes before what the client hears. */
		console_flush(&o->machine->console);
		if (e.reason != CONTROL_END_POWEROFF && e.reason != CONTROL_END_STOPPED)
			console = console_tail(&o->machine->console);
	}
	e.console = console;
	server_send_ended(&o->server, &e);
	return e.reason == CONTROL_END_ACCEL_LOST || e.reason == CONTROL_END_JAIL || e.reason == CONTROL_END_INTERNAL ? MONITOR_FAILED
														      : MONITOR_OK;
}

enum monitor_status monitor_run(int fd, struct jail_status *jail, struct fatal *fatal, bool seal)
{
	struct monitor *o = calloc(1, sizeof(*o)); /* left to the process's end */
	struct cai_error err;
	if (!o)
		return MONITOR_FAILED;
	o->jail = jail;
	o->fatal = fatal;
	o->seal = seal;
	o->loop = loop_new(&err);
	if (!o->loop || server_init(&o->server, o->loop, fd, fatal, &ops, o, &err) < 0) {
		server_refuse(fd, &err);
		return MONITOR_FAILED;
	}
	loop_on_wake(o->loop, on_wake, o);
	if (loop_run(o->loop, &err) < 0) {
		if (!o->machine)
			return MONITOR_FAILED;
		machine_end(o->machine, CONTROL_END_INTERNAL, "%s", err.text);
	}
	return o->server.failed ? MONITOR_BAD_CONFIG : farewell(o);
}
