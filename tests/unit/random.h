/* SPDX-License-Identifier: MIT */
/* random: numbers from a seed, so that a test that fails fails again (splitmix64). */
#ifndef TESTS_UNIT_RANDOM_H
#define TESTS_UNIT_RANDOM_H

#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
    uint64_t x = random->state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* From 0 to bound - 1. */
static inline unsigned random_below(struct random *random, unsigned bound)
{
    return (unsigned)(random_next(random) % bound);
}

#endif
