/* SPDX-License-Identifier: MIT */
/*
 * iov: copies into, out of and between slices of scatter-gather lists.
 *
 * Offsets and lengths are in bytes. Every function stops at the end of the list and returns how
 * many bytes it really touched, so a short list is seen by the caller, never overrun.
 */
#ifndef BASE_IOV_H
#define BASE_IOV_H

#include <stddef.h>
#include <sys/uio.h>

size_t iov_size(const struct iovec *iov, size_t count);

size_t iov_read(const struct iovec *iov, size_t count, size_t offset, void *to, size_t length);
size_t iov_write(const struct iovec *iov, size_t count, size_t offset, const void *from,
                 size_t length);
size_t iov_fill(const struct iovec *iov, size_t count, size_t offset, int byte, size_t length);

/* Copies `length` bytes between two lists that do not overlap. */
size_t iov_copy(const struct iovec *to, size_t to_count, size_t to_offset, const struct iovec *from,
                size_t from_count, size_t from_offset, size_t length);

/*
 * Writes to `out` (room for `out_max` entries) the entries that cover [offset, offset + length) of
 * `iov`, and returns their number. Short if the list or the room ends first.
 */
size_t iov_slice(struct iovec *out, size_t out_max, const struct iovec *iov, size_t count,
                 size_t offset, size_t length);

#endif
