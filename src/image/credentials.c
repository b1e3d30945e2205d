/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a credential helper is a program docker-credential-NAME that is given the registry's
 * name on standard input and answers {"Username", "Secret"} (docker-credential-helpers' protocol). It runs
 * with this user's authority, as docker itself runs it; its name comes from this user's own file.
 */
#include "image/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define MAX_CONFIG (1u << 20)
#define MAX_ANSWER (64u << 10)

extern char **environ;

static json_t *read_config(void)
{
	const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	char path[4096];
	cleanup_free char *text = NULL;
	size_t n;
	if (dir && *dir)
		snprintf(path, sizeof(path), "%s/config.json", dir);
	else
		snprintf(path, sizeof(path), "%s/.docker/config.json", home ? home : "");
	if (access(path, R_OK) < 0 || file_read_all(path, MAX_CONFIG, &text, &n, NULL) < 0)
		return NULL;
	json_t *o = json_loadb(text, n, 0, NULL);
	if (!o)
		log_warn("%s is no valid JSON, so no credentials are taken from it", path);
	return o;
}

/* The program for this registry; "" for none. */
static const char *helper_for(const json_t *config, const char *key)
{
	const char *name = json_string_value(json_object_get(json_object_get(config, "credHelpers"), key));
	if (!name)
		name = json_string_value(json_object_get(config, "credsStore"));
	return name && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
			   strlen(name)
		   ? name
		   : "";
}

/* Runs the helper; what it answers, or NULL. */
static json_t *ask_helper(const char *name, const char *key)
{
	char prog[300], text[MAX_ANSWER];
	int in[2], out[2], status = 0;
	snprintf(prog, sizeof(prog), "docker-credential-%.200s", name);
	if (pipe2(in, O_CLOEXEC) < 0)
		return NULL;
	cleanup_close int to_it = in[1], its_in = in[0];
	if (pipe2(out, O_CLOEXEC) < 0)
		return NULL;
	cleanup_close int from_it = out[0], its_out = out[1];
	const char *argv[] = {prog, "get", NULL};
	posix_spawn_file_actions_t fa;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, its_in, 0);
	posix_spawn_file_actions_adddup2(&fa, its_out, 1);
	pid_t pid;
	int e = posix_spawnp(&pid, prog, &fa, NULL, (char *const *)(void *)argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	close(steal_fd(&its_in));
	close(steal_fd(&its_out));
	if (e) {
		log_warn("cannot run %s: %s", prog, strerror(e));
		return NULL;
	}
	/* Fits the pipe; a helper that does not read must not end this process. */
	struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
	sigaction(SIGPIPE, &ignore, &before);
	int sent = file_write_full(to_it, key, strlen(key));
	close(steal_fd(&to_it));
	sigaction(SIGPIPE, &before, NULL);
	ssize_t n = sent < 0 ? -1 : file_read_full(from_it, text, sizeof(text));
	close(steal_fd(&from_it));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	json_t *o = n > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0
			? json_loadb(text, (size_t)n, 0, NULL)
			: NULL;
	explicit_bzero(text, sizeof(text));
	return o;
}

static void take(const char *u, const char *p, char **user, char **password)
{
	if (!u || !p || !strcmp(u, "<token>")) /* an identity token is no password */
		return;
	*user = strdup(u);
	*password = strdup(p);
}

/* base64 of "USER:PASSWORD" */
static void take_auth(const char *auth, char **user, char **password)
{
	unsigned char plain[4096];
	size_t len = auth ? strlen(auth) : 0;
	if (!len || len % 4 || len / 4 * 3 >= sizeof(plain) ||
	    EVP_DecodeBlock(plain, (const unsigned char *)auth, (int)len) <= 0)
		return;
	plain[len / 4 * 3 - (auth[len - 1] == '=') - (auth[len - 2] == '=')] = 0;
	char *colon = strchr((char *)plain, ':');
	if (colon) {
		*colon = 0;
		take((char *)plain, colon + 1, user, password);
	}
	explicit_bzero(plain, sizeof(plain));
}

void credentials_find(const char *host, char **user, char **password)
{
	json_t *config = read_config();
	const json_t *auths = json_object_get(config, "auths"), *entry;
	const char *key = strcmp(host, "docker.io") ? host : "https://index.docker.io/v1/";
	char url[300];
	*user = *password = NULL;
	const char *helper = helper_for(config, key);
	if (helper[0]) {
		json_t *o = ask_helper(helper, key);
		take(json_string_value(json_object_get(o, "Username")),
		     json_string_value(json_object_get(o, "Secret")), user, password);
		json_decref(o);
	}
	snprintf(url, sizeof(url), "https://%s", host);
	entry = json_object_get(auths, key);
	if (!entry)
		entry = json_object_get(auths, url);
	if (!*user)
		take_auth(json_string_value(json_object_get(entry, "auth")), user, password);
	if (!*user)
		take(json_string_value(json_object_get(entry, "username")),
		     json_string_value(json_object_get(entry, "password")), user, password);
	json_decref(config);
}
