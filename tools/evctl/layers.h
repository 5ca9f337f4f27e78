/* SPDX-License-Identifier: MIT */
/*
 * layers: images that others build on. A machine whose disks are frozen writes into new images on
 * top of the old ones, which linked clones can build on then while it runs. Machines are locked.
 */
#ifndef TOOLS_EVCTL_LAYERS_H
#define TOOLS_EVCTL_LAYERS_H

#include <jansson.h>

#include "tools/evctl/store.h"

/*
 * What the guest writes from now on goes to new images. Those there were are in `frozen`, by the
 * disk's id: {file, format}. A stopped machine that has written nothing since it was frozen last
 * stays as it is. Snapshots stay in the old images, so there must be none.
 */
int must_check layers_freeze(struct machine *machine, json_t *frozen, struct error *err);

#endif
