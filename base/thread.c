/* SPDX-License-Identifier: MIT */
/* thread: starts a thread with all signals blocked from its first instruction on. */
#include "base/thread.h"

#include <signal.h>

int thread_start(pthread_t *thread, void *(*run)(void *opaque), void *opaque)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(thread, NULL, run, opaque);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -code;
}
