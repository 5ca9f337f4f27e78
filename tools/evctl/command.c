/* SPDX-License-Identifier: MIT */
/* command: the command line of evisor for a machine. Paths are relative to its folder. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/evctl/live.h"
#include "tools/evctl/model.h"
#include "tools/evctl/network.h"

#define MEMORY_BLOCK_MIB 128u /* Linux adds memory in such blocks */

static void add(json_t *words, const char *format, ...) printf_like(2, 3);

static void add(json_t *words, const char *format, ...)
{
    va_list args;
    char *word = NULL;
    va_start(args, format);
    CHECK(vasprintf(&word, format, args) >= 0);
    va_end(args);
    json_array_append_new(words, json_string(word));
    free(word);
}

/* A comma in a value is written twice. */
static char *escape(const char *text)
{
    char *result = malloc(2 * strlen(text) + 1), *to = result;
    CHECK(result);
    for (; *text; text++) {
        *to++ = *text;
        if (*text == ',')
            *to++ = ',';
    }
    *to = '\0';
    return result;
}

static void add_text(json_t *words, const json_t *config, const char *key)
{
    const char *text = model_text(config, key);
    if (!*text)
        return;
    add(words, "-%s", key);
    add(words, "%s", text);
}

static void add_disk(json_t *words, const json_t *disk)
{
    char device[LIVE_DEVICE_BYTES];
    const char *file = model_text(disk, "file");
    bool is_iso = strcmp(model_text(disk, "kind"), "iso") == 0;
    char *path = escape(file);
    add(words, "-drive");
    add(words, "file=%s,format=%s,id=%s,if=none%s", path, model_text(disk, "format"),
        model_text(disk, "id"), is_iso ? ",media=cdrom,readonly=on" : "");
    add(words, "-device");
    add(words, "virtio-blk-pci,drive=%s,id=%s", model_text(disk, "id"),
        live_device(model_text(disk, "id"), device));
    free(path);
}

static int add_nic(json_t *words, const json_t *nic, struct error *err)
{
    size_t i;
    json_t *rule;
    char device[LIVE_DEVICE_BYTES];
    char *kind = network_netdev(nic, err), *forwards = strdup("");
    if (!kind) {
        free(forwards);
        return -1;
    }
    /* Elsewhere the host's kernel forwards them. */
    json_t *rules = network_forwards(nic) ? json_object_get(nic, "forwards") : NULL;
    json_array_foreach(rules, i, rule)
    {
        char *longer = NULL;
        CHECK(asprintf(&longer, "%s,hostfwd=%s", forwards, json_string_value(rule)) > 0);
        free(forwards);
        forwards = longer;
    }
    add(words, "-netdev");
    add(words, "%s,id=%s%s", kind, model_text(nic, "id"), forwards);
    add(words, "-device");
    add(words, "virtio-net-pci,netdev=%s,mac=%s,id=%s", model_text(nic, "id"),
        model_text(nic, "mac"), live_device(model_text(nic, "id"), device));
    free(kind);
    free(forwards);
    return 0;
}

/* What it may grow to comes as a device, of which the guest has nothing at first. */
static void add_memory(json_t *words, const json_t *config)
{
    uint64_t mib = model_number(config, "memory-mib"),
             max_mib = model_number(config, "memory-max-mib");
    uint64_t more = max_mib > mib ? align_up(max_mib - mib, MEMORY_BLOCK_MIB) : 0;
    add(words, "-m");
    if (!more) {
        add(words, "%lluM", (unsigned long long)mib);
        return;
    }
    add(words, "%lluM,slots=1,maxmem=%lluM", (unsigned long long)mib,
        (unsigned long long)(mib + more));
    add(words, "-object");
    add(words, "memory-backend-ram,id=memory,size=%lluM", (unsigned long long)more);
    add(words, "-device");
    add(words, "virtio-mem-pci,id=dev-memory,memdev=memory,requested-size=0");
}

static void add_base(json_t *words, const json_t *config)
{
    char *name = escape(model_text(config, "name"));
    add(words, "-name");
    add(words, "guest=%s", name);
    free(name);
    add(words, "-uuid");
    add(words, "%s", model_text(config, "uuid"));
    add_memory(words, config);
    uint64_t cpus = model_number(config, "cpus"), max_cpus = model_number(config, "cpus-max");
    add(words, "-smp");
    add(words, "cpus=%llu,maxcpus=%llu", (unsigned long long)cpus,
        (unsigned long long)MAX(cpus, max_cpus));
    static const char *const texts[] = {"accel", "kernel", "initrd", "append", "bios", "boot"};
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
        add_text(words, config, texts[i]);
}

static const char console_chardev[] =
    "socket,id=console,path=console,server=on,wait=off,history=on,logfile=console.log,logsize=16M";

/* A console of its own kind, beside the serial one that firmware and kernels speak on. */
static void add_hvc(json_t *words)
{
    static const char *const fixed[] = {
        "-device",  "virtio-serial-pci,id=dev-ports",
        "-chardev", "socket,id=hvc,path=hvc,server=on,wait=off,history=on",
        "-device",  "virtconsole,chardev=hvc,id=dev-hvc",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(fixed); i++)
        add(words, "%s", fixed[i]);
}

static void add_sockets(json_t *words)
{
    static const char *const fixed[] = {
        "-display", "none",
        "-chardev", console_chardev,
        "-serial",  "chardev:console",
        "-qmp",     "unix:qmp,server=on,wait=off",
        "-pidfile", "pid",
        "-device",  "virtio-rng-pci",
        "-device",  "virtio-balloon-pci,id=dev-balloon,deflate-on-oom=on,free-page-reporting=on",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(fixed); i++)
        add(words, "%s", fixed[i]);
}

json_t *model_command(const struct machine *machine, bool is_paused, struct error *err)
{
    json_t *words = json_array(), *entry;
    size_t i;
    int result = 0;
    add_base(words, machine->config);
    add_sockets(words);
    if (strcmp(model_text(machine->config, "console"), "hvc") == 0)
        add_hvc(words);
    json_array_foreach(json_object_get(machine->config, "disks"), i, entry) add_disk(words, entry);
    json_array_foreach(json_object_get(machine->config, "nics"), i, entry) if (!result) result =
        add_nic(words, entry, err);
    if (json_array_size(json_object_get(machine->config, "nics")) == 0) {
        add(words, "-nic");
        add(words, "none");
    }
    if (is_paused)
        add(words, "-S");
    if (!result)
        return words;
    json_decref(words);
    return NULL;
}
