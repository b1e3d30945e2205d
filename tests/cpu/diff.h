/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The differential test of the software CPU against the host's: shared definitions.
 *
 * Theory of operation: a case is one instruction, a register file, an FXSAVE image and a window of memory. gen.c makes case K of seed S from
 * these two numbers alone, native.c runs a batch of cases in a child process on the real CPU, soft.c on struct x86_cpu, and main.c
 * compares. Both sides see the same linear addresses:
 *
 *   CODE_PAGE    the instruction, INT3 around it
 *   DATA + 0..1  read-write      2..3 read-only      4 absent      5 read-write      6.. absent
 *
 * A case works around one of the page boundaries; the 1024 bytes about that are filled before and compared after.
 */
#ifndef TESTS_CPU_DIFF_H
#define TESTS_CPU_DIFF_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/insn.h"
#include "x86/state.h"

#define CODE_PAGE  0x10000000ull
#define CODE_START (CODE_PAGE + 0x800)
#define DATA       0x20000000ull
#define DATA_PAGES 7
#define WINDOW     1024u
#define BATCH      512u
#define CODE_BYTES 128u

enum family { FAM_ALU, FAM_SHIFT, FAM_MOV, FAM_MUL, FAM_BIT, FAM_STRING, FAM_STACK, FAM_BRANCH, FAM_ATOMIC, FAM_MISC, FAM_SSE, FAM_X87,
	      FAM_SEQUENCE, /* several instructions, to test what a block does with flags */
	      FAM_COMPAT, /* instructions of the other families in 32-bit mode */
	      N_FAMILIES };
extern const char *const family_names[N_FAMILIES];

struct outcome {
	uint64_t r[16], rip, rflags, cr2;
	uint32_t vector; /* 3: completed (INT3 behind it was reached, or a jump left) */
	uint32_t error;
	struct x86_fxsave fx;
	uint8_t win[WINDOW];
};

struct test_case {
	uint64_t number;
	uint8_t code[CODE_BYTES];
	uint8_t family;
	bool mode32;
	uint64_t boundary; /* linear address of the middle of the window */
	uint64_t r[16], rflags;
	struct x86_fxsave fx;
	uint8_t win[WINDOW];
	struct outcome native;
};

struct batch {
	_Atomic uint32_t state; /* 0: the parent's, 1: the child's */
	uint32_t n;
	struct test_case c[BATCH];
};

/* Fills *t with case `number` of `seed`; families: bit mask. */
void generate(struct test_case *t, uint64_t seed, uint64_t number, unsigned families);

/* The child. Returns its pid, or -1. Batches are in memory shared with it. */
#define N_BATCHES 2
int native_start(struct batch *b);
/* Hands a batch to the child; waits until it has been run (false: the child died). */
void native_submit(struct batch *b);
bool native_wait(struct batch *b, int pid);

/* The software CPU. tier 0: x86_step. */
int soft_start(void);
void soft_run(const struct test_case *t, struct outcome *o, int tier);
bool soft_has_fast(void);

#endif
