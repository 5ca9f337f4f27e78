/* SPDX-License-Identifier: MIT */
/* img_rate: holds a copy to so many bytes per second (-r), for tools that may sleep. */
#ifndef TOOLS_IMG_IMG_RATE_H
#define TOOLS_IMG_IMG_RATE_H

#include <stdint.h>

struct img_rate {
    uint64_t bytes_per_s; /* 0: no limit */
    /* Private. */
    uint64_t started_ns;
    uint64_t done_bytes;
};

/* -r SIZE. 0, or 1 after saying what is wrong. */
int img_rate_parse(struct img_rate *rate, const char *text);

/* Before `bytes` more are copied: sleeps until the rate allows for what went before. */
void img_rate_wait(struct img_rate *rate, uint64_t bytes);

#endif
