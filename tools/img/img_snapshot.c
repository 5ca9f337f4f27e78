/* SPDX-License-Identifier: MIT */
/* img_snapshot: evisor-img snapshot: internal snapshots of a qcow2 image that is not in use. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_snapshot.h"
#include "tools/img/img.h"
#include "tools/img/img_image.h"
#include "tools/img/img_snapshot_list.h"

struct arguments {
    struct img_image image;
    const char *name;
    int action; /* 'l', 'c', 'a', 'd', or 0 */
    bool quiet;
};

static int set_action(struct arguments *arguments, int action, const char *name)
{
    if (arguments->action)
        return img_usage("Cannot mix '-l', '-a', '-c', '-d'");
    arguments->action = action;
    arguments->image.writable = action != 'l';
    arguments->name = name;
    return 0;
}

static int on_list(void *arguments, const char *name)
{
    return set_action(arguments, 'l', name);
}

static int on_create(void *arguments, const char *name)
{
    return set_action(arguments, 'c', name);
}

static int on_apply(void *arguments, const char *name)
{
    return set_action(arguments, 'a', name);
}

static int on_delete(void *arguments, const char *name)
{
    return set_action(arguments, 'd', name);
}

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", image.is_options),
    IMG_CALL_0('l', NULL, on_list),
    IMG_CALL('a', NULL, on_apply),
    IMG_CALL('c', NULL, on_create),
    IMG_CALL('d', NULL, on_delete),
    IMG_SWITCH('q', NULL, quiet),
    IMG_SWITCH('U', "force-share", image.no_lock),
};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    int status = img_image_parse(argc, argv, args, ARRAY_SIZE(args), arguments, &arguments->image);
    if (status)
        return status;
    if (!arguments->action)
        arguments->action = 'l';
    if (arguments->image.no_lock && arguments->action != 'l')
        return img_error("Could not open '%s': force-share=on can only be used with read-only "
                         "images; leave out -U",
                         arguments->image.path);
    return 0;
}

static int list(struct io_file *file, const struct arguments *arguments)
{
    struct qcow2_header header;
    struct qcow2_snapshots snapshots;
    struct error err = {0};
    if (qcow2_header_read(file, arguments->image.path, &header, &err))
        return img_error("%s", err.text);
    int result = qcow2_snapshots_read(file, &header, &snapshots, &err);
    qcow2_header_fini(&header);
    if (result)
        return img_error("Could not open '%s': %s", arguments->image.path, err.text);
    if (snapshots.count)
        img_snapshot_list_print(&snapshots);
    qcow2_snapshots_free(&snapshots);
    return 0;
}

/* They would not know what changes. */
static int refuse_bitmaps(struct io_file *file, const char *path, struct error *err)
{
    struct qcow2_header header;
    int result = qcow2_header_read(file, path, &header, err);
    if (result)
        return result;
    bool has_bitmaps = header.has_bitmaps && header.autoclear & QCOW2_AUTOCLEAR_BITMAPS;
    qcow2_header_fini(&header);
    return has_bitmaps ? error_set(err, EBUSY, "Device has active dirty bitmaps") : 0;
}

/* Deleting goes by the name alone: somebody's name may be another one's id. */
static int delete_named(struct io_file *file, const char *path, const char *name, struct error *err)
{
    struct qcow2_header header;
    struct qcow2_snapshots snapshots;
    char *id = NULL;
    int result = qcow2_header_read(file, path, &header, err);
    if (result)
        return result;
    result = qcow2_snapshots_read(file, &header, &snapshots, err);
    qcow2_header_fini(&header);
    if (result) {
        error_prefix(err, "image '%s'", path);
        return result;
    }
    for (size_t i = 0; i < snapshots.count && !id; i++)
        if (!strcmp(snapshots.list[i].name, name))
            id = strdup(snapshots.list[i].id);
    qcow2_snapshots_free(&snapshots);
    result = id ? qcow2_snapshot_delete(file, path, id, err) : -ENOENT;
    free(id);
    return result;
}

static int act(struct io_file *file, const struct arguments *arguments)
{
    const char *path = arguments->image.path, *name = arguments->name;
    struct error err = {0};
    switch (arguments->action) {
    case 'c':
        if (qcow2_snapshot_create(file, path, name, &err))
            return img_error("Could not create snapshot '%s': %s", name, err.text);
        return 0;
    case 'a':
        if (refuse_bitmaps(file, path, &err) || qcow2_snapshot_apply(file, path, name, &err))
            return img_error("Could not apply snapshot '%s': %s", name,
                             err.code ? err.text
                                      : "Failed to load snapshot: No such file or directory");
        return 0;
    case 'd':
        if (delete_named(file, path, name, &err))
            return img_error("Could not delete snapshot '%s': %s", name,
                             err.code ? err.text : "snapshot not found");
        return 0;
    default:
        return list(file, arguments);
    }
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {0};
    const char *format;
    if (parse(&arguments, argc, argv))
        return 1;
    const struct img_file_options options = {.writable = arguments.action != 'l',
                                             .no_lock = arguments.image.no_lock};
    struct io_file *file = img_open_file(loop, arguments.image.path, &options);
    if (!file)
        return 1;
    int status = img_find_format(file, arguments.image.path, NULL, &format);
    if (!status && !strcmp(format, "raw"))
        status = arguments.action == 'l'
                     ? 0
                     : img_error("'%s' is a raw image: only qcow2 images have snapshots",
                                 arguments.image.path);
    else if (!status)
        status = act(file, &arguments);
    io_close_wait(file);
    return status;
}

const struct img_command img_snapshot_command = {
    .name = "snapshot",
    .synopsis = "[--image-opts] [-q] [-U] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT] FILENAME",
    .help = "Lists, creates, applies and deletes internal snapshots of a qcow2 image. The image\n"
            "must not be in use; for a running machine use its control socket.\n"
            "  -l           list (the default)\n"
            "  -c SNAPSHOT  create one of this name\n"
            "  -a SNAPSHOT  go back to it; what was written since is lost\n"
            "  -d SNAPSHOT  delete it\n"
            "  -U           list although another process uses the image\n"
            "Examples:\n"
            "  evisor-img snapshot -c before-upgrade disk.qcow2\n"
            "  evisor-img snapshot -a before-upgrade disk.qcow2\n",
    .run = run,
};
