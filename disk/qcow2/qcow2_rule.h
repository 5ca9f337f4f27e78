/* SPDX-License-Identifier: MIT */
/*
 * qcow2_rule: the rules of order that a crash must not find broken, each named where it is kept:
 * the engine's, and those of the jobs on it.
 *
 * In the product qcow2_rule() is the constant true. In the build of the crash simulator one rule at
 * a time can be broken, to prove that the simulator would notice (tests/crash --gate).
 */
#ifndef DISK_QCOW2_QCOW2_RULE_H
#define DISK_QCOW2_QCOW2_RULE_H

#include <stdbool.h>

#define QCOW2_RULES(X)                                                                             \
    X(FRESH_BARRIER, "fresh-barrier")     /* a refcount block before what points to it */          \
    X(LOWER_BARRIER, "lower-barrier")     /* data, refcounts, new tables before the map */         \
    X(UPPER_BARRIER, "upper-barrier")     /* the map before a flush ends */                        \
    X(DATA_BARRIER, "data-barrier")       /* data written in place before a flush ends */          \
    X(NEW_BLOCK_FIRST, "new-block-first") /* a refcount block is written before its entry */       \
    X(MOVED_REFTABLE_FIRST, "moved-reftable-first") /* the table before the header's pointer */    \
    X(MOVED_L1_FIRST, "moved-l1-first")                                                            \
    X(TABLE_ZEROED, "table-zeroed") /* a new table's cluster is emptied */                         \
    X(POISON, "poison")             /* a failed barrier is not tried again */                      \
    X(UNDO, "undo")                 /* what could not be written stays dirty */                    \
    X(QUARANTINE, "quarantine")     /* a cluster is freed after its unmapping is safe */           \
    X(DRAIN, "drain")               /* ... and nobody uses it any more */                          \
    X(PUNCH_FIRST, "punch-first")   /* ... and its hole is punched */                              \
    X(OWNERS, "owners")             /* one operation at a time changes a mapping */                \
    X(STALE_EDGES, "stale-edges")   /* a used cluster's rest is overwritten */                     \
    X(SNAPSHOT_COUNTS_FIRST, "snapshot-counts-first") /* counts before what they protect */        \
    X(SNAPSHOT_HEADER_AFTER, "snapshot-header-after") /* tables before the header's switch */      \
    X(SNAPSHOT_HEADER_SAFE, "snapshot-header-safe")   /* the switch before counting down */        \
    X(SNAPSHOT_COPIED_FIRST, "snapshot-copied-first") /* COPIED goes before a table is shared */   \
    X(REPAIR_BEFORE_SWITCH, "repair-before-switch")   /* new refcounts before the header */        \
    X(REPAIR_BEFORE_CLEAN, "repair-before-clean")     /* all of a repair before the marks go */    \
    X(REPAIR_BEFORE_COPIED, "repair-before-copied")   /* refcounts before COPIED flags */          \
    X(BITMAPS_IN_USE, "bitmaps-in-use") /* bitmaps are marked before a write they may miss */      \
    X(BITMAPS_FIRST, "bitmaps-first")   /* bitmaps are stored before the header's pointer */       \
    X(RESIZE_ZEROES_FIRST, "resize-zeroes-first") /* no old bytes past the old end */              \
    X(JOB_IMAGE_FIRST, "job-image-first")         /* a new image is durable before it is used */   \
    X(JOB_FREEZE_FIRST, "job-freeze-first") /* a top is durable before an overlay takes over */    \
    X(JOB_LAST_WRITES, "job-last-writes")   /* a job copies what the guest wrote last */           \
    X(JOB_FLUSH_FIRST, "job-flush-first")   /* a copy is durable before anything points to it */   \
    X(JOB_COPY_FIRST, "job-copy-first")     /* a backup copies before the guest overwrites */

#define QCOW2_RULE_ENUM(rule, text) QCOW2_RULE_##rule,
enum qcow2_rule { QCOW2_RULE_NONE, QCOW2_RULES(QCOW2_RULE_ENUM) };

#ifdef QCOW2_RULES_CAN_BREAK
extern enum qcow2_rule qcow2_broken_rule;
#define qcow2_rule(rule) (qcow2_broken_rule != QCOW2_RULE_##rule)
#else
#define qcow2_rule(rule) true
#endif

#endif
