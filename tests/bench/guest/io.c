/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * What a program does with files on a disk, one thing after the other, each between two lines on the console:
 *
 *	io NAME start
 *	io NAME end AMOUNT UNIT
 *
 * Whoever reads the console takes the times: the clock of a guest under TCG ticks in steps of 10 ms. AMOUNT is what was done between the lines, so that
 * amount over time is the figure. What is read was written before, and the page cache is dropped in between, so reads reach the device.
 *
 * As PID 1 it mounts /dev/vda (ext4) and powers off at the end; `io SCALE` in the kernel's command line multiplies the work.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK	 (1u << 20)
#define BLOCK	 4096u
#define FILE_MIB 48u

static uint8_t *buffer; /* CHUNK bytes, aligned for O_DIRECT */

static void die(const char *what)
{
	printf("io failed: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	reboot(RB_POWER_OFF);
	exit(1);
}

static void start(const char *name)
{
	printf("io %s start\n", name);
	fflush(stdout);
}

static void end(const char *name, unsigned amount, const char *unit)
{
	printf("io %s end %u %s\n", name, amount, unit);
	fflush(stdout);
}

static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
	sync();
	if (fd < 0 || write(fd, "3", 1) != 1)
		die("dropping the page cache");
	close(fd);
}

static int file(const char *path, int flags)
{
	int fd = open(path, flags, 0600);
	if (fd < 0)
		die(path);
	return fd;
}

static void write_sequential(unsigned scale)
{
	start("write");
	int fd = file("/mnt/data", O_RDWR | O_CREAT | O_TRUNC);
	for (unsigned k = 0; k < FILE_MIB * scale; k++) {
		memset(buffer, (int)k, 64); /* not the same block again and again */
		if (write(fd, buffer, CHUNK) != CHUNK)
			die("writing");
	}
	if (fsync(fd) < 0)
		die("fsync");
	close(fd);
	end("write", FILE_MIB * scale, "MiB");
}

static void read_sequential(unsigned scale)
{
	drop_caches();
	start("read");
	int fd = file("/mnt/data", O_RDONLY);
	for (unsigned k = 0; k < FILE_MIB * scale; k++)
		if (read(fd, buffer, CHUNK) != CHUNK || buffer[0] != (uint8_t)k)
			die("reading");
	close(fd);
	end("read", FILE_MIB * scale, "MiB");
}

static off_t place(uint32_t *state, unsigned scale)
{
	*state = *state * 1664525u + 1013904223u;
	return (off_t)(*state % (FILE_MIB * scale * (CHUNK / BLOCK))) * BLOCK;
}

static void at_random(const char *name, int flags, unsigned n, unsigned scale)
{
	uint32_t state = 1;
	drop_caches();
	int fd = file("/mnt/data", flags | O_DIRECT);
	start(name);
	for (unsigned k = 0; k < n * scale; k++) {
		off_t at = place(&state, scale);
		if ((flags == O_RDONLY ? pread(fd, buffer, BLOCK, at) : pwrite(fd, buffer, BLOCK, at)) != BLOCK)
			die(name);
	}
	end(name, n * scale, "blocks");
	close(fd);
}

static void write_synced(unsigned n)
{
	int fd = file("/mnt/log", O_WRONLY | O_CREAT | O_TRUNC);
	start("sync");
	for (unsigned k = 0; k < n; k++)
		if (write(fd, buffer, BLOCK) != BLOCK || fdatasync(fd) < 0)
			die("fdatasync");
	end("sync", n, "fdatasyncs");
	close(fd);
}

static void many_files(unsigned n)
{
	char path[64];
	start("files");
	if (mkdir("/mnt/d", 0700) < 0)
		die("mkdir");
	for (unsigned k = 0; k < n; k++) {
		snprintf(path, sizeof(path), "/mnt/d/file-%u", k);
		int fd = file(path, O_WRONLY | O_CREAT | O_EXCL);
		if (write(fd, buffer, 1000) != 1000)
			die("writing a small file");
		close(fd);
	}
	sync();
	for (unsigned k = 0; k < n; k++) {
		struct stat st;
		snprintf(path, sizeof(path), "/mnt/d/file-%u", k);
		if (stat(path, &st) < 0 || st.st_size != 1000 || unlink(path) < 0)
			die("removing a small file");
	}
	sync();
	end("files", n, "files");
}

int main(int argc, char **argv)
{
	unsigned scale = argc > 1 && atoi(argv[1]) > 0 ? (unsigned)atoi(argv[1]) : 1;
	mkdir("/proc", 0755);
	mkdir("/mnt", 0755);
	printf("caisson-bench: PID 1\n");
	fflush(stdout);
	if (mount("proc", "/proc", "proc", 0, NULL) < 0)
		die("mounting /proc");
	if (mount("dev", "/dev", "devtmpfs", 0, NULL) < 0)
		die("mounting /dev");
	if (mount("/dev/vda", "/mnt", "ext4", 0, NULL) < 0)
		die("mounting /dev/vda");
	if (posix_memalign((void **)&buffer, CHUNK, CHUNK))
		die("memory");
	memset(buffer, 0x5a, CHUNK);
	write_sequential(scale);
	read_sequential(scale);
	at_random("random-read", O_RDONLY, 2000, scale);
	at_random("random-write", O_WRONLY, 2000, scale);
	write_synced(200 * scale);
	many_files(500 * scale);
	umount("/mnt");
	printf("caisson-bench: done\n");
	fflush(stdout);
	reboot(RB_POWER_OFF);
	return 0;
}
