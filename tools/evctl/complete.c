/* SPDX-License-Identifier: MIT */
/*
 * complete: the completion scripts of bash and zsh, from the command table; and `evctl words`,
 * which they ask for names that only this moment's machines tell.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/model.h"
#include "tools/evctl/network.h"
#include "tools/evctl/tell.h"

static const char *const word_names[] = {
    [WORD_TEXT] = "-",
    [WORD_MACHINE] = "machine",
    [WORD_FILE] = "file",
    [WORD_FOLDER] = "folder",
    [WORD_NETWORK] = "network",
    [WORD_COMMAND] = "command",
    [WORD_SNAPSHOT] = "snapshot",
    [WORD_DISK] = "disk",
    [WORD_DEVICE] = "device",
    [WORD_KIND] = "kind",
    [WORD_OS] = "os",
    [WORD_SHELL] = "shell",
    [WORD_FORWARD] = "forward",
    [WORD_CONSOLE] = "console",
    [WORD_ACCEL] = "accel",
    [WORD_BOOT] = "boot",
    [WORD_FORMAT] = "format",
    [WORD_MODE] = "mode",
};

/* Words that are always the same. */
static const char *const fixed[][7] = {
    {"kind", "disk", "iso", "nic"},
    {"shell", "bash", "zsh"},
    {"console", "serial", "hvc"},
    {"accel", "kvm", "soft"},
    {"boot", "c", "d", "dc", "cd"},
    {"format", "qcow2", "raw", "vdi", "vmdk", "vpc", "vhdx"},
    {"mode", "internal", "nat", "hostonly", "bridged", "user"},
};

/* --- evctl words --- */

static void print_ids(const json_t *entries, const char *key)
{
    size_t i;
    json_t *entry;
    json_array_foreach(entries, i, entry) puts(model_text(entry, key));
}

static void print_texts(const json_t *texts)
{
    size_t i;
    json_t *text;
    json_array_foreach(texts, i, text) puts(json_string_value(text));
}

/* As short as forward del takes them: most are on this host's own address. */
static void print_forwards(const json_t *config)
{
    static const char usual[] = "tcp:127.0.0.1:";
    size_t i, k;
    json_t *nic, *rule;
    json_array_foreach(json_object_get(config, "nics"), i, nic)
        json_array_foreach(json_object_get(nic, "forwards"), k, rule)
    {
        const char *text = json_string_value(rule);
        text += strncmp(text, usual, sizeof(usual) - 1) == 0 ? sizeof(usual) - 1 : 0;
        printf("%.*s\n", (int)strcspn(text, "-"), text);
    }
}

/* What belongs to one machine. Completion is silent about what it cannot find. */
static void print_of_machine(const char *kind, const char *name)
{
    struct machine machine;
    if (machine_open(name, 0, &machine, NULL))
        return;
    if (strcmp(kind, "snapshot") == 0) {
        json_t *list = disks_snapshots(&machine, NULL);
        print_ids(list, "name");
        json_decref(list);
    } else if (strcmp(kind, "forward") == 0) {
        print_forwards(machine.config);
    } else {
        print_ids(json_object_get(machine.config, "disks"), "id");
        if (strcmp(kind, "device") == 0)
            print_ids(json_object_get(machine.config, "nics"), "id");
    }
    machine_close(&machine);
}

static void print_commands(void)
{
    for (unsigned i = 0; i < evctl_command_count; i++)
        if (!help_is_hidden(&evctl_commands[i]))
            puts(evctl_commands[i].name);
}

/* False if this kind is none of those. */
static bool print_fixed(const char *kind)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fixed); i++) {
        if (strcmp(fixed[i][0], kind) != 0)
            continue;
        for (unsigned k = 1; k < ARRAY_SIZE(fixed[i]) && fixed[i][k]; k++)
            puts(fixed[i][k]);
        return true;
    }
    return false;
}

int cmd_words(struct evctl_call *call, struct error *err)
{
    const char *kind = call->arguments[0];
    json_t *names = NULL;
    (void)err;
    if (strcmp(kind, "machine") == 0)
        names = store_names(NULL);
    else if (strcmp(kind, "network") == 0)
        names = json_array();
    else if (print_fixed(kind))
        return 0;
    else if (strcmp(kind, "command") == 0)
        print_commands();
    else if (strcmp(kind, "os") == 0)
        for (unsigned n = 0; model_nth_os(n); n++)
            puts(model_nth_os(n)->name);
    else if (call->argument_count > 1)
        print_of_machine(kind, call->arguments[1]);
    if (strcmp(kind, "network") == 0)
        network_add_names(names);
    print_texts(names);
    json_decref(names);
    return 0;
}

/* --- the scripts --- */

/* One line for each command: "name|word word word|--option=kind --switch ...". */
static void write_lines(FILE *to)
{
    for (unsigned i = 0; i < evctl_command_count; i++) {
        const struct evctl_command *command = &evctl_commands[i];
        if (help_is_hidden(command))
            continue;
        fprintf(to, "%s|%s %s %s|", command->name, word_names[command->words[0]],
                word_names[command->words[1]], word_names[command->words[2]]);
        for (const struct evctl_option *o = command->options; o && o->name; o++)
            fprintf(to, "--%s%s%s ", o->name, o->argument ? "=" : "",
                    o->argument ? word_names[o->word] : "");
        for (const struct evctl_option *o = evctl_common_options; o->name; o++)
            fprintf(to, "--%s ", o->name);
        fputc('\n', to);
    }
}

/* The same code serves both shells; only how candidates are handed over differs. */
static const char common_script[] =
    "EOT\n"
    ")\n"
    "# Words so far, without the last -> candidates, or @file, @folder.\n"
    "_evctl_candidates() {\n"
    "    local IFS=' ' name='' line rest flags kinds kind word place=0 before='' machine=''\n"
    "    while IFS= read -r line; do\n"
    "        rest=${line%%|*}\n"
    "        case \"$* \" in \"$rest \"*) [ ${#rest} -gt ${#name} ] && name=$rest && "
    "flags=$line ;; esac\n"
    "    done <<EOL\n$_evctl_table\nEOL\n"
    "    if [ -z \"$name\" ]; then\n"
    "        if [ -n \"$1\" ]; then\n"
    "            printf '%s\\n' \"$_evctl_table\" | sed -n \"s/^$1 \\([a-z]*\\)|.*/\\1/p\"\n"
    "        else\n"
    "            printf '%s\\n' \"$_evctl_table\" | sed 's/[| ].*//' | sort -u\n"
    "        fi\n"
    "        return\n"
    "    fi\n"
    "    flags=${flags#*|}; kinds=${flags%%|*}; flags=${flags#*|}\n"
    "    case $name in *' '*) shift 2 ;; *) shift ;; esac\n"
    "    for word in \"$@\"; do\n"
    "        case $before$word in\n"
    "        '='*) before='' ;;\n"
    "        -*) case \" $flags \" in *\" $word=\"*) before='=' ;; esac ;;\n"
    "        *) place=$((place + 1)); [ -n \"$machine\" ] || machine=$word ;;\n"
    "        esac\n"
    "    done\n"
    "    if [ -n \"$before\" ]; then\n"
    "        rest=\" $flags\"; rest=${rest#*\" $word=\"}; kind=${rest%% *}\n"
    "    else\n"
    "        printf '%s\\n' \"$flags\" | tr ' ' '\\n' | sed 's/=.*//;/^$/d'\n"
    "        kind=$(printf '%s - - -' \"$kinds\" | cut -d' ' -f$((place + 1 > 4 ? 4 : place + "
    "1)))\n"
    "    fi\n"
    "    case $kind in\n"
    "    -|'') ;;\n"
    "    file|folder) echo \"@$kind\" ;;\n"
    "    *) evctl words \"$kind\" \"$machine\" 2>/dev/null ;;\n"
    "    esac\n"
    "}\n";

/* No compgen -W: it would expand what stands in a name. */
static const char bash_script[] =
    "_evctl() {\n"
    "    local current=${COMP_WORDS[COMP_CWORD]} line IFS=$'\\n'\n"
    "    COMPREPLY=()\n"
    "    while read -r line; do\n"
    "        case $line in\n"
    "        @file) COMPREPLY+=($(compgen -f -- \"$current\")) ;;\n"
    "        @folder) COMPREPLY+=($(compgen -d -- \"$current\")) ;;\n"
    "        \"$current\"*) COMPREPLY+=(\"$line\") ;;\n"
    "        esac\n"
    "    done < <(_evctl_candidates \"${COMP_WORDS[@]:1:COMP_CWORD-1}\")\n"
    "}\n"
    "complete -o filenames -F _evctl evctl\n";

static const char zsh_script[] =
    "_evctl() {\n"
    "    emulate -L zsh\n"
    "    local candidates\n"
    "    candidates=$(_evctl_candidates \"${(@)words[2,CURRENT-1]}\")\n"
    "    case $candidates in *@file*) _files ;; *@folder*) _files -/ ;; esac\n"
    "    compadd -- ${(f)\"$(printf '%s\\n' \"$candidates\" | grep -v '^@')\"}\n"
    "}\n"
    "compdef _evctl evctl\n";

static int write_script(FILE *to, const char *shell, struct error *err)
{
    bool is_zsh = strcmp(shell, "zsh") == 0;
    if (!is_zsh && strcmp(shell, "bash") != 0)
        return error_set(err, EINVAL, "'%s' is no shell that is known here; say bash or zsh",
                         shell);
    fputs(is_zsh ? "#compdef evctl\n" : "", to);
    fputs("# Written by evctl completion.\n_evctl_table=$(cat <<'EOT'\n", to);
    write_lines(to);
    fputs(common_script, to);
    fputs(is_zsh ? zsh_script : bash_script, to);
    return 0;
}

int cmd_completion(struct evctl_call *call, struct error *err)
{
    char *script = NULL;
    size_t size;
    if (!call->json)
        return write_script(stdout, call->arguments[0], err);
    FILE *to = open_memstream(&script, &size);
    CHECK(to);
    int result = write_script(to, call->arguments[0], err);
    CHECK(fclose(to) == 0);
    if (!result)
        tell_json(json_pack("{s:s, s:s}", "shell", call->arguments[0], "script", script));
    free(script);
    return result;
}
