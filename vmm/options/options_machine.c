/* SPDX-License-Identifier: MIT */
/* options_machine: the options for memory, CPUs, boot and how the process behaves. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/suggest.h"
#include "vmm/options/machine_types.h"
#include "vmm/options/options_groups.h"
#include "vmm/options/options_private.h"

#define ACCELS "kvm|soft"

static void set_string(char **to, const char *text)
{
    free(*to);
    *to = text_copy(text);
}

/* Parses and checks in one go; on failure nothing is left to free. */
static int read_list(struct keyval *list, const struct option_entry *entry, const char *argument,
                     const char *implied, const struct keyval_known *known, struct error *err)
{
    char option[64];
    snprintf(option, sizeof(option), "-%s", entry->name);
    int result = keyval_parse(list, option, argument, implied, err);
    if (result)
        return result;
    result = keyval_check(list, known, err);
    if (result)
        keyval_fini(list);
    return result;
}

const struct keyval_known options_memory_known[] = {
    {"size", NULL, NULL}, {"slots", "*", NULL}, {"maxmem", NULL, NULL}, {0}};

int option_m(struct options *options, const struct option_entry *entry, const char *argument,
             struct error *err)
{
    struct keyval list;
    int result = read_list(&list, entry, argument, "size", options_memory_known, err);
    if (result)
        return result;
    uint64_t bytes = options->config->ram_bytes;
    result = keyval_size(&list, "size", MIB, &bytes, err);
    if (!result && (bytes < RAM_MIN_MIB * MIB || bytes > RAM_MAX_GIB * GIB))
        result = error_set(err, EINVAL, "%s: memory must be from %dM to %dG", list.option,
                           RAM_MIN_MIB, RAM_MAX_GIB);
    if (!result)
        options->config->ram_bytes = align_up(bytes, MIB);
    uint64_t max_bytes = 0;
    if (!result)
        result = keyval_size(&list, "maxmem", MIB, &max_bytes, err);
    if (!result && max_bytes && max_bytes < bytes)
        result =
            error_set(err, EINVAL, "%s: maxmem= is less than the memory there is", list.option);
    if (!result && max_bytes > RAM_MAX_GIB * GIB)
        result =
            error_set(err, EINVAL, "%s: maxmem= must be at most %dG", list.option, RAM_MAX_GIB);
    options->config->guest.max_ram_bytes = max_bytes;
    keyval_fini(&list);
    return result;
}

static const char smp_one_level[] = "topology has sockets, cores and threads; leave it out";
const struct keyval_known options_smp_known[] = {{"cpus", NULL, NULL},
                                                 {"sockets", NULL, NULL},
                                                 {"cores", NULL, NULL},
                                                 {"threads", NULL, NULL},
                                                 {"maxcpus", NULL, NULL},
                                                 {"dies", "1", smp_one_level},
                                                 {"clusters", "1", smp_one_level},
                                                 {0}};

int option_smp(struct options *options, const struct option_entry *entry, const char *argument,
               struct error *err)
{
    struct keyval list;
    int result = read_list(&list, entry, argument, "cpus", options_smp_known, err);
    if (result)
        return result;
    uint64_t *const out[] = {&options->cpus, &options->sockets, &options->cores, &options->threads};
    options->max_cpus = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(out) && !result; i++) {
        *out[i] = 0;
        result = keyval_uint(&list, options_smp_known[i].key, 1, VCPU_MAX, out[i], err);
    }
    if (!result)
        result = keyval_uint(&list, "maxcpus", 1, VCPU_MAX, &options->max_cpus, err);
    keyval_fini(&list);
    return result;
}

/* Keys of -cpu that are no features; what they say changes nothing here, or is refused. */
static const struct keyval_known cpu_keys[] = {
    {"model", NULL, NULL},
    {"enforce", NULL, NULL},
    {"check", "*", NULL},
    {"migratable", "*", NULL},
    {"host-cache-info", "*", NULL},
    {"l3-cache", "*", NULL},
    {"pmu", "off", "the guest has no performance counters"},
    {"kvm", "on", "the guest always sees what runs it; leave it out"},
    {"host-phys-bits", "on", "the addresses are as wide as the accelerator offers; leave it out"},
    {0}};

static int refuse_feature(const char *argument, const char *name, struct error *err)
{
    const char *nearest = cpu_model_nearest_feature(name);

    if (nearest)
        return error_set(err, EINVAL, "-cpu %s: there is no feature '%s'; did you mean '%s'?",
                         argument, name, nearest);
    return error_set(err, EINVAL, "-cpu %s: there is no feature '%s'; -cpu help lists them",
                     argument, name);
}

/* "+avx", "-avx", "avx", "avx=off". */
static int switch_feature(struct cpu_model *model, const struct keyval_pair *pair,
                          const char *argument, struct error *err)
{
    bool has_sign = pair->key[0] == '+' || pair->key[0] == '-';
    const char *name = pair->key + has_sign;
    bool on = pair->key[0] != '-';

    if (pair->value && (has_sign || keyval_name_index("on|off", pair->value) < 0))
        return error_set(err, EINVAL, "-cpu %s: %s=%s: a feature is on or off", argument, pair->key,
                         pair->value);
    if (pair->value)
        on = strcmp(pair->value, "on") == 0;
    return cpu_model_switch(model, name, on) ? 0 : refuse_feature(argument, name, err);
}

static bool is_cpu_key(const char *key)
{
    for (const struct keyval_known *known = cpu_keys; known->key; known++)
        if (strcmp(known->key, key) == 0)
            return true;
    return false;
}

/* Takes the features out of the list; the rest is checked as any option's. */
static int take_features(struct keyval *list, struct cpu_model *model, const char *argument,
                         struct error *err)
{
    unsigned kept = 0;
    int result = 0;

    for (unsigned i = 0; i < list->count; i++) {
        struct keyval_pair *pair = &list->pairs[i];

        if (is_cpu_key(pair->key)) {
            list->pairs[kept++] = *pair;
            continue;
        }
        if (!result)
            result = switch_feature(model, pair, argument, err);
        free(pair->key);
        free(pair->value);
    }
    list->count = kept;
    return result;
}

int option_cpu(struct options *options, const struct option_entry *entry, const char *argument,
               struct error *err)
{
    (void)entry;
    if (strcmp(argument, "help") == 0 || strcmp(argument, "?") == 0) {
        options->text = cpu_model_help();
        return 0;
    }
    struct cpu_model cpu_model = {0};
    struct keyval list;
    int result = keyval_parse(&list, "-cpu", argument, "model", err);
    if (result)
        return result;
    const char *model = keyval_get(&list, "model");
    if (!model || !cpu_model_find(model, &cpu_model))
        result = error_set(err, ENOTSUP,
                           "-cpu %s: evisor has no such CPU model; use host (the default), "
                           "max, x86-64-v3 or another that -cpu help lists",
                           argument);
    else
        set_string(&options->config->cpu_model, model);
    if (!result)
        result = take_features(&list, &cpu_model, argument, err);
    if (!result)
        result = keyval_check(&list, cpu_keys, err);
    if (!result)
        result = keyval_bool(&list, "enforce", &cpu_model.enforce, err);
    if (!result)
        options->config->cpu_features = cpu_model;
    keyval_fini(&list);
    return result;
}

/* Appends the accelerators of "kvm:tcg" to the config's list, each once. */
static int add_accels(struct options *options, const char *names, struct error *err)
{
    char **accel = &options->config->accel;
    char *copy = text_copy(names), *rest = copy;
    int result = 0;
    for (char *name; !result && (name = strsep(&rest, ":"));) {
        const char *known = strcmp(name, "tcg") == 0 ? "soft" : name;
        if (keyval_name_index(ACCELS, known) < 0) {
            result =
                error_set(err, ENOTSUP,
                          "-accel %s: there is no such accelerator; use kvm, or soft (evisor's own "
                          "CPU, also called tcg), or kvm:soft",
                          name);
        } else if (!*accel) {
            set_string(accel, known);
        } else if (strstr(*accel, known) == NULL) {
            char *longer;
            CHECK(asprintf(&longer, "%s:%s", *accel, known) > 0);
            free(*accel);
            *accel = longer;
        }
    }
    free(copy);
    return result;
}

static const char always_split[] = "the interrupt controllers are always split; leave it out";
const struct keyval_known options_accel_known[] = {{"accel", NULL, NULL},
                                                   {"thread", "*", NULL},
                                                   {"tb-size", "*", NULL},
                                                   {"kernel-irqchip", "on|split", always_split},
                                                   {0}};

int option_accel(struct options *options, const struct option_entry *entry, const char *argument,
                 struct error *err)
{
    if (strcmp(argument, "help") == 0 || strcmp(argument, "?") == 0) {
        options->text = text_copy("Accelerators supported in evisor:\nkvm\nsoft\ntcg\n");
        return 0;
    }
    struct keyval list;
    int result = read_list(&list, entry, argument, "accel", options_accel_known, err);
    if (result)
        return result;
    const char *names = keyval_get(&list, "accel");
    result = add_accels(options, names ? names : "", err);
    keyval_fini(&list);
    return result;
}

int option_enable_kvm(struct options *options, const struct option_entry *entry,
                      const char *argument, struct error *err)
{
    (void)entry, (void)argument;
    return add_accels(options, "kvm", err);
}

static int set_machine_type(struct options *options, const char *type, struct error *err)
{
    if (!machine_types_has(type))
        return error_set(err, ENOTSUP,
                         "-machine %s: there is no such machine; use q35 (pc is accepted and is "
                         "the same machine)",
                         type);
    set_string(&options->config->machine_type, strncmp(type, "pc-q35-", 7) == 0 ? "q35" : type);
    return 0;
}

static const char machine_no_usb[] = "there is no USB; leave it out";
static const char machine_always[] = "it is always there; leave it out";
static const char machine_absent[] = "it is not there; leave it out";
const struct keyval_known options_machine_known[] = {{"type", NULL, NULL},
                                                     {"accel", NULL, NULL},
                                                     {"kernel", NULL, NULL},
                                                     {"initrd", NULL, NULL},
                                                     {"append", NULL, NULL},
                                                     {"memory-backend", NULL, NULL},
                                                     {"unpack-kernel", NULL, NULL},
                                                     {"usb", "off", machine_no_usb},
                                                     {"vmport", "*", NULL},
                                                     {"hpet", "off", machine_absent},
                                                     {"smm", "off|auto", machine_absent},
                                                     {"graphics", "*", NULL},
                                                     {"mem-merge", "*", NULL},
                                                     {"dump-guest-core", "*", NULL},
                                                     {"acpi", "on|auto", machine_always},
                                                     {"pit", "on|auto", machine_always},
                                                     {"pic", "on|auto", machine_always},
                                                     {"sata", "off", machine_absent},
                                                     {"i8042", "*", NULL},
                                                     {"kernel-irqchip", "on|split", always_split},
                                                     {"kernel_irqchip", "on|split", always_split},
                                                     {"nvdimm", "off", machine_absent},
                                                     {0}};

int option_machine(struct options *options, const struct option_entry *entry, const char *argument,
                   struct error *err)
{
    struct vm_config *config = options->config;
    struct keyval list;
    int result = read_list(&list, entry, argument, "type", options_machine_known, err);
    if (result)
        return result;
    const char *type = keyval_get(&list, "type");
    const char *accel = keyval_get(&list, "accel");
    if (type && (strcmp(type, "help") == 0 || strcmp(type, "?") == 0))
        options->text = text_copy("Supported machines are:\n"
                                  "pc                   the same machine as q35\n"
                                  "q35                  a subset of Intel's Q35 (default)\n");
    else if (type && strcmp(type, "none") == 0)
        result = 0; /* "-machine none -accel help": whoever asks for a list may say so */
    else if (type)
        result = set_machine_type(options, type, err);
    if (!result && accel)
        result = add_accels(options, accel, err);
    bool is_unpacked = !config->guest_unpacks;
    if (!result)
        result = keyval_bool(&list, "unpack-kernel", &is_unpacked, err);
    config->guest_unpacks = !is_unpacked;
    keyval_string(&list, "kernel", &config->kernel);
    keyval_string(&list, "initrd", &config->initrd);
    keyval_string(&list, "append", &config->append);
    keyval_string(&list, "memory-backend", &config->guest.ram_backend);
    keyval_fini(&list);
    return result;
}

const struct keyval_known options_name_known[] = {
    {"guest", NULL, NULL}, {"process", "*", NULL}, {"debug-threads", "*", NULL}, {0}};

int option_name(struct options *options, const struct option_entry *entry, const char *argument,
                struct error *err)
{
    struct keyval list;
    int result = read_list(&list, entry, argument, "guest", options_name_known, err);
    if (result)
        return result;
    keyval_string(&list, "guest", &options->config->name);
    keyval_fini(&list);
    return 0;
}

int option_uuid(struct options *options, const struct option_entry *entry, const char *argument,
                struct error *err)
{
    (void)entry;
    static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    bool fits = strlen(argument) == strlen(shape);
    for (size_t i = 0; fits && shape[i]; i++)
        fits = shape[i] == 'x' ? isxdigit((unsigned char)argument[i]) : argument[i] == shape[i];
    if (!fits)
        return error_set(err, EINVAL, "-uuid %s: a UUID looks like %s", argument,
                         "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
    set_string(&options->config->uuid, argument);
    for (char *at = options->config->uuid; *at; at++)
        *at = (char)tolower((unsigned char)*at);
    return 0;
}

int option_mem_path(struct options *options, const struct option_entry *entry, const char *argument,
                    struct error *err)
{
    (void)entry, (void)err;
    set_string(&options->config->mem_path, argument);
    return 0;
}

int option_pidfile(struct options *options, const struct option_entry *entry, const char *argument,
                   struct error *err)
{
    (void)entry, (void)err;
    set_string(&options->config->pidfile, argument);
    return 0;
}

int option_metrics(struct options *options, const struct option_entry *entry, const char *argument,
                   struct error *err)
{
    (void)entry;
    if ((strncmp(argument, "unix:", 5) != 0 && strncmp(argument, "file:", 5) != 0) || !argument[5])
        return error_set(err, EINVAL, "-metrics %s: write unix:PATH or file:PATH", argument);
    set_string(&options->config->metrics, argument);
    return 0;
}

int option_gdb(struct options *options, const struct option_entry *entry, const char *argument,
               struct error *err)
{
    (void)entry;
    uint64_t port = 0;
    const char *colon = strrchr(argument, ':');
    bool is_tcp = strncmp(argument, "tcp:", 4) == 0 && colon >= argument + 4;
    if (!is_tcp || !keyval_text_to_uint(colon + 1, &port) || port < 1 || port > UINT16_MAX)
        return error_set(err, EINVAL, "-gdb %s: say where to listen as in -gdb tcp::1234",
                         argument);
    set_string(&options->config->gdb, argument);
    return 0;
}

int option_gdb_short(struct options *options, const struct option_entry *entry,
                     const char *argument, struct error *err)
{
    (void)argument;
    return option_gdb(options, entry, "tcp::1234", err);
}

int option_flag(struct options *options, const struct option_entry *entry, const char *argument,
                struct error *err)
{
    (void)argument, (void)err;
    struct vm_config *config = options->config;
    const struct {
        const char *name;
        bool *flag;
    } flags[] = {
        {"S", &config->start_paused},
        {"no-reboot", &config->no_reboot},
        {"no-shutdown", &config->no_shutdown},
        {"daemonize", &config->daemonize},
        {"mem-prealloc", &config->mem_prealloc},
        {"nographic", &options->nographic},
        {"nodefaults", &options->nodefaults},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
        if (strcmp(flags[i].name, entry->name) == 0) {
            *flags[i].flag = true;
            return 0;
        }
    }
    UNREACHABLE("a flag of the table that no field stands for");
}

const struct keyval_known options_action_known[] = {
    {"reboot", NULL, NULL},
    {"shutdown", NULL, NULL},
    {"panic", "shutdown", "evisor ends when the guest panics; leave it out"},
    {"watchdog", "*", NULL},
    {0}};

int option_action(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    struct keyval list;
    int result = read_list(&list, entry, argument, NULL, options_action_known, err);
    if (result)
        return result;
    unsigned reboot = options->config->no_reboot, shutdown = options->config->no_shutdown;
    result = keyval_choice(&list, "reboot", "reset|shutdown", &reboot, err);
    if (!result)
        result = keyval_choice(&list, "shutdown", "poweroff|pause", &shutdown, err);
    options->config->no_reboot = reboot;
    options->config->no_shutdown = shutdown;
    keyval_fini(&list);
    return result;
}

int option_help(struct options *options, const struct option_entry *entry, const char *argument,
                struct error *err)
{
    (void)entry, (void)argument, (void)err;
    options->text = options_help_text();
    return 0;
}

int option_version(struct options *options, const struct option_entry *entry, const char *argument,
                   struct error *err)
{
    (void)entry, (void)argument, (void)err;
    options->text = options_version_text();
    return 0;
}

int option_display(struct options *options, const struct option_entry *entry, const char *argument,
                   struct error *err)
{
    if (keyval_name_index("none|vnc=none", argument) < 0)
        return error_set(err, ENOTSUP, "-%s %s: %s", entry->name, argument, entry->instead);
    options->has_display = true;
    return 0;
}

/* As QEMU since 6.2: what is missing becomes 1, and cores take up what is left. */
static int settle_topology(struct options *options, struct error *err)
{
    struct vm_config *config = options->config;
    uint64_t sockets = options->sockets, cores = options->cores, threads = options->threads;
    uint64_t most = options->max_cpus ? options->max_cpus : options->cpus;
    if (!threads && sockets && cores && most)
        threads = most / (sockets * cores);
    threads = MAX(threads, 1);
    if (!most)
        most = MAX(sockets, 1) * MAX(cores, 1) * threads;
    if (!cores) {
        sockets = MAX(sockets, 1);
        cores = most / (sockets * threads);
    } else if (!sockets) {
        sockets = most / (cores * threads);
    }
    uint64_t cpus = options->cpus ? options->cpus : most;
    if (most > VCPU_MAX)
        return error_set(err, EINVAL, "-smp: %llu CPUs; at most %d", (unsigned long long)most,
                         VCPU_MAX);
    if (cpus > most)
        return error_set(err, EINVAL,
                         "-smp: maxcpus (%llu) must be at least the number of CPUs (%llu)",
                         (unsigned long long)most, (unsigned long long)cpus);
    if (sockets * cores * threads != most)
        return error_set(err, EINVAL,
                         "-smp: sockets (%llu) * cores (%llu) * threads (%llu) must give the "
                         "number of CPUs (%llu)",
                         (unsigned long long)sockets, (unsigned long long)cores,
                         (unsigned long long)threads, (unsigned long long)most);
    if (!is_power_of_2(threads) || (sockets > 1 && !is_power_of_2(cores)))
        return error_set(err, ENOTSUP,
                         "-smp: threads%s must be a power of 2, so that the numbers of the CPUs "
                         "tell their place",
                         sockets > 1 ? ", and cores where there are several sockets," : "");
    config->cpus = (unsigned)cpus;
    config->max_cpus = (unsigned)most;
    config->sockets = (unsigned)sockets;
    config->cores = (unsigned)cores;
    config->threads = (unsigned)threads;
    return 0;
}

int options_finish_machine(struct options *options, struct error *err)
{
    struct vm_config *config = options->config;
    int result = options_finish_ram(config, err);
    if (result)
        return result;
    if (!config->cpu_model)
        set_string(&config->cpu_model, "host");
    if (!config->accel)
        set_string(&config->accel, "kvm:soft");
    if (!config->machine_type)
        set_string(&config->machine_type, "q35");
    return settle_topology(options, err);
}
