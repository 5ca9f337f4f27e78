/* SPDX-License-Identifier: MIT */
/*
 * cloud: seeds that say who a machine is. cloud-init sets a guest up once for each instance-id, so
 * a copy with the id of its original would come up with its host keys, addresses and name.
 */
#include "tools/evctl/cloud.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/evctl/model.h"
#include "tools/evctl/seed.h"
#include "tools/evctl/tell.h"

#define SEED_FILE "seed.iso"

struct files {
    struct seed_file list[SEED_FILES_MAX];
    size_t count;
};

static int put(struct files *files, const char *name, char *text, struct error *err)
{
    struct seed_file *file = seed_find(files->list, files->count, name);
    if (file) {
        free(file->text);
        file->text = text;
        return 0;
    }
    if (files->count == SEED_FILES_MAX) {
        free(text);
        return error_set(err, E2BIG, "the seed has %d files and no room for %s", SEED_FILES_MAX,
                         name);
    }
    files->list[files->count++] = (struct seed_file){.name = strdup(name), .text = text};
    return 0;
}

/* Lines that say who the machine is are ours; the others stay. JSON goes as a whole. */
static char *make_meta(const char *old, const char *id, const char *name)
{
    static const char *const ours[] = {"instance-id:", "local-hostname:", "hostname:"};
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    CHECK(to);
    fprintf(to, "instance-id: %s\nlocal-hostname: %s\n", id, name);
    for (const char *line = *old == '{' ? "" : old; *line;) {
        size_t length = strcspn(line, "\n");
        bool is_ours = false;
        for (unsigned i = 0; i < ARRAY_SIZE(ours); i++)
            is_ours |= strncmp(line, ours[i], strlen(ours[i])) == 0;
        if (!is_ours && length)
            fprintf(to, "%.*s\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
    CHECK(fclose(to) == 0);
    return text;
}

static int put_identity(struct files *files, const struct machine *machine, bool is_again,
                        struct error *err)
{
    char id[80];
    const struct seed_file *old = seed_find(files->list, files->count, "meta-data");
    snprintf(id, sizeof(id), is_again ? "%.40s-%llx" : "%.40s", model_text(machine->config, "uuid"),
             (unsigned long long)time(NULL));
    return put(files, "meta-data", make_meta(old ? old->text : "", id, machine->name), err);
}

/* The machine's seed, and the files in it; NULL if it has none. */
static json_t *find_seed(const struct machine *machine, struct files *files)
{
    size_t i;
    json_t *disk;
    json_array_foreach(json_object_get(machine->config, "disks"), i, disk)
    {
        char *path = machine_path(machine, model_text(disk, "file"));
        files->count =
            strcmp(model_text(disk, "kind"), "iso") == 0 ? seed_read(path, files->list) : 0;
        free(path);
        if (files->count)
            return disk;
    }
    return NULL;
}

/* A person who forgets the first line waits for a guest that does nothing. */
static void look_at_user_data(const char *path, const char *text)
{
    static const char *const starts[] = {"#cloud-config", "#!",
                                         "#include",      "#cloud-boothook",
                                         "#part-handler", "Content-Type:",
                                         "MIME-Version:", "## template:",
                                         "From "};
    for (unsigned i = 0; i < ARRAY_SIZE(starts); i++)
        if (strncmp(text, starts[i], strlen(starts[i])) == 0)
            return;
    tell_note("%s does not begin with #cloud-config or #!, without which cloud-init passes it over",
              path);
}

static int take_file(struct files *files, const char *name, const char *path, struct error *err)
{
    char *text = store_read_file(path, SEED_FILE_MAX_BYTES, NULL, err);
    if (!text)
        return -err->code;
    if (strcmp(name, "user-data") == 0)
        look_at_user_data(path, text);
    return put(files, name, text, err);
}

static int write_seed(const struct machine *machine, const char *file, const struct files *files,
                      struct error *err)
{
    char *path = machine_path(machine, file);
    int result = seed_write(path, files->list, files->count, err);
    free(path);
    return result;
}

int cloud_apply(const struct evctl_call *call, struct machine *machine, struct error *err)
{
    static const char *const names[] = {"user-data", "network-config"};
    struct files files = {0};
    if (!call_has(call, names[0]) && !call_has(call, names[1]))
        return 0;
    json_t *disk = find_seed(machine, &files);
    int result = 0;
    for (unsigned i = 0; !result && i < ARRAY_SIZE(names); i++)
        if (call_has(call, names[i]))
            result = take_file(&files, names[i], call_get(call, names[i]), err);
    /* cloud-init takes a seed without user data for none. */
    if (!result && !seed_find(files.list, files.count, names[0]))
        result = put(&files, names[0], strdup("#cloud-config\n"), err);
    if (!result)
        result = put_identity(&files, machine, disk != NULL, err);
    if (!result)
        result = write_seed(machine, SEED_FILE, &files, err);
    if (!result && disk)
        json_object_set_new(disk, "file", json_string(SEED_FILE));
    else if (!result)
        model_add_disk(machine->config, "iso", SEED_FILE, "raw");
    seed_free(files.list, files.count);
    return result;
}

static bool names_host(const char *user_data)
{
    for (const char *line = user_data; line; line = strchr(line, '\n'), line += line != NULL)
        if (strncmp(line, "hostname:", 9) == 0 || strncmp(line, "fqdn:", 5) == 0)
            return true;
    return false;
}

int cloud_clone(const struct machine *to, const char *source, const char *file, bool *is_seed,
                struct error *err)
{
    struct files files = {0};
    files.count = seed_read(source, files.list);
    *is_seed = files.count;
    if (!files.count)
        return 0;
    const struct seed_file *user_data = seed_find(files.list, files.count, "user-data");
    if (user_data && names_host(user_data->text))
        tell_note("the user data names the host, so '%s' calls itself as its original does",
                  to->name);
    int result = put_identity(&files, to, false, err);
    if (!result)
        result = write_seed(to, file, &files, err);
    seed_free(files.list, files.count);
    return result;
}
