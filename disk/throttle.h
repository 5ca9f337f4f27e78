/* SPDX-License-Identifier: MIT */
/*
 * throttle: limits on the bytes and operations of one disk, or of several that share them in a
 * group, as leaky buckets. A request waits until all of its buckets have room; the moment is
 * computed, and one timer set for exactly it: nothing is looked at in steps. Requests of a disk and
 * a direction stay in order; the disks of a group take turns.
 */
#ifndef DISK_THROTTLE_H
#define DISK_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "base/error.h"
#include "base/loop.h"

struct disk;
struct disk_request;

enum throttle_kind { /* total, read, write of each */
                     THROTTLE_BPS_TOTAL,
                     THROTTLE_BPS_READ,
                     THROTTLE_BPS_WRITE,
                     THROTTLE_OPS_TOTAL,
                     THROTTLE_OPS_READ,
                     THROTTLE_OPS_WRITE,
                     THROTTLE_KINDS,
};

/* In units a second; 0: no limit. As throttling.* of qemu(1). */
struct throttle_limits {
    struct {
        uint64_t average, burst;
        uint64_t burst_s; /* how long a burst may last; at least 1 where there is one */
    } bucket[THROTTLE_KINDS];
    uint64_t operation_bytes; /* requests count as one operation for each so many; 0: as one */
};

/* "bps-total" ...: the words that -drive, -object and QMP's ThrottleLimits make their keys of. */
extern const char *const throttle_names[THROTTLE_KINDS];

/* What such a word, maybe with "-max" or "-max-length", or "iops-size" stands for; or NULL. */
uint64_t *throttle_limits_field(struct throttle_limits *limits, const char *key);

/* A number that somebody said for such a field; `shown` is what errors call it. */
int must_check throttle_limits_put(uint64_t *field, const char *shown, int64_t number,
                                   struct error *err);

struct throttle_group {
    struct list node; /* throttle_groups.list; alone: in none */
    struct loop *loop;
    char *name; /* NULL: of one disk, that nobody else finds */
    struct throttle_limits limits;
    bool is_on;
    struct loop_timer timer;
    struct {
        double level, burst_level;
    } state[THROTTLE_KINDS];
    uint64_t leaked_ns;
    struct list members; /* struct throttle; the next one in turn comes first */
    unsigned waiting[2]; /* requests of all members: reads, writes */
    unsigned direction;  /* 0 or 1: which of them comes next */
    unsigned users;      /* members, and who asked for it by name */
};

/* A disk's part in it. */
struct throttle {
    struct disk *disk;
    struct throttle_group *group; /* NULL: not limited */
    struct list node;             /* group->members */
    struct list waiting[2];       /* reads, writes */
    uint64_t waiting_count, delayed;
};

/* A machine's, by name: those that somebody uses. */
struct throttle_groups {
    struct loop *loop;
    struct list list;
};

/*
 * The disk and all others of its group; a disk without one gets one of its own. No limits at all:
 * it leaves its group, whose others keep theirs. 0 or -errno.
 */
int must_check disk_set_limits(struct disk *disk, const struct throttle_limits *limits);
/* NULL: it leaves the group. What waits is not lost: it waits in the other group, or goes on. */
void disk_set_throttle_group(struct disk *disk, struct throttle_group *group);
const struct throttle_limits *disk_get_limits(const struct disk *disk);
/* NULL: it is in none that has a name. */
const char *disk_throttle_group(const struct disk *disk);

/* In QEMU's words. */
int must_check throttle_check(const struct throttle_limits *limits, struct error *err);
bool throttle_is_limited(const struct throttle_limits *limits);
/* Where limits begin: bursts last for a second where there are any. */
extern const struct throttle_limits throttle_no_limits;

/* throttle_group.c: the caller becomes a user of the group, which is made if there is none. */
void throttle_groups_init(struct throttle_groups *groups, struct loop *loop);
struct throttle_group *throttle_groups_find(const struct throttle_groups *groups, const char *name);
int must_check throttle_groups_get(struct throttle_groups *groups, const char *name,
                                   struct throttle_group **out);
int must_check throttle_group_create(struct loop *loop, const char *name,
                                     struct throttle_group **out);
/* The disk joins the group of that name. `limits` are the group's then; NULL: those it has. */
int must_check throttle_groups_join(struct throttle_groups *groups, struct disk *disk,
                                    const char *name, const struct throttle_limits *limits);
/* The group ends with its last user. */
void throttle_group_put(struct throttle_group *group);
/* New limits, and empty buckets; what waits is looked at again. */
void throttle_group_set(struct throttle_group *group, const struct throttle_limits *limits);
void throttle_on_expired(struct loop_timer *timer);

void throttle_init(struct throttle *throttle, struct disk *disk);
void throttle_join(struct throttle *throttle, struct throttle_group *group);
/* True: the request waits, and disk_admit follows. */
bool throttle_delays(struct throttle *throttle, struct disk_request *request);
/* Lets everything of the disk through at once: the machine stops or ends. */
void throttle_release(struct throttle *throttle);

#endif
