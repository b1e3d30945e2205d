/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tar archives in and out of a sandbox. TOP/in is where hostile archives are extracted; TOP/outside and everything else of TOP must
 * stay as it is, whatever they say. What tar(1) makes we read, what we make tar(1) reads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "guest/tar.h"

static char top[] = "/tmp/caisson-test-tar.XXXXXX";

static int __attribute__((format(printf, 1, 2))) sh(const char *fmt, ...)
{
	char command[4000];
	va_list ap;
	va_start(ap, fmt);
	int n = snprintf(command, sizeof(command), "cd %s && ", top);
	vsnprintf(command + n, sizeof(command) - (size_t)n, fmt, ap);
	va_end(ap);
	return system(command);
}

/* A source that gives its bytes in pieces of at most step. */
struct source {
	const uint8_t *p;
	size_t left, step;
};

static ssize_t give(void *ctx, void *buf, size_t n)
{
	struct source *s = ctx;
	n = n < s->left ? n : s->left;
	n = n < s->step ? n : s->step;
	memcpy(buf, s->p, n);
	s->p += n;
	s->left -= n;
	return (ssize_t)n;
}

static ssize_t give_file(void *ctx, void *buf, size_t n)
{
	return read(*(int *)ctx, buf, n);
}

static void add(struct buf *b, enum tar_type type, const char *name, const char *target, const char *data)
{
	const struct tar_entry e = {.type = type,
				    .name = name,
				    .target = target ? target : "",
				    .mode = type == TAR_DIR ? 0755 : 0644,
				    .uid = geteuid(),
				    .gid = getegid(),
				    .size = type == TAR_FILE && data ? strlen(data) : 0,
				    .mtime = 1000000000};
	static const uint8_t zero[TAR_BLOCK];
	tar_put_header(b, &e);
	if (e.size) {
		buf_put_bytes(b, data, e.size);
		buf_put_bytes(b, zero, tar_padding(e.size));
	}
}

static void finish(struct buf *b)
{
	static const uint8_t zero[TAR_END_SIZE];
	buf_put_bytes(b, zero, sizeof(zero));
	assert_false(b->failed);
}

/* Extracts into TOP/in. */
static int extract(const struct buf *b, struct cai_error *err)
{
	char path[100];
	struct source s = {.p = b->p, .left = b->len, .step = 700};
	const struct tar_in_options o = {0};
	snprintf(path, sizeof(path), "%s/in", top);
	cleanup_close int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	*err = (struct cai_error){.text = ""};
	return tar_in(dir, give, &s, &o, err);
}

static int fresh(void **state)
{
	assert_int_equal(sh("chmod -R u+rwx . ; rm -rf in outside src got t.tar; mkdir in outside outside/dir; echo secret >outside/file; ln -s dir outside/link"), 0);
	return 0;
}

static bool outside_untouched(void)
{
	return sh("test \"$(ls -A . | tr '\\n' ' ')\" = 'in outside ' && test \"$(find outside | sort | tr '\\n' ' ')\" = 'outside outside/dir outside/file "
		  "outside/link ' && test \"$(cat outside/file)\" = secret && test $(stat -c %%h outside/file) = 1 && test $(stat -c %%a outside) = 755") == 0;
}

static void archives_that_leave_the_directory_are_stopped(void **state)
{
	static const struct step {
		enum tar_type type;
		const char *name, *target, *data;
	} cases[][4] = {
		{{TAR_FILE, "../evil", NULL, "x"}},
		{{TAR_FILE, "a/../../evil", NULL, "x"}},
		{{TAR_FILE, "..", NULL, "x"}},
		{{TAR_DIR, "../evil/", NULL, NULL}},
		{{TAR_SYMLINK, "../evil", "x", NULL}},
		/* through a link that the archive made itself */
		{{TAR_SYMLINK, "l", "../outside", NULL}, {TAR_FILE, "l/evil", NULL, "x"}},
		{{TAR_SYMLINK, "l", "../outside", NULL}, {TAR_DIR, "l/evil", NULL, NULL}},
		{{TAR_SYMLINK, "l", "../outside", NULL}, {TAR_SYMLINK, "l/evil", "x", NULL}},
		{{TAR_SYMLINK, "l", "../outside", NULL}, {TAR_FIFO, "l/evil", NULL, NULL}},
		{{TAR_SYMLINK, "l", "../outside", NULL}, {TAR_DIR, "l", NULL, NULL}, {TAR_FILE, "l/evil", NULL, "x"}},
		{{TAR_SYMLINK, "a", ".", NULL}, {TAR_SYMLINK, "a/b", "..", NULL}, {TAR_FILE, "b/evil", NULL, "x"}},
		{{TAR_DIR, "d", NULL, NULL}, {TAR_SYMLINK, "d/up", "../..", NULL}, {TAR_FILE, "d/up/outside/file", NULL, "x"}},
		{{TAR_SYMLINK, "p", "/proc/self/cwd", NULL}, {TAR_FILE, "p/evil", NULL, "x"}},
		{{TAR_SYMLINK, "p", "/proc/self/root", NULL}, {TAR_FILE, "p/tmp/evil", NULL, "x"}},
		/* a hard link to what is outside, then written through */
		{{TAR_HARDLINK, "h", "../outside/file", NULL}, {TAR_FILE, "h", NULL, "x"}},
		{{TAR_HARDLINK, "h", "/../outside/file", NULL}},
		{{TAR_SYMLINK, "l", "../outside", NULL}, {TAR_HARDLINK, "h", "l/file", NULL}, {TAR_FILE, "h", NULL, "x"}},
		{{TAR_SYMLINK, "l", "../outside/file", NULL}, {TAR_HARDLINK, "l/x", "l", NULL}},
		/* a directory of the archive replaced by a link after it was used */
		{{TAR_FILE, "d/f", NULL, "x"}, {TAR_SYMLINK, "d", "../outside", NULL}, {TAR_FILE, "d/evil", NULL, "x"}},
		/* the directory itself */
		{{TAR_SYMLINK, ".", "../outside", NULL}},
		{{TAR_FILE, "./", NULL, "x"}, {TAR_FILE, "./.", NULL, "x"}, {TAR_FIFO, ".", NULL, NULL}},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = {0};
		struct cai_error err;
		fresh(NULL);
		for (size_t k = 0; k < 4 && cases[i][k].name; k++)
			add(&b, cases[i][k].type, cases[i][k].name, cases[i][k].target, cases[i][k].data);
		finish(&b);
		int rc = extract(&b, &err);
		if (rc != -1 || !err.text[0] || !outside_untouched())
			fail_msg("case %zu: %d \"%s\"", i, rc, err.text);
		buf_free(&b);
	}
}

static void links_may_point_anywhere_and_are_replaced_not_followed(void **state)
{
	struct buf b = {0};
	struct cai_error err;
	add(&b, TAR_SYMLINK, "abs", "/etc/passwd", NULL);
	add(&b, TAR_SYMLINK, "up", "../outside/file", NULL);
	add(&b, TAR_FILE, "up", NULL, "mine");         /* takes the link's place */
	add(&b, TAR_FILE, "one", NULL, "first");
	add(&b, TAR_HARDLINK, "two", "one", NULL);
	add(&b, TAR_FILE, "two", NULL, "second");       /* and not one's contents */
	add(&b, TAR_DIR, "real/", NULL, NULL);
	add(&b, TAR_SYMLINK, "inside", "real", NULL);
	add(&b, TAR_FILE, "inside/f", NULL, "through"); /* a link that stays inside may be gone through */
	add(&b, TAR_FILE, "/abs/../x", NULL, "no");
	finish(&b);
	assert_int_equal(extract(&b, &err), -1); /* only the last one is refused */
	assert_non_null(strstr(err.text, "would leave"));
	assert_int_equal(sh("test $(readlink in/abs) = /etc/passwd && test ! -L in/up && test $(cat in/up) = mine && test $(cat in/one) = first &&"
			    "test $(cat in/two) = second && test $(cat in/real/f) = through"),
			 0);
	assert_true(outside_untouched());
	buf_free(&b);

	b = (struct buf){0};
	fresh(NULL);
	add(&b, TAR_FILE, "/etc/x", NULL, "rooted"); /* a leading slash is dropped */
	add(&b, TAR_HARDLINK, "y", "/etc/x", NULL);
	add(&b, TAR_HARDLINK, "y", "/etc/x", NULL);
	finish(&b);
	assert_int_equal(extract(&b, &err), 0);
	assert_int_equal(sh("test $(cat in/etc/x) = rooted && test in/etc/x -ef in/y"), 0);
	buf_free(&b);
}

static void directories_and_others_never_replace_each_other(void **state)
{
	struct cai_error err;
	for (int i = 0; i < 3; i++) {
		struct buf b = {0};
		fresh(NULL);
		sh("mkdir in/d; echo kept >in/d/f; echo f >in/f; ln -s d in/l");
		add(&b, i == 0 ? TAR_FILE : TAR_DIR, i == 0 ? "d" : i == 1 ? "f" : "l", NULL, NULL);
		finish(&b);
		assert_int_equal(extract(&b, &err), -1);
		assert_non_null(strstr(err.text, "be replaced by"));
		assert_int_equal(sh("test $(cat in/d/f) = kept && test -f in/f && test -L in/l"), 0);
		buf_free(&b);
	}
	/* A directory that is there takes what is new, and its new mode. */
	struct buf b = {0};
	fresh(NULL);
	sh("mkdir -m 700 in/d; echo kept >in/d/f");
	add(&b, TAR_DIR, "d", NULL, NULL);
	add(&b, TAR_FILE, "d/g", NULL, "new");
	finish(&b);
	assert_int_equal(extract(&b, &err), 0);
	assert_int_equal(sh("test $(cat in/d/f) = kept && test $(cat in/d/g) = new && test $(stat -c '%%a %%Y' in/d | tr ' ' :) = 755:1000000000"), 0);
	buf_free(&b);
}

static void random_archives_of_links_never_leave_the_directory(void **state)
{
	static const char *const names[] = {"a", "b", "a/b", "b/a", "a/b/c", "c", "a/../b", "c/a", "./a", "a/..", "c/outside/file", "b/outside"};
	static const char *const targets[] = {"a", "b", "..", "../outside", ".", "/", "a/b", "../outside/file", "c", "/proc/self/cwd", "b/..", "c/file"};
	static const enum tar_type types[] = {TAR_FILE, TAR_HARDLINK, TAR_SYMLINK, TAR_SYMLINK, TAR_SYMLINK, TAR_DIR, TAR_FIFO};
	unsigned seed = 7;
	fresh(NULL);
	for (unsigned round = 0; round < 1500; round++) {
		struct buf b = {0};
		struct cai_error err;
		enum tar_type type = types[(unsigned)rand_r(&seed) % ARRAY_LEN(types)];
		/* One entry an archive, so that a refused one does not keep the others from being tried. */
		add(&b, type, names[(unsigned)rand_r(&seed) % ARRAY_LEN(names)], targets[(unsigned)rand_r(&seed) % ARRAY_LEN(targets)], "evil");
		finish(&b);
		int rc = extract(&b, &err);
		assert_true(rc == 0 || err.text[0]);
		buf_free(&b);
		if (round % 100 == 99) {
			assert_true(outside_untouched());
			fresh(NULL);
		}
	}
}

static void damaged_archives_are_refused_with_a_sentence(void **state)
{
	struct buf b = {0};
	struct cai_error err;
	add(&b, TAR_FILE, "f", NULL, "data");
	finish(&b);
	for (size_t cut = 0; cut < b.len - TAR_BLOCK; cut += cut < 1030 ? 103 : 511) {
		struct buf part = {.p = b.p, .len = cut};
		assert_int_equal(extract(&part, &err), -1);
		assert_non_null(strstr(err.text, "damaged"));
	}
	for (size_t at = 0; at < TAR_BLOCK; at += 7) { /* the checksum sees any single change */
		b.p[at] ^= 0x55;
		assert_int_equal(extract(&b, &err), -1);
		b.p[at] ^= 0x55;
	}
	buf_free(&b);
}

/* An extended header with the given records, or GNU's long name. */
static void add_special(struct buf *b, char type, const char *text, size_t n)
{
	static const uint8_t zero[TAR_BLOCK];
	size_t at = b->len;
	const struct tar_entry e = {.type = TAR_FILE, .name = "special", .target = "", .size = n};
	tar_put_header(b, &e);
	uint32_t sum = 0;
	b->p[at + 156] = (uint8_t)type;
	memset(b->p + at + 148, ' ', 8);
	for (unsigned i = 0; i < TAR_BLOCK; i++)
		sum += b->p[at + i];
	snprintf((char *)b->p + at + 148, 8, "%06o", sum);
	buf_put_bytes(b, text, n);
	buf_put_bytes(b, zero, tar_padding(n));
}

static void extended_headers_are_understood_or_refused(void **state)
{
	static const struct {
		char type;
		const char *text;
		size_t n;
		int rc;
		const char *check; /* a shell condition in TOP/in, or part of the sentence */
	} cases[] = {
		{'x', "13 path=long\n", 13, 0, "test -f long"},
		{'x', "12 path=dup\n13 path=last\n", 25, 0, "test -f last"},
		{'x', "19 path=\xc3\xa9t\xc3\xa9/deep\n", 19, 0, "test -f '\xc3\xa9t\xc3\xa9/deep'"},
		{'x', "27 mtime=1234567890.123456\n", 27, 0, "test $(stat -c %.6Y f) = 1234567890.123456"},
		{'x', "20 mtime=-1.2500000\n", 20, 0, "test $(stat -c %Y f) = -2"},
		{'x', "11 comment\n", 11, -1, "malformed"},
		{'x', "8 path=\n", 8, 0, "test -f f"},
		{'x', "99 path=long\n", 13, -1, "malformed"},
		{'x', "0 path=long\n", 12, -1, "malformed"},
		{'x', "13 path=long ", 13, -1, "malformed"},
		{'x', "path", 4, -1, "malformed"},
		{'x', "99999999999999999999 a=\n", 24, -1, "malformed"},
		{'x', "3 \n", 3, -1, "malformed"},
		{'x', "13 path=l\0ng\n", 13, -1, "zero byte"},
		{'x', "12 path=../\n", 12, -1, "would leave"},
		{'x', "11 size=-1\n", 11, -1, "number"},
		{'x', "29 size=99999999999999999999\n", 29, -1, "number"},
		{'x', "28 size=1000000000000000000\n", 28, -1, "middle"},
		{'x', "19 uid=99999999999\n", 19, -1, "out of range"},
		{'x', "18 uid=4294967295\n", 18, -1, "out of range"},
		{'x', "22 GNU.sparse.major=1\n", 22, -1, "sparse"},
		{'x', "12 mtime=x1\n", 12, -1, "number"},
		{'x', "13 mtime=1.x\n", 13, -1, "number"},
		{'g', "18 comment=global\n", 18, 0, "test -f f"},
		{'L', "gnu/long\0", 9, 0, "test -f gnu/long"},
		{'L', "../gnu", 6, -1, "would leave"},
		{'S', "", 0, -1, "sparse"},
		{'M', "", 0, -1, "type 0x4d"},
		{'V', "label", 5, 0, "test -f f"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = {0};
		struct cai_error err;
		fresh(NULL);
		add_special(&b, cases[i].type, cases[i].text, cases[i].n);
		add(&b, TAR_FILE, "f", NULL, NULL);
		finish(&b);
		int rc = extract(&b, &err);
		if (rc != cases[i].rc || (rc < 0 && !strstr(err.text, cases[i].check)))
			fail_msg("case %zu: %d \"%s\"", i, rc, err.text);
		if (rc == 0 && sh("cd in && %s", cases[i].check) != 0)
			fail_msg("case %zu: not so: %s", i, cases[i].check);
		buf_free(&b);
	}
	/* What is longer than any header needs to be is not even read. */
	struct buf b = {0};
	struct cai_error err;
	char *big = calloc(1, TAR_MAX_PAX + 1);
	add_special(&b, 'x', big, TAR_MAX_PAX + 1);
	assert_int_equal(extract(&b, &err), -1);
	assert_non_null(strstr(err.text, "too long"));
	free(big);
	buf_free(&b);
}

static const char make_tree[] =
	"rm -rf src got in; mkdir -p src/dir/sub src/empty got in && cd src && echo hello >dir/file && head -c 300000 /dev/urandom >dir/big && ln dir/file hard &&"
	"ln -s dir/file soft && ln -s /nowhere dangling && mkfifo pipe && chmod 4751 hard && chmod 1777 empty && chmod 500 dir/sub &&"
	"touch -d @1234567890 dir/big dir && : >nothing && : >\"$(printf 'odd \\001\\n\\303\\251\\377')\" && "
	"n=$(printf 'n%.0s' $(seq 200)) && mkdir -p $n/$n && echo deep >$n/$n/$n && ln -s $n/$n/$n long && ln $n/$n/$n $n/link && touch -d @-5 before &&"
	"(test $(id -u) != 0 || { chown 1234:5678 nothing; chown 3000000:4000000 before; chown -h 7:8 soft; mknod null c 1 3; mknod disk b 259 4000; })";
/* Everything but the times of links, which some tar leave alone. */
static const char list[] = "find . -printf '%P|%y|%m|%U:%G|%n|%l|' -exec stat -c '%t:%T' {} ';' -type f -exec cksum {} ';' | tr '\\001' '?'; find . ! -type l -printf '%P %Ts\\n'";

static void compare(void)
{
	assert_int_equal(sh("(cd src && (%s) | sort >../src.list) && (cd got && (%s) | sort >../got.list) && diff src.list got.list; x=$?; rm -f *.list; exit $x",
			    list, list),
			 0);
}

static int out_to(const char *path, const char *file, struct cai_error *err)
{
	char name[200];
	snprintf(name, sizeof(name), "%s/%s", top, file);
	cleanup_close int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	return tar_out(path, fd, err);
}

static int in_from(const char *file, const char *dir, const struct tar_in_options *o, struct cai_error *err)
{
	char path[200];
	snprintf(path, sizeof(path), "%s/%s", top, file);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "%s/%s", top, dir);
	cleanup_close int to = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0 && to >= 0);
	return tar_in(to, give_file, &fd, o, err);
}

static void a_tree_survives_out_and_in(void **state)
{
	struct cai_error err = {.text = ""};
	char path[100];
	assert_int_equal(sh("%s", make_tree), 0);
	snprintf(path, sizeof(path), "%s/src/.", top);
	if (out_to(path, "t.tar", &err) < 0 || in_from("t.tar", "got", &(struct tar_in_options){0}, &err) < 0)
		fail_msg("%s", err.text);
	sh("touch -r src got; chmod --reference=src got; chown --reference=src got"); /* the directory itself is left as it is */
	compare();
	/* And once more over itself. */
	assert_int_equal(in_from("t.tar", "got", &(struct tar_in_options){0}, &err), 0);
	sh("touch -r src got");
	compare();
	/* tar(1) reads the same. */
	assert_int_equal(sh("rm -rf got; mkdir got; tar xpf t.tar -C got 2>&1 && touch -r src got"), 0);
	compare();
}

static void what_tar_makes_is_read(void **state)
{
	static const char *const formats[] = {"gnu", "pax", "posix"};
	assert_int_equal(sh("%s", make_tree), 0);
	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		struct cai_error err = {.text = ""};
		assert_int_equal(sh("rm -rf got; mkdir got; tar cf t.tar --format=%s -C src .", formats[i]), 0);
		if (in_from("t.tar", "got", &(struct tar_in_options){0}, &err) < 0)
			fail_msg("%s: %s", formats[i], err.text);
		sh("touch -r src got; chmod --reference=src got; chown --reference=src got");
		compare();
	}
	/* ustar and v7 cannot say all that is in the tree. */
	for (size_t i = 0; i < 2; i++) {
		struct cai_error err = {.text = ""};
		assert_int_equal(sh("rm -rf got; mkdir got; tar cf t.tar --format=%s -C src dir hard soft empty", i ? "v7" : "ustar"), 0);
		if (in_from("t.tar", "got", &(struct tar_in_options){0}, &err) < 0)
			fail_msg("%s", err.text);
		assert_int_equal(sh("cmp src/dir/big got/dir/big && test got/hard -ef got/dir/file && test -d got/empty && test $(readlink got/soft) = dir/file"), 0);
	}
}

static void names_begin_with_the_last_component(void **state)
{
	static const struct {
		const char *path, *first; /* below TOP; the archive's first name */
	} cases[] = {
		{"src/dir", "dir/"}, {"src/dir/", "dir/"}, {"src/dir//", "dir/"}, {"src/dir/.", "./"}, {"src/dir/..", "./"},
		{"src/soft", "soft"}, {"src/dirlink", "dirlink"}, {"src/dirlink/", "dirlink/"}, {"src/nothing", "nothing"},
	};
	assert_int_equal(sh("%s && ln -s dir dirlink", make_tree), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct cai_error err = {.text = ""};
		char path[100];
		snprintf(path, sizeof(path), "%s/%s", top, cases[i].path);
		if (out_to(path, "t.tar", &err) < 0)
			fail_msg("%s: %s", cases[i].path, err.text);
		if (sh("test \"$(tar tf t.tar | head -1)\" = '%s'", cases[i].first) != 0)
			fail_msg("%s does not begin with %s", cases[i].path, cases[i].first);
	}
	struct cai_error err = {.text = ""};
	assert_int_equal(out_to("/no/such", "t.tar", &err), -1);
	assert_string_equal(err.text, "/no/such: No such file or directory");
}

static void a_given_owner_takes_the_place_of_the_archives(void **state)
{
	struct cai_error err = {.text = ""};
	if (geteuid() != 0) {
		print_message("skipped: not root\n");
		skip();
	}
	struct buf b = {0};
	static const struct tar_entry e = {.type = TAR_FILE, .name = "f", .target = "", .mode = 06755, .uid = 5, .gid = 6};
	fresh(NULL);
	tar_put_header(&b, &e);
	finish(&b);
	sh("mkdir got");
	char path[100];
	snprintf(path, sizeof(path), "%s/t.tar", top);
	FILE *f = fopen(path, "we");
	assert_non_null(f);
	assert_int_equal(fwrite(b.p, 1, b.len, f), b.len);
	fclose(f);
	assert_int_equal(in_from("t.tar", "got", &(struct tar_in_options){0}, &err), 0);
	assert_int_equal(sh("test $(stat -c %%u:%%g:%%a got/f) = 5:6:6755"), 0);
	assert_int_equal(in_from("t.tar", "got", &(struct tar_in_options){.set_owner = true, .uid = 70, .gid = 80}, &err), 0);
	assert_int_equal(sh("test $(stat -c %%u:%%g:%%a got/f) = 70:80:6755"), 0);
	buf_free(&b);
	sh("rm -rf got t.tar");
}

static void what_the_kernel_shows_is_left_out(void **state)
{
	struct cai_error err = {.text = ""};
	/* From above /proc only its directory is taken. */
	sh("mkdir -p src/proc src/data; echo x >src/data/x");
	if (geteuid() != 0 || sh("mount -t proc proc src/proc 2>/dev/null") != 0) {
		print_message("skipped: /proc cannot be mounted here\n");
		skip();
	}
	char path[100];
	snprintf(path, sizeof(path), "%s/src", top);
	int rc = out_to(path, "t.tar", &err);
	sh("umount src/proc");
	if (rc < 0)
		fail_msg("%s", err.text);
	assert_int_equal(sh("test \"$(tar tf t.tar | sort | tr '\\n' ' ')\" = 'src/ src/data/ src/data/x src/proc/ '"), 0);
}

static void a_tree_deeper_than_any_is_refused_not_a_crash(void **state)
{
	struct cai_error err = {.text = ""};
	char path[100];
	sh("mkdir -p src; cd src; i=0; while [ $i -lt 1000 ]; do mkdir d && cd -P d || exit 1; i=$((i + 1)); done");
	snprintf(path, sizeof(path), "%s/src", top);
	int rc = out_to(path, "t.tar", &err);
	assert_int_equal(rc, -1);
	assert_non_null(strstr(err.text, "directories inside each other"));
}

static int make_top(void **state)
{
	assert_non_null(mkdtemp(top));
	return 0;
}

static int remove_top(void **state)
{
	sh("chmod -R u+rwx . 2>/dev/null; cd / && rm -rf %s", top);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(archives_that_leave_the_directory_are_stopped, fresh),
		cmocka_unit_test_setup(links_may_point_anywhere_and_are_replaced_not_followed, fresh),
		cmocka_unit_test_setup(directories_and_others_never_replace_each_other, fresh),
		cmocka_unit_test_setup(random_archives_of_links_never_leave_the_directory, fresh),
		cmocka_unit_test_setup(damaged_archives_are_refused_with_a_sentence, fresh),
		cmocka_unit_test_setup(extended_headers_are_understood_or_refused, fresh),
		cmocka_unit_test_setup(a_tree_survives_out_and_in, fresh),
		cmocka_unit_test_setup(what_tar_makes_is_read, fresh),
		cmocka_unit_test_setup(names_begin_with_the_last_component, fresh),
		cmocka_unit_test_setup(a_given_owner_takes_the_place_of_the_archives, fresh),
		cmocka_unit_test_setup(what_the_kernel_shows_is_left_out, fresh),
		cmocka_unit_test_setup(a_tree_deeper_than_any_is_refused_not_a_crash, fresh),
	};
	return cmocka_run_group_tests_name("tar", tests, make_top, remove_top);
}
