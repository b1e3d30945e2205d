/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An accelerator for tests: its vCPUs run a "program" of one-letter operations in guest RAM at RIP, so that everything the
 * monitor does around a vCPU can be tested without one. vCPU 0 runs from the state it is given; the others halt at once.
 */
#ifndef TESTS_FAKE_HV_H
#define TESTS_FAKE_HV_H

#include <stdint.h>
#include <string.h>

enum fake_op {
	FAKE_PORT = 'p',     /* u16 port, u8 value: write a port */
	FAKE_MMIO = 'm',     /* u64 address, u32 value: write a register */
	FAKE_HALT = 'h',     /* wait for a kick, for ever */
	FAKE_SPIN = 's',     /* run for ever, counting instructions */
	FAKE_TRIPLE = 't',   /* HV_EXIT_SHUTDOWN */
	FAKE_FAIL = 'f',     /* HV_EXIT_FAILED */
	FAKE_STOP = 'x',     /* HV_EXIT_STOP */
	FAKE_CRASH = 'c',    /* a wild pointer in the monitor */
	FAKE_SLEEP = 'z',    /* u16 milliseconds */
	FAKE_CALL = 'k',     /* u16 number: a system call of the monitor's, without arguments */
};

/* Appending to a program; each returns the new end. */
static inline uint8_t *fake_op(uint8_t *p, char op)
{
	*p = (uint8_t)op;
	return p + 1;
}
static inline uint8_t *fake_port(uint8_t *p, uint16_t port, uint8_t v)
{
	*p++ = FAKE_PORT;
	memcpy(p, &port, 2);
	p[2] = v;
	return p + 3;
}
static inline uint8_t *fake_mmio(uint8_t *p, uint64_t gpa, uint32_t v)
{
	*p++ = FAKE_MMIO;
	memcpy(p, &gpa, 8);
	memcpy(p + 8, &v, 4);
	return p + 12;
}
static inline uint8_t *fake_u16(uint8_t *p, char op, uint16_t v)
{
	*p = (uint8_t)op;
	memcpy(p + 1, &v, 2);
	return p + 3;
}
static inline uint8_t *fake_print(uint8_t *p, const char *s)
{
	for (; *s; s++)
		p = fake_port(p, 0x3f8, (uint8_t)*s);
	return p;
}

/* The smallest ELF64 executable that carries n bytes of program, loaded at 1 MiB, entered there. Returns its size. */
unsigned long fake_elf(void *out, unsigned long room, const void *program, unsigned long n);

#endif
