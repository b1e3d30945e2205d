/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A writer of ACPI machine language (ACPI 6.5 chapter 20), as far as our DSDT needs it. Everything is appended to a struct buf,
 * whose `failed` flag is the only error. Blocks that carry a length are opened and closed: `size_t at = aml_device(b, "COM1");
 * ...; aml_close(b, at);`. Names are exactly four characters, or a path of such segments after a backslash.
 */
#ifndef DEV_AML_H
#define DEV_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* Open blocks; the value returned goes to aml_close(). A block is at most 1 MiB. */
size_t aml_scope(struct buf *b, const char *path);
size_t aml_device(struct buf *b, const char *name);
size_t aml_method(struct buf *b, const char *name, unsigned n_args, bool serialized);
size_t aml_if_arg0_equals(struct buf *b, uint32_t value);
size_t aml_package(struct buf *b, uint8_t n_elements);
void aml_close(struct buf *b, size_t at);

void aml_name(struct buf *b, const char *name); /* Name(name, ...): the object follows */
void aml_integer(struct buf *b, uint32_t v);
void aml_string(struct buf *b, const char *s);
void aml_eisaid(struct buf *b, const char *id); /* "PNP0501": three capitals, four hexadecimal digits */
void aml_notify(struct buf *b, const char *path, uint8_t value);

/* A resource template: aml_resources(), descriptors, aml_resources_end(). At most 200 bytes of descriptors. */
size_t aml_resources(struct buf *b);
void aml_res_memory32(struct buf *b, uint32_t base, uint32_t len);
void aml_res_io(struct buf *b, uint16_t base, uint8_t len);
void aml_res_irq_edge(struct buf *b, uint32_t gsi); /* edge, active high, exclusive */
void aml_resources_end(struct buf *b, size_t at);

#endif
