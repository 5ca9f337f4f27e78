/* SPDX-License-Identifier: MIT */
/* img_snapshot_choice: an id is looked up before a name, so an id says which one is meant. */
#include "tools/img/img_snapshot_choice.h"

#include <stdlib.h>
#include <string.h>

#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_snapshots.h"
#include "tools/img/img.h"

static char *find_id(const struct qcow2_snapshots *snapshots, const char *id, const char *name)
{
    for (size_t i = 0; i < snapshots->count; i++) {
        const struct qcow2_snapshot *snapshot = &snapshots->list[i];
        if ((!id || !strcmp(id, snapshot->id)) && (!name || !strcmp(name, snapshot->name)))
            return strdup(snapshot->id);
    }
    return NULL;
}

static int look_up(struct io_file *file, const char *path, const struct img_options *wanted,
                   char **out)
{
    struct qcow2_header header;
    struct qcow2_snapshots snapshots;
    struct error err = {0};
    if (qcow2_header_read(file, path, &header, &err))
        return img_error("%s", err.text);
    int result = qcow2_snapshots_read(file, &header, &snapshots, &err);
    qcow2_header_fini(&header);
    if (result)
        return img_error("Could not open '%s': %s", path, err.text);
    *out = find_id(&snapshots, img_options_get(wanted, "snapshot.id"),
                   img_options_get(wanted, "snapshot.name"));
    qcow2_snapshots_free(&snapshots);
    return *out ? 0 : img_error("Failed to load snapshot: Can't find snapshot");
}

static int check_keys(const struct img_options *wanted, const char *given)
{
    for (size_t i = 0; i < wanted->count; i++) {
        const char *key = wanted->list[i].key;
        if (strcmp(key, "snapshot.id") && strcmp(key, "snapshot.name")) {
            img_error("Invalid parameter '%s'", key);
            return img_error("Failed in parsing snapshot param '%s'", given);
        }
    }
    return 0;
}

int img_snapshot_choose(struct io_file *file, const char *path, const char *given, char **out)
{
    struct img_options wanted = {0};
    if (strncmp(given, "snapshot.", 9)) {
        *out = strdup(given);
        return *out ? 0 : img_error("out of memory");
    }
    int status = img_options_parse(&wanted, given) ? 1 : check_keys(&wanted, given);
    if (!status)
        status = look_up(file, path, &wanted, out);
    img_options_free(&wanted);
    return status;
}
