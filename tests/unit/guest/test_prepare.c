/* SPDX-License-Identifier: Apache-2.0 */
/* The function "prepare": when it may be started, and its words. What it does to a machine is for machine_test.py. */
#include "client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "guest/prepare.h"

static void prepare(const struct server *s, const char *dev, const char *script, struct outcome *o)
{
	char *argv[] = {(char[]){"prepare"}, (char *)(uintptr_t)dev, (char[]){"erofs"}, (char[]){"--"}, (char[]){"sh"}, (char[]){"-c"}, (char *)(uintptr_t)script, NULL};
	int fd = client_connect(s);
	*o = (struct outcome){0};
	client_start(fd, &(struct agent_start){.flags = AGENT_START_BUILTIN, .argv = argv});
	client_finish(fd, o);
	close(fd);
}

static unsigned set_up(const struct server *s, struct outcome *o)
{
	struct buf b = {0};
	uint8_t *body;
	uint32_t len;
	struct agent_error e;
	int fd = client_connect(s);
	*o = (struct outcome){0};
	put_setup(&b, "");
	client_send(fd, &b);
	unsigned type = client_recv(fd, &body, &len);
	if (type == AGENT_ERROR && agent_get_error(body, len, &e, NULL) == 0) {
		strcpy(o->error, e.text);
		agent_error_free(&e);
	}
	free(body);
	close(fd);
	return type;
}

static void it_comes_before_setup_and_not_after_it(void **state)
{
	struct server s;
	struct outcome o;
	server_start_bare(&s);
	for (int i = 0; i < 2; i++) {
		prepare(&s, "/dev/vda", "echo warm; exit 0", &o);
		assert_true(o.exited && outcome_says(&o, "warm\n"));
		assert_int_equal(o.exit.status, 0);
		outcome_free(&o);
	}
	prepare(&s, "/dev/bad", "exit 0", &o);
	assert_int_equal(o.error_code, AGENT_E_ROOTFS);
	assert_string_equal(o.error, "the root disk is bad");
	outcome_free(&o);
	assert_int_equal(set_up(&s, &o), AGENT_OK);
	prepare(&s, "/dev/vda", "exit 0", &o);
	assert_int_equal(o.error_code, AGENT_E_PROTOCOL);
	assert_non_null(strstr(o.error, "too late"));
	outcome_free(&o);
	run_script(&s, "exit 4", &o);
	assert_int_equal(o.exit.status, 4);
	outcome_free(&o);
	server_stop(&s);
}

static void nothing_else_may_come_while_it_runs(void **state)
{
	struct server s;
	struct outcome o;
	uint8_t *body;
	uint32_t len;
	char *argv[] = {(char[]){"prepare"}, (char[]){"/dev/vda"}, (char[]){""}, (char[]){"--"}, (char[]){"sleep"}, (char[]){"1000"}, NULL};
	server_start_bare(&s);
	int fd = client_connect(&s);
	client_start(fd, &(struct agent_start){.flags = AGENT_START_BUILTIN, .argv = argv});
	assert_int_equal(client_recv(fd, &body, &len), AGENT_STARTED);
	free(body);
	assert_int_equal(set_up(&s, &o), AGENT_ERROR);
	assert_non_null(strstr(o.error, "still being prepared"));
	prepare(&s, "/dev/vda", "exit 0", &o);
	assert_non_null(strstr(o.error, "still being prepared"));
	outcome_free(&o);
	struct buf b = {0};
	agent_put_u32(&b, AGENT_SIGNAL, 15);
	client_send(fd, &b);
	client_finish(fd, &o);
	assert_int_equal(o.exit.signal, 15);
	outcome_free(&o);
	close(fd);
	assert_int_equal(set_up(&s, &o), AGENT_OK);
	server_stop(&s);
}

static void its_words_are_judged(void **state)
{
	static const struct {
		const char *words[8];
		const char *wrong; /* part of the sentence, or NULL */
		bool overlay;
		const char *command, *upper;
	} cases[] = {
		{{"prepare", "/dev/vda", "erofs"}, NULL, false, NULL, NULL},
		{{"prepare", "/dev/vda", ""}, NULL, false, NULL, NULL},
		{{"prepare", "/dev/vda", "erofs", "--overlay"}, NULL, true, NULL, NULL},
		{{"prepare", "/dev/vda", "erofs", "--overlay", "--", "--", "x"}, NULL, true, "--", NULL},
		{{"prepare", "/dev/vda", "erofs", "--", "--overlay"}, NULL, false, "--overlay", NULL},
		{{"prepare", "/dev/vda", "erofs", "--upper", "/dev/vdb", "ext4"}, NULL, true, NULL, "/dev/vdb"},
		{{"prepare", "/dev/vda", "erofs", "--upper", "/dev/vdb"}, "does not know --upper", false, NULL, NULL},
		{{"prepare"}, "needs a disk", false, NULL, NULL},
		{{"prepare", "/dev/vda"}, "needs a disk", false, NULL, NULL},
		{{"prepare", "/dev/vda", "erofs", "--"}, "does not know --", false, NULL, NULL},
		{{"prepare", "/dev/vda", "erofs", "true"}, "does not know true", false, NULL, NULL},
		{{"prepare", "/dev/vda", "erofs", "--overlay", "true"}, "does not know true", false, NULL, NULL},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct cai_error err = {.text = ""};
		struct prepare p;
		int rc = prepare_parse((char *const *)(uintptr_t)cases[i].words, &p, &err);
		if (cases[i].wrong) {
			assert_int_equal(rc, -1);
			assert_non_null(strstr(err.text, cases[i].wrong));
			continue;
		}
		assert_int_equal(rc, 0);
		assert_string_equal(p.root.dev, "/dev/vda");
		assert_int_equal(p.root.overlay, cases[i].overlay);
		assert_int_equal(p.root.upper_dev != NULL, cases[i].upper != NULL);
		if (cases[i].upper)
			assert_string_equal(p.root.upper_dev, cases[i].upper);
		assert_int_equal(p.command != NULL, cases[i].command != NULL);
		if (p.command)
			assert_string_equal(p.command[0], cases[i].command);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_comes_before_setup_and_not_after_it),
		cmocka_unit_test(nothing_else_may_come_while_it_runs),
		cmocka_unit_test(its_words_are_judged),
	};
	return cmocka_run_group_tests_name("prepare", tests, NULL, NULL);
}
