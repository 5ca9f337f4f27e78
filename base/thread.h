/* SPDX-License-Identifier: MIT */
/* thread: a thread beside the loop's. Signals stay the loop's: all are blocked in it. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

#include "base/check.h"

/* To be joined or detached by the caller. 0 or -errno. */
int must_check thread_start(pthread_t *thread, void *(*run)(void *opaque), void *opaque);

#endif
