/* SPDX-License-Identifier: Apache-2.0 */
/* Why the guest ended. Several threads may notice an end at once; the first one to say so is believed. */
#ifndef VMM_ENDING_H
#define VMM_ENDING_H

#include <pthread.h>
#include <stdbool.h>

#include "proto/control.h"

struct ending {
	pthread_mutex_t lock;
	enum control_end reason; /* 0: not ended */
	char text[480];
};

void ending_init(struct ending *e);
/* Any thread. True when this was the first. */
bool ending_set(struct ending *e, enum control_end reason, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Any thread. The reason, or 0; text (at least 480 bytes) is filled when there is one. */
enum control_end ending_get(struct ending *e, char *text);

/* The kernel's reason when console (the last output) shows "Kernel panic - not syncing: REASON" at the start of a line, with or
 * without a time stamp before it; copied to text (n bytes). finished: only where the kernel's closing line is there too. */
bool ending_find_panic(const char *console, bool finished, char *text, unsigned long n);

#endif
