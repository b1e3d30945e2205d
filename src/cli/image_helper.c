/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/image_helper.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "sandbox/paths.h"

#define MAX_WORDS  12
#define MAX_ANSWER (1u << 20)

extern char **environ;

json_t *image_helper(const char *const *words, struct cai_error *err)
{
	char *argv[MAX_WORDS + 2] = {(char *)"caisson-image"};
	int p[2];
	err->text[0] = 0;
	cleanup_free char *prog = paths_libexec("caisson-image", err), *text = malloc(MAX_ANSWER + 1);
	if (!prog || !text)
		return NULL;
	for (unsigned n = 0; words[n] && n < MAX_WORDS; n++)
		argv[n + 1] = (char *)(uintptr_t)words[n];
	if (pipe2(p, O_CLOEXEC) < 0) {
		cai_fail_errno(err, errno, "cannot make a pipe");
		return NULL;
	}
	cleanup_close int rd = p[0], wr = p[1];
	posix_spawn_file_actions_t fa;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, wr, 1);
	pid_t pid;
	int e = posix_spawn(&pid, prog, &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	close(steal_fd(&wr));
	if (e) {
		cai_fail_errno(err, e, "cannot run %s", prog);
		return NULL;
	}
	ssize_t n = file_read_full(rd, text, MAX_ANSWER);
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 125)
		return NULL;
	json_error_t je;
	json_t *o = WIFEXITED(status) && WEXITSTATUS(status) == 0 && n > 0
			? json_loadb(text, (size_t)n, 0, &je)
			: NULL;
	if (!json_is_object(o)) {
		json_decref(o);
		if (WIFSIGNALED(status))
			cai_fail(err, 0, "caisson-image was ended by signal %d", WTERMSIG(status));
		else
			cai_fail(err, 0, "caisson-image gave no answer (status %d)", WEXITSTATUS(status));
		return NULL;
	}
	return o;
}

int image_helper_stream(const char *const *words, struct cai_error *err)
{
	char *argv[MAX_WORDS + 2] = {(char *)"caisson-image"};
	err->text[0] = 0;
	cleanup_free char *prog = paths_libexec("caisson-image", err);
	if (!prog)
		return -1;
	for (unsigned n = 0; words[n] && n < MAX_WORDS; n++)
		argv[n + 1] = (char *)(uintptr_t)words[n];
	pid_t pid;
	int status = 0, e = posix_spawn(&pid, prog, NULL, NULL, argv, environ);
	if (e)
		return cai_fail_errno(err, e, "cannot run %s", prog);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		return cai_fail(err, 0, "caisson-image was ended by signal %d", WTERMSIG(status));
	return WEXITSTATUS(status) ? -1 : 0;
}

int image_get(const char *root, const char *ref, enum image_when when, bool quiet,
	      struct image_run_config *out, struct cai_error *err)
{
	struct image_store s = {.dir = -1};
	int ok = image_store_open(&s, root, err);
	if (ok == 0 && when != IMAGE_PULL_ALWAYS) {
		ok = image_run_config_load(&s, ref, out, err);
		if (ok == 0 || err->errnum != ENOENT || when == IMAGE_PULL_NEVER) {
			image_store_close(&s);
			return ok;
		}
		ok = 0;
	}
	if (ok == 0) {
		const char *words[8] = {"pull"};
		unsigned n = 1;
		if (root) {
			words[n++] = "--store";
			words[n++] = root;
		}
		if (quiet)
			words[n++] = "--quiet";
		words[n++] = "--";
		words[n++] = ref;
		json_t *o = image_helper(words, err);
		/* By its id: the name may mean another image by now. */
		const char *id = json_string_value(json_object_get(o, "id"));
		ok = id ? image_run_config_load(&s, id, out, err) : -1;
		if (o && !id)
			cai_fail(err, 0, "caisson-image gave no answer");
		if (ok == 0 && !out->name) {
			const char *tag = json_string_value(json_object_get(o, "tag"));
			out->name = tag ? strdup(tag) : NULL;
		}
		json_decref(o);
	}
	image_store_close(&s);
	return ok;
}
