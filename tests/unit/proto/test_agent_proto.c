/* SPDX-License-Identifier: Apache-2.0 */
/* The agent protocol: round trips, truncation at every byte, hostile lengths, random mutation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "proto/agent.h"

static char *argv_sample[] = {(char[]){"sh"}, (char[]){"-c"}, (char[]){"echo \xc3\xa9"}, (char[]){""}, NULL};
static char *env_sample[] = {(char[]){"A=1"}, (char[]){"EMPTY="}, NULL};

static const struct agent_start start_sample = {
	.flags = AGENT_START_TTY | AGENT_START_STDIN,
	.rows = 24,
	.cols = 80,
	.argv = argv_sample,
	.env = env_sample,
	.cwd = (char[]){"/srv"},
	.user = (char[]){"nobody:1000"},
	.n_rlimits = 2,
	.rlimit = {{7, 1024, 4096}, {4, 0, UINT64_MAX}},
};
static const struct agent_setup setup_sample = {
	.hostname = (char[]){"box"},
	.realtime_ns = 1234567890123456789ull,
	.entropy = {1, 2, 3, [31] = 0xff},
	.root_dev = (char[]){"/dev/vda"},
	.root_fstype = (char[]){"erofs"},
	.root_mode = AGENT_ROOT_OVERLAY_DISK,
	.flags = AGENT_SETUP_READONLY_ROOT,
	.upper_dev = (char[]){"/dev/vdb"},
	.upper_fstype = (char[]){"ext4"},
	.resolv_conf = (char[]){"nameserver 10.88.0.1\n"},
	.hosts = (char[]){"127.0.0.1 localhost\n"},
	.n_ifaces = 2,
	.iface = {{.mac = {2, 0, 0, 1, 2, 3},
		   .mtu = 1400,
		   .n_addrs = 2,
		   .addr = {(char[]){"10.88.0.2/24"}, (char[]){"fd00::2/64"}},
		   .gateway4 = (char[]){"10.88.0.1"},
		   .gateway6 = (char[]){"fe80::1"}},
		  {.mac = {2, 0, 0, 1, 2, 4}}},
	.n_mounts = 2,
	.mount = {{.type = AGENT_MOUNT_VIRTIOFS,
		   .flags = AGENT_MOUNT_RDONLY,
		   .source = (char[]){"vol0"},
		   .target = (char[]){"/data"},
		   .subpath = (char[]){"one"}},
		  {.type = AGENT_MOUNT_TMPFS, .target = (char[]){"/tmp"}, .options = (char[]){"size=1m"}}},
};

static void check_start(const struct agent_start *m)
{
	assert_int_equal(m->flags, start_sample.flags);
	assert_int_equal(m->rows, 24);
	assert_int_equal(m->cols, 80);
	for (int i = 0; i < 4; i++)
		assert_string_equal(m->argv[i], argv_sample[i]);
	assert_null(m->argv[4]);
	assert_string_equal(m->env[1], "EMPTY=");
	assert_null(m->env[2]);
	assert_string_equal(m->cwd, "/srv");
	assert_string_equal(m->user, "nobody:1000");
	assert_int_equal(m->n_rlimits, 2);
	assert_true(m->rlimit[1].hard == UINT64_MAX && m->rlimit[0].soft == 1024);
}

/* Makes the sample frame of a type. */
static void put_sample(struct buf *b, unsigned type)
{
	switch (type) {
	case AGENT_HELLO:
		agent_put_hello(b, &(struct agent_hello){AGENT_VERSION, (char[]){"Linux 6.12 x86_64"}});
		break;
	case AGENT_ERROR:
		agent_put_error(b, AGENT_E_NOT_FOUND, 2, "no such command");
		break;
	case AGENT_EXIT:
		agent_put_exit(b, &(struct agent_exit){3, 9, AGENT_EXIT_OOM});
		break;
	case AGENT_ATTACHED:
		agent_put_attached(b, &(struct agent_attached){AGENT_STDIN_WINDOW - 5, AGENT_ATTACHED_STDIN});
		break;
	case AGENT_SETUP:
		agent_put_setup(b, &setup_sample);
		break;
	case AGENT_START:
		agent_put_start(b, &start_sample);
		break;
	case AGENT_RESIZE:
		agent_put_resize(b, 50, 132);
		break;
	default:
		agent_put_u32(b, (enum agent_type)type, 0xfeedface);
	}
}

/* Decodes a body as its type says and releases it; 0 or -1. */
static int decode(unsigned type, const void *p, size_t n)
{
	struct cai_error err = {.text = ""};
	struct agent_hello hello;
	struct agent_error error;
	struct agent_exit ex;
	struct agent_attached attached;
	struct agent_setup setup;
	struct agent_start start;
	uint16_t rows, cols;
	uint32_t v;
	int rc;

	switch (type) {
	case AGENT_HELLO:
		rc = agent_get_hello(p, n, &hello, &err);
		agent_hello_free(&hello);
		break;
	case AGENT_ERROR:
		rc = agent_get_error(p, n, &error, &err);
		agent_error_free(&error);
		break;
	case AGENT_EXIT:
		rc = agent_get_exit(p, n, &ex, &err);
		break;
	case AGENT_ATTACHED:
		rc = agent_get_attached(p, n, &attached, &err);
		break;
	case AGENT_SETUP:
		rc = agent_get_setup(p, n, &setup, &err);
		agent_setup_free(&setup);
		break;
	case AGENT_START:
		rc = agent_get_start(p, n, &start, &err);
		agent_start_free(&start);
		break;
	case AGENT_RESIZE:
		rc = agent_get_resize(p, n, &rows, &cols, &err);
		break;
	default:
		rc = agent_get_u32(p, n, &v, &err);
	}
	assert_true(rc == 0 || err.text[0]); /* a failure always says why */
	return rc;
}

static const unsigned types[] = {AGENT_HELLO, AGENT_ERROR, AGENT_STARTED, AGENT_STDIN_CREDIT, AGENT_EXIT,
				 AGENT_SETUP, AGENT_START, AGENT_RESIZE,  AGENT_SIGNAL, AGENT_DETACHED, AGENT_ATTACHED, AGENT_ATTACH};

static void every_message_survives_a_round_trip(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct buf b = {0};
		struct agent_header h;
		put_sample(&b, types[i]);
		assert_false(b.failed);
		assert_int_equal(agent_get_header(b.p, &h, NULL), 0);
		assert_int_equal(h.type, types[i]);
		assert_int_equal(h.version, AGENT_VERSION);
		assert_int_equal(h.len + AGENT_HEADER_SIZE, b.len);
		assert_int_equal(decode(types[i], b.p + AGENT_HEADER_SIZE, h.len), 0);
		buf_free(&b);
	}
}

static void fields_come_back_as_they_went(void **state)
{
	struct buf b = {0};
	struct agent_start s;
	struct agent_setup u;
	struct agent_exit x;
	struct agent_attached a;
	uint16_t rows, cols;
	uint32_t v;

	put_sample(&b, AGENT_START);
	assert_int_equal(agent_get_start(b.p + 12, b.len - 12, &s, NULL), 0);
	check_start(&s);
	agent_start_free(&s);
	buf_free(&b);

	put_sample(&b, AGENT_SETUP);
	assert_int_equal(agent_get_setup(b.p + 12, b.len - 12, &u, NULL), 0);
	assert_string_equal(u.hostname, "box");
	assert_string_equal(u.root_dev, "/dev/vda");
	assert_string_equal(u.root_fstype, "erofs");
	assert_true(u.realtime_ns == setup_sample.realtime_ns);
	assert_memory_equal(u.entropy, setup_sample.entropy, 32);
	assert_int_equal(u.root_mode, AGENT_ROOT_OVERLAY_DISK);
	assert_int_equal(u.flags, AGENT_SETUP_READONLY_ROOT);
	assert_string_equal(u.upper_dev, "/dev/vdb");
	assert_string_equal(u.upper_fstype, "ext4");
	assert_string_equal(u.resolv_conf, "nameserver 10.88.0.1\n");
	assert_string_equal(u.hosts, "127.0.0.1 localhost\n");
	assert_int_equal(u.n_ifaces, 2);
	assert_memory_equal(u.iface[0].mac, setup_sample.iface[0].mac, 6);
	assert_true(u.iface[0].mtu == 1400 && u.iface[0].n_addrs == 2 && u.iface[1].n_addrs == 0);
	assert_string_equal(u.iface[0].addr[1], "fd00::2/64");
	assert_string_equal(u.iface[0].gateway4, "10.88.0.1");
	assert_string_equal(u.iface[0].gateway6, "fe80::1");
	assert_string_equal(u.iface[1].gateway4, "");
	assert_int_equal(u.n_mounts, 2);
	assert_true(u.mount[0].type == AGENT_MOUNT_VIRTIOFS && u.mount[0].flags == AGENT_MOUNT_RDONLY);
	assert_string_equal(u.mount[0].source, "vol0");
	assert_string_equal(u.mount[0].target, "/data");
	assert_string_equal(u.mount[0].subpath, "one");
	assert_string_equal(u.mount[1].options, "size=1m");
	agent_setup_free(&u);
	buf_free(&b);

	put_sample(&b, AGENT_EXIT);
	assert_int_equal(agent_get_exit(b.p + 12, b.len - 12, &x, NULL), 0);
	assert_true(x.status == 3 && x.signal == 9 && x.flags == AGENT_EXIT_OOM);
	buf_free(&b);

	put_sample(&b, AGENT_ATTACHED);
	assert_int_equal(agent_get_attached(b.p + 12, b.len - 12, &a, NULL), 0);
	assert_true(a.window == AGENT_STDIN_WINDOW - 5 && a.flags == AGENT_ATTACHED_STDIN);
	buf_free(&b);

	put_sample(&b, AGENT_RESIZE);
	assert_int_equal(agent_get_resize(b.p + 12, b.len - 12, &rows, &cols, NULL), 0);
	assert_true(rows == 50 && cols == 132);
	buf_free(&b);

	put_sample(&b, AGENT_SIGNAL);
	assert_int_equal(agent_get_u32(b.p + 12, b.len - 12, &v, NULL), 0);
	assert_int_equal(v, 0xfeedface);
	buf_free(&b);
}

static void a_body_cut_at_any_byte_is_refused(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct buf b = {0};
		put_sample(&b, types[i]);
		size_t n = b.len - AGENT_HEADER_SIZE;
		for (size_t cut = 0; cut < n; cut++) {
			/* An exact copy, so that a sanitizer sees one byte too far. */
			uint8_t *p = malloc(cut ? cut : 1);
			memcpy(p, b.p + AGENT_HEADER_SIZE, cut);
			assert_int_equal(decode(types[i], p, cut), -1);
			free(p);
		}
		buf_put_u8(&b, 0);
		assert_int_equal(decode(types[i], b.p + AGENT_HEADER_SIZE, n + 1), -1);
		buf_free(&b);
	}
}

static void hostile_headers_are_refused(void **state)
{
	struct agent_header h;
	struct cai_error err;
	uint8_t raw[AGENT_HEADER_SIZE];
	static const struct {
		uint32_t len;
		uint16_t version;
		uint32_t reserved;
		int rc;
	} cases[] = {
		{AGENT_MAX_BODY, AGENT_VERSION, 0, 0},      {AGENT_MAX_BODY + 1, AGENT_VERSION, 0, -1},
		{UINT32_MAX, AGENT_VERSION, 0, -1},         {0, AGENT_VERSION + 1, 0, -1},
		{0, 0, 0, -1},                              {0, AGENT_VERSION, 1, -1},
		{0, AGENT_VERSION, 0x80000000u, -1},        {0, AGENT_VERSION, 0, 0},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		store_le32(raw, cases[i].len);
		store_le16(raw + 4, AGENT_STDIN);
		store_le16(raw + 6, cases[i].version);
		store_le32(raw + 8, cases[i].reserved);
		assert_int_equal(agent_get_header(raw, &h, &err), cases[i].rc);
	}
}

/* Overwrites each aligned 4 bytes of a body with hostile numbers: never a crash, never a count believed. */
static void hostile_lengths_inside_a_body_are_refused_or_harmless(void **state)
{
	static const uint32_t bad[] = {0xffffffff, 0x7fffffff, 0x80000000, AGENT_MAX_STRING + 1, AGENT_MAX_ARGS + 1, 0x10000, 0};
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct buf b = {0};
		put_sample(&b, types[i]);
		size_t n = b.len - AGENT_HEADER_SIZE;
		for (size_t at = 0; at + 4 <= n; at++) {
			for (size_t k = 0; k < ARRAY_LEN(bad); k++) {
				uint8_t *p = malloc(n);
				memcpy(p, b.p + AGENT_HEADER_SIZE, n);
				store_le32(p + at, bad[k]);
				decode(types[i], p, n);
				free(p);
			}
		}
		buf_free(&b);
	}
}

static void start_without_a_command_or_with_unknown_flags_is_refused(void **state)
{
	struct agent_start s = start_sample, got;
	char *none[] = {NULL};
	struct buf b = {0};

	s.argv = none;
	agent_put_start(&b, &s);
	assert_int_equal(agent_get_start(b.p + 12, b.len - 12, &got, NULL), -1);
	buf_free(&b);

	/* A process without streams cannot have a terminal or input. */
	s = start_sample;
	s.flags = AGENT_START_DETACH | AGENT_START_STDIN;
	agent_put_start(&b, &s);
	assert_int_equal(agent_get_start(b.p + 12, b.len - 12, &got, NULL), -1);
	buf_free(&b);

	s = start_sample;
	s.flags = 1u << 9;
	agent_put_start(&b, &s);
	assert_int_equal(agent_get_start(b.p + 12, b.len - 12, &got, NULL), -1);
	assert_null(got.argv);
	buf_free(&b);
}

static void an_attached_window_over_the_limit_is_refused(void **state)
{
	static const struct {
		struct agent_attached m;
		int rc;
	} cases[] = {
		{{AGENT_STDIN_WINDOW, 1}, 0}, {{0, 0}, 0}, {{AGENT_STDIN_WINDOW + 1, 1}, -1}, {{UINT32_MAX, 0}, -1}, {{0, 2}, -1},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct agent_attached got;
		struct buf b = {0};
		agent_put_attached(&b, &cases[i].m);
		assert_int_equal(agent_get_attached(b.p + 12, b.len - 12, &got, NULL), cases[i].rc);
		buf_free(&b);
	}
}

static void a_setup_that_cannot_be_meant_is_refused(void **state)
{
	for (unsigned i = 0; i < 8; i++) {
		struct agent_setup s = setup_sample, got;
		struct buf b = {0};
		switch (i) {
		case 0: /* all zero: a container's, or a machine that stays in its initramfs */
			s = (struct agent_setup){0};
			break;
		case 1:
			s.root_mode = AGENT_ROOT_NONE;
			break;
		case 2:
			s.root_mode = AGENT_ROOT_OVERLAY_DISK + 1;
			break;
		case 3:
			s.upper_dev = NULL;
			break;
		case 4:
			s.flags = 2;
			break;
		case 5:
			s.mount[1].type = 0;
			break;
		case 6:
			s.mount[1].type = AGENT_MOUNT_DIRECTORY + 1;
			break;
		case 7:
			s.mount[0].flags = 2;
			break;
		}
		agent_put_setup(&b, &s);
		assert_false(b.failed);
		assert_int_equal(agent_get_setup(b.p + 12, b.len - 12, &got, NULL), i ? -1 : 0);
		agent_setup_free(&got);
		buf_free(&b);
	}
	for (unsigned i = 0; i < 3; i++) {
		struct agent_setup s = setup_sample;
		struct buf b = {0};
		s.n_ifaces = i == 0 ? AGENT_MAX_IFACES + 1 : s.n_ifaces;
		s.n_mounts = i == 1 ? AGENT_MAX_MOUNTS + 1 : s.n_mounts;
		s.iface[0].n_addrs = i == 2 ? AGENT_MAX_ADDRS + 1 : s.iface[0].n_addrs;
		agent_put_setup(&b, &s);
		assert_true(b.failed);
		buf_free(&b);
	}
}

static void a_string_with_a_nul_inside_is_refused(void **state)
{
	struct buf b = {0};
	put_sample(&b, AGENT_ERROR);
	b.p[AGENT_HEADER_SIZE + 12 + 3] = 0;
	assert_int_equal(decode(AGENT_ERROR, b.p + AGENT_HEADER_SIZE, b.len - AGENT_HEADER_SIZE), -1);
	buf_free(&b);
}

static void a_frame_over_the_limit_fails_at_the_sender(void **state)
{
	struct buf b = {0};
	uint8_t *big = calloc(1, AGENT_MAX_BODY + 1);
	agent_put_frame(&b, AGENT_STDOUT, big, AGENT_MAX_BODY);
	assert_false(b.failed);
	buf_free(&b);
	agent_put_frame(&b, AGENT_STDOUT, big, AGENT_MAX_BODY + 1);
	assert_true(b.failed);
	buf_free(&b);
	free(big);
}

static void texts_for_the_terminal_lose_their_control_characters(void **state)
{
	struct agent_error e;
	struct buf b = {0};
	agent_put_error(&b, 1, 0, "a\x1b[2Jb\nc\x7f" "d\xc2\x9b" "31m \xc3\xa9");
	assert_int_equal(agent_get_error(b.p + 12, b.len - 12, &e, NULL), 0);
	assert_string_equal(e.text, "a?[2Jb?c?d??31m \xc3\xa9");
	agent_error_free(&e);
	buf_free(&b);
}

static void a_long_error_text_is_cut_and_still_decodes(void **state)
{
	struct agent_error e;
	struct buf b = {0};
	char text[3000];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	agent_put_error(&b, 1, 0, text);
	assert_int_equal(agent_get_error(b.p + 12, b.len - 12, &e, NULL), 0);
	assert_int_equal(strlen(e.text), 1024);
	agent_error_free(&e);
	buf_free(&b);
}

static void random_mutations_never_fault(void **state)
{
	unsigned seed = 20;
	for (unsigned round = 0; round < 20000; round++) {
		unsigned type = types[(unsigned)rand_r(&seed) % ARRAY_LEN(types)];
		struct buf b = {0};
		put_sample(&b, type);
		size_t n = b.len - AGENT_HEADER_SIZE;
		for (unsigned k = 1 + (unsigned)rand_r(&seed) % 4; k; k--)
			b.p[AGENT_HEADER_SIZE + (unsigned)rand_r(&seed) % n] = (uint8_t)rand_r(&seed);
		uint8_t *p = malloc(n);
		memcpy(p, b.p + AGENT_HEADER_SIZE, n);
		decode(type, p, n);
		free(p);
		buf_free(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_message_survives_a_round_trip),
		cmocka_unit_test(fields_come_back_as_they_went),
		cmocka_unit_test(a_body_cut_at_any_byte_is_refused),
		cmocka_unit_test(hostile_headers_are_refused),
		cmocka_unit_test(hostile_lengths_inside_a_body_are_refused_or_harmless),
		cmocka_unit_test(start_without_a_command_or_with_unknown_flags_is_refused),
		cmocka_unit_test(an_attached_window_over_the_limit_is_refused),
		cmocka_unit_test(a_setup_that_cannot_be_meant_is_refused),
		cmocka_unit_test(a_string_with_a_nul_inside_is_refused),
		cmocka_unit_test(a_frame_over_the_limit_fails_at_the_sender),
		cmocka_unit_test(texts_for_the_terminal_lose_their_control_characters),
		cmocka_unit_test(a_long_error_text_is_cut_and_still_decodes),
		cmocka_unit_test(random_mutations_never_fault),
	};
	return cmocka_run_group_tests_name("agent protocol", tests, NULL, NULL);
}
