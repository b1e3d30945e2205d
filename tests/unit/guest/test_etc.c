/* SPDX-License-Identifier: Apache-2.0 */
/* The sandbox's own files of /etc, at the first SETUP and when a copy becomes another machine; in a small root of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "guest/etc.h"

#define TOP "/tmp/caisson-test-etc"
#define OLD_ID "0123456789abcdef0123456789abcdef\n"

static const struct agent_setup first = {.hostname = (char[]){"one"}, .hosts = (char[]){"10.0.0.1 one\n"}, .resolv_conf = (char[]){"nameserver 10.0.0.9\n"}};
static const struct agent_setup second = {.hostname = (char[]){"two"}, .hosts = (char[]){"10.0.0.2 two\n"}, .resolv_conf = (char[]){"nameserver 10.0.0.8\n"}};

static void must(int ok, const char *what, int line)
{
	if (ok)
		return;
	fprintf(stderr, "line %d failed: %s\n", line, what);
	_exit(1);
}
#define MUST(x) must(x, #x, __LINE__)

static void write_text(const char *path, const char *text, mode_t mode)
{
	FILE *f = fopen(path, "we");
	MUST(f != NULL);
	fputs(text, f);
	fclose(f);
	MUST(chmod(path, mode) == 0);
}

static bool says(const char *path, const char *want)
{
	char got[200] = "";
	FILE *f = fopen(path, "re");
	size_t n = f ? fread(got, 1, sizeof(got) - 1, f) : 0;
	if (f)
		fclose(f);
	if (f && n == strlen(want) && !memcmp(got, want, n))
		return true;
	fprintf(stderr, "%s says \"%s\"\n", path, got);
	return false;
}

static unsigned mounts(void)
{
	unsigned n = 0;
	char line[1000];
	FILE *f = fopen("/proc/self/mounts", "re");
	while (f && fgets(line, sizeof(line), f))
		n += strstr(line, " /etc/") != NULL;
	MUST(f != NULL);
	fclose(f);
	return n;
}

/* Runs fn with "/" a tmpfs that has /etc, /dev, /proc and /host; skips where that cannot be had. */
static void in_root(void (*fn)(void))
{
	int status;
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
			_exit(77);
		mkdir(TOP, 0755);
		if (mount("none", TOP, "tmpfs", 0, NULL) < 0)
			_exit(77);
		MUST(chdir(TOP) == 0);
		MUST(mkdir("etc", 0755) == 0 && mkdir("dev", 0755) == 0 && mkdir("proc", 0755) == 0 && mkdir("host", 0755) == 0);
		MUST(mount("none", "dev", "tmpfs", 0, NULL) == 0 && mount("none", "host", "tmpfs", 0, NULL) == 0);
		if (mount("proc", "proc", "proc", 0, NULL) < 0)
			_exit(77);
		MUST(chroot(".") == 0 && chdir("/") == 0);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	rmdir(TOP);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("skipped: not root, or no mount namespace on this host\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static bool is_new_id(const char *path)
{
	char id[40] = "";
	FILE *f = fopen(path, "re");
	size_t n = f ? fread(id, 1, sizeof(id), f) : 0;
	if (f)
		fclose(f);
	return n == 33 && strspn(id, "0123456789abcdef") == 32 && id[32] == '\n' && id[12] == '4' && strcmp(id, OLD_ID) != 0;
}

static void writable_root(void)
{
	struct cai_error err;
	struct stat st;
	write_text("/etc/machine-id", OLD_ID, 0444);
	write_text("/host/secret", "kept\n", 0644);
	MUST(etc_write(&(struct etc)ETC_INIT, &first, &err) == 0);
	MUST(says("/etc/machine-id", OLD_ID)); /* the first SETUP leaves it */
	MUST(says("/etc/hosts", first.hosts) && says("/etc/resolv.conf", first.resolv_conf) && says("/etc/hostname", "one\n"));
	/* A program replaced one by a link: not followed. One reads on in what it has open. */
	MUST(unlink("/etc/resolv.conf") == 0 && symlink("/host/secret", "/etc/resolv.conf") == 0);
	int fd = open("/etc/hosts", O_RDONLY | O_CLOEXEC);
	MUST(fd >= 0);
	MUST(etc_renew(&second, &err) == 0);
	MUST(says("/etc/hosts", second.hosts) && says("/etc/resolv.conf", second.resolv_conf) && says("/etc/hostname", "two\n"));
	char old[20] = "";
	MUST(read(fd, old, sizeof(old)) == (ssize_t)strlen(first.hosts) && !strncmp(old, first.hosts, sizeof(old)));
	close(fd);
	MUST(says("/host/secret", "kept\n"));
	MUST(is_new_id("/etc/machine-id"));
	MUST(stat("/etc/machine-id", &st) == 0 && (st.st_mode & 07777) == 0444);
	MUST(stat("/etc/hosts", &st) == 0 && (st.st_mode & 07777) == 0644);
	/* Silence changes nothing, and no machine-id is made of none or of a link. */
	MUST(unlink("/etc/machine-id") == 0);
	MUST(etc_renew(&(struct agent_setup){0}, &err) == 0);
	MUST(access("/etc/machine-id", F_OK) < 0);
	write_text("/etc/machine-id", "", 0444);
	MUST(etc_renew(&(struct agent_setup){0}, &err) == 0 && says("/etc/machine-id", ""));
	MUST(unlink("/etc/machine-id") == 0 && symlink("/host/secret", "/etc/machine-id") == 0);
	MUST(etc_renew(&(struct agent_setup){0}, &err) == 0 && says("/host/secret", "kept\n"));
	MUST(says("/etc/hosts", second.hosts) && says("/etc/resolv.conf", second.resolv_conf) && says("/etc/hostname", "two\n"));
	MUST(access("/etc/.caisson-hosts", F_OK) < 0 && access("/etc/.caisson-machine-id", F_OK) < 0);
}

static void read_only_root(void)
{
	struct cai_error err;
	write_text("/etc/machine-id", OLD_ID, 0444);
	write_text("/etc/hosts", "image\n", 0644);
	write_text("/etc/resolv.conf", "image\n", 0644);
	MUST(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0);
	MUST(etc_write(&(struct etc)ETC_INIT, &first, &err) == 0);
	MUST(says("/etc/hosts", first.hosts) && says("/etc/resolv.conf", first.resolv_conf));
	MUST(mounts() == 2);
	for (int again = 0; again < 3; again++) {
		MUST(etc_renew(again & 1 ? &first : &second, &err) == 0);
		MUST(says("/etc/hosts", again & 1 ? first.hosts : second.hosts));
		MUST(says("/etc/resolv.conf", again & 1 ? first.resolv_conf : second.resolv_conf));
		MUST(is_new_id("/etc/machine-id"));
		MUST(mounts() == 3); /* the same ones are written again */
	}
}

static void what_others_mounted(void)
{
	struct cai_error err;
	write_text("/host/hosts", "the host's\n", 0644);
	write_text("/host/machine-id", OLD_ID, 0644);
	MUST(etc_write(&(struct etc)ETC_INIT, &first, &err) == 0);
	write_text("/etc/machine-id", OLD_ID, 0644);
	MUST(mount("/host/hosts", "/etc/hosts", NULL, MS_BIND, NULL) == 0);
	MUST(mount("/host/machine-id", "/etc/machine-id", NULL, MS_BIND, NULL) == 0);
	MUST(etc_renew(&second, &err) == 0);
	MUST(says("/etc/hosts", "the host's\n") && says("/host/machine-id", OLD_ID));
	MUST(says("/etc/resolv.conf", second.resolv_conf)); /* the others are done */
	MUST(mount("/host", "/etc", NULL, MS_BIND, NULL) == 0);
	MUST(etc_renew(&first, &err) == 0);
	MUST(says("/host/hosts", "the host's\n") && access("/host/resolv.conf", F_OK) < 0 && access("/host/hostname", F_OK) < 0);
	MUST(umount("/etc") == 0 && says("/etc/resolv.conf", second.resolv_conf));
	/* A directory is in the way. */
	MUST(unlink("/etc/resolv.conf") == 0 && mkdir("/etc/resolv.conf", 0755) == 0);
	MUST(etc_renew(&first, &err) == -1 && strstr(err.text, "cannot write /etc/resolv.conf"));
	MUST(access("/etc/.caisson-resolv.conf", F_OK) < 0);
}

static void prepared_root(void)
{
	const struct agent_setup silent = {.hostname = (char[]){"box"}};
	struct cai_error err;
	struct stat st;
	/* One that the image has, one that is a link, one that is absent; then one that has another name, and one that is not for everybody. */
	struct etc e = ETC_INIT;
	write_text("/host/secret", "kept\n", 0644);
	write_text("/etc/hosts", "the image's own, which is longer than what comes\n", 0644);
	MUST(symlink("/host/secret", "/etc/resolv.conf") == 0);
	etc_prepare(&e, "/etc");
	MUST(e.fd[ETC_HOSTNAME] >= 0 && e.fd[ETC_HOSTS] >= 0 && e.fd[ETC_RESOLV] < 0);
	MUST(says("/etc/hosts", "the image's own, which is longer than what comes\n"));
	MUST(etc_write(&e, &first, &err) == 0);
	MUST(e.fd[ETC_HOSTNAME] < 0 && e.fd[ETC_HOSTS] < 0);
	MUST(says("/etc/hosts", first.hosts) && says("/etc/resolv.conf", first.resolv_conf) && says("/etc/hostname", "one\n"));
	MUST(says("/host/secret", "kept\n"));

	MUST(unlink("/etc/resolv.conf") == 0 && link("/etc/hosts", "/etc/other") == 0 && chmod("/etc/hostname", 0600) == 0);
	etc_prepare(&e, "/etc");
	MUST(e.fd[ETC_HOSTNAME] >= 0 && e.fd[ETC_HOSTS] < 0 && e.fd[ETC_RESOLV] >= 0);
	MUST(stat("/etc/hostname", &st) == 0 && (st.st_mode & 07777) == 0600);
	MUST(etc_write(&e, &second, &err) == 0);
	MUST(says("/etc/hosts", second.hosts) && says("/etc/other", first.hosts) && says("/etc/resolv.conf", second.resolv_conf));
	MUST(says("/etc/hostname", "two\n") && stat("/etc/hostname", &st) == 0 && (st.st_mode & 07777) == 0644);

	/* Where SETUP is silent the image's own stays, and what was made for it is filled. */
	MUST(unlink("/etc/resolv.conf") == 0);
	etc_prepare(&e, "/etc");
	MUST(etc_write(&e, &silent, &err) == 0);
	MUST(says("/etc/hosts", second.hosts) && says("/etc/resolv.conf", "options timeout:1 attempts:1\n") && says("/etc/hostname", "box\n"));
}

static void what_was_prepared_is_written_as_if_it_had_not_been(void **state)
{
	in_root(prepared_root);
}

static void a_copy_gets_its_own_files(void **state)
{
	in_root(writable_root);
}

static void a_read_only_root_gets_them_by_mounts_that_do_not_pile_up(void **state)
{
	in_root(read_only_root);
}

static void what_may_be_the_hosts_is_left_alone(void **state)
{
	in_root(what_others_mounted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_prepared_is_written_as_if_it_had_not_been),
		cmocka_unit_test(a_copy_gets_its_own_files),
		cmocka_unit_test(a_read_only_root_gets_them_by_mounts_that_do_not_pile_up),
		cmocka_unit_test(what_may_be_the_hosts_is_left_alone),
	};
	return cmocka_run_group_tests_name("files of /etc", tests, NULL, NULL);
}
