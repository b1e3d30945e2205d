/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A few loops that each stress one thing that a CPU does, timed with CLOCK_MONOTONIC, one line of output each:
 *
 *	micro NAME NANOSECONDS CHECKSUM
 *
 * The same static program runs on the host, in Caisson and in QEMU, so that the ratio of the times is the slowdown; checksums must
 * agree, or the comparison is of different work. `micro SCALE [NAME...]` multiplies the amount of work, so that the same program
 * takes long enough natively and not too long where it runs slowly; each result is the best of three.
 *
 * As PID 1 (`init`) it prints a first line for whoever times the boot, takes its arguments from the kernel's command line after "--",
 * runs, and powers off; so the guest needs nothing but this one file.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

/* The line that the bench waits for. */
#define FIRST_LINE "caisson-bench: PID 1\n"

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t xorshift(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static uint64_t bench_integer(unsigned scale)
{
	uint64_t s = 88172645463325252u, sum = 0;
	for (uint64_t i = 0; i < 2000000u * (uint64_t)scale; i++)
		sum += xorshift(&s) & i;
	return sum;
}

static uint64_t bench_crc(unsigned scale)
{
	uint32_t table[256], crc = ~0u;
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;
		for (int k = 0; k < 8; k++)
			c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
		table[i] = c;
	}
	for (uint32_t i = 0; i < 2000000u * scale; i++)
		crc = table[(crc ^ i) & 0xff] ^ (crc >> 8);
	return ~crc;
}

static uint64_t bench_sieve(unsigned scale)
{
	enum { N = 1000000 };
	uint8_t *composite = malloc(N);
	uint64_t primes = 0;
	for (unsigned r = 0; r < scale; r++) {
		memset(composite, 0, N);
		for (uint32_t i = 2; i * i < N; i++)
			if (!composite[i])
				for (uint32_t k = i * i; k < N; k += i)
					composite[k] = 1;
		for (uint32_t i = 2; i < N; i++)
			primes += !composite[i];
	}
	free(composite);
	return primes;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static uint64_t bench_sort(unsigned scale)
{
	enum { N = 50000 };
	uint32_t *v = malloc(N * sizeof(*v));
	uint64_t s = 2463534242u, sum = 0;
	for (unsigned r = 0; r < scale; r++) {
		for (uint32_t i = 0; i < N; i++)
			v[i] = (uint32_t)xorshift(&s);
		qsort(v, N, sizeof(*v), compare_u32);
		sum += v[N / 2] + v[r % N];
	}
	free(v);
	return sum;
}

static uint64_t bench_float(unsigned scale)
{
	double x = 1.5, y = 0;
	for (uint64_t i = 1; i <= 500000u * (uint64_t)scale; i++) {
		x = x * 1.000001 + 1.0 / (double)i;
		y += __builtin_sqrt(x) - x / (y + 3.0);
	}
	uint64_t bits;
	memcpy(&bits, &y, sizeof(bits));
	return bits;
}

static uint64_t bench_memcpy(unsigned scale)
{
	enum { N = 1 << 20 };
	uint8_t *a = malloc(N), *b = malloc(N);
	uint64_t sum = 0;
	memset(a, 1, N);
	memset(b, 2, N);
	for (unsigned r = 0; r < 32 * scale; r++) {
		a[r % N] = (uint8_t)r;
		memcpy(b, a, N);
		sum += b[r % N] + b[N - 1];
		/* keeps the compiler from dropping the copy */
		__asm__ volatile("" ::: "memory");
	}
	free(a);
	free(b);
	return sum;
}

static uint64_t bench_syscall(unsigned scale)
{
	uint64_t sum = 0;
	for (unsigned r = 0; r < 20000 * scale; r++)
		sum += getppid() >= 0;
	return sum;
}

static uint64_t bench_fault(unsigned scale)
{
	enum { PAGES = 1024 };
	uint64_t sum = 0;
	for (unsigned r = 0; r < scale; r++) {
		uint8_t *p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return 0;
		for (size_t i = 0; i < PAGES; i++) {
			p[i * 4096] = (uint8_t)i;
			sum += p[i * 4096];
		}
		munmap(p, PAGES * 4096);
	}
	return sum;
}

static const struct {
	const char *name;
	uint64_t (*run)(unsigned scale);
} benches[] = {
	{"integer", bench_integer}, {"crc", bench_crc},	      {"sieve", bench_sieve},	{"sort", bench_sort},
	{"float", bench_float},	    {"memcpy", bench_memcpy}, {"syscall", bench_syscall}, {"fault", bench_fault},
};

static void run_all(unsigned scale, int n_names, char **names)
{
	for (size_t i = 0; i < sizeof(benches) / sizeof(benches[0]); i++) {
		int wanted = n_names == 0;
		for (int k = 0; k < n_names; k++)
			wanted |= strcmp(names[k], benches[i].name) == 0;
		if (!wanted)
			continue;
		uint64_t best = UINT64_MAX, sum = 0;
		for (int k = 0; k < 3; k++) {
			uint64_t start = now_ns();
			sum = benches[i].run(scale);
			uint64_t took = now_ns() - start;
			best = took < best ? took : best;
		}
		printf("micro %s %llu %016llx\n", benches[i].name, (unsigned long long)best, (unsigned long long)sum);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	int init = getpid() == 1 && strcmp(argv[0], "/init") == 0;
	if (init)
		(void)!write(1, FIRST_LINE, sizeof(FIRST_LINE) - 1);
	/* "idle": stay, so that the cost of an idle guest can be seen from outside. */
	if (argc > 1 && strcmp(argv[1], "idle") == 0)
		for (;;)
			pause();
	long scale = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
	if (scale > 0)
		run_all((unsigned)scale, argc > 2 ? argc - 2 : 0, argv + 2);
	if (init) {
		printf("caisson-bench: done\n");
		fflush(stdout);
		/* Through the reset port: both monitors end on it, with or without ACPI. */
		reboot(RB_AUTOBOOT);
		for (;;)
			pause();
	}
	return 0;
}
