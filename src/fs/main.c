/* SPDX-License-Identifier: Apache-2.0 */
/*
 * caisson-fs: the server of one shared directory for one monitor, see caisson-fs(8). It inherits a connected Unix stream socket and
 * the open directory, confines itself, and answers FUSE requests until the socket closes.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fs/confine.h"
#include "fs/server.h"

#define SOCKET_FD        3
#define DIR_FD           4
#define DEFAULT_CACHE_MS 10
#define MAX_CACHE_MS     60000
#define MAX_INODES       (512u << 10)
#define MAX_FDS          65536u
#define SPARE_FDS        16u
#define IN_BYTES         (FS_MAX_MESSAGE + (256u << 10))

static const char usage[] =
	"usage: caisson-fs [--dir-fd N] [--readonly] [--cache-ms N]\n"
	"This program is started by caisson, with a socket to the monitor as descriptor 3; see caisson-fs(8).\n";

struct settings {
	int dir_fd;
	bool readonly;
	unsigned cache_ms;
};

/* 0, or the exit status. */
static int parse(struct settings *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{"dir-fd", 1, 0, 'd'}, {"readonly", 0, 0, 'r'}, {"cache-ms", 1, 0, 'c'}, {"version", 0, 0, 'V'}, {0}};
	for (int k; (k = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
		char *end = (char *)"";
		switch (k) {
		case 'd': o->dir_fd = (int)strtoul(optarg, &end, 10); break;
		case 'r': o->readonly = true; break;
		case 'c': o->cache_ms = (unsigned)strtoul(optarg, &end, 10); break;
		case 'V': puts("caisson-fs " CAISSON_VERSION); exit(0);
		default: fputs(usage, stderr); return 2;
		}
		if (*end || o->cache_ms > MAX_CACHE_MS) {
			fputs(usage, stderr);
			return 2;
		}
	}
	int type = 0;
	socklen_t n = sizeof(type);
	struct stat st;
	if (optind != argc || getsockopt(SOCKET_FD, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_STREAM) {
		fputs(usage, stderr);
		return 2;
	}
	if (o->dir_fd <= SOCKET_FD || fstat(o->dir_fd, &st) < 0 || !S_ISDIR(st.st_mode)) {
		fprintf(stderr, "caisson-fs: descriptor %d is not a directory\n", o->dir_fd);
		return 2;
	}
	return 0;
}

/* Nothing stays open but stderr, the socket and the directory, which becomes descriptor DIR_FD. */
static int settle(struct settings *o, unsigned *max_fds, struct cai_error *err)
{
	if (o->dir_fd != DIR_FD && dup2(o->dir_fd, DIR_FD) < 0)
		return cai_fail_errno(err, errno, "cannot take the directory");
	close_range(DIR_FD + 1, ~0u, 0);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return cai_fail_errno(err, errno, "cannot open /dev/null");
	for (int fd = 0; fd <= 2; fd++)
		if ((fd < 2 || fcntl(2, F_GETFD) < 0) && dup2(null, fd) < 0)
			return cai_fail_errno(err, errno, "cannot use /dev/null");
	close(null);
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGTSTP, SIGTTIN, SIGTTOU, SIGXFSZ};
	for (unsigned i = 0; i < ARRAY_LEN(ignored); i++)
		signal(ignored[i], SIG_IGN);
	umask(0);
	struct rlimit r, none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);
	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		return cai_fail_errno(err, errno, "cannot read the limit of descriptors");
	r.rlim_cur = r.rlim_max < MAX_FDS ? r.rlim_max : MAX_FDS;
	setrlimit(RLIMIT_NOFILE, &r);
	if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur < 128 + SPARE_FDS)
		return cai_fail(err, EMFILE, "the limit of descriptors (ulimit -n) is too low to share a directory: %u are needed",
				128 + SPARE_FDS);
	*max_fds = (unsigned)r.rlim_cur - SPARE_FDS;
	return 0;
}

static bool send_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t r = send(fd, p, n, MSG_NOSIGNAL);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return false;
		p += r;
		n -= (size_t)r;
	}
	return true;
}

/* Serves what is whole in [p, p + n); returns how much that was, or -1 when the other end has gone or makes no sense. */
static ssize_t serve_some(struct fs_server *s, const uint8_t *p, size_t n, uint8_t *reply)
{
	size_t done = 0;
	while (n - done >= sizeof(struct fuse_in_header)) {
		uint32_t len = load_le32(p + done);
		if (len < sizeof(struct fuse_in_header) || len > FS_MAX_MESSAGE) {
			fprintf(stderr, "caisson-fs: the monitor sent a request of %u bytes\n", len);
			return -1;
		}
		if (len > n - done)
			break;
		size_t out = fs_server_handle(s, p + done, len, reply);
		if (out && !send_all(SOCKET_FD, reply, out))
			return -1;
		done += len;
	}
	return (ssize_t)done;
}

static int serve(struct fs_server *s)
{
	cleanup_free uint8_t *in = malloc(IN_BYTES), *reply = malloc(FS_MAX_MESSAGE);
	size_t have = 0;
	if (!in || !reply)
		return 1;
	for (;;) {
		ssize_t r = recv(SOCKET_FD, in + have, IN_BYTES - have, 0);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return 0; /* the monitor has ended */
		have += (size_t)r;
		ssize_t done = serve_some(s, in, have, reply);
		if (done < 0)
			return 1;
		have -= (size_t)done;
		if (done && have)
			memmove(in, in + done, have);
	}
}

int main(int argc, char **argv)
{
	struct settings o = {.dir_fd = DIR_FD, .cache_ms = DEFAULT_CACHE_MS};
	struct confinement c;
	struct cai_error err;
	unsigned max_fds = 0;
	int status = parse(&o, argc, argv);
	if (status)
		return status;
	int bytes = 1 << 20; /* as much as the host allows; a large reply should not go in pieces */
	setsockopt(SOCKET_FD, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	struct fs_server *s = NULL;
	if (settle(&o, &max_fds, &err) == 0 && confine_enter(&c, DIR_FD, o.readonly, &err) == 0) {
		struct fs_options so = {
			.root_fd = c.root_fd,
			.proc_fd = c.proc_fd,
			.readonly = o.readonly,
			.switch_ids = c.all_ids,
			.cache_ms = o.cache_ms,
			.max_inodes = MAX_INODES,
			.max_fds = max_fds,
		};
		s = fs_server_new(&so, &err);
	}
	if (!s || confine_seal(&c, &err) < 0) {
		fprintf(stderr, "caisson-fs: %s\n", err.text);
		return 1;
	}
	_exit(serve(s));
}
