/* SPDX-License-Identifier: MIT */
/*
 * up: a folder describes its machine in the file evctl.conf: lines "KEY = VALUE", whose keys are
 * the options of create, and "name". Files are relative to that folder.
 */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/life.h"
#include "tools/evctl/model.h"
#include "tools/evctl/network.h"
#include "tools/evctl/tell.h"

#define LINE_BYTES 4096

struct description {
    char *name;
    char *words[EVCTL_ARGUMENTS_MAX]; /* of an imagined "create NAME --KEY=VALUE ..." */
    int count;
};

static char *trim(char *text)
{
    text += strspn(text, " \t");
    size_t length = strlen(text);
    while (length && strchr(" \t\r\n", text[length - 1]))
        text[--length] = '\0';
    return text;
}

/* A switch is given as "linked = yes". */
static bool is_switch(const char *key)
{
    return strcmp(key, "linked") == 0;
}

static int take_line(struct description *description, char *line, struct error *err)
{
    char *equals = strchr(line, '=');
    if (!*line || *line == '#')
        return 0;
    if (!equals)
        return error_set(err, EINVAL, "'%s' is not of the form KEY = VALUE", line);
    *equals = '\0';
    char *key = trim(line), *value = trim(equals + 1);
    if (strcmp(key, "name") == 0) {
        free(description->name);
        description->name = strdup(value);
        return 0;
    }
    if (description->count == EVCTL_ARGUMENTS_MAX)
        return error_set(err, E2BIG, "it has more than %d lines", EVCTL_ARGUMENTS_MAX);
    if (is_switch(key) && strcmp(value, "yes") != 0)
        return strcmp(value, "no") == 0 ? 0 : error_set(err, EINVAL, "%s is yes or no", key);
    CHECK(asprintf(&description->words[description->count++], "--%s%s%s", key,
                   is_switch(key) ? "" : "=", is_switch(key) ? "" : value) > 0);
    return 0;
}

static int read_description(const char *path, struct description *description, struct error *err)
{
    char line[LINE_BYTES];
    int result = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return error_set(
            err, errno, "%s: %s; write one with lines such as image = debian.qcow2 and memory = 1G",
            path, strerror(errno));
    for (unsigned number = 1; !result && fgets(line, sizeof(line), file); number++) {
        result = take_line(description, trim(line), err);
        if (result)
            error_prefix(err, "%s, line %u", path, number);
    }
    fclose(file);
    return result;
}

static int parse(const struct description *description, const char *path, struct evctl_call *create,
                 struct error *err)
{
    static char *words[EVCTL_ARGUMENTS_MAX + 2] = {(char *)"create"};
    words[1] = description->name;
    memcpy(words + 2, description->words, (size_t)description->count * sizeof(*words));
    int result = parse_call(description->count + 2, words, create, err);
    if (result)
        error_prefix(err, "%s", path);
    return result;
}

static int make(const struct evctl_call *create, const char *name, struct machine *machine,
                struct error *err)
{
    int result = machine_make(name, machine, err);
    if (result)
        return result;
    result = create_fill(create, machine, err);
    if (result)
        unused_result(machine_remove(machine, NULL));
    else
        tell_note("'%s' is made", machine->name);
    return result;
}

/* CPUs, memory and the like follow the file; disks and NICs stay as they were made. */
static int follow(const struct evctl_call *create, const char *name, struct machine *machine,
                  struct error *err)
{
    const char *text;
    int result = machine_open(name, MACHINE_LOCK, machine, err);
    json_t *before = result ? NULL : json_deep_copy(machine->config);
    if (!result)
        result = create_apply(create, machine->config, err);
    for (unsigned n = 0; !result && (text = call_nth(create, "forward", n)); n++)
        result = create_forward(machine->config, text, true, err);
    if (!result && !json_equal(before, machine->config)) {
        result = machine_save(machine, err);
        if (!result)
            tell_note("'%s' follows its changed description%s", name,
                      machine_pid(machine->folder_fd) ? " at its next start" : "");
    }
    json_decref(before);
    return result;
}

static bool exists(const char *name)
{
    char *path = store_path(name, NULL);
    bool is_there = path && access(path, F_OK) == 0;
    free(path);
    return is_there;
}

/* What did not start is made anew by the file as it will be then, disks and all. */
static void take_back(struct machine *machine)
{
    if (machine_pid(machine->folder_fd) || machine_remove(machine, NULL))
        return;
    network_forward_forget_all(machine->config);
    tell_note("'%s' is taken back", machine->name);
}

static int bring_up(const struct description *description, const char *path, struct error *err)
{
    static struct evctl_call create;
    struct machine machine = {.folder_fd = -1, .lock_fd = -1};
    const char *name = description->name;
    int result = store_check_name(name, err);
    if (!result)
        result = parse(description, path, &create, err);
    bool was_there = exists(name);
    if (!result)
        result =
            was_there ? follow(&create, name, &machine, err) : make(&create, name, &machine, err);
    bool was_running = !result && machine_pid(machine.folder_fd);
    if (!result && !was_running) {
        result = life_start(&machine, false, err);
        if (result && !was_there)
            take_back(&machine);
    }
    if (!result) {
        tell_note("'%s' is running%s", machine.name, was_running ? " already" : "");
        tell_json(json_pack("{s:s, s:s, s:b}", "name", machine.name, "state", "running",
                            "was-running", was_running));
    }
    machine_close(&machine);
    return result;
}

/* Goes to the file's folder, so that what the file names is found; its name alone stays. */
static int go_there(const char *given, char *file, size_t size, struct error *err)
{
    struct stat status;
    bool is_folder = stat(given, &status) == 0 && S_ISDIR(status.st_mode);
    char *copy = strdup(given), *other = strdup(given);
    snprintf(file, size, "%s", is_folder ? "evctl.conf" : basename(other));
    const char *folder = is_folder ? given : dirname(copy);
    int result = chdir(folder) < 0 ? error_set_errno(err, errno, "%s", folder) : 0;
    free(copy);
    free(other);
    return result;
}

int cmd_up(struct evctl_call *call, struct error *err)
{
    struct description description = {0};
    char file[256], here[4096];
    int result = go_there(call->argument_count ? call->arguments[0] : ".", file, sizeof(file), err);
    if (!result && !getcwd(here, sizeof(here)))
        result = error_set_errno(err, errno, "this folder");
    if (!result) {
        description.name = strdup(basename(here));
        result = read_description(file, &description, err);
    }
    if (!result)
        result = bring_up(&description, file, err);
    for (int i = 0; i < description.count; i++)
        free(description.words[i]);
    free(description.name);
    return result;
}
