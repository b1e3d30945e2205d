/* SPDX-License-Identifier: Apache-2.0 */
/* The least: long mode, a stack, text and an end. */
#include "guest.h"

int guest_main(void)
{
	print("hello from ring %u, %u CPUs, CR0 %x CR4 %x EFER %x\n", 0ull, guest_cpus, READ_CR(0), READ_CR(4),
	      rdmsr(0xC0000080));
	CHECK_EQ(READ_CR(0) & 0x80000001, 0x80000001);
	return guest_result();
}
