/* SPDX-License-Identifier: MIT */
/* parse: a command line by the command table; what is not in it gets its nearest neighbour. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/evctl/evctl.h"
#include "base/suggest.h"

const struct evctl_option evctl_common_options[] = {
    {"json", 0, NULL, WORD_TEXT, "print the result as JSON"},
    {"quiet", 'q', NULL, WORD_TEXT, "no notes and no progress"},
    {"help", 'h', NULL, WORD_TEXT, "this command's options, with an example"},
    {0}};

/* --- the command --- */

/* How many words of argv the name is, or 0. */
static int match_name(const char *name, int argc, char **argv)
{
    size_t first = strcspn(name, " ");
    if (strncmp(name, argv[0], first) != 0 || argv[0][first])
        return 0;
    if (!name[first])
        return 1;
    return argc > 1 && strcmp(name + first + 1, argv[1]) == 0 ? 2 : 0;
}

static bool is_group(const char *word)
{
    size_t length = strlen(word);
    for (unsigned i = 0; i < evctl_command_count; i++)
        if (strncmp(evctl_commands[i].name, word, length) == 0 &&
            evctl_commands[i].name[length] == ' ')
            return true;
    return false;
}

static int unknown_in_group(const char *group, const char *word, struct error *err)
{
    struct suggest suggest;
    char list[128] = "";
    size_t length = strlen(group);
    suggest_init(&suggest, word ? word : "");
    for (unsigned i = 0; i < evctl_command_count; i++) {
        const char *name = evctl_commands[i].name;
        if (strncmp(name, group, length) != 0 || name[length] != ' ')
            continue;
        suggest_offer(&suggest, name + length + 1);
        strncat(list, *list ? ", " : "", sizeof(list) - strlen(list) - 1);
        strncat(list, name + length + 1, sizeof(list) - strlen(list) - 1);
    }
    if (word && suggest.best)
        return error_set(err, EINVAL, "'%s %s' is not a command; did you mean '%s %s'?", group,
                         word, group, suggest.best);
    return error_set(err, EINVAL, "'%s' wants one of: %s", group, list);
}

/* What people know from other tools. */
static const char *foreign(const char *word)
{
    static const char *const pairs[][2] = {
        {"createvm", "create"},
        {"startvm", "start"},
        {"showvminfo", "info"},
        {"dominfo", "info"},
        {"modifyvm", "set"},
        {"shutdown", "stop"},
        {"destroy", "stop --force"},
        {"poweroff", "stop --force"},
        {"undefine", "delete"},
        {"unregistervm", "delete"},
        {"clonevm", "clone"},
        {"suspend", "pause"},
        {"storageattach", "attach"},
        {"domifaddr", "ip"},
        {"rm", "delete"},
        {"ls", "list"},
        {"ps", "list"},
        {"reboot", "reset"},
        {"run", "start"},
        {"vagrant", "up"},
        {"getGuestIPAddress", "ip"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++)
        if (strcmp(word, pairs[i][0]) == 0)
            return pairs[i][1];
    return NULL;
}

static int find_command(int argc, char **argv, const struct evctl_command **out, struct error *err)
{
    struct suggest suggest;
    suggest_init(&suggest, argv[0]);
    for (unsigned i = 0; i < evctl_command_count; i++) {
        int words = match_name(evctl_commands[i].name, argc, argv);
        *out = &evctl_commands[i];
        if (words)
            return words;
        if (evctl_commands[i].summary && !strchr(evctl_commands[i].name, ' '))
            suggest_offer(&suggest, evctl_commands[i].name);
    }
    if (is_group(argv[0]))
        return unknown_in_group(argv[0], argc > 1 ? argv[1] : NULL, err);
    const char *near = foreign(argv[0]) ? foreign(argv[0]) : suggest.best;
    if (near)
        return error_set(err, EINVAL, "'%s' is not a command; did you mean '%s'?", argv[0], near);
    return error_set(err, EINVAL, "'%s' is not a command; 'evctl help' lists them", argv[0]);
}

/* --- options --- */

static const struct evctl_option *find_in(const struct evctl_option *options, const char *name,
                                          size_t length, struct suggest *suggest)
{
    for (; options && options->name; options++) {
        if (strncmp(options->name, name, length) == 0 && !options->name[length])
            return options;
        suggest_offer(suggest, options->name);
    }
    return NULL;
}

static const struct evctl_option *find_letter(const struct evctl_option *options, char letter)
{
    for (; options && options->name; options++)
        if (options->letter == letter)
            return options;
    return NULL;
}

static const struct evctl_option *find_option(const struct evctl_command *command, const char *word,
                                              const char **text, struct error *err)
{
    struct suggest suggest;
    const struct evctl_option *option;
    if (word[1] != '-') {
        option = find_letter(command->options, word[1]);
        option = option ? option : find_letter(evctl_common_options, word[1]);
        *text = word[2] ? word + 2 : NULL;
        if (!option)
            error_set(err, EINVAL, "%s: the option '%.2s' is not known; see: evctl %s --help",
                      command->name, word, command->name);
        return option;
    }
    char name[64];
    size_t length = strcspn(word + 2, "=");
    snprintf(name, sizeof(name), "%.*s", (int)MIN(length, sizeof(name) - 1), word + 2);
    suggest_init(&suggest, name);
    *text = word[2 + length] ? word + 3 + length : NULL;
    option = find_in(command->options, name, strlen(name), &suggest);
    option = option ? option : find_in(evctl_common_options, name, strlen(name), &suggest);
    if (!option && suggest.best)
        error_set(err, EINVAL, "%s: the option '--%s' is not known; did you mean '--%s'?",
                  command->name, name, suggest.best);
    else if (!option)
        error_set(err, EINVAL, "%s: the option '--%s' is not known; see: evctl %s --help",
                  command->name, name, command->name);
    return option;
}

static void take_common(struct evctl_call *call, const struct evctl_option *option)
{
    call->json |= option == &evctl_common_options[0];
    call->quiet |= option == &evctl_common_options[1];
    call->help |= option == &evctl_common_options[2];
}

/* Returns how many words were used, or -errno. */
static int parse_option(int argc, char **argv, struct evctl_call *call, struct error *err)
{
    const char *text;
    const struct evctl_option *option = find_option(call->command, argv[0], &text, err);
    if (!option)
        return -EINVAL;
    if (!option->argument && text)
        return error_set(err, EINVAL, "%s: '--%s' takes no value", call->command->name,
                         option->name);
    if (option->argument && !text && argc < 2)
        return error_set(err, EINVAL, "%s: '--%s' wants a value: --%s %s", call->command->name,
                         option->name, option->name, option->argument);
    if (call->value_count == EVCTL_ARGUMENTS_MAX)
        return error_set(err, EINVAL, "%s: too many options", call->command->name);
    bool takes_next = option->argument && !text;
    take_common(call, option);
    call->values[call->value_count++] = (struct evctl_value){option, takes_next ? argv[1] : text};
    return takes_next ? 2 : 1;
}

static int check_arguments(const struct evctl_call *call, struct error *err)
{
    const struct evctl_command *command = call->command;
    if (call->help)
        return 0;
    if (call->argument_count < command->min_arguments)
        return error_set(err, EINVAL, "%s: something is missing; it is: evctl %s %s", command->name,
                         command->name, command->arguments);
    if (call->argument_count > command->max_arguments)
        return error_set(err, EINVAL, "%s: '%s' is too much; it is: evctl %s%s%s", command->name,
                         call->arguments[command->max_arguments], command->name,
                         *command->arguments ? " " : "", command->arguments);
    return 0;
}

/* What follows the machine's name is another program's: its options are not ours. */
static bool rest_is_foreign(const struct evctl_call *call)
{
    return call->argument_count > 0 && strcmp(call->command->name, "ssh") == 0;
}

int parse_call(int argc, char **argv, struct evctl_call *call, struct error *err)
{
    bool is_rest = false;
    *call = (struct evctl_call){0};
    int used = find_command(argc, argv, &call->command, err);
    while (used > 0 && used < argc) {
        const char *word = argv[used];
        if (!is_rest && strcmp(word, "--") == 0) {
            is_rest = true;
            used++;
            continue;
        }
        if (!is_rest && !rest_is_foreign(call) && word[0] == '-' && word[1]) {
            int more = parse_option(argc - used, argv + used, call, err);
            used = more < 0 ? more : used + more;
            continue;
        }
        if (call->argument_count == EVCTL_ARGUMENTS_MAX)
            return error_set(err, EINVAL, "%s: too many words", call->command->name);
        call->arguments[call->argument_count++] = word;
        used++;
    }
    return used < 0 ? used : check_arguments(call, err);
}

/* --- what was given --- */

const char *call_nth(const struct evctl_call *call, const char *option, unsigned n)
{
    for (unsigned i = 0; i < call->value_count; i++)
        if (strcmp(call->values[i].option->name, option) == 0 && n-- == 0)
            return call->values[i].text ? call->values[i].text : "";
    return NULL;
}

const char *call_get(const struct evctl_call *call, const char *option)
{
    const char *last = NULL, *next;
    for (unsigned n = 0; (next = call_nth(call, option, n)); n++)
        last = next;
    return last;
}

bool call_has(const struct evctl_call *call, const char *option)
{
    return call_get(call, option) != NULL;
}

int call_uint(const struct evctl_call *call, const char *option, uint64_t min, uint64_t max,
              uint64_t *out, struct error *err)
{
    const char *text = call_get(call, option);
    char *end;
    if (!text)
        return 0;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < min || value > max)
        return error_set(err, EINVAL, "--%s %s: it must be a whole number from %llu to %llu",
                         option, text, (unsigned long long)min, (unsigned long long)max);
    *out = value;
    return 0;
}

bool parse_size(const char *text, uint64_t unit, uint64_t *out_bytes)
{
    static const char suffixes[] = "BKMGTPE";
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    double value = strtod(text, &end);
    if (*end) {
        char upper = (char)(*end & ~0x20);
        const char *at = strchr(suffixes, upper);
        if (!at || (end[1] && strcasecmp(end + 1, "b") != 0 && strcasecmp(end + 1, "ib") != 0))
            return false;
        unit = UINT64_C(1) << (10 * (at - suffixes));
    }
    value *= (double)unit;
    if (errno || !(value >= 1 && value < 9.2e18))
        return false;
    *out_bytes = (uint64_t)value;
    return true;
}

int call_size(const struct evctl_call *call, const char *option, uint64_t *out_bytes,
              struct error *err)
{
    const char *text = call_get(call, option);
    if (text && !parse_size(text, 1 << 20, out_bytes))
        return error_set(err, EINVAL, "--%s %s: it must be a size such as 512M or 2G", option,
                         text);
    return 0;
}
