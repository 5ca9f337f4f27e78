/* SPDX-License-Identifier: MIT */
/*
 * fuzz_disk: what the fuzz targets of the image formats share: an image as a fuzzer's input, and a
 * file in memory behind disk/io.h.
 *
 * An input is small although images are large and mostly empty:
 *   byte 0         what the target takes it for (the format, options)
 *   bytes 1 to 2   length of the image in sectors of 512 bytes
 *   byte 3         number of operations
 *   then           operations of 8 bytes each
 *   then           pieces of the image: first sector (2 bytes), sectors (1 byte), their bytes
 */
#ifndef TESTS_FUZZ_FUZZ_DISK_H
#define TESTS_FUZZ_FUZZ_DISK_H

#include "base/bytes.h"
#include "disk/format.h"

#define FUZZ_SECTOR      512u
#define FUZZ_SECTORS_MAX 16384u
#define FUZZ_FILE_BYTES  (16 * MIB) /* more is "no space left" */
#define FUZZ_OP_BYTES    8u

struct fuzz_input {
    uint8_t kind;
    uint32_t op_count;
    uint8_t ops[255 * FUZZ_OP_BYTES];
    uint64_t length;
    uint8_t *image; /* FUZZ_SECTORS_MAX sectors, zero where nothing was said */
};

/* The same memory is used for every input. */
void fuzz_input_read(struct fuzz_input *input, const uint8_t *data, size_t size);
/* The length of the encoding; 0 if it does not fit. */
size_t fuzz_input_write(const struct fuzz_input *input, uint8_t *data, size_t max_size);

/* A new open file with these contents; freed when it is closed. */
struct io_file *fuzz_file_open(struct loop *loop, const uint8_t *bytes, uint64_t length,
                               uint64_t seed);
/* Takes the contents of an open file, as far as they fit an image; returns their length. */
uint64_t fuzz_file_contents(struct io_file *file, uint8_t *bytes, uint64_t room);

/* The loop of the target. */
struct loop *fuzz_loop(void);
/* Submits one request and waits for it; turns are bounded, so that a hang is found. */
int fuzz_run(struct disk *disk, struct disk_request *request);

#endif
