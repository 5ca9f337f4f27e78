/* SPDX-License-Identifier: MIT */
/*
 * img_args: reads the command line of a subcommand by a table: which options it takes, what each
 * one fills, how many names follow. Short options, long ones and their abbreviations are
 * getopt_long's; --help and --object are understood for every subcommand.
 *
 * A new subcommand lists its options as `static const struct img_arg args[]`, describes the names
 * in a `struct img_syntax`, calls img_parse first thing, and has its struct img_command in the list
 * of evisor_img.c.
 */
#ifndef TOOLS_IMG_IMG_ARGS_H
#define TOOLS_IMG_IMG_ARGS_H

#include <stdbool.h>
#include <stddef.h>

#include "tools/img/img.h"

enum img_arg_type {
    IMG_ARG_SWITCH,  /* bool: true if given */
    IMG_ARG_TEXT,    /* const char *: the last one given */
    IMG_ARG_OPTIONS, /* struct img_options: those of all -o together */
    IMG_ARG_OUTPUT,  /* enum img_output */
    IMG_ARG_CALL,    /* on_value(arguments, value) */
    IMG_ARG_CALL_0,  /* the same for an option without a value: on_value(arguments, NULL) */
};

struct img_arg {
    int letter;       /* of the short option, or 0 */
    const char *name; /* of the long option, or NULL */
    enum img_arg_type type;
    size_t offset; /* of the member of the arguments that is filled */
    /* 0, or the exit status after saying what is wrong. */
    int (*on_value)(void *arguments, const char *value);
};

/* Lines of a table; `member` is one of `struct arguments`. */
#define IMG_SWITCH(letter, name, member)                                                           \
    {                                                                                              \
        letter, name, IMG_ARG_SWITCH, offsetof(struct arguments, member), NULL                     \
    }
#define IMG_TEXT(letter, name, member)                                                             \
    {                                                                                              \
        letter, name, IMG_ARG_TEXT, offsetof(struct arguments, member), NULL                       \
    }
#define IMG_OPTIONS(letter, name, member)                                                          \
    {                                                                                              \
        letter, name, IMG_ARG_OPTIONS, offsetof(struct arguments, member), NULL                    \
    }
#define IMG_OUTPUT(name, member)                                                                   \
    {                                                                                              \
        0, name, IMG_ARG_OUTPUT, offsetof(struct arguments, member), NULL                          \
    }
#define IMG_CALL(letter, name, on_value)                                                           \
    {                                                                                              \
        letter, name, IMG_ARG_CALL, 0, on_value                                                    \
    }
#define IMG_CALL_0(letter, name, on_value)                                                         \
    {                                                                                              \
        letter, name, IMG_ARG_CALL_0, 0, on_value                                                  \
    }

struct img_syntax {
    const struct img_arg *args;
    size_t count;
    size_t names_min, names_max; /* how many names follow the options */
    const char *names_wrong;     /* what to say if it is another number */
};

/* The names of a subcommand of one image. */
#define IMG_ONE_IMAGE 1, 1, "Expecting one image file name"

struct img_names {
    char **list;
    size_t count;
};

/*
 * Fills `arguments` (a struct arguments, whose defaults the caller has set) and *names, which may
 * come before, between and behind the options. 0, or the exit status after saying what is wrong.
 * Does not return if --help was asked for.
 */
int must_check img_parse(int argc, char **argv, const struct img_syntax *syntax, void *arguments,
                         struct img_names *names);

#endif
