/* SPDX-License-Identifier: MIT */
/* options_help: -help, -version and the options part of the manual, from the table. */
#include <stdlib.h>
#include <string.h>

#include "build/config.h"
#include "vmm/options/options_private.h"

#define HELP_WIDTH  79
#define HELP_INDENT 8

/* Breaks at spaces; a word longer than a line gets a line of its own. */
static void write_wrapped(FILE *to, const char *text)
{
    int column = 0;
    while (*text) {
        int word = (int)strcspn(text, " ");
        if (column && column + 1 + word > HELP_WIDTH) {
            fputc('\n', to);
            column = 0;
        }
        if (column)
            column += fprintf(to, " %.*s", word, text);
        else
            column = fprintf(to, "%*s%.*s", HELP_INDENT, "", word, text);
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', to);
}

/* The option's words, broken before "[," and after "|" where they get too long. */
static void write_synopsis(FILE *to, const struct option_entry *entry)
{
    int column = fprintf(to, "  -%s", entry->name);
    const char *at = entry->argument ? entry->argument : "";
    for (bool is_first = true; *at; is_first = false) {
        int part = (int)strcspn(at + 1, "[|") + 1;
        if (at[part] == '|')
            part++;
        if (!is_first && column + part > HELP_WIDTH)
            column = fprintf(to, "\n%*s", HELP_INDENT, "") - 1;
        column += fprintf(to, "%s%.*s", is_first ? " " : "", part, at);
        at += part;
    }
    fputc('\n', to);
}

char *options_help_text(void)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    CHECK(to);
    fprintf(to, "evisor " EVISOR_VERSION ": runs a virtual machine\n"
                "usage: evisor -kernel FILE [OPTION]...\n"
                "       evisor -hda IMAGE [OPTION]...\n"
                "Options may come in any order, with - or --.\n");
    for (unsigned i = 0; i < option_table_length; i++) {
        const struct option_entry *entry = &option_table[i];
        if (!entry->help)
            continue;
        if (!entry->name) {
            fprintf(to, "\n%s:\n", entry->help);
            continue;
        }
        write_synopsis(to, entry);
        write_wrapped(to, entry->help);
    }
    CHECK(fclose(to) == 0);
    return text;
}

char *options_version_text(void)
{
    return text_copy("evisor version " EVISOR_VERSION "\n"
                        "A virtual machine monitor for Linux on x86-64, under the MIT licence.\n");
}

/* man(7) reads "-" as a hyphen, and a line's first "." or "'" as a command. */
static void write_man_text(FILE *to, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", to);
    for (; *text; text++) {
        if (*text == '-' || *text == '\\')
            fputc('\\', to);
        fputs(*text == '\\' ? "e" : (char[]){*text, 0}, to);
    }
}

/* Long arguments may be broken before "[" and after "|". */
static void write_man_argument(FILE *to, const char *text)
{
    for (; *text; text++) {
        if (*text == '[')
            fputs("\\:", to);
        if (*text == '-')
            fputc('\\', to);
        fputc(*text, to);
        if (*text == '|')
            fputs("\\:", to);
    }
}

void options_write_man(FILE *to)
{
    for (unsigned i = 0; i < option_table_length; i++) {
        const struct option_entry *entry = &option_table[i];
        if (!entry->help)
            continue;
        if (!entry->name) {
            fprintf(to, ".SS %s\n", entry->help);
            continue;
        }
        fprintf(to, ".TP\n.BI \\-");
        write_man_text(to, entry->name);
        if (entry->argument) {
            fputs(" \" ", to);
            write_man_argument(to, entry->argument);
            fputc('"', to);
        }
        fputc('\n', to);
        write_man_text(to, entry->help);
        fputc('\n', to);
    }
}
