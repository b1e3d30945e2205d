/* SPDX-License-Identifier: Apache-2.0 */
/* The sandbox library without a monitor: sizes, names, fingerprints, the registry of running sandboxes; and the option parser. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "cli/cli.h"
#include "sandbox/fingerprint.h"
#include "sandbox/outlet.h"
#include "sandbox/registry.h"
#include "sandbox/spec.h"

static void sizes_are_powers_of_1024_and_nonsense_is_refused(void **state)
{
	static const struct {
		const char *text;
		int64_t bytes; /* -1: refused */
	} cases[] = {
		{"0", 0},	    {"1", 1},	      {"512", 512},  {"1b", 1},	    {"1k", 1024},  {"1K", 1024},    {"2kb", 2048},
		{"3KiB", 3072},	    {"1.5k", 1536},   {"512M", 512 << 20},	    {"1g", 1 << 30}, {"1T", 1ll << 40}, {"", -1},
		{"M", -1},	    {"-1", -1},	      {"1x", -1},    {"1MM", -1},   {"1 M", -1},   {"nan", -1},	    {"inf", -1},
		{"99999999999T", -1}, {"1e400", -1},  {"1ki", 1024}, {" 1", -1},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t v = 0;
		struct cai_error err;
		int r = parse_size(cases[i].text, &v, &err);
		if (r != (cases[i].bytes < 0 ? -1 : 0) || (r == 0 && (int64_t)v != cases[i].bytes))
			fail_msg("'%s' gave %d, %llu", cases[i].text, r, (unsigned long long)v);
	}
}

static void names_are_checked(void **state)
{
	assert_true(sandbox_name_ok("a"));
	assert_true(sandbox_name_ok("9web-1.test_x"));
	static const char *const bad[] = {"", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "\xc3\xa4",
					  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(sandbox_name_ok(bad[i]));
}

static void limits_of_a_spec(void **state)
{
	struct sandbox_spec s;
	struct cai_error err;
	sandbox_spec_init(&s);
	assert_int_equal(sandbox_spec_check(&s, &err), 0);
	s.cpus = 33;
	assert_int_equal(sandbox_spec_check(&s, &err), -1);
	s.cpus = 0;
	assert_int_equal(sandbox_spec_check(&s, &err), -1);
	s.cpus = 32;
	s.memory = SPEC_MIN_MEMORY;
	assert_int_equal(sandbox_spec_check(&s, &err), 0);
	s.memory--;
	assert_int_equal(sandbox_spec_check(&s, &err), -1);
	s.memory = UINT64_MAX;
	assert_int_equal(sandbox_spec_check(&s, &err), -1);
}

/* The first two results of the reference implementation's table for 128 bits, with its key 00 01 .. 0f: input "", and 00. */
static void siphash_agrees_with_its_specification(void **state)
{
	static const uint8_t empty[16] = {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93};
	static const uint8_t one[16] = {0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45};
	struct siphash h;
	uint64_t v[2];
	siphash_init(&h);
	siphash_end(&h, v);
	assert_memory_equal(v, empty, 16);
	siphash_init(&h);
	siphash_add(&h, "", 1);
	siphash_end(&h, v);
	assert_memory_equal(v, one, 16);
}

static void siphash_does_not_depend_on_how_input_is_cut(void **state)
{
	uint8_t data[97];
	uint64_t whole[2], parts[2];
	struct siphash h;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	siphash_init(&h);
	siphash_add(&h, data, sizeof(data));
	siphash_end(&h, whole);
	for (size_t cut = 1; cut < 20; cut++) {
		siphash_init(&h);
		for (size_t i = 0; i < sizeof(data); i += cut)
			siphash_add(&h, data + i, i + cut > sizeof(data) ? sizeof(data) - i : cut);
		siphash_end(&h, parts);
		assert_memory_equal(whole, parts, 16);
	}
}

static char top[64];

static void in_top(char *out, const char *name)
{
	snprintf(out, 256, "%s/%s", top, name);
}

static void put(const char *name, const char *text)
{
	char path[256];
	in_top(path, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static int make_top(void **state)
{
	strcpy(top, "/tmp/caisson-unit-XXXXXX");
	return mkdtemp(top) ? 0 : -1;
}

static int remove_top(void **state)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", top);
	return system(command);
}

static void every_change_of_a_tree_changes_its_fingerprint(void **state)
{
	char a[256], b[256];
	struct fingerprint before, now;
	struct cai_error err;
	in_top(a, "sub");
	assert_int_equal(mkdir(a, 0755), 0);
	put("sub/file", "one");
	put("other", "two");
	for (unsigned step = 0; step < 7; step++) {
		assert_int_equal(fingerprint_tree(top, &before, &err), 0);
		assert_int_equal(fingerprint_tree(top, &now, &err), 0);
		assert_memory_equal(before.hash, now.hash, 16);
		usleep(25000); /* longer than the clock's grain, as rootfs.c waits */
		in_top(a, "sub/file");
		in_top(b, "sub/new");
		switch (step) {
		case 0:
			put("sub/file", "eno"); /* same size */
			break;
		case 1:
			assert_int_equal(chmod(a, 0600), 0);
			break;
		case 2:
			assert_int_equal(rename(a, b), 0);
			break;
		case 3:
			assert_int_equal(symlink("x", a), 0);
			break;
		case 4:
			assert_int_equal(unlink(a), 0);
			break;
		case 5:
			in_top(a, "empty");
			assert_int_equal(mkdir(a, 0755), 0);
			break;
		case 6: {
			const struct timespec old[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
			assert_int_equal(utimensat(AT_FDCWD, b, old, 0), 0);
			break;
		}
		}
		assert_int_equal(fingerprint_tree(top, &now, &err), 0);
		if (!memcmp(before.hash, now.hash, 16))
			fail_msg("step %u left the fingerprint as it was", step);
	}
	assert_int_equal(now.entries, 5);
	assert_true(now.one_owner);
}

static void a_tree_that_is_none_is_an_error(void **state)
{
	struct fingerprint f;
	struct cai_error err;
	assert_int_equal(fingerprint_tree("/no/such/tree", &f, &err), -1);
	assert_int_equal(fingerprint_tree("/etc/passwd", &f, &err), -1);
}

static int open_registry(struct registry *r)
{
	struct cai_error err;
	char path[256];
	in_top(path, "run");
	setenv("CAISSON_ROOT", path, 1);
	return registry_open(r, &err);
}

static void a_name_is_taken_while_its_lock_is_held(void **state)
{
	struct registry r;
	struct sandbox_dir a, b;
	struct cai_error err;
	assert_int_equal(open_registry(&r), 0);
	assert_int_equal(registry_create(&r, "one", &a, &err), 0);
	assert_int_equal(registry_create(&r, "one", &b, &err), -1);
	assert_int_equal(err.errnum, EEXIST);
	assert_int_equal(registry_create(&r, NULL, &b, &err), 0);
	assert_string_not_equal(a.name, b.name);
	assert_int_equal(registry_heal(&r, &err), 0);
	sandbox_dir_remove(&a);
	assert_int_equal(registry_create(&r, "one", &a, &err), 0);
	sandbox_dir_remove(&a);
	sandbox_dir_remove(&a); /* twice is harmless */
	sandbox_dir_remove(&b);
	registry_close(&r);
}

static void what_a_dead_runner_left_is_removed(void **state)
{
	struct registry r;
	struct sandbox_dir d;
	struct cai_error err;
	assert_int_equal(open_registry(&r), 0);
	pid_t pid = fork();
	if (pid == 0) {
		if (registry_create(&r, "dead", &d, &err) < 0 || sandbox_dir_listen(&d, "vsock.sock", SOCK_STREAM, &err) < 0)
			_exit(1);
		_exit(0); /* the kernel lets go of the lock */
	}
	int st;
	assert_int_equal(waitpid(pid, &st, 0), pid);
	assert_int_equal(st, 0);
	char path[256];
	in_top(path, "run/sandboxes/dead/vsock.sock");
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(registry_heal(&r, &err), 1);
	in_top(path, "run/sandboxes/dead");
	assert_int_equal(access(path, F_OK), -1);
	registry_close(&r);
}

static void a_runtime_directory_behind_a_link_is_refused(void **state)
{
	char path[256];
	struct registry r;
	struct cai_error err;
	in_top(path, "link");
	assert_int_equal(symlink("/tmp", path), 0);
	setenv("CAISSON_ROOT", path, 1);
	assert_int_equal(registry_open(&r, &err), -1);
	setenv("CAISSON_ROOT", "relative", 1);
	assert_int_equal(registry_open(&r, &err), -1);
}

static void a_socket_below_a_long_path_works(void **state)
{
	char path[256];
	struct registry r;
	struct sandbox_dir d;
	struct cai_error err;
	in_top(path, "a-directory-whose-name-is-so-long-that-a-socket-below-it-has-a-longer-path-than-107-bytes-allow");
	setenv("CAISSON_ROOT", path, 1);
	assert_int_equal(registry_open(&r, &err), 0);
	assert_int_equal(registry_create(&r, "long", &d, &err), 0);
	int l = sandbox_dir_listen(&d, "vsock.sock", SOCK_STREAM, &err);
	int c = sandbox_dir_connect(&d, "vsock.sock", SOCK_STREAM, &err);
	assert_true(l >= 0 && c >= 0);
	close(l);
	close(c);
	sandbox_dir_remove(&d);
	registry_close(&r);
}

static void an_outlet_never_blocks_and_swallows_when_broken(void **state)
{
	int p[2];
	static char data[200000];
	struct outlet o;
	assert_int_equal(pipe(p), 0);
	outlet_init(&o, p[1]);
	size_t n = outlet_write(&o, data, sizeof(data));
	assert_true(n > 0 && n < sizeof(data));
	assert_int_equal(outlet_write(&o, data, 10), 0);
	close(p[0]);
	assert_int_equal(outlet_write(&o, data, sizeof(data)), sizeof(data));
	assert_int_equal(o.broken, EPIPE);
	close(p[1]);
}

struct seen {
	char text[256];
};

static int note(void *ctx, int id, const char *value, struct cai_error *err)
{
	struct seen *s = ctx;
	size_t n = strlen(s->text);
	snprintf(s->text + n, sizeof(s->text) - n, "%c=%s;", id, value ? value : "");
	return 0;
}

static void options_end_where_they_should(void **state)
{
	static const struct cli_option opts[] = {
		{"interactive", 'i', OPT_FLAG, 'i'}, {"tty", 't', OPT_FLAG, 't'}, {"env", 'e', OPT_VALUE, 'e'}, {NULL, 0, 0, 0},
	};
	static const struct {
		const char *argv[8];
		const char *seen; /* NULL: refused */
		int next;
		bool dashes;
	} cases[] = {
		{{"run", "-it", "--", "sh"}, "i=;t=;", 3, true},
		{{"run", "-ite", "A=1", "sh", "-i"}, "i=;t=;e=A=1;", 3, false},
		{{"run", "-eA=1", "--env=B=2", "--env", "C"}, "e=A=1;e=B=2;e=C;", 5, false},
		{{"run", "-e=A", "-"}, "e=A;", 2, false},
		{{"run", "--env=", "--"}, "e=;", 3, true},
		{{"run"}, "", 1, false},
		{{"run", "-e"}, NULL, 0, false},
		{{"run", "--env"}, NULL, 0, false},
		{{"run", "-x"}, NULL, 0, false},
		{{"run", "-ix"}, NULL, 0, false},
		{{"run", "--tty=yes"}, NULL, 0, false},
		{{"run", "--"}, "", 2, true},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int argc = 0;
		while (argc < 8 && cases[i].argv[argc])
			argc++;
		struct seen s = {""};
		struct cli_parse p = {0};
		struct cai_error err;
		int r = cli_options(argc, (char **)cases[i].argv, opts, note, &s, &p, &err);
		assert_int_equal(r, cases[i].seen ? 0 : -1);
		if (r < 0)
			continue;
		assert_string_equal(s.text, cases[i].seen);
		assert_int_equal(p.next, cases[i].next);
		assert_int_equal(p.dashes, cases[i].dashes);
	}
}

static void the_nearest_word_is_near(void **state)
{
	static const char *const words[] = {"run", "doctor", "version", "help"};
	assert_string_equal(cli_nearest("rnu", words, 4), "run");
	assert_string_equal(cli_nearest("docter", words, 4), "doctor");
	assert_string_equal(cli_nearest("vers", words, 4), "version");
	assert_null(cli_nearest("frobnicate", words, 4));
	assert_null(cli_nearest("", words, 4));
	assert_null(cli_nearest("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", words, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_powers_of_1024_and_nonsense_is_refused),
		cmocka_unit_test(names_are_checked),
		cmocka_unit_test(limits_of_a_spec),
		cmocka_unit_test(siphash_agrees_with_its_specification),
		cmocka_unit_test(siphash_does_not_depend_on_how_input_is_cut),
		cmocka_unit_test_setup_teardown(every_change_of_a_tree_changes_its_fingerprint, make_top, remove_top),
		cmocka_unit_test(a_tree_that_is_none_is_an_error),
		cmocka_unit_test_setup_teardown(a_name_is_taken_while_its_lock_is_held, make_top, remove_top),
		cmocka_unit_test_setup_teardown(what_a_dead_runner_left_is_removed, make_top, remove_top),
		cmocka_unit_test_setup_teardown(a_runtime_directory_behind_a_link_is_refused, make_top, remove_top),
		cmocka_unit_test_setup_teardown(a_socket_below_a_long_path_works, make_top, remove_top),
		cmocka_unit_test(an_outlet_never_blocks_and_swallows_when_broken),
		cmocka_unit_test(options_end_where_they_should),
		cmocka_unit_test(the_nearest_word_is_near),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
