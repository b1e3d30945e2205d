/* SPDX-License-Identifier: Apache-2.0 */
/* -u against an image's passwd and group, and the root disk's type by magic number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "guest/rootfs.h"
#include "guest/users.h"

static const char passwd[] = "# a comment\n"
			     "root:x:0:0:root:/root:/bin/sh\n"
			     "broken line\n"
			     "minus:x:-1:5::/:\n"
			     "huge:x:4294967295:5::/:\n"
			     "\n"
			     "web:x:1000:1001:,,,:/srv/web:/bin/sh\n"
			     "1234:x:77:78::/numeric:\n"
			     "nohome:x:90:91::relative:\n"
			     "last:x:5:6::/last:/bin/sh";
static const char group[] = "root:x:0:\n"
			    "wheel:x:10:web,root\n"
			    "web:x:1001:web\n"
			    "near:x:11:webmaster,aweb\n"
			    "audio:x:29:x,web\n"
			    "bad:x:nan:web\n";

static void a_user_is_found_by_name_number_and_with_group(void **state)
{
	static const struct {
		const char *spec;
		int rc;
		unsigned uid, gid, n_groups;
		const char *home;
	} cases[] = {
		{"", 0, 0, 0, 1, "/root"},
		{"root", 0, 0, 0, 1, "/root"},
		{"web", 0, 1000, 1001, 2, "/srv/web"},
		{"1000", 0, 1000, 1001, 2, "/srv/web"},
		{"web:audio", 0, 1000, 29, 0, "/srv/web"},
		{"web:4242", 0, 1000, 4242, 0, "/srv/web"},
		{"5555", 0, 5555, 0, 0, "/"},
		{"5555:6666", 0, 5555, 6666, 0, "/"},
		{"1234", 0, 77, 78, 0, "/numeric"}, /* a name first */
		{"nohome", 0, 90, 91, 0, "/"},
		{"last", 0, 5, 6, 0, "/last"},
		{"nobody", -1, 0, 0, 0, NULL},
		{"web:nogroup", -1, 0, 0, 0, NULL},
		{"web:", -1, 0, 0, 0, NULL},
		{"minus", -1, 0, 0, 0, NULL},
		{"huge", -1, 0, 0, 0, NULL},
		{"4294967295", -1, 0, 0, 0, NULL},
		{"99999999999999999999", -1, 0, 0, 0, NULL},
		{"-1", -1, 0, 0, 0, NULL},
		{"broken line", -1, 0, 0, 0, NULL},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct guest_user u;
		struct cai_error err;
		assert_int_equal(users_resolve(cases[i].spec, passwd, group, &u, &err), cases[i].rc);
		if (cases[i].rc < 0)
			continue;
		assert_int_equal(u.uid, cases[i].uid);
		assert_int_equal(u.gid, cases[i].gid);
		assert_int_equal(u.n_groups, cases[i].n_groups);
		assert_string_equal(u.home, cases[i].home);
	}
}

static void an_image_without_files_still_has_root_and_numbers(void **state)
{
	struct guest_user u;
	assert_int_equal(users_resolve("", NULL, NULL, &u, NULL), 0);
	assert_true(u.uid == 0 && u.gid == 0 && u.n_groups == 0);
	assert_string_equal(u.home, "/");
	assert_int_equal(users_resolve("12:13", NULL, NULL, &u, NULL), 0);
	assert_int_equal(users_resolve("web", NULL, NULL, &u, NULL), -1);
}

static void hostile_files_are_survived(void **state)
{
	struct guest_user u;
	unsigned seed = 7;
	char *text = malloc(20001);
	/* Lines over every limit, then noise of the characters that matter. */
	memset(text, 'a', 20000);
	text[20000] = 0;
	assert_int_equal(users_resolve("a", text, text, &u, NULL), -1);
	memset(text, ':', 20000);
	assert_int_equal(users_resolve("a", text, text, &u, NULL), -1);
	for (int round = 0; round < 300; round++) {
		for (int i = 0; i < 2000; i++)
			text[i] = "ab:0,1\n#"[(unsigned)rand_r(&seed) % 8];
		text[2000] = 0;
		users_resolve("a:b", text, text, &u, NULL);
		users_resolve("", text, text, &u, NULL);
		assert_true(u.n_groups <= GUEST_MAX_GROUPS);
	}
	free(text);
}

static void memberships_are_bounded(void **state)
{
	struct guest_user u;
	char *text = malloc(100000);
	size_t n = 0;
	for (int i = 0; i < 1000; i++)
		n += (size_t)sprintf(text + n, "g%d:x:%d:web\n", i, 2000 + i);
	assert_int_equal(users_resolve("web", passwd, text, &u, NULL), 0);
	assert_int_equal(u.n_groups, GUEST_MAX_GROUPS);
	free(text);
}

static void the_root_disk_is_recognised_by_its_magic_number(void **state)
{
	unsigned char block[2048] = {0};
	assert_null(rootfs_detect(block));
	store_le32(block + 1024, 0xe0f5e1e2);
	assert_string_equal(rootfs_detect(block), "erofs");
	memset(block, 0, sizeof(block));
	store_le16(block + 1024 + 56, 0xef53);
	assert_string_equal(rootfs_detect(block), "ext4");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_user_is_found_by_name_number_and_with_group),
		cmocka_unit_test(an_image_without_files_still_has_root_and_numbers),
		cmocka_unit_test(hostile_files_are_survived),
		cmocka_unit_test(memberships_are_bounded),
		cmocka_unit_test(the_root_disk_is_recognised_by_its_magic_number),
	};
	return cmocka_run_group_tests_name("users and disks of the guest", tests, NULL, NULL);
}
