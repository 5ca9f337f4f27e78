/* SPDX-License-Identifier: MIT */
/*
 * metrics: the machine's counters in Prometheus' text format (exposition formats, version 0.0.4):
 * on a unix socket that answers each request as HTTP, or in a file that is replaced every
 * METRICS_PERIOD_S. Loop's thread; the file is written in the pool.
 */
#ifndef VMM_CONTROL_METRICS_H
#define VMM_CONTROL_METRICS_H

#include "base/error.h"
#include "base/loop.h"
#include "vmm/machine.h"

#define METRICS_PERIOD_S 5

struct metrics;

/* `where`: "unix:PATH" or "file:PATH". */
int must_check metrics_create(struct loop *loop, struct machine *machine, const char *where,
                              struct metrics **out, struct error *err);
/* Before machine_close. */
void metrics_close(struct metrics *metrics, void (*on_closed)(void *opaque), void *opaque);

/* The text; the caller frees it. NULL: no memory. */
char *metrics_text(struct machine *machine, size_t *length);

#endif
