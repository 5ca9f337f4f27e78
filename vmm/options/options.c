/* SPDX-License-Identifier: MIT */
/*
 * options: walks over argv, finds each option in the table, and settles at the end what refers to
 * something else. The options themselves are read by the options_*.c files.
 */
#include "vmm/options/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "vmm/options/file_nodes.h"
#include "vmm/options/options_private.h"

void *options_grow(void *array, unsigned count, size_t element_size)
{
    char *grown = realloc(array, (count + 1) * element_size);
    CHECK(grown);
    memset(grown + count * element_size, 0, element_size);
    return grown;
}

static const struct option_entry *find_option(const char *name)
{
    for (unsigned i = 0; i < option_table_length; i++)
        if (option_table[i].name && strcmp(option_table[i].name, name) == 0)
            return &option_table[i];
    return NULL;
}

static int refuse_unknown(const char *argument, const char *name, struct error *err)
{
    struct suggest suggest;
    suggest_init(&suggest, name);
    for (unsigned i = 0; i < option_table_length; i++)
        if (option_table[i].name && option_table[i].parse != option_refuse)
            suggest_offer(&suggest, option_table[i].name);
    if (suggest.best)
        return error_set(err, EINVAL, "unknown option '%s'; did you mean '-%s'?", argument,
                         suggest.best);
    return error_set(err, EINVAL, "unknown option '%s'; see evisor -help", argument);
}

/* Reads the option at argv[*at] with its argument; *at is left on the last word used. */
static int parse_one(struct options *options, int argc, char *const argv[], int *at,
                     struct error *err)
{
    const char *word = argv[*at];
    if (word[0] != '-' || !word[1])
        return error_set(err, EINVAL,
                         "'%s' is no option; to use it as a disk, write -drive file=%s,if=virtio",
                         word, word);
    const char *name = word + (word[1] == '-' && word[2] ? 2 : 1);
    const struct option_entry *entry = find_option(name);
    if (!entry)
        return refuse_unknown(word, name, err);
    if (entry->parse == option_refuse)
        return option_refuse(options, entry, NULL, err);
    if (!entry->argument)
        return entry->parse(options, entry, NULL, err);
    if (*at + 1 >= argc)
        return error_set(err, EINVAL, "-%s needs an argument: -%s %s", entry->name, entry->name,
                         entry->argument);
    return entry->parse(options, entry, argv[++*at], err);
}

static int finish(struct options *options, struct error *err)
{
    int result = options_finish_devices(options, err);
    if (!result)
        result = options_finish_drives(options, err);
    if (!result)
        result = options_finish_net(options, err);
    if (!result)
        result = options_finish_chars(options, err);
    if (!result)
        result = options_finish_machine(options, err);
    if (!result)
        result = options_finish_guest(options, err);
    if (!result)
        result = options_finish_boot(options, err);
    return result;
}

static void options_fini(struct options *options)
{
    for (unsigned i = 0; i < options->device_count; i++)
        keyval_fini(&options->devices[i]);
    for (unsigned i = 0; i < options->char_user_count; i++) {
        free(options->char_users[i].chardev_id);
        free(options->char_users[i].option);
    }
    free(options->disks);
}

int options_parse(int argc, char *const argv[], struct vm_config *config, char **text,
                  struct error *err)
{
    memset(config, 0, sizeof(*config));
    config->serial_chardev = -1;
    config->boot.splash_ms = -1;
    config->boot.reboot_ms = CONFIG_BOOT_REBOOT_DEFAULT;
    *text = NULL;
    struct options *options = calloc(1, sizeof(*options));
    CHECK(options);
    options->config = config;
    int result = 0;
    for (int at = 1; at < argc && !result && !options->text; at++)
        result = parse_one(options, argc, argv, &at, err);
    if (!result && !options->text)
        result = finish(options, err);
    *text = options->text;
    options_fini(options);
    free(options);
    if (result || *text)
        vm_config_fini(config);
    return result;
}

void options_disk_fini(struct config_disk *disk)
{
    free(disk->id);
    free(disk->qdev_id);
    free(disk->serial);
    disk_options_fini(&disk->options);
    free(disk->limits);
    free(disk->throttle_group);
    free(disk->node_name);
}

void vm_config_fini(struct vm_config *config)
{
    char *strings[] = {config->name,   config->uuid,         config->mem_path, config->cpu_model,
                       config->accel,  config->machine_type, config->kernel,   config->initrd,
                       config->append, config->metrics, config->pidfile,      config->gdb,      config->bios};
    for (unsigned i = 0; i < ARRAY_SIZE(strings); i++)
        free(strings[i]);
    for (unsigned i = 0; i < config->disk_count; i++)
        options_disk_fini(&config->disks[i]);
    file_nodes_fini(config);
    for (unsigned i = 0; i < config->rng_count; i++)
        free(config->rngs[i].qdev_id);
    for (unsigned i = 0; i < config->nic_count; i++)
        options_netdev_fini(&config->nics[i]);
    for (unsigned i = 0; i < config->chardev_count; i++)
        options_chardev_fini(&config->chardevs[i]);
    options_guest_fini(&config->guest);
    free(config->disks);
    free(config->nics);
    memset(config, 0, sizeof(*config));
    config->serial_chardev = -1;
}

bool vm_config_chardev_is_control(const struct vm_config *config, unsigned index)
{
    enum config_chardev_kind kind = config->chardevs[index].kind;
    for (unsigned i = 0; i < config->monitor_count; i++)
        if (config->monitors[i].chardev == index)
            return (kind == CHARDEV_UNIX || kind == CHARDEV_TCP) &&
                   config->chardevs[index].is_server;
    return false;
}
