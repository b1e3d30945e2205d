/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths that must not leave a directory, and mounts below a root whose image wants them elsewhere; in a mount namespace of this test's
 * own, with a /tmp of its own. ROOT is the sandbox's root, OUTSIDE what must stay as it is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "guest/mounts.h"
#include "guest/resolve.h"

#define TOP     "/tmp/caisson-test-mounts"
#define ROOT    TOP "/root"
#define OUTSIDE TOP "/outside"

static int root;

static bool is(const char *path, mode_t type)
{
	struct stat st;
	return lstat(path, &st) == 0 && (st.st_mode & S_IFMT) == type;
}

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void text_is(const char *path, const char *want)
{
	char got[100] = "";
	FILE *f = fopen(path, "re");
	assert_non_null(f);
	assert_non_null(fgets(got, sizeof(got), f));
	fclose(f);
	assert_string_equal(got, want);
}

static int make_world(void **state)
{
	static const char *const dirs[] = {TOP "/outside/dir", ROOT "/etc", ROOT "/var/lib", ROOT "/src/below"};
	static const struct {
		const char *target, *path;
	} links[] = {
		{OUTSIDE, ROOT "/abs"},     {"../outside", ROOT "/up"},   {"/var/lib", ROOT "/rooted"}, {"../../../../../../outside", ROOT "/var/deep"},
		{"var", ROOT "/inside"},    {"loop2", ROOT "/loop1"},      {"loop1", ROOT "/loop2"},     {OUTSIDE "/new", ROOT "/dangling"},
		{"/proc/self/root", ROOT "/magic"},
	};
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("tmpfs", "/tmp", "tmpfs", 0, NULL) < 0) {
		printf("skipped: no mount namespace without privileges on this host\n");
		exit(77);
	}
	mkdir(TOP, 0755);
	mkdir(ROOT, 0755);
	mkdir(OUTSIDE, 0755);
	mkdir(ROOT "/var", 0755);
	mkdir(ROOT "/src", 0755);
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
		assert_int_equal(mkdir(dirs[i], 0755), 0);
	for (size_t i = 0; i < ARRAY_LEN(links); i++)
		assert_int_equal(symlink(links[i].target, links[i].path), 0);
	write_text(ROOT "/src/file", "source");
	write_text(ROOT "/etc/here", "old");
	write_text(OUTSIDE "/secret", "secret");
	root = open(ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(root >= 0);
	return 0;
}

static int end_world(void **state)
{
	close(root);
	return 0; /* the rest goes with the namespace */
}

/* Where resolve_dir went, relative to TOP; "" with errno when it did not. */
static const char *went(const char *path, enum resolve_scope scope, bool make)
{
	static char to[4096];
	char proc[64];
	int fd = resolve_dir(root, path, scope, make);
	if (fd < 0)
		return "";
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(proc, to, sizeof(to) - 1);
	close(fd);
	assert_true(n > 0);
	to[n] = 0;
	assert_int_equal(strncmp(to, TOP, strlen(TOP)), 0);
	return to + strlen(TOP);
}

static void paths_stay_below_their_directory(void **state)
{
	static const struct {
		const char *path;
		const char *beneath, *rooted; /* "": refused */
	} cases[] = {
		{"var/lib", "/root/var/lib", "/root/var/lib"},
		{"", "/root", "/root"},
		{"inside/lib", "/root/var/lib", "/root/var/lib"},
		{"rooted", "", "/root/var/lib"},
		{"..", "", "/root"},
		{"var/../../outside", "", ""},
		{"up", "", ""},
		{"abs", "", ""},
		{"var/deep", "", ""},
		{"loop1", "", ""},
		{"magic", "", ""},
		{"magic/tmp", "", ""},
		{"etc/here", "", ""},
		{"/var/lib", "", "/root/var/lib"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		print_message("%s\n", cases[i].path);
		assert_string_equal(went(cases[i].path, RESOLVE_BENEATH, false), cases[i].beneath);
		assert_string_equal(went(cases[i].path, RESOLVE_ROOTED, false), cases[i].rooted);
	}
}

static void missing_directories_are_made_inside_and_nowhere_else(void **state)
{
	assert_string_equal(went("n1//n2/./n3/", RESOLVE_BENEATH, true), "/root/n1/n2/n3");
	assert_string_equal(went("inside/n4", RESOLVE_BENEATH, true), "/root/var/n4");
	assert_string_equal(went("/rooted/n5/n6", RESOLVE_ROOTED, true), "/root/var/lib/n5/n6");
	static const char *const refused[] = {"up/n7", "abs/n7", "var/deep/n7", "dangling", "dangling/n7", "../n7", "loop1/n7", "etc/here/n7"};
	for (size_t i = 0; i < ARRAY_LEN(refused); i++)
		assert_string_equal(went(refused[i], RESOLVE_BENEATH, true), "");
	/* With the directory as the root these name something inside of it. */
	assert_string_equal(went("../n8", RESOLVE_ROOTED, true), "/root/n8");
	assert_string_equal(went("var/deep/n7", RESOLVE_ROOTED, true), "");
	assert_false(is(OUTSIDE "/n7", S_IFDIR));
	assert_false(is(OUTSIDE "/new", S_IFDIR));
	assert_false(is(TOP "/n7", S_IFDIR));
	char longest[5000];
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	assert_string_equal(went(longest, RESOLVE_BENEATH, true), "");
	assert_int_equal(errno, ENAMETOOLONG);
}

static int make(uint32_t type, uint32_t flags, const char *source, const char *target, const char *options, struct cai_error *err)
{
	struct agent_setup m = {.n_mounts = 1,
				.mount = {{.type = type,
					   .flags = flags,
					   .source = (char *)(uintptr_t)source,
					   .target = (char *)(uintptr_t)target,
					   .options = (char *)(uintptr_t)options}}};
	return mounts_make(root, &m, err);
}

static void mounts_land_inside_the_root(void **state)
{
	struct cai_error err = {.text = ""};
	/* To the sandbox "/outside" is a directory of its own, which it does not have: it is made. */
	assert_int_equal(make(AGENT_MOUNT_TMPFS, 0, "", "/abs/../tmpfs", "size=64k,mode=711", &err), -1);
	assert_int_equal(make(AGENT_MOUNT_TMPFS, 0, "", "/../../t", "size=64k,mode=711", &err), 0);
	struct stat st, outer;
	assert_true(stat(ROOT "/t", &st) == 0 && stat(ROOT, &outer) == 0 && st.st_dev != outer.st_dev && (st.st_mode & 07777) == 0711);
	assert_int_equal(make(AGENT_MOUNT_TMPFS, AGENT_MOUNT_RDONLY, "", "rooted/ro", "", &err), 0);
	assert_int_equal(mkdir(ROOT "/var/lib/ro/x", 0755), -1);
	assert_int_equal(errno, EROFS);
}

static void binds_take_files_and_directories(void **state)
{
	struct cai_error err = {.text = ""};
	assert_int_equal(make(AGENT_MOUNT_BIND, 0, "/src", "/bound/here", "", &err), 0);
	text_is(ROOT "/bound/here/file", "source");
	write_text(ROOT "/bound/here/file", "newer");
	text_is(ROOT "/src/file", "newer");
	assert_int_equal(make(AGENT_MOUNT_BIND, AGENT_MOUNT_RDONLY, "/src/file", "/etc/here", "", &err), 0);
	text_is(ROOT "/etc/here", "newer");
	assert_int_equal(open(ROOT "/etc/here", O_WRONLY | O_CLOEXEC), -1);
	assert_int_equal(make(AGENT_MOUNT_BIND, 0, "/src/file", "/made/for/it", "noexec", &err), 0);
	text_is(ROOT "/made/for/it", "newer");
}

static void mounts_that_would_leave_or_make_no_sense_are_refused(void **state)
{
	static const struct {
		uint32_t type;
		const char *source, *target, *options, *says;
	} cases[] = {
		{AGENT_MOUNT_TMPFS, "", "/", "", "root directory"},
		{AGENT_MOUNT_TMPFS, "", "/var/..", "", "root directory"},
		{AGENT_MOUNT_TMPFS, "", "", "", "root directory"},
		{AGENT_MOUNT_TMPFS, "", "/dangling", "", "cannot be mounted on"},
		{AGENT_MOUNT_TMPFS, "", "/loop1", "", "cannot be mounted on"},
		{AGENT_MOUNT_TMPFS, "", "/t2", "size=much", "option \"size=much\""},
		{AGENT_MOUNT_TMPFS, "", "/t2", "what", "option \"what\""},
		{AGENT_MOUNT_BIND, "/src", "/t2", "size=1m", "option \"size=1m\""},
		{AGENT_MOUNT_BIND, "/outside/secret", "/t2", "", "/outside/secret cannot be mounted"},
		{AGENT_MOUNT_BIND, "/abs/secret", "/t2", "", "/abs/secret cannot be mounted"},
		{AGENT_MOUNT_BIND, "/../outside/secret", "/t2", "", "cannot be mounted"},
		{AGENT_MOUNT_BIND, "/src/below", "/src/file", "", "cannot be mounted on"},
		{AGENT_MOUNT_BIND, "/src/file", "/var/lib", "", "a file and a directory"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct cai_error err = {.text = ""};
		assert_int_equal(make(cases[i].type, 0, cases[i].source, cases[i].target, cases[i].options, &err), -1);
		if (!strstr(err.text, cases[i].says))
			fail_msg("%zu: %s", i, err.text);
	}
	text_is(OUTSIDE "/secret", "secret");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_stay_below_their_directory),
		cmocka_unit_test(missing_directories_are_made_inside_and_nowhere_else),
		cmocka_unit_test(mounts_land_inside_the_root),
		cmocka_unit_test(binds_take_files_and_directories),
		cmocka_unit_test(mounts_that_would_leave_or_make_no_sense_are_refused),
	};
	return cmocka_run_group_tests_name("mounts below a root", tests, make_world, end_world);
}
