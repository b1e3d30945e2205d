/* SPDX-License-Identifier: Apache-2.0 */
/* What an image says about running it, and docker's rules for what a command line changes of that. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "image/run_config.h"

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static int parse(const char *text, struct image_run_config *c, struct cai_error *err)
{
	json_error_t je;
	json_t *o = json_loads(text, 0, &je);
	assert_non_null(o);
	int r = image_run_config_parse(o, c, err);
	json_decref(o);
	return r;
}

static char *joined(char *const *v, char *out, size_t n)
{
	out[0] = 0;
	for (; v && *v; v++)
		snprintf(out + strlen(out), n - strlen(out), "%s%s", out[0] ? "|" : "", *v);
	return out;
}

static void all_members_are_read(void **state)
{
	struct image_run_config c;
	struct cai_error err;
	char t[600];
	assert_int_equal(parse("{\"Entrypoint\":[\"/e\",\"x\"],\"Cmd\":[\"c\"],\"Env\":[\"A=1\",\"B=\",\"A=2\",\"=x\",\"novalue\"],"
			       "\"WorkingDir\":\"/w//x/./\",\"User\":\"me:us\",\"Volumes\":{\"/data/\":{},\"/data\":{}},\"StopSignal\":\"SIGQUIT\","
			       "\"ExposedPorts\":{\"80/tcp\":{},\"53/udp\":{},\"8000-8010\":{},\"9/sctp\":{}},\"Labels\":{\"a\":\"b\"}}",
			       &c, &err),
			 0);
	assert_string_equal(joined(c.entrypoint, t, sizeof(t)), "/e|x");
	assert_string_equal(joined(c.cmd, t, sizeof(t)), "c");
	assert_string_equal(joined(c.env, t, sizeof(t)), "A=2|B=");
	assert_string_equal(joined(c.volumes, t, sizeof(t)), "/data");
	assert_string_equal(joined(c.labels, t, sizeof(t)), "a=b");
	assert_string_equal(c.workdir, "/w/x");
	assert_string_equal(c.user, "me:us");
	assert_int_equal(c.stop_signal, SIGQUIT);
	assert_int_equal(c.n_ports, 3);
	for (unsigned k = 0; k < 3; k++)
		assert_true((c.ports[k].first == 80 && !c.ports[k].udp) || (c.ports[k].first == 53 && c.ports[k].udp) ||
			    (c.ports[k].first == 8000 && c.ports[k].last == 8010));
	image_run_config_free(&c);
}

static void an_image_that_says_nothing_has_defaults(void **state)
{
	static const char *const texts[] = {"{}", "{\"Cmd\":null,\"Env\":null,\"Volumes\":null,\"User\":null,\"StopSignal\":\"\"}"};
	for (size_t k = 0; k < ARRAY_LEN(texts); k++) {
		struct image_run_config c;
		struct cai_error err;
		assert_int_equal(parse(texts[k], &c, &err), 0);
		assert_null(c.entrypoint[0]);
		assert_null(c.env[0]);
		assert_null(c.volumes[0]);
		assert_string_equal(c.workdir, "/");
		assert_string_equal(c.user, "");
		assert_int_equal(c.stop_signal, SIGTERM);
		image_run_config_free(&c);
	}
	struct image_run_config c;
	assert_int_equal(image_run_config_parse(NULL, &c, NULL), 0);
	image_run_config_free(&c);
	assert_int_equal(parse("{\"Cmd\":\"one text\",\"WorkingDir\":\"srv\"}", &c, NULL), 0);
	assert_string_equal(c.cmd[0], "one text");
	assert_string_equal(c.workdir, "/srv");
	image_run_config_free(&c);
}

static void absurd_configurations_are_refused(void **state)
{
	static const char *const bad[] = {
		"{\"Cmd\":{}}",
		"{\"Cmd\":[1]}",
		"{\"Entrypoint\":[\"a\",null]}",
		"{\"Env\":7}",
		"{\"User\":[]}",
		"{\"WorkingDir\":\"/a/../../b\"}",
		"{\"WorkingDir\":{}}",
		"{\"Volumes\":{\"relative\":{}}}",
		"{\"Volumes\":{\"/\":{}}}",
		"{\"Volumes\":{\"/a/../..\":{}}}",
		"{\"Volumes\":[]}",
		"{\"StopSignal\":\"SIGNONE\"}",
		"{\"StopSignal\":\"0\"}",
		"{\"StopSignal\":\"65\"}",
		"{\"StopSignal\":\"SIGRTMIN+99\"}",
		"{\"StopSignal\":\"-9\"}",
		"{\"ExposedPorts\":{\"0/tcp\":{}}}",
		"{\"ExposedPorts\":{\"65536\":{}}}",
		"{\"ExposedPorts\":{\"9-8\":{}}}",
		"{\"ExposedPorts\":{\"1-2-3\":{}}}",
		"{\"ExposedPorts\":{\"80/icmp\":{}}}",
		"{\"ExposedPorts\":{\"99999999999\":{}}}",
		"{\"Labels\":{\"a\":1}}",
	};
	for (size_t k = 0; k < ARRAY_LEN(bad); k++) {
		struct image_run_config c;
		struct cai_error err = {0};
		if (parse(bad[k], &c, &err) == 0)
			fail_msg("accepted: %s", bad[k]);
		assert_true(err.text[0]);
	}
	struct image_run_config c;
	struct cai_error err;
	char *long_text = malloc(IMAGE_RUN_MAX_TEXT + 1);
	memset(long_text, 'x', IMAGE_RUN_MAX_TEXT);
	long_text[IMAGE_RUN_MAX_TEXT] = 0;
	json_t *o = json_pack("{s:s}", "User", long_text);
	assert_int_equal(image_run_config_parse(o, &c, &err), -1);
	json_decref(o);
	free(long_text);
	json_t *many = json_array();
	for (unsigned k = 0; k <= IMAGE_RUN_MAX_ITEMS; k++)
		json_array_append_new(many, json_string(""));
	o = json_pack("{s:o}", "Cmd", many);
	assert_int_equal(image_run_config_parse(o, &c, &err), -1);
	json_decref(o);
}

static void signals_have_names_and_numbers(void **state)
{
	static const struct {
		const char *text;
		int number;
	} cases[] = {{"SIGTERM", 15}, {"term", 15},	  {"9", 9},	       {"sigKILL", 9},	  {"SIGRTMIN+3", 37}, {"RTMAX-1", 63}, {"SIGRTMIN", 34},
		     {"64", 64},      {"SIGRTMIN+31", -1}, {"RTMIN-1", -1}, {"RTMIN+", -1}, {"", -1},	      {"SIG", -1},     {"9x", -1},
		     {"IO", SIGIO},   {"999", -1}};
	for (size_t k = 0; k < ARRAY_LEN(cases); k++)
		assert_int_equal(image_signal_number(cases[k].text), cases[k].number);
}

static void a_command_line_overrides_as_dockers_does(void **state)
{
	static const char both[] = "{\"Entrypoint\":[\"/e\",\"-x\"],\"Cmd\":[\"c\",\"d\"],\"Env\":[\"PATH=/p\",\"A=1\"],\"User\":\"u\",\"WorkingDir\":\"/w\"}",
			  cmd[] = "{\"Cmd\":[\"c\"]}", entry[] = "{\"Entrypoint\":[\"/e\"]}", none[] = "{}";
	static const char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	struct {
		const char *image;
		struct image_run_request q;
		const char *argv, *env, *user, *workdir; /* argv NULL: refused; the others NULL: not looked at */
	} cases[] = {
		{both, {0}, "/e|-x|c|d", "PATH=/p|A=1", "u", "/w"},
		{both, {.command = WORDS("new")}, "/e|-x|new", NULL, NULL, NULL},
		{both, {.command = WORDS(NULL)}, "/e|-x|c|d", NULL, NULL, NULL},
		{both, {.command = WORDS("")}, "/e|-x|", NULL, NULL, NULL},
		{both, {.entrypoint = "/bin/sh"}, "/bin/sh", NULL, NULL, NULL},
		{both, {.entrypoint = "/bin/sh", .command = WORDS("-c", "x y")}, "/bin/sh|-c|x y", NULL, NULL, NULL},
		{both, {.entrypoint = "", .command = WORDS("id")}, "id", NULL, NULL, NULL},
		{both, {.entrypoint = ""}, NULL, NULL, NULL, NULL},
		{cmd, {0}, "c", path, "", "/"},
		{cmd, {.command = WORDS("x")}, "x", NULL, NULL, NULL},
		{entry, {0}, "/e", NULL, NULL, NULL},
		{entry, {.command = WORDS("x")}, "/e|x", NULL, NULL, NULL},
		{none, {0}, NULL, NULL, NULL, NULL},
		{none, {.command = WORDS("x")}, "x", NULL, NULL, NULL},
		{NULL, {.command = WORDS("x")}, "x", path, "", "/"},
		{NULL, {0}, NULL, NULL, NULL, NULL},
		{both, {.env = WORDS("A=2", "B=3", "B=4=5"), .user = "0:0", .workdir = "/else"}, "/e|-x|c|d", "PATH=/p|A=2|B=4=5", "0:0", "/else"},
		{both, {.env = WORDS("A", "C"), .user = "", .workdir = ""}, "/e|-x|c|d", "PATH=/p", "u", "/w"},
		{both, {.env = WORDS("AA=2", "A")}, "/e|-x|c|d", "PATH=/p|AA=2", NULL, NULL},
		{both, {.env = WORDS("=x")}, NULL, NULL, NULL, NULL},
		{both, {.workdir = "rel"}, NULL, NULL, NULL, NULL},
	};
	for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
		struct image_run_config c;
		struct image_run_plan p;
		struct cai_error err = {0};
		char t[600];
		if (cases[k].image)
			assert_int_equal(parse(cases[k].image, &c, &err), 0);
		int r = image_run_plan_make(cases[k].image ? &c : NULL, &cases[k].q, &p, &err);
		if (cases[k].image)
			image_run_config_free(&c);
		if (!cases[k].argv) {
			assert_int_equal(r, -1);
			assert_true(err.text[0]);
			continue;
		}
		assert_int_equal(r, 0);
		assert_string_equal(joined(p.argv, t, sizeof(t)), cases[k].argv);
		if (cases[k].env)
			assert_string_equal(joined(p.env, t, sizeof(t)), cases[k].env);
		if (cases[k].user)
			assert_string_equal(p.user, cases[k].user);
		if (cases[k].workdir)
			assert_string_equal(p.workdir, cases[k].workdir);
		image_run_plan_free(&p);
	}
}

static void an_image_is_loaded_from_the_store(void **state)
{
	char dir[] = "/tmp/caisson-run-config-XXXXXX", temp[64], cmd[100];
	static const char id[] = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	struct image_store s;
	struct cai_error err;
	struct image_run_config c;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(image_store_open(&s, dir, &err), 0);
	int fd = image_store_temp(&s, temp, &err);
	json_t *meta = json_pack("{s:s,s:i,s:i,s:s,s:{s:{s:[s],s:s}}}", "id", id, "size", 0, "imported", 5, "source", "test", "image", "config", "Cmd", "sh",
				 "StopSignal", "SIGINT");
	assert_int_equal(image_store_commit(&s, temp, fd, meta, "docker.io/library/x:latest", &err), 0);
	json_decref(meta);
	close(fd);
	assert_int_equal(image_run_config_load(&s, "x", &c, &err), 0);
	assert_string_equal(c.id, id);
	assert_string_equal(c.name, "docker.io/library/x:latest");
	assert_string_equal(c.cmd[0], "sh");
	assert_int_equal(c.stop_signal, SIGINT);
	assert_int_equal(access(c.rootfs, R_OK), 0);
	image_run_config_free(&c);
	assert_int_equal(image_run_config_load(&s, "0123456789", &c, &err), 0);
	assert_null(c.name);
	image_run_config_free(&c);
	assert_int_equal(image_run_config_load(&s, "y", &c, &err), -1);
	assert_int_equal(err.errnum, 2 /* ENOENT: pull it */);
	image_store_close(&s);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_members_are_read),
		cmocka_unit_test(an_image_that_says_nothing_has_defaults),
		cmocka_unit_test(absurd_configurations_are_refused),
		cmocka_unit_test(signals_have_names_and_numbers),
		cmocka_unit_test(a_command_line_overrides_as_dockers_does),
		cmocka_unit_test(an_image_is_loaded_from_the_store),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
