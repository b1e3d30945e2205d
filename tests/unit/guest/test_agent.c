/* SPDX-License-Identifier: Apache-2.0 */
/* The agent with real processes, on the host: exit status, streams, terminals, errors, sessions. */
#include "client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"

static char sh[] = "sh", dash_c[] = "-c";

static struct server *srv(void **state)
{
	return *state;
}

static bool gone(uint32_t pid)
{
	return kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

static bool gone_within(uint32_t pid, int ms)
{
	for (; ms > 0; ms -= 10) {
		if (gone(pid))
			return true;
		usleep(10000);
	}
	return gone(pid);
}

static void status_and_signal_come_back(void **state)
{
	static const struct {
		const char *script;
		uint32_t status, signal;
	} cases[] = {
		{"exit 0", 0, 0},          {"exit 7", 7, 0},           {"exit 255", 255, 0},
		{"kill -9 $$", 0, SIGKILL}, {"kill -TERM $$", 0, SIGTERM}, {"kill -PIPE $$", 0, SIGPIPE},
		{"kill -CHLD $$; kill -HUP $$", 0, SIGHUP},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct outcome o;
		run_script(srv(state), cases[i].script, &o);
		assert_true(o.exited && o.pid > 0);
		assert_int_equal(o.exit.status, cases[i].status);
		assert_int_equal(o.exit.signal, cases[i].signal);
		outcome_free(&o);
	}
}

static void stdout_and_stderr_are_apart(void **state)
{
	struct outcome o;
	run_script(srv(state), "echo out; echo err >&2; printf 'a\\000b'", &o);
	assert_int_equal(o.out.len, 7);
	assert_memory_equal(o.out.p, "out\na\0b", 7);
	assert_int_equal(o.err.len, 4);
	assert_memory_equal(o.err.p, "err\n", 4);
	outcome_free(&o);
}

static void stdin_is_dev_null_when_not_asked_for(void **state)
{
	struct outcome o;
	run_script(srv(state), "cat; readlink /proc/self/fd/0", &o);
	assert_true(outcome_says(&o, "/dev/null\n"));
	outcome_free(&o);
}

/* Sends bytes of a pattern to a program and checks what comes back, keeping to the window. */
static void pump(int fd, size_t total, bool echoed, struct outcome *o)
{
	size_t sent = 0, got = 0, window = AGENT_STDIN_WINDOW;
	uint8_t *data = malloc(total);
	struct buf b = {0};
	size_t b_at = 0;
	bool closed = false;
	for (size_t i = 0; i < total; i++)
		data[i] = (uint8_t)((i * 2654435761u) >> 13);
	for (;;) {
		if (b_at == b.len) {
			buf_free(&b);
			b_at = 0;
			size_t n = total - sent;
			n = n < 50001 ? n : 50001;
			n = n < window ? n : window;
			if (n) {
				agent_put_frame(&b, AGENT_STDIN, data + sent, n);
				sent += n;
				window -= n;
			} else if (sent == total && !closed) {
				agent_put_frame(&b, AGENT_STDIN_CLOSE, NULL, 0);
				closed = true;
			}
		}
		struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (b_at < b.len ? POLLOUT : 0))};
		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		if (p.revents & POLLOUT) {
			ssize_t n = send(fd, b.p + b_at, b.len - b_at, MSG_DONTWAIT | MSG_NOSIGNAL);
			assert_true(n > 0);
			b_at += (size_t)n;
		}
		if (!(p.revents & POLLIN))
			continue;
		uint8_t *body;
		uint32_t len, v;
		unsigned type = client_recv(fd, &body, &len);
		if (type == AGENT_STDOUT && echoed) {
			assert_true(got + len <= total);
			assert_memory_equal(body, data + got, len);
			got += len;
		} else if (type == AGENT_STDOUT) {
			buf_put_bytes(&o->out, body, len);
		} else if (type == AGENT_STDIN_CREDIT) {
			assert_int_equal(agent_get_u32(body, len, &v, NULL), 0);
			window += v;
			assert_true(window <= AGENT_STDIN_WINDOW);
		} else if (type == AGENT_EXIT) {
			o->exited = true;
			agent_get_exit(body, len, &o->exit, NULL);
		} else {
			assert_int_equal(type, AGENT_STARTED);
		}
		free(body);
		if (type == AGENT_EXIT)
			break;
	}
	if (echoed)
		assert_int_equal(got, total);
	assert_int_equal(sent, total);
	buf_free(&b);
	free(data);
}

static void ten_megabytes_go_both_ways_unchanged(void **state)
{
	char *argv[] = {(char[]){"cat"}, NULL};
	struct outcome o = {0};
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.flags = AGENT_START_STDIN, .argv = argv});
	pump(fd, 10u << 20, true, &o);
	assert_int_equal(o.exit.status, 0);
	outcome_free(&o);
	close(fd);
}

static void input_goes_on_when_the_program_has_closed_its_stdin(void **state)
{
	char *argv[] = {sh, dash_c, (char[]){"exec <&-; sleep 0.3; echo done"}, NULL};
	struct outcome o = {0};
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.flags = AGENT_START_STDIN, .argv = argv});
	pump(fd, 2u << 20, false, &o);
	assert_true(outcome_says(&o, "done\n"));
	outcome_free(&o);
	close(fd);
}

static void a_slow_reader_holds_the_program_back_and_loses_nothing(void **state)
{
	char *argv[] = {sh, dash_c, (char[]){"head -c 20000000 /dev/zero; echo >&2 written; exit 3"}, NULL};
	struct outcome o = {0};
	char path[64], text[200] = "";
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.argv = argv});
	usleep(400000);
	/* Still there, waiting: 20 MB fit nowhere. And the agent kept none of it. */
	snprintf(path, sizeof(path), "/proc/%d/statm", (int)srv(state)->pid);
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	fclose(f);
	int quick = client_connect(srv(state)); /* others are served meanwhile */
	char *echo[] = {(char[]){"echo"}, (char[]){"quick"}, NULL};
	struct outcome q = {0};
	client_start(quick, &(struct agent_start){.argv = echo});
	client_finish(quick, &q);
	assert_true(outcome_says(&q, "quick\n"));
	outcome_free(&q);
	close(quick);
	client_finish(fd, &o);
	assert_int_equal(o.out.len, 20000000);
	assert_int_equal(o.err.len, 8);
	assert_int_equal(o.exit.status, 3);
	outcome_free(&o);
	close(fd);
}

static void output_written_just_before_the_end_is_not_lost_to_a_slow_reader(void **state)
{
	char *argv[] = {sh, dash_c, (char[]){"sleep 3 & head -c 300000 /dev/zero"}, NULL};
	struct outcome o = {0};
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.argv = argv});
	usleep(500000);
	client_finish(fd, &o);
	assert_int_equal(o.out.len, 300000);
	assert_true(o.exited);
	outcome_free(&o);
	close(fd);
}

static void a_child_that_keeps_the_pipe_does_not_hold_exit_back(void **state)
{
	struct outcome o;
	uint64_t t = clock_mono_ns();
	run_script(srv(state), "sleep 5 & echo hi", &o);
	assert_true(outcome_says(&o, "hi\n"));
	assert_true(o.exited && clock_mono_ns() - t < 2000000000u);
	outcome_free(&o);

	t = clock_mono_ns(); /* also when it never stops writing */
	run_script(srv(state), "(timeout 5 yes &) ; echo hi >&2; exit 4", &o);
	assert_true(o.exited && clock_mono_ns() - t < 3000000000u);
	assert_int_equal(o.exit.status, 4);
	outcome_free(&o);
}

static void a_command_that_cannot_start_says_why(void **state)
{
	static const struct {
		const char *command, *cwd, *user;
		uint32_t code;
		const char *says;
	} cases[] = {
		{"no-such-command", "", "", AGENT_E_NOT_FOUND, "no-such-command"},
		{"/no/such/file", "", "", AGENT_E_NOT_FOUND, "/no/such/file"},
		{"", "", "", AGENT_E_NOT_FOUND, "empty"},
		{"/etc/passwd", "", "", AGENT_E_NOT_EXEC, "/etc/passwd"},
		{"/etc", "", "", AGENT_E_NOT_EXEC, "directory"},
		{"sh", "/etc/passwd", "", AGENT_E_BAD_CWD, "/etc/passwd"},
		{"sh", "/proc/no-such", "", AGENT_E_BAD_CWD, "/proc/no-such"},
		{"sh", "relative", "", AGENT_E_BAD_CWD, "relative"},
		{"sh", "", "no-such-user", AGENT_E_BAD_USER, "no-such-user"},
		{"sh", "", "root:no-such-group", AGENT_E_BAD_USER, "no-such-group"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct outcome o = {0};
		char *argv[] = {(char *)(uintptr_t)cases[i].command, NULL};
		int fd = client_connect(srv(state));
		client_start(fd, &(struct agent_start){.argv = argv,
						       .cwd = (char *)(uintptr_t)cases[i].cwd,
						       .user = (char *)(uintptr_t)cases[i].user});
		client_finish(fd, &o);
		assert_int_equal(o.error_code, cases[i].code);
		assert_non_null(strstr(o.error, cases[i].says));
		assert_true(o.pid == 0 && !o.exited);
		uint8_t *body;
		uint32_t len;
		assert_int_equal(client_recv(fd, &body, &len), 0); /* and the stream ends */
		close(fd);
	}
}

static void files_that_are_no_programs_are_told_apart(void **state)
{
	char dir[] = "/tmp/caisson-test-exec.XXXXXX", path[100], *argv[] = {path, NULL};
	assert_non_null(mkdtemp(dir));
	static const struct {
		const char *name, *text;
		mode_t mode;
		uint32_t code;
		const char *says;
	} cases[] = {
		{"lost", "#!/no/such/interpreter\n", 0755, AGENT_E_NOT_FOUND, "interpreter"},
		{"noise", "\x7f" "ELFnothing", 0755, AGENT_E_NOT_EXEC, "cannot be executed"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct outcome o = {0};
		snprintf(path, sizeof(path), "%s/%s", dir, cases[i].name);
		FILE *f = fopen(path, "we");
		assert_non_null(f);
		fputs(cases[i].text, f);
		fclose(f);
		chmod(path, cases[i].mode);
		int fd = client_connect(srv(state));
		client_start(fd, &(struct agent_start){.argv = argv});
		client_finish(fd, &o);
		assert_int_equal(o.error_code, cases[i].code);
		assert_non_null(strstr(o.error, cases[i].says));
		close(fd);
		unlink(path);
	}
	rmdir(dir);
}

static void path_is_searched_as_execvp_does(void **state)
{
	char dir[] = "/tmp/caisson-test-path.XXXXXX", path[100], env[200];
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/tool", dir);
	FILE *f = fopen(path, "we");
	assert_non_null(f);
	fputs("#!/bin/sh\necho mine\n", f);
	fclose(f);

	char *argv[] = {(char[]){"tool"}, NULL}, *envp[] = {env, NULL};
	for (int executable = 0; executable < 2; executable++) {
		struct outcome o = {0};
		chmod(path, executable ? 0755 : 0644);
		snprintf(env, sizeof(env), "PATH=/nowhere:%s:/etc/passwd:/bin", dir);
		int fd = client_connect(srv(state));
		client_start(fd, &(struct agent_start){.argv = argv, .env = envp});
		client_finish(fd, &o);
		if (executable)
			assert_true(outcome_says(&o, "mine\n"));
		else
			assert_int_equal(o.error_code, AGENT_E_NOT_EXEC);
		outcome_free(&o);
		close(fd);
	}
	unlink(path);
	rmdir(dir);
}

static void environment_directory_limits_and_user_are_as_asked(void **state)
{
	char dir[] = "/tmp/caisson-test-cwd.XXXXXX", cwd[100];
	assert_non_null(mkdtemp(dir));
	snprintf(cwd, sizeof(cwd), "%s/made/deep", dir);
	char *argv[] = {sh, dash_c, (char[]){"pwd; echo $A; echo ${PATH%%:*}; echo ${HOME:+home}; ulimit -n; id -u; id -g; echo ${TERM-none}"},
			NULL};
	char *env[] = {(char[]){"A=b c"}, NULL};
	struct outcome o = {0};
	char want[400];
	bool root = geteuid() == 0;
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.argv = argv,
					       .env = env,
					       .cwd = cwd,
					       .user = root ? (char[]){"4321:8765"} : NULL,
					       .n_rlimits = 1,
					       .rlimit = {{7, 100, 200}}});
	client_finish(fd, &o);
	snprintf(want, sizeof(want), "%s\nb c\n/usr/local/sbin\nhome\n100\n%u\n%u\ndumb\n", cwd, root ? 4321 : geteuid(),
		 root ? 8765 : getegid());
	char *none = strstr(want, "dumb");
	if (o.out.len && o.out.p[o.out.len - 2] == 'e') /* a shell may set TERM=dumb itself */
		strcpy(none, "none\n");
	/* mkdtemp made dir 0700 and the user is another: the directory cannot be entered, which is as right an answer. */
	if (o.error_code) {
		assert_int_equal(o.error_code, AGENT_E_BAD_CWD);
		chmod(dir, 0755);
		close(fd);
		outcome_free(&o);
		fd = client_connect(srv(state));
		client_start(fd, &(struct agent_start){.argv = argv,
						       .env = env,
						       .cwd = cwd,
						       .user = root ? (char[]){"4321:8765"} : NULL,
						       .n_rlimits = 1,
						       .rlimit = {{7, 100, 200}}});
		client_finish(fd, &o);
		if (o.out.len && o.out.p[o.out.len - 2] == 'e')
			strcpy(none, "none\n");
	}
	assert_true(outcome_says(&o, want));
	outcome_free(&o);
	close(fd);
	rmdir(cwd);
	*strrchr(cwd, '/') = 0;
	rmdir(cwd);
	rmdir(dir);
}

static void no_descriptor_of_the_agent_reaches_the_program(void **state)
{
	struct outcome o;
	int other = client_connect(srv(state));
	run_script(srv(state), "for f in /proc/self/fd/*; do test -e $f && echo ${f##*/}; done", &o);
	/* dash itself may hold 10 while it runs a script, never one that it was given. */
	for (size_t i = 0; i + 1 < o.out.len; i += 2)
		assert_true(o.out.p[i] >= '0' && o.out.p[i] <= '2');
	assert_int_equal(o.exit.signal, 0);
	outcome_free(&o);
	run_script(srv(state), "grep -E 'Sig(Blk|Ign)' /proc/self/status", &o);
	/* Signals from 32 on are the C library's own and may be ignored all the way from who started this test. */
	unsigned long long blocked, ignored;
	buf_put_u8(&o.out, 0);
	assert_int_equal(sscanf((char *)o.out.p, "SigBlk: %llx SigIgn: %llx", &blocked, &ignored), 2);
	assert_int_equal(blocked, 0);
	assert_int_equal(ignored & 0x7fffffff, 0);
	outcome_free(&o);
	close(other);
}

static void a_signal_reaches_the_program(void **state)
{
	char *argv[] = {sh, dash_c, (char[]){"trap 'echo got; exit 5' USR1; echo up; while :; do sleep 0.05; done"}, NULL};
	struct outcome o = {0};
	struct buf b = {0};
	uint8_t *body;
	uint32_t len;
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.argv = argv});
	assert_int_equal(client_recv(fd, &body, &len), AGENT_STARTED);
	free(body);
	assert_int_equal(client_recv(fd, &body, &len), AGENT_STDOUT);
	free(body);
	agent_put_u32(&b, AGENT_SIGNAL, SIGUSR1);
	client_send(fd, &b);
	client_finish(fd, &o);
	assert_true(outcome_says(&o, "got\n"));
	assert_int_equal(o.exit.status, 5);
	outcome_free(&o);
	close(fd);
}

/* Runs one of the agent's own functions. */
static void run_builtin(const struct server *s, char *const *argv, struct outcome *o)
{
	int fd = client_connect(s);
	*o = (struct outcome){0};
	client_start(fd, &(struct agent_start){.flags = AGENT_START_BUILTIN, .argv = (char **)(uintptr_t)argv});
	client_finish(fd, o);
	close(fd);
}

static void a_function_of_the_agent_runs_as_a_program_would(void **state)
{
	struct outcome o;
	run_builtin(srv(state), (char *[]){(char[]){"stat"}, (char[]){"/proc/self/fd/0"}, NULL}, &o);
	buf_put_u8(&o.out, 0);
	assert_int_equal(strncmp((char *)o.out.p, "{\"type\":\"link\",\"mode\":", 22), 0);
	assert_non_null(strstr((char *)o.out.p, "\"target\":\"/dev/null\"}\n"));
	assert_true(o.exited && o.exit.status == 0);
	outcome_free(&o);

	run_builtin(srv(state), (char *[]){(char[]){"stat"}, (char[]){"/no/such"}, NULL}, &o);
	assert_int_equal(o.exit.status, 1);
	assert_int_equal(o.out.len, 0);
	assert_non_null(memmem(o.err.p, o.err.len, "/no/such: No such file or directory\n", 36));
	outcome_free(&o);

	run_builtin(srv(state), (char *[]){(char[]){"stat"}, NULL}, &o);
	assert_int_equal(o.exit.status, 2);
	outcome_free(&o);

	run_builtin(srv(state), (char *[]){(char[]){"sh"}, (char[]){"-c"}, (char[]){"true"}, NULL}, &o);
	assert_int_equal(o.error_code, AGENT_E_NOT_FOUND);
	outcome_free(&o);
}

/* Reads STDOUT of a terminal until text was seen. */
static void expect(int fd, const char *text)
{
	struct buf b = {0};
	for (;;) {
		uint8_t *body;
		uint32_t len;
		unsigned type = client_recv(fd, &body, &len);
		assert_true(type == AGENT_STDOUT || type == AGENT_STARTED);
		if (type == AGENT_STDOUT)
			buf_put_bytes(&b, body, len);
		free(body);
		if (b.len && memmem(b.p, b.len, text, strlen(text)))
			break;
	}
	buf_free(&b);
}

static void type_in(int fd, const char *keys)
{
	struct buf b = {0};
	agent_put_frame(&b, AGENT_STDIN, keys, strlen(keys));
	client_send(fd, &b);
}

static void a_terminal_has_size_job_control_and_an_end(void **state)
{
	char *argv[] = {sh, dash_c,
			(char[]){"stty size; tty; echo $TERM; read l; stty size; trap 'echo INT' INT; echo wait; read x; cat; echo end"},
			NULL};
	struct outcome o = {0};
	struct buf b = {0};
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.flags = AGENT_START_TTY | AGENT_START_STDIN, .rows = 24, .cols = 80, .argv = argv});
	expect(fd, "xterm");
	agent_put_resize(&b, 50, 132);
	client_send(fd, &b);
	type_in(fd, "\n");
	expect(fd, "wait");
	type_in(fd, "\x03"); /* Ctrl-C: the line discipline makes it SIGINT */
	expect(fd, "INT");
	type_in(fd, "\nhello");
	expect(fd, "hello");
	b = (struct buf){0};
	agent_put_frame(&b, AGENT_STDIN_CLOSE, NULL, 0);
	client_send(fd, &b);
	client_finish(fd, &o);
	assert_non_null(memmem(o.out.p, o.out.len, "end", 3));
	assert_true(o.exited);
	assert_int_equal(o.exit.status, 0);
	assert_int_equal(o.err.len, 0);
	outcome_free(&o);
	close(fd);
}

static void a_terminal_reports_its_first_size_and_name(void **state)
{
	char *argv[] = {sh, dash_c, (char[]){"stty size; tty | cut -c1-8; test -t 0 && test -t 1 && test -t 2 && echo all"}, NULL};
	struct outcome o = {0};
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.flags = AGENT_START_TTY, .rows = 33, .cols = 99, .argv = argv});
	client_finish(fd, &o);
	assert_true(outcome_says(&o, "33 99\r\n/dev/pts\r\nall\r\n"));
	outcome_free(&o);
	close(fd);
}

static void a_terminal_program_with_much_output_loses_nothing(void **state)
{
	char *argv[] = {sh, dash_c, (char[]){"seq 1 20000; exit 6"}, NULL};
	struct outcome o = {0};
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.flags = AGENT_START_TTY | AGENT_START_STDIN, .argv = argv});
	client_finish(fd, &o);
	assert_int_equal(o.out.len, 108894 + 20000); /* a carriage return a line */
	assert_memory_equal(o.out.p + o.out.len - 7, "20000\r\n", 7);
	assert_int_equal(o.exit.status, 6);
	outcome_free(&o);
	close(fd);
}

static void closing_the_stream_ends_the_whole_session(void **state)
{
	/* The leader and one in a process group of its own ignore SIGHUP: both must be gone after SIGKILL. */
	char *argv[] = {(char[]){"bash"}, dash_c, (char[]){"trap '' HUP; set -m; sleep 60 & echo $!; sleep 60"}, NULL};
	uint8_t *body;
	uint32_t len, pid;
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.argv = argv});
	assert_int_equal(client_recv(fd, &body, &len), AGENT_STARTED);
	agent_get_u32(body, len, &pid, NULL);
	free(body);
	assert_int_equal(client_recv(fd, &body, &len), AGENT_STDOUT);
	body[len] = 0;
	uint32_t child = (uint32_t)atoi((char *)body);
	free(body);
	assert_true(child > 1 && !gone(child));
	close(fd);
	usleep(300000);
	assert_false(gone(pid)); /* SIGHUP first, ignored here */
	assert_true(gone_within(pid, 3000));
	/* The child becomes somebody else's, who reaps it sooner or later: a zombie is as ended. */
	char path[64], stat[300] = "";
	snprintf(path, sizeof(path), "/proc/%u/stat", child);
	FILE *f = fopen(path, "re");
	if (f) {
		assert_non_null(fgets(stat, sizeof(stat), f));
		fclose(f);
		assert_non_null(strstr(stat, ") Z"));
	}
}

static void closing_the_stream_ends_an_ordinary_program_at_once(void **state)
{
	char *argv[] = {(char[]){"sleep"}, (char[]){"60"}, NULL};
	uint8_t *body;
	uint32_t len, pid;
	int fd = client_connect(srv(state));
	client_start(fd, &(struct agent_start){.argv = argv});
	assert_int_equal(client_recv(fd, &body, &len), AGENT_STARTED);
	agent_get_u32(body, len, &pid, NULL);
	free(body);
	close(fd);
	assert_true(gone_within(pid, 700));
}

static void many_sessions_run_at_once_and_one_too_many_is_refused(void **state)
{
	int fds[256];
	char *argv[] = {sh, dash_c, (char[]){"read x; echo $x"}, NULL};
	unsigned n = 0;
	/* Sessions of earlier tests may be lingering still. */
	for (int tries = 0; n < 256 && tries < 400; tries++) {
		fds[n] = client_connect(srv(state));
		if (fds[n] >= 0)
			n++;
		else
			usleep(20000);
	}
	assert_int_equal(n, 256);
	assert_int_equal(client_connect(srv(state)), -1);
	for (unsigned i = 0; i < 60; i++)
		client_start(fds[i], &(struct agent_start){.flags = AGENT_START_STDIN, .argv = argv});
	for (unsigned i = 0; i < 60; i++) {
		char line[20];
		struct outcome o = {0};
		snprintf(line, sizeof(line), "n%u\n", i);
		type_in(fds[i], line);
		client_finish(fds[i], &o);
		assert_true(outcome_says(&o, line));
		outcome_free(&o);
	}
	for (unsigned i = 0; i < 256; i++)
		close(fds[i]);
}

static int start_server(void **state)
{
	struct server *s = calloc(1, sizeof(*s));
	server_start(s);
	*state = s;
	return 0;
}

static int stop_server(void **state)
{
	server_stop(*state);
	free(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(status_and_signal_come_back),
		cmocka_unit_test(stdout_and_stderr_are_apart),
		cmocka_unit_test(stdin_is_dev_null_when_not_asked_for),
		cmocka_unit_test(ten_megabytes_go_both_ways_unchanged),
		cmocka_unit_test(input_goes_on_when_the_program_has_closed_its_stdin),
		cmocka_unit_test(a_slow_reader_holds_the_program_back_and_loses_nothing),
		cmocka_unit_test(output_written_just_before_the_end_is_not_lost_to_a_slow_reader),
		cmocka_unit_test(a_child_that_keeps_the_pipe_does_not_hold_exit_back),
		cmocka_unit_test(a_command_that_cannot_start_says_why),
		cmocka_unit_test(files_that_are_no_programs_are_told_apart),
		cmocka_unit_test(path_is_searched_as_execvp_does),
		cmocka_unit_test(environment_directory_limits_and_user_are_as_asked),
		cmocka_unit_test(no_descriptor_of_the_agent_reaches_the_program),
		cmocka_unit_test(a_function_of_the_agent_runs_as_a_program_would),
		cmocka_unit_test(a_signal_reaches_the_program),
		cmocka_unit_test(a_terminal_has_size_job_control_and_an_end),
		cmocka_unit_test(a_terminal_reports_its_first_size_and_name),
		cmocka_unit_test(a_terminal_program_with_much_output_loses_nothing),
		cmocka_unit_test(closing_the_stream_ends_the_whole_session),
		cmocka_unit_test(closing_the_stream_ends_an_ordinary_program_at_once),
		cmocka_unit_test(many_sessions_run_at_once_and_one_too_many_is_refused),
	};
	return cmocka_run_group_tests_name("agent", tests, start_server, stop_server);
}
