/* SPDX-License-Identifier: MIT */
/* watch: stats, top, and qmp: what running machines use, and the bare control socket. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/evctl/evctl.h"
#include "tools/evctl/interrupt.h"
#include "tools/evctl/model.h"
#include "tools/evctl/qmp.h"
#include "tools/evctl/tell.h"

struct usage {
    double cpu_seconds;
    uint64_t resident_bytes;
};

static bool read_file(pid_t pid, const char *name, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);
    if (fd >= 0)
        close(fd);
    text[length > 0 ? length : 0] = '\0';
    return length > 0;
}

static struct usage read_usage(pid_t pid)
{
    char text[1024];
    struct usage usage = {0};
    unsigned long user = 0, system = 0, pages = 0;
    /* The name in brackets may hold anything; the numbers come after the last bracket. */
    if (read_file(pid, "stat", text, sizeof(text)) && strrchr(text, ')') &&
        sscanf(strrchr(text, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
               &user, &system) == 2)
        usage.cpu_seconds = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    if (read_file(pid, "statm", text, sizeof(text)) && sscanf(text, "%*u %lu", &pages) == 1)
        usage.resident_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return usage;
}

static void add_block(json_t *row, const json_t *devices)
{
    static const char *const sums[] = {"rd_bytes", "wr_bytes", "rd_operations", "wr_operations"};
    size_t i;
    json_t *device;
    for (unsigned s = 0; s < ARRAY_SIZE(sums); s++) {
        json_int_t sum = 0;
        json_array_foreach(devices, i, device) sum +=
            json_integer_value(json_object_get(json_object_get(device, "stats"), sums[s]));
        json_object_set_new(row, sums[s], json_integer(sum));
    }
}

/* One machine now. The CPU's share follows from two of these. */
static json_t *sample(const struct machine *machine, pid_t pid)
{
    struct qmp qmp;
    json_t *block = NULL, *own = NULL;
    struct usage usage = read_usage(pid);
    json_t *row = json_pack("{s:s, s:i, s:f, s:I, s:f}", "name", machine->name, "pid", (int)pid,
                            "cpu-seconds", usage.cpu_seconds, "resident-bytes",
                            (json_int_t)usage.resident_bytes, "at", (double)tell_now_ns() / 1e9);
    if (qmp_open(machine, &qmp, NULL))
        return row;
    if (qmp_execute(&qmp, "query-blockstats", NULL, &block, NULL) == 0)
        add_block(row, block);
    if (qmp_execute(&qmp, "query-stats", json_pack("{s:s}", "target", "vm"), &own, NULL) == 0)
        json_object_set(row, "evisor", own);
    json_decref(block);
    json_decref(own);
    qmp_close(&qmp);
    return row;
}

static json_t *sample_all(const char *name, struct error *err)
{
    json_t *names = name ? json_pack("[s]", name) : store_names(err), *rows = json_array(), *entry;
    size_t i;
    json_array_foreach(names, i, entry)
    {
        struct machine machine;
        if (machine_open(json_string_value(entry), MACHINE_RUNNING, &machine, name ? err : NULL))
            continue;
        json_array_append_new(rows, sample(&machine, machine_pid(machine.folder_fd)));
        machine_close(&machine);
    }
    json_decref(names);
    return rows;
}

static const json_t *find_row(const json_t *rows, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) if (strcmp(model_text(row, "name"), name) == 0) return row;
    return NULL;
}

static double real(const json_t *row, const char *key)
{
    return json_number_value(json_object_get(row, key));
}

/* What people read: shares and rates between two samples. */
static void compare(const json_t *before, json_t *rows)
{
    static const char *const rates[][3] = {{"rd_bytes", "read-per-second", "read"},
                                           {"wr_bytes", "written-per-second", "written"}};
    char text[TELL_SIZE_BYTES];
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const json_t *old = find_row(before, model_text(row, "name"));
        double seconds = real(row, "at") - real(old, "at");
        bool is_known = old && seconds > 0 && real(row, "pid") == real(old, "pid");
        json_object_set_new(row, "memory",
                            json_string(tell_size(model_number(row, "resident-bytes"), text)));
        if (is_known)
            json_object_set_new(
                row, "cpu-percent",
                json_real(100 * (real(row, "cpu-seconds") - real(old, "cpu-seconds")) / seconds));
        for (unsigned r = 0; r < ARRAY_SIZE(rates); r++) {
            double rate =
                is_known ? (real(row, rates[r][0]) - real(old, rates[r][0])) / seconds : 0;
            json_object_set_new(row, rates[r][1], json_real(rate));
            json_object_set_new(
                row, rates[r][2],
                json_sprintf("%s/s", tell_size(rate > 0 ? (uint64_t)rate : 0, text)));
        }
    }
}

static void show(const json_t *rows, bool clears)
{
    if (tell_is_json()) {
        tell_json(json_deep_copy(rows));
        return;
    }
    if (clears && isatty(STDOUT_FILENO))
        fputs("\033[H\033[J", stdout);
    tell_table(rows, "name:NAME pid:PID cpu-percent:CPU% memory:MEMORY read:READ written:WRITTEN "
                     "cpu-seconds:CPU-SECONDS");
    fflush(stdout);
}

static int watch(struct evctl_call *call, const char *name, bool is_endless, struct error *err)
{
    uint64_t interval_s = 1, count = is_endless ? UINT64_MAX : 1;
    int result = call_uint(call, "interval", 1, 3600, &interval_s, err);
    if (!result)
        result = call_uint(call, "count", 1, 1000000, &count, err);
    if (result)
        return result;
    json_t *before = sample_all(name, err);
    while (!err->code && count-- > 0) {
        usleep((useconds_t)(is_endless ? interval_s * 1000000 : 200000));
        if (interrupt_is_pending())
            break; /* the way to leave it */
        json_t *now = sample_all(name, err);
        if (!err->code) {
            compare(before, now);
            show(now, is_endless);
        }
        json_decref(before);
        before = now;
    }
    json_decref(before);
    return err->code ? -err->code : 0;
}

int cmd_stats(struct evctl_call *call, struct error *err)
{
    return watch(call, call->arguments[0], call_has(call, "watch"), err);
}

int cmd_top(struct evctl_call *call, struct error *err)
{
    /* Into a pipe or as JSON one look is enough, unless a count says more. */
    return watch(call, NULL, call_has(call, "count") || (isatty(STDOUT_FILENO) && !call->json),
                 err);
}

/* --- qmp --- */

/* A JSON object, or key=value words whose values are JSON where they can be. */
static json_t *read_arguments(const struct evctl_call *call, struct error *err)
{
    json_error_t where;
    json_t *arguments = json_object();
    if (call->argument_count == 3 && call->arguments[2][0] == '{') {
        json_decref(arguments);
        arguments = json_loads(call->arguments[2], JSON_REJECT_DUPLICATES, &where);
        if (!arguments)
            error_set(err, EINVAL, "the arguments are no JSON object: %s", where.text);
        return arguments;
    }
    for (unsigned i = 2; i < call->argument_count; i++) {
        const char *equals = strchr(call->arguments[i], '=');
        char key[64];
        if (!equals) {
            error_set(err, EINVAL, "'%s': write KEY=VALUE, or one JSON object for all arguments",
                      call->arguments[i]);
            json_decref(arguments);
            return NULL;
        }
        snprintf(key, sizeof(key), "%.*s", (int)MIN(equals - call->arguments[i], 63),
                 call->arguments[i]);
        json_t *value = json_loads(equals + 1, JSON_DECODE_ANY, NULL);
        json_object_set_new(arguments, key, value ? value : json_string(equals + 1));
    }
    return arguments;
}

int cmd_qmp(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    struct qmp qmp;
    json_t *arguments = read_arguments(call, err), *reply = NULL;
    int result =
        arguments ? machine_open(call->arguments[0], MACHINE_RUNNING, &machine, err) : -EINVAL;
    if (result) {
        json_decref(arguments);
        return result;
    }
    result = qmp_open(&machine, &qmp, err);
    if (!result) {
        result = qmp_execute(&qmp, call->arguments[1], arguments, &reply, err);
        qmp_close(&qmp);
    } else {
        json_decref(arguments);
    }
    if (!result)
        tell_json_always(reply);
    machine_close(&machine);
    return result;
}
