/* SPDX-License-Identifier: MIT */
/* img_snapshot_list: the table of internal snapshots as people read it. */
#ifndef TOOLS_IMG_IMG_SNAPSHOT_LIST_H
#define TOOLS_IMG_IMG_SNAPSHOT_LIST_H

#include "disk/qcow2/qcow2_snapshots.h"

void img_snapshot_list_print(const struct qcow2_snapshots *snapshots);

#endif
