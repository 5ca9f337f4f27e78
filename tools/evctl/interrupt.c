/* SPDX-License-Identifier: MIT */
/* interrupt: one handler that notes the signal; the loops that wait look at it. */
#include "tools/evctl/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

#include "base/check.h"

static volatile sig_atomic_t pending; /* the signal's number */
static volatile sig_atomic_t to_pass_on;

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)context;
    pending = number;
    /* A key on the terminal reaches all processes of the group; kill(1) only this one. */
    if (info->si_code <= 0)
        to_pass_on = number;
}

void interrupt_catch(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}, old;
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
        sigaction(numbers[i], NULL, &old);
        if (old.sa_handler != SIG_IGN) /* nohup and background jobs of scripts */
            sigaction(numbers[i], &action, NULL);
    }
}

bool interrupt_is_pending(void)
{
    return pending != 0;
}

int interrupt_check(struct error *err)
{
    return pending ? error_set(err, EINTR, "interrupted") : 0;
}

void interrupt_pass_on(pid_t child)
{
    int number = to_pass_on;
    to_pass_on = 0;
    if (number && child > 0)
        kill(child, number);
}

void interrupt_end(void)
{
    signal(pending, SIG_DFL);
    raise(pending);
}
