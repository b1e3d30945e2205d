/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a directory of the host into a tree and an EROFS file, as it is: owners, modes, times, links,
 * devices, attributes, holes. */
#ifndef IMAGE_SCAN_H
#define IMAGE_SCAN_H

#include "image/erofs.h"

/* dir is borrowed. Directories of other file systems mounted below come out empty. Files of an ordinary user
 * who runs this belong to root inside. */
int scan_directory(int dir, struct tree *t, struct erofs_writer *w, struct cai_error *err);

#endif
