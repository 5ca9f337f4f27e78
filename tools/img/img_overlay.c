/* SPDX-License-Identifier: MIT */
/* img_overlay: a temporary qcow2 image whose name is gone as soon as it is open. */
#include "tools/img/img_overlay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/qcow2/qcow2_create.h"

static int create(struct loop *loop, const char *path, uint64_t size_bytes, const char *below,
                  const char *format)
{
    struct qcow2_create_options options;
    struct error err = {0};
    struct io_file *file = img_create_file(loop, path, &err);
    if (!file)
        return img_error("%s", err.text);
    qcow2_create_defaults(&options);
    options.size_bytes = size_bytes;
    options.backing_path = below;
    options.backing_format = format;
    int result = qcow2_create(file, NULL, &options, &err);
    io_close_wait(file);
    return result ? img_error("Could not create '%s': %s", path, err.text) : 0;
}

/* The size and format of what will be below. */
static int measure(struct loop *loop, const struct img_source_options *options,
                   uint64_t *size_bytes, const char **format)
{
    struct img_source_options below = *options;
    struct img_source source;
    below.writable = false;
    if (img_source_open(loop, &below, &source))
        return 1;
    *size_bytes = disk_size_bytes(source.disk);
    *format = source.format;
    return img_source_close(&source) ? 1 : 0;
}

static int open_over(struct loop *loop, const struct img_source_options *options, char *path,
                     const char *below, struct img_source *out)
{
    uint64_t size_bytes;
    const char *format;
    struct img_source_options over = *options;
    over.path = path;
    over.format = "qcow2";
    over.writable = true;
    if (measure(loop, options, &size_bytes, &format) ||
        create(loop, path, size_bytes, below, format))
        return 1;
    return img_source_open(loop, &over, out);
}

int img_overlay_open(struct loop *loop, const struct img_source_options *options,
                     struct img_source *out)
{
    const char *folder = getenv("TMPDIR");
    char *below = realpath(options->path, NULL), *path = NULL;
    int status = 1, fd = -1;
    if (asprintf(&path, "%s/evisor-img.XXXXXX", folder ? folder : "/var/tmp") < 0)
        path = NULL;
    if (!below)
        img_error("Could not open '%s': No such file or directory", options->path);
    else if (!path || (fd = mkstemp(path)) < 0)
        img_error("Could not make a temporary file in '%s'", folder ? folder : "/var/tmp");
    if (fd >= 0) {
        close(fd);
        status = open_over(loop, options, path, below, out);
        unlink(path);
    }
    free(path);
    free(below);
    return status;
}
