/* SPDX-License-Identifier: MIT */
/*
 * qcow2_amend: version, lazy refcounts and refcount width. The order of steps is such that no
 * version 2 image ever holds what only version 3 knows.
 */
#include "disk/qcow2/qcow2_amend.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_expand.h"
#include "disk/qcow2/qcow2_header.h"

struct amend {
    struct io_file *file;
    const char *path;
    const struct qcow2_amend_options *options;
    struct qcow2_header header;
};

static int write_header(struct amend *amend, struct error *err)
{
    struct error why = {0};
    int result = io_sync_now(amend->file);
    if (!result)
        result = qcow2_header_write(amend->file, &amend->header, &why);
    if (!result)
        result = io_sync_now(amend->file);
    if (result && !why.code)
        error_set_errno(&why, -result, "Could not update qcow2 header");
    return result ? error_set(err, -result, "'%s': %s", amend->path, why.text) : 0;
}

static uint32_t width_after(const struct amend *amend)
{
    if (amend->options->refcount_width)
        return (uint32_t)amend->options->refcount_width;
    return 1u << amend->header.refcount_order;
}

static bool lazy_after(const struct amend *amend)
{
    if (amend->options->sets_lazy_refcounts)
        return amend->options->lazy_refcounts;
    if (amend->options->version == 2)
        return false;
    return amend->header.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS;
}

static int check_request(const struct amend *amend, struct error *err)
{
    const struct qcow2_amend_options *options = amend->options;
    uint32_t version = options->version ? options->version : amend->header.version;
    uint64_t width = options->refcount_width;
    if (width && (!is_power_of_2(width) || width > 64))
        return error_set(err, EINVAL,
                         "Refcount width must be a power of two and may not exceed 64 bits");
    if (amend->header.incompatible & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT))
        return error_set(err, EIO, "the image was not closed well; run evisor-img check -r all");
    if (version >= 3)
        return 0;
    if (lazy_after(amend))
        return error_set(err, EINVAL,
                         "Lazy refcounts only supported with compatibility level 1.1 and above "
                         "(use compat=1.1 or greater)");
    if (width_after(amend) != 16 && !options->refcount_width)
        return error_set(err, EINVAL, "compat=0.10 requires refcount_bits=16");
    if (width_after(amend) != 16)
        return error_set(err, EINVAL,
                         "Refcount widths other than 16 bits require compatibility level 1.1 or "
                         "above (use compat=1.1 or greater)");
    if (amend->header.incompatible & QCOW2_INCOMPAT_DATA_FILE)
        return error_set(err, ENOTSUP, "Cannot downgrade an image with a data file");
    if (amend->header.incompatible)
        return error_set(err, ENOTSUP,
                         "Cannot downgrade an image with incompatible features 0x%" PRIx64 " set",
                         amend->header.incompatible);
    if (amend->header.has_bitmaps)
        return error_set(err, ENOTSUP,
                         "the image has bitmaps, which compatibility level 0.10 does not know; "
                         "remove them first");
    return 0;
}

static int upgrade(struct amend *amend, struct error *err)
{
    if (amend->options->version != 3 || amend->header.version == 3)
        return 0;
    amend->header.version = 3;
    return write_header(amend, err);
}

static int set_lazy(struct amend *amend, struct error *err)
{
    bool is_on = amend->header.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS;
    if (lazy_after(amend) == is_on)
        return 0;
    amend->header.compatible ^= QCOW2_COMPAT_LAZY_REFCOUNTS;
    return write_header(amend, err);
}

static int set_width(struct amend *amend, struct error *err)
{
    uint32_t order = (uint32_t)__builtin_ctz(width_after(amend));
    if (order == amend->header.refcount_order)
        return 0;
    int result = qcow2_check_set_refcount_order(amend->file, amend->path, order, err);
    if (result)
        return result;
    qcow2_header_fini(&amend->header);
    return qcow2_header_read(amend->file, amend->path, &amend->header, err);
}

static int downgrade(struct amend *amend, struct error *err)
{
    struct qcow2_header *header = &amend->header;
    if (amend->options->version != 2 || header->version == 2)
        return 0;
    int result = qcow2_expand_zeroes(amend->file, amend->path, err);
    if (result)
        return result;
    qcow2_header_fini(header);
    result = qcow2_header_read(amend->file, amend->path, header, err);
    if (result)
        return result;
    header->version = 2;
    header->compatible = 0;
    header->autoclear = 0;
    return write_header(amend, err);
}

int qcow2_amend(struct io_file *file, const char *path, const struct qcow2_amend_options *options,
                struct error *err)
{
    struct amend amend = {.file = file, .path = path, .options = options};
    int result = qcow2_header_read(file, path, &amend.header, err);
    if (result)
        return result;
    amend.header.autoclear &= QCOW2_AUTOCLEAR_KNOWN;
    result = check_request(&amend, err);
    if (!result)
        result = upgrade(&amend, err);
    if (!result)
        result = set_lazy(&amend, err);
    if (!result)
        result = set_width(&amend, err);
    if (!result)
        result = downgrade(&amend, err);
    qcow2_header_fini(&amend.header);
    return result;
}
