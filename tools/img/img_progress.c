/* SPDX-License-Identifier: MIT */
/* img_progress: signals set flags only; the printing is done between pieces of work. */
#include "tools/img/img_progress.h"

#include <signal.h>
#include <stdio.h>

static volatile sig_atomic_t is_asked, is_cancelled;
static bool is_shown;
static unsigned last_shown; /* in hundredths of a percent, plus one */

static void on_signal(int number)
{
    if (number == SIGUSR1)
        is_asked = 1;
    else
        is_cancelled = 1;
}

void img_progress_start(bool show)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    is_shown = show;
    last_shown = 0;
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_flags |= SA_RESETHAND; /* a second Ctrl-C ends it at once */
    sigaction(SIGINT, &action, NULL);
    img_progress_report(NULL, 0, 1);
}

void img_progress_report(void *opaque, uint64_t done, uint64_t total)
{
    (void)opaque;
    double percent = total ? (double)done * 100.0 / (double)total : 100.0;
    unsigned step = (unsigned)(percent * 100) + 1;
    if (is_asked) {
        is_asked = 0;
        fprintf(stderr, "    (%3.2f/100%%)\n", percent);
    }
    if (!is_shown || step == last_shown)
        return;
    last_shown = step;
    printf("    (%3.2f/100%%)\r", percent);
    fflush(stdout);
}

void img_progress_end(bool ok)
{
    last_shown = 0; /* the end is always shown */
    if (ok)
        img_progress_report(NULL, 1, 1);
    if (is_shown)
        putchar('\n');
}

bool img_progress_is_cancelled(void *opaque)
{
    (void)opaque;
    return is_cancelled;
}
