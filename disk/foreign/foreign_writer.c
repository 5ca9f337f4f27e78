/* SPDX-License-Identifier: MIT */
/* foreign_writer: the door to the writers of the foreign formats. */
#include "disk/foreign/foreign_writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/foreign/foreign_writer_private.h"

static const struct foreign_writer_ops *find_ops(const char *format)
{
    static const struct foreign_writer_ops *const all[] = {
        &foreign_vmdk_writer, &foreign_vdi_writer, &foreign_vpc_writer, &foreign_vhdx_writer};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (!strcmp(all[i]->format, format))
            return all[i];
    return NULL;
}

bool foreign_writer_is_known(const char *format)
{
    return find_ops(format) != NULL;
}

int foreign_writer_create(struct io_file *file, const struct foreign_writer_options *options,
                          struct foreign_writer **out, struct error *err)
{
    struct foreign_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return error_set(err, ENOMEM, "no memory to write '%s'", options->path);
    writer->ops = find_ops(options->format);
    writer->file = file;
    writer->size_bytes = options->size_bytes;
    int result = writer->ops->start(writer, options, err);
    if (result)
        foreign_writer_destroy(writer);
    else
        *out = writer;
    return result;
}

void foreign_writer_destroy(struct foreign_writer *writer)
{
    if (!writer)
        return;
    if (writer->format)
        writer->ops->free(writer);
    free(writer);
}

uint32_t foreign_writer_unit(const struct foreign_writer *writer)
{
    return writer->unit_bytes;
}

uint32_t foreign_writer_packed_room(const struct foreign_writer *writer)
{
    return writer->packed_room;
}

uint32_t foreign_writer_pack(const struct foreign_writer *writer, uint64_t index, const void *unit,
                             void *out)
{
    return writer->ops->pack(writer, index, unit, out);
}

int foreign_writer_place(struct foreign_writer *writer, uint64_t index, uint32_t bytes,
                         uint64_t *host_offset)
{
    return writer->ops->place(writer, index, bytes, host_offset);
}

int foreign_writer_finish(struct foreign_writer *writer, struct error *err)
{
    int result = writer->ops->finish(writer);
    return result ? error_set_errno(err, -result, "Could not write the tables of the target") : 0;
}
