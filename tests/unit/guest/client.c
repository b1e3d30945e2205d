/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/agent.h"
#include "guest/prepare.h"

static int fake_setup(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err)
{
	if (!strcmp(m->root_dev, "/dev/bad")) {
		*code = AGENT_E_ROOTFS;
		return cai_fail(err, 22, "the root disk is bad");
	}
	return 0;
}

static int fake_renew(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err)
{
	*code = AGENT_E_NETWORK;
	return strcmp(m->hostname, "bad") ? 0 : cai_fail(err, 19, "no such interface");
}

static int fake_prepare(void *ctx, char *const *argv, uint32_t *code, struct cai_error *err)
{
	struct prepare p;
	*code = AGENT_E_ROOTFS;
	return prepare_parse(argv, &p, err) < 0 || strcmp(p.root.dev, "/dev/bad") ? 0 : cai_fail(err, 22, "the root disk is bad");
}

/* The command of "prepare" is run as it is: its warm-up would be one of a whole machine. */
static int fake_spawn(const struct agent_start *m, enum spawn_how how, struct spawned *s, struct cai_error *err)
{
	struct agent_start n = *m;
	struct prepare p;
	if ((m->flags & AGENT_START_BUILTIN) && !strcmp(m->argv[0], "prepare") && prepare_parse(m->argv, &p, NULL) == 0 && p.command) {
		n.flags &= ~AGENT_START_BUILTIN;
		n.argv = (char **)(uintptr_t)p.command;
	}
	return spawn_process(&n, how, s, err);
}

static void fake_poweroff(void *ctx)
{
}

static void serve(int listener)
{
	const struct agent_ops ops = {.setup = fake_setup,
				      .renew = fake_renew,
				      .poweroff = fake_poweroff,
				      .prepare = fake_prepare,
				      .first_together = true,
				      .spawn = fake_spawn,
				      .signal_session = spawn_signal_session};
	struct cai_error err = {.text = ""};
	sigset_t chld;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	signal(SIGPIPE, SIG_IGN);
	struct agent *a = agent_new(&ops, &err);
	if (!a || agent_listen(a, listener, &err) < 0 || agent_run(a, &err) < 0) {
		fprintf(stderr, "agent: %s\n", err.text);
		_exit(9);
	}
	agent_free(a);
	exit(0);
}

void server_start_bare(struct server *s)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	snprintf(s->path, sizeof(s->path), "/tmp/caisson-test-agent.%d.%p", (int)getpid(), (void *)s);
	unlink(s->path);
	strcpy(sa.sun_path, s->path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 512), 0);
	fflush(NULL);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (s->pid == 0)
		serve(fd);
	close(fd);
	signal(SIGPIPE, SIG_IGN);
}

void put_setup(struct buf *b, const char *dev)
{
	agent_put_setup(b, &(struct agent_setup){
				   .hostname = (char[]){"test"}, .root_dev = (char *)(uintptr_t)dev, .root_mode = AGENT_ROOT_READONLY});
}

void server_start(struct server *s)
{
	server_start_bare(s);
	int c = client_connect(s);
	struct buf b = {0};
	uint8_t *body;
	uint32_t len;
	put_setup(&b, "");
	client_send(c, &b);
	assert_int_equal(client_recv(c, &body, &len), AGENT_OK);
	free(body);
	close(c);
}

void server_stop(struct server *s)
{
	struct buf b = {0};
	int status;
	int c = client_connect(s);
	agent_put_frame(&b, AGENT_POWEROFF, NULL, 0);
	client_send(c, &b);
	assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
	assert_int_equal(status, 0);
	close(c);
	unlink(s->path);
}

int client_connect(const struct server *s)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct agent_hello h;
	uint8_t *body;
	uint32_t len;
	strcpy(sa.sun_path, s->path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	unsigned type = client_recv(fd, &body, &len);
	if (type == AGENT_HELLO) {
		assert_int_equal(agent_get_hello(body, len, &h, NULL), 0);
		assert_int_equal(h.version, AGENT_VERSION);
		assert_non_null(strstr(h.kernel, "Linux"));
		agent_hello_free(&h);
	} else {
		assert_int_equal(type, AGENT_ERROR); /* too many sessions */
		close(fd);
		fd = -1;
	}
	free(body);
	return fd;
}

void client_send(int fd, const struct buf *b)
{
	assert_false(b->failed);
	size_t at = 0;
	while (at < b->len) {
		ssize_t n = send(fd, b->p + at, b->len - at, MSG_NOSIGNAL);
		if (n < 0)
			break; /* the agent gave up on us: what it said is still to be read */
		at += (size_t)n;
	}
	free(b->p);
}

static bool recv_full(int fd, void *p, size_t n)
{
	size_t got = 0;
	while (got < n) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
		ssize_t r = recv(fd, (uint8_t *)p + got, n - got, 0);
		if (r <= 0)
			return false;
		got += (size_t)r;
	}
	return true;
}

unsigned client_recv(int fd, uint8_t **body, uint32_t *len)
{
	uint8_t raw[AGENT_HEADER_SIZE];
	struct agent_header h;
	*body = NULL;
	*len = 0;
	if (!recv_full(fd, raw, sizeof(raw)))
		return 0;
	assert_int_equal(agent_get_header(raw, &h, NULL), 0);
	*body = malloc(h.len + 1);
	assert_true(recv_full(fd, *body, h.len));
	*len = h.len;
	return h.type;
}

void client_start(int fd, const struct agent_start *m)
{
	struct buf b = {0};
	agent_put_start(&b, m);
	client_send(fd, &b);
}

void client_finish(int fd, struct outcome *o)
{
	struct agent_error e;
	for (;;) {
		uint8_t *body;
		uint32_t len;
		unsigned type = client_recv(fd, &body, &len);
		switch (type) {
		case AGENT_STARTED:
			assert_int_equal(o->pid, 0);
			assert_int_equal(agent_get_u32(body, len, &o->pid, NULL), 0);
			break;
		case AGENT_STDOUT:
			assert_true(len > 0 && len <= AGENT_MAX_DATA);
			buf_put_bytes(&o->out, body, len);
			break;
		case AGENT_STDERR:
			assert_true(len > 0 && len <= AGENT_MAX_DATA);
			buf_put_bytes(&o->err, body, len);
			break;
		case AGENT_EXIT:
			o->exited = true;
			assert_int_equal(agent_get_exit(body, len, &o->exit, NULL), 0);
			break;
		case AGENT_ERROR:
			assert_int_equal(agent_get_error(body, len, &e, NULL), 0);
			o->error_code = e.code;
			snprintf(o->error, sizeof(o->error), "%s", e.text);
			agent_error_free(&e);
			break;
		case AGENT_STDIN_CREDIT:
		case 0:
			break;
		default:
			fail_msg("unexpected frame %u", type);
		}
		free(body);
		if (type == AGENT_EXIT || type == AGENT_ERROR || type == 0)
			return;
	}
}

void outcome_free(struct outcome *o)
{
	buf_free(&o->out);
	buf_free(&o->err);
	*o = (struct outcome){0};
}

void run_script(const struct server *s, const char *script, struct outcome *o)
{
	char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, (char *)(uintptr_t)script, NULL};
	int fd = client_connect(s);
	*o = (struct outcome){0};
	client_start(fd, &(struct agent_start){.argv = argv});
	client_finish(fd, o);
	close(fd);
}

bool outcome_says(const struct outcome *o, const char *text)
{
	if (o->out.len == strlen(text) && (!o->out.len || !memcmp(o->out.p, text, o->out.len)))
		return true;
	print_message("stdout: \"%.*s\" stderr: \"%.*s\" error: %s\n", (int)o->out.len, (char *)o->out.p, (int)o->err.len,
		      (char *)o->err.p, o->error);
	return false;
}
