/* SPDX-License-Identifier: Apache-2.0 */
/* A whole monitor, seen from its control socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "client.h"
#include "fake_hv.h"

#define SPIN ((const uint8_t *)"s"), 1

static void nap(void)
{
	nanosleep(&(struct timespec){0, 3000000}, NULL);
}

/* Runs a program to its end and checks what is said about it. */
static void check_end(const uint8_t *program, const uint8_t *end, enum control_end reason, const char *text, const char *console,
		      int exit_status)
{
	struct client c;
	struct answer a;
	client_begin(&c, program, (size_t)(end - program));
	client_start(&c);
	client_expect(&c, CONTROL_ENDED, &a);
	assert_int_equal(a.ended.reason, reason);
	if (!strstr(a.ended.text, text))
		fail_msg("\"%s\" does not contain \"%s\"", a.ended.text, text);
	assert_int_equal(!!a.ended.console[0], console != NULL);
	if (console)
		assert_non_null(strstr(a.ended.console, console));
	client_free_answer(&a);
	int w = client_end(&c);
	assert_true(WIFEXITED(w));
	assert_int_equal(WEXITSTATUS(w), exit_status);
}

static void each_way_to_end_is_told_apart(void **state)
{
	uint8_t p[4096], *e;
	e = fake_op(fake_port(p, 0x600, 0x34), FAKE_HALT);
	check_end(p, e, CONTROL_END_POWEROFF, "powered off", NULL, 0);
	e = fake_op(fake_port(p, 0x64, 0xfe), FAKE_HALT);
	check_end(p, e, CONTROL_END_RESET, "reset", NULL, 0);
	e = fake_op(p, FAKE_TRIPLE);
	check_end(p, e, CONTROL_END_TRIPLE_FAULT, "vCPU 0 met a triple fault: at RIP 0x100000", NULL, 0);
	e = fake_op(p, FAKE_FAIL);
	check_end(p, e, CONTROL_END_ACCEL_LOST, "vCPU 0 cannot go on: the test said so", NULL, 1);
}

static void a_panic_is_told_with_its_reason_and_the_last_lines(void **state)
{
	uint8_t p[4096], *e;
	/* through pvpanic */
	e = fake_print(p, "Kernel panic - not syncing: oh dear\nCall Trace:\n foo+0x1\n");
	e = fake_op(fake_port(e, 0x505, 1), FAKE_HALT);
	check_end(p, e, CONTROL_END_PANIC, "oh dear", "foo+0x1", 0);
	/* pvpanic before the console says anything */
	e = fake_op(fake_port(p, 0x505, 1), FAKE_HALT);
	check_end(p, e, CONTROL_END_PANIC, "no reason", NULL, 0);
	/* a reset after a panic */
	e = fake_print(p, "[    1.0] Kernel panic - not syncing: again\n");
	e = fake_op(fake_port(e, 0x64, 0xfe), FAKE_HALT);
	check_end(p, e, CONTROL_END_PANIC, "again", "again", 0);
	/* hanging after a panic */
	e = fake_print(p, "Kernel panic - not syncing: stuck\n---[ end Kernel panic - not syncing: stuck ]---\n");
	e = fake_op(e, FAKE_HALT);
	check_end(p, e, CONTROL_END_PANIC, "stuck", "end Kernel panic", 0);
}

static void console_output_comes_before_the_end(void **state)
{
	uint8_t p[4096], *e = fake_print(p, "the last words, without a newline");
	e = fake_op(fake_port(e, 0x600, 0x34), FAKE_HALT);
	struct client c;
	client_begin(&c, p, (size_t)(e - p));
	client_start(&c);
	client_expect(&c, CONTROL_ENDED, NULL);
	client_end(&c);
	assert_string_equal(c.console, "the last words, without a newline");
}

static uint64_t query(struct client *c, enum control_state state)
{
	struct answer a;
	client_send(c, CONTROL_QUERY);
	client_expect(c, CONTROL_STATUS, &a);
	assert_int_equal(a.status.state, state);
	return a.status.instructions;
}

static void pause_stops_instructions_and_resume_goes_on(void **state)
{
	struct client c;
	client_begin(&c, SPIN);
	c.cfg.vcpus = 4;
	assert_int_equal(query(&c, CONTROL_STATE_NEW), 0);
	client_configure(&c);
	client_expect(&c, CONTROL_OK, NULL);
	assert_int_equal(query(&c, CONTROL_STATE_CONFIGURED), 0);
	client_send(&c, CONTROL_START);
	client_expect(&c, CONTROL_OK, NULL);
	for (int i = 0; i < 20; i++) {
		uint64_t before = query(&c, CONTROL_STATE_RUNNING);
		while (query(&c, CONTROL_STATE_RUNNING) <= before)
			nap();
		client_send(&c, CONTROL_PAUSE);
		client_expect(&c, CONTROL_OK, NULL);
		uint64_t at = query(&c, CONTROL_STATE_PAUSED);
		nap();
		assert_int_equal(query(&c, CONTROL_STATE_PAUSED), at);
		client_send(&c, CONTROL_RESUME);
		client_expect(&c, CONTROL_OK, NULL);
	}
	client_end(&c);
}

static void stop_is_answered_then_told(void **state)
{
	struct client c;
	struct answer a;
	client_begin(&c, SPIN);
	client_start(&c);
	client_send(&c, CONTROL_STOP);
	client_expect(&c, CONTROL_OK, NULL);
	client_expect(&c, CONTROL_ENDED, &a);
	assert_int_equal(a.ended.reason, CONTROL_END_STOPPED);
	client_free_answer(&a);
	assert_int_equal(client_end(&c), 0);
}

static void stop_works_before_there_is_a_guest(void **state)
{
	struct client c;
	struct answer a;
	client_begin(&c, SPIN);
	client_send(&c, CONTROL_STOP);
	client_expect(&c, CONTROL_OK, NULL);
	client_expect(&c, CONTROL_ENDED, &a);
	assert_int_equal(a.ended.reason, CONTROL_END_STOPPED);
	client_free_answer(&a);
	client_end(&c);
}

static void the_guest_ends_with_its_client(void **state)
{
	struct client c;
	client_begin(&c, SPIN);
	client_start(&c);
	assert_int_equal(client_end(&c), 0);
}

static void requests_in_the_wrong_state_are_refused(void **state)
{
	static const enum control_type wrong[] = {CONTROL_START, CONTROL_PAUSE, CONTROL_RESUME};
	struct client c;
	struct answer a;
	client_begin(&c, SPIN);
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		client_send(&c, wrong[i]);
		client_expect(&c, CONTROL_ERROR, &a);
		assert_non_null(strstr(a.text, "not configured"));
		client_free_answer(&a);
	}
	client_start(&c);
	client_send(&c, CONTROL_START);
	client_expect(&c, CONTROL_ERROR, NULL);
	client_send(&c, CONTROL_RESUME);
	client_expect(&c, CONTROL_ERROR, NULL);
	client_configure(&c);
	client_expect(&c, CONTROL_ERROR, &a);
	assert_non_null(strstr(a.text, "running"));
	client_free_answer(&a);
	query(&c, CONTROL_STATE_RUNNING);
	client_end(&c);
}

static void malformed_packets_are_answered_and_change_nothing(void **state)
{
	struct client c;
	struct answer a;
	struct buf b = {0};
	client_begin(&c, SPIN);
	static uint8_t big[CONTROL_MAX_PACKET];
	static const uint8_t other_magic[12] = "BADMAGIC";
	client_send_raw(&c, "x", 1, NULL, 0);
	client_receive(c.sock, &a);
	assert_int_equal(a.h.type, CONTROL_ERROR);
	client_free_answer(&a);
	client_send_raw(&c, other_magic, sizeof(other_magic), NULL, 0);
	client_receive(c.sock, &a);
	assert_int_equal(a.h.type, CONTROL_ERROR);
	client_free_answer(&a);
	client_send_raw(&c, big, sizeof(big), NULL, 0);
	client_receive(c.sock, &a);
	assert_int_equal(a.h.type, CONTROL_ERROR);
	client_free_answer(&a);
	for (unsigned type = 0; type < 300; type++) {
		if (type >= CONTROL_START && type <= CONTROL_STOP)
			continue;
		b.len = 0;
		control_put(&b, type, 7);
		client_send_raw(&c, b.p, b.len, NULL, 0);
		client_expect(&c, CONTROL_ERROR, NULL);
	}
	/* a request with a body, a request with a descriptor, too many descriptors */
	b.len = 0;
	control_put(&b, CONTROL_QUERY, 7);
	client_send_raw(&c, b.p, b.len, &c.console_fd, 1);
	client_expect(&c, CONTROL_ERROR, NULL);
	buf_put_u8(&b, 0);
	client_send_raw(&c, b.p, b.len, NULL, 0);
	client_expect(&c, CONTROL_ERROR, NULL);
	int fds[CONTROL_MAX_FDS];
	for (unsigned i = 0; i < CONTROL_MAX_FDS; i++)
		fds[i] = c.console_fd;
	b.len = 0;
	control_put(&b, CONTROL_CONFIGURE, 7);
	client_send_raw(&c, b.p, b.len, fds, CONTROL_MAX_FDS);
	client_expect(&c, CONTROL_ERROR, NULL);
	/* every truncation of a good CONFIGURE */
	struct buf good = {0};
	control_put_config(&good, 7, &c.cfg);
	for (size_t n = 12; n < good.len; n++) {
		client_send_raw(&c, good.p, n, NULL, 0);
		client_expect(&c, CONTROL_ERROR, NULL);
	}
	buf_free(&good);
	buf_free(&b);
	query(&c, CONTROL_STATE_NEW);
	client_start(&c);
	client_end(&c);
}

static void a_bad_configuration_is_named_and_ends_the_monitor(void **state)
{
	static const struct {
		uint32_t vcpus;
		uint64_t mem;
		uint32_t accel;
		const char *model, *disk, *text;
	} cases[] = {
		{1, 1 << 20, CONTROL_ACCEL_SOFT, "v2", NULL, "guest memory"},
		{1, (32 << 20) + 1, CONTROL_ACCEL_SOFT, "v2", NULL, "guest memory"},
		{1, 400ull << 30, CONTROL_ACCEL_SOFT, "v2", NULL, "more than this host has"},
		{1, 32 << 20, CONTROL_ACCEL_KVM, "v2", NULL, "/dev/kvm"},
		{1, 32 << 20, CONTROL_ACCEL_SOFT, "v99", NULL, "CPU model \"v99\""},
		{1, 32 << 20, CONTROL_ACCEL_SOFT, "v2", "/dev/null", "disk 1 is neither"},
		{1, 32 << 20, CONTROL_ACCEL_SOFT, "v2", "/proc/self", "disk 1 is neither"},
		{1, 32 << 20, CONTROL_ACCEL_SOFT, "v2", "/proc/self/exe", "disk 1 was not opened for reading and writing"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct client c;
		struct answer a;
		client_begin(&c, SPIN);
		c.cfg.vcpus = cases[i].vcpus;
		c.cfg.mem_bytes = cases[i].mem;
		c.cfg.accel = cases[i].accel;
		strcpy(c.cfg.cpu_model, cases[i].model);
		if (cases[i].disk) {
			c.cfg.n_disks = 1;
			c.cfg.disk_fd[0] = open(cases[i].disk, O_RDONLY | O_CLOEXEC);
		}
		client_configure(&c);
		client_expect(&c, CONTROL_ERROR, &a);
		if (!strstr(a.text, cases[i].text))
			fail_msg("\"%s\" does not contain \"%s\"", a.text, cases[i].text);
		client_free_answer(&a);
		assert_int_equal(WEXITSTATUS(client_end(&c)), 2);
	}
}

/* One network of the given kind on one descriptor; the text of the refusal, or NULL when it was configured. */
static char *try_network(uint8_t kind, int fd, uint64_t offloads, unsigned n_disks)
{
	struct client c;
	struct answer a;
	char *text = NULL;
	client_begin(&c, SPIN);
	c.cfg.n_nets = 1;
	c.cfg.net[0] = (struct control_net){.mac = {2}, .mtu = 1400, .kind = kind, .n_fds = fd >= 0, .n_pairs = 2, .offloads = offloads};
	c.cfg.net_fd[0][0] = fd;
	c.cfg.n_disks = n_disks;
	for (unsigned i = 0; i < n_disks; i++) {
		c.cfg.disk_fd[i] = memfd_create("disk", MFD_CLOEXEC);
		assert_int_equal(ftruncate(c.cfg.disk_fd[i], 4096), 0);
	}
	client_configure(&c);
	client_receive(c.sock, &a);
	if (a.h.type == CONTROL_ERROR) {
		text = strdup(a.text);
	} else {
		assert_int_equal(a.h.type, CONTROL_OK);
		query(&c, CONTROL_STATE_CONFIGURED);
	}
	client_free_answer(&a);
	client_end(&c);
	return text;
}

static void networks_are_checked_for_what_their_descriptors_are(void **state)
{
	int sv[2], dg[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, dg), 0);
	const struct {
		uint8_t kind;
		int fd;
		uint64_t offloads;
		unsigned n_disks;
		const char *says; /* NULL: good */
	} cases[] = {
		{CONTROL_NET_STREAM, dup(sv[0]), 0, 0, NULL},
		{CONTROL_NET_DGRAM, dup(dg[0]), 0, 12, NULL},
		{CONTROL_NET_TAP, -1, 0x83, 0, NULL},
		{CONTROL_NET_STREAM, dup(dg[0]), 0, 0, "network 1: the descriptor is not a connected stream socket"},
		{CONTROL_NET_DGRAM, dup(sv[0]), 0, 0, "not a connected datagram socket"},
		{CONTROL_NET_STREAM, socket(AF_UNIX, SOCK_STREAM, 0), 0, 0, "not a connected stream socket"},
		{CONTROL_NET_TAP, dup(sv[0]), 0, 0, "not a tap device"},
		{CONTROL_NET_TAP, -1, 1ull << 40, 0, "unknown offloads"},
		{CONTROL_NET_TAP, -1, 0, 13, "at most 13 in all"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *text = try_network(cases[i].kind, cases[i].fd, cases[i].offloads, cases[i].n_disks);
		if (!text != !cases[i].says || (text && !strstr(text, cases[i].says)))
			fail_msg("case %zu: %s", i, text ? text : "no error");
		free(text);
	}
	for (int i = 0; i < 2; i++) {
		close(sv[i]);
		close(dg[i]);
	}
}

static void vcpus_out_of_range_are_refused(void **state)
{
	static const uint32_t wrong[] = {0, 33, 0xffffffff};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct client c;
		struct answer a;
		client_begin(&c, SPIN);
		c.cfg.vcpus = wrong[i];
		client_configure(&c);
		client_expect(&c, CONTROL_ERROR, &a);
		assert_non_null(strstr(a.text, "vCPUs"));
		client_free_answer(&a);
		client_end(&c);
	}
}

static void something_else_than_a_kernel_is_refused(void **state)
{
	struct client c;
	struct answer a;
	int p[2];
	client_begin(&c, SPIN);
	close(c.cfg.fd[CONTROL_FD_KERNEL]);
	assert_int_equal(pipe(p), 0);
	c.cfg.fd[CONTROL_FD_KERNEL] = p[0];
	client_configure(&c);
	client_expect(&c, CONTROL_ERROR, &a);
	assert_non_null(strstr(a.text, "kernel is not a regular file"));
	client_free_answer(&a);
	client_end(&c);
	close(p[1]);

	client_begin(&c, SPIN);
	assert_int_equal(ftruncate(c.cfg.fd[CONTROL_FD_KERNEL], 100), 0);
	client_configure(&c);
	client_expect(&c, CONTROL_ERROR, NULL);
	client_end(&c);
}

static void sockets_that_do_not_listen_are_refused(void **state)
{
	for (int which = CONTROL_FD_VSOCK; which <= CONTROL_FD_LISTEN; which++) {
		struct client c;
		struct answer a;
		client_begin(&c, SPIN);
		c.cfg.fd[which] = socket(AF_UNIX, which == CONTROL_FD_VSOCK ? SOCK_STREAM : SOCK_SEQPACKET, 0);
		client_configure(&c);
		client_expect(&c, CONTROL_ERROR, &a);
		assert_non_null(strstr(a.text, "is not a listening"));
		client_free_answer(&a);
		client_end(&c);
	}
}

static int connect_to(const struct sockaddr_un *a, socklen_t n)
{
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(s, (const struct sockaddr *)a, n), 0);
	return s;
}

static void further_clients_keep_the_guest_alive(void **state)
{
	struct client c;
	struct answer a;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int n = snprintf(sa.sun_path + 1, sizeof(sa.sun_path) - 1, "caisson-test-%d", getpid());
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
	int l = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(l, (struct sockaddr *)&sa, len), 0);
	assert_int_equal(listen(l, 16), 0);
	client_begin(&c, SPIN);
	c.cfg.fd[CONTROL_FD_LISTEN] = l;
	client_start(&c);
	int other = connect_to(&sa, len);
	close(c.sock);
	c.sock = other;
	query(&c, CONTROL_STATE_RUNNING);

	/*
	 * The ninth at once is told why not; a place becomes free again. The monitor may notice the first client's end only among
	 * these, so one of the last two is refused and takes no place, and the last one is refused either way.
	 */
	int more[9];
	for (int i = 0; i < 9; i++)
		more[i] = connect_to(&sa, len);
	client_receive(more[8], &a);
	assert_int_equal(a.h.type, CONTROL_ERROR);
	client_free_answer(&a);
	for (int i = 0; i < 9; i++)
		close(more[i]);
	nap();
	query(&c, CONTROL_STATE_RUNNING);

	query(&c, CONTROL_STATE_RUNNING); /* twice: what was ready before the first is done before the second */

	/* All are told of the end. The last one has been accepted once it has an answer. */
	struct client late = {.sock = connect_to(&sa, len)};
	query(&late, CONTROL_STATE_RUNNING);
	int last = late.sock;
	client_send(&c, CONTROL_STOP);
	client_expect(&c, CONTROL_OK, NULL);
	client_expect(&c, CONTROL_ENDED, NULL);
	client_receive(last, &a);
	assert_int_equal(a.h.type, CONTROL_ENDED);
	client_free_answer(&a);
	close(last);
	assert_int_equal(client_end(&c), 0);
}

static void a_client_that_floods_without_reading_is_dropped(void **state)
{
	struct client c;
	struct buf b = {0};
	client_begin(&c, SPIN);
	client_start(&c);
	control_put(&b, CONTROL_QUERY, 7);
	/* The monitor must neither block nor grow; it drops us, and so ends. */
	for (int i = 0; i < 1000000; i++)
		if (control_send(c.sock, b.p, b.len, NULL, 0) < 0)
			break;
	buf_free(&b);
	int w = 0;
	assert_int_equal(waitpid(c.pid, &w, 0), c.pid);
	assert_true(WIFEXITED(w));
	close(c.sock);
	control_config_free(&c.cfg);
	close(c.console_fd);
}

static void lost_guest_memory_is_told(void **state)
{
	static struct fatal f;
	int sv[2];
	struct answer a;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	pid_t pid = fork();
	if (pid == 0) {
		struct mem m;
		fatal_install(&f, NULL);
		f.mem = &m;
		atomic_store(&f.socket[3], sv[1]);
		if (mem_create(&m, MEM_MIN_BYTES, NULL) < 0 || ftruncate(m.fd, 0x5000) < 0)
			_exit(99);
		*(volatile uint8_t *)(m.base + 0x5010) = 1;
		_exit(98);
	}
	client_receive(sv[0], &a);
	assert_int_equal(a.ended.reason, CONTROL_END_ACCEL_LOST);
	assert_non_null(strstr(a.ended.text, "guest address 0x5010"));
	client_free_answer(&a);
	int w = 0;
	waitpid(pid, &w, 0);
	assert_int_equal(WEXITSTATUS(w), FATAL_EXIT);
	close(sv[0]);
	close(sv[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_way_to_end_is_told_apart),
		cmocka_unit_test(a_panic_is_told_with_its_reason_and_the_last_lines),
		cmocka_unit_test(console_output_comes_before_the_end),
		cmocka_unit_test(pause_stops_instructions_and_resume_goes_on),
		cmocka_unit_test(stop_is_answered_then_told),
		cmocka_unit_test(stop_works_before_there_is_a_guest),
		cmocka_unit_test(the_guest_ends_with_its_client),
		cmocka_unit_test(requests_in_the_wrong_state_are_refused),
		cmocka_unit_test(malformed_packets_are_answered_and_change_nothing),
		cmocka_unit_test(a_bad_configuration_is_named_and_ends_the_monitor),
		cmocka_unit_test(networks_are_checked_for_what_their_descriptors_are),
		cmocka_unit_test(vcpus_out_of_range_are_refused),
		cmocka_unit_test(something_else_than_a_kernel_is_refused),
		cmocka_unit_test(sockets_that_do_not_listen_are_refused),
		cmocka_unit_test(further_clients_keep_the_guest_alive),
		cmocka_unit_test(a_client_that_floods_without_reading_is_dropped),
		cmocka_unit_test(lost_guest_memory_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
