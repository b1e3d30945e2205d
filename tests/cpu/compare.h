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

#endif
