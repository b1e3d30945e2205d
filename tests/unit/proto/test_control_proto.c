/* SPDX-License-Identifier: Apache-2.0 */
/* The control protocol: round trips over a real socket with descriptors, truncation at every byte, hostile fields. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "proto/control.h"

#define HEADER 12

static int null_fd(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* How many descriptors this process has open: shows a leak. */
static unsigned open_fds(void)
{
	unsigned n = 0;
	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

#define SAMPLE_FDS 9

/* A configuration with a kernel, a console, two disks, a tap with three descriptors, a stream and a shared directory. */
static void sample(struct control_config *c)
{
	control_config_init(c);
	c->vcpus = 4;
	c->mem_bytes = MIB(512);
	c->accel = CONTROL_ACCEL_SOFT;
	strcpy(c->cpu_model, "v2");
	c->cmdline = strdup("console=ttyS0 quiet");
	c->n_disks = 2;
	c->disk[0].flags = CONTROL_DISK_READONLY;
	memcpy(c->disk[0].id, "01234567890123456789", 20);
	c->fd[CONTROL_FD_KERNEL] = null_fd();
	c->fd[CONTROL_FD_CONSOLE] = null_fd();
	c->disk_fd[0] = null_fd();
	c->disk_fd[1] = null_fd();
	c->n_nets = 2;
	c->net[0] = (struct control_net){
		.mac = {2, 0, 0, 0, 0, 1}, .mtu = 1500, .kind = CONTROL_NET_TAP, .n_fds = 3, .n_pairs = 4, .offloads = 0x1883};
	c->net[1] = (struct control_net){.mac = {2, 0, 0, 0, 0, 2}, .kind = CONTROL_NET_STREAM, .n_fds = 1};
	for (unsigned i = 0; i < 3; i++)
		c->net_fd[0][i] = null_fd();
	c->net_fd[1][0] = null_fd();
	c->n_fs = 1;
	memset(c->fs[0].tag, 'x', sizeof(c->fs[0].tag));
	c->fs_fd[0] = null_fd();
}

static int decode_config(const void *p, size_t n, unsigned n_fds, struct control_config *c, struct cai_error *err)
{
	struct buf_reader r = buf_reader(p, n);
	struct control_header h;
	int fds[CONTROL_MAX_FDS];
	for (unsigned i = 0; i < n_fds; i++)
		fds[i] = null_fd();
	if (control_get_header(&r, &h, err) < 0) {
		for (unsigned i = 0; i < n_fds; i++)
			close(fds[i]);
		return -1;
	}
	return control_get_config(&r, fds, n_fds, c, err);
}

static void a_configuration_crosses_a_socket_with_its_descriptors(void **state)
{
	struct control_config c, got;
	struct control_header h;
	struct buf b = {0};
	int sp[2], fds[CONTROL_MAX_FDS];
	unsigned before = open_fds();
	uint8_t packet[CONTROL_MAX_PACKET];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sp), 0);
	sample(&c);
	control_put_config(&b, 7, &c);
	unsigned n = control_config_fds(&c, fds);
	assert_int_equal(control_send(sp[0], b.p, b.len, fds, n), 0);

	unsigned got_n = CONTROL_MAX_FDS;
	long len = control_recv(sp[1], packet, sizeof(packet), fds, &got_n);
	assert_int_equal(len, b.len);
	assert_int_equal(got_n, SAMPLE_FDS);
	struct buf_reader r = buf_reader(packet, (size_t)len);
	assert_int_equal(control_get_header(&r, &h, NULL), 0);
	assert_int_equal(h.type, CONTROL_CONFIGURE);
	assert_int_equal(h.seq, 7);
	assert_int_equal(control_get_config(&r, fds, got_n, &got, NULL), 0);
	assert_int_equal(got.vcpus, 4);
	assert_true(got.mem_bytes == MIB(512));
	assert_string_equal(got.cpu_model, "v2");
	assert_string_equal(got.cmdline, "console=ttyS0 quiet");
	assert_int_equal(got.n_disks, 2);
	assert_int_equal(got.disk[0].flags, CONTROL_DISK_READONLY);
	assert_memory_equal(got.disk[0].id, "01234567890123456789", 20);
	assert_true(got.fd[CONTROL_FD_KERNEL] >= 0 && got.fd[CONTROL_FD_CONSOLE] >= 0 && got.disk_fd[1] >= 0);
	assert_int_equal(got.fd[CONTROL_FD_INITRD], -1);
	assert_int_equal(fcntl(got.disk_fd[0], F_GETFD), FD_CLOEXEC);
	assert_int_equal(got.n_nets, 2);
	assert_memory_equal(got.net[0].mac, c.net[0].mac, 6);
	assert_int_equal(got.net[0].mtu, 1500);
	assert_int_equal(got.net[0].n_fds, 3);
	assert_int_equal(got.net[0].n_pairs, 4);
	assert_true(got.net[0].offloads == 0x1883);
	assert_int_equal(got.net[1].kind, CONTROL_NET_STREAM);
	assert_true(got.net_fd[0][2] >= 0 && got.net_fd[0][3] == -1 && got.net_fd[1][0] >= 0 && got.net_fd[1][1] == -1);
	assert_int_equal(got.n_fs, 1);
	assert_memory_equal(got.fs[0].tag, c.fs[0].tag, sizeof(c.fs[0].tag));
	assert_true(got.fs_fd[0] >= 0 && got.fs_fd[1] == -1);
	control_config_free(&got);
	control_config_free(&c);

	close(sp[0]);
	got_n = CONTROL_MAX_FDS;
	assert_int_equal(control_recv(sp[1], packet, sizeof(packet), fds, &got_n), 0);
	close(sp[1]);
	buf_free(&b);
	assert_int_equal(open_fds(), before);
}

static void more_descriptors_than_wanted_are_closed(void **state)
{
	int sp[2], fds[CONTROL_MAX_FDS], in[4];
	unsigned before = open_fds(), room = 2;
	char c = 'x';

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sp), 0);
	for (int i = 0; i < 4; i++)
		in[i] = sp[0];
	assert_int_equal(control_send(sp[0], &c, 1, in, 4), 0);
	assert_int_equal(control_recv(sp[1], &c, 1, fds, &room), -1);
	assert_int_equal(errno, EMSGSIZE);
	assert_int_equal(room, 0);
	close(sp[0]);
	close(sp[1]);
	assert_int_equal(open_fds(), before);
}

static void a_packet_too_large_for_the_buffer_is_refused(void **state)
{
	int sp[2], fds[1];
	unsigned n = 1;
	char big[100] = {0}, small[50];
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sp), 0);
	assert_int_equal(control_send(sp[0], big, sizeof(big), sp, 1), 0);
	assert_int_equal(control_recv(sp[1], small, sizeof(small), fds, &n), -1);
	assert_int_equal(errno, EMSGSIZE);
	close(sp[0]);
	close(sp[1]);
}

static void a_configuration_cut_at_any_byte_is_refused_and_leaks_nothing(void **state)
{
	struct control_config c, got;
	struct buf b = {0};
	struct cai_error err;
	unsigned before = open_fds();

	sample(&c);
	control_put_config(&b, 1, &c);
	control_config_free(&c);
	for (size_t cut = 0; cut < b.len; cut++) {
		uint8_t *p = malloc(cut ? cut : 1);
		memcpy(p, b.p, cut);
		assert_int_equal(decode_config(p, cut, SAMPLE_FDS, &got, &err), -1);
		free(p);
	}
	buf_put_u8(&b, 0);
	assert_int_equal(decode_config(b.p, b.len, SAMPLE_FDS, &got, &err), -1);
	buf_free(&b);
	assert_int_equal(open_fds(), before);
}

static void bad_fields_of_a_configuration_are_refused(void **state)
{
	/* Offsets within the body: flags 0, vcpus 4, mem 8, accel 16, cpu_model 20, code cache 36, cmdline 44. */
	static const struct {
		size_t at;
		uint32_t value;
		const char *says;
	} cases[] = {
		{0, 16, "unknown flags"},
		{4, 0, "0 vCPUs"},
		{4, 33, "33 vCPUs"},
		{16, 0, "accelerator 0"},
		{16, 3, "accelerator 3"},
		{20, 0x00410041, "malformed"}, /* text behind the NUL of cpu_model */
		{44, 0xffffffff, "malformed"},
		{44, 3000, "malformed"},
	};
	unsigned before = open_fds();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct control_config c, got;
		struct buf b = {0};
		struct cai_error err;
		sample(&c);
		control_put_config(&b, 1, &c);
		control_config_free(&c);
		store_le32(b.p + HEADER + cases[i].at, cases[i].value);
		assert_int_equal(decode_config(b.p, b.len, SAMPLE_FDS, &got, &err), -1);
		assert_non_null(strstr(err.text, cases[i].says));
		buf_free(&b);
	}
	assert_int_equal(open_fds(), before);
}

static void bad_networks_and_shares_are_refused(void **state)
{
	static const struct {
		struct control_net net;
		const char *says;
	} nets[] = {
		{{.mac = {2}, .kind = 0, .n_fds = 1}, "kind 0"},
		{{.mac = {2}, .kind = 4, .n_fds = 1}, "kind 4"},
		{{.mac = {3}, .kind = CONTROL_NET_TAP, .n_fds = 1}, "03:00:00:00:00:00"},
		{{.kind = CONTROL_NET_TAP, .n_fds = 1}, "00:00:00:00:00:00"},
		{{.mac = {2}, .kind = CONTROL_NET_TAP, .n_fds = 1, .mtu = 67}, "MTU of 67"},
		{{.mac = {2}, .kind = CONTROL_NET_TAP, .n_fds = 2, .n_pairs = 1}, "2 descriptors"},
		{{.mac = {2}, .kind = CONTROL_NET_TAP, .n_fds = 1, .n_pairs = 9}, "9 queue pairs"},
		{{.mac = {2}, .kind = CONTROL_NET_STREAM, .n_fds = 2}, "2 descriptors"},
		{{.mac = {2}, .kind = CONTROL_NET_DGRAM, .n_fds = 1, .offloads = 1}, "offloads"},
	};
	static const struct {
		const char *tag;
		uint32_t flags;
		const char *says;
	} shares[] = {
		{"", 0, "no tag"}, {"a b", 0, "visible"}, {"a\x80", 0, "visible"}, {"a", 1, "flags"}, {"same", 0, "two shared"}};
	unsigned before = open_fds();
	for (size_t i = 0; i < ARRAY_LEN(nets) + ARRAY_LEN(shares); i++) {
		struct control_config c, got;
		struct buf b = {0};
		struct cai_error err;
		const char *says;
		control_config_init(&c);
		c.vcpus = 1;
		c.accel = CONTROL_ACCEL_SOFT;
		c.fd[CONTROL_FD_KERNEL] = null_fd();
		if (i < ARRAY_LEN(nets)) {
			c.n_nets = 1;
			c.net[0] = nets[i].net;
			says = nets[i].says;
		} else {
			c.n_fs = 2;
			strcpy(c.fs[0].tag, "same");
			strcpy(c.fs[1].tag, shares[i - ARRAY_LEN(nets)].tag);
			c.fs[1].flags = shares[i - ARRAY_LEN(nets)].flags;
			says = shares[i - ARRAY_LEN(nets)].says;
		}
		control_put_config(&b, 1, &c);
		control_config_free(&c);
		assert_int_equal(decode_config(b.p, b.len, 3, &got, &err), -1);
		if (!strstr(err.text, says))
			fail_msg("case %zu: %s", i, err.text);
		buf_free(&b);
	}
	/* Text behind the end of a tag. */
	struct control_config c, got;
	struct buf b = {0};
	sample(&c);
	memcpy(c.fs[0].tag, "a\0b", 4);
	control_put_config(&b, 1, &c);
	control_config_free(&c);
	assert_int_equal(decode_config(b.p, b.len, SAMPLE_FDS, &got, NULL), -1);
	buf_free(&b);
	assert_int_equal(open_fds(), before);
}

static void announced_and_received_descriptors_must_agree(void **state)
{
	struct control_config c, got;
	struct buf b = {0};
	struct cai_error err;
	unsigned before = open_fds();
	sample(&c);
	control_put_config(&b, 1, &c);
	assert_int_equal(decode_config(b.p, b.len, SAMPLE_FDS - 1, &got, &err), -1);
	assert_int_equal(decode_config(b.p, b.len, SAMPLE_FDS + 1, &got, &err), -1);
	assert_int_equal(decode_config(b.p, b.len, 0, &got, &err), -1);
	assert_non_null(strstr(err.text, "9 descriptors"));
	buf_free(&b);
	close(c.fd[CONTROL_FD_KERNEL]);
	c.fd[CONTROL_FD_KERNEL] = -1;
	control_put_config(&b, 1, &c);
	assert_int_equal(decode_config(b.p, b.len, SAMPLE_FDS - 1, &got, &err), -1);
	assert_non_null(strstr(err.text, "without a kernel"));
	buf_free(&b);
	control_config_free(&c);
	assert_int_equal(open_fds(), before);
}

static void headers_of_another_magic_or_version_are_refused(void **state)
{
	struct control_header h;
	struct buf b = {0};
	control_put(&b, CONTROL_QUERY, 9);
	for (size_t at = 0; at < 6; at++) {
		struct buf_reader r = buf_reader(b.p, b.len);
		b.p[at] ^= 1;
		assert_int_equal(control_get_header(&r, &h, NULL), -1);
		b.p[at] ^= 1;
	}
	struct buf_reader r = buf_reader(b.p, b.len);
	assert_int_equal(control_get_header(&r, &h, NULL), 0);
	assert_true(buf_done(&r) && h.type == CONTROL_QUERY && h.seq == 9);
	buf_free(&b);
}

static void replies_and_events_survive_a_round_trip_and_no_cut(void **state)
{
	struct control_status s = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
				    14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26}, s2;
	struct control_ended e = {CONTROL_END_PANIC, (char[]){"it \x1b died"}, (char[]){"line\r\n\ttab\x1b"}}, e2;
	struct control_header h;
	uint32_t errnum;
	char *text;

	for (int kind = 0; kind < 3; kind++) {
		struct buf b = {0};
		if (kind == 0)
			control_put_status(&b, 3, &s);
		else if (kind == 1)
			control_put_ended(&b, &e);
		else
			control_put_error(&b, 3, 13, "no");
		for (size_t cut = 0; cut <= b.len; cut++) {
			struct buf_reader r = buf_reader(b.p, cut);
			int rc = control_get_header(&r, &h, NULL);
			if (rc == 0 && kind == 0) {
				rc = control_get_status(&r, &s2, NULL);
			} else if (rc == 0 && kind == 1) {
				rc = control_get_ended(&r, &e2, NULL);
				if (rc == 0) {
					assert_string_equal(e2.text, "it ? died");
					assert_string_equal(e2.console, "line\n\ttab?");
				}
				control_ended_free(&e2);
			} else if (rc == 0) {
				rc = control_get_error(&r, &errnum, &text, NULL);
				if (rc == 0)
					assert_string_equal(text, "no");
				free(text);
			}
			assert_int_equal(rc, cut == b.len ? 0 : -1);
		}
		buf_free(&b);
	}
	assert_memory_equal(&s, &s2, sizeof(s));
	assert_int_equal(errnum, 13);
}

static void a_long_console_keeps_its_end(void **state)
{
	char *console = malloc(20001);
	memset(console, 'a', 20000);
	memcpy(console + 19997, "END", 4);
	struct control_ended e = {CONTROL_END_PANIC, (char[]){"x"}, console}, got;
	struct control_header h;
	struct buf b = {0};
	control_put_ended(&b, &e);
	struct buf_reader r = buf_reader(b.p, b.len);
	assert_int_equal(control_get_header(&r, &h, NULL), 0);
	assert_int_equal(control_get_ended(&r, &got, NULL), 0);
	assert_int_equal(strlen(got.console), 8192);
	assert_string_equal(got.console + 8189, "END");
	control_ended_free(&got);
	buf_free(&b);
	free(console);
}

static void random_mutations_never_fault_nor_leak(void **state)
{
	struct control_config c, got;
	struct buf b = {0};
	unsigned seed = 4, before = open_fds();
	sample(&c);
	control_put_config(&b, 1, &c);
	control_config_free(&c);
	for (unsigned round = 0; round < 5000; round++) {
		uint8_t *p = malloc(b.len);
		memcpy(p, b.p, b.len);
		for (unsigned k = 1 + (unsigned)rand_r(&seed) % 3; k; k--)
			p[HEADER + (unsigned)rand_r(&seed) % (b.len - HEADER)] = (uint8_t)rand_r(&seed);
		if (decode_config(p, b.len, 4, &got, NULL) == 0)
			control_config_free(&got);
		free(p);
	}
	buf_free(&b);
	assert_int_equal(open_fds(), before);
}

static void requests_about_snapshots_carry_their_descriptors(void **state)
{
	unsigned before = open_fds();
	for (unsigned n = 0; n < 5; n++)
		for (unsigned code = 0; code < 2; code++) {
			struct control_snapshot s = {.flags = CONTROL_SNAPSHOT_INCREMENTAL | (code ? CONTROL_SNAPSHOT_CODE : 0), .parent = {1, 2}}, got;
			struct control_attach a = {.disk = 3, .flags = CONTROL_DISK_READONLY}, had;
			struct control_header h;
			struct cai_error err;
			struct buf b = {0}, c = {0};
			int fds[5], more[5];
			for (unsigned i = 0; i < n; i++) {
				fds[i] = null_fd();
				more[i] = null_fd();
			}
			control_put_snapshot(&b, 1, &s);
			struct buf_reader r = buf_reader(b.p, b.len);
			assert_int_equal(control_get_header(&r, &h, &err), 0);
			assert_int_equal(h.type, CONTROL_SNAPSHOT);
			assert_int_equal(control_get_snapshot(&r, fds, n, &got, &err), n == 2 + code ? 0 : -1);
			if (n == 2 + code) {
				assert_memory_equal(got.parent, s.parent, sizeof(s.parent));
				assert_true(got.state_fd == fds[0] && got.memory_fd == fds[1] && (got.code_fd >= 0) == code);
				for (unsigned i = 0; i < n; i++)
					close(fds[i]);
			}
			control_put_attach(&c, 1, &a);
			r = buf_reader(c.p, c.len);
			assert_int_equal(control_get_header(&r, &h, &err), 0);
			assert_int_equal(control_get_attach(&r, more, n, &had, &err), n == 1 ? 0 : -1);
			if (n == 1) {
				assert_int_equal(had.disk, 3);
				close(had.fd);
			}
			buf_free(&b);
			buf_free(&c);
		}
	assert_int_equal(open_fds(), before);
}

static void a_snapshot_comes_instead_of_a_kernel_whole_or_not_at_all(void **state)
{
	static const struct {
		unsigned state, first, second, third; /* which descriptors are there: the state, memory files 0 to 2 */
		int rc;
	} cases[] = {{1, 1, 0, 0, 0}, {1, 1, 1, 1, 0}, {1, 0, 0, 0, -1}, {0, 1, 0, 0, -1}, {1, 1, 0, 1, -1}, {0, 0, 0, 0, -1}};
	unsigned before = open_fds();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct control_config c, got;
		struct buf b = {0};
		struct cai_error err;
		int fds[8];
		unsigned n = cases[i].state + cases[i].first + cases[i].second + cases[i].third;
		control_config_init(&c);
		c.accel = CONTROL_ACCEL_SOFT;
		c.n_disks = 1;
		c.disk[0].flags = CONTROL_DISK_EMPTY; /* takes no descriptor */
		c.fd[CONTROL_FD_STATE] = cases[i].state ? 0 : -1;
		c.fd[CONTROL_FD_MEMORY] = cases[i].first ? 0 : -1;
		c.fd[CONTROL_FD_MEMORY + 1] = cases[i].second ? 0 : -1;
		c.fd[CONTROL_FD_MEMORY + 2] = cases[i].third ? 0 : -1;
		control_put_config(&b, 1, &c);
		for (unsigned k = 0; k < n; k++)
			fds[k] = null_fd();
		struct buf_reader r = buf_reader(b.p, b.len);
		struct control_header h;
		assert_int_equal(control_get_header(&r, &h, &err), 0);
		int rc = control_get_config(&r, fds, n, &got, &err);
		if (rc != cases[i].rc)
			fail_msg("case %zu: %s", i, rc < 0 ? err.text : "was taken");
		if (rc == 0) {
			assert_true(got.fd[CONTROL_FD_STATE] >= 0 && got.fd[CONTROL_FD_MEMORY] >= 0 && got.disk_fd[0] < 0);
			control_config_free(&got);
		}
		buf_free(&b);
	}
	assert_int_equal(open_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_configuration_crosses_a_socket_with_its_descriptors),
		cmocka_unit_test(more_descriptors_than_wanted_are_closed),
		cmocka_unit_test(a_packet_too_large_for_the_buffer_is_refused),
		cmocka_unit_test(a_configuration_cut_at_any_byte_is_refused_and_leaks_nothing),
		cmocka_unit_test(bad_fields_of_a_configuration_are_refused),
		cmocka_unit_test(bad_networks_and_shares_are_refused),
		cmocka_unit_test(announced_and_received_descriptors_must_agree),
		cmocka_unit_test(headers_of_another_magic_or_version_are_refused),
		cmocka_unit_test(replies_and_events_survive_a_round_trip_and_no_cut),
		cmocka_unit_test(a_long_console_keeps_its_end),
		cmocka_unit_test(requests_about_snapshots_carry_their_descriptors),
		cmocka_unit_test(a_snapshot_comes_instead_of_a_kernel_whole_or_not_at_all),
		cmocka_unit_test(random_mutations_never_fault_nor_leak),
	};
	return cmocka_run_group_tests_name("control protocol", tests, NULL, NULL);
}
