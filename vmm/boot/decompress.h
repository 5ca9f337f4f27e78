/* SPDX-License-Identifier: MIT */
/* decompress: the compressions of a bzImage's payload, by their libraries. */
#ifndef VMM_BOOT_DECOMPRESS_H
#define VMM_BOOT_DECOMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

struct decompressor;

/*
 * Tells the compression by its first bytes: gzip, and where evisor was built with their libraries
 * LZ4 (the legacy frame), xz, lzma and Zstandard. Loads what is needed for it: on the loop's
 * thread, while files may be opened. NULL: none of these, or its library is not there.
 */
const struct decompressor *decompress_find(const uint8_t *from, size_t from_size);

/*
 * Any thread. True if it came to exactly `to_size` bytes; nothing is written behind them whatever
 * the input is. Bytes after the end of the compressed data are ignored.
 */
bool must_check decompress(const struct decompressor *decompressor, const uint8_t *from,
                           size_t from_size, uint8_t *to, size_t to_size);

#endif
