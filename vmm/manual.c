/* SPDX-License-Identifier: MIT */
/* manual: man(7) out of the tables of options and commands. */
#include "vmm/manual.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "vmm/control/commands.h"
#include "vmm/control/hmp_private.h"
#include "vmm/options/options.h"

#define LINE_BYTES 1024

/* As man(7) wants it: "-" is a hyphen there, and "\\" begins a command. */
static void write_text(FILE *to, const char *text)
{
    for (; *text; text++) {
        if (*text == '-' || *text == '\\')
            fputc('\\', to);
        fputc(*text == '\\' ? 'e' : *text, to);
    }
}

static void write_hmp_table(FILE *to, const struct hmp_command *table, unsigned count,
                            const char *prefix)
{
    for (unsigned i = 0; i < count; i++) {
        fprintf(to, ".TP\n.B \"%s", prefix);
        for (const char *at = table[i].names; *at; at++)
            fputs(*at == '|' ? ", " : (char[]){*at, 0}, to);
        if (table[i].arguments) {
            fputc(' ', to);
            write_text(to, table[i].arguments);
        }
        fputs("\"\n", to);
        write_text(to, table[i].help);
        fputs(".\n", to);
    }
}

static void write_monitor(FILE *to)
{
    write_hmp_table(to, hmp_commands, hmp_command_count, "");
    write_hmp_table(to, hmp_infos, hmp_info_count, "info ");
}

static void write_qmp(FILE *to)
{
    static const char *const types[] = {
        [QMP_STRING] = "string", [QMP_INT] = "int",     [QMP_BOOL] = "bool",
        [QMP_OBJECT] = "object", [QMP_ARRAY] = "array", [QMP_ANY] = "any",
    };
    unsigned count;
    const struct qmp_command *table = commands_table(&count);
    for (unsigned i = 0; i < count; i++) {
        fputs(".TP\n.BR ", to);
        write_text(to, table[i].name);
        fputs(" \"", to);
        for (const struct qmp_argument *argument = table[i].arguments; argument->name; argument++) {
            if (strcmp(argument->name, "*") == 0) {
                fputs(" ...", to);
                continue;
            }
            fprintf(to, " %s", argument->is_optional ? "[" : "");
            write_text(to, argument->name);
            fprintf(to, ": %s%s", types[argument->type], argument->is_optional ? "]" : "");
        }
        fputs("\"\n", to);
        write_text(to, table[i].help);
        fputc('\n', to);
    }
}

static const struct {
    const char *name;
    void (*write)(FILE *to);
} parts[] = {{"options", options_write_man}, {"monitor", write_monitor}, {"qmp", write_qmp}};

static int write_part(FILE *to, const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
        if (strcmp(parts[i].name, name) != 0)
            continue;
        parts[i].write(to);
        return 0;
    }
    return -EINVAL;
}

int manual_update(FILE *from, FILE *to)
{
    char line[LINE_BYTES], name[32];
    bool is_inside = false;
    int result = 0;
    while (!result && fgets(line, sizeof(line), from)) {
        if (strncmp(line, ".\\\" end ", 8) == 0)
            is_inside = false;
        if (!is_inside)
            fputs(line, to);
        if (sscanf(line, ".\\\" begin %31s", name) != 1)
            continue;
        is_inside = true;
        result = write_part(to, name);
    }
    return result;
}
