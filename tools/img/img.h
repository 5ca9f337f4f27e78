/* SPDX-License-Identifier: MIT */
/*
 * img: what the subcommands of evisor-img share: errors, sizes, option lists, opening of files.
 *
 * A subcommand returns the exit status of the program. Wordings are those of qemu-img where scripts
 * may look at them.
 */
#ifndef TOOLS_IMG_IMG_H
#define TOOLS_IMG_IMG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "disk/disk.h"
#include "disk/io.h"

struct img_command {
    const char *name;
    const char *synopsis; /* the line after "evisor-img NAME" */
    const char *help;     /* options and examples */
    int (*run)(struct loop *loop, int argc, char **argv);
};

extern const struct img_command img_amend_command, img_bench_command, img_bitmap_command, img_check_command,
    img_commit_command, img_compare_command, img_convert_command, img_create_command,
    img_dd_command, img_info_command, img_map_command, img_measure_command, img_rebase_command,
    img_resize_command, img_serve_command, img_snapshot_command;

/* --- messages --- */

/* The name before every message is that by which the program was called: a link named qemu-img
 * answers as qemu-img. */
void img_set_program(const char *path);

/* "evisor-img: ..." on standard error. Returns 1, the exit status of most failures. */
int img_error(const char *format, ...) printf_like(1, 2);
/* As img_error, and points at --help. */
int img_usage(const char *format, ...) printf_like(1, 2);
/* For what getopt_long returned as ':' or '?'; `option` is the argument it stumbled over. */
int img_bad_option(int getopt_result, const char *option);
/* Prints the help of the subcommand that is running. Returns 0. */
int img_help(void);

enum img_output {
    IMG_OUTPUT_HUMAN,
    IMG_OUTPUT_JSON,
};
/* -1 after saying what is wrong. */
int img_parse_output(const char *text, enum img_output *output);

/* --- sizes --- */

/* "1.5G" and the like; a plain number counts in `unit`. -EINVAL or -ERANGE. */
int img_parse_size(const char *text, uint64_t unit, uint64_t *bytes);
/* The same with the message that qemu-img gives for image sizes. -1 after saying it. */
int img_parse_image_size(const char *text, uint64_t *bytes);
int img_parse_named_size(const char *text, const char *name, uint64_t *bytes);
/* What to say after "Parameter 'x' ": three lines, which programs know. */
extern const char *const img_size_hint;
/* "1.5 GiB": three significant digits. Returns `buffer`. */
#define IMG_SIZE_TEXT_BYTES 32
const char *img_size_text(uint64_t bytes, char buffer[IMG_SIZE_TEXT_BYTES]);

/* --- option lists: key=value,key=value with ",," for a comma --- */

struct img_option {
    char *key;
    char *value; /* "on" if there was no '=' */
};
struct img_options {
    struct img_option *list;
    size_t count;
};
/* Appends. -1 after saying what is wrong. */
int img_options_parse(struct img_options *options, const char *text);
/* The last one of that name, or NULL. */
const char *img_options_get(const struct img_options *options, const char *key);
void img_options_free(struct img_options *options);
bool img_options_wants_help(const struct img_options *options);

/* --- files --- */

/* A file name as people give it, without the "file:" that QEMU takes in front. */
const char *img_path(const char *given);

struct img_file_options {
    bool writable;
    bool no_lock;        /* -U */
    bool may_be_written; /* others may write while this reads: as raw images are read */
};
/* Opens and locks one image file. NULL after saying what is wrong. */
struct io_file *img_open_file(struct loop *loop, const char *path,
                              const struct img_file_options *options);
/* Makes the file, or empties it, unless this program has it open already; it is locked and
 * writable. NULL, and *err set. */
struct io_file *img_create_file(struct loop *loop, const char *path, struct error *err);
/* It did so once at least: what the target holds is this program's. For signal handlers, too. */
bool img_has_made_file(void);

/* Sets *format to what was given, or to what the file looks like. 0, or 1 after saying why not. */
int img_find_format(struct io_file *file, const char *path, const char *given, const char **format);
/* To be read at least. */
bool img_format_is_known(const char *format);
/* And to be written to: raw or qcow2. */
bool img_format_is_native(const char *format);
/* To be created: native, or by a writer of the foreign formats. */
bool img_format_is_writable(const char *format);

#endif
