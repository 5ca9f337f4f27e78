/* SPDX-License-Identifier: MIT */
/*
 * main: options, machine, control, loop, and an orderly way out.
 *
 * The stages stand in this order because a sandbox belongs between them: parse, open everything
 * while single-threaded, (confine), start threads, run.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/daemonize.h"
#include "base/footprint.h"
#include "base/log.h"
#include "base/loop.h"
#include "vmm/chardev/terminal.h"
#include "vmm/control/control.h"
#include "vmm/control/metrics.h"
#include "vmm/gdb/gdb.h"
#include "vmm/machine.h"
#include "vmm/options/options.h"

/* A guest's first exits do not wait for what only saves memory. */
#define SETTLED_MS 100

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP};

struct program {
    struct loop loop;
    struct vm_config config;
    struct pidfile pidfile;
    struct machine *machine;
    struct control *control;
    struct gdb *gdb;         /* NULL without -gdb */
    struct metrics *metrics; /* NULL without -metrics */
    uv_signal_t signals[ARRAY_SIZE(ending_signals)];
    uv_timer_t settled;
    int status;
};

static void on_signal(uv_signal_t *handle, int number)
{
    struct program *program = handle->data;
    log_info("ending on signal %d", number);
    machine_quit(program->machine, SHUTDOWN_HOST_SIGNAL);
}

/* The host has no page for what the guest, or we, have just touched: nothing can go on. */
static void on_no_memory(int number)
{
    static const char text[] =
        "evisor: a page of a mapped file is not to be had: is the file system of -mem-path or "
        "memory-backend-file full? -mem-prealloc tells at the start\n";
    terminal_restore();
    unused_result(write(STDERR_FILENO, text, sizeof(text) - 1));
    raise(number);
}

static void watch_signals(struct program *program)
{
    const struct sigaction no_memory = {.sa_handler = on_no_memory,
                                        .sa_flags = SA_RESETHAND | SA_NODEFER};
    sigaction(SIGBUS, &no_memory, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a disk's error, not our end */
    for (size_t i = 0; i < ARRAY_SIZE(ending_signals); i++) {
        uv_signal_init(&program->loop.uv, &program->signals[i]);
        program->signals[i].data = program;
        uv_signal_start(&program->signals[i], on_signal, ending_signals[i]);
    }
}

static void on_machine_closed(void *opaque)
{
    struct program *program = opaque;
    for (size_t i = 0; i < ARRAY_SIZE(ending_signals); i++)
        uv_close((uv_handle_t *)&program->signals[i], NULL);
    uv_close((uv_handle_t *)&program->settled, NULL);
}

static void on_control_closed(void *opaque)
{
    struct program *program = opaque;
    machine_close(program->machine, on_machine_closed, program);
}

static void on_metrics_closed(void *opaque)
{
    struct program *program = opaque;
    control_close(program->control, on_control_closed, program);
}

static void on_gdb_closed(void *opaque)
{
    struct program *program = opaque;
    if (program->metrics)
        metrics_close(program->metrics, on_metrics_closed, program);
    else
        on_metrics_closed(program);
}

static void on_machine_exit(void *opaque, int status)
{
    struct program *program = opaque;
    program->status = status;
    uv_timer_stop(&program->settled);
    if (program->gdb)
        gdb_close(program->gdb, on_gdb_closed, program);
    else
        on_gdb_closed(program);
}

static void on_settled(uv_timer_t *timer)
{
    const struct program *program = container_of(timer, struct program, settled);
    machine_settle(program->machine);
    footprint_trim();
}

static void on_control_ready(void *opaque)
{
    struct program *program = opaque;
    if (!program->config.start_paused)
        machine_cont(program->machine, NULL, NULL);
    uv_timer_start(&program->settled, on_settled, program->config.start_paused ? 0 : SETTLED_MS, 0);
}

static int start(struct program *program, struct error *err)
{
    struct vm_config *config = &program->config;
    int result = config->daemonize ? daemonize_begin(err) : 0;
    if (!result && config->pidfile)
        result = pidfile_create(&program->pidfile, config->pidfile, err);
    if (!result && (result = loop_init(&program->loop)))
        result = error_set_errno(err, -result, "cannot make the event loop");
    if (result)
        return result;
    watch_signals(program);
    uv_timer_init(&program->loop.uv, &program->settled);
    result = machine_create(&program->loop, config, &program->machine, err);
    if (!result)
        result = control_create(&program->loop, program->machine, &program->control, err);
    if (!result && config->gdb)
        result = gdb_create(&program->loop, program->machine, program->control, &program->gdb, err);
    if (!result && config->metrics)
        result = metrics_create(&program->loop, program->machine, config->metrics,
                                &program->metrics, err);
    if (result)
        return result;
    if (*machine_accel_why(program->machine))
        log_info("%s: using -accel %s", machine_accel_why(program->machine),
                 machine_accel_name(program->machine));
    return config->daemonize ? daemonize_ready(err) : 0;
}

static void run(struct program *program)
{
    machine_on_exit(program->machine, on_machine_exit, program);
    control_when_ready(program->control, on_control_ready, program);
    loop_run(&program->loop);
    loop_fini(&program->loop);
}

int main(int argc, char **argv)
{
    static struct program program;
    struct error err = {0};
    char *text = NULL;
    int result = options_parse(argc, argv, &program.config, &text, &err);
    if (!result && text) {
        fputs(text, stdout);
        free(text);
        return EXIT_SUCCESS;
    }
    if (!result)
        result = start(&program, &err);
    if (result) {
        log_error("%s", err.text);
        pidfile_remove(&program.pidfile);
        return EXIT_FAILURE;
    }
    run(&program);
    pidfile_remove(&program.pidfile);
    vm_config_fini(&program.config);
    return program.status;
}
