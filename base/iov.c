/* SPDX-License-Identifier: MIT */
/* iov: walks scatter-gather lists; one cursor serves all the copies. */
#include "base/iov.h"

#include <string.h>

#include "base/check.h"

struct cursor {
    const struct iovec *iov;
    size_t left; /* entries from iov on */
    size_t skip; /* bytes of the first entry already passed */
};

static struct cursor cursor_at(const struct iovec *iov, size_t count, size_t offset)
{
    struct cursor at = {iov, count, offset};
    while (at.left && at.skip >= at.iov->iov_len) {
        at.skip -= at.iov->iov_len;
        at.iov++;
        at.left--;
    }
    return at;
}

/* The next contiguous piece of at most `length` bytes; length 0 at the end of the list. */
static struct iovec cursor_take(struct cursor *at, size_t length)
{
    while (at->left && at->skip == at->iov->iov_len) {
        at->iov++;
        at->left--;
        at->skip = 0;
    }
    if (!at->left)
        return (struct iovec){NULL, 0};
    struct iovec piece = {(char *)at->iov->iov_base + at->skip,
                          MIN(length, at->iov->iov_len - at->skip)};
    at->skip += piece.iov_len;
    return piece;
}

size_t iov_size(const struct iovec *iov, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += iov[i].iov_len;
    return total;
}

size_t iov_read(const struct iovec *iov, size_t count, size_t offset, void *to, size_t length)
{
    const struct iovec flat = {to, length};
    return iov_copy(&flat, 1, 0, iov, count, offset, length);
}

size_t iov_write(const struct iovec *iov, size_t count, size_t offset, const void *from,
                 size_t length)
{
    const struct iovec flat = {(void *)(size_t)from, length};
    return iov_copy(iov, count, offset, &flat, 1, 0, length);
}

size_t iov_fill(const struct iovec *iov, size_t count, size_t offset, int byte, size_t length)
{
    struct cursor at = cursor_at(iov, count, offset);
    size_t done = 0;
    while (done < length) {
        struct iovec piece = cursor_take(&at, length - done);
        if (!piece.iov_len)
            break;
        memset(piece.iov_base, byte, piece.iov_len);
        done += piece.iov_len;
    }
    return done;
}

size_t iov_copy(const struct iovec *to, size_t to_count, size_t to_offset, const struct iovec *from,
                size_t from_count, size_t from_offset, size_t length)
{
    struct cursor in = cursor_at(from, from_count, from_offset);
    struct cursor out = cursor_at(to, to_count, to_offset);
    size_t done = 0;
    while (done < length) {
        struct iovec source = cursor_take(&in, length - done);
        if (!source.iov_len)
            break;
        while (source.iov_len) {
            struct iovec target = cursor_take(&out, source.iov_len);
            if (!target.iov_len)
                return done;
            memcpy(target.iov_base, source.iov_base, target.iov_len);
            source.iov_base = (char *)source.iov_base + target.iov_len;
            source.iov_len -= target.iov_len;
            done += target.iov_len;
        }
    }
    return done;
}

size_t iov_slice(struct iovec *out, size_t out_max, const struct iovec *iov, size_t count,
                 size_t offset, size_t length)
{
    struct cursor at = cursor_at(iov, count, offset);
    size_t used = 0;
    while (length && used < out_max) {
        struct iovec piece = cursor_take(&at, length);
        if (!piece.iov_len)
            break;
        out[used++] = piece;
        length -= piece.iov_len;
    }
    return used;
}
