/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one file of /proc after the other, each into one buffer, and of it the few words that are wanted. A process that
 * ends while it is looked at is left out. What cannot be read counts as 0: a figure that is missing must not hide the others.
 *
 * A process's command is its argument vector with blanks for the zero bytes; without one (a zombie) its name in brackets.
 */
#include "guest/procs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "guest/json.h"
#include "guest/users.h"

#define MAX_COMMAND   4096u
#define MAX_PROCESSES 100000u
#define TEXT_SIZE     65536u

/* At most n - 1 bytes of a file, NUL-terminated. How many; 0 for none. */
static size_t read_some(int dir, const char *path, char *text, size_t n)
{
	cleanup_close int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd >= 0 ? file_read_full(fd, text, n - 1) : -1;
	text[got > 0 ? got : 0] = 0;
	return got > 0 ? (size_t)got : 0;
}

uint64_t procs_counter(const char *path, const char *name)
{
	char text[16384];
	size_t n = strlen(name);
	read_some(AT_FDCWD, path, text, sizeof(text));
	for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
		if (!strncmp(p, name, n) && p[n] == ' ')
			return strtoull(p + n, NULL, 10);
	return 0;
}

struct process {
	int pid, ppid;
	char state;
	char name[64];
	unsigned long long ticks, start, rss_pages;
};

/* /proc/PID/stat. The name stands in parentheses and is the only part that may hold one. */
static bool parse_stat(const char *text, struct process *p)
{
	const char *open = strchr(text, '('), *close = strrchr(text, ')');
	unsigned long long user, system;

	*p = (struct process){.pid = atoi(text)};
	if (!open || !close || close < open)
		return false;
	snprintf(p->name, sizeof(p->name), "%.*s", (int)(close - open - 1), open + 1);
	return sscanf(close + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %llu %*u %llu", &p->state,
		      &p->ppid, &user, &system, &p->start, &p->rss_pages) == 6 &&
	       (p->ticks = user + system, true);
}

static void put_command(struct buf *json, const struct process *p, int dir, char *text)
{
	size_t n = read_some(dir, "cmdline", text, MAX_COMMAND);
	if (!n)
		n = (size_t)snprintf(text, MAX_COMMAND, "[%s]", p->name);
	for (size_t i = 0; i + 1 < n; i++)
		if (!text[i])
			text[i] = ' ';
	while (n && (!text[n - 1] || text[n - 1] == ' '))
		n--;
	json_put_string(json, text, n);
}

static void put_process(struct buf *json, int dir, const struct process *p, int64_t boot_ms, const char *passwd, char *text)
{
	struct stat st = {0};
	char user[64];
	long hz = sysconf(_SC_CLK_TCK);

	fstat(dir, &st); /* the directory belongs to the process's effective user */
	if (json->len > 1)
		buf_put_u8(json, ',');
	json_put(json, "{\"pid\":%d,\"ppid\":%d,\"uid\":%u", p->pid, p->ppid, (unsigned)st.st_uid);
	if (users_name(passwd, st.st_uid, user, sizeof(user))) {
		json_put(json, ",\"user\":");
		json_put_string(json, user, strlen(user));
	}
	char state = isalpha((unsigned char)p->state) ? p->state : '?';
	json_put(json, ",\"state\":\"%c\",\"cpu_ms\":%llu,\"rss\":%llu,\"start_ms\":%lld,\"cmd\":", state, p->ticks * 1000 / (unsigned long)hz,
		 p->rss_pages * (unsigned long)sysconf(_SC_PAGESIZE), (long long)boot_ms + (long long)(p->start * 1000 / (unsigned long)hz));
	put_command(json, p, dir, text);
	buf_put_u8(json, '}');
}

/* Reports whether /proc/NAME is a process that is wanted, and appends it. */
static void take_process(struct buf *json, int proc, const char *name, int64_t boot_ms, const char *passwd, char *text)
{
	struct process p;
	cleanup_close int dir = openat(proc, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || !read_some(dir, "stat", text, TEXT_SIZE) || !parse_stat(text, &p))
		return;
	bool kernels = p.pid == 2 || p.ppid == 2; /* kthreadd; in a PID namespace 2 is a process like others, but then it has a command */
	if (kernels && !read_some(dir, "cmdline", text, 2) && p.state != 'Z')
		return;
	if (p.pid == 1 || p.pid == getpid())
		return;
	put_process(json, dir, &p, boot_ms, passwd, text);
}

int procs_list(struct buf *json, struct cai_error *err)
{
	struct timespec now, boot;
	cleanup_free char *passwd = NULL, *text = malloc(TEXT_SIZE);
	cleanup_closedir DIR *proc = opendir("/proc");
	struct dirent *e;
	size_t count = 0;

	if (!proc)
		return cai_fail_errno(err, errno, "cannot list /proc");
	if (!text)
		return cai_fail(err, ENOMEM, "out of memory in the sandbox");
	passwd = users_passwd();
	clock_gettime(CLOCK_REALTIME, &now);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	int64_t boot_ms = (now.tv_sec - boot.tv_sec) * 1000ll + (now.tv_nsec - boot.tv_nsec) / 1000000;

	buf_put_u8(json, '[');
	while (count < MAX_PROCESSES && (e = readdir(proc)))
		if (isdigit((unsigned char)e->d_name[0])) {
			take_process(json, dirfd(proc), e->d_name, boot_ms, passwd, text);
			count++;
		}
	buf_put_u8(json, ']');
	return 0;
}

/* The number behind a line's "NAME:" of /proc/meminfo, in bytes. */
static unsigned long long memory(const char *text, const char *name)
{
	size_t n = strlen(name);
	for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
		if (!strncmp(p, name, n) && p[n] == ':')
			return strtoull(p + n + 1, NULL, 10) * 1024;
	return 0;
}

static void put_cpu(struct buf *json, char *text)
{
	unsigned long long t[8] = {0}, busy;
	unsigned online = 0;
	read_some(AT_FDCWD, "/proc/stat", text, TEXT_SIZE);
	/* user nice system idle iowait irq softirq steal; guest time is in user already */
	if (sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]) < 4)
		memset(t, 0, sizeof(t));
	busy = t[0] + t[1] + t[2] + t[5] + t[6] + t[7];
	for (const char *p = strstr(text, "\ncpu"); p; p = strstr(p + 1, "\ncpu"))
		online++;
	json_put(json, ",\"cpu\":{\"online\":%u,\"usage_ns\":%llu}", online, busy * (1000000000ull / (unsigned long)sysconf(_SC_CLK_TCK)));
}

static void put_memory(struct buf *json, char *text)
{
	read_some(AT_FDCWD, "/proc/meminfo", text, TEXT_SIZE);
	json_put(json,
		 ",\"memory\":{\"total\":%llu,\"free\":%llu,\"available\":%llu,\"cached\":%llu,\"swap_total\":%llu,\"swap_free\":%llu,"
		 "\"oom_kills\":%llu}",
		 memory(text, "MemTotal"), memory(text, "MemFree"), memory(text, "MemAvailable"), memory(text, "Cached"),
		 memory(text, "SwapTotal"), memory(text, "SwapFree"), (unsigned long long)procs_counter("/proc/vmstat", "oom_kill"));
}

static void put_rootfs(struct buf *json)
{
	struct statvfs fs;
	if (statvfs("/", &fs) < 0)
		return;
	unsigned long long unit = fs.f_frsize, size = fs.f_blocks * unit, free_ = fs.f_bfree * unit;
	json_put(json, ",\"rootfs\":{\"size\":%llu,\"used\":%llu,\"free\":%llu}", size, size - free_,
		 (unsigned long long)fs.f_bavail * unit);
}

static void put_network(struct buf *json, char *text)
{
	char *save = NULL;
	bool first = true;
	read_some(AT_FDCWD, "/proc/net/dev", text, TEXT_SIZE);
	json_put(json, ",\"net\":{");
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		unsigned long long rx, rx_n, tx, tx_n;
		char *colon = strrchr(line, ':');
		if (!colon || sscanf(colon + 1, "%llu %llu %*u %*u %*u %*u %*u %*u %llu %llu", &rx, &rx_n, &tx, &tx_n) != 4)
			continue;
		line += strspn(line, " ");
		if (!first)
			buf_put_u8(json, ',');
		first = false;
		json_put_string(json, line, (size_t)(colon - line));
		json_put(json, ":{\"rx_bytes\":%llu,\"rx_packets\":%llu,\"tx_bytes\":%llu,\"tx_packets\":%llu}", rx, rx_n, tx, tx_n);
	}
	json_put(json, "}");
}

int procs_stats(struct buf *json, struct cai_error *err)
{
	struct timespec up = {0};
	double load[3] = {0};
	unsigned processes = 0;
	cleanup_free char *text = malloc(TEXT_SIZE);

	if (!text)
		return cai_fail(err, ENOMEM, "out of memory in the sandbox");
	clock_gettime(CLOCK_BOOTTIME, &up);
	read_some(AT_FDCWD, "/proc/loadavg", text, TEXT_SIZE);
	if (sscanf(text, "%lf %lf %lf %*u/%u", &load[0], &load[1], &load[2], &processes) != 4)
		processes = 0;
	json_put(json, "{\"uptime_ms\":%lld,\"processes\":%u,\"load\":[%.2f,%.2f,%.2f]", up.tv_sec * 1000ll + up.tv_nsec / 1000000, processes,
		 load[0], load[1], load[2]);
	put_cpu(json, text);
	put_memory(json, text);
	put_rootfs(json);
	put_network(json, text);
	json_put(json, "}");
	return 0;
}
