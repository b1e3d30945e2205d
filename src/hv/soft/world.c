/* SPDX-License-Identifier: Apache-2.0 */
#include "hv/soft/soft.h"

#include <string.h>

void world_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
}

void world_destroy(struct world *w)
{
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->changed);
}

static void wait_while_stopped(struct world *w)
{
	while (w->stopping)
		pthread_cond_wait(&w->changed, &w->lock);
}

void world_begin(struct soft_vm *vm)
{
	struct world *w = &vm->world;
	pthread_mutex_lock(&w->lock);
	wait_while_stopped(w);
	w->n_running++;
	pthread_mutex_unlock(&w->lock);
}

void world_end(struct soft_vm *vm)
{
	struct world *w = &vm->world;
	pthread_mutex_lock(&w->lock);
	w->n_running--;
	if (w->stopping)
		pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

void world_park(struct soft_vm *vm)
{
	struct world *w = &vm->world;
	pthread_mutex_lock(&w->lock);
	if (w->stopping) {
		w->n_running--;
		pthread_cond_broadcast(&w->changed);
		wait_while_stopped(w);
		w->n_running++;
	}
	pthread_mutex_unlock(&w->lock);
}

void world_stop(struct soft_vm *vm, struct soft_vcpu *self)
{
	struct world *w = &vm->world;
	pthread_mutex_lock(&w->lock);
	/* Who waits for its turn stands still itself. */
	w->n_running--;
	pthread_cond_broadcast(&w->changed);
	wait_while_stopped(w);
	w->stopping = true;
	for (unsigned i = 0; i < vm->base.cfg.n_vcpus; i++)
		if (&vm->vcpu[i] != self)
			atomic_fetch_or(&vm->vcpu[i].cpu->pending, X86_PEND_WORLD);
	while (w->n_running)
		pthread_cond_wait(&w->changed, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

void world_start(struct soft_vm *vm)
{
	struct world *w = &vm->world;
	pthread_mutex_lock(&w->lock);
	w->stopping = false;
	w->n_running++;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}
