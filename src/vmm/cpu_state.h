/* SPDX-License-Identifier: Apache-2.0 */
/* A processor's state (x86/state.h), and that of the VM around it, as sections of a snapshot. */
#ifndef VMM_CPU_STATE_H
#define VMM_CPU_STATE_H

#include "base/buf.h"
#include "base/error.h"
#include "hv/hv.h"
#include "x86/cpu_model.h"
#include "x86/state.h"

void cpu_state_put(struct buf *out, const struct x86_state *s);
/* Takes all of r. What is read is hostile: what no processor's state can be is refused; what a guest could have set itself is not. */
int cpu_state_get(struct buf_reader *r, struct x86_state *s, struct cai_error *err);

void vm_state_put(struct buf *out, const struct hv_vm_state *s);
int vm_state_get(struct buf_reader *r, struct hv_vm_state *s, struct cai_error *err);

/* What CPUID tells the guest. */
void cpuid_put(struct buf *out, const struct x86_cpu_model *m);
/* Checks that `now` offers every feature that the saved list does; else the sentence names leaf and bits. */
int cpuid_check(struct buf_reader *r, const struct x86_cpu_model *now, struct cai_error *err);

#endif
