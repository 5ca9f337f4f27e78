/* SPDX-License-Identifier: MIT */
/*
 * gdb: lets the debugger gdb look into the guest: "target remote :1234". (GDB's manual, appendix E:
 * Remote Serial Protocol.)
 *
 * CPUs are gdb's threads, numbered from 1. One debugger at a time. The machine stops when it comes
 * and goes on when it leaves. Loopback only. Loop's thread.
 */
#ifndef VMM_GDB_GDB_H
#define VMM_GDB_GDB_H

#include "base/error.h"
#include "base/loop.h"

struct gdb;
struct control;
struct machine;

/* Listens where the machine's config says ("tcp:[address]:port"). Start-up. */
int must_check gdb_create(struct loop *loop, struct machine *machine, struct control *control,
                          struct gdb **out, struct error *err);

/* The machine's end: tells the debugger, closes, frees; then on_closed, later. */
void gdb_close(struct gdb *gdb, void (*on_closed)(void *opaque), void *opaque);

#endif
