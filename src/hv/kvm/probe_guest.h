/* SPDX-License-Identifier: Apache-2.0 */
/* Where the probe's guest lies in its memory; shared by probe.c and probe_guest.S. All are guest-physical = linear, but for MMIO. */
#ifndef HV_KVM_PROBE_GUEST_H
#define HV_KVM_PROBE_GUEST_H

#define PG_SIZE      0x10000
#define PG_PML4      0x1000
#define PG_PDPT      0x2000
#define PG_PD        0x3000
#define PG_PT        0x4000
#define PG_IDT       0x5000
#define PG_GDT       0x6000
#define PG_TSS       0x6100
#define PG_STACK     0x8000 /* grows down from here */
#define PG_CODE      0x8000
#define PG_USER      0xA000 /* code that ring 3 may execute */
#define PG_PAGE      0xB000 /* the page that paging is tried on */
#define PG_USTACK    0xD000 /* ring 3's stack grows down from here */
#define PG_MMIO_PD   0xD000
#define PG_KSTACK    0xF000 /* RSP0 */
#define PG_SCRATCH   0xF000
#define PG_MMIO      0xD0000000

#define PG_PORT_END  0xF4 /* AL: 0 good, else what went wrong */
#define PG_PORT_IN   0xE0 /* reads as PG_MAGIC */
#define PG_MAGIC     0x1badcafe

#endif
