/* SPDX-License-Identifier: MIT */
/* foreign: opening and closing the files of an image, and merging what its format locates. */
#include "disk/foreign/foreign.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "disk/foreign/foreign_private.h"

static const struct foreign_ops *find_ops(const char *format)
{
    static const struct foreign_ops *const all[] = {&foreign_vdi_ops, &foreign_vmdk_ops,
                                                    &foreign_vpc_ops, &foreign_vhdx_ops};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (!strcmp(all[i]->name, format))
            return all[i];
    return NULL;
}

bool foreign_is_known(const char *format)
{
    return find_ops(format) != NULL;
}

uint64_t foreign_size_bytes(const struct foreign *foreign)
{
    return foreign->size_bytes;
}

uint64_t foreign_host_bytes(const struct foreign *foreign)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < foreign->file_count; i++) {
        struct stat status;
        int fd = foreign->files[i].file->fd;
        if (fd >= 0 && !fstat(fd, &status))
            bytes += (uint64_t)status.st_blocks * 512;
    }
    return bytes;
}

uint32_t foreign_cluster_bytes(const struct foreign *foreign)
{
    return foreign->cluster_bytes;
}

const char *foreign_problem(const struct foreign *foreign)
{
    return foreign->problem;
}

int foreign_corrupt(struct foreign *foreign, const char *format, ...)
{
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    snprintf(foreign->problem, sizeof(foreign->problem),
             "image '%.192s' is damaged: %.224s; take another copy of it", foreign_path(foreign),
             what);
    return -EIO;
}

int foreign_refuse(const struct foreign *foreign, struct error *err, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return error_set(err, EINVAL, "image '%s': %s", foreign_path(foreign), what);
}

int foreign_read(struct foreign *foreign, uint32_t file, uint64_t offset, void *buffer,
                 uint64_t bytes, struct error *err)
{
    const struct foreign_file *from = &foreign->files[file];
    if (!range_fits(offset, bytes, from->length_bytes))
        return error_set(err, EIO,
                         "'%s' is cut short: it has %llu bytes, and what is read at %llu is not "
                         "there; take another copy of it",
                         from->path, (unsigned long long)from->length_bytes,
                         (unsigned long long)offset);
    int result = io_read_now(from->file, offset, buffer, bytes);
    if (result)
        return error_set_errno(err, -result, "cannot read '%s'", from->path);
    if (file == 0)
        foreign_patch_apply(foreign, offset, buffer, bytes);
    return 0;
}

int foreign_add_file(struct foreign *foreign, struct io_file *file, const char *path,
                     struct error *err)
{
    struct foreign_file *files =
        realloc(foreign->files, (foreign->file_count + 1) * sizeof(*foreign->files));
    char *copy = strdup(path);
    if (files)
        foreign->files = files;
    uint64_t length = 0;
    int result = files && copy ? io_length(file, &length) : -ENOMEM;
    if (result) {
        free(copy);
        return error_set_errno(err, -result, "cannot find the length of '%s'", path);
    }
    foreign->files[foreign->file_count] = (struct foreign_file){file, copy, length};
    return (int)foreign->file_count++;
}

/* Frees all but the files, which close one after the other. */
static void free_memory(struct foreign *foreign)
{
    if (foreign->format)
        foreign->ops->free(foreign);
    foreign_pages_fini(foreign);
    free(foreign->patches);
}

static void on_file_closed(void *opaque)
{
    struct foreign *foreign = opaque;
    if (foreign->file_count) {
        struct foreign_file *file = &foreign->files[--foreign->file_count];
        free(file->path);
        io_close(file->file, on_file_closed, foreign);
        return;
    }
    void (*on_closed)(void *) = foreign->on_closed;
    void *owner = foreign->opaque;
    free_memory(foreign);
    free(foreign->files);
    free(foreign);
    if (on_closed)
        on_closed(owner);
}

void foreign_close(struct foreign *foreign, void (*on_closed)(void *opaque), void *opaque)
{
    foreign->on_closed = on_closed;
    foreign->opaque = opaque;
    on_file_closed(foreign);
}

void foreign_abandon(struct foreign *foreign)
{
    if (foreign->file_count) {
        free(foreign->files[0].path);
        foreign->files[0] = foreign->files[foreign->file_count - 1];
        foreign->file_count--;
    }
    foreign_close(foreign, NULL, NULL);
}

int foreign_open(struct loop *loop, struct io_file *file, const struct foreign_options *options,
                 struct foreign **out, struct error *err)
{
    struct foreign *foreign = calloc(1, sizeof(*foreign));
    if (!foreign)
        return error_set(err, ENOMEM, "no memory to open '%s'", options->path);
    foreign->ops = find_ops(options->format);
    foreign->loop = loop;
    foreign->blocking = options->blocking;
    int result = foreign_pages_init(foreign);
    if (result)
        error_set(err, ENOMEM, "no memory to open '%s'", options->path);
    if (!result)
        result = MIN(foreign_add_file(foreign, file, options->path, err), 0);
    if (!result)
        result = foreign->ops->open(foreign, options, err);
    if (!result && foreign->size_bytes > FOREIGN_SIZE_MAX)
        result = foreign_refuse(foreign, err, "its size of %llu bytes is too large",
                                (unsigned long long)foreign->size_bytes);
    if (result)
        foreign_abandon(foreign);
    else
        *out = foreign;
    return result;
}

int foreign_data(struct foreign *foreign, uint32_t file, uint64_t host_offset, uint64_t bytes,
                 struct foreign_extent *out)
{
    const struct foreign_file *from = &foreign->files[file];
    if (!range_fits(host_offset, bytes, from->length_bytes))
        return foreign_corrupt(foreign,
                               "data at %#llx lies outside of the file, which has %llu "
                               "bytes",
                               (unsigned long long)host_offset,
                               (unsigned long long)from->length_bytes);
    *out = (struct foreign_extent){.kind = FOREIGN_DATA,
                                   .bytes = bytes,
                                   .file = from->file,
                                   .path = from->path,
                                   .host_offset = host_offset};
    return 0;
}

static bool continues(const struct foreign_extent *extent, const struct foreign_extent *next)
{
    if (next->kind != extent->kind || next->kind == FOREIGN_PACKED)
        return false;
    return next->kind != FOREIGN_DATA ||
           (next->file == extent->file && next->host_offset == extent->host_offset + extent->bytes);
}

int foreign_find(struct foreign *foreign, uint64_t offset, uint64_t end, struct foreign_extent *out)
{
    struct foreign_extent next;
    CHECK(offset < end && end <= foreign->size_bytes);
    int result = foreign->ops->locate(foreign, offset, end - offset, out);
    while (!result && offset + out->bytes < end) {
        uint64_t at = offset + out->bytes;
        if (foreign->ops->locate(foreign, at, end - at, &next) || !continues(out, &next))
            break;
        out->bytes += next.bytes;
    }
    return result;
}
