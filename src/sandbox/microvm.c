/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the engine that is a caisson-vmm process. Its control socket is both the way to command it and its leash. The
 * order of what it reports is not fixed (a panic closes the agent's stream and sends ENDED; a killed monitor closes everything at once), so
 * what comes is kept here and explain() judges from all of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"
#include "sandbox/console.h"
#include "sandbox/disk.h"
#include "sandbox/engine.h"
#include "sandbox/quota.h"
#include "sandbox/monitor.h"
#include "sandbox/shares.h"
#include "sandbox/template.h"
#include "sandbox/watch.h"

#define LOG_KEEP   2048
#define REQUEST_MS 15000
#define BOOT_SEQ   2 /* of monitor_boot's START */

struct microvm {
	struct engine_base base;
	struct loop *loop;
	const struct sandbox_plan *plan;
	struct sandbox_dir *dir;
	struct engine_hooks hooks;
	struct monitor mon;
	struct console *console;
	struct watch w_control, w_log;
	struct shares *shares;
	int stream; /* to the agent; -1 once taken */
	struct quota *limits;
	char log[LOG_KEEP + 1]; /* the monitor's last diagnostics */
	size_t log_len;
	bool control_gone, booted, shown;
	struct control_ended ended; /* reason 0: not received */
	char refusal[480];	    /* text of the monitor's ERROR */
	bool have_upper;
	char template[64]; /* that it was restored from; "": it booted */
};

static struct microvm *vm(struct engine *e)
{
	return (struct microvm *)e;
}

static bool over(struct engine *e)
{
	struct microvm *m = vm(e);
	return m->control_gone || m->ended.reason || m->refusal[0];
}

static bool booted(struct engine *e)
{
	return vm(e)->booted;
}

/* Keeps the tail of what the monitor says, without its final newline, so that the last line is easily found. */
static void on_log(void *ctx, uint32_t events)
{
	struct microvm *m = ctx;
	char chunk[1024];
	ssize_t n = read(m->mon.log, chunk, sizeof(chunk));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		watch_set(&m->w_log, 0);
		return;
	}
	if (m->plan->spec->debug && write(STDERR_FILENO, chunk, (size_t)n) < 0)
		return;
	if (m->log_len && m->log_len < LOG_KEEP && m->log[m->log_len] == 0 && m->log_len + (size_t)n + 1 <= LOG_KEEP)
		m->log[m->log_len++] = '\n';
	else
		m->log_len = 0;
	memcpy(m->log + m->log_len, chunk, (size_t)n);
	m->log_len += (size_t)n;
	while (m->log_len && m->log[m->log_len - 1] == '\n')
		m->log_len--;
	m->log[m->log_len] = 0;
	for (size_t i = 0; i < m->log_len; i++)
		if ((unsigned char)m->log[i] < 32 && m->log[i] != '\n')
			m->log[i] = ' ';
}

/* Takes in what one event says. */
static void take(struct microvm *m, struct monitor_event *e)
{
	if (e->type == CONTROL_ERROR && e->seq <= BOOT_SEQ && !m->refusal[0]) {
		snprintf(m->refusal, sizeof(m->refusal), "%s",
			 e->text && e->text[0] ? e->text : "the monitor refused its configuration");
	} else if (e->type == CONTROL_OK && e->seq == BOOT_SEQ && !m->booted) {
		m->booted = true;
		m->hooks.booted(m->hooks.ctx);
	} else if (e->type == CONTROL_ENDED && !m->ended.reason) {
		m->ended = e->ended;
		memset(&e->ended, 0, sizeof(e->ended));
		log_debug("the monitor reports the end, reason %u: %s", m->ended.reason, m->ended.text ? m->ended.text : "");
	}
}

static void lost_control(struct microvm *m)
{
	m->control_gone = true;
	watch_set(&m->w_control, 0);
}

static void on_control(void *ctx, uint32_t events)
{
	struct microvm *m = ctx;
	struct monitor_event e;
	int r;
	while ((r = monitor_next(&m->mon, &e)) > 0) {
		take(m, &e);
		monitor_event_free(&e);
	}
	if (r < 0)
		lost_control(m);
	if (over((struct engine *)m))
		m->hooks.gone(m->hooks.ctx);
}

/* The answer to request seq; what else arrives meanwhile is taken in, too. */
static int await_reply(struct microvm *m, uint32_t seq, struct control_status *st, struct cai_error *err)
{
	int r;
	uint64_t end = clock_mono_ns() + REQUEST_MS * 1000000ull;
	for (;;) {
		struct monitor_event e;
		r = monitor_next(&m->mon, &e);
		if (r > 0 && e.seq == seq) {
			r = e.type == CONTROL_ERROR ? cai_fail(err, (int)e.errnum, "%s", e.text ? e.text : "the monitor refused") : 0;
			if (r == 0 && st)
				*st = e.status;
			monitor_event_free(&e);
			return r;
		}
		if (r > 0) {
			take(m, &e);
			monitor_event_free(&e);
			continue;
		}
		uint64_t now = clock_mono_ns();
		struct pollfd p = {.fd = m->mon.control, .events = POLLIN};
		if (r < 0 || now >= end || poll(&p, 1, (int)((end - now) / 1000000) + 1) == 0) {
			if (r < 0)
				lost_control(m);
			return cai_fail(err, ETIMEDOUT, r < 0 ? "the monitor is gone" : "the monitor does not answer");
		}
	}
}

static int request(struct microvm *m, enum control_type type, struct control_status *st, struct cai_error *err)
{
	struct buf b = {0};
	uint32_t seq = ++m->mon.seq;
	control_put(&b, type, seq);
	int r = b.failed || m->mon.control < 0 ? -1 : control_send(m->mon.control, b.p, b.len, NULL, 0);
	buf_free(&b);
	return r < 0 ? cai_fail(err, EPIPE, "the monitor cannot be reached") : await_reply(m, seq, st, err);
}

static const char *with(const struct control_ended *e, const char *what, char *out, size_t n)
{
	bool text = e->text && e->text[0];
	snprintf(out, n, "%s%s%s", what, text ? ": " : "", text ? e->text : "");
	return out;
}

/* What the monitor's side has to say about the end. */
static bool explain(struct engine *base, char *why, size_t n)
{
	struct microvm *m = vm(base);
	const struct sandbox_spec *spec = m->plan->spec;
	char how[128];
	console_drain(m->console);
	switch (m->ended.reason) {
	case CONTROL_END_POWEROFF:
		snprintf(why, n, "the guest powered itself off before the command had ended");
		return spec->console;
	case CONTROL_END_RESET:
		snprintf(why, n, "the guest restarted itself before the command had ended");
		return spec->console;
	case CONTROL_END_PANIC:
		with(&m->ended, "the guest's kernel panicked", why, n);
		return false;
	case CONTROL_END_TRIPLE_FAULT:
		with(&m->ended, "the guest's CPU shut down by a triple fault", why, n);
		return false;
	case CONTROL_END_ACCEL_LOST:
		with(&m->ended, "the accelerator failed", why, n);
		return false;
	case CONTROL_END_JAIL:
		with(&m->ended, "the monitor was stopped by its jail", why, n);
		return false;
	case CONTROL_END_STOPPED:
		snprintf(why, n, "the sandbox was stopped");
		return false;
	case CONTROL_END_INTERNAL:
		with(&m->ended, "the monitor failed", why, n);
		return false;
	default:
		break;
	}
	if (m->refusal[0]) {
		const char *k = spec->kernel;
		bool about_kernel = k && strcasestr(m->refusal, "kernel") && !strstr(m->refusal, k);
		snprintf(why, n, "%s%s%s", about_kernel ? k : "", about_kernel ? ": " : "", m->refusal);
		return false;
	}
	/* It is gone without a word: read what it may have said last, then reap it, to say how it died. */
	for (unsigned i = 0; i < 4 && m->w_log.events; i++)
		on_log(m, 0);
	monitor_stop(&m->mon);
	monitor_describe_end(&m->mon, how, sizeof(how));
	const char *last = strrchr(m->log, '\n');
	last = last ? last + 1 : m->log;
	snprintf(why, n, "the monitor (caisson-vmm) %s%s%.300s", how, last[0] ? "; its last words: " : "", last);
	return false;
}

static const char *console_tail(struct engine *e)
{
	struct microvm *m = vm(e);
	bool failed = m->ended.reason == CONTROL_END_PANIC || m->ended.reason == CONTROL_END_TRIPLE_FAULT;
	/* who watches the console has seen it */
	return failed && m->ended.console && !m->console ? m->ended.console : "";
}

static void add_net(const struct net *net, struct control_config *c)
{
	if (!net || (net->kind != NET_KIND_TAP && net->kind != NET_KIND_STREAM))
		return;
	struct control_net *n = &c->net[c->n_nets];
	memcpy(n->mac, net->mac, 6);
	n->mtu = net->mtu;
	n->kind = net->kind == NET_KIND_TAP ? CONTROL_NET_TAP : CONTROL_NET_STREAM;
	n->n_fds = (uint8_t)net->n_fds;
	n->offloads = net->kind == NET_KIND_TAP ? net->offloads : 0;
	for (unsigned i = 0; i < net->n_fds; i++)
		c->net_fd[c->n_nets][i] = net->fd[i];
	c->n_nets++;
}

/* The machine's shape; descriptors in c stay their owners'. */
static void shape(const struct sandbox_plan *p, const struct net *net, struct control_config *c)
{
	const struct sandbox_spec *spec = p->spec;
	control_config_init(c);
	c->vcpus = spec->cpus;
	c->mem_bytes = spec->memory & ~0xfffull;
	c->accel = p->accel.kvm ? CONTROL_ACCEL_KVM : CONTROL_ACCEL_SOFT;
	strcpy(c->cpu_model, "v2");
	c->cmdline = p->cmdline;
	c->fd[CONTROL_FD_KERNEL] = p->kernel;
	c->fd[CONTROL_FD_INITRD] = p->initrd;
	c->fd[CONTROL_FD_KVM] = p->kvm;
	c->n_disks = 1;
	c->disk[0].flags = CONTROL_DISK_READONLY;
	strcpy(c->disk[0].id, "root");
	c->disk_fd[0] = p->root.fd;
	if (!spec->ephemeral && !spec->read_only && !spec->console) {
		strcpy(c->disk[1].id, "upper");
		c->n_disks = 2;
	}
	add_net(net, c);
}

int engine_microvm_template(const struct sandbox_plan *p, const struct net *net, char *const *warm, struct cai_error *err)
{
	struct control_config c;
	struct template t;
	shape(p, net, &c);
	/* The other one, for sandboxes that are started again, is made when it is needed. */
	int r = template_get(p, &c, c.n_disks == 2 ? p->spec->disk : 0, warm, true, &t, err);
	template_close(&t);
	return r;
}

static int configure(struct microvm *m, struct net *net, struct cai_error *err)
{
	const struct sandbox_plan *p = m->plan;
	const struct sandbox_spec *spec = p->spec;
	struct control_config c;
	cleanup_close int upper = -1, sock = -1, con_out = -1, con_in = -1;
	shape(p, net, &c);
	m->shares = shares_start(m->loop, spec, &c, err);
	if (!m->shares)
		return -1;
	sock = sandbox_dir_listen(m->dir, "agent.sock", SOCK_STREAM, err);
	if (sock < 0 || (!spec->console && (m->stream = sandbox_dir_connect(m->dir, "agent.sock", SOCK_STREAM, err)) < 0))
		return -1;
	if (spec->console || spec->debug) {
		bool use_in = spec->console && spec->interactive;
		m->console = console_new(m->loop, use_in ? m->hooks.in : -1, spec->console ? m->hooks.out : m->hooks.err,
					 !spec->console, &con_out, &con_in, err);
		if (!m->console)
			return -1;
	}
	c.fd[CONTROL_FD_VSOCK] = sock;
	/* No listener for further control clients: with one, the monitor would outlive its runner. */
	c.fd[CONTROL_FD_CONSOLE] = con_out;
	c.fd[CONTROL_FD_CONSOLE_IN] = con_in;
	struct template t;
	struct cai_error why = {0};
	template_init(&t);
	if (p->restore_dir >= 0) {
		t.state = openat(p->restore_dir, "state", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		t.memory = openat(p->restore_dir, "memory", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		t.level = TEMPLATE_WHOLE;
		if (t.state < 0 || t.memory < 0)
			why = (struct cai_error){.errnum = errno};
	} else if (spec->cold || template_get(p, &c, c.n_disks == 2 && !disk_exists(m->dir) ? spec->disk : 0, NULL, false, &t, &why) < 0) {
		log_debug("the machine boots: %s", why.text);
	} else {
		snprintf(m->template, sizeof(m->template), "%s", t.name);
	}
	int r = t.level == TEMPLATE_WHOLE && (t.state < 0 || t.memory < 0) ? cai_fail_errno(err, why.errnum, "the checkpoint cannot be opened") : 0;
	if (r == 0 && c.n_disks == 2) {
		upper = disk_open((struct store *)&p->store, m->dir, spec->disk, t.upper, err);
		c.disk_fd[1] = upper;
		m->have_upper = upper >= 0;
		r = upper < 0 ? -1 : 0;
	}
	if (r == 0)
		r = t.level == TEMPLATE_NONE ? monitor_boot(&m->mon, &c, err) : monitor_restore(&m->mon, &t, &c, err);
	template_close(&t);
	return r;
}

static void free_vm(struct engine *e)
{
	struct microvm *m = vm(e);
	if (!m)
		return;
	watch_set(&m->w_control, 0);
	watch_set(&m->w_log, 0);
	if (m->stream >= 0)
		close(m->stream);
	monitor_stop(&m->mon);
	/* One that the monitor does not take is of no use to anybody: the next sandbox makes it anew. */
	if (m->refusal[0] && m->template[0])
		template_remove((struct store *)&m->plan->store, m->template, NULL);
	console_free(m->console);
	shares_stop(m->shares);
	quota_free(m->limits);
	control_ended_free(&m->ended);
	free(m);
}

static struct engine *start(struct loop *l, const struct sandbox_plan *p, struct sandbox_dir *dir, struct net *net,
			    const struct engine_hooks *h, struct cai_error *err)
{
	struct microvm *m = calloc(1, sizeof(*m));
	if (!m) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	*m = (struct microvm){.base.ops = &engine_microvm, .loop = l, .plan = p, .dir = dir, .hooks = *h, .stream = -1};
	monitor_init(&m->mon);
	m->w_control = (struct watch){.loop = l, .fd = -1, .fn = on_control, .ctx = m};
	m->w_log = (struct watch){.loop = l, .fd = -1, .fn = on_log, .ctx = m};
	if (!(m->limits = quota_new(dir->id, p->spec, err)) || monitor_start(&m->mon, p->monitor, quota_enter, m->limits, err) < 0 ||
	    configure(m, net, err) < 0) {
		free_vm((struct engine *)m);
		return NULL;
	}
	m->w_control.fd = m->mon.control;
	m->w_log.fd = m->mon.log;
	watch_set(&m->w_control, EPOLLIN);
	watch_set(&m->w_log, EPOLLIN);
	return (struct engine *)m;
}

void engine_microvm_setup(struct engine *e, struct agent_setup *s)
{
	struct microvm *m = vm(e);
	s->root_dev = (char *)"/dev/vda";
	s->root_fstype = (char *)m->plan->root.fstype;
	s->root_mode = AGENT_ROOT_OVERLAY_TMPFS;
	if (m->have_upper) {
		s->root_mode = AGENT_ROOT_OVERLAY_DISK;
		s->upper_dev = (char *)"/dev/vdb";
		s->upper_fstype = (char *)"ext4";
	}
	shares_setup(m->shares, s);
}

static int take_stream(struct engine *e)
{
	return steal_fd(&vm(e)->stream);
}

static pid_t get_pid(struct engine *e)
{
	return vm(e)->mon.pid;
}

static void about(struct engine *e, uint64_t *start_time, const char **note)
{
	*start_time = 0; /* a monitor has a leash */
	*note = "";
}

static bool oom(struct engine *e)
{
	return quota_oom(vm(e)->limits);
}

static int pause_vm(struct engine *e, struct cai_error *err)
{
	return request(vm(e), CONTROL_PAUSE, NULL, err);
}

static int resume_vm(struct engine *e, struct cai_error *err)
{
	return request(vm(e), CONTROL_RESUME, NULL, err);
}

static int stats(struct engine *e, json_t *o, struct cai_error *err)
{
	struct microvm *m = vm(e);
	struct control_status st = {0};
	if (request(m, CONTROL_QUERY, &st, err) < 0)
		return -1;
	quota_stats(m->limits, m->mon.pid, o);
	json_object_set_new(o, "memory_limit", json_integer((json_int_t)st.mem_bytes));
	json_object_set_new(o, "vcpus", json_integer(st.vcpus));
	json_object_set_new(o, "uptime_ns", json_integer((json_int_t)st.uptime_ns));
	json_object_set_new(o, "instructions", json_integer((json_int_t)st.instructions));
	json_object_set_new(o, "balloon_freed", json_integer((json_int_t)st.balloon_bytes));
	json_object_set_new(o, "disk_read", json_integer((json_int_t)st.disk_read_bytes));
	json_object_set_new(o, "disk_written", json_integer((json_int_t)st.disk_written_bytes));
	json_object_set_new(o, "net_rx", json_integer((json_int_t)st.net_rx_bytes));
	json_object_set_new(o, "net_tx", json_integer((json_int_t)st.net_tx_bytes));
	return 0;
}

/* The files are open in the monitor while it writes; they are synced here. */
static int write_snapshot(struct microvm *m, int dir, struct cai_error *err)
{
	cleanup_close int state = openat(dir, "state", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	cleanup_close int memory = openat(dir, "memory", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (state < 0 || memory < 0)
		return cai_fail_errno(err, errno, "cannot make files for the checkpoint");
	struct control_snapshot s = {.state_fd = state, .memory_fd = memory, .code_fd = -1};
	struct buf b = {0};
	uint32_t seq = ++m->mon.seq;
	control_put_snapshot(&b, seq, &s);
	int r = b.failed || control_send(m->mon.control, b.p, b.len, (int[]){state, memory}, 2) < 0 ? -1 : 0;
	buf_free(&b);
	if (r < 0)
		return cai_fail(err, EPIPE, "the monitor cannot be reached");
	if (await_reply(m, seq, NULL, err) < 0)
		return -1;
	return fdatasync(state) < 0 || fdatasync(memory) < 0 ? cai_fail_errno(err, errno, "cannot write the checkpoint") : 0;
}

static int snapshot(struct engine *e, int dir, bool disk, bool stop, struct cai_error *err)
{
	struct microvm *m = vm(e);
	if (request(m, CONTROL_PAUSE, NULL, err) < 0)
		return -1;
	int r = write_snapshot(m, dir, err);
	if (r == 0 && disk && m->have_upper)
		r = disk_copy(m->dir->dir_fd, dir, err);
	if (r < 0 || !stop)
		request(m, CONTROL_RESUME, NULL, NULL);
	return r;
}

static int update(struct engine *e, const struct sandbox_spec *spec, struct cai_error *err)
{
	return quota_update(vm(e)->limits, spec, err);
}

const struct engine_ops engine_microvm = {
	.connect_line = true,
	.start = start,
	.take_stream = take_stream,
	.over = over,
	.booted = booted,
	.explain = explain,
	.console_tail = console_tail,
	.pid = get_pid,
	.about = about,
	.oom = oom,
	.pause = pause_vm,
	.resume = resume_vm,
	.stats = stats,
	.snapshot = snapshot,
	.update = update,
	.free = free_vm,
};
