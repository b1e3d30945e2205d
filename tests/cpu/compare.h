/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing two outcomes and showing them. */
#ifndef TESTS_CPU_COMPARE_H
#define TESTS_CPU_COMPARE_H

#include "diff.h"

struct difference {
	const char *what;
};

/* Brings a signal frame's view and the software CPU's to the same terms. */
void normalise_native(struct outcome *o);
void normalise_soft(struct outcome *o);
/* May adjust *soft where both outcomes are allowed (compare.c lists them). */
bool compare(const struct test_case *t, struct outcome *soft, struct difference *d);
void print_outcomes(const struct test_case *t, const struct outcome *soft);

/* vendor.c: what cannot be compared with a host whose vendor differs from the one that the software CPU follows. */
bool host_is_amd(void);
/* Flags that the architecture leaves undefined, and vendors fill differently. */
uint64_t vendor_undefined_flags(const struct x86_insn *i);
/* Nothing of such a case can be compared. */
bool vendor_incomparable(const uint8_t *code, bool mode32, const struct x86_insn *i);
/* Makes the software CPU's outcome the host's where vendors differ. */
void vendor_allow(const struct test_case *t, const struct x86_insn *i, struct outcome *s);

#endif
