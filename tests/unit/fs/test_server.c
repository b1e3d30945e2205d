/* SPDX-License-Identifier: Apache-2.0 */
/* The FUSE server on a temporary directory, asked by hand as a guest's kernel would, and as none would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/util.h"
#include "guest.h"

static void init_agrees_on_what_both_have(void **state)
{
	struct fuse_init_in in = {.major = 7, .minor = 41, .max_readahead = 131072, .flags = ~0u};
	assert_int_equal(ask(FUSE_INIT, 0, &in, sizeof(in), NULL, NULL), 0);
	const struct fuse_init_out *o = body(sizeof(*o));
	assert_int_equal(o->major, 7);
	assert_int_equal(o->max_write, 1 << 20);
	assert_int_equal(o->max_pages, 256);
	assert_true(o->flags & FUSE_DO_READDIRPLUS && !(o->flags & FUSE_POSIX_ACL) && !(o->flags & FUSE_WRITEBACK_CACHE));
	in.major = 6;
	assert_int_equal(ask(FUSE_INIT, 0, &in, sizeof(in), NULL, NULL), -EPROTO);
	assert_int_equal(ask(FUSE_INIT, 0, &in, 8, NULL, NULL), -EINVAL);
}

static void a_file_is_made_written_read_and_seen_on_the_host(void **state)
{
	uint64_t id, fh;
	struct fuse_attr a;
	char got[16] = {0};
	assert_int_equal(create(1, "f", O_RDWR, &id, &fh), 0);
	assert_int_equal(write_at(id, fh, 0, "hello", 5, 0), 5);
	assert_int_equal(read_at(id, fh, 1, 100), 4);
	assert_memory_equal(body(4), "ello", 4);
	int fd = open(at("f"), O_RDONLY);
	assert_int_equal(read(fd, got, sizeof(got)), 5);
	close(fd);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(a.size, 5);
	assert_int_equal(a.mode, S_IFREG | 0644);
	assert_int_equal(release(FUSE_RELEASE, id, fh), 0);
	assert_int_equal(release(FUSE_RELEASE, id, fh), -EBADF);
	assert_int_equal(read_at(id, fh, 0, 1), -EBADF);
	assert_int_equal(create(1, "f", O_RDWR | O_EXCL, &id, &fh), -EEXIST);
	assert_int_equal(create(1, "f", O_RDWR | O_TRUNC, &id, &fh), 0);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(a.size, 0);
}

static void a_files_name_is_asked_for_every_time(void **state)
{
	uint64_t id, fh;
	struct fuse_mkdir_in mk = {.mode = 0755};
	host_file("f", "text");
	must_find(1, "f");
	assert_true(!entry().entry_valid && !entry().entry_valid_nsec && entry().attr_valid_nsec == 10000000);
	assert_int_equal(create(1, "g", O_RDWR, &id, &fh), 0);
	assert_true(!entry().entry_valid && !entry().entry_valid_nsec);
	assert_int_equal(ask(FUSE_MKDIR, 1, &mk, sizeof(mk), "d", NULL), 0);
	assert_true(!entry().entry_valid && entry().entry_valid_nsec == 10000000);
}

static void appending_goes_to_the_end_that_the_host_knows(void **state)
{
	uint64_t id, fh;
	struct fuse_attr a;
	assert_int_equal(create(1, "log", O_WRONLY | O_APPEND, &id, &fh), 0);
	assert_int_equal(write_at(id, fh, 0, "aa", 2, O_APPEND), 2);
	host_file("log", "from the host");
	assert_int_equal(write_at(id, fh, 2, "bb", 2, O_APPEND), 2);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(a.size, 15);
	assert_int_equal(write_at(id, fh, 0, "X", 1, 0), 1);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(a.size, 15);
}

static void names_that_could_lead_elsewhere_are_refused(void **state)
{
	static const char *const bad[] = {"", ".", "..", "/", "a/b", "../x", "/etc/passwd", "..\\", NULL};
	host_file("x", "inside");
	for (unsigned i = 0; bad[i]; i++) {
		struct fuse_mkdir_in mk = {.mode = 0755};
		struct fuse_rename_in rn = {.newdir = 1};
		uint64_t id, fh;
		int want = strcmp(bad[i], "..\\") ? -EINVAL : -ENOENT; /* the last is a name like any other */
		assert_int_equal(look_up(1, bad[i]), want);
		if (want == -ENOENT)
			continue;
		assert_int_equal(ask(FUSE_MKDIR, 1, &mk, sizeof(mk), bad[i], NULL), want);
		assert_int_equal(ask(FUSE_UNLINK, 1, "", 0, bad[i], NULL), want);
		assert_int_equal(ask(FUSE_RMDIR, 1, "", 0, bad[i], NULL), want);
		assert_int_equal(ask(FUSE_SYMLINK, 1, "", 0, bad[i], "t"), want);
		assert_int_equal(ask(FUSE_RENAME, 1, &rn, sizeof(rn), "x", bad[i]), want);
		assert_int_equal(ask(FUSE_RENAME, 1, &rn, sizeof(rn), bad[i], "y"), want);
		assert_int_equal(create(1, bad[i], O_RDWR, &id, &fh), want);
	}
	char longest[300];
	memset(longest, 'n', sizeof(longest));
	longest[256] = 0;
	assert_int_equal(look_up(1, longest), -ENAMETOOLONG);
	/* no end */
	begin(FUSE_LOOKUP, 1);
	put("abc", 3);
	assert_int_equal(end(), -EINVAL);
}

static void links_are_never_followed(void **state)
{
	uint64_t fh;
	char secret[128], link[128];
	snprintf(secret, sizeof(secret), "%s/secret", top);
	int fd = open(secret, O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_int_equal(symlink(secret, at("out")), 0);
	assert_int_equal(symlink(top, at("outdir")), 0);
	uint64_t out = must_find(1, "out"), dir = must_find(1, "outdir");
	assert_int_equal(open_node(out, O_RDONLY, &fh, NULL), -ELOOP);
	assert_int_equal(look_up(dir, "secret"), -ENOTDIR);
	struct fuse_open_in in = {0};
	assert_int_equal(ask(FUSE_OPENDIR, dir, &in, sizeof(in), NULL, NULL), -ENOTDIR);
	uint64_t id;
	assert_int_equal(create(1, "out", O_RDWR, &id, &fh), -EEXIST);
	struct fuse_setattr_in sa = {.valid = FATTR_MODE, .mode = 0777};
	assert_int_equal(ask(FUSE_SETATTR, out, &sa, sizeof(sa), NULL, NULL), -EOPNOTSUPP);
	sa = (struct fuse_setattr_in){.valid = FATTR_SIZE, .size = 5};
	assert_int_equal(ask(FUSE_SETATTR, out, &sa, sizeof(sa), NULL, NULL), -EINVAL);
	sa = (struct fuse_setattr_in){.valid = FATTR_MTIME, .mtime = 5};
	assert_int_equal(ask(FUSE_SETATTR, out, &sa, sizeof(sa), NULL, NULL), 0); /* the link's own */
	struct stat st;
	assert_int_equal(stat(secret, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_not_equal(st.st_mtime, 5);
	assert_int_equal(ask(FUSE_READLINK, out, "", 0, NULL, NULL), 0);
	snprintf(link, sizeof(link), "%s", secret);
	assert_memory_equal(body(strlen(link)), link, strlen(link));
	/* A hard link of the link is the link. */
	struct fuse_link_in li = {.oldnodeid = out};
	assert_int_equal(ask(FUSE_LINK, 1, &li, sizeof(li), "again", NULL), 0);
	assert_int_equal(lstat(at("again"), &st), 0);
	assert_true(S_ISLNK(st.st_mode));
}

static void a_directory_replaced_by_a_link_is_not_walked_through(void **state)
{
	mkdir(at("d"), 0755);
	mkdir(at("d/e"), 0755);
	uint64_t d = must_find(1, "d"), e = must_find(d, "e");
	char victim[128];
	snprintf(victim, sizeof(victim), "%s/e", top);
	mkdir(victim, 0755);
	snprintf(victim, sizeof(victim), "%s/e/secret", top);
	close(open(victim, O_CREAT | O_WRONLY, 0600));
	/* Make the server close its descriptors, then move the directory away. */
	for (unsigned i = 0; i < 600; i++) {
		char name[16];
		snprintf(name, sizeof(name), "f%u", i);
		host_file(name, "");
		struct fuse_attr a;
		uint64_t fh, id = must_find(1, name);
		assert_int_equal(open_node(id, O_RDONLY, &fh, NULL), 0);
		release(FUSE_RELEASE, id, fh);
		get_attr(id, &a);
	}
	rename(at("d"), at("d.old"));
	assert_int_equal(symlink(top, at("d")), 0);
	assert_int_equal(look_up(e, "secret"), -ESTALE);
	assert_int_equal(look_up(d, "e"), -ESTALE);
	/* Found again where it is now. */
	assert_true(must_find(1, "d.old") == d);
	assert_true(must_find(d, "e") == e);
}

static void hostile_nodes_and_handles_are_refused(void **state)
{
	static const uint64_t wrong[] = {0, 2, 3, 0xffffffff, 1ull << 32 | 1, 1ull << 63, UINT64_MAX, 1ull << 32, 2ull << 32 | 255};
	uint64_t id, fh;
	struct fuse_attr a;
	for (unsigned i = 0; i < ARRAY_LEN(wrong); i++) {
		assert_int_equal(get_attr(wrong[i], &a), -ESTALE);
		assert_int_equal(look_up(wrong[i], "x"), -ESTALE);
		assert_int_equal(read_at(1, wrong[i], 0, 10), -EBADF);
		struct fuse_forget_in fo = {.nlookup = UINT64_MAX};
		ask(FUSE_FORGET, wrong[i], &fo, sizeof(fo), NULL, NULL);
	}
	assert_int_equal(create(1, "f", O_RDWR, &id, &fh), 0);
	for (unsigned i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(write_at(id, fh + wrong[i] + (wrong[i] == 0), 0, "x", 1, 0), -EBADF);
	/* a file's handle is not a directory's */
	struct fuse_read_in in = {.fh = fh, .size = 4096};
	assert_int_equal(ask(FUSE_READDIR, 1, &in, sizeof(in), NULL, NULL), -EBADF);
	forget(id, 1);
	assert_int_equal(get_attr(id, &a), -ESTALE);
	/* The handle outlives the node. */
	assert_int_equal(write_at(1, fh, 0, "x", 1, 0), 1);
	assert_int_equal(release(FUSE_RELEASE, 1, fh), 0);
	/* the root is never forgotten */
	forget(1, UINT64_MAX);
	assert_int_equal(get_attr(1, &a), 0);
}

static void requests_cut_anywhere_are_refused(void **state)
{
	uint64_t id, fh;
	assert_int_equal(create(1, "f", O_RDWR, &id, &fh), 0);
	for (uint32_t op = 0; op < 60; op++) {
		for (size_t n = 0; n < 72; n++) {
			begin(op, id);
			uint8_t junk[72];
			memset(junk, (int)(op * 7 + n), sizeof(junk));
			put(junk, n);
			if (op != FUSE_INIT && op != FUSE_DESTROY)
				end();
		}
	}
	/* a length that is not the message's */
	struct fuse_in_header wrong = {.len = 55, .opcode = FUSE_GETATTR, .nodeid = 1};
	uint8_t h[56] = {0};
	memcpy(h, &wrong, sizeof(wrong));
	reply_len = fs_server_handle(s, h, sizeof(h), reply);
	assert_int_equal(((struct fuse_out_header *)(void *)reply)->error, -EINVAL);
	assert_int_equal(fs_server_handle(s, h, 39, reply), 0);
}

static void deleted_files_live_while_they_are_used(void **state)
{
	uint64_t id, fh, id2, fh2;
	struct fuse_attr a;
	assert_int_equal(create(1, "f", O_RDWR, &id, &fh), 0);
	assert_int_equal(ask(FUSE_UNLINK, 1, "", 0, "f", NULL), 0);
	assert_int_equal(write_at(id, fh, 0, "hello", 5, 0), 5);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(a.nlink, 0);
	assert_int_equal(open_node(id, O_RDONLY, &fh2, NULL), 0);
	assert_int_equal(read_at(id, fh2, 0, 10), 5);
	assert_int_equal(release(FUSE_RELEASE, id, fh), 0);
	assert_int_equal(release(FUSE_RELEASE, id, fh2), 0);
	assert_int_equal(look_up(1, "f"), -ENOENT);
	/* The same name, another file. */
	assert_int_equal(create(1, "f", O_RDWR, &id2, &fh2), 0);
	assert_true(id2 != id);
	/* Replaced by a rename: the same. */
	uint64_t id3, fh3;
	assert_int_equal(create(1, "g", O_RDWR, &id3, &fh3), 0);
	struct fuse_rename2_in rn = {.newdir = 1};
	assert_int_equal(ask(FUSE_RENAME2, 1, &rn, sizeof(rn), "g", "f"), 0);
	assert_int_equal(get_attr(id2, &a), 0);
	assert_int_equal(a.nlink, 0);
	assert_true(must_find(1, "f") == id3);
}

static void renames_move_whole_trees(void **state)
{
	struct fuse_mkdir_in mk = {.mode = 0755};
	struct fuse_attr a;
	uint64_t id, fh;
	assert_int_equal(ask(FUSE_MKDIR, 1, &mk, sizeof(mk), "a", NULL), 0);
	uint64_t dir_a = entry().nodeid;
	assert_int_equal(ask(FUSE_MKDIR, dir_a, &mk, sizeof(mk), "b", NULL), 0);
	uint64_t b = entry().nodeid;
	assert_int_equal(create(b, "f", O_RDWR, &id, &fh), 0);
	release(FUSE_RELEASE, id, fh);
	struct fuse_rename2_in rn = {.newdir = 1};
	assert_int_equal(ask(FUSE_RENAME2, dir_a, &rn, sizeof(rn), "b", "c"), 0);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(open_node(id, O_RDONLY, &fh, NULL), 0);
	release(FUSE_RELEASE, id, fh);
	rn.flags = RENAME_EXCHANGE;
	assert_int_equal(ask(FUSE_RENAME2, 1, &rn, sizeof(rn), "a", "c"), 0);
	assert_true(must_find(1, "a") == b && must_find(1, "c") == dir_a);
	rn.flags = RENAME_NOREPLACE;
	assert_int_equal(ask(FUSE_RENAME2, 1, &rn, sizeof(rn), "a", "c"), -EEXIST);
	rn.flags = RENAME_WHITEOUT;
	assert_int_equal(ask(FUSE_RENAME2, 1, &rn, sizeof(rn), "a", "d"), -EINVAL);
	rn = (struct fuse_rename2_in){.newdir = b};
	assert_int_equal(ask(FUSE_RENAME2, 1, &rn, sizeof(rn), "a", "in-itself"), -EINVAL);
	rn.newdir = id;
	assert_int_equal(ask(FUSE_RENAME2, 1, &rn, sizeof(rn), "a", "in-a-file"), -ENOTDIR);
}

static void what_the_host_moves_into_a_circle_does_no_harm(void **state)
{
	struct fuse_attr a;
	mkdir(at("a"), 0755);
	mkdir(at("a/b"), 0755);
	uint64_t ia = must_find(1, "a"), ib = must_find(ia, "b");
	/* b becomes a's parent, which the server learns through b, whose place it has not looked at again. */
	rename(at("a/b"), at("b"));
	rename(at("a"), at("b/a"));
	assert_true(look_up(ib, "a") == (int64_t)ia || look_up(ib, "a") == -ESTALE);
	get_attr(ia, &a);
	get_attr(ib, &a);
	assert_true(must_find(1, "b") == ib);
	assert_true(must_find(ib, "a") == ia);
	assert_int_equal(get_attr(ia, &a), 0);
	forget(ia, 100);
	forget(ib, 100);
}

static void hard_links_are_one_file(void **state)
{
	uint64_t id, fh;
	struct fuse_attr a;
	assert_int_equal(create(1, "one", O_RDWR, &id, &fh), 0);
	struct fuse_link_in li = {.oldnodeid = id};
	assert_int_equal(ask(FUSE_LINK, 1, &li, sizeof(li), "two", NULL), 0);
	assert_true(entry().nodeid == id);
	assert_int_equal(entry().attr.nlink, 2);
	assert_int_equal(ask(FUSE_UNLINK, 1, "", 0, "one", NULL), 0);
	assert_true(must_find(1, "two") == id);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(a.nlink, 1);
}

static void directories_of_many_entries_are_read_whole(void **state)
{
	enum { N = 3000 };
	static uint8_t seen[N];
	char name[32];
	memset(seen, 0, sizeof(seen));
	mkdir(at("many"), 0755);
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "many/entry-%u", i);
		host_file(name, "");
	}
	uint64_t dir = must_find(1, "many");
	for (int plus = 0; plus < 2; plus++) {
		struct fuse_open_in op = {0};
		assert_int_equal(ask(FUSE_OPENDIR, dir, &op, sizeof(op), NULL, NULL), 0);
		uint64_t fh = ((const struct fuse_open_out *)body(16))->fh;
		struct fuse_read_in in = {.fh = fh, .size = plus ? 4096 : 1000};
		unsigned dots = 0, count = 0;
		for (;;) {
			assert_int_equal(ask(plus ? FUSE_READDIRPLUS : FUSE_READDIR, dir, &in, sizeof(in), NULL, NULL), 0);
			size_t n = reply_len - sizeof(struct fuse_out_header), pos = 0;
			assert_true(n <= in.size);
			if (!n)
				break;
			while (pos < n) {
				const uint8_t *p = reply + sizeof(struct fuse_out_header) + pos;
				struct fuse_entry_out e = {0};
				struct fuse_dirent de;
				if (plus)
					memcpy(&e, p, sizeof(e));
				p += plus ? sizeof(e) : 0;
				memcpy(&de, p, FUSE_NAME_OFFSET);
				snprintf(name, sizeof(name), "%.*s", (int)de.namelen, (const char *)p + FUSE_NAME_OFFSET);
				unsigned i;
				if (sscanf(name, "entry-%u", &i) == 1 && i < N) {
					assert_int_equal(seen[i], plus);
					seen[i]++;
					count++;
					assert_true(!plus || (e.nodeid && e.attr.mode == (S_IFREG | 0644)));
				} else {
					dots++;
					assert_int_equal(e.nodeid, 0);
				}
				in.offset = de.off;
				pos += FUSE_DIRENT_ALIGN((plus ? sizeof(e) : 0) + FUSE_NAME_OFFSET + de.namelen);
			}
			assert_int_equal(pos, n);
		}
		assert_int_equal(count, N);
		assert_int_equal(dots, 2);
		in.offset = UINT64_MAX;
		ask(FUSE_READDIR, dir, &in, sizeof(in), NULL, NULL);
		in = (struct fuse_read_in){.fh = fh, .size = 1};
		assert_int_equal(ask(FUSE_READDIR, dir, &in, sizeof(in), NULL, NULL), -EINVAL);
		assert_int_equal(release(FUSE_RELEASEDIR, dir, fh), 0);
	}
}

static void attributes_are_set(void **state)
{
	uint64_t id, fh;
	struct fuse_attr a;
	assert_int_equal(create(1, "f", O_RDWR, &id, &fh), 0);
	struct fuse_setattr_in in = {.valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME | FATTR_ATIME, .mode = 0751, .size = 1000,
				     .mtime = 1000000000, .mtimensec = 7, .atime = 900000000};
	assert_int_equal(ask(FUSE_SETATTR, id, &in, sizeof(in), NULL, NULL), 0);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(a.mode & 07777, 0751);
	assert_int_equal(a.size, 1000);
	assert_int_equal(a.mtime, 1000000000);
	assert_int_equal(a.mtimensec, 7);
	assert_int_equal(a.atime, 900000000);
	in = (struct fuse_setattr_in){.valid = FATTR_SIZE | FATTR_FH, .size = 10, .fh = fh};
	assert_int_equal(ask(FUSE_SETATTR, id, &in, sizeof(in), NULL, NULL), 0);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(a.size, 10);
	in.size = UINT64_MAX;
	assert_int_equal(ask(FUSE_SETATTR, id, &in, sizeof(in), NULL, NULL), -EFBIG);
	in = (struct fuse_setattr_in){.valid = FATTR_MTIME, .mtimensec = UTIME_NOW};
	assert_int_equal(ask(FUSE_SETATTR, id, &in, sizeof(in), NULL, NULL), 0);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(a.mtime, 0);
	assert_int_equal(ask(FUSE_STATFS, 1, "", 0, NULL, NULL), 0);
	assert_true(((const struct fuse_statfs_out *)body(sizeof(struct fuse_statfs_out)))->st.namelen >= 255);
}

static int set_xattr(uint64_t id, const char *name, const char *value)
{
	uint32_t in[2] = {(uint32_t)strlen(value), 0};
	begin(FUSE_SETXATTR, id);
	put(in, 8);
	put_name(name);
	put(value, in[0]);
	return end();
}

static void only_user_attributes_pass(void **state)
{
	uint64_t id, fh;
	assert_int_equal(create(1, "f", O_RDWR, &id, &fh), 0);
	if (setxattr(at("f"), "user.probe", "x", 1, 0) < 0) {
		print_message("skipped: /tmp has no user attributes\n");
		return;
	}
	removexattr(at("f"), "user.probe");
	assert_int_equal(set_xattr(id, "user.a", "value"), 0);
	assert_int_equal(set_xattr(id, "security.capability", "value"), -EOPNOTSUPP);
	assert_int_equal(set_xattr(id, "trusted.overlay.opaque", "y"), -EOPNOTSUPP);
	assert_int_equal(set_xattr(id, "system.posix_acl_access", "y"), -EOPNOTSUPP);
	struct fuse_getxattr_in in = {.size = 0};
	assert_int_equal(ask(FUSE_GETXATTR, id, &in, sizeof(in), "user.a", NULL), 0);
	assert_int_equal(((const struct fuse_getxattr_out *)body(8))->size, 5);
	in.size = 100;
	assert_int_equal(ask(FUSE_GETXATTR, id, &in, sizeof(in), "user.a", NULL), 0);
	assert_memory_equal(body(5), "value", 5);
	in.size = 2;
	assert_int_equal(ask(FUSE_GETXATTR, id, &in, sizeof(in), "user.a", NULL), -ERANGE);
	in.size = 100;
	assert_int_equal(ask(FUSE_LISTXATTR, id, &in, sizeof(in), NULL, NULL), 0);
	assert_memory_equal(body(7), "user.a", 7);
	assert_int_equal(reply_len, sizeof(struct fuse_out_header) + 7);
	assert_int_equal(ask(FUSE_REMOVEXATTR, id, "", 0, "user.a", NULL), 0);
	assert_int_equal(ask(FUSE_GETXATTR, id, &in, sizeof(in), "user.a", NULL), -ENODATA);
	/* a size that the message does not have */
	uint32_t lie[2] = {1000, 0};
	begin(FUSE_SETXATTR, id);
	put(lie, 8);
	put_name("user.b");
	assert_int_equal(end(), -EINVAL);
}

static void devices_are_not_made_nor_opened(void **state)
{
	struct fuse_mknod_in in = {.mode = S_IFCHR | 0666, .rdev = 0x103};
	uint64_t fh;
	assert_int_equal(ask(FUSE_MKNOD, 1, &in, sizeof(in), "null", NULL), -EPERM);
	in.mode = S_IFBLK | 0666;
	assert_int_equal(ask(FUSE_MKNOD, 1, &in, sizeof(in), "disk", NULL), -EPERM);
	in.mode = S_IFIFO | 0666;
	assert_int_equal(ask(FUSE_MKNOD, 1, &in, sizeof(in), "fifo", NULL), 0);
	assert_int_equal(open_node(must_find(1, "fifo"), O_RDONLY, &fh, NULL), -EPERM);
	in.mode = S_IFREG | 0600;
	assert_int_equal(ask(FUSE_MKNOD, 1, &in, sizeof(in), "file", NULL), 0);
}

static void a_read_only_share_changes_nothing(void **state)
{
	uint64_t fh, id;
	struct fuse_attr a;
	host_file("f", "text");
	start(true, 1000, 256);
	id = must_find(1, "f");
	assert_int_equal(open_node(id, O_RDWR, &fh, NULL), -EROFS);
	assert_int_equal(open_node(id, O_RDONLY | O_TRUNC, &fh, NULL), -EROFS);
	assert_int_equal(create(1, "g", O_RDWR, &id, &fh), -EROFS);
	static const uint32_t ops[] = {FUSE_SETATTR, FUSE_SYMLINK, FUSE_MKNOD,       FUSE_MKDIR,     FUSE_UNLINK,    FUSE_RMDIR,          FUSE_RENAME,
				       FUSE_LINK,    FUSE_WRITE,   FUSE_SETXATTR,    FUSE_FALLOCATE, FUSE_RENAME2,   FUSE_COPY_FILE_RANGE, FUSE_REMOVEXATTR};
	for (unsigned i = 0; i < ARRAY_LEN(ops); i++)
		assert_int_equal(ask(ops[i], 1, "", 0, NULL, NULL), -EROFS);
	id = must_find(1, "f");
	assert_int_equal(open_node(id, O_RDONLY, &fh, NULL), 0);
	assert_int_equal(read_at(id, fh, 0, 100), 4);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(a.size, 4);
}

static void descriptors_and_inodes_are_bounded(void **state)
{
	enum { FILES = 2000 };
	static uint64_t ids[FILES];
	char name[32];
	struct fuse_attr a;
	unsigned before = open_fds();
	start(false, FILES + 100, 256);
	for (unsigned i = 0; i < FILES; i++) {
		struct fuse_mknod_in in = {.mode = S_IFREG | 0600};
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(ask(FUSE_MKNOD, 1, &in, sizeof(in), name, NULL), 0);
		ids[i] = entry().nodeid;
		uint64_t fh;
		assert_int_equal(open_node(ids[i], O_RDWR, &fh, NULL), 0);
		assert_int_equal(write_at(ids[i], fh, 0, name, (uint32_t)strlen(name), 0), strlen(name));
		assert_int_equal(release(FUSE_RELEASE, ids[i], fh), 0);
	}
	assert_true(open_fds() <= before + 256);
	/* Those whose descriptor was closed are found again, and are what they were. */
	for (unsigned i = 0; i < FILES; i++) {
		uint64_t fh;
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(open_node(ids[i], O_RDONLY, &fh, NULL), 0);
		assert_int_equal(read_at(ids[i], fh, 0, 100), strlen(name));
		assert_memory_equal(body(1), name, strlen(name));
		release(FUSE_RELEASE, ids[i], fh);
	}
	/* One handle too many. */
	uint64_t fh[256];
	unsigned n = 0;
	while (n < 256 && open_node(ids[n], O_RDONLY, &fh[n], NULL) == 0)
		n++;
	assert_true(n >= 16 && n < 128);
	assert_int_equal(open_node(ids[0], O_RDONLY, &fh[n], NULL), -ENFILE);
	while (n--)
		release(FUSE_RELEASE, ids[n], fh[n]);
	/* Deleted but not forgotten: the last ones are gone, nothing else suffers. */
	for (unsigned i = 0; i < FILES / 2; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(ask(FUSE_UNLINK, 1, "", 0, name, NULL), 0);
	}
	assert_true(open_fds() <= before + 256);
	assert_int_equal(get_attr(ids[0], &a), 0);
	assert_int_equal(get_attr(ids[FILES - 1], &a), 0);
	/* Too many inodes. */
	for (unsigned i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "g%u", i);
		host_file(name, "");
		int64_t r = look_up(1, name);
		assert_true(i < 90 ? r > 0 : r > 0 || r == -ENFILE);
	}
	assert_int_equal(look_up(1, "g199"), -ENFILE);
	for (unsigned i = 0; i < FILES; i++)
		forget(ids[i], 1);
	assert_true(look_up(1, "g199") > 0);
	/* A new mount starts afresh. */
	struct fuse_init_in in = {.major = 7, .minor = 38};
	assert_int_equal(ask(FUSE_INIT, 0, &in, sizeof(in), NULL, NULL), 0);
	assert_int_equal(get_attr(ids[FILES - 1], &a), -ESTALE);
	assert_true(open_fds() <= before + 4);
}

static void pages_are_kept_while_nobody_writes(void **state)
{
	uint64_t id, fh;
	uint32_t flags;
	host_file("f", "text");
	/* Old enough for its time stamps to tell. */
	struct timespec old[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
	utimensat(AT_FDCWD, at("f"), old, 0);
	usleep(10000);
	id = must_find(1, "f");
	/* ctime cannot be set: what was just made is never kept. */
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(open_node(id, O_RDONLY, &fh, &flags), 0);
		release(FUSE_RELEASE, id, fh);
		assert_int_equal(flags & FOPEN_KEEP_CACHE, 0);
	}
	sleep(4);
	open_node(id, O_RDONLY, &fh, &flags);
	assert_int_equal(open_node(id, O_RDWR, &fh, &flags), 0);
	assert_int_equal(flags & FOPEN_KEEP_CACHE, FOPEN_KEEP_CACHE);
	assert_int_equal(write_at(id, fh, 0, "x", 1, 0), 1);
	open_node(id, O_RDONLY, &fh, &flags);
	assert_int_equal(flags & FOPEN_KEEP_CACHE, 0);
	sleep(4);
	open_node(id, O_RDONLY, &fh, &flags);
	open_node(id, O_RDONLY, &fh, &flags);
	assert_int_equal(flags & FOPEN_KEEP_CACHE, FOPEN_KEEP_CACHE);
	host_file("f", "changed");
	open_node(id, O_RDONLY, &fh, &flags);
	assert_int_equal(flags & FOPEN_KEEP_CACHE, 0);
}

static void holes_and_copies(void **state)
{
	uint64_t id, fh, id2, fh2;
	assert_int_equal(create(1, "f", O_RDWR, &id, &fh), 0);
	assert_int_equal(create(1, "g", O_RDWR, &id2, &fh2), 0);
	struct fuse_fallocate_in fa = {.fh = fh, .offset = 0, .length = 100000};
	assert_int_equal(ask(FUSE_FALLOCATE, id, &fa, sizeof(fa), NULL, NULL), 0);
	fa.mode = 0x80;
	assert_int_equal(ask(FUSE_FALLOCATE, id, &fa, sizeof(fa), NULL, NULL), -EOPNOTSUPP);
	assert_int_equal(write_at(id, fh, 5, "data", 4, 0), 4);
	struct fuse_lseek_in ls = {.fh = fh, .offset = 0, .whence = SEEK_DATA};
	assert_int_equal(ask(FUSE_LSEEK, id, &ls, sizeof(ls), NULL, NULL), 0);
	ls.whence = SEEK_END;
	assert_int_equal(ask(FUSE_LSEEK, id, &ls, sizeof(ls), NULL, NULL), -EINVAL);
	struct fuse_copy_file_range_in cp = {.fh_in = fh, .off_in = 5, .nodeid_out = id2, .fh_out = fh2, .len = 4};
	assert_int_equal(ask(FUSE_COPY_FILE_RANGE, id, &cp, sizeof(cp), NULL, NULL), 0);
	assert_int_equal(read_at(id2, fh2, 0, 10), 4);
	assert_memory_equal(body(4), "data", 4);
	struct fuse_fsync_in fy = {.fh = fh};
	assert_int_equal(ask(FUSE_FSYNC, id, &fy, sizeof(fy), NULL, NULL), 0);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(init_agrees_on_what_both_have),
		T(a_file_is_made_written_read_and_seen_on_the_host),
		T(a_files_name_is_asked_for_every_time),
		T(appending_goes_to_the_end_that_the_host_knows),
		T(names_that_could_lead_elsewhere_are_refused),
		T(links_are_never_followed),
		T(a_directory_replaced_by_a_link_is_not_walked_through),
		T(hostile_nodes_and_handles_are_refused),
		T(requests_cut_anywhere_are_refused),
		T(deleted_files_live_while_they_are_used),
		T(renames_move_whole_trees),
		T(what_the_host_moves_into_a_circle_does_no_harm),
		T(hard_links_are_one_file),
		T(directories_of_many_entries_are_read_whole),
		T(attributes_are_set),
		T(only_user_attributes_pass),
		T(devices_are_not_made_nor_opened),
		T(a_read_only_share_changes_nothing),
		T(descriptors_and_inodes_are_bounded),
		T(pages_are_kept_while_nobody_writes),
		T(holes_and_copies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
