/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor's control server: an input is a row of packets, {u16 length, u8 descriptors, bytes}, sent one by one to a server with
 * operations that only keep count. Each packet must be answered exactly once, no operation may come in a state it does not fit,
 * and no descriptor may stay open. The whole input is also searched for a kernel's panic report, as a console's tail is.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/ending.h"
#include "vmm/server.h"

#define MAX_PACKETS 64

struct world {
	enum control_state state;
	bool stopped;
};

static void must(bool ok)
{
	if (!ok)
		abort();
}

static int configure(void *ctx, struct control_config *cfg, struct cai_error *err)
{
	struct world *w = ctx;
	must(w->state == CONTROL_STATE_NEW);
	bool ok = cfg->mem_bytes % 3 != 0;
	control_config_free(cfg);
	if (!ok)
		return cai_fail(err, 0, "refused");
	w->state = CONTROL_STATE_CONFIGURED;
	return 0;
}

static int step(struct world *w, enum control_state from, enum control_state to)
{
	must(w->state == from);
	w->state = to;
	return 0;
}

static int start(void *ctx, struct cai_error *err)
{
	return step(ctx, CONTROL_STATE_CONFIGURED, CONTROL_STATE_RUNNING);
}

static int pause_(void *ctx, struct cai_error *err)
{
	return step(ctx, CONTROL_STATE_RUNNING, CONTROL_STATE_PAUSED);
}

static int resume(void *ctx, struct cai_error *err)
{
	return step(ctx, CONTROL_STATE_PAUSED, CONTROL_STATE_RUNNING);
}

static void query(void *ctx, struct control_status *s)
{
	must(((struct world *)ctx)->state != CONTROL_STATE_NEW);
	s->instructions = 1;
}

static void stop(void *ctx, bool gone)
{
	((struct world *)ctx)->stopped = true;
}

static int snapshot(void *ctx, const struct control_snapshot *q, bool running, struct cai_error *err)
{
	struct world *w = ctx;
	must(w->state == (running ? CONTROL_STATE_RUNNING : CONTROL_STATE_PAUSED));
	must(q->state_fd >= 0 && q->memory_fd >= 0 && (q->code_fd >= 0) == !!(q->flags & CONTROL_SNAPSHOT_CODE));
	return 0;
}

static int attach(void *ctx, const struct control_attach *a, struct cai_error *err)
{
	must(((struct world *)ctx)->state != CONTROL_STATE_NEW && a->fd >= 0);
	return cai_fail(err, 0, "no");
}

static const struct server_ops ops = {configure, start, pause_, resume, snapshot, attach, query, stop};

static int lowest_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	must(fd >= 0);
	close(fd);
	return fd;
}

static void send_one(int sock, const uint8_t *p, size_t n, unsigned n_fds)
{
	int fds[CONTROL_MAX_FDS];
	for (unsigned i = 0; i < n_fds; i++)
		must((fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
	must(control_send(sock, p, n, fds, n_fds) == 0);
	for (unsigned i = 0; i < n_fds; i++)
		close(fds[i]);
}

static unsigned count_replies(int sock)
{
	uint8_t p[4096];
	unsigned n = 0;
	while (recv(sock, p, sizeof(p), MSG_DONTWAIT) > 0)
		n++;
	return n;
}

static void serve(const uint8_t *data, size_t size)
{
	struct world w = {.state = CONTROL_STATE_NEW};
	struct server s;
	int sv[2], before = lowest_fd();
	struct loop *loop = loop_new(NULL);
	must(loop && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
	must(server_init(&s, loop, sv[1], NULL, &ops, &w, NULL) == 0);
	struct buf_reader r = buf_reader(data, size);
	for (unsigned i = 0; i < MAX_PACKETS && !s.failed; i++) {
		uint16_t n = buf_get_u16(&r);
		unsigned n_fds = buf_get_u8(&r) % (CONTROL_MAX_FDS + 1);
		if (n > r.left)
			n = (uint16_t)r.left;
		const void *p = buf_get_bytes(&r, n);
		if (r.bad || !n)
			break;
		send_one(sv[0], p, n, n_fds);
		for (int k = 0; k < 3; k++)
			must(loop_poll(loop, NULL) == 0);
		must(count_replies(sv[0]) == 1);
		must(s.state == w.state);
	}
	bool failed = s.failed;
	close(sv[0]);
	for (int k = 0; k < 3; k++)
		must(loop_poll(loop, NULL) == 0);
	must(w.stopped || failed);
	server_fini(&s);
	loop_free(loop);
	must(lowest_fd() == before);
}

static void search(const uint8_t *data, size_t size)
{
	char why[320], *text = malloc(size + 1);
	must(text != NULL);
	memcpy(text, data, size);
	text[size] = 0;
	bool closed = ending_find_panic(text, true, why, sizeof(why));
	bool open_ = ending_find_panic(text, false, why, sizeof(why));
	must(!closed || open_);
	must(!open_ || strlen(why) <= 300);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	serve(data, size);
	search(data, size);
	return 0;
}
