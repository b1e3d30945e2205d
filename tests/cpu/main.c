/* SPDX-License-Identifier: Apache-2.0 */
/*
 * difftest: the software CPU against the host's, instruction by instruction (see diff.h).
 *
 *   difftest [--seed N] [--cases N] [--case K] [--family NAME] [--tier slow|fast|both] [--failures N] [--verbose]
 *
 * Exit status: 0 all equal, 1 a difference, 2 the test itself could not run.
 */
#include "diff.h"

#include <Zydis/Zydis.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "compare.h"
#include "x86/cpu.h"

struct options {
	uint64_t seed, cases, first;
	unsigned families;
	unsigned max_failures;
	bool single, verbose, slow, fast;
};

/* Failures are told apart by mnemonic and by what differs; the first of each kind is shown in full. */
struct kind {
	char key[96];
	uint64_t n;
};

struct tally {
	struct kind kind[64];
	unsigned n_kinds;
	uint64_t failures;
	uint64_t completed, faults[32];
};

static void disassemble(const struct test_case *t, char *text, size_t size, char *mnemonic, size_t msize)
{
	ZydisDisassembledInstruction z;
	snprintf(text, size, "(bad)");
	snprintf(mnemonic, msize, "(bad)");
	size_t len = 0;
	for (unsigned at = 0; at < CODE_BYTES && t->code[at] != 0xcc; at += z.info.length) {
		if (!ZYAN_SUCCESS(ZydisDisassembleIntel(t->mode32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64, CODE_START + at, t->code + at, CODE_BYTES - at, &z)))
			break;
		len += (size_t)snprintf(text + len, len < size ? size - len : 0, "%s%s", at ? "; " : "", z.text);
		snprintf(mnemonic, msize, "%s", ZydisMnemonicGetString(z.info.mnemonic));
		if (t->family != FAM_SEQUENCE)
			break;
	}
	if (t->family == FAM_SEQUENCE)
		snprintf(mnemonic, msize, "sequence");
}

static void report(const struct options *opt, struct tally *tally, const struct test_case *t, const struct outcome *o,
		   const struct difference *d, const char *tier)
{
	char text[512], mnemonic[32], key[96];
	disassemble(t, text, sizeof(text), mnemonic, sizeof(mnemonic));
	snprintf(key, sizeof(key), "%-12s %s (%s)", mnemonic, d->what, tier);
	tally->failures++;
	for (unsigned i = 0; i < tally->n_kinds; i++)
		if (!strcmp(tally->kind[i].key, key)) {
			tally->kind[i].n++;
			return;
		}
	if (tally->n_kinds < 64) {
		snprintf(tally->kind[tally->n_kinds].key, sizeof(key), "%s", key);
		tally->kind[tally->n_kinds++].n = 1;
	}
	if (tally->n_kinds > opt->max_failures)
		return;
	printf("\nFAIL %s: %s differs (%s tier)\n  bytes ", text, d->what, tier);
	for (unsigned i = 0; i < CODE_BYTES && (i < 15 || t->code[i] != 0xcc); i++)
		printf(" %02x", t->code[i]);
	printf("\n  rerun  difftest --seed %llu --case %llu\n", (unsigned long long)opt->seed, (unsigned long long)t->number);
	print_outcomes(t, o);
	fflush(stdout);
}

static void check_batch(const struct options *opt, struct tally *tally, struct batch *b)
{
	static struct outcome o;
	for (unsigned k = 0; k < b->n; k++) {
		struct test_case *t = &b->c[k];
		normalise_native(&t->native);
		if (t->native.vector == 3)
			tally->completed++;
		else if (t->native.vector < 32)
			tally->faults[t->native.vector]++;
		for (int tier = 0; tier < 2; tier++) {
			if (!(tier ? opt->fast : opt->slow))
				continue;
			struct difference d = {0};
			soft_run(t, &o, tier);
			normalise_soft(&o);
			if (!compare(t, &o, &d))
				report(opt, tally, t, &o, &d, tier ? "fast" : "slow");
			else if (opt->verbose && !tier)
				print_outcomes(t, &o);
		}
	}
}

static int run(const struct options *opt, struct batch *b)
{
	const int pid = native_start(b);
	if (pid < 0 || soft_start())
		return 2;
	struct tally tally = {0};
	struct timespec t0, t1;
	clock_gettime(CLOCK_MONOTONIC, &t0);
	uint64_t given = 0, checked = 0;
	unsigned fill = 0, drain = 0, in_flight = 0;
	bool ok = true;
	while (checked < opt->cases && ok) {
		while (in_flight < N_BATCHES && given < opt->cases) {
			struct batch *f = &b[fill];
			for (f->n = 0; f->n < BATCH && given < opt->cases; f->n++, given++)
				generate(&f->c[f->n], opt->seed, opt->first + given, opt->families);
			native_submit(f);
			fill = (fill + 1) % N_BATCHES;
			in_flight++;
		}
		struct batch *d = &b[drain];
		ok = native_wait(d, pid);
		if (ok) {
			check_batch(opt, &tally, d);
			checked += d->n;
		}
		drain = (drain + 1) % N_BATCHES;
		in_flight--;
	}
	clock_gettime(CLOCK_MONOTONIC, &t1);
	kill(pid, SIGKILL);
	const double s = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
	printf("seed %llu: %llu cases in %.1f s (%.0f a second), %llu completed, #UD %llu #GP %llu #PF %llu #DE %llu #MF %llu #XM %llu; "
	       "%llu differ\n",
	       (unsigned long long)opt->seed, (unsigned long long)checked, s, (double)checked / s, (unsigned long long)tally.completed,
	       (unsigned long long)tally.faults[6], (unsigned long long)tally.faults[13], (unsigned long long)tally.faults[14],
	       (unsigned long long)tally.faults[0], (unsigned long long)tally.faults[16], (unsigned long long)tally.faults[19],
	       (unsigned long long)tally.failures);
	for (unsigned i = 0; i < tally.n_kinds; i++)
		printf("  %8llu  %s\n", (unsigned long long)tally.kind[i].n, tally.kind[i].key);
	return !ok ? 2 : tally.failures ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"seed", 1, NULL, 's'},   {"cases", 1, NULL, 'n'},    {"case", 1, NULL, 'k'},
					      {"family", 1, NULL, 'f'}, {"failures", 1, NULL, 'x'}, {"verbose", 0, NULL, 'v'},
					      {"tier", 1, NULL, 't'},   {NULL, 0, NULL, 0}};
	struct options opt = {.seed = (uint64_t)time(NULL), .cases = 100000, .families = 0, .max_failures = 12, .slow = true,
			      .fast = soft_has_fast()};
	for (int o; (o = getopt_long(argc, argv, "", longs, NULL)) != -1;)
		switch (o) {
		case 's':
			opt.seed = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			opt.cases = strtoull(optarg, NULL, 0);
			break;
		case 'k':
			opt.first = strtoull(optarg, NULL, 0);
			opt.cases = 1;
			opt.single = true;
			break;
		case 'f':
			for (unsigned f = 0; f < N_FAMILIES; f++)
				if (!strcmp(optarg, family_names[f]))
					opt.families |= 1u << f;
			if (!opt.families) {
				fprintf(stderr, "difftest: no family is called %s\n", optarg);
				return 2;
			}
			break;
		case 'x':
			opt.max_failures = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'v':
			opt.verbose = true;
			break;
		case 't':
			opt.slow = strcmp(optarg, "fast") != 0;
			opt.fast = strcmp(optarg, "slow") != 0 && soft_has_fast();
			break;
		default:
			return 2;
		}
	if (!opt.families)
		opt.families = (1u << N_FAMILIES) - 1;
	struct batch *b = mmap(NULL, N_BATCHES * sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b == MAP_FAILED) {
		perror("difftest");
		return 2;
	}
	return run(&opt, b);
}
