/* SPDX-License-Identifier: MIT */
/*
 * oracle: a second, simple reader and checker of qcow2 images in memory, for the crash tests. It
 * shares no code with disk/, trusts nothing, and knows images without snapshots.
 */
#ifndef TESTS_CRASH_ORACLE_H
#define TESTS_CRASH_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

struct oracle {
    const uint8_t *bytes;
    uint64_t length;
    uint64_t cluster;
    unsigned version, cluster_bits, refcount_bits;
    bool extended;
    uint64_t size, l1_offset, l1_size, reftable_offset, reftable_clusters;
    uint64_t leaks; /* clusters counted too high */
    char why[200];  /* what is wrong */
};

enum oracle_sector {
    ORACLE_DATA,
    ORACLE_BACKING,
    ORACLE_BROKEN,
};

/* Reads the header and checks every reference against the refcounts. False: corrupt. */
bool oracle_open(struct oracle *oracle, const uint8_t *bytes, uint64_t length);

enum oracle_sector oracle_read(struct oracle *oracle, uint64_t offset, uint8_t out[512]);

#endif
