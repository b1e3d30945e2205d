/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest knows of a shared directory, out of one server and into another. */
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
#include "virtio/fs.h"

/* The device and the server are built apart. */
_Static_assert(FS_OP_SAVE == VIRTIO_FS_OP_SAVE && FS_OP_LOAD == VIRTIO_FS_OP_LOAD && FS_LOAD_FIRST == VIRTIO_FS_LOAD_FIRST &&
		       FS_LOAD_LAST == VIRTIO_FS_LOAD_LAST && FS_MAX_MESSAGE == VIRTIO_FS_MAX_MESSAGE,
	       "two headers describe one protocol");

/* The whole state, part by part, each behind its length. */
static size_t save_state(uint8_t *to)
{
	size_t n = 0;
	uint64_t at = 0;
	do {
		begin(FS_OP_SAVE, at);
		assert_int_equal(end(), 0);
		const uint8_t *p = body(8);
		uint32_t len = (uint32_t)(reply_len - sizeof(struct fuse_out_header) - 8);
		at = load_le64(p);
		store_le32(to + n, len);
		memcpy(to + n + 4, p + 8, len);
		n += 4 + len;
	} while (at);
	return n;
}

static int load_state(const uint8_t *from, size_t n)
{
	for (size_t at = 0; at < n;) {
		uint32_t len = load_le32(from + at);
		begin(FS_OP_LOAD, (at ? 0 : FS_LOAD_FIRST) | (at + 4 + len == n ? FS_LOAD_LAST : 0));
		put(from + at + 4, len);
		int r = end();
		if (r < 0)
			return r;
		at += 4 + len;
	}
	return 0;
}

static void another_server_goes_on_with_open_files(void **state)
{
	static uint8_t saved[4 << 20];
	struct fuse_mkdir_in mk = {.mode = 0755};
	struct fuse_attr a;
	uint64_t id, fh, gone, gone_fh, moved, moved_fh;
	unsigned before = open_fds();
	assert_int_equal(ask(FUSE_MKDIR, 1, &mk, sizeof(mk), "d", NULL), 0);
	uint64_t dir = entry().nodeid;
	assert_int_equal(create(dir, "f", O_RDWR, &id, &fh), 0);
	assert_int_equal(write_at(id, fh, 0, "before", 6, 0), 6);
	assert_int_equal(create(1, "gone", O_RDWR, &gone, &gone_fh), 0);
	assert_int_equal(ask(FUSE_UNLINK, 1, "", 0, "gone", NULL), 0);
	assert_int_equal(create(1, "moved", O_RDWR, &moved, &moved_fh), 0);
	struct fuse_open_in op = {0};
	assert_int_equal(ask(FUSE_OPENDIR, dir, &op, sizeof(op), NULL, NULL), 0);
	uint64_t dir_fh = ((const struct fuse_open_out *)body(16))->fh;
	/* Several parts. */
	for (unsigned i = 0; i < 6000; i++) {
		char name[64];
		snprintf(name, sizeof(name), "a file with quite a long name %u", i);
		host_file(name, "");
		must_find(1, name);
	}
	uint64_t last = must_find(1, "a file with quite a long name 5999");
	forget(dir, 1); /* stays as a parent */
	size_t n = save_state(saved);
	assert_true(n > 300000);
	rename(at("moved"), at("elsewhere"));

	start(false, 100000, 1024);
	assert_int_equal(get_attr(id, &a), -ESTALE);
	assert_int_equal(load_state(saved, n), 0);
	assert_int_equal(read_at(id, fh, 0, 100), 6);
	assert_memory_equal(body(6), "before", 6);
	assert_int_equal(get_attr(id, &a), 0);
	assert_int_equal(get_attr(last, &a), 0);
	assert_int_equal(get_attr(dir, &a), -ESTALE); /* forgotten then, forgotten now */
	assert_true(must_find(1, "d") == dir && must_find(dir, "f") == id);
	struct fuse_read_in in = {.fh = dir_fh, .size = 4096};
	assert_int_equal(ask(FUSE_READDIR, dir, &in, sizeof(in), NULL, NULL), 0);
	assert_int_equal(read_at(gone, gone_fh, 0, 10), -EBADF);
	assert_int_equal(read_at(moved, moved_fh, 0, 10), -EBADF);
	assert_int_equal(get_attr(moved, &a), -ESTALE);
	assert_true(must_find(1, "elsewhere") == moved);
	/* New ones do not collide with old ones. */
	uint64_t id2, fh2;
	assert_int_equal(create(1, "new", O_RDWR, &id2, &fh2), 0);
	assert_true(id2 != id && id2 != last && fh2 != fh);
	assert_int_equal(release(FUSE_RELEASE, id, fh), 0);

	/* A server of a read-only directory opens nothing for writing. */
	start(true, 100000, 1024);
	assert_int_equal(load_state(saved, n), 0);
	assert_int_equal(read_at(id, fh, 0, 100), -EBADF);
	/* Too many inodes. */
	start(false, 100, 1024);
	assert_int_equal(load_state(saved, n), -EINVAL);
	assert_true(must_find(1, "d") > 0);
	start(false, 100000, 1024);
	assert_true(open_fds() <= before + 8);
}

static void a_hostile_state_is_refused(void **state)
{
	static uint8_t saved[1 << 20];
	struct fuse_attr a;
	mkdir(at("d"), 0755);
	host_file("d/f", "x");
	uint64_t d = must_find(1, "d"), f = must_find(d, "f"), fh;
	assert_int_equal(open_node(f, O_RDWR, &fh, NULL), 0);
	size_t n = save_state(saved);
	assert_true(load_le32(saved) + 4 == n); /* one part */
	/* cut anywhere but between records */
	unsigned good = 0;
	for (uint32_t k = 0; k < n - 4; k++) {
		begin(FS_OP_LOAD, FS_LOAD_FIRST | FS_LOAD_LAST);
		put(saved + 4, k);
		good += end() == 0;
	}
	assert_int_equal(good, 4); /* nothing, the root, and two inodes */
	/* any byte changed: whatever happens, the server works, and knows nothing outside */
	for (uint32_t k = 4; k < n; k++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			saved[k] ^= (uint8_t)(1u << bit);
			load_state(saved, n);
			saved[k] ^= (uint8_t)(1u << bit);
			get_attr(f, &a);
			get_attr(d, &a);
			assert_int_equal(get_attr(1, &a), 0);
			assert_true(must_find(must_find(1, "d"), "f") > 0);
		}
	}
	/* parents in a circle: d below itself */
	for (uint32_t k = 4; k + 17 < n; k++) {
		if (saved[k] != 'I' || load_le64(saved + k + 1) != d)
			continue;
		store_le64(saved + k + 9, d);
		assert_int_equal(load_state(saved, n), 0);
		assert_int_equal(get_attr(d, &a), -ESTALE);
		assert_true(must_find(1, "d") == d);
		assert_int_equal(get_attr(f, &a), 0);
		break;
	}
	/* a part without a first one */
	begin(FS_OP_LOAD, FS_LOAD_LAST);
	assert_int_equal(end(), -EINVAL);
	/* a request in between ends the load */
	begin(FS_OP_LOAD, FS_LOAD_FIRST);
	put(saved + 4, n - 4);
	assert_int_equal(end(), 0);
	assert_int_equal(get_attr(f, &a), -ESTALE);
	begin(FS_OP_LOAD, FS_LOAD_LAST);
	assert_int_equal(end(), -EINVAL);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(another_server_goes_on_with_open_files),
		T(a_hostile_state_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
