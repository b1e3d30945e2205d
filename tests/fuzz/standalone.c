/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A main() for fuzz targets where libFuzzer is not: replays files (and every file of a directory), then runs a bounded number
 * of pseudo-random mutations of them. The same seed gives the same inputs, so a failure here can be repeated.
 *
 * Before a mutation runs it is written to the file that FUZZ_CRASH_FILE names, where that is set, so that it survives the crash.
 */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INPUT_MAX (64u << 10)
#define MAX_FILES 4096

struct input {
	uint8_t *p;
	size_t n;
};

static struct input corpus[MAX_FILES];
static unsigned n_corpus;
static uint64_t rng;

/* xorshift64*: good enough to choose bytes, and the same everywhere. */
static uint32_t rnd(uint32_t below)
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return (uint32_t)((rng * 0x2545f4914f6cdd1dull) >> 32) % below;
}

static void load(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return; /* a target without a corpus yet */
	if (S_ISDIR(st.st_mode)) {
		struct dirent **names;
		int n = scandir(path, &names, NULL, alphasort);
		for (int i = 0; i < n; i++) {
			char sub[4096];
			if (names[i]->d_name[0] != '.' &&
			    snprintf(sub, sizeof(sub), "%s/%s", path, names[i]->d_name) < (int)sizeof(sub))
				load(sub);
			free(names[i]);
		}
		if (n >= 0)
			free(names);
		return;
	}
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || n_corpus == MAX_FILES) {
		fprintf(stderr, "cannot take %s\n", path);
		exit(2);
	}
	uint8_t *p = malloc(INPUT_MAX);
	ssize_t got = p ? read(fd, p, INPUT_MAX) : -1;
	close(fd);
	if (got < 0) {
		fprintf(stderr, "cannot read %s\n", path);
		exit(2);
	}
	corpus[n_corpus++] = (struct input){p, (size_t)got};
}

/* An exact-sized copy, so that a sanitizer sees a read one byte past the end. */
static void run(const uint8_t *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);
	if (!copy)
		exit(2);
	if (n)
		memcpy(copy, p, n);
	LLVMFuzzerTestOneInput(copy, n);
	free(copy);
}

static size_t mutate(uint8_t *p, size_t n)
{
	static const uint64_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000,
					 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff};
	for (unsigned k = 1 + rnd(6); k; k--) {
		size_t at = n ? rnd((uint32_t)n) : 0;
		switch (rnd(7)) {
		case 0: /* a bit */
			if (n)
				p[at] ^= (uint8_t)(1u << rnd(8));
			break;
		case 1: /* a byte */
			if (n)
				p[at] = (uint8_t)rnd(256);
			break;
		case 2: /* a number at the edge of its range, of 1 to 8 bytes */
		{
			uint64_t v = edges[rnd(sizeof(edges) / sizeof(edges[0]))];
			size_t w = (size_t)1 << rnd(4);
			if (at + w <= n)
				memcpy(p + at, &v, w);
			break;
		}
		case 3: /* shorter */
			n = at;
			break;
		case 4: /* longer */
		{
			size_t more = 1 + rnd(64);
			if (n + more > INPUT_MAX)
				break;
			for (size_t i = 0; i < more; i++)
				p[n + i] = (uint8_t)rnd(256);
			n += more;
			break;
		}
		case 5: /* a piece repeated elsewhere */
			if (n > 8) {
				size_t from = rnd((uint32_t)n), len = 1 + rnd(32);
				if (from + len <= n && at + len <= n)
					memmove(p + at, p + from, len);
			}
			break;
		default: /* the tail of another input */
			if (n_corpus) {
				const struct input *o = &corpus[rnd(n_corpus)];
				if (o->n && at + o->n <= INPUT_MAX) {
					size_t from = rnd((uint32_t)o->n);
					memcpy(p + at, o->p + from, o->n - from);
					n = at + o->n - from;
				}
			}
		}
	}
	return n;
}

int main(int argc, char **argv)
{
	unsigned long mutations = 0, seed = 1;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--mutate") && i + 1 < argc)
			mutations = strtoul(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
			seed = strtoul(argv[++i], NULL, 0);
		else
			load(argv[i]);
	}
	rng = 0x9e3779b97f4a7c15ull * (seed + 1) | 1;
	for (unsigned i = 0; i < n_corpus; i++)
		run(corpus[i].p, corpus[i].n);

	uint8_t *p = malloc(INPUT_MAX);
	if (!p)
		return 2;
	const char *crash = getenv("FUZZ_CRASH_FILE");
	for (unsigned long k = 0; k < mutations; k++) {
		size_t n = 0;
		if (n_corpus) {
			const struct input *in = &corpus[rnd(n_corpus)];
			memcpy(p, in->p, n = in->n);
		}
		n = mutate(p, n);
		if (crash) {
			int fd = open(crash, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
			if (fd < 0 || write(fd, p, n) != (ssize_t)n)
				perror(crash);
			if (fd >= 0)
				close(fd);
		}
		run(p, n);
	}
	free(p);
	for (unsigned i = 0; i < n_corpus; i++)
		free(corpus[i].p);
	printf("%u corpus files, %lu mutations of seed %lu\n", n_corpus, mutations, seed);
	return 0;
}
