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
#include "sandbox/logfile.h"
#include "sandbox/state.h"
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
}

static void a_tree_that_is_none_is_an_error(void **state)
{
	struct fingerprint f;
	struct cai_error err;
	assert_int_equal(fingerprint_tree("/no/such/tree", &f, &err), -1);
	assert_int_equal(fingerprint_tree("/etc/passwd", &f, &err), -1);
}

static int open_store(struct store *s)
{
	struct cai_error err;
	char path[256];
	in_top(path, "run");
	setenv("CAISSON_ROOT", path, 1);
	return store_open(s, &err);
}

/* As `caisson create` would. */
static void make_sandbox(struct store *s, const char *name, bool remove, enum sandbox_status status, struct sandbox_dir *d)
{
	struct cai_error err;
	struct sandbox_spec spec;
	struct sandbox_state st;
	sandbox_spec_init(&spec);
	spec.name = name;
	spec.remove = remove;
	assert_int_equal(store_create(s, name, d, &err), 0);
	sandbox_state_init(&st);
	st.status = status;
	strcpy(st.boot_id, "another boot");
	assert_int_equal(sandbox_state_write(d, &st, false, &err), 0);
	json_t *o = sandbox_spec_to_json(&spec);
	assert_int_equal(sandbox_dir_write(d, "config.json", o, false, &err), 0);
	json_decref(o);
}

static void a_name_belongs_to_one_sandbox(void **state)
{
	struct store s;
	struct sandbox_dir a, b;
	struct cai_error err;
	assert_int_equal(open_store(&s), 0);
	assert_int_equal(store_create(&s, "one", &a, &err), 0);
	assert_int_equal(store_create(&s, "one", &b, &err), -1);
	assert_int_equal(err.errnum, EEXIST);
	assert_int_equal(store_create(&s, NULL, &b, &err), 0);
	assert_string_not_equal(a.id, b.id);
	sandbox_dir_remove(&a, "one");
	assert_int_equal(store_create(&s, "one", &a, &err), 0);
	sandbox_dir_remove(&a, "one");
	sandbox_dir_remove(&a, "one"); /* twice is harmless */
	sandbox_dir_remove(&b, NULL);
	store_close(&s);
}

static void the_name_of_a_sandbox_that_is_gone_is_free(void **state)
{
	struct store s;
	struct sandbox_dir d;
	struct cai_error err;
	assert_int_equal(open_store(&s), 0);
	assert_int_equal(symlinkat("0123456789ab", s.root_fd, "names/ghost"), 0);
	assert_int_equal(store_create(&s, "ghost", &d, &err), 0);
	sandbox_dir_remove(&d, "ghost");
	store_close(&s);
}

static void sandboxes_are_found_by_name_id_and_prefix(void **state)
{
	struct store s;
	struct sandbox_dir d, f;
	struct cai_error err;
	char prefix[6];
	assert_int_equal(open_store(&s), 0);
	make_sandbox(&s, "web", false, STATUS_EXITED, &d);
	snprintf(prefix, sizeof(prefix), "%.5s", d.id);
	const char *const good[] = {"web", d.id, prefix}, *const bad[] = {"we", "", "../names", "0123456789abc", "zzz"};
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(store_find(&s, good[i], &f, &err), 0);
		assert_string_equal(f.id, d.id);
		sandbox_dir_close(&f);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(store_find(&s, bad[i], &f, &err), -1);
	assert_int_equal(store_rename(&s, &d, "web", "www", &err), 0);
	assert_int_equal(store_find(&s, "web", &f, &err), -1);
	assert_int_equal(store_find(&s, "www", &f, &err), 0);
	sandbox_dir_close(&f);
	sandbox_dir_remove(&d, "www");
	store_close(&s);
}

/* A runner that died: its lock is free while the record says "running". */
static void the_record_of_a_dead_runner_is_put_right(void **state)
{
	struct store s;
	struct sandbox_dir d;
	struct sandbox_view v;
	struct cai_error err;
	assert_int_equal(open_store(&s), 0);
	make_sandbox(&s, "kept", false, STATUS_RUNNING, &d);
	sandbox_dir_close(&d); /* lets go of the lock */
	make_sandbox(&s, "gone", true, STATUS_RUNNING, &d);
	sandbox_dir_close(&d);
	assert_int_equal(sandbox_view_find(&s, "kept", &v, &err), 0);
	assert_int_equal(v.state.status, STATUS_EXITED);
	assert_int_equal(v.state.exit_code, 137);
	assert_non_null(strstr(v.state.error, "restarted"));
	sandbox_view_free(&v);
	assert_int_equal(sandbox_view_find(&s, "gone", &v, &err), -1); /* it was made with --rm */
	assert_int_equal(store_find(&s, "gone", &d, &err), -1);
	store_close(&s);
}

static void the_record_of_a_live_runner_is_left_alone(void **state)
{
	struct store s;
	struct sandbox_dir d;
	struct sandbox_view v;
	struct cai_error err;
	assert_int_equal(open_store(&s), 0);
	make_sandbox(&s, "live", true, STATUS_RUNNING, &d);
	assert_int_equal(sandbox_view_find(&s, "live", &v, &err), 0);
	assert_int_equal(v.state.status, STATUS_RUNNING);
	assert_true(sandbox_dir_held(&v.dir));
	sandbox_view_free(&v);
	sandbox_dir_remove(&d, "live");
	store_close(&s);
}

static void a_directory_that_was_never_finished_is_removed(void **state)
{
	struct store s;
	struct sandbox_dir d;
	struct cai_error err;
	char path[256];
	assert_int_equal(open_store(&s), 0);
	assert_int_equal(store_create(&s, "half", &d, &err), 0);
	snprintf(path, sizeof(path), "%s", d.path);
	store_heal(&s, 100);
	assert_int_equal(access(path, F_OK), 0); /* somebody is making it */
	sandbox_dir_close(&d);
	store_heal(&s, 100);
	assert_int_equal(access(path, F_OK), -1);
	store_close(&s);
}

static void a_damaged_record_is_named_and_not_believed(void **state)
{
	static const char *const bad[] = {"", "[]", "{\"engine\":7}", "{\"argv\":\"sh\"}", "{\"memory\":-1}", "{\"name\":5}", "{", "{\"cpus\":99999999999}"};
	struct store s;
	struct sandbox_dir d;
	struct sandbox_view v;
	struct cai_error err;
	assert_int_equal(open_store(&s), 0);
	make_sandbox(&s, "bad", false, STATUS_EXITED, &d);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		int fd = openat(d.dir_fd, "config.json", O_WRONLY | O_TRUNC);
		assert_int_equal(write(fd, bad[i], strlen(bad[i])), strlen(bad[i]));
		close(fd);
		assert_int_equal(sandbox_view_find(&s, "bad", &v, &err), -1);
	}
	sandbox_dir_remove(&d, "bad");
	store_close(&s);
}

static void a_spec_survives_its_record(void **state)
{
	static char *const argv[] = {(char *)"sh", (char *)"-c", (char *)"\xff\x01 not UTF-8", NULL}, *const vols[] = {(char *)"/a:/b:ro", NULL};
	struct sandbox_spec a;
	struct spec_loaded b;
	struct cai_error err;
	sandbox_spec_init(&a);
	a.name = "x";
	a.engine = ENGINE_CONTAINER;
	a.trust = TRUST_TRUSTED;
	a.argv = argv;
	a.volumes = vols;
	a.memory = 5ull << 40;
	a.stop_signal = 9;
	a.read_only = true;
	json_t *o = sandbox_spec_to_json(&a);
	assert_int_equal(sandbox_spec_from_json(o, &b, &err), 0);
	json_decref(o);
	assert_string_equal(b.spec.name, "x");
	assert_int_equal(b.spec.engine, ENGINE_CONTAINER);
	assert_int_equal(b.spec.trust, TRUST_TRUSTED);
	assert_string_equal(b.spec.argv[2], argv[2]);
	assert_null(b.spec.argv[3]);
	assert_string_equal(b.spec.volumes[0], vols[0]);
	assert_true(b.spec.memory == a.memory && b.spec.read_only && !b.spec.tty && b.spec.stop_signal == 9);
	assert_null(b.spec.env);
	spec_loaded_free(&b);
}

static void untrusted_code_gets_no_container(void **state)
{
	struct sandbox_spec s;
	struct cai_error err;
	sandbox_spec_init(&s);
	s.engine = ENGINE_CONTAINER;
	assert_int_equal(sandbox_spec_check(&s, &err), -1);
	assert_non_null(strstr(err.text, "--trust trusted"));
	s.trust = TRUST_HOSTILE;
	assert_int_equal(sandbox_spec_check(&s, &err), -1);
	s.trust = TRUST_TRUSTED;
	assert_int_equal(sandbox_spec_check(&s, &err), 0);
	s.at_least = BOUNDARY_SOFTWARE;
	assert_int_equal(sandbox_spec_check(&s, &err), -1);
}

static void volumes_are_parsed_and_nonsense_is_refused(void **state)
{
	static const char *const bad[] = {"", "/a", ":/b", "/a:", "/a:b", "a:/b", "/a:/", "/a:/b:rx", "/a:/b:ro:ro", "name:/b"};
	struct spec_volume v;
	struct cai_error err;
	assert_int_equal(spec_parse_volume("/a/b:/c", &v, &err), 0);
	assert_string_equal(v.source, "/a/b");
	assert_string_equal(v.target, "/c");
	assert_false(v.read_only);
	assert_int_equal(spec_parse_volume("./x:/c:ro", &v, &err), 0);
	assert_true(v.read_only);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(spec_parse_volume(bad[i], &v, &err), -1);
}

static void a_log_gives_back_what_was_written(void **state)
{
	struct store s;
	struct sandbox_dir d;
	struct cai_error err;
	static char big[LOG_MAX_LINE + 100];
	assert_int_equal(open_store(&s), 0);
	assert_int_equal(store_create(&s, NULL, &d, &err), 0);
	struct logfile *l = logfile_open(&d, &err);
	assert_non_null(l);
	memset(big, 'x', sizeof(big));
	logfile_write(l, 1, "one\ntw", 6);
	logfile_write(l, 2, "err\n", 4);
	logfile_write(l, 1, "o\n\n", 3);
	logfile_write(l, 1, big, sizeof(big));
	logfile_close(l);
	static const struct {
		const char *text;
		int stream;
		bool partial;
		size_t len;
	} want[] = {{"one", 1, false, 3}, {"err", 2, false, 3}, {"two", 1, false, 3}, {"", 1, false, 0}, {"xxx", 1, true, LOG_MAX_LINE}, {"xxx", 1, true, 100}};
	int fd = openat(d.dir_fd, "log", O_RDONLY);
	FILE *f = fdopen(fd, "r");
	char *line = NULL;
	size_t cap = 0;
	for (size_t i = 0; i < ARRAY_LEN(want); i++) {
		struct log_line ll;
		ssize_t n = getline(&line, &cap, f);
		assert_true(n > 0 && log_line_parse(line, (size_t)n - 1, &ll));
		assert_int_equal(ll.stream, want[i].stream);
		assert_int_equal(ll.partial, want[i].partial);
		assert_int_equal(ll.len, want[i].len);
		assert_memory_equal(ll.text, want[i].text, strlen(want[i].text));
		assert_true(ll.time_ns > 1700000000000000000);
	}
	assert_int_equal(getline(&line, &cap, f), -1);
	free(line);
	fclose(f);
	struct log_line ll;
	assert_false(log_line_parse("2026-01-02T03:04:05.123456789Z stdxxx F hello", 46, &ll));
	assert_false(log_line_parse("", 0, &ll));
	sandbox_dir_remove(&d, NULL);
	store_close(&s);
}

static void a_root_directory_behind_a_link_is_refused(void **state)
{
	char path[256];
	struct store s;
	struct cai_error err;
	in_top(path, "link");
	assert_int_equal(symlink("/tmp", path), 0);
	setenv("CAISSON_ROOT", path, 1);
	assert_int_equal(store_open(&s, &err), -1);
	setenv("CAISSON_ROOT", "relative", 1);
	assert_int_equal(store_open(&s, &err), -1);
	in_top(path, "open");
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(chmod(path, 0777), 0);
	setenv("CAISSON_ROOT", path, 1);
	assert_int_equal(store_open(&s, &err), -1);
}

static void a_socket_below_a_long_path_works(void **state)
{
	char path[256];
	struct store s;
	struct sandbox_dir d;
	struct cai_error err;
	in_top(path, "a-directory-whose-name-is-so-long-that-a-socket-below-it-has-a-longer-path-than-107-bytes-allow");
	setenv("CAISSON_ROOT", path, 1);
	assert_int_equal(store_open(&s, &err), 0);
	assert_int_equal(store_create(&s, "long", &d, &err), 0);
	int l = sandbox_dir_listen(&d, "agent.sock", SOCK_STREAM, &err);
	int c = sandbox_dir_connect(&d, "agent.sock", SOCK_STREAM, &err);
	assert_true(l >= 0 && c >= 0);
	close(l);
	close(c);
	sandbox_dir_remove(&d, "long");
	store_close(&s);
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
		cmocka_unit_test_setup_teardown(a_name_belongs_to_one_sandbox, make_top, remove_top),
		cmocka_unit_test_setup_teardown(the_name_of_a_sandbox_that_is_gone_is_free, make_top, remove_top),
		cmocka_unit_test_setup_teardown(sandboxes_are_found_by_name_id_and_prefix, make_top, remove_top),
		cmocka_unit_test_setup_teardown(the_record_of_a_dead_runner_is_put_right, make_top, remove_top),
		cmocka_unit_test_setup_teardown(the_record_of_a_live_runner_is_left_alone, make_top, remove_top),
		cmocka_unit_test_setup_teardown(a_directory_that_was_never_finished_is_removed, make_top, remove_top),
		cmocka_unit_test_setup_teardown(a_damaged_record_is_named_and_not_believed, make_top, remove_top),
		cmocka_unit_test_setup_teardown(a_log_gives_back_what_was_written, make_top, remove_top),
		cmocka_unit_test_setup_teardown(a_root_directory_behind_a_link_is_refused, make_top, remove_top),
		cmocka_unit_test(a_spec_survives_its_record),
		cmocka_unit_test(untrusted_code_gets_no_container),
		cmocka_unit_test(volumes_are_parsed_and_nonsense_is_refused),
		cmocka_unit_test_setup_teardown(a_socket_below_a_long_path_works, make_top, remove_top),
		cmocka_unit_test(an_outlet_never_blocks_and_swallows_when_broken),
		cmocka_unit_test(options_end_where_they_should),
		cmocka_unit_test(the_nearest_word_is_near),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
