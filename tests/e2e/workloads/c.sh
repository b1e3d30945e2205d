# SPDX-License-Identifier: Apache-2.0
# gcc compiles and the result runs: integers, floats, 80-bit long doubles, vectors, threads, signals, setjmp.
set -e
cat >t.c <<'C'
#include <fenv.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void ld(const char *name, long double v)
{
	unsigned char b[16] = {0};
	memcpy(b, &v, 10);
	printf("%s %.21Lg ", name, v);
	for (int i = 9; i >= 0; i--)
		printf("%02x", b[i]);
	putchar('\n');
}

static uint64_t seed = 88172645463325252u;
static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static atomic_long counter;
static long plain;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static void *count(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		atomic_fetch_add(&counter, 1);
		if (i % 8 == 0) {
			pthread_mutex_lock(&m);
			plain++;
			pthread_mutex_unlock(&m);
		}
	}
	return arg;
}

static sigjmp_buf jb;
static volatile sig_atomic_t last;
static void on_signal(int n, siginfo_t *si, void *ctx)
{
	last = n * 100 + si->si_code;
	siglongjmp(jb, 1);
}

typedef int v4si __attribute__((vector_size(16)));
typedef float v4sf __attribute__((vector_size(16)));

int main(void)
{
	long double s = 0, p = 1;
	for (int i = 1; i < 3000; i++) {
		s += 1.0L / i;
		p *= 1.0L + 1.0L / ((long double)i * i);
	}
	ld("harmonic", s);
	ld("product", p);
	ld("sin", sinl(s));
	ld("cos", cosl(s * 1e6L));
	ld("tan", tanl(s));
	ld("exp", expl(s));
	ld("log", logl(p));
	ld("sqrt", sqrtl(2));
	ld("atan2", atan2l(p, s));
	ld("pow", powl(p, s));
	ld("fmod", fmodl(s * 1e9L, 0.3L));
	ld("round", roundl(s * 1000) + truncl(-s) + rintl(2.5L) + floorl(-2.5L));
	ld("denormal", 3.3e-4940L / 8);
	ld("huge", 1e4932L * 10);
	ld("strtold", strtold("3.14159265358979323846264338327950288", NULL));
	for (int mode = 0; mode < 4; mode++) {
		static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
		fesetround(modes[mode]);
		volatile double a = 1, b = 3;
		volatile long double c = 2, d = 7;
		printf("mode %d %a ", mode, a / b);
		ld("", c / d);
		printf("%lld %lld\n", llrint(2.5), llrintl(-3.5L));
	}
	fesetround(FE_TONEAREST);
	feclearexcept(FE_ALL_EXCEPT);
	volatile double z = 0, one = 1, big = 1e308;
	volatile double r = one / z;
	r = big * 10 + r;
	r = z / z;
	printf("flags %x %d\n", fetestexcept(FE_ALL_EXCEPT), r != r);

	uint64_t h = 0;
	for (int i = 0; i < 300000; i++) {
		uint64_t a = next(), b = next() | 1;
		h = h * 31 + a / b + a % b + (uint64_t)((__int128)(int64_t)a * (int64_t)b >> 64);
		h ^= (uint64_t)__builtin_popcountll(a) + (uint64_t)__builtin_clzll(b) + (uint64_t)__builtin_ctzll(b) + __builtin_bswap64(a);
		h += (a << (b & 63)) | (a >> (64 - (b & 63)) % 64);
		h ^= (uint64_t)(int64_t)((double)(int64_t)a / (double)(b >> 12 | 1));
	}
	printf("integers %016" PRIx64 "\n", h);

	v4si vi = {1, 2, 3, 4};
	v4sf vf = {1.5f, 2.5f, 3.5f, 4.5f};
	for (int i = 0; i < 100000; i++) {
		vi = vi * (v4si){3, 5, 7, 11} + (vi >> 3);
		vf = vf * (v4sf){1.0001f, 0.9999f, 1.00005f, 0.99995f} + (v4sf){0.25f, 0.5f, -0.25f, 0.125f};
	}
	printf("vectors %d %d %d %d %a %a %a %a\n", vi[0], vi[1], vi[2], vi[3], vf[0], vf[1], vf[2], vf[3]);

	pthread_t t[4];
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, count, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	printf("threads %ld %ld\n", counter, plain);

	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGFPE, &sa, NULL);
	sigaction(SIGILL, &sa, NULL);
	sigaction(SIGTRAP, &sa, NULL);
	if (!sigsetjmp(jb, 1))
		*(volatile int *)8 = 1;
	printf("fault %d\n", (int)last);
	volatile int zero = 0, x = 5;
	if (!sigsetjmp(jb, 1))
		x /= zero;
	printf("divide %d\n", (int)last);
	if (!sigsetjmp(jb, 1))
		__asm__ volatile("ud2");
	printf("invalid %d\n", (int)last);
	if (!sigsetjmp(jb, 1))
		__asm__ volatile("int3");
	printf("breakpoint %d\n", (int)last);
	return 0;
}
C
for o in 0 1 2 3 s; do
	gcc -O$o -o t$o t.c -lm -lpthread
	echo "-O$o"
	./t$o
done
gcc -O2 -S -o - t.c -fno-ident | sha256sum
gcc -O2 -m64 -mfpmath=387 -o t387 t.c -lm -lpthread && ./t387 | sha256sum
