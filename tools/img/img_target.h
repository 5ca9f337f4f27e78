/* SPDX-License-Identifier: MIT */
/*
 * img_target: an image that is going to be made: its format, options, backing file and size, as
 * create and convert take them from a command line.
 *
 * The steps, in this order: init, fields path and format, check_format, parse, set_backing, settle,
 * print, create, fini. Errors are sentences without the path of the target in front.
 */
#ifndef TOOLS_IMG_IMG_TARGET_H
#define TOOLS_IMG_IMG_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#include "disk/foreign/foreign_writer.h"
#include "disk/qcow2/qcow2_create.h"
#include "tools/img/img.h"

struct img_target {
    const char *path;
    const char *given_path; /* as the person wrote it, for the line "Formatting"; may be NULL */
    const char *format;
    uint64_t size_bytes;
    bool has_size;
    /* Private. */
    struct img_options given; /* as the person wrote them */
    struct qcow2_create_options qcow2;
    char *backing_path;
    char *backing_format;
    char *data_file_name;
};

void img_target_init(struct img_target *target);
void img_target_fini(struct img_target *target);

int must_check img_target_check_format(const struct img_target *target, struct error *err);
int must_check img_target_parse(struct img_target *target, const struct img_options *options,
                                struct error *err);
/* -b and -F; NULL where they were not given. They win over -o backing_file. */
int must_check img_target_set_backing(struct img_target *target, const char *path,
                                      const char *format, struct error *err);
/* Finds the size from the backing file if none is given, and checks all of it together. */
int must_check img_target_settle(struct loop *loop, struct img_target *target, bool open_backing,
                                 struct error *err);
/* The line "Formatting '...', fmt=...". */
void img_target_print(const struct img_target *target);
int must_check img_target_create(struct loop *loop, const struct img_target *target,
                                 struct error *err);

/* For an image that was begun and could not be completed: nothing may take it for a whole one. What
 * was there before is lost by then; only a file of our own making is removed. Fit for signal
 * handlers. */
void img_target_abandon(const char *path, bool is_new);

/* After settle, for qcow2: what img_target_create would make, checked. Points into `target`. */
int must_check img_target_qcow2_options(const struct img_target *target,
                                        struct qcow2_create_options *options, struct error *err);

/* -o help, with or without a file's name beside it. Returns an exit status. */
int img_target_print_options(const char *format, bool is_for_file);

/* For targets in a foreign format: begins to write it into `file`, which is empty. */
int must_check img_target_start_foreign(const struct img_target *target, struct io_file *file,
                                        struct foreign_writer **out, struct error *err);

#endif
