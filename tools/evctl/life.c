/* SPDX-License-Identifier: MIT */
/* life: start, stop, reset, pause, resume and delete. */
#include "tools/evctl/life.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/interrupt.h"
#include "tools/evctl/live.h"
#include "tools/evctl/model.h"
#include "tools/evctl/network.h"
#include "tools/evctl/run.h"
#include "tools/evctl/tell.h"

#define START_PATIENCE_MS       30000
#define LOOK_MS                 5
#define LOCKED_DISK_PATIENCE_MS 3000

static uint64_t after_ms(uint64_t ms)
{
    return tell_now_ns() + ms * 1000000u;
}

/* --- start --- */

static const char *const log_names[] = {"evisor.log", "console.log"};

/* The log of the run before stays beside the new one. */
static void rotate_logs(const struct machine *machine)
{
    char old[32];
    for (unsigned i = 0; i < ARRAY_SIZE(log_names); i++) {
        snprintf(old, sizeof(old), "%s.1", log_names[i]);
        unused_result(renameat(machine->folder_fd, log_names[i], machine->folder_fd, old));
    }
}

static bool is_full(const struct machine *machine)
{
    struct statvfs space;
    return fstatvfs(machine->folder_fd, &space) == 0 && space.f_bavail == 0;
}

/* What evisor said last before it ended. */
static int report_death(const struct machine *machine, int log_fd, int status, struct error *err)
{
    char text[4096];
    /* One that never ran has not ended out of order. */
    if (machine_pid(machine->folder_fd) == 0)
        unlinkat(machine->folder_fd, "pid", 0);
    if (WIFSIGNALED(status))
        return error_set(err, EIO,
                         "the machine '%s' did not start: signal %d ended evisor; see: "
                         "evctl logs",
                         machine->name, WTERMSIG(status));
    ssize_t length = pread(log_fd, text, sizeof(text) - 1, 0);
    text[length > 0 ? length : 0] = '\0';
    while (length > 0 && text[length - 1] == '\n')
        text[--length] = '\0';
    char *line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    line += strncmp(line, "evisor: ", 8) == 0 ? 8 : 0;
    return error_set(err, EIO, "the machine '%s' did not start: %s", machine->name,
                     *line              ? line
                     : is_full(machine) ? "no space is left where its folder is, so not even its "
                                          "log could be written"
                                        : "evisor gave no reason");
}

/* The NICs whose link is off. The guest's first instructions do not look at them. */
static int pull_cables(const struct machine *machine, struct qmp *qmp, struct error *err)
{
    size_t i;
    json_t *nic;
    int result = 0;
    json_array_foreach(json_object_get(machine->config, "nics"), i,
                       nic) if (!result && strcmp(model_text(nic, "link"), "off") == 0) result =
        live_set_link(qmp, model_text(nic, "id"), false, err);
    qmp_close(qmp);
    return result;
}

static int wait_until_up(const struct machine *machine, pid_t child, int log_fd, struct error *err)
{
    struct tell_progress progress;
    uint64_t until_ns = after_ms(START_PATIENCE_MS);
    int result = -EAGAIN, status;
    tell_progress_begin(&progress, "starting");
    while (result == -EAGAIN) {
        struct qmp qmp;
        if (waitpid(child, &status, WNOHANG) == child)
            result = report_death(machine, log_fd, status, err);
        else if (qmp_open(machine, &qmp, NULL) == 0)
            result = pull_cables(machine, &qmp, err);
        else if (interrupt_is_pending())
            result = (kill(child, SIGTERM), interrupt_check(err));
        else if (tell_now_ns() > until_ns)
            result = error_set(err, ETIMEDOUT,
                               "the machine '%s' does not come up; see: evctl logs, and end it "
                               "with: evctl stop --force",
                               machine->name);
        else
            usleep(LOOK_MS * 1000);
        tell_progress_update(&progress, -1);
    }
    tell_progress_end(&progress);
    return result;
}

/*
 * The kernel ends the I/O of a process that was killed after the process itself, and gives its
 * locks on the disks back only then. A disk that somebody really uses is evisor's to name.
 */
static void wait_for_disks(const struct machine *machine)
{
    uint64_t until_ns = after_ms(LOCKED_DISK_PATIENCE_MS);
    size_t i;
    json_t *disk;
    json_array_foreach(json_object_get(machine->config, "disks"), i, disk)
    {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        const char *file = model_text(disk, "file");
        int fd = *file == '/' ? -1 : openat(machine->folder_fd, file, O_RDONLY | O_CLOEXEC);
        while (fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK &&
               tell_now_ns() < until_ns && !interrupt_is_pending()) {
            usleep(LOOK_MS * 1000);
            lock = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
        }
        if (fd >= 0)
            close(fd);
    }
}

/* What a command that was killed has left half done. */
static int check_whole(const struct machine *machine, struct error *err)
{
    size_t i;
    json_t *disk;
    const char *snapshot = model_text(machine->config, "reverting");
    if (*snapshot)
        return error_set(err, EBUSY,
                         "the way back of '%s' to the snapshot '%s' was interrupted; finish it: "
                         "evctl snapshot revert",
                         machine->name, snapshot);
    json_array_foreach(json_object_get(machine->config, "disks"), i, disk)
    {
        const char *base = model_text(disk, "base");
        if (*base && access(base, F_OK) < 0)
            return error_set(err, ENOENT,
                             "'%s' is a linked clone, and what its disk builds on is not there: "
                             "%s; if an evctl rename was interrupted, give the same command again",
                             machine->name, base);
    }
    return disks_check_unlinked(machine, "a run", false, err);
}

/* Those that root made do not outlive the host's restart. */
static int ensure_networks(const struct machine *machine, struct error *err)
{
    size_t i;
    json_t *nic;
    int result = 0;
    json_array_foreach(json_object_get(machine->config, "nics"), i, nic) if (!result) result =
        network_ensure(nic, err);
    return result;
}

int life_start(struct machine *machine, bool is_paused, struct error *err)
{
    char *program =
        check_whole(machine, err) || ensure_networks(machine, err) ? NULL : run_find("evisor", err);
    json_t *words = program ? model_command(machine, is_paused, err) : NULL;
    if (!words) {
        free(program);
        return err->code ? -err->code : -EINVAL;
    }
    wait_for_disks(machine);
    rotate_logs(machine);
    int result = 0, log_fd = openat(machine->folder_fd, log_names[0],
                                    O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        result = error_set_errno(err, errno, "cannot write %s/%s", machine->folder, log_names[0]);
    pid_t child = result ? 0 : run_detached(program, words, machine->folder_fd, log_fd, err);
    if (child < 0)
        result = child;
    if (!result)
        result = wait_until_up(machine, child, log_fd, err);
    if (log_fd >= 0)
        close(log_fd);
    json_decref(words);
    free(program);
    return result;
}

static int wait_for_address(const struct machine *machine, uint64_t ms, json_t *answer,
                            struct error *err)
{
    json_t *addresses = NULL;
    int result = life_addresses(machine, ms, &addresses, err);
    if (result)
        return result;
    const char *best = life_best_address(addresses);
    tell_line("%s", best);
    json_object_set_new(answer, "ip", json_string(best));
    json_decref(addresses);
    return 0;
}

int cmd_start(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    uint64_t began_ns = tell_now_ns(), timeout_s = 120;
    bool is_paused = call_has(call, "paused");
    int result = call_uint(call, "timeout", 1, 86400, &timeout_s, err);
    if (!result)
        result = machine_open(call->arguments[0], MACHINE_LOCK | MACHINE_STOPPED, &machine, err);
    if (result)
        return result;
    result = life_start(&machine, is_paused, err);
    machine_unlock(&machine);
    json_t *answer =
        json_pack("{s:s, s:s, s:i, s:f}", "name", machine.name, "state",
                  is_paused ? "paused" : "running", "pid", (int)machine_pid(machine.folder_fd),
                  "seconds", (double)(tell_now_ns() - began_ns) / 1e9);
    if (!result)
        tell_note("'%s' %s", machine.name,
                  is_paused ? "is ready, paused; go on with: evctl resume" : "is running");
    if (!result && call_has(call, "wait-ip"))
        result = wait_for_address(&machine, timeout_s * 1000, answer, err);
    if (!result)
        tell_json(answer);
    else
        json_decref(answer);
    machine_close(&machine);
    return result;
}

/* --- stop --- */

/* True if it ended before `until_ns`. */
static bool wait_end(const struct machine *machine, const char *what, uint64_t until_ns)
{
    struct tell_progress progress;
    tell_progress_begin(&progress, what);
    while (machine_pid(machine->folder_fd) && tell_now_ns() < until_ns && !interrupt_is_pending()) {
        usleep(LOOK_MS * 1000);
        tell_progress_update(&progress, -1);
    }
    tell_progress_end(&progress);
    return machine_pid(machine->folder_fd) == 0;
}

/* By its control socket; where that is dead, by signal. The lock on the pid file says who it is. */
static int end_by_force(const struct machine *machine, struct error *err)
{
    struct qmp qmp;
    if (qmp_open(machine, &qmp, NULL) == 0) {
        unused_result(qmp_execute(&qmp, "quit", NULL, NULL, NULL));
        qmp_close(&qmp);
        if (wait_end(machine, "ending", after_ms(5000)))
            return 0;
    }
    pid_t pid = machine_pid(machine->folder_fd);
    if (pid > 1)
        kill(pid, SIGKILL);
    if (wait_end(machine, "ending", after_ms(5000)))
        return 0;
    if (interrupt_is_pending())
        return interrupt_check(err);
    return error_set(err, ETIMEDOUT, "the process %d of the machine '%s' does not end", (int)pid,
                     machine->name);
}

static int press_power_button(const struct machine *machine, uint64_t timeout_s, struct error *err)
{
    struct qmp qmp;
    json_t *status = NULL;
    int result = qmp_open(machine, &qmp, err);
    if (result)
        return result;
    result = qmp_execute(&qmp, "query-status", NULL, &status, err);
    if (!result && !json_is_true(json_object_get(status, "running")))
        result = error_set(err, ENOTCONN,
                           "the machine '%s' is %s and cannot shut down; use evctl resume, or "
                           "evctl stop --force",
                           machine->name, model_text(status, "status"));
    json_decref(status);
    if (!result)
        result = qmp_execute(&qmp, "system_powerdown", NULL, NULL, err);
    qmp_close(&qmp);
    if (result || wait_end(machine, "shutting down", after_ms(timeout_s * 1000)))
        return result;
    if (interrupt_is_pending())
        return interrupt_check(err);
    return error_set(err, ETIMEDOUT,
                     "the guest of '%s' did not shut down within %llu s; it may have no handler "
                     "for the power button: evctl stop --force ends it at once",
                     machine->name, (unsigned long long)timeout_s);
}

int cmd_stop(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    uint64_t timeout_s = 60;
    bool is_forced = call_has(call, "force");
    int result = call_uint(call, "timeout", 1, 86400, &timeout_s, err);
    /* No lock: a stop that waits for its guest must not hold up one by force. */
    if (!result)
        result = machine_open(call->arguments[0], is_forced ? MACHINE_BROKEN_OK : 0, &machine, err);
    if (result)
        return result;
    if (!machine_pid(machine.folder_fd))
        result = error_set(err, ENOTCONN, "the machine '%s' is not running", machine.name);
    else
        result =
            is_forced ? end_by_force(&machine, err) : press_power_button(&machine, timeout_s, err);
    if (!result) {
        tell_note("'%s' is stopped", machine.name);
        tell_json(json_pack("{s:s, s:s}", "name", machine.name, "state", "stopped"));
    }
    machine_close(&machine);
    return result;
}

/* --- reset, pause, resume --- */

static int simple(struct evctl_call *call, const char *command, const char *state,
                  struct error *err)
{
    struct machine machine;
    struct qmp qmp;
    int result = machine_open(call->arguments[0], MACHINE_RUNNING, &machine, err);
    if (result)
        return result;
    result = qmp_open(&machine, &qmp, err);
    if (!result) {
        result = qmp_execute(&qmp, command, NULL, NULL, err);
        qmp_close(&qmp);
    }
    if (!result) {
        tell_note("'%s' is %s", machine.name, state);
        tell_json(json_pack("{s:s, s:s}", "name", machine.name, "state", state));
    }
    machine_close(&machine);
    return result;
}

int cmd_reset(struct evctl_call *call, struct error *err)
{
    return simple(call, "system_reset", "reset", err);
}

int cmd_pause(struct evctl_call *call, struct error *err)
{
    return simple(call, "stop", "paused", err);
}

int cmd_resume(struct evctl_call *call, struct error *err)
{
    return simple(call, "cont", "running", err);
}

/* --- delete --- */

int cmd_delete(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    bool is_forced = call_has(call, "force");
    unsigned flags = MACHINE_LOCK | (is_forced ? MACHINE_BROKEN_OK : MACHINE_STOPPED);
    int result = machine_open(call->arguments[0], flags, &machine, err);
    if (result)
        return result;
    result = disks_check_unlinked(&machine, "its deletion", true, err);
    if (!result && !is_forced)
        result = disks_check_known(&machine, err);
    if (!result && machine_pid(machine.folder_fd))
        result = end_by_force(&machine, err);
    if (!result)
        result = machine_remove(&machine, err);
    if (!result)
        network_forward_forget_all(machine.config);
    if (!result) {
        tell_note("'%s' is deleted", machine.name);
        tell_json(json_pack("{s:s, s:b}", "name", machine.name, "deleted", 1));
    }
    machine_close(&machine);
    return result;
}
