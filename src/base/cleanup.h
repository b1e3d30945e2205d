/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound ownership: a variable declared with one of these attributes releases what it holds when it goes out of
 * scope. `steal_fd(&fd)` and `steal_ptr(&p)` hand the resource on and leave the variable empty.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <dirent.h>

static inline void cleanup_free_fn(void *p)
{
	free(*(void **)p);
}
static inline void cleanup_close_fn(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
static inline void cleanup_fclose_fn(FILE **f)
{
	if (*f)
		fclose(*f);
}
static inline void cleanup_closedir_fn(DIR **d)
{
	if (*d)
		closedir(*d);
}
static inline int steal_fd(int *fd)
{
	int r = *fd;
	*fd = -1;
	return r;
}
#define steal_ptr(pp)                                                                                              \
	({                                                                                                         \
		__typeof__(*(pp)) stolen_ = *(pp);                                                                 \
		*(pp) = NULL;                                                                                      \
		stolen_;                                                                                           \
	})

#define cleanup_free     __attribute__((cleanup(cleanup_free_fn)))
#define cleanup_close    __attribute__((cleanup(cleanup_close_fn)))
#define cleanup_fclose   __attribute__((cleanup(cleanup_fclose_fn)))
#define cleanup_closedir __attribute__((cleanup(cleanup_closedir_fn)))

#endif
