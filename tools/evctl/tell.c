/* SPDX-License-Identifier: MIT */
/* tell: lines, tables and progress. What is printed has no control characters of others in it. */
#include "tools/evctl/tell.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define COLUMNS_MAX 12

static bool is_json, is_quiet;

void tell_set_mode(bool json, bool quiet)
{
    is_json = json;
    is_quiet = quiet;
}

bool tell_is_json(void)
{
    return is_json;
}

/* A name may hold anything; a terminal must not obey it. */
static void print_clean(FILE *to, const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, to);
}

static void print_line(FILE *to, const char *prefix, const char *format, va_list args)
{
    char *text = NULL;
    CHECK(vasprintf(&text, format, args) >= 0);
    fputs(prefix, to);
    print_clean(to, text);
    fputc('\n', to);
    free(text);
}

void tell_error(const char *format, ...)
{
    va_list args;
    fflush(stdout);
    va_start(args, format);
    print_line(stderr, "evctl: ", format, args);
    va_end(args);
}

void tell_note(const char *format, ...)
{
    va_list args;
    if (is_json || is_quiet)
        return;
    va_start(args, format);
    print_line(stderr, "", format, args);
    va_end(args);
}

void tell_line(const char *format, ...)
{
    va_list args;
    if (is_json)
        return;
    va_start(args, format);
    print_line(stdout, "", format, args);
    va_end(args);
}

void tell_json_always(json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    fputc('\n', stdout);
    json_decref(value);
}

void tell_json(json_t *value)
{
    if (is_json)
        tell_json_always(value);
    else
        json_decref(value);
}

const char *tell_colour(enum tell_colour colour)
{
    static const char *const codes[] = {"\033[0m", "\033[32m", "\033[33m", "\033[31m", "\033[1m"};
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    bool is_wanted =
        isatty(STDOUT_FILENO) && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
    return is_wanted ? codes[colour] : "";
}

const char *tell_size(uint64_t bytes, char buffer[TELL_SIZE_BYTES])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned unit = 0;
    while (value >= 1000 && unit + 1 < ARRAY_SIZE(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(buffer, TELL_SIZE_BYTES, "%.3g %s", value, units[unit]);
    return buffer;
}

/* --- tables --- */

struct column {
    char key[32], title[32];
    int width;
};

static unsigned read_columns(const char *text, struct column *columns)
{
    unsigned count = 0;
    int used;
    while (count < COLUMNS_MAX &&
           sscanf(text, " %31[^: ]:%31s%n", columns[count].key, columns[count].title, &used) == 2) {
        columns[count].width = (int)strlen(columns[count].title);
        count++;
        text += used;
    }
    return count;
}

static const char *cell_text(const json_t *value, char buffer[64])
{
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_boolean(value))
        return json_is_true(value) ? "yes" : "no";
    if (json_is_integer(value))
        snprintf(buffer, 64, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(buffer, 64, "%.1f", json_real_value(value));
    else
        return "-";
    return buffer;
}

/* How wide it looks: bytes that continue a character count nothing. */
static int width_of(const char *text)
{
    int width = 0;
    for (; *text; text++)
        width += (*text & 0xc0) != 0x80;
    return width;
}

static const char *state_colour(const char *key, const char *text)
{
    if (strcmp(key, "state") != 0)
        return NULL;
    if (strcmp(text, "running") == 0)
        return tell_colour(TELL_GREEN);
    if (strcmp(text, "stopped") == 0)
        return NULL;
    return tell_colour(strcmp(text, "paused") == 0 ? TELL_YELLOW : TELL_RED);
}

static void print_cell(const struct column *column, const char *text, bool is_last)
{
    const char *colour = state_colour(column->key, text);
    fputs(colour ? colour : "", stdout);
    print_clean(stdout, text);
    fputs(colour ? tell_colour(TELL_PLAIN) : "", stdout);
    if (!is_last)
        printf("%*s", column->width - width_of(text) + 2, "");
}

void tell_table(const json_t *rows, const char *text)
{
    struct column columns[COLUMNS_MAX];
    char buffer[64];
    unsigned count = read_columns(text, columns);
    size_t i;
    json_t *row;
    if (is_json)
        return;
    for (unsigned c = 0; c < count; c++)
        json_array_foreach(rows, i, row) columns[c].width = MAX(
            columns[c].width, width_of(cell_text(json_object_get(row, columns[c].key), buffer)));
    fputs(tell_colour(TELL_BOLD), stdout);
    for (unsigned c = 0; c < count; c++)
        print_cell(&(struct column){.width = columns[c].width}, columns[c].title, c + 1 == count);
    printf("%s\n", tell_colour(TELL_PLAIN));
    json_array_foreach(rows, i, row)
    {
        for (unsigned c = 0; c < count; c++)
            print_cell(&columns[c], cell_text(json_object_get(row, columns[c].key), buffer),
                       c + 1 == count);
        putchar('\n');
    }
}

/* --- progress --- */

uint64_t tell_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void tell_progress_begin(struct tell_progress *progress, const char *what)
{
    *progress = (struct tell_progress){.what = what, .started_ns = tell_now_ns()};
}

void tell_progress_update(struct tell_progress *progress, double percent)
{
    uint64_t elapsed_ns = tell_now_ns() - progress->started_ns;
    bool is_terminal = isatty(STDERR_FILENO);
    if (is_json || is_quiet || elapsed_ns < 1000000000u || (progress->is_shown && !is_terminal))
        return;
    progress->is_shown = true;
    if (!is_terminal)
        fprintf(stderr, "%s ...\n", progress->what);
    else if (percent >= 0)
        fprintf(stderr, "\r%s ... %.0f%% \033[K", progress->what, percent);
    else
        fprintf(stderr, "\r%s ... %.0f s \033[K", progress->what, (double)elapsed_ns / 1e9);
    fflush(stderr);
}

void tell_progress_end(struct tell_progress *progress)
{
    if (progress->is_shown && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    progress->is_shown = false;
}
