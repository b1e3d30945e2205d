/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation: mmdebstrap writes a root tar into a scratch file, which is then imported like any
 * other. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/build.h"

#define DEFAULT_SUITE "bookworm"

extern char **environ;

/* mmdebstrap SUITE to the descriptor; what it says goes to standard error. */
static int run_mmdebstrap(const char *suite, const char *packages, int out, struct cai_error *err)
{
	char include[4096] = "";
	const char *argv[8] = {"mmdebstrap", "--variant=minbase", "--format=tar"};
	int n = 3, status = 0;
	if (packages) {
		if (snprintf(include, sizeof(include), "--include=%s", packages) >= (int)sizeof(include))
			return cai_fail(err, EINVAL, "the list of packages is too long");
		argv[n++] = include;
	}
	argv[n++] = suite;
	argv[n++] = "-";
	posix_spawn_file_actions_t fa;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, out, 1);
	pid_t pid;
	int e = posix_spawnp(&pid, argv[0], &fa, NULL, (char *const *)(void *)argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	if (e == ENOENT)
		return cai_fail(err, ENOENT,
				"bootstrap needs mmdebstrap; install it with 'apt install mmdebstrap'");
	if (e)
		return cai_fail_errno(err, e, "cannot run mmdebstrap");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return cai_fail(err, 0, "mmdebstrap could not make %s; it says why above", suite);
	return 0;
}

json_t *image_bootstrap(struct image_store *s, const char *what, const char *packages, const char *name,
			struct cai_error *err)
{
	const char *suite = DEFAULT_SUITE;
	char full[720], tag[160], scratch[64], source[300];
	struct image_ref ref;
	struct stat st;
	if (strncmp(what, "debian", 6) || (what[6] && what[6] != ':') || (what[6] == ':' && !what[7])) {
		cai_fail(err, EINVAL, "only debian[:SUITE] can be bootstrapped, not '%s'", what);
		return NULL;
	}
	if (what[6])
		suite = what + 7;
	if (strspn(suite, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(suite) || suite[0] == '-' ||
	    strlen(suite) > 64) {
		cai_fail(err, EINVAL, "'%.80s' is no Debian suite", suite);
		return NULL;
	}
	if (packages && strspn(packages, "abcdefghijklmnopqrstuvwxyz0123456789+-.,:") != strlen(packages)) {
		cai_fail(err, EINVAL, "'%.80s' is no list of packages", packages);
		return NULL;
	}
	snprintf(tag, sizeof(tag), "debian:%s", suite);
	if (image_ref_parse(name ? name : tag, &ref, err) < 0)
		return NULL;
	cleanup_close int fd = image_store_temp(s, scratch, err);
	if (fd < 0)
		return NULL;
	image_store_temp_drop(s, scratch);
	if (run_mmdebstrap(suite, packages, fd, err) < 0 || fstat(fd, &st) < 0)
		return NULL;
	struct unpack_layer layer = {.blob = {.fd = fd, .len = (uint64_t)st.st_size}};
	snprintf(source, sizeof(source), "mmdebstrap %s%s%.200s", suite, packages ? " with " : "",
		 packages ? packages : "");
	struct image_origin from = {
	    .source = source, .manifest = "", .tag = image_ref_full(&ref, full, sizeof(full)), .cmd = "bash"};
	return image_build_bare(s, &layer, -1, &from, err);
}
