/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: two witnesses report on a running sandbox, the agent's stream (session.c) and the engine, and they may
 * report in either order. So an end seen on one side is held until the other has spoken or GRACE has passed, and then judged once, in
 * conclude(), from everything that is known. What the program itself said (its exit status) beats everything else.
 *
 * A microVM with something worth keeping (its disk, a shared directory) is then asked to power off, which writes everything back;
 * one that does not within POWEROFF is stopped all the same: its file systems have journals.
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"
#include "container/container.h"
#include "sandbox/disk.h"
#include "sandbox/engine.h"
#include "sandbox/events.h"
#include "sandbox/quota.h"
#include "sandbox/logfile.h"
#include "sandbox/paths.h"
#include "sandbox/runner.h"
#include "net/publish.h"
#include "sandbox/session.h"

#define GRACE_NS      2000000000ull   /* between the first sign of the end and its explanation */
#define AGENT_WAIT_NS 120000000000ull /* for the agent to answer: a slow KVM needs many seconds to boot */
#define POWEROFF_NS   10000000000ull
#define KILL_NS	      3000000000ull /* for the program to end by SIGKILL before the sandbox is ended around it */

enum phase { STARTING, RUNNING, POWERING_OFF, OVER };

struct sandbox {
	struct loop *loop;
	const struct sandbox_plan *plan;
	const struct sandbox_spec *spec;
	struct sandbox_hooks hooks;
	struct sandbox_dir *dir;
	struct sandbox_state *state;
	struct engine *engine;
	const struct engine_ops *ops;
	struct net net;
	struct session *session, *poweroff;
	struct logfile *log;
	struct runner *runner;
	struct loop_source *timer, *stop_timer;
	struct loop_source *work; /* a timer that is always due: what is done outside of a session's callbacks */
	struct agent_setup setup;
	struct agent_start start;
	enum phase phase;
	bool session_done, concluded, killing, hooked, suspended;
	struct checkpoint {
		char *dir; /* owned; NULL: none is under way */
		bool stop;
		sandbox_told_fn *told;
		void *ctx;
		struct cai_error failed; /* to be told once the program has its stream again */
	} cp;
	int status;
	char why[640];
};

static void conclude_if_ready(struct sandbox *s);

static void checkpoint_told(struct sandbox *s, const struct cai_error *err)
{
	struct checkpoint c = s->cp;
	s->cp = (struct checkpoint){0};
	if (c.told)
		c.told(c.ctx, err);
	free(c.dir);
}

static void finished(struct sandbox *s)
{
	struct cai_error gone;
	if (s->cp.dir) {
		cai_fail(&gone, ESRCH, "the sandbox ended before it could be saved");
		checkpoint_told(s, &gone);
	}
	s->phase = OVER;
	loop_timer_set(s->timer, 0);
	if (!s->hooked) {
		s->hooked = true;
		s->hooks.ended(s->hooks.ctx);
	}
}

/* Whether the guest holds something that has not reached the host's files yet. */
static bool worth_a_poweroff(const struct sandbox *s)
{
	const struct sandbox_spec *sp = s->spec;
	if (sp->engine != ENGINE_MICROVM || sp->console || s->suspended || !s->engine || s->ops->over(s->engine) || s->state->status == STATUS_PAUSED)
		return false;
	bool shares = false;
	struct spec_volume v;
	for (char *const *t = sp->volumes; t && *t; t++)
		shares |= spec_parse_volume(*t, &v, NULL) == 0 && !v.read_only;
	return shares || (!sp->remove && !sp->ephemeral && !sp->read_only);
}

static void on_poweroff_end(void *ctx)
{
	/* The stream ends before the machine does: the engine's end is what is awaited. */
}

static bool begin_poweroff(struct sandbox *s)
{
	if (!worth_a_poweroff(s))
		return false;
	int fd = sandbox_dir_connect(s->dir, "agent.sock", SOCK_STREAM, NULL);
	if (fd < 0)
		return false;
	struct session_config c = {.stream = fd,
				   .connect_line = s->ops->connect_line,
				   .in = -1,
				   .out = STDERR_FILENO, /* nothing comes */
				   .err = STDERR_FILENO,
				   .ended = on_poweroff_end,
				   .ctx = s};
	s->poweroff = session_new(s->loop, &c, NULL);
	if (!s->poweroff)
		return false;
	s->phase = POWERING_OFF;
	loop_timer_set(s->timer, clock_mono_ns() + POWEROFF_NS);
	return true;
}

static void conclude(struct sandbox *s, int status, const char *why)
{
	if (s->concluded)
		return;
	s->concluded = true;
	s->status = status;
	if (why != s->why)
		snprintf(s->why, sizeof(s->why), "%s", why);
	loop_timer_set(s->timer, 0);
	if (s->stop_timer)
		loop_timer_set(s->stop_timer, 0);
	if (!begin_poweroff(s))
		finished(s);
}

static void checkpoint_detached(struct sandbox *s);

static void on_session_end(void *ctx)
{
	struct sandbox *s = ctx;
	if (session_result(s->session)->end == SESSION_DETACHED) {
		loop_timer_set(s->work, 1); /* not in here: the session that calls us is to be freed */
		return;
	}
	s->session_done = true;
	conclude_if_ready(s);
}

static void conclude_session(struct sandbox *s)
{
	const struct session_result *r = session_result(s->session);
	if (r->end == SESSION_EXITED) {
		int status = r->signal ? 128 + (int)(r->signal & 0x7f) : (int)(r->status & 0xff);
		s->state->oom |= r->oom || (status && s->ops->oom(s->engine));
		if (!r->lost_output) {
			conclude(s, status, "");
			return;
		}
		snprintf(s->why, sizeof(s->why), "cannot write to standard output: %s",
			 strerror(r->lost_output));
		conclude(s, status && !r->signal ? status : EXIT_CAISSON, s->why);
		return;
	}
	int status = EXIT_CAISSON;
	if (r->error_code == AGENT_E_NOT_FOUND)
		status = EXIT_NOT_FOUND;
	else if (r->error_code == AGENT_E_NOT_EXEC || r->error_code == AGENT_E_BAD_CWD)
		status = EXIT_NOT_EXEC;
	conclude(s, status, r->text[0] ? r->text : "the sandbox's agent refused without saying why");
}

/* The engine went without the program having said how it ended. */
static void conclude_engine(struct sandbox *s)
{
	bool plain = s->ops->explain(s->engine, s->why, sizeof(s->why));
	bool oom = s->ops->oom(s->engine);
	s->state->oom |= oom;
	if (s->killing)
		conclude(s, 137, "");
	else if (plain)
		conclude(s, 0, "");
	else
		conclude(s, oom ? 137 : EXIT_CAISSON, s->why);
}

static void conclude_if_ready(struct sandbox *s)
{
	bool gone = s->engine && s->ops->over(s->engine);
	if (s->concluded) {
		if (s->phase == POWERING_OFF && gone)
			finished(s);
		return;
	}
	enum session_end how = s->session_done ? session_result(s->session)->end : 0;
	if (how == SESSION_EXITED || how == SESSION_REFUSED)
		conclude_session(s);
	else if (gone && (s->session_done || !s->session || !s->ops->booted(s->engine)))
		conclude_engine(s);
	else if (gone || s->session_done)
		loop_timer_set(s->timer, clock_mono_ns() + GRACE_NS);
}

static void on_timer(void *ctx)
{
	struct sandbox *s = ctx;
	if (s->phase == POWERING_OFF) {
		log_debug("the guest did not power off in time");
		finished(s);
	} else if (s->ops->over(s->engine)) {
		conclude_engine(s);
	} else if (s->session_done) {
		conclude(s, s->killing ? 137 : EXIT_CAISSON, session_result(s->session)->text);
	} else if (!sandbox_running(s)) {
		snprintf(s->why, sizeof(s->why), "the guest's agent did not answer within %llu s%s",
			 AGENT_WAIT_NS / 1000000000ull,
			 s->spec->kernel || s->spec->initrd
			     ? "; a guest without Caisson's agent is reached with --console"
			     : "");
		conclude(s, EXIT_CAISSON, s->why);
	}
}

static void write_state(struct sandbox *s)
{
	struct cai_error e = {0};
	if (sandbox_state_write(s->dir, s->state, false, &e) < 0)
		log_warn("%s", e.text);
}

static void running(struct sandbox *s)
{
	s->phase = RUNNING;
	loop_timer_set(s->timer, 0);
	s->hooks.started(s->hooks.ctx);
}

static void on_started(void *ctx)
{
	running(ctx);
}

static void on_booted(void *ctx)
{
	struct sandbox *s = ctx;
	if (s->spec->console)
		running(s);
}

static void on_gone(void *ctx)
{
	conclude_if_ready(ctx);
}

static void on_output(void *ctx, int fd, const void *p, size_t n)
{
	struct sandbox *s = ctx;
	logfile_write(s->log, fd, p, n);
}

static int make_network(const struct sandbox_plan *p, const char *id, struct net *net, struct cai_error *err)
{
	const struct sandbox_spec *sp = p->spec;
	struct net_request r = {
		.root_fd = p->store.root_fd,
		.id = id,
		.name = sp->name,
		.hostname = sp->hostname ? sp->hostname : sp->name ? sp->name : id,
		.mode = !sp->network ? NET_PRIVATE : !strcmp(sp->network, "none") ? NET_NONE : NET_NAMED,
		.network = sp->network,
		.dns = (const char *const *)sp->dns,
		.add_host = (const char *const *)sp->add_host,
		.microvm = sp->engine == ENGINE_MICROVM,
		.queues = sp->cpus < NET_MAX_QUEUES ? sp->cpus : NET_MAX_QUEUES,
	};
	cleanup_free char *helper = paths_libexec("caisson-net", err);
	if (!helper)
		return -1;
	*strrchr(helper, '/') = 0;
	r.libexec = helper;
	struct net_publish *pub = NULL;
	size_t n = 0;
	int rc = 0;
	if (sp->console)
		r.mode = NET_NONE; /* nobody in there would be told its addresses */
	for (char *const *t = sp->publish; t && *t && rc == 0; t++)
		rc = net_publish_parse(*t, &pub, &n, err);
	if (rc == 0 && sp->mac) {
		r.have_mac = true;
		rc = net_mac_parse(sp->mac, r.mac, err);
	}
	r.publish = pub;
	r.n_publish = n;
	if (rc == 0 && n && r.mode == NET_NONE)
		rc = cai_fail(err, EINVAL, "-p has no meaning with --network none");
	if (rc == 0)
		rc = net_setup(&r, net, err);
	free(pub);
	return rc;
}

/* What `inspect` and `port` show. */
static json_t *describe_network(const struct sandbox *s)
{
	const struct net *n = &s->net;
	char mac[18], text[128];
	json_t *addrs = json_array(), *ports = json_array();
	for (unsigned i = 0; i < n->n_addrs; i++)
		json_array_append_new(addrs, json_string(n->addr[i]));
	for (size_t i = 0; i < n->n_publish; i++) {
		net_publish_format(&n->publish[i], text, sizeof(text));
		json_array_append_new(ports, json_string(text));
	}
	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1], n->mac[2], n->mac[3], n->mac[4], n->mac[5]);
	return json_pack("{s:s,s:o,s:s,s:s,s:s,s:o}", "network", s->spec->network ? s->spec->network : "private", "addresses", addrs, "gateway4",
			 n->gateway4, "gateway6", n->gateway6, "mac", n->kind == NET_KIND_NONE ? "" : mac, "ports", ports);
}

static void setup_iface(struct sandbox *s)
{
	struct net *n = &s->net;
	s->setup.resolv_conf = n->resolv_conf;
	s->setup.hosts = n->hosts;
	if (n->kind != NET_KIND_TAP && n->kind != NET_KIND_STREAM)
		return;
	struct agent_iface *i = &s->setup.iface[s->setup.n_ifaces++];
	memcpy(i->mac, n->mac, 6);
	i->mtu = n->mtu;
	for (unsigned k = 0; k < n->n_addrs; k++)
		i->addr[i->n_addrs++] = n->addr[k];
	i->gateway4 = n->gateway4;
	i->gateway6 = n->gateway6;
}

static int open_session(struct sandbox *s, struct cai_error *err)
{
	const struct sandbox_spec *spec = s->spec;
	s->setup.hostname = (char *)(spec->hostname ? spec->hostname : spec->name ? spec->name : s->dir->id);
	if (spec->read_only)
		s->setup.flags |= AGENT_SETUP_READONLY_ROOT;
	if (spec->engine == ENGINE_MICROVM)
		engine_microvm_setup(s->engine, &s->setup);
	setup_iface(s);
	s->start = (struct agent_start){
	    .flags = (spec->tty ? AGENT_START_TTY : 0) | (spec->interactive ? AGENT_START_STDIN : 0),
	    .rows = s->hooks.rows,
	    .cols = s->hooks.cols,
	    .argv = (char **)spec->argv,
	    .env = (char **)spec->env,
	    .cwd = (char *)(spec->cwd ? spec->cwd : ""),
	    .user = (char *)(spec->user ? spec->user : ""),
	};
	int fd = s->ops->take_stream(s->engine);
	if (fd < 0)
		fd = sandbox_dir_connect(s->dir, "agent.sock", SOCK_STREAM, err);
	if (fd < 0)
		return -1;
	struct session_config c = {
	    .stream = fd,
	    .connect_line = s->ops->connect_line,
	    .in = spec->interactive ? s->hooks.in : -1,
	    .out = s->hooks.out,
	    .err = s->hooks.err,
	    .setup = &s->setup,
	    .start = s->plan->restore_pid ? NULL : &s->start,
	    .attach = s->plan->restore_pid,
	    .output = on_output,
	    .started = on_started,
	    .ended = on_session_end,
	    .ctx = s,
	};
	s->session = session_new(s->loop, &c, err);
	if (!s->session)
		return -1;
	loop_timer_set(s->timer, clock_mono_ns() + AGENT_WAIT_NS);
	return 0;
}

static void release(struct sandbox *s)
{
	session_free(s->session);
	session_free(s->poweroff);
	if (s->engine)
		s->ops->free(s->engine);
	net_teardown(&s->net);
	logfile_close(s->log);
	loop_del(s->timer);
	loop_del(s->stop_timer);
	loop_del(s->work);
	s->session = s->poweroff = NULL;
	s->engine = NULL;
	s->log = NULL;
	s->timer = s->stop_timer = s->work = NULL;
}

int sandbox_create(const struct sandbox_plan *p, bool starting, struct sandbox_dir *d, struct sandbox_state *st, struct cai_error *err)
{
	if (store_create((struct store *)&p->store, p->spec->name, d, err) < 0)
		return -1;
	sandbox_state_init(st);
	st->starting = starting;
	json_t *o = sandbox_spec_to_json(p->spec);
	int r = sandbox_state_write(d, st, false, err);
	if (r == 0) /* last: it is what makes the sandbox exist */
		r = sandbox_dir_write(d, "config.json", o, !p->spec->remove, err);
	json_decref(o);
	if (r < 0)
		sandbox_dir_remove(d, p->spec->name);
	else
		events_add((struct store *)&p->store, "create", d, p->spec, NULL);
	return r;
}

static int begin(struct sandbox *s, struct cai_error *err)
{
	const struct sandbox_plan *p = s->plan;
	struct engine_hooks h = {.booted = on_booted, .gone = on_gone, .ctx = s, .in = s->hooks.in, .out = s->hooks.out, .err = s->hooks.err};
	if (!s->state->starting) { /* whoever finds this with the lock free knows that there is something to take away */
		s->state->starting = true;
		if (sandbox_state_write(s->dir, s->state, false, err) < 0)
			return -1;
	}
	if (!(s->timer = loop_add_timer(s->loop, on_timer, s, err)) || !(s->log = logfile_open(s->dir, err)) || make_network(p, s->dir->id, &s->net, err) < 0)
		return -1;
	s->engine = s->ops->start(s->loop, s->plan, s->dir, &s->net, &h, err);
	net_release_fds(&s->net);
	if (!s->engine || (!s->spec->console && open_session(s, err) < 0))
		return -1;
	struct sandbox_state *st = s->state;
	st->status = STATUS_RUNNING;
	st->starting = false;
	st->started_ns = (int64_t)clock_real_ns();
	st->finished_ns = 0;
	st->exit_code = 0;
	st->oom = false;
	st->error[0] = 0;
	st->runner = getpid();
	st->engine_pid = s->ops->pid(s->engine);
	const char *note;
	s->ops->about(s->engine, &st->engine_start, &note);
	snprintf(st->note, sizeof(st->note), "%s", note);
	st->kvm = s->plan->accel.kvm;
	st->boundary = s->plan->boundary;
	st->starts++;
	host_boot_id(st->boot_id);
	json_decref(st->network);
	st->network = describe_network(s);
	if (sandbox_state_write(s->dir, st, false, err) < 0)
		return -1;
	s->runner = runner_new(s->loop, s, s->dir, err);
	return s->runner ? 0 : -1;
}

struct sandbox *sandbox_start(struct loop *l, const struct sandbox_plan *p, struct sandbox_dir *dir, struct sandbox_state *state,
			      const struct sandbox_hooks *h, struct cai_error *err)
{
	struct sandbox *s = calloc(1, sizeof(*s));
	if (!s) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	*s = (struct sandbox){.loop = l, .plan = p, .spec = p->spec, .hooks = *h, .dir = dir, .state = state, .ops = engine_of(p->spec->engine)};
	net_init(&s->net);
	enum sandbox_status before = state->status;
	if (begin(s, err) < 0) {
		runner_free(s->runner);
		release(s);
		state->status = before;
		state->starting = false;
		sandbox_state_write(dir, state, false, NULL);
		free(s);
		return NULL;
	}
	events_add((struct store *)&p->store, "start", dir, s->spec, NULL);
	return s;
}

/* Only now is the sandbox as it was: a signal or another checkpoint may follow at once. */
static void on_reattached(void *ctx)
{
	struct sandbox *s = ctx;
	struct cai_error failed = s->cp.failed;
	checkpoint_told(s, failed.text[0] ? &failed : NULL);
}

/* Puts a stream on the program again. */
static int reattach(struct sandbox *s, uint32_t pid, struct cai_error *err)
{
	int fd = sandbox_dir_connect(s->dir, "agent.sock", SOCK_STREAM, err);
	if (fd < 0)
		return -1;
	struct session_config c = {.stream = fd,
				   .connect_line = s->ops->connect_line,
				   .in = s->spec->interactive ? s->hooks.in : -1,
				   .out = s->hooks.out,
				   .err = s->hooks.err,
				   .attach = pid,
				   .output = on_output,
				   .started = on_reattached,
				   .ended = on_session_end,
				   .ctx = s};
	s->session = session_new(s->loop, &c, err);
	return s->session ? 0 : -1;
}

static int write_checkpoint(struct sandbox *s, uint32_t pid, struct cai_error *err)
{
	struct sandbox_dir d;
	sandbox_dir_init(&d);
	d.dir_fd = open(s->cp.dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	d.path = strdup(s->cp.dir);
	if (d.dir_fd < 0 || !d.path) {
		sandbox_dir_close(&d);
		return cai_fail_errno(err, errno, "cannot open %s", s->cp.dir);
	}
	json_t *spec = sandbox_spec_to_json(s->spec);
	json_t *o = json_pack("{s:i,s:I,s:I,s:s,s:s,s:s,s:O}", "version", 1, "pid", (json_int_t)pid, "created_ns", (json_int_t)clock_real_ns(),
			      "sandbox", s->dir->id, "sandbox_name", s->spec->name ? s->spec->name : s->dir->id, "boundary",
			      boundary_name(s->plan->boundary), "config", spec);
	int r = s->ops->snapshot(s->engine, d.dir_fd, !s->cp.stop, s->cp.stop, err);
	if (r == 0)
		r = sandbox_dir_write(&d, "checkpoint.json", o, true, err);
	json_decref(o);
	json_decref(spec);
	sandbox_dir_close(&d);
	return r;
}

static void checkpoint_detached(struct sandbox *s)
{
	struct cai_error err = {0}, lost = {0};
	uint32_t pid = session_result(s->session)->pid;
	bool stop = s->cp.stop;
	session_free(s->session);
	s->session = NULL;
	int r = s->cp.dir ? write_checkpoint(s, pid, &err) : 0;
	if (r == 0 && stop) {
		s->suspended = true;
		checkpoint_told(s, NULL);
		conclude(s, 0, "");
		return;
	}
	if (reattach(s, pid, &lost) < 0) {
		checkpoint_told(s, r < 0 ? &err : &lost);
		conclude(s, EXIT_CAISSON, lost.text);
		return;
	}
	if (r < 0)
		s->cp.failed = err;
	else
		events_add((struct store *)&s->plan->store, "checkpoint", s->dir, s->spec, NULL);
}

static void on_work(void *ctx)
{
	checkpoint_detached(ctx);
}

void sandbox_checkpoint(struct sandbox *s, const char *dir, bool stop, sandbox_told_fn *told, void *ctx)
{
	struct cai_error err = {0};
	if (!s->ops->snapshot)
		cai_fail(&err, ENOTSUP, "a container shares this host's kernel and cannot be saved; microVMs can");
	else if (s->cp.dir)
		cai_fail(&err, EBUSY, "the sandbox is being saved already");
	else if (s->state->status == STATUS_PAUSED)
		cai_fail(&err, EBUSY, "the sandbox is paused; let it go on first");
	else if (!sandbox_running(s) || !s->session)
		cai_fail(&err, EAGAIN, "its program does not run");
	else if (!s->work && !(s->work = loop_add_timer(s->loop, on_work, s, &err)))
		;
	else if (!(s->cp.dir = strdup(dir)))
		cai_fail(&err, ENOMEM, "out of memory");
	if (err.text[0]) {
		told(ctx, &err);
		return;
	}
	s->cp.stop = stop;
	s->cp.told = told;
	s->cp.ctx = ctx;
	session_detach(s->session);
}

static void on_stop_timer(void *ctx)
{
	struct sandbox *s = ctx;
	if (s->killing || !sandbox_running(s)) {
		conclude(s, 137, "");
		return;
	}
	s->killing = true;
	session_signal(s->session, SIGKILL);
	loop_timer_set(s->stop_timer, clock_mono_ns() + KILL_NS);
}

static bool arm_stop(struct sandbox *s, uint64_t ns)
{
	struct cai_error e;
	if (!s->stop_timer)
		s->stop_timer = loop_add_timer(s->loop, on_stop_timer, s, &e);
	if (!s->stop_timer)
		return false;
	loop_timer_set(s->stop_timer, clock_mono_ns() + ns + 1);
	return true;
}

int sandbox_signal(struct sandbox *s, int signo, struct cai_error *err)
{
	if (s->concluded)
		return 0;
	if (signo == SIGKILL) {
		if (s->state->status == STATUS_PAUSED)
			sandbox_pause(s, false, NULL);
		s->killing = true;
		if (!sandbox_running(s) || s->spec->console || !arm_stop(s, KILL_NS))
			conclude(s, 137, "");
		else
			session_signal(s->session, SIGKILL);
		return 0;
	}
	if (!sandbox_running(s) || !s->session)
		return cai_fail(err, EAGAIN, "its program does not run yet");
	session_signal(s->session, signo);
	return 0;
}

void sandbox_stop(struct sandbox *s, unsigned seconds)
{
	if (s->concluded)
		return;
	if (s->state->status == STATUS_PAUSED)
		sandbox_pause(s, false, NULL);
	if (!sandbox_running(s) || s->spec->console || !arm_stop(s, seconds * 1000000000ull))
		conclude(s, 137, "");
	else
		session_signal(s->session, s->spec->stop_signal ? s->spec->stop_signal : SIGTERM);
}

int sandbox_pause(struct sandbox *s, bool paused, struct cai_error *err)
{
	enum sandbox_status want = paused ? STATUS_PAUSED : STATUS_RUNNING;
	if (s->concluded)
		return cai_fail(err, ESRCH, "the sandbox is ending");
	if (s->state->status == want)
		return cai_fail(err, EALREADY, paused ? "the sandbox is paused already" : "the sandbox is not paused");
	if ((paused ? s->ops->pause : s->ops->resume)(s->engine, err) < 0)
		return -1;
	s->state->status = want;
	write_state(s);
	events_add((struct store *)&s->plan->store, paused ? "pause" : "unpause", s->dir, s->spec, NULL);
	return 0;
}

int sandbox_stats(struct sandbox *s, json_t *into, struct cai_error *err)
{
	if (s->ops->stats(s->engine, into, err) < 0)
		return -1;
	json_object_set_new(into, "disk_used", json_integer((json_int_t)disk_used(s->dir)));
	return 0;
}

int sandbox_update(struct sandbox *s, struct cai_error *err)
{
	struct spec_loaded l;
	json_t *o = sandbox_dir_read(s->dir, "config.json", err);
	if (!o || sandbox_spec_from_json(o, &l, err) < 0) {
		json_decref(o);
		return -1;
	}
	json_decref(o);
	int r = s->ops->update(s->engine, &l.spec, err);
	spec_loaded_free(&l);
	return r;
}

void sandbox_resize(struct sandbox *s, uint16_t rows, uint16_t cols)
{
	session_resize(s->session, rows, cols);
}

bool sandbox_running(const struct sandbox *s)
{
	return !s->concluded && s->phase == RUNNING && (s->spec->console || session_running(s->session));
}

void sandbox_kill(struct sandbox *s, int status, const char *why)
{
	conclude(s, status, why);
	if (s->phase == POWERING_OFF) /* asked again, or not to wait: enough */
		finished(s);
}

int sandbox_exit_status(const struct sandbox *s)
{
	return s->status;
}

const char *sandbox_why(const struct sandbox *s)
{
	return s->why;
}

const char *sandbox_console(const struct sandbox *s)
{
	return s->engine ? s->ops->console_tail(s->engine) : "";
}

const char *sandbox_guest_kernel(const struct sandbox *s)
{
	return s->session ? session_guest_kernel(s->session) : NULL;
}

const char *sandbox_warning(const struct sandbox *s)
{
	return s->net.warning ? s->net.warning : "";
}

void sandbox_finish(struct sandbox *s)
{
	if (!s)
		return;
	struct store *st = (struct store *)&s->plan->store;
	int status = s->status;
	release(s);
	s->state->status = s->suspended ? STATUS_SUSPENDED : STATUS_EXITED;
	s->state->exit_code = status;
	s->state->finished_ns = (int64_t)clock_real_ns();
	s->state->runner = s->state->engine_pid = 0;
	snprintf(s->state->error, sizeof(s->state->error), "%s", s->why);
	if (s->state->oom && !s->why[0])
		snprintf(s->state->error, sizeof(s->state->error), "out of memory");
	json_decref(s->state->network);
	s->state->network = NULL;
	events_add(st, "die", s->dir, s->spec, json_pack("{s:i}", "exit_code", status));
	if (s->state->oom)
		events_add(st, "oom", s->dir, s->spec, NULL);
	if (!s->spec->remove || s->suspended)
		sandbox_state_write(s->dir, s->state, true, NULL);
	runner_conclude(s->runner, status);
	unlinkat(s->dir->dir_fd, "agent.sock", 0);
	if (s->spec->remove && !s->suspended) {
		/* The name as it is now: it may have been given another. */
		json_t *o = sandbox_dir_read(s->dir, "config.json", NULL);
		const char *name = json_string_value(json_object_get(o, "name"));
		events_add(st, "destroy", s->dir, s->spec, NULL);
		sandbox_dir_remove(s->dir, name);
		json_decref(o);
	}
	runner_free(s->runner);
	free(s);
}

int sandbox_template(const struct sandbox_plan *p, char *const *warm, struct cai_error *err)
{
	struct net net;
	net_init(&net);
	int r = make_network(p, "template", &net, err);
	if (r == 0)
		r = engine_microvm_template(p, &net, warm, err);
	net_teardown(&net);
	return r;
}

void sandbox_sweep(struct store *st, const struct sandbox_dir *d)
{
	struct sandbox_state state;
	if (sandbox_state_read(d, &state, NULL) == 0) {
		container_heal(d->id, state.engine_pid, state.engine_start, NULL);
		sandbox_state_free(&state);
	} else {
		container_heal(d->id, 0, 0, NULL);
	}
	quota_heal(d->id);
	net_heal(st->root_fd, NULL);
}
