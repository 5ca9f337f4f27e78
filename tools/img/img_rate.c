/* SPDX-License-Identifier: MIT */
/* img_rate: compares what was copied with the time that passed, and sleeps the difference. */
#include "tools/img/img_rate.h"

#include <time.h>

#include "tools/img/img.h"

#define NS_PER_S UINT64_C(1000000000)

int img_rate_parse(struct img_rate *rate, const char *text)
{
    return img_parse_named_size(text, "rate limit", &rate->bytes_per_s) ? 1 : 0;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void img_rate_wait(struct img_rate *rate, uint64_t bytes)
{
    if (!rate->bytes_per_s)
        return;
    if (!rate->started_ns)
        rate->started_ns = now_ns();
    double due_ns = (double)rate->done_bytes / (double)rate->bytes_per_s * (double)NS_PER_S;
    double passed_ns = (double)(now_ns() - rate->started_ns);
    rate->done_bytes += bytes;
    if (due_ns <= passed_ns)
        return;
    uint64_t rest_ns = (uint64_t)(due_ns - passed_ns);
    struct timespec rest = {.tv_sec = (time_t)(rest_ns / NS_PER_S),
                            .tv_nsec = (long)(rest_ns % NS_PER_S)};
    nanosleep(&rest, NULL); /* a signal ends it early: then somebody waits for the end */
}
