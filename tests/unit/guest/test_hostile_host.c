/* SPDX-License-Identifier: Apache-2.0 */
/* A host that breaks the protocol ends its own session, with an ERROR that says why, and nobody else's. */
#include "client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"

static char cat[] = "cat";
static char *cat_argv[] = {cat, NULL};
static const struct agent_start cat_start = {.flags = AGENT_START_STDIN, .argv = cat_argv};

static struct server *srv(void **state)
{
	return *state;
}

/* The agent must still serve. */
static void check_alive(void **state)
{
	struct outcome o;
	run_script(srv(state), "echo alive", &o);
	assert_true(outcome_says(&o, "alive\n"));
	assert_true(o.exited);
	outcome_free(&o);
}

static void expect_error(void **state, int fd, const struct buf *b, const char *says)
{
	struct outcome o = {0};
	client_send(fd, b);
	client_finish(fd, &o);
	assert_int_equal(o.error_code, AGENT_E_PROTOCOL);
	assert_non_null(strstr(o.error, says));
	outcome_free(&o);
	close(fd);
	check_alive(state);
}

static void raw_header(struct buf *b, uint32_t len, uint16_t type, uint16_t version, uint32_t reserved)
{
	buf_put_u32(b, len);
	buf_put_u16(b, type);
	buf_put_u16(b, version);
	buf_put_u32(b, reserved);
}

static void bad_headers_end_the_session(void **state)
{
	static const struct {
		uint32_t len;
		uint16_t type, version;
		uint32_t reserved;
		const char *says;
	} cases[] = {
		{AGENT_MAX_BODY + 1, AGENT_STDIN, AGENT_VERSION, 0, "body"}, {0xffffffff, AGENT_START, AGENT_VERSION, 0, "body"},
		{0, AGENT_START, AGENT_VERSION - 1, 0, "version 1"},             {0, AGENT_START, AGENT_VERSION, 7, "reserved"},
		{0, 0, AGENT_VERSION, 0, "type 0"},                          {0, 999, AGENT_VERSION, 0, "type 999"},
		{0, AGENT_HELLO, AGENT_VERSION, 0, "type 1"},                {0, AGENT_STDIN_CLOSE, AGENT_VERSION, 0, "type"},
		{3, AGENT_POWEROFF, AGENT_VERSION, 0, "type"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = {0};
		raw_header(&b, cases[i].len, cases[i].type, cases[i].version, cases[i].reserved);
		if (cases[i].len == 3)
			buf_put_bytes(&b, "abc", 3);
		expect_error(state, client_connect(srv(state)), &b, cases[i].says);
	}
}

static void frames_out_of_order_end_the_session(void **state)
{
	static const struct {
		bool started;
		enum agent_type type;
		uint32_t v;
		const char *says;
	} cases[] = {
		{false, AGENT_SIGNAL, 15, "not expected"}, {false, AGENT_STDIN, 1, "not expected"}, {false, AGENT_RESIZE, 1, "not expected"},
		{true, AGENT_SIGNAL, 0, "no signal"},      {true, AGENT_SIGNAL, 65, "no signal"},   {true, AGENT_POWEROFF, 1, "not expected"},
		{true, AGENT_SETUP, 1, "not expected"},    {false, AGENT_SETUP, 1, "SETUP"},      {false, AGENT_START, 1, "START"},
		{true, AGENT_START, 1, "twice"},           {false, AGENT_DETACH, 1, "not expected"}, {true, AGENT_DETACH, 1, "not expected"},
		{true, AGENT_ATTACH, 1, "not expected"},   {true, AGENT_ATTACHED, 1, "not expected"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = {0};
		int fd = client_connect(srv(state));
		if (cases[i].started)
			client_start(fd, &cat_start);
		agent_put_u32(&b, cases[i].type, cases[i].v);
		expect_error(state, fd, &b, cases[i].says);
	}
}

static void a_second_start_ends_the_first_process_too(void **state)
{
	struct outcome o = {0};
	struct buf b = {0};
	uint8_t *body;
	uint32_t len, pid;
	int fd = client_connect(srv(state));
	client_start(fd, &cat_start);
	assert_int_equal(client_recv(fd, &body, &len), AGENT_STARTED);
	agent_get_u32(body, len, &pid, NULL);
	free(body);
	agent_put_start(&b, &cat_start);
	client_send(fd, &b);
	client_finish(fd, &o);
	assert_int_equal(o.error_code, AGENT_E_PROTOCOL);
	for (int i = 0; i < 200 && kill((pid_t)pid, 0) == 0; i++)
		usleep(10000);
	assert_int_equal(kill((pid_t)pid, 0), -1);
	close(fd);
	check_alive(state);
}

static void stdin_over_its_window_or_size_ends_the_session(void **state)
{
	char *argv[] = {(char[]){"sleep"}, (char[]){"20"}, NULL};
	uint8_t *data = calloc(1, AGENT_MAX_BODY);
	struct buf b = {0};
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.flags = AGENT_START_STDIN, .argv = argv});
	/* The pipe takes 64 KiB of the window, which is one credit at most; the next 256 are over it. */
	for (int i = 0; i < 6; i++)
		agent_put_frame(&b, AGENT_STDIN, data, AGENT_MAX_DATA);
	expect_error(state, fd, &b, "window");

	b = (struct buf){0};
	fd = client_connect(srv(state));
	client_start(fd, &cat_start);
	agent_put_frame(&b, AGENT_STDIN, data, AGENT_MAX_DATA + 1);
	expect_error(state, fd, &b, "larger");

	b = (struct buf){0};
	fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.argv = argv});
	agent_put_frame(&b, AGENT_STDIN, data, 1);
	expect_error(state, fd, &b, "without an open stdin");
	free(data);
}

static void malformed_bodies_end_the_session(void **state)
{
	struct buf whole = {0};
	agent_put_start(&whole, &cat_start);
	for (size_t cut = 0; cut + AGENT_HEADER_SIZE < whole.len; cut += 3) {
		struct buf b = {0};
		agent_put_frame(&b, AGENT_START, whole.p + AGENT_HEADER_SIZE, cut);
		expect_error(state, client_connect(srv(state)), &b, "START");
	}
	buf_free(&whole);
}

static void a_stream_cut_inside_a_frame_leaves_the_agent_well(void **state)
{
	struct buf whole = {0};
	agent_put_start(&whole, &cat_start);
	for (size_t cut = 1; cut < whole.len; cut++) {
		int fd = client_connect(srv(state));
		assert_int_equal(send(fd, whole.p, cut, MSG_NOSIGNAL), cut);
		close(fd);
	}
	buf_free(&whole);
	check_alive(state);
}

static void frames_that_come_byte_by_byte_are_understood(void **state)
{
	struct outcome o = {0};
	struct buf b = {0};
	int fd = client_connect(srv(state));
	agent_put_start(&b, &cat_start);
	agent_put_frame(&b, AGENT_STDIN, "drip", 4);
	agent_put_frame(&b, AGENT_STDIN_CLOSE, NULL, 0);
	for (size_t i = 0; i < b.len; i++) {
		assert_int_equal(send(fd, b.p + i, 1, MSG_NOSIGNAL), 1);
		usleep(200);
	}
	buf_free(&b);
	client_finish(fd, &o);
	assert_true(outcome_says(&o, "drip"));
	outcome_free(&o);
	close(fd);
}

static void frames_that_cross_the_end_of_the_process_are_ignored(void **state)
{
	char *argv[] = {(char[]){"true"}, NULL};
	struct outcome o = {0};
	struct buf b = {0};
	uint8_t *body;
	uint32_t len;
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.flags = AGENT_START_STDIN, .argv = argv});
	client_finish(fd, &o);
	assert_true(o.exited);
	agent_put_frame(&b, AGENT_STDIN, "late", 4);
	agent_put_u32(&b, AGENT_SIGNAL, 15);
	agent_put_frame(&b, AGENT_STDIN_CLOSE, NULL, 0);
	client_send(fd, &b);
	assert_int_equal(client_recv(fd, &body, &len), 0);
	close(fd);
	check_alive(state);
}

static void noise_leaves_the_agent_well(void **state)
{
	unsigned seed = 99;
	for (int round = 0; round < 200; round++) {
		uint8_t noise[512];
		int fd = client_connect(srv(state));
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t)rand_r(&seed);
		if (round & 1) { /* past the header, into the bodies */
			store_le32(noise, (uint32_t)rand_r(&seed) % 400);
			store_le16(noise + 4, (uint16_t)(AGENT_SETUP + (unsigned)rand_r(&seed) % 9));
			store_le16(noise + 6, AGENT_VERSION);
			store_le32(noise + 8, 0);
		}
		send(fd, noise, sizeof(noise), MSG_NOSIGNAL);
		close(fd);
	}
	check_alive(state);
}

static void setup_comes_first_may_be_repeated_and_start_may_follow_at_once(void **state)
{
	struct server s;
	struct buf b = {0};
	struct outcome o = {0};
	char *argv[] = {(char[]){"echo"}, (char[]){"after"}, NULL};
	const struct agent_start echo = {.argv = argv};
	uint8_t *body;
	uint32_t len;

	server_start_bare(&s);
	int fd = client_connect(&s);
	client_start(fd, &echo);
	client_finish(fd, &o);
	assert_int_equal(o.error_code, AGENT_E_PROTOCOL);
	assert_non_null(strstr(o.error, "before SETUP"));
	outcome_free(&o);
	close(fd);

	/* A SETUP that fails: its own code, and the START behind it is not looked at. */
	fd = client_connect(&s);
	put_setup(&b, "/dev/bad");
	agent_put_start(&b, &echo);
	client_send(fd, &b);
	client_finish(fd, &o);
	assert_int_equal(o.error_code, AGENT_E_ROOTFS);
	assert_int_equal(client_recv(fd, &body, &len), 0);
	outcome_free(&o);
	close(fd);

	b = (struct buf){0};
	fd = client_connect(&s);
	put_setup(&b, "");
	agent_put_start(&b, &echo);
	client_send(fd, &b);
	assert_int_equal(client_recv(fd, &body, &len), AGENT_OK);
	free(body);
	client_finish(fd, &o);
	assert_true(outcome_says(&o, "after\n"));
	outcome_free(&o);
	close(fd);
	server_stop(&s);
}

static int start_server(void **state)
{
	struct server *s = calloc(1, sizeof(*s));
	server_start(s);
	*state = s;
	return 0;
}

static int stop_server(void **state)
{
	server_stop(*state);
	free(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_headers_end_the_session),
		cmocka_unit_test(frames_out_of_order_end_the_session),
		cmocka_unit_test(a_second_start_ends_the_first_process_too),
		cmocka_unit_test(stdin_over_its_window_or_size_ends_the_session),
		cmocka_unit_test(malformed_bodies_end_the_session),
		cmocka_unit_test(a_stream_cut_inside_a_frame_leaves_the_agent_well),
		cmocka_unit_test(frames_that_come_byte_by_byte_are_understood),
		cmocka_unit_test(frames_that_cross_the_end_of_the_process_are_ignored),
		cmocka_unit_test(noise_leaves_the_agent_well),
		cmocka_unit_test(setup_comes_first_may_be_repeated_and_start_may_follow_at_once),
	};
	return cmocka_run_group_tests_name("hostile host", tests, start_server, stop_server);
}
