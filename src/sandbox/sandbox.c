/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: two witnesses report on a running sandbox, the agent's stream (session.c) and the
 * monitor's control socket (monitor.c), and they may report in either order: a panic closes the stream and
 * sends ENDED; a killed monitor closes both at once. So an end seen on one side is held until the other has
 * spoken or GRACE has passed, and then judged once, in conclude(), from everything that is known. What the
 * program itself said (its exit status) beats everything else.
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sandbox/console.h"
#include "sandbox/monitor.h"
#include "sandbox/session.h"
#include "sandbox/watch.h"

#define GRACE_NS      2000000000ull   /* between the first sign of the end and its explanation */
#define AGENT_WAIT_NS 120000000000ull /* for the agent to answer: a slow KVM needs many seconds to boot */
#define LOG_KEEP      2048

struct sandbox {
	struct loop *loop;
	const struct sandbox_spec *spec;
	struct sandbox_hooks hooks;
	struct sandbox_dir dir;
	struct monitor mon;
	struct session *session;
	int stream; /* to the vsock listener, until the session takes it */
	struct console *console;
	struct watch w_control, w_log;
	struct loop_source *timer;
	struct agent_setup setup;
	struct agent_start start;
	char log[LOG_KEEP + 1]; /* the monitor's last diagnostics */
	size_t log_len;
	bool control_gone, session_done, concluded, booted;
	struct control_ended ended; /* reason 0: not received */
	char refusal[480];	    /* text of the monitor's ERROR */
	int status;
	char why[640];
};

static void conclude_if_ready(struct sandbox *s);
static void on_log(void *ctx, uint32_t events);

static void conclude(struct sandbox *s, int status, const char *why)
{
	if (s->concluded)
		return;
	s->concluded = true;
	s->status = status;
	if (why != s->why)
		snprintf(s->why, sizeof(s->why), "%s", why);
	watch_set(&s->w_control, 0);
	loop_timer_set(s->timer, 0);
	console_drain(s->console);
	s->hooks.ended(s->hooks.ctx);
}

/* What the monitor's side has to say about the end, as a sentence in s->why. */
static void explain(struct sandbox *s)
{
	char how[128];
	const char *text = s->ended.text && s->ended.text[0] ? s->ended.text : NULL;
	switch (s->ended.reason) {
	case CONTROL_END_POWEROFF:
		snprintf(s->why, sizeof(s->why), "the guest powered itself off before the command had ended");
		return;
	case CONTROL_END_RESET:
		snprintf(s->why, sizeof(s->why), "the guest restarted itself before the command had ended");
		return;
	case CONTROL_END_PANIC:
		snprintf(s->why, sizeof(s->why), "the guest's kernel panicked%s%s", text ? ": " : "",
			 text ? text : "");
		return;
	case CONTROL_END_TRIPLE_FAULT:
		snprintf(s->why, sizeof(s->why), "the guest's CPU shut down by a triple fault%s%s",
			 text ? ": " : "", text ? text : "");
		return;
	case CONTROL_END_ACCEL_LOST:
		snprintf(s->why, sizeof(s->why), "the accelerator failed%s%s", text ? ": " : "",
			 text ? text : "");
		return;
	case CONTROL_END_JAIL:
		snprintf(s->why, sizeof(s->why), "the monitor was stopped by its jail%s%s", text ? ": " : "",
			 text ? text : "");
		return;
	case CONTROL_END_STOPPED:
		snprintf(s->why, sizeof(s->why), "the sandbox was stopped");
		return;
	case CONTROL_END_INTERNAL:
		snprintf(s->why, sizeof(s->why), "the monitor failed%s%s", text ? ": " : "",
			 text ? text : "");
		return;
	default:
		break;
	}
	if (s->refusal[0]) {
		const char *k = s->spec->kernel;
		bool about_kernel = k && strcasestr(s->refusal, "kernel") && !strstr(s->refusal, k);
		snprintf(s->why, sizeof(s->why), "%s%s%s", about_kernel ? k : "", about_kernel ? ": " : "",
			 s->refusal);
		return;
	}
	/* It is gone without a word: read what it may have said last, then reap it, to say how it died. */
	for (unsigned i = 0; i < 4 && s->w_log.events; i++)
		on_log(s, 0);
	monitor_stop(&s->mon);
	monitor_describe_end(&s->mon, how, sizeof(how));
	const char *last = strrchr(s->log, '\n');
	last = last ? last + 1 : s->log;
	snprintf(s->why, sizeof(s->why), "the monitor (caisson-vmm) %s%s%.300s", how,
		 last[0] ? "; its last words: " : "", last);
}

static void on_session_end(void *ctx)
{
	struct sandbox *s = ctx;
	s->session_done = true;
	conclude_if_ready(s);
}

static void conclude_session(struct sandbox *s)
{
	const struct session_result *r = session_result(s->session);
	if (r->end == SESSION_EXITED) {
		int status = r->signal ? 128 + (int)(r->signal & 0x7f) : (int)(r->status & 0xff);
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
	conclude(s, status, r->text[0] ? r->text : "the guest's agent refused without saying why");
}

static void conclude_if_ready(struct sandbox *s)
{
	if (s->concluded)
		return;
	bool monitor_done = s->control_gone || s->ended.reason || s->refusal[0];
	enum session_end how = s->session_done ? session_result(s->session)->end : 0;
	if (how == SESSION_EXITED || how == SESSION_REFUSED) {
		conclude_session(s);
	} else if (monitor_done && (s->session_done || !s->session || !s->booted)) {
		explain(s);
		bool plain = s->spec->console && (s->ended.reason == CONTROL_END_POWEROFF ||
						  s->ended.reason == CONTROL_END_RESET);
		conclude(s, plain ? 0 : EXIT_CAISSON, plain ? "" : s->why);
	} else if (monitor_done || s->session_done) {
		loop_timer_set(s->timer, clock_mono_ns() + GRACE_NS);
	}
}

static void on_timer(void *ctx)
{
	struct sandbox *s = ctx;
	if (s->control_gone || s->ended.reason) {
		explain(s);
		conclude(s, EXIT_CAISSON, s->why);
	} else if (s->session_done) {
		conclude(s, EXIT_CAISSON, session_result(s->session)->text);
	} else if (!sandbox_running(s)) {
		snprintf(s->why, sizeof(s->why), "the guest's agent did not answer within %llu s%s",
			 AGENT_WAIT_NS / 1000000000ull,
			 s->spec->kernel || s->spec->initrd
			     ? "; a guest without Caisson's agent is reached with --console"
			     : "");
		conclude(s, EXIT_CAISSON, s->why);
	}
}

static void on_control(void *ctx, uint32_t events)
{
	struct sandbox *s = ctx;
	struct monitor_event e;
	int r;
	while ((r = monitor_next(&s->mon, &e)) > 0) {
		if (e.type == CONTROL_ERROR && !s->refusal[0]) {
			snprintf(s->refusal, sizeof(s->refusal), "%s",
				 e.text && e.text[0] ? e.text : "the monitor refused its configuration");
		} else if (e.type == CONTROL_OK && e.seq == 2) {
			s->booted = true;
			if (s->spec->console)
				s->hooks.started(s->hooks.ctx);
		} else if (e.type == CONTROL_ENDED && !s->ended.reason) {
			s->ended = e.ended;
			memset(&e.ended, 0, sizeof(e.ended));
			log_debug("the monitor reports the end, reason %u: %s", s->ended.reason,
				  s->ended.text ? s->ended.text : "");
		}
		monitor_event_free(&e);
	}
	if (r < 0) {
		s->control_gone = true;
		watch_set(&s->w_control, 0);
	}
	conclude_if_ready(s);
}

/* Keeps the tail of what the monitor says, without its final newline, so that the last line is easily found.
 */
static void on_log(void *ctx, uint32_t events)
{
	struct sandbox *s = ctx;
	char chunk[1024];
	ssize_t n = read(s->mon.log, chunk, sizeof(chunk));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		watch_set(&s->w_log, 0);
		return;
	}
	if (s->spec->debug && write(STDERR_FILENO, chunk, (size_t)n) < 0)
		return;
	if (s->log_len && s->log_len < LOG_KEEP && s->log[s->log_len] == 0 &&
	    s->log_len + (size_t)n + 1 <= LOG_KEEP)
		s->log[s->log_len++] = '\n';
	else
		s->log_len = 0;
	memcpy(s->log + s->log_len, chunk, (size_t)n);
	s->log_len += (size_t)n;
	while (s->log_len && s->log[s->log_len - 1] == '\n')
		s->log_len--;
	s->log[s->log_len] = 0;
	for (size_t i = 0; i < s->log_len; i++)
		if ((unsigned char)s->log[i] < 32 && s->log[i] != '\n')
			s->log[i] = ' ';
}

static void on_started(void *ctx)
{
	struct sandbox *s = ctx;
	loop_timer_set(s->timer, 0);
	s->hooks.started(s->hooks.ctx);
}

static int configure(struct sandbox *s, const struct sandbox_plan *p, struct cai_error *err)
{
	const struct sandbox_spec *spec = p->spec;
	struct control_config c;
	control_config_init(&c);
	c.vcpus = spec->cpus;
	c.mem_bytes = spec->memory & ~0xfffull;
	c.accel = p->accel.kvm ? CONTROL_ACCEL_KVM : CONTROL_ACCEL_SOFT;
	strcpy(c.cpu_model, "v2");
	c.cmdline = p->cmdline;
	c.fd[CONTROL_FD_KERNEL] = p->kernel;
	c.fd[CONTROL_FD_INITRD] = p->initrd;
	c.fd[CONTROL_FD_KVM] = p->kvm;
	c.n_disks = 1;
	c.disk[0].flags = CONTROL_DISK_READONLY;
	strcpy(c.disk[0].id, "root");
	c.disk_fd[0] = p->root.fd;
	cleanup_close int vsock = sandbox_dir_listen(&s->dir, "vsock.sock", SOCK_STREAM, err);
	cleanup_close int con_out = -1, con_in = -1;
	if (vsock < 0)
		return -1;
	/* Connected while the listener is still ours: a monitor that refuses and exits at once cannot turn
	 * that into another error. */
	if (!spec->console && (s->stream = sandbox_dir_connect(&s->dir, "vsock.sock", SOCK_STREAM, err)) < 0)
		return -1;
	if (spec->console || spec->debug) {
		bool use_in = spec->console && spec->interactive;
		s->console = console_new(s->loop, use_in ? s->hooks.in : -1,
					 spec->console ? s->hooks.out : s->hooks.err, !spec->console,
					 &con_out, &con_in, err);
		if (!s->console)
			return -1;
	}
	c.fd[CONTROL_FD_VSOCK] = vsock;
	/* No listener for further control clients: with one, the monitor outlives us, and nothing asks for
	 * that yet. */
	c.fd[CONTROL_FD_CONSOLE] = con_out;
	c.fd[CONTROL_FD_CONSOLE_IN] = con_in;
	return monitor_boot(&s->mon, &c, err);
}

static int open_session(struct sandbox *s, const struct sandbox_plan *p, struct cai_error *err)
{
	const struct sandbox_spec *spec = p->spec;
	s->setup = (struct agent_setup){
	    .hostname = s->dir.name,
	    .root_dev = (char *)"/dev/vda",
	    .root_fstype = (char *)p->root.fstype,
	    .root_mode = AGENT_ROOT_OVERLAY_TMPFS,
	};
	s->start = (struct agent_start){
	    .flags = (spec->tty ? AGENT_START_TTY : 0) | (spec->interactive ? AGENT_START_STDIN : 0),
	    .rows = s->hooks.rows,
	    .cols = s->hooks.cols,
	    .argv = (char **)spec->argv,
	    .env = (char **)spec->env,
	    .cwd = (char *)(spec->cwd ? spec->cwd : ""),
	    .user = (char *)(spec->user ? spec->user : ""),
	};
	struct session_config c = {
	    .stream = steal_fd(&s->stream),
	    .in = spec->interactive ? s->hooks.in : -1,
	    .out = s->hooks.out,
	    .err = s->hooks.err,
	    .setup = &s->setup,
	    .start = &s->start,
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

/* For those who look: `caisson ps` to come, and people. Nothing of Caisson trusts it. */
static int write_record(struct sandbox *s, const struct sandbox_plan *p, struct cai_error *err)
{
	const struct sandbox_spec *spec = p->spec;
	json_t *argv = json_array();
	for (char *const *a = spec->argv; a && *a; a++) {
		json_t *v = json_string(*a); /* NULL for what is not UTF-8 */
		json_array_append_new(argv, v ? v : json_string("?"));
	}
	json_t *o = json_pack("{s:i,s:s,s:i,s:i,s:I,s:s,s:s,s:s,s:i,s:I,s:o}", "version", 1, "name",
			      s->dir.name, "pid", (int)getpid(), "monitor_pid", (int)s->mon.pid, "created_ns",
			      (json_int_t)clock_real_ns(), "engine", "microvm", "accel",
			      p->accel.kvm ? "kvm" : "soft", "boundary", boundary_name(p->accel.boundary),
			      "cpus", (int)spec->cpus, "memory", (json_int_t)spec->memory, "command", argv);
	char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
	json_decref(o);
	int r = text ? sandbox_dir_write(&s->dir, "sandbox.json", text, err)
		     : cai_fail(err, ENOMEM, "out of memory");
	free(text);
	return r;
}

struct sandbox *sandbox_start(struct loop *l, const struct sandbox_plan *p, const struct sandbox_hooks *h,
			      struct cai_error *err)
{
	struct sandbox *s = calloc(1, sizeof(*s));
	if (!s) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	s->loop = l;
	s->spec = p->spec;
	s->hooks = *h;
	s->stream = -1;
	sandbox_dir_init(&s->dir);
	monitor_init(&s->mon);
	s->w_control = (struct watch){.loop = l, .fd = -1, .fn = on_control, .ctx = s};
	s->w_log = (struct watch){.loop = l, .fd = -1, .fn = on_log, .ctx = s};
	s->timer = loop_add_timer(l, on_timer, s, err);
	if (!s->timer || registry_create((struct registry *)&p->reg, p->spec->name, &s->dir, err) < 0 ||
	    monitor_start(&s->mon, p->monitor, err) < 0 || configure(s, p, err) < 0 ||
	    write_record(s, p, err) < 0 || (!p->spec->console && open_session(s, p, err) < 0)) {
		sandbox_free(s);
		return NULL;
	}
	s->w_control.fd = s->mon.control;
	s->w_log.fd = s->mon.log;
	watch_set(&s->w_control, EPOLLIN);
	watch_set(&s->w_log, EPOLLIN);
	return s;
}

void sandbox_signal(struct sandbox *s, int signo)
{
	session_signal(s->session, signo);
}

void sandbox_resize(struct sandbox *s, uint16_t rows, uint16_t cols)
{
	session_resize(s->session, rows, cols);
}

bool sandbox_running(const struct sandbox *s)
{
	return !s->concluded && (s->spec->console ? s->booted : session_running(s->session));
}

void sandbox_kill(struct sandbox *s, int status, const char *why)
{
	conclude(s, status, why);
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
	bool failed = s->ended.reason == CONTROL_END_PANIC || s->ended.reason == CONTROL_END_TRIPLE_FAULT;
	/* who watches the console has seen it */
	return failed && s->ended.console && !s->console ? s->ended.console : "";
}

const char *sandbox_name(const struct sandbox *s)
{
	return s->dir.name;
}

const char *sandbox_guest_kernel(const struct sandbox *s)
{
	return s->session ? session_guest_kernel(s->session) : NULL;
}

void sandbox_free(struct sandbox *s)
{
	if (!s)
		return;
	watch_set(&s->w_control, 0);
	watch_set(&s->w_log, 0);
	session_free(s->session);
	if (s->stream >= 0)
		close(s->stream);
	monitor_stop(&s->mon);
	console_free(s->console);
	sandbox_dir_remove(&s->dir);
	loop_del(s->timer);
	control_ended_free(&s->ended);
	free(s);
}
