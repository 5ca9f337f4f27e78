/* SPDX-License-Identifier: MIT */
/* img_snapshot_list: prints what "info" and "snapshot -l" have in common. */
#include "tools/img/img_snapshot_list.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "tools/img/img.h"

static void print_one(const struct qcow2_snapshot *snapshot)
{
    char size[IMG_SIZE_TEXT_BYTES], date[64] = "", clock[32], icount[24] = "";
    struct tm when;
    time_t seconds = (time_t)snapshot->date_sec;
    uint64_t vm_seconds = snapshot->vm_clock_ns / 1000000000;
    if (localtime_r(&seconds, &when))
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &when);
    snprintf(clock, sizeof(clock), "%02u:%02u:%02u.%03u", (unsigned)(vm_seconds / 3600),
             (unsigned)(vm_seconds / 60 % 60), (unsigned)(vm_seconds % 60),
             (unsigned)(snapshot->vm_clock_ns / 1000000 % 1000));
    if (snapshot->icount != UINT64_MAX)
        snprintf(icount, sizeof(icount), "%" PRId64, (int64_t)snapshot->icount);
    printf("%-9s %-16s %8s%20s%13s%11s\n", snapshot->id, snapshot->name,
           img_size_text(snapshot->vmstate_bytes, size), date, clock, icount);
}

void img_snapshot_list_print(const struct qcow2_snapshots *snapshots)
{
    puts("Snapshot list:");
    printf("%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (size_t i = 0; i < snapshots->count; i++)
        print_one(&snapshots->list[i]);
}
