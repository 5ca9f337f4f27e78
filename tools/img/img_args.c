/* SPDX-License-Identifier: MIT */
/* img_args: from a subcommand's table to getopt_long's, and from its findings to the arguments. */
#include "tools/img/img_args.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define ARGS_MAX 32
/* What getopt_long returns: the letter, or this plus the index of an option without a letter. */
#define LONG_BASE 0x100

enum { LONG_HELP = LONG_BASE + ARGS_MAX, LONG_OBJECT };

struct parser {
    const struct img_syntax *syntax;
    void *arguments;
    char letters[2 * ARGS_MAX + 4];
    struct option options[ARGS_MAX + 3];
    const struct img_arg *output; /* --output is looked at last, as qemu-img does */
    const char *output_text;
};

static bool takes_value(const struct img_arg *arg)
{
    return arg->type != IMG_ARG_SWITCH && arg->type != IMG_ARG_CALL_0;
}

static void describe(struct parser *parser)
{
    char *letter = parser->letters;
    struct option *option = parser->options;
    *letter++ = ':';
    *letter++ = 'h';
    for (size_t i = 0; i < parser->syntax->count; i++) {
        const struct img_arg *arg = &parser->syntax->args[i];
        int has_value = takes_value(arg) ? required_argument : no_argument;
        if (arg->letter) {
            *letter++ = (char)arg->letter;
            if (has_value)
                *letter++ = ':';
        }
        if (arg->name)
            *option++ = (struct option){arg->name, has_value, NULL,
                                        arg->letter ? arg->letter : LONG_BASE + (int)i};
    }
    *option++ = (struct option){"help", no_argument, NULL, LONG_HELP};
    *option++ = (struct option){"object", required_argument, NULL, LONG_OBJECT};
}

static const struct img_arg *find(const struct img_syntax *syntax, int found)
{
    if (found >= LONG_BASE)
        return &syntax->args[found - LONG_BASE];
    for (size_t i = 0; i < syntax->count; i++)
        if (syntax->args[i].letter == found)
            return &syntax->args[i];
    return NULL;
}

/* A secret unlocks encrypted images, which are refused where they are opened; for any other image
 * it makes no difference that there is one. */
static int check_object(const char *text)
{
    struct img_options options = {0};
    int status = 0;
    if (img_options_parse(&options, text))
        return 1;
    const char *type = options.list[0].key;
    if (strcmp(type, "secret"))
        status = img_error("--object %s is not supported: evisor-img takes objects of type "
                           "'secret' only",
                           type);
    else if (!img_options_get(&options, "id"))
        status = img_error("Parameter 'id' is missing");
    else if (!img_options_get(&options, "data") == !img_options_get(&options, "file"))
        status =
            img_error(img_options_get(&options, "data") ? "'file' and 'data' are mutually exclusive"
                                                        : "Must provide 'file' or 'data'");
    img_options_free(&options);
    return status;
}

static int take(struct parser *parser, const struct img_arg *arg, char *value)
{
    void *member = (char *)parser->arguments + arg->offset;
    switch (arg->type) {
    case IMG_ARG_SWITCH:
        *(bool *)member = true;
        return 0;
    case IMG_ARG_TEXT:
        *(const char **)member = value;
        return 0;
    case IMG_ARG_OPTIONS:
        return img_options_parse(member, value) ? 1 : 0;
    case IMG_ARG_OUTPUT:
        parser->output = arg;
        parser->output_text = value;
        return 0;
    default:
        return arg->on_value(parser->arguments, value);
    }
}

static int take_all(struct parser *parser, int argc, char **argv)
{
    int found, status = 0;
    while (!status &&
           (found = getopt_long(argc, argv, parser->letters, parser->options, NULL)) >= 0) {
        if (found == ':' || found == '?')
            return img_bad_option(found, argv[optind - 1]);
        if (found == 'h' || found == LONG_HELP)
            exit(img_help());
        if (found == LONG_OBJECT)
            status = check_object(optarg);
        else
            status = take(parser, find(parser->syntax, found), optarg);
    }
    return status;
}

int img_parse(int argc, char **argv, const struct img_syntax *syntax, void *arguments,
              struct img_names *names)
{
    struct parser parser = {.syntax = syntax, .arguments = arguments};
    CHECK(syntax->count <= ARGS_MAX);
    describe(&parser);
    int status = take_all(&parser, argc, argv);
    if (status)
        return status;
    *names = (struct img_names){argv + optind, (size_t)(argc - optind)};
    if (names->count < syntax->names_min || names->count > syntax->names_max)
        return img_usage("%s", syntax->names_wrong);
    if (!parser.output)
        return 0;
    void *output = (char *)arguments + parser.output->offset;
    return img_parse_output(parser.output_text, output) ? 1 : 0;
}
