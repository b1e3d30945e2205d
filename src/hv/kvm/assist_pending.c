/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for the software CPU's step functions until src/x86 has them: every instruction is unknown. To be removed then. */
#include "x86/cpu.h"

#define WEAK __attribute__((weak))
WEAK void x86_cpu_init(struct x86_cpu *c, const struct x86_env *env, void *owner, unsigned apic_id)
{
	c->env = env;
	c->owner = owner;
}
WEAK void x86_cpu_load(struct x86_cpu *c, const struct x86_state *s)
{
}
WEAK void x86_cpu_save(struct x86_cpu *c, struct x86_state *s)
{
}
WEAK enum x86_leave x86_step(struct x86_cpu *c)
{
	return X86_LEAVE_ERROR;
}
WEAK int x86_deliver(struct x86_cpu *c, const struct x86_exception *e)
{
	return -1;
}
