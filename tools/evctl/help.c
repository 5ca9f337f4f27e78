/* SPDX-License-Identifier: MIT */
/* help: help texts, completion scripts and parts of the manual, all from the command table. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/tell.h"

bool help_is_hidden(const struct evctl_command *command)
{
    return !command->summary;
}

/* --- help --- */

static void print_row(FILE *to, const struct evctl_command *command)
{
    char left[64];
    snprintf(left, sizeof(left), "%s %s", command->name, command->arguments);
    fprintf(to, "  %-34s %s%s\n", left,
            strlen(left) > 34 ? "\n                                     " : "", command->summary);
}

void help_print_all(FILE *to)
{
    fprintf(to,
            "evctl %s: virtual machines by name, each a folder; no daemon.\n"
            "usage: evctl COMMAND [ARGUMENT]... [OPTION]...\n\n",
            EVISOR_VERSION);
    for (unsigned i = 0; i < evctl_command_count; i++)
        if (!help_is_hidden(&evctl_commands[i]))
            print_row(to, &evctl_commands[i]);
    fputs("\nEvery command takes --json, --quiet and --help. A first machine:\n"
          "  evctl create web --image debian.qcow2 --memory 1G --forward 2222:22\n"
          "  evctl start web && evctl console web\n",
          to);
}

static void print_group(FILE *to, const char *group)
{
    size_t length = strlen(group);
    for (unsigned i = 0; i < evctl_command_count; i++)
        if (strncmp(evctl_commands[i].name, group, length) == 0 &&
            evctl_commands[i].name[length] == ' ')
            print_row(to, &evctl_commands[i]);
}

static void print_option(FILE *to, const struct evctl_option *option)
{
    char left[64], letter[8] = "    ";
    if (option->letter)
        snprintf(letter, sizeof(letter), "-%c, ", option->letter);
    snprintf(left, sizeof(left), "%s--%s%s%s", letter, option->name, option->argument ? " " : "",
             option->argument ? option->argument : "");
    fprintf(to, "  %-28s %s\n", left, option->help);
}

void help_print_command(FILE *to, const struct evctl_command *command)
{
    fprintf(to, "usage: evctl %s%s%s [OPTION]...\n%c%s.\n", command->name,
            *command->arguments ? " " : "", command->arguments,
            command->summary ? command->summary[0] & ~0x20 : 'P',
            command->summary ? command->summary + 1 : "art of the build");
    if (command->help)
        fprintf(to, "%s\n", command->help);
    fputc('\n', to);
    for (const struct evctl_option *option = command->options; option && option->name; option++)
        print_option(to, option);
    for (const struct evctl_option *option = evctl_common_options; option->name; option++)
        print_option(to, option);
    if (command->example)
        fprintf(to, "\nExample:\n  %s\n", command->example);
}

static json_t *options_as_json(const struct evctl_option *options)
{
    json_t *list = json_array();
    for (const struct evctl_option *option = options; option && option->name; option++)
        json_array_append_new(list, json_pack("{s:s, s:s*, s:s}", "option", option->name,
                                              "argument", option->argument, "help", option->help));
    return list;
}

static json_t *as_json(const struct evctl_command *command)
{
    return json_pack("{s:s, s:s, s:s, s:s*, s:o}", "command", command->name, "arguments",
                     command->arguments, "summary", command->summary, "example", command->example,
                     "options", options_as_json(command->options));
}

/* Those whose name is `name`, or begins with it as a group; all with "". */
static json_t *list_as_json(const char *name)
{
    json_t *list = json_array();
    size_t length = strlen(name);
    for (unsigned i = 0; i < evctl_command_count; i++) {
        const struct evctl_command *command = &evctl_commands[i];
        bool is_it = strncmp(command->name, name, length) == 0 &&
                     (!length || !command->name[length] || command->name[length] == ' ');
        if (is_it && !help_is_hidden(command))
            json_array_append_new(list, as_json(command));
    }
    return list;
}

int cmd_help(struct evctl_call *call, struct error *err)
{
    char name[128];
    if (call->json && call->argument_count == 0) {
        tell_json(list_as_json(""));
        return 0;
    }
    if (call->argument_count == 0) {
        help_print_all(stdout);
        return 0;
    }
    snprintf(name, sizeof(name), "%s%s%s", call->arguments[0], call->argument_count > 1 ? " " : "",
             call->argument_count > 1 ? call->arguments[1] : "");
    json_t *list = call->json ? list_as_json(name) : NULL;
    if (json_array_size(list)) {
        tell_json(list);
        return 0;
    }
    json_decref(list);
    for (unsigned i = 0; i < evctl_command_count; i++) {
        if (strcmp(evctl_commands[i].name, name) != 0)
            continue;
        help_print_command(stdout, &evctl_commands[i]);
        return 0;
    }
    if (call->argument_count == 1)
        for (unsigned i = 0; i < evctl_command_count; i++)
            if (strncmp(evctl_commands[i].name, name, strlen(name)) == 0 &&
                evctl_commands[i].name[strlen(name)] == ' ') {
                print_group(stdout, name);
                return 0;
            }
    return error_set(err, EINVAL, "'%s' is not a command; 'evctl help' lists them", name);
}

/* --- the manual --- */

static void write_roff(FILE *to, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", to);
    for (; *text; text++) {
        if (*text == '-' || *text == '\\')
            fputc('\\', to);
        fputc(*text == '\\' ? 'e' : *text, to);
    }
}

static void write_option(FILE *to, const struct evctl_option *option)
{
    fputs(".TP\n.B \"", to);
    if (option->letter)
        fprintf(to, "\\-%c, ", option->letter);
    fputs("\\-\\-", to);
    write_roff(to, option->name);
    if (option->argument) {
        fputc(' ', to);
        write_roff(to, option->argument);
    }
    fputs("\"\n", to);
    write_roff(to, option->help);
    fputc('\n', to);
}

static void write_command(FILE *to, const struct evctl_command *command)
{
    fputs(".SS \"evctl ", to);
    write_roff(to, command->name);
    fputs(*command->arguments ? " " : "", to);
    write_roff(to, command->arguments);
    fprintf(to, "\"\n%c", command->summary[0] & ~0x20);
    write_roff(to, command->summary + 1);
    fputs(".\n", to);
    if (command->help) {
        write_roff(to, command->help);
        fputc('\n', to);
    }
    for (const struct evctl_option *option = command->options; option && option->name; option++)
        write_option(to, option);
    if (command->example) {
        fputs(".PP\nExample:\n.PP\n.nf\n.RS\n", to);
        write_roff(to, command->example);
        fputs("\n.RE\n.fi\n", to);
    }
}

static void write_table_row(FILE *to, const struct evctl_command *command)
{
    char *copy = strdup(command->same_as), *rest = copy;
    fputs("T{\n", to);
    write_roff(to, command->name);
    for (unsigned i = 0; i < 3; i++) {
        const char *cell = strsep(&rest, "|");
        fputs("\nT}:T{\n", to);
        write_roff(to, cell && *cell ? cell : "\xe2\x80\x93");
    }
    fputs("\nT}\n", to);
    free(copy);
}

/* The parts of docs/evctl.1 that come from the table: "commands", "table". -EINVAL for others. */
static int write_manual(FILE *to, const char *part)
{
    if (strcmp(part, "commands") != 0 && strcmp(part, "table") != 0)
        return -EINVAL;
    bool is_table = strcmp(part, "table") == 0;
    if (is_table)
        fputs(".TS\ntab(:);\nlB lB lB lB\nlw(15n)1 lw(16n)1 lw(20n)1 lw(17n).\n"
              "evctl:VBoxManage:virsh:vmrun\n",
              to);
    for (unsigned i = 0; i < evctl_command_count; i++) {
        if (help_is_hidden(&evctl_commands[i]))
            continue;
        if (!is_table)
            write_command(to, &evctl_commands[i]);
        else if (evctl_commands[i].same_as)
            write_table_row(to, &evctl_commands[i]);
    }
    if (is_table)
        fputs(".TE\n", to);
    return 0;
}

int cmd_manual(struct evctl_call *call, struct error *err)
{
    char line[1024], name[32];
    bool is_inside = false;
    (void)call;
    while (fgets(line, sizeof(line), stdin)) {
        if (strncmp(line, ".\\\" end ", 8) == 0)
            is_inside = false;
        if (!is_inside)
            fputs(line, stdout);
        if (sscanf(line, ".\\\" begin %31s", name) != 1)
            continue;
        is_inside = true;
        if (write_manual(stdout, name))
            return error_set(err, EINVAL, "the manual has a part '%s' that is not known", name);
    }
    return 0;
}
