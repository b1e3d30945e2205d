/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation: the linker puts a hash of all it linked into a note (ld --build-id), which the loader maps with the program. */
#include "vmm/build_id.h"

#include <elf.h>
#include <link.h>
#include <string.h>

#include "base/util.h"

static int look(struct dl_phdr_info *info, size_t size, void *arg)
{
	uint8_t *id = arg;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		if (ph->p_type != PT_NOTE)
			continue;
		const char *p = (const char *)(info->dlpi_addr + ph->p_vaddr), *end = p + ph->p_memsz;
		while (end - p > (long)sizeof(ElfW(Nhdr))) {
			const ElfW(Nhdr) *n = (const void *)p;
			const char *name = p + sizeof(*n), *desc = name + align_up(n->n_namesz, 4);
			if (n->n_type == NT_GNU_BUILD_ID && n->n_namesz == 4 && !memcmp(name, "GNU", 4) && n->n_descsz >= 20) {
				memcpy(id, desc, 20);
				return 1;
			}
			p = desc + align_up(n->n_descsz, 4);
		}
	}
	return -1; /* the program itself comes first: do not look into libraries */
}

bool build_id(uint8_t id[20])
{
	memset(id, 0, 20);
	return dl_iterate_phdr(look, id) == 1;
}
