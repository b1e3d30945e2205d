/* SPDX-License-Identifier: Apache-2.0 */
/*
 * caisson-init --container, the program itself, as PID 1 of namespaces made here as an engine would: the socket on descriptor 3, /proc
 * of the namespace. usage: test_guest_container CAISSON-INIT
 */
#include "client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *init_path;

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		_exit(90);
	close(fd);
}

static void __attribute__((noreturn)) become_init(int listener, int stray, bool rootless)
{
	char map[64];
	if (rootless) {
		snprintf(map, sizeof(map), "0 %u 1", (unsigned)getuid());
		write_text("/proc/self/setgroups", "deny");
		write_text("/proc/self/uid_map", map);
	}
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("proc", "/proc", "proc", 0, NULL) < 0)
		_exit(91);
	if (listener == 3 ? fcntl(3, F_SETFD, 0) < 0 : dup2(listener, 3) < 0)
		_exit(92);
	if (stray >= 0 && dup2(stray, 9) < 0)
		_exit(93);
	execl(init_path, "caisson-init", "--container", (char *)NULL);
	_exit(94);
}

/* Starts the agent in its own namespaces. Its pid, or -1 where this host does not allow them. */
static pid_t start_init(int listener, int stray)
{
	unsigned long flags = CLONE_NEWPID | CLONE_NEWNS | SIGCHLD;
	bool rootless = geteuid() != 0;
	fflush(NULL);
	pid_t pid = (pid_t)syscall(SYS_clone, flags | (rootless ? CLONE_NEWUSER : 0), NULL, NULL, NULL, NULL);
	if (pid == 0)
		become_init(listener, stray, rootless);
	return pid;
}

static int start_server(void **state)
{
	struct server *s = calloc(1, sizeof(*s));
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	snprintf(s->path, sizeof(s->path), "/tmp/caisson-test-container.%d.%p", (int)getpid(), (void *)s);
	unlink(s->path);
	strcpy(sa.sun_path, s->path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int secret = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 16), 0);
	s->pid = start_init(fd, secret);
	close(fd);
	close(secret);
	*state = s;
	if (s->pid < 0) {
		printf("skipped: no PID and mount namespaces on this host: %s\n", strerror(errno));
		unlink(s->path);
		exit(77);
	}
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

static int stop_server(void **state)
{
	server_stop(*state); /* POWEROFF must end it with status 0 */
	free(*state);
	return 0;
}

static void setup_is_accepted_and_changes_nothing(void **state)
{
	char before[65], after[65];
	uint8_t *body;
	uint32_t len;
	struct buf b = {0};
	int fd = client_connect(*state);
	gethostname(before, sizeof(before));
	agent_put_setup(&b, &(struct agent_setup){.hostname = (char[]){"other"}, .root_dev = (char[]){"/dev/vda"}, .root_mode = AGENT_ROOT_READONLY});
	client_send(fd, &b);
	assert_int_equal(client_recv(fd, &body, &len), AGENT_OK);
	free(body);
	close(fd);
	gethostname(after, sizeof(after));
	assert_string_equal(before, after);
}

static void the_agent_is_pid_1_and_programs_run_below_it(void **state)
{
	struct outcome o;
	run_script(*state, "echo $PPID; test -e /proc/1/fd/9 && echo stray; exit 3", &o);
	assert_true(outcome_says(&o, "1\n"));
	assert_int_equal(o.exit.status, 3);
	outcome_free(&o);
}

static void the_agents_program_cannot_be_opened_from_inside(void **state)
{
	struct outcome o;
	/* Root with all capabilities may, so this takes CAP_SYS_PTRACE away, as docker's default set does. */
	run_script(*state, "command -v setpriv >/dev/null || { echo denied; exit; }\n"
			   "setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace sh -c 'cat /proc/1/exe >/dev/null 2>&1 && echo open || echo denied'",
		   &o);
	assert_true(outcome_says(&o, "denied\n"));
	outcome_free(&o);
}

static void orphans_are_reaped(void **state)
{
	struct outcome o;
	run_script(*state, "(sleep 0.1 &) ; (sleep 0.1 &) ; sleep 0.5; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l", &o);
	assert_true(outcome_says(&o, "0\n"));
	outcome_free(&o);
}

static void a_detached_program_outlives_its_stream(void **state)
{
	char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, (char[]){"readlink /proc/self/fd/0 /proc/self/fd/1 >&2; sleep 300"}, NULL};
	struct outcome o = {0};
	uint8_t *body;
	uint32_t len, pid = 0;
	int fd = client_connect(*state);
	client_start(fd, &(struct agent_start){.flags = AGENT_START_DETACH, .argv = argv});
	assert_int_equal(client_recv(fd, &body, &len), AGENT_STARTED);
	assert_int_equal(agent_get_u32(body, len, &pid, NULL), 0);
	free(body);
	assert_int_equal(client_recv(fd, &body, &len), 0); /* and the stream ends */
	close(fd);
	usleep(1200000); /* longer than a closed stream's process would have had */
	char script[200];
	snprintf(script, sizeof(script), "readlink /proc/%u/fd/0 /proc/%u/fd/1 /proc/%u/fd/2", pid, pid, pid);
	run_script(*state, script, &o);
	assert_true(outcome_says(&o, "/dev/null\n/dev/null\n/dev/null\n"));
	outcome_free(&o);
}

static void a_detached_program_that_cannot_start_says_why(void **state)
{
	char *argv[] = {(char[]){"no-such-program"}, NULL};
	struct outcome o = {0};
	int fd = client_connect(*state);
	client_start(fd, &(struct agent_start){.flags = AGENT_START_DETACH, .argv = argv});
	client_finish(fd, &o);
	assert_int_equal(o.error_code, AGENT_E_NOT_FOUND);
	outcome_free(&o);
	close(fd);
}

static void processes_that_ignore_sigterm_are_gone_after_poweroff(void **state)
{
	/* The last test: stop_server sends POWEROFF and fails when PID 1 does not end. */
	char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, (char[]){"trap '' TERM HUP; while :; do sleep 1; done"}, NULL};
	uint8_t *body;
	uint32_t len;
	int fd = client_connect(*state);
	client_start(fd, &(struct agent_start){.argv = argv});
	assert_int_equal(client_recv(fd, &body, &len), AGENT_STARTED);
	free(body);
}

static void a_descriptor_that_is_no_listener_is_refused(void **state)
{
	int p[2], status;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), 0);
	pid_t pid = start_init(p[0], -1);
	assert_true(pid > 0);
	close(p[0]);
	close(p[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static void elsewhere_than_as_pid_1_it_does_not_run(void **state)
{
	int status;
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		execl(init_path, "caisson-init", "--container", (char *)NULL);
		_exit(94);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 2);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(setup_is_accepted_and_changes_nothing),
		cmocka_unit_test(the_agent_is_pid_1_and_programs_run_below_it),
		cmocka_unit_test(the_agents_program_cannot_be_opened_from_inside),
		cmocka_unit_test(orphans_are_reaped),
		cmocka_unit_test(a_detached_program_outlives_its_stream),
		cmocka_unit_test(a_detached_program_that_cannot_start_says_why),
		cmocka_unit_test(a_descriptor_that_is_no_listener_is_refused),
		cmocka_unit_test(elsewhere_than_as_pid_1_it_does_not_run),
		cmocka_unit_test(processes_that_ignore_sigterm_are_gone_after_poweroff),
	};
	if (argc != 2)
		return 2;
	init_path = argv[1];
	return cmocka_run_group_tests_name("agent in a container", tests, start_server, stop_server);
}
