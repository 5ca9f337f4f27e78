/* SPDX-License-Identifier: MIT */
/* vdi_writer: new dynamic VDI images: header, block map, blocks of 1 MiB in the order of writing.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "disk/foreign/foreign_writer_private.h"

#define VDI_BLOCK_BYTES  (1024 * 1024u)
#define VDI_MAP_OFFSET   512u
#define VDI_HEADER_BYTES 512u
#define VDI_BLOCKS_MAX   0x3fffffffu

struct vdi_writer {
    uint32_t *map; /* as in the file */
    uint32_t blocks, allocated;
    uint64_t data_offset;
};

static int vdi_start(struct foreign_writer *writer, const struct foreign_writer_options *options,
                     struct error *err)
{
    uint64_t blocks =
        options->size_bytes / VDI_BLOCK_BYTES + (options->size_bytes % VDI_BLOCK_BYTES != 0);
    if (blocks > VDI_BLOCKS_MAX)
        return error_set(err, EFBIG, "a VDI image holds 1 PiB at most");
    struct vdi_writer *vdi = writer->format = calloc(1, sizeof(*vdi));
    if (vdi)
        vdi->map = malloc(blocks * 4 + 1);
    if (!vdi || !vdi->map)
        return error_set(err, ENOMEM, "no memory to write '%s'", options->path);
    memset(vdi->map, 0xff, blocks * 4);
    vdi->blocks = (uint32_t)blocks;
    vdi->data_offset = align_up(VDI_MAP_OFFSET + blocks * 4, VDI_BLOCK_BYTES);
    writer->unit_bytes = VDI_BLOCK_BYTES;
    writer->end = vdi->data_offset;
    return 0;
}

static int vdi_place(struct foreign_writer *writer, uint64_t index, uint32_t bytes,
                     uint64_t *host_offset)
{
    struct vdi_writer *vdi = writer->format;
    store_le32(&vdi->map[index], vdi->allocated++);
    *host_offset = writer->end;
    writer->end += bytes;
    return 0;
}

static int vdi_finish(struct foreign_writer *writer)
{
    static const char text[] = "<<< evisor VDI image >>>\n";
    const struct vdi_writer *vdi = writer->format;
    uint8_t header[VDI_HEADER_BYTES] = {0};
    memcpy(header, text, sizeof(text));
    store_le32(header + 0x40, 0xbeda107f);
    store_le32(header + 0x44, 0x00010001);
    store_le32(header + 0x48, 0x180); /* what follows it, without the rest of the sector */
    store_le32(header + 0x4c, 1);     /* dynamic */
    store_le32(header + 0x154, VDI_MAP_OFFSET);
    store_le32(header + 0x158, (uint32_t)vdi->data_offset);
    store_le32(header + 0x168, 512);
    store_le64(header + 0x170, writer->size_bytes);
    store_le32(header + 0x178, VDI_BLOCK_BYTES);
    store_le32(header + 0x180, vdi->blocks);
    store_le32(header + 0x184, vdi->allocated);
    if (getrandom(header + 0x188, 32, 0) != 32) /* of the image, and of its last change */
        return -EIO;
    int result = io_write_now(writer->file, VDI_MAP_OFFSET, vdi->map, vdi->blocks * UINT64_C(4));
    if (!result)
        result = io_truncate_now(writer->file, writer->end);
    return result ? result : io_write_now(writer->file, 0, header, sizeof(header));
}

static void vdi_writer_free(struct foreign_writer *writer)
{
    struct vdi_writer *vdi = writer->format;
    free(vdi->map);
    free(vdi);
}

const struct foreign_writer_ops foreign_vdi_writer = {
    .format = "vdi",
    .start = vdi_start,
    .place = vdi_place,
    .finish = vdi_finish,
    .free = vdi_writer_free,
};
