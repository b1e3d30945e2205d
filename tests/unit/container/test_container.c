/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "container/internal.h"

#define DEFAULT 0xa80425fbull

static void test_capabilities_are_dockers_with_what_is_added_and_dropped(void **state)
{
	static const struct {
		const char *add[3], *drop[3];
		int ok;
		uint64_t want;
	} cases[] = {
		{{NULL}, {NULL}, 1, DEFAULT},
		{{"NET_ADMIN"}, {NULL}, 1, DEFAULT | BIT(CAP_NET_ADMIN)},
		{{"cap_net_admin", "Sys_Time"}, {NULL}, 1, DEFAULT | BIT(CAP_NET_ADMIN) | BIT(CAP_SYS_TIME)},
		{{NULL}, {"MKNOD", "CAP_NET_RAW"}, 1, DEFAULT & ~(BIT(CAP_MKNOD) | BIT(CAP_NET_RAW))},
		{{NULL}, {"ALL"}, 1, 0},
		{{"CHOWN"}, {"ALL"}, 1, BIT(CAP_CHOWN)},
		{{"ALL"}, {"SYS_ADMIN"}, 1, (BIT(41) - 1) & ~BIT(CAP_SYS_ADMIN)},
		{{"NONE"}, {NULL}, 0, 0},
		{{NULL}, {""}, 0, 0},
		{{"CAP_"}, {NULL}, 0, 0},
	};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct container_spec s = {.cap_add = cases[i].add, .cap_drop = cases[i].drop};
		struct cai_error err;
		uint64_t caps;
		assert_int_equal(confine_capability_set(&s, &caps, &err), cases[i].ok ? 0 : -1);
		if (cases[i].ok)
			assert_true(caps == cases[i].want);
	}
}

static void test_users_of_containers_lie_in_a_range_of_their_own(void **state)
{
	char id[32];
	unsigned same = 0;
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(id, sizeof(id), "%08x", i * 2654435761u);
		uint32_t base = userns_base(id);
		assert_true(base >= 0x71000000u && base % 65536 == 0 && base <= 0x7fffffffu - 65535);
		assert_int_equal(base, userns_base(id));
		same += base == userns_base("other");
	}
	assert_true(same < 5);
}

/* A tree that tries to lead out of itself. */
struct tree {
	char outside[32], root[64];
	int fd;
};

static int tree_setup(void **state)
{
	struct tree *t = calloc(1, sizeof(*t));
	char path[256];
	strcpy(t->outside, "/tmp/caisson-test-XXXXXX");
	if (!t || !mkdtemp(t->outside))
		return -1;
	snprintf(t->root, sizeof(t->root), "%s/root", t->outside);
	mkdir(t->root, 0755);
	t->fd = open(t->root, O_PATH | O_DIRECTORY);
	static const char *const links[][2] = {{"abs", "/"},	     {"up", "../../.."}, {"loop", "loop"}, {"dangling", "nowhere"},
					       {"magic", "/proc/self/root"}, {"dirlink", "real"},	 {"dev", "/dev"}};
	for (unsigned i = 0; i < ARRAY_LEN(links); i++) {
		snprintf(path, sizeof(path), "%s/%s", t->root, links[i][0]);
		if (symlink(links[i][1], path) < 0)
			return -1;
	}
	snprintf(path, sizeof(path), "%s/real", t->root);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/file", t->root);
	close(open(path, O_CREAT | O_WRONLY, 0644));
	*state = t;
	return 0;
}

static int tree_teardown(void **state)
{
	struct tree *t = *state;
	char command[64];
	snprintf(command, sizeof(command), "rm -rf %s", t->outside);
	close(t->fd);
	int r = system(command);
	free(t);
	return r;
}

/* The path that a descriptor stands for must lie in the root. */
static void inside(const struct tree *t, int fd, const char *want)
{
	char link[64], path[256], full[256];
	assert_true(fd >= 0);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof(path) - 1);
	assert_true(n > 0);
	path[n] = 0;
	snprintf(full, sizeof(full), "%s%s", t->root, want);
	assert_string_equal(path, full);
	close(fd);
}

static void test_names_are_found_in_the_root_and_nowhere_else(void **state)
{
	struct tree *t = *state;
	static const struct {
		const char *path, *want; /* NULL: refused */
	} cases[] = {
		{"/a/b/c", "/a/b/c"}, {"/dirlink/x/y", "/real/x/y"}, {"/abs/p/q", "/p/q"}, {"/up/r", "/r"}, {"/up/up/abs/dirlink/s", "/real/s"},
		{"//a///b/", "/a/b"}, {"/loop/x", NULL}, {"/dangling/x", NULL}, {"/dangling", NULL}, {"/file/x", NULL}, {"/a/../../x/y", NULL},
		{"/dev/x", NULL}, {"/magic/x", NULL},
	};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct cai_error err;
		int fd = inroot_make_dirs(t->fd, cases[i].path, &err);
		if (cases[i].want) {
			inside(t, fd, cases[i].want);
		} else {
			assert_int_equal(fd, -1);
			assert_true(err.text[0]);
		}
	}
	assert_int_equal(access("/tmp/x/y", F_OK), -1);
	struct cai_error err;
	inside(t, inroot_make_file(t->fd, "/abs/f/g", &err), "/f/g");
	inside(t, inroot_make_file(t->fd, "/file", &err), "/file");
	inside(t, inroot_make_dirs(t->fd, "/", &err), "");
}

static void test_the_engines_own_places_accept_no_link(void **state)
{
	struct tree *t = *state;
	struct cai_error err;
	assert_int_equal(inroot_own_dir(t->fd, "dev", &err), -1);
	assert_non_null(strstr(err.text, "symbolic link"));
	assert_int_equal(inroot_own_dir(t->fd, "dirlink", &err), -1);
	assert_int_equal(inroot_own_dir(t->fd, "file", &err), -1);
	inside(t, inroot_own_dir(t->fd, "proc", &err), "/proc");
	inside(t, inroot_own_dir(t->fd, "proc", &err), "/proc");
}

static void test_a_file_is_replaced_never_followed(void **state)
{
	struct tree *t = *state;
	struct cai_error err;
	char path[256], victim[256], text[16] = "";
	snprintf(victim, sizeof(victim), "%s/victim", t->outside);
	int fd = open(victim, O_CREAT | O_WRONLY, 0644);
	assert_int_equal(write(fd, "safe", 4), 4);
	close(fd);
	static const char *const kinds[] = {"absolute", "relative", "fifo", "missing"};
	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
		snprintf(path, sizeof(path), "%s/etc", t->root);
		mkdir(path, 0755);
		snprintf(path, sizeof(path), "%s/etc/%s", t->root, kinds[i]);
		if (i == 0)
			assert_int_equal(symlink(victim, path), 0);
		else if (i == 1)
			assert_int_equal(symlink("../../victim", path), 0);
		else if (i == 2)
			assert_int_equal(mkfifo(path, 0644), 0);
		assert_int_equal(inroot_write(t->fd, "/etc", kinds[i], "hello", &err), 0);
		fd = open(path, O_RDONLY | O_NOFOLLOW);
		assert_int_equal(read(fd, text, sizeof(text)), 5);
		close(fd);
		assert_memory_equal(text, "hello", 5);
	}
	fd = open(victim, O_RDONLY);
	assert_int_equal(read(fd, text, sizeof(text)), 4);
	close(fd);
	assert_int_equal(inroot_write(t->fd, "/", "real", "x", &err), -1); /* a directory stays */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_capabilities_are_dockers_with_what_is_added_and_dropped),
		cmocka_unit_test(test_users_of_containers_lie_in_a_range_of_their_own),
		cmocka_unit_test_setup_teardown(test_names_are_found_in_the_root_and_nowhere_else, tree_setup, tree_teardown),
		cmocka_unit_test_setup_teardown(test_the_engines_own_places_accept_no_link, tree_setup, tree_teardown),
		cmocka_unit_test_setup_teardown(test_a_file_is_replaced_never_followed, tree_setup, tree_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
