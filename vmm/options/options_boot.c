/* SPDX-License-Identifier: MIT */
/* options_boot: what is started: a kernel, or firmware and its order of disks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/options/options_groups.h"
#include "vmm/options/options_private.h"

static void set_string(char **field, const char *value)
{
    free(*field);
    *field = text_copy(value);
}

int option_kernel(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    (void)entry, (void)err;
    set_string(&options->config->kernel, argument);
    return 0;
}

int option_initrd(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    (void)entry, (void)err;
    set_string(&options->config->initrd, argument);
    return 0;
}

int option_append(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    (void)entry, (void)err;
    set_string(&options->config->append, argument);
    return 0;
}

int option_bios(struct options *options, const struct option_entry *entry, const char *argument,
                struct error *err)
{
    (void)entry, (void)err;
    set_string(&options->config->bios, argument);
    return 0;
}

static int refuse_letter(char letter, struct error *err)
{
    if (letter == 'n' || (letter >= 'o' && letter <= 'p'))
        return error_set(
            err, ENOTSUP,
            "-boot: '%c' is the network, and evisor's NICs have no boot ROM; boot from "
            "disks (c) or CDs (d), or a kernel with -kernel",
            letter);
    if (letter == 'a' || letter == 'b')
        return error_set(err, ENOTSUP,
                         "-boot: '%c' is a floppy drive, which evisor has not; boot from disks (c) "
                         "or CDs (d)",
                         letter);
    return error_set(err, EINVAL, "-boot: '%c' is no kind of drive: c is the disks, d the CDs",
                     letter);
}

static int set_order(const struct keyval *list, const char *key, char order[4], struct error *err)
{
    const char *letters = keyval_get(list, key);
    if (!letters)
        return 0;
    for (const char *at = letters; *at; at++) {
        if (*at != 'c' && *at != 'd')
            return refuse_letter(*at, err);
        if (strchr(at + 1, *at))
            return error_set(err, EINVAL, "-boot: %s=%s names '%c' twice", key, letters, *at);
    }
    snprintf(order, 4, "%s", letters);
    return 0;
}

/* QEMU's limit, and its way to say never. */
static int set_reboot(const struct keyval *list, int *out, struct error *err)
{
    const char *text = keyval_get(list, "reboot-timeout");
    uint64_t value = 0;
    if (text && strcmp(text, "-1") == 0) {
        *out = -1;
        return 0;
    }
    int result = keyval_uint(list, "reboot-timeout", 0, 0xffff, &value, err);
    if (!result && text)
        *out = (int)value;
    return result;
}

const struct keyval_known options_boot_known[] = {{"order", NULL, NULL},
                                                  {"once", NULL, NULL},
                                                  {"menu", NULL, NULL},
                                                  {"splash-time", NULL, NULL},
                                                  {"strict", NULL, NULL},
                                                  {"reboot-timeout", NULL, NULL},
                                                  {0}};

int option_boot(struct options *options, const struct option_entry *entry, const char *argument,
                struct error *err)
{
    struct config_boot *boot = &options->config->boot;
    struct keyval list;
    uint64_t splash_ms = UINT64_MAX;
    char option[32];
    snprintf(option, sizeof(option), "-%s", entry->name);
    int result = keyval_parse(&list, option, argument, "order", err);
    if (result)
        return result;
    result = keyval_check(&list, options_boot_known, err);
    if (!result)
        result = set_order(&list, "order", boot->order, err);
    if (!result)
        result = set_order(&list, "once", boot->once, err);
    if (!result)
        result = keyval_bool(&list, "menu", &boot->has_menu, err);
    if (!result)
        result = keyval_bool(&list, "strict", &boot->is_strict, err);
    if (!result)
        result = keyval_uint(&list, "splash-time", 0, 0xffff, &splash_ms, err);
    if (!result)
        result = set_reboot(&list, &boot->reboot_ms, err);
    if (splash_ms != UINT64_MAX)
        boot->splash_ms = (int)splash_ms;
    keyval_fini(&list);
    return result;
}

static bool has_disk(const struct vm_config *config)
{
    for (unsigned i = 0; i < config->disk_count; i++)
        if (config->disks[i].is_attached)
            return true;
    return false;
}

static int check_kernel(const struct vm_config *config, struct error *err)
{
    if (config->bios)
        return error_set(
            err, EINVAL,
            "-bios and -kernel: evisor starts a kernel without firmware; leave one out");
    if (config->append && strlen(config->append) >= CMDLINE_MAX_BYTES)
        return error_set(err, EINVAL,
                         "-append: the kernel's command line has %zu bytes; at most %d",
                         strlen(config->append), CMDLINE_MAX_BYTES - 1);
    return 0;
}

int options_finish_boot(struct options *options, struct error *err)
{
    const struct vm_config *config = options->config;
    if (config->kernel)
        return check_kernel(config, err);
    if (config->append || config->initrd)
        return error_set(err, EINVAL, "-%s goes with a kernel: name that with -kernel FILE",
                         config->append ? "append" : "initrd");
    if (!config->bios && !has_disk(config))
        return error_set(
            err, EINVAL,
            "there is nothing to boot: name a disk image with -drive file=FILE, -hda or "
            "-cdrom, or a kernel with -kernel FILE");
    return 0;
}
