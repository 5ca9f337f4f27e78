/* SPDX-License-Identifier: MIT */
/* decompress: one function for each compression that Linux's build offers and a library knows. */
#include "vmm/boot/decompress.h"

#include <string.h>
#include <zlib.h>

#include "base/bytes.h"
#include "base/library.h"
#include "build/config.h"

#ifdef HAVE_LZ4
#include <lz4.h>
#endif
#ifdef HAVE_LZMA
#include <lzma.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

static bool from_gzip(const uint8_t *from, size_t from_size, uint8_t *to, size_t to_size)
{
    enum { WITH_GZIP_HEADER = 16 };
    z_stream stream = {.next_in = (uint8_t *)(uintptr_t)from,
                       .avail_in = (uInt)from_size,
                       .next_out = to,
                       .avail_out = (uInt)to_size};
    if (inflateInit2(&stream, MAX_WBITS + WITH_GZIP_HEADER) != Z_OK)
        return false;
    bool ok = inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_out == 0;
    inflateEnd(&stream);
    return ok;
}

#ifdef HAVE_LZ4
static __typeof__(LZ4_decompress_safe) *lz4_decompress_safe;

static bool load_lz4(void)
{
    static const struct library_function functions[] = {
        {"LZ4_decompress_safe", &lz4_decompress_safe}};
    static struct library library = {"liblz4.so.1", "liblz4-1", functions, ARRAY_SIZE(functions),
                                     false};
    return library_load(&library, NULL) == 0;
}

/* lz4_Frame_format.md, "Legacy frame": the magic number, then blocks, each behind its size. */
static bool from_lz4(const uint8_t *from, size_t from_size, uint8_t *to, size_t to_size)
{
    size_t at = sizeof(uint32_t), done = 0;
    while (done < to_size && range_fits(at, sizeof(uint32_t), from_size)) {
        uint32_t size = load_le32(from + at);
        at += sizeof(uint32_t);
        if (size > INT32_MAX || !range_fits(at, size, from_size))
            return false;
        int length = lz4_decompress_safe((const char *)from + at, (char *)to + done, (int)size,
                                         (int)MIN(to_size - done, INT32_MAX));
        if (length <= 0)
            return false;
        at += size;
        done += (size_t)length;
    }
    return done == to_size;
}
#endif

#ifdef HAVE_LZMA
static struct {
    __typeof__(lzma_auto_decoder) *auto_decoder;
    __typeof__(lzma_code) *code;
    __typeof__(lzma_end) *end;
} lzma;

static bool load_lzma(void)
{
    static const struct library_function functions[] = {{"lzma_auto_decoder", &lzma.auto_decoder},
                                                        {"lzma_code", &lzma.code},
                                                        {"lzma_end", &lzma.end}};
    static struct library library = {"liblzma.so.5", "liblzma5", functions, ARRAY_SIZE(functions),
                                     false};
    return library_load(&library, NULL) == 0;
}

static bool from_lzma(const uint8_t *from, size_t from_size, uint8_t *to, size_t to_size)
{
    const uint64_t memory_max = 256 * MIB; /* its dictionary; Linux's own build uses 32 MiB */
    lzma_stream stream = LZMA_STREAM_INIT;
    if (lzma.auto_decoder(&stream, memory_max, 0) != LZMA_OK)
        return false;
    stream.next_in = from;
    stream.avail_in = from_size;
    stream.next_out = to;
    stream.avail_out = to_size;
    bool ok = lzma.code(&stream, LZMA_RUN) == LZMA_STREAM_END && stream.avail_out == 0;
    lzma.end(&stream);
    return ok;
}
#endif

#ifdef HAVE_ZSTD
static bool from_zstd(const uint8_t *from, size_t from_size, uint8_t *to, size_t to_size)
{
    size_t frame = ZSTD_findFrameCompressedSize(from, from_size);
    return !ZSTD_isError(frame) && ZSTD_decompress(to, to_size, from, frame) == to_size;
}
#endif

static const struct decompressor {
    const char *magic;
    size_t magic_size;
    bool (*run)(const uint8_t *from, size_t from_size, uint8_t *to, size_t to_size);
    bool (*load)(void); /* NULL: its library is linked */
} decompressors[] = {
    {"\x1f\x8b", 2, from_gzip, NULL},
#ifdef HAVE_LZ4
    {"\x02\x21\x4c\x18", 4, from_lz4, load_lz4},
#endif
#ifdef HAVE_LZMA
    {"\xfd\x37\x7a\x58\x5a\x00", 6, from_lzma, load_lzma},
    {"\x5d\x00\x00", 3, from_lzma, load_lzma},
#endif
#ifdef HAVE_ZSTD
    {"\x28\xb5\x2f\xfd", 4, from_zstd, NULL},
#endif
};

const struct decompressor *decompress_find(const uint8_t *from, size_t from_size)
{
    for (size_t i = 0; i < ARRAY_SIZE(decompressors); i++) {
        const struct decompressor *one = &decompressors[i];
        if (from_size >= one->magic_size && !memcmp(from, one->magic, one->magic_size))
            return !one->load || one->load() ? one : NULL;
    }
    return NULL;
}

bool decompress(const struct decompressor *decompressor, const uint8_t *from, size_t from_size,
                uint8_t *to, size_t to_size)
{
    /* zlib counts in 32 bits, and no kernel is larger. */
    return from_size <= UINT32_MAX && to_size <= UINT32_MAX &&
           decompressor->run(from, from_size, to, to_size);
}
