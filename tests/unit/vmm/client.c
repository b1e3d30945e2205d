/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_hv.h"
#include "vmm/monitor.h"

static int kernel_file(const void *program, size_t n)
{
	static uint8_t elf[64 << 10];
	unsigned long size = fake_elf(elf, sizeof(elf), program, n);
	int fd = memfd_create("kernel", MFD_CLOEXEC);
	assert_true(fd >= 0 && size > 0 && write(fd, elf, size) == (ssize_t)size);
	return fd;
}

void client_begin(struct client *c, const void *program, size_t n)
{
	int sv[2], con[2];
	memset(c, 0, sizeof(*c));
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(pipe2(con, O_CLOEXEC), 0);
	c->pid = fork();
	if (c->pid == 0) {
		static struct fatal fatal;
		struct jail_status jail = {0};
		signal(SIGPIPE, SIG_IGN);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(sv[0]);
		close(con[0]);
		close(con[1]);
		if (fatal_install(&fatal, NULL) < 0)
			_exit(99);
		_exit(monitor_run(sv[1], &jail, &fatal, false));
	}
	close(sv[1]);
	c->sock = sv[0];
	c->console_fd = con[0];
	control_config_init(&c->cfg);
	c->cfg.vcpus = 1;
	c->cfg.mem_bytes = 32 << 20;
	c->cfg.accel = CONTROL_ACCEL_SOFT;
	strcpy(c->cfg.cpu_model, "v2");
	c->cfg.cmdline = strdup("console=ttyS0");
	c->cfg.fd[CONTROL_FD_KERNEL] = kernel_file(program, n);
	c->cfg.fd[CONTROL_FD_CONSOLE] = con[1];
}

void client_configure(struct client *c)
{
	int fds[CONTROL_MAX_FDS];
	unsigned n = control_config_fds(&c->cfg, fds);
	struct buf b = {0};
	control_put_config(&b, 7, &c->cfg);
	client_send_raw(c, b.p, b.len, fds, n);
	buf_free(&b);
}

void client_send_raw(struct client *c, const void *p, size_t n, const int *fds, unsigned n_fds)
{
	assert_int_equal(control_send(c->sock, p, n, fds, n_fds), 0);
}

void client_send(struct client *c, enum control_type type)
{
	struct buf b = {0};
	control_put(&b, type, 7);
	client_send_raw(c, b.p, b.len, NULL, 0);
	buf_free(&b);
}

void client_receive(int sock, struct answer *a)
{
	static uint8_t p[CONTROL_MAX_PACKET];
	struct cai_error err;
	unsigned n_fds = 0;
	struct pollfd pf = {.fd = sock, .events = POLLIN};
	memset(a, 0, sizeof(*a));
	assert_int_equal(poll(&pf, 1, 20000), 1);
	long n = control_recv(sock, p, sizeof(p), NULL, &n_fds);
	assert_true(n > 0);
	struct buf_reader r = buf_reader(p, (size_t)n);
	uint32_t e;
	assert_int_equal(control_get_header(&r, &a->h, &err), 0);
	if (a->h.type == CONTROL_ERROR)
		assert_int_equal(control_get_error(&r, &e, &a->text, &err), 0);
	else if (a->h.type == CONTROL_STATUS)
		assert_int_equal(control_get_status(&r, &a->status, &err), 0);
	else if (a->h.type == CONTROL_ENDED)
		assert_int_equal(control_get_ended(&r, &a->ended, &err), 0);
}

void client_free_answer(struct answer *a)
{
	free(a->text);
	control_ended_free(&a->ended);
	memset(a, 0, sizeof(*a));
}

void client_expect(struct client *c, enum control_type type, struct answer *a)
{
	struct answer own;
	struct answer *to = a ? a : &own;
	client_receive(c->sock, to);
	if (to->h.type != type)
		print_error("expected packet %d, got %d %s\n", type, to->h.type,
			    to->text ? to->text : to->ended.text ? to->ended.text : "");
	assert_int_equal(to->h.type, type);
	if (type < CONTROL_READY)
		assert_int_equal(to->h.seq, 7);
	if (!a)
		client_free_answer(to);
}

void client_start(struct client *c)
{
	client_configure(c);
	client_expect(c, CONTROL_OK, NULL);
	client_send(c, CONTROL_START);
	client_expect(c, CONTROL_OK, NULL);
}

int client_end(struct client *c)
{
	int status = -1;
	if (c->sock >= 0)
		close(c->sock);
	control_config_free(&c->cfg); /* the console's write end too: then reading it ends */
	assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	size_t n = 0;
	ssize_t r;
	while (n < sizeof(c->console) - 1 && (r = read(c->console_fd, c->console + n, sizeof(c->console) - 1 - n)) > 0)
		n += (size_t)r;
	close(c->console_fd);
	return status;
}
