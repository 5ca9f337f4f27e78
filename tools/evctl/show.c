/* SPDX-License-Identifier: MIT */
/*
 * show: list and info.
 *
 * list opens no connection to machines that do not run; those that do are asked all at once, and
 * one that does not answer in time is shown as such.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/evctl/evctl.h"
#include "tools/evctl/live.h"
#include "tools/evctl/model.h"
#include "tools/evctl/qmp.h"
#include "tools/evctl/tell.h"

#define ANSWER_MS 1000

struct asked {
    struct qmp qmp;
    json_t *row;
};

/* A problem that is no UTF-8, as of a home folder with such a name, is left out. */
static json_t *describe_broken(const char *name, const char *problem, pid_t pid)
{
    json_t *row = json_pack("{s:s, s:s, s:i}", "name", name, "state", "broken", "pid", (int)pid);
    json_object_set_new(row, "problem", json_string(problem));
    return row;
}

static json_t *describe(const struct machine *machine)
{
    const json_t *config = machine->config;
    pid_t pid = machine_pid(machine->folder_fd);
    if (!config)
        return describe_broken(machine->name, machine->problem.text, pid);
    return json_pack("{s:s, s:s, s:I, s:I, s:i, s:i, s:s}", "name", machine->name, "state",
                     pid ? "running" : "stopped", "cpus", (json_int_t)model_number(config, "cpus"),
                     "memory-mib", (json_int_t)model_number(config, "memory-mib"), "disks",
                     (int)json_array_size(json_object_get(config, "disks")), "pid", (int)pid, "os",
                     model_text(config, "os"));
}

/* All in one message: the socket's buffer takes it without waiting. */
static void ask(struct asked *asked, const struct machine *machine)
{
    static const char question[] =
        "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-status\","
        "\"id\":\"list\"}";
    asked->qmp = (struct qmp){.fd = qmp_connect(machine->folder_fd, "qmp")};
    json_object_set_new(asked->row, "state", json_string("no answer"));
    if (asked->qmp.fd >= 0)
        unused_result(send(asked->qmp.fd, question, sizeof(question) - 1, MSG_NOSIGNAL) < 0);
}

/* QEMU's word for "paused before it ever ran" means nothing to a person. */
static json_t *state_word(const json_t *status)
{
    const char *word = model_text(status, "status");
    return json_string(strcmp(word, "prelaunch") == 0 ? "paused" : word);
}

/* False once nothing more is to come. */
static bool take_answer(struct asked *asked)
{
    json_t *message;
    int result;
    while ((result = qmp_receive(&asked->qmp, &message)) == 1) {
        bool is_it = json_object_get(message, "id");
        if (is_it)
            json_object_set_new(asked->row, "state",
                                state_word(json_object_get(message, "return")));
        json_decref(message);
        if (is_it)
            return false;
    }
    if (result == -ENOTCONN) {
        json_object_set_new(asked->row, "state", json_string("stopped"));
        json_object_del(asked->row, "pid");
    }
    return result == 0;
}

static void collect(struct asked *asked, size_t count)
{
    struct pollfd *ready = calloc(count + 1, sizeof(*ready));
    uint64_t until_ns = tell_now_ns() + ANSWER_MS * 1000000ull;
    size_t waiting = 1;
    CHECK(ready);
    while (waiting && tell_now_ns() < until_ns) {
        waiting = 0;
        for (size_t i = 0; i < count; i++) {
            if (asked[i].qmp.fd >= 0 && !take_answer(&asked[i])) {
                close(asked[i].qmp.fd);
                asked[i].qmp.fd = -1;
            }
            ready[i] = (struct pollfd){.fd = asked[i].qmp.fd, .events = POLLIN};
            waiting += asked[i].qmp.fd >= 0;
        }
        if (waiting)
            unused_result(poll(ready, count, 20));
    }
    for (size_t i = 0; i < count; i++) {
        if (asked[i].qmp.fd >= 0)
            close(asked[i].qmp.fd);
        free(asked[i].qmp.buffer);
    }
    free(ready);
}

static json_t *show_all(struct error *err)
{
    json_t *names = store_names(err), *rows = json_array(), *name;
    struct asked *asked = calloc(json_array_size(names) + 1, sizeof(*asked));
    size_t i, count = 0;
    CHECK(asked && rows);
    json_array_foreach(names, i, name)
    {
        struct machine machine;
        struct error why = {0};
        int result = machine_open(json_string_value(name), MACHINE_BROKEN_OK, &machine, &why);
        if (result == -ENODEV)
            continue; /* deleted meanwhile */
        json_t *row =
            result ? describe_broken(json_string_value(name), why.text, 0) : describe(&machine);
        json_array_append_new(rows, row);
        if (model_number(row, "pid")) {
            asked[count].row = row;
            ask(&asked[count++], &machine);
        } else {
            json_object_del(row, "pid");
        }
        machine_close(&machine);
    }
    collect(asked, count);
    free(asked);
    if (!names) {
        json_decref(rows);
        return NULL;
    }
    json_decref(names);
    return rows;
}

static void keep_running(json_t *rows)
{
    for (size_t i = json_array_size(rows); i-- > 0;)
        if (!json_object_get(json_array_get(rows, i), "pid"))
            json_array_remove(rows, i);
}

static bool has_problem(const json_t *rows)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) if (json_object_get(row, "problem")) return true;
    return false;
}

#define LIST_COLUMNS "name:NAME state:STATE cpus:CPUS memory-mib:MEMORY-MIB disks:DISKS pid:PID"

int cmd_list(struct evctl_call *call, struct error *err)
{
    size_t i;
    json_t *row;
    if (call_has(call, "os-types")) {
        json_t *types = json_array();
        for (unsigned n = 0; model_nth_os(n); n++)
            json_array_append_new(types,
                                  json_pack("{s:s, s:s, s:s}", "os", model_nth_os(n)->name, "title",
                                            model_nth_os(n)->title, "user", model_nth_os(n)->user));
        tell_table(types, "os:OS user:USER title:TITLE");
        tell_json(types);
        return 0;
    }
    json_t *rows = call_has(call, "names") ? store_names(err) : show_all(err);
    if (!rows)
        return -err->code;
    if (call_has(call, "names")) {
        json_array_foreach(rows, i, row) tell_line("%s", json_string_value(row));
        tell_json(rows);
        return 0;
    }
    if (call_has(call, "running"))
        keep_running(rows);
    if (json_array_size(rows))
        tell_table(rows, has_problem(rows) ? LIST_COLUMNS " problem:PROBLEM" : LIST_COLUMNS);
    else
        tell_note("no machines%s; 'evctl create' makes one",
                  call_has(call, "running") ? " are running" : "");
    tell_json(rows);
    return 0;
}

/* --- info --- */

static void add_live(const struct machine *machine, json_t *info)
{
    struct qmp qmp;
    json_t *status = NULL, *kvm = NULL, *addresses = NULL;
    json_object_set_new(info, "state", json_string("no answer"));
    if (qmp_open(machine, &qmp, NULL))
        return;
    if (qmp_execute(&qmp, "query-status", NULL, &status, NULL) == 0)
        json_object_set_new(info, "state", state_word(status));
    if (qmp_execute(&qmp, "query-kvm", NULL, &kvm, NULL) == 0)
        json_object_set_new(
            info, "accelerator",
            json_string(json_is_true(json_object_get(kvm, "enabled")) ? "kvm" : "soft"));
    uint64_t cpus, memory_mib;
    if (live_read_now(&qmp, &cpus, &memory_mib, NULL) == 0)
        json_object_set_new(info, "now",
                            json_pack("{s:I, s:I}", "cpus", (json_int_t)cpus, "memory-mib",
                                      (json_int_t)memory_mib));
    if (qmp_execute(&qmp, "query-nic-addresses", NULL, &addresses, NULL) == 0)
        json_object_set(info, "addresses", addresses);
    json_decref(status);
    json_decref(kvm);
    json_decref(addresses);
    qmp_close(&qmp);
}

/* What a person can do about a state that the machine does not leave by itself. */
static const char *advice(const char *state)
{
    static const char *const pairs[][2] = {
        {"io-error", "a disk could not be read or written, as on a full file system: make room, "
                     "then go on with: evctl resume"},
        {"internal-error", "its CPU came upon something it does not know: evctl logs, evctl reset"},
        {"guest-panicked", "the guest's kernel gave up: evctl logs, evctl reset"},
        {"shutdown", "the guest has shut down, and evisor stays: evctl stop --force"},
        {"no answer", "evisor is busy, held or hung; evctl stop --force ends it"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++)
        if (strcmp(state, pairs[i][0]) == 0)
            return pairs[i][1];
    return NULL;
}

static void print_list(const json_t *config, const char *list, const char *columns)
{
    const json_t *entries = json_object_get(config, list);
    if (json_array_size(entries) == 0)
        return;
    tell_line("%s", "");
    tell_table(entries, columns);
}

static void print_text(const json_t *info, const char *title, const char *key)
{
    if (*model_text(info, key))
        tell_line("%-12s %s", title, model_text(info, key));
}

/* Where the next start changes it, both. */
static void print_number(const json_t *info, const char *title, const char *key, const char *unit)
{
    const json_t *now = json_object_get(info, "now");
    unsigned long long next = model_number(info, key), has = model_number(now, key);
    if (now && has != next)
        tell_line("%-12s %llu%s now, %llu%s from the next start", title, has, unit, next, unit);
    else
        tell_line("%-12s %llu%s", title, next, unit);
}

static void print_info(const json_t *info)
{
    static const char *const texts[][2] = {
        {"Name:", "name"},     {"State:", "state"},   {"UUID:", "uuid"},
        {"OS:", "os"},         {"Folder:", "folder"}, {"Accelerator:", "accelerator"},
        {"Kernel:", "kernel"}, {"Initrd:", "initrd"}, {"Append:", "append"},
        {"Firmware:", "bios"}, {"Boot:", "boot"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
        print_text(info, texts[i][0], texts[i][1]);
    print_number(info, "CPUs:", "cpus", "");
    print_number(info, "Memory:", "memory-mib", " MiB");
    print_list(info, "disks", "id:DISK kind:KIND format:FORMAT file:FILE");
    print_list(info, "nics", "id:NIC mode:MODE mac:MAC network:NETWORK bridge:BRIDGE");
    size_t i, k;
    json_t *nic, *rule;
    json_array_foreach(json_object_get(info, "nics"), i, nic)
        json_array_foreach(json_object_get(nic, "forwards"), k, rule)
            tell_line("%s forwards %s", model_text(nic, "id"), json_string_value(rule));
}

int cmd_info(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    int result = machine_open(call->arguments[0], 0, &machine, err);
    if (result)
        return result;
    json_t *info = json_deep_copy(machine.config);
    pid_t pid = machine_pid(machine.folder_fd);
    json_object_set_new(info, "state", json_string("stopped"));
    json_object_set_new(info, "folder", json_string(machine.folder));
    if (pid) {
        json_object_set_new(info, "pid", json_integer(pid));
        add_live(&machine, info);
        if (advice(model_text(info, "state")))
            tell_note("%s", advice(model_text(info, "state")));
    } else if (faccessat(machine.folder_fd, "pid", F_OK, 0) == 0) {
        tell_note("the last run of '%s' did not end in order; see: evctl logs", machine.name);
        json_object_set_new(info, "ended-in-order", json_false());
    }
    print_info(info);
    tell_json(info);
    machine_close(&machine);
    return 0;
}
