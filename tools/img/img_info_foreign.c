/* SPDX-License-Identifier: MIT */
/* img_info_foreign: what a VMDK's descriptor and extents say, in qemu-img's words. */
#include "tools/img/img_info_foreign.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "disk/foreign/foreign.h"
#include "tools/img/img.h"

struct part {
    char *path;
    char type[16];
    uint64_t size_bytes;
    uint32_t cluster_bytes;
    bool is_packed;
};

struct img_info_foreign {
    uint32_t cid, parent_cid;
    char create_type[64];
    size_t count;
    struct part parts[];
};

void img_info_foreign_free(struct img_info_foreign *info)
{
    for (size_t i = 0; info && i < info->count; i++)
        free(info->parts[i].path);
    free(info);
}

/* Names come from the image: what is no text becomes '?'. */
static void clean(char *text)
{
    for (; *text; text++)
        if (*text & 0x80 || *text < ' ')
            *text = '?';
}

static struct img_info_foreign *describe(const struct foreign *foreign)
{
    struct foreign_description description;
    if (!foreign_describe(foreign, &description))
        return NULL;
    struct img_info_foreign *info =
        calloc(1, sizeof(*info) + description.parts * sizeof(info->parts[0]));
    if (!info)
        return NULL;
    info->cid = description.cid;
    info->parent_cid = description.parent_cid;
    snprintf(info->create_type, sizeof(info->create_type), "%s", description.create_type);
    clean(info->create_type);
    info->count = description.parts;
    for (uint32_t i = 0; i < description.parts; i++) {
        struct foreign_part part;
        foreign_describe_part(foreign, i, &part);
        struct part *copy = &info->parts[i];
        copy->path = strdup(part.path);
        snprintf(copy->type, sizeof(copy->type), "%s", part.type);
        copy->size_bytes = part.size_bytes;
        copy->cluster_bytes = part.cluster_bytes;
        copy->is_packed = part.is_packed;
        if (copy->path)
            clean(copy->path);
    }
    return info;
}

int img_info_foreign_collect(struct io_file *file, const char *path, const char *format,
                             struct img_info_sizes *sizes, struct img_info_foreign **out)
{
    const struct foreign_options options = {
        .path = path,
        .format = format,
        .blocking = true,
        .no_lock = true,
        .io = {.read_only = true, .aio = DISK_AIO_THREADS},
    };
    struct error err = {0};
    struct foreign *foreign;
    if (foreign_open(file->loop, file, &options, &foreign, &err))
        return img_error("Could not open '%s': %s", path, err.text);
    *sizes = (struct img_info_sizes){foreign_size_bytes(foreign), foreign_host_bytes(foreign),
                                     foreign_cluster_bytes(foreign)};
    *out = describe(foreign);
    foreign_abandon(foreign);
    return 0;
}

void img_info_foreign_print(const struct img_info_foreign *info)
{
    printf("Format specific information:\n    cid: %" PRIu32 "\n    parent cid: %" PRIu32 "\n"
           "    create type: %s\n    extents:\n",
           info->cid, info->parent_cid, info->create_type);
    for (size_t i = 0; i < info->count; i++) {
        const struct part *part = &info->parts[i];
        printf("        [%zu]:\n", i);
        if (part->is_packed)
            puts("            compressed: true");
        printf("            virtual size: %" PRIu64 "\n            filename: %s\n",
               part->size_bytes, part->path ? part->path : "");
        if (part->cluster_bytes)
            printf("            cluster size: %" PRIu32 "\n", part->cluster_bytes);
        printf("            format: %s\n", part->type);
    }
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

json_t *img_info_foreign_json(const struct img_info_foreign *info)
{
    json_t *parts = json_array();
    for (size_t i = 0; i < info->count; i++) {
        const struct part *part = &info->parts[i];
        json_t *object = json_object();
        if (part->is_packed)
            json_object_set_new(object, "compressed", json_true());
        json_object_set_new(object, "virtual-size", number(part->size_bytes));
        json_object_set_new(object, "filename", json_string(part->path ? part->path : ""));
        if (part->cluster_bytes)
            json_object_set_new(object, "cluster-size", number(part->cluster_bytes));
        json_object_set_new(object, "format", json_string(part->type));
        json_array_append_new(parts, object);
    }
    json_t *data = json_object();
    json_object_set_new(data, "cid", number(info->cid));
    json_object_set_new(data, "parent-cid", number(info->parent_cid));
    json_object_set_new(data, "create-type", json_string(info->create_type));
    json_object_set_new(data, "extents", parts);
    json_t *specific = json_object();
    json_object_set_new(specific, "type", json_string("vmdk"));
    json_object_set_new(specific, "data", data);
    return specific;
}
