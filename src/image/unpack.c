/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: fork, confine, work, and leave the result in memory shared with the parent, which is
 * the only thing that passes back besides the contents of the descriptors given. The parent trusts none of
 * it: texts are ended, digests looked at, offsets held against the file. A child that is killed by its limits
 * or its filter is an error with that as the reason.
 */
#include "image/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/util.h"
#include "image/confine.h"
#include "image/digest.h"
#include "image/export.h"
#include "image/scan.h"

#define WORKER_MEMORY GIB(3)

/* Shared with the child. */
struct answer {
	bool ok;
	struct cai_error err;
	struct unpack_result result;
	unsigned n_members;
	struct archive_member members[ARCHIVE_MAX_MEMBERS];
};

struct job {
	const struct unpack_layer *layers;
	unsigned n;
	int dir, in, out, spill;
	bool hash;
	const struct tree_limits *limits;
	struct answer *answer;
};

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Closes all descriptors but the job's own, standard streams included: the answer to `caisson` goes out
 * through one, and the user's terminal is behind another. */
static void keep_only(const struct job *j)
{
	int keep[OCI_MAX_LAYERS + 6], n = 0;
	for (unsigned k = 0; k < j->n; k++)
		keep[n++] = j->layers[k].blob.fd;
	const int own[] = {j->dir, j->in, j->out, j->spill};
	for (size_t k = 0; k < ARRAY_LEN(own); k++)
		keep[n++] = own[k];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		if (fd != STDERR_FILENO || !log_debug_on())
			dup2(null, fd);
	qsort(keep, (size_t)n, sizeof(*keep), by_number);
	unsigned from = 3;
	for (int k = 0; k < n; k++) {
		if (keep[k] < (int)from)
			continue;
		if (keep[k] > (int)from)
			close_range(from, (unsigned)keep[k] - 1, 0);
		from = (unsigned)keep[k] + 1;
	}
	close_range(from, ~0u, 0);
}

static int run(struct job *j, enum confine_kind kind, int (*fn)(struct job *j, struct cai_error *err),
	       struct cai_error *err)
{
	/* Before the filter: the locale's tables, which decide how names in archives are read, come from a
	 * file. */
	setlocale(LC_CTYPE, "C.UTF-8");
	j->answer = mmap(NULL, sizeof(*j->answer), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (j->answer == MAP_FAILED)
		return cai_fail_errno(err, errno, "cannot share memory with the unpacking process");
	struct confine_limits cl = {.memory = WORKER_MEMORY, .file = 2 * j->limits->max_bytes};
	pid_t parent = getpid(), pid = fork();
	if (pid < 0) {
		munmap(j->answer, sizeof(*j->answer));
		return cai_fail_errno(err, errno, "cannot start the unpacking process");
	}
	if (pid == 0) {
		struct cai_error e = {0};
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		if (getppid() != parent) /* it was killed before that took effect */
			_exit(1);
		keep_only(j);
		int r = confine_enter(&cl, kind, j->dir, &e) < 0 ? -1 : fn(j, &e);
		j->answer->err = e;
		j->answer->ok = r == 0;
		_exit(0);
	}
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		return cai_fail(err, 0, "the unpacking process was killed by signal %d%s", WTERMSIG(status),
				WTERMSIG(status) == SIGSYS ? " (a system call that it may not make)" : "");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return cai_fail(err, 0, "the unpacking process failed with status %d", status);
	if (!j->answer->ok) {
		if (err) {
			*err = j->answer->err;
			err->text[sizeof(err->text) - 1] = 0;
			if (!err->text[0])
				cai_fail(err, 0, "the unpacking process failed and gave no reason");
		}
		return -1;
	}
	return 0;
}

static int done(struct job *j, int r)
{
	munmap(j->answer, sizeof(*j->answer));
	return r;
}

static int begin(struct job *j, struct tree *t, struct erofs_writer *w, struct cai_error *err)
{
	if (tree_init(t, j->limits) < 0)
		return cai_fail(err, ENOMEM, "out of memory");
	if (erofs_writer_init(w, j->out, j->spill, j->limits->max_bytes, err) < 0)
		return -1;
	t->drop = erofs_file_drop;
	t->drop_ctx = w;
	return 0;
}

static int finish(struct job *j, struct tree *t, struct erofs_writer *w, struct cai_error *err)
{
	struct unpack_result *r = &j->answer->result;
	if (erofs_finish(w, t, &r->size, err) < 0)
		return -1;
	r->entries = t->n_entries;
	r->bytes = w->stored;
	return 0; /* the process ends: what is in memory goes with it */
}

static int do_layers(struct job *j, struct cai_error *err)
{
	struct tree t;
	struct erofs_writer w;
	if (begin(j, &t, &w, err) < 0)
		return -1;
	for (unsigned k = 0; k < j->n; k++) {
		const struct unpack_layer *l = &j->layers[k];
		if (layer_apply(&l->blob, k + 1, l->digest, l->diff_id, &t, &w, j->answer->result.diff_ids[k],
				err) < 0)
			return j->n > 1 ? cai_wrap(err, "layer %u of %u", k + 1, j->n) : -1;
	}
	return finish(j, &t, &w, err);
}

static int take_result(struct job *j, unsigned n, struct unpack_result *r, struct cai_error *err)
{
	struct stat st;
	*r = j->answer->result;
	for (unsigned k = 0; k < n; k++) {
		r->diff_ids[k][IMAGE_DIGEST_LEN] = 0;
		if (!image_digest_valid(r->diff_ids[k]))
			return cai_fail(err, 0, "the unpacking process gave no valid answer");
	}
	if (fstat(j->out, &st) < 0 || (uint64_t)st.st_size != r->size)
		return cai_fail(err, 0, "the unpacking process left no whole image");
	return 0;
}

int unpack_layers(const struct unpack_layer *l, unsigned n, int out, int spill,
		  const struct tree_limits *limits, struct unpack_result *r, struct cai_error *err)
{
	struct job j = {
	    .layers = l, .n = n, .dir = -1, .in = -1, .out = out, .spill = spill, .limits = limits};
	if (run(&j, CONFINE_NO_FILES, do_layers, err) < 0)
		return -1;
	return done(&j, take_result(&j, n, r, err));
}

static int do_directory(struct job *j, struct cai_error *err)
{
	struct tree t;
	struct erofs_writer w;
	struct unpack_result *r = &j->answer->result;
	if (begin(j, &t, &w, err) < 0 || scan_directory(j->dir, &t, &w, err) < 0 ||
	    finish(j, &t, &w, err) < 0)
		return -1;
	if (!j->hash)
		return 0;
	struct digest d;
	static uint8_t buf[1 << 18];
	if (digest_init(&d) < 0)
		return cai_fail(err, ENOMEM, "out of memory");
	for (uint64_t at = 0; at < r->size;) {
		ssize_t got = file_pread_full(j->out, buf, sizeof(buf), (off_t)at);
		if (got <= 0)
			return cai_fail_errno(err, got < 0 ? errno : EIO, "cannot read the image back");
		digest_add(&d, buf, (size_t)got);
		at += (uint64_t)got;
	}
	digest_end(&d, r->diff_ids[0]);
	return 0;
}

int unpack_directory(int dir, int out, int spill, bool hash, const struct tree_limits *limits,
		     struct unpack_result *r, struct cai_error *err)
{
	struct job j = {.dir = dir, .in = -1, .out = out, .spill = spill, .hash = hash, .limits = limits};
	if (run(&j, CONFINE_READ_TREE, do_directory, err) < 0)
		return -1;
	return done(&j, take_result(&j, hash, r, err));
}

/* Names that only archives of images have. */
static bool image_part(const char *name)
{
	static const char *const whole[] = {"manifest.json", "index.json", "oci-layout", "repositories",
					    "blobs"};
	size_t hex = strspn(name, "0123456789abcdef");
	for (size_t k = 0; k < ARRAY_LEN(whole); k++)
		if (!strcmp(name, whole[k]))
			return true;
	if (!strncmp(name, "blobs/", 6))
		return true;
	return hex == 64 &&
	       (!name[64] || name[64] == '/' || !strcmp(name + 64, ".json") || !strcmp(name + 64, ".tar"));
}

/* Without "./" in front and "/" behind. */
static int plain_name(const char *in, char out[200])
{
	while (in[0] == '.' && in[1] == '/')
		in += 2;
	size_t n = strlen(in);
	while (n && in[n - 1] == '/')
		n--;
	if (n >= 200)
		return -1;
	memcpy(out, in, n);
	out[n] = 0;
	return 0;
}

static la_ssize_t read_fd(struct archive *a, void *ctx, const void **out)
{
	static uint8_t buf[1 << 18];
	struct job *j = ctx;
	ssize_t n = read(j->in, buf, sizeof(buf));
	*out = buf;
	if (n < 0)
		archive_set_error(a, errno, "cannot read: %s", strerror(errno));
	return n;
}

/* A link of docker save's: "../OTHER/layer.tar" beside name. */
static void link_target(const char *name, const char *link, char out[200])
{
	char dir[200];
	strcpy(dir, name);
	char *slash = strrchr(dir, '/');
	if (slash)
		*slash = 0;
	else
		dir[0] = 0;
	while (!strncmp(link, "../", 3)) {
		link += 3;
		slash = strrchr(dir, '/');
		if (slash)
			*slash = 0;
		else
			dir[0] = 0;
	}
	size_t n = strlen(dir), m = strlen(link);
	out[0] = 0;
	if (n + m + 2 > 200)
		return;
	memcpy(out, dir, n);
	if (n)
		out[n++] = '/';
	memcpy(out + n, link, m + 1);
}

static int spool_member(struct job *j, struct archive *a, struct archive_member *m, uint64_t *at,
			struct cai_error *err)
{
	const void *p;
	size_t n;
	la_int64_t off;
	int r;
	m->off = *at;
	while ((r = archive_read_data_block(a, &p, &n, &off)) == ARCHIVE_OK) {
		if ((uint64_t)off + n > 2 * j->limits->max_bytes)
			return cai_fail(err, EFBIG, "the archive is larger than %llu MiB, which is the limit",
					(unsigned long long)(2 * j->limits->max_bytes) >> 20);
		for (size_t put = 0; put < n;) {
			ssize_t w = pwrite(j->spill, (const char *)p + put, n - put,
					   (off_t)(*at + (uint64_t)off + put));
			if (w <= 0)
				return cai_fail_errno(err, errno, "cannot copy the archive");
			put += (size_t)w;
		}
		m->len = (uint64_t)off + n;
	}
	*at += m->len;
	return r == ARCHIVE_EOF ? 0 : cai_fail(err, EIO, "the archive is damaged at '%s'", m->name);
}

static int do_archive(struct job *j, struct cai_error *err)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	uint64_t at = 0;
	bool known = false;
	int r;
	if (!a)
		return cai_fail(err, ENOMEM, "out of memory");
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_filter_xz(a);
	archive_read_support_format_tar(a);
	if (archive_read_open(a, j, NULL, read_fd, NULL) != ARCHIVE_OK)
		return cai_fail(err, EINVAL, "it is no tar archive: %s", archive_error_string(a));
	while ((r = archive_read_next_header(a, &e)) == ARCHIVE_OK || r == ARCHIVE_WARN) {
		struct archive_member *m = &j->answer->members[j->answer->n_members];
		const char *name = archive_entry_pathname(e), *to = archive_entry_symlink(e),
			   *hard = archive_entry_hardlink(e);
		char path[200];
		if (!name || plain_name(name, path) < 0 ||
		    (path[0] && strcmp(path, ".") && !image_part(path))) {
			j->answer->n_members = 0;
			return 0; /* a root file system's */
		}
		if (!path[0] || !strcmp(path, ".") || archive_entry_filetype(e) == AE_IFDIR)
			continue;
		if (j->answer->n_members == ARCHIVE_MAX_MEMBERS)
			return cai_fail(err, E2BIG, "the archive has more than %u members",
					ARCHIVE_MAX_MEMBERS);
		strcpy(m->name, path);
		known |= !strcmp(path, "manifest.json") || !strcmp(path, "index.json");
		j->answer->n_members++;
		if (hard)
			plain_name(hard, m->link);
		else if (to)
			link_target(path, to, m->link);
		else if (spool_member(j, a, m, &at, err) < 0)
			return -1;
	}
	if (r != ARCHIVE_EOF)
		return cai_fail(err, EINVAL, "it is no valid tar archive: %s", archive_error_string(a));
	if (!known)
		j->answer->n_members = 0;
	return 0;
}

int unpack_archive(int fd, int spool, const struct tree_limits *limits, struct archive_member *members,
		   struct cai_error *err)
{
	struct job j = {.dir = -1, .in = fd, .out = -1, .spill = spool, .limits = limits};
	struct stat st;
	if (run(&j, CONFINE_NO_FILES, do_archive, err) < 0)
		return -1;
	unsigned n = j.answer->n_members;
	if (n > ARCHIVE_MAX_MEMBERS || fstat(spool, &st) < 0)
		return done(&j, cai_fail(err, 0, "the unpacking process gave no valid answer"));
	for (unsigned k = 0; k < n; k++) {
		members[k] = j.answer->members[k];
		members[k].name[sizeof(members[k].name) - 1] = 0;
		members[k].link[sizeof(members[k].link) - 1] = 0;
		if (members[k].off > (uint64_t)st.st_size ||
		    members[k].len > (uint64_t)st.st_size - members[k].off)
			return done(&j, cai_fail(err, 0, "the unpacking process gave no valid answer"));
	}
	return done(&j, (int)n);
}

static int do_export(struct job *j, struct cai_error *err)
{
	struct unpack_result *r = &j->answer->result;
	return export_tar(j->in, j->out, j->limits, &r->size, r->diff_ids[0], err);
}

int unpack_export(int erofs, int out, const struct tree_limits *limits, uint64_t *size,
		  char diff_id[IMAGE_DIGEST_LEN + 1], struct cai_error *err)
{
	struct job j = {.dir = -1, .in = erofs, .out = out, .spill = -1, .limits = limits};
	struct stat st;
	if (run(&j, CONFINE_NO_FILES, do_export, err) < 0)
		return -1;
	*size = j.answer->result.size;
	snprintf(diff_id, IMAGE_DIGEST_LEN + 1, "%.71s", j.answer->result.diff_ids[0]);
	if (!image_digest_valid(diff_id) ||
	    (fstat(out, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size < *size))
		return done(&j, cai_fail(err, 0, "the exporting process gave no valid answer"));
	return done(&j, 0);
}
