/* SPDX-License-Identifier: MIT */
/* options_object: -object and object-add: sources of random numbers, memory, I/O threads, limits.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vmm/options/keyval_json.h"
#include "vmm/options/options_private.h"

#define RNG_TYPES    "rng-builtin|rng-random"
#define MEMORY_TYPES "memory-backend-ram|memory-backend-memfd|memory-backend-file"

static const struct keyval_known rng_known[] = {
    {"qom-type", NULL, NULL},
    {"id", NULL, NULL},
    {"filename", "/dev/urandom|/dev/random|/dev/hwrng",
     "random numbers come from the host's getrandom; leave it out"},
    {0}};

static const char no_nodes[] = "the host places the memory; leave it out, or start by numactl";

static const struct keyval_known memory_known[] = {
    {"qom-type", NULL, NULL},
    {"id", NULL, NULL},
    {"size", NULL, NULL},
    {"mem-path", NULL, NULL},
    {"share", NULL, NULL},
    {"prealloc", NULL, NULL},
    {"prealloc-threads", "*", NULL},
    {"merge", "*", NULL},
    {"dump", "*", NULL},
    {"reserve", "*", NULL},
    {"align", "*", NULL},
    {"seal", "*", NULL},
    {"x-use-canonical-path-for-ramblock-id", "*", NULL},
    {"policy", "default", no_nodes},
    {"host-nodes", "", no_nodes},
    {"readonly", "off", "a guest writes to its memory; leave it out"},
    {"pmem", "off", "there is no persistent memory; leave it out"},
    {"discard-data", "off", "the file is kept; name a folder, whose file ends with the machine"},
    {"hugetlb", "off", "use memory-backend-file with mem-path= a mounted hugetlbfs"},
    {0}};

static const char no_polling[] = "the thread polls as it sees fit; leave it out";
static const char no_batches[] = "what a turn of the loop brings is one batch; leave it out";
static const char no_pool[] = "aio=threads has one pool for all of evisor; leave it out";

/*
 * What a thread does in any case; but poll-max-ns=0 forbids a polling that takes CPUs from others,
 * and base/spinner.h polls only where it takes none.
 */
static const struct keyval_known io_thread_known[] = {{"qom-type", NULL, NULL},
                                                      {"id", NULL, NULL},
                                                      {"poll-max-ns", "0", no_polling},
                                                      {"poll-grow", "0", no_polling},
                                                      {"poll-shrink", "0", no_polling},
                                                      {"aio-max-batch", "0", no_batches},
                                                      {"thread-pool-min", "0", no_pool},
                                                      {"thread-pool-max", "64", no_pool},
                                                      {0}};

static int find_id(char *const ids[], unsigned count, const char *id)
{
    for (unsigned i = 0; i < count; i++)
        if (ids[i] && strcmp(ids[i], id) == 0)
            return (int)i;
    return -1;
}

int options_find_rng_object(const struct config_guest *guest, const char *id)
{
    return find_id(guest->rng_objects, CONFIG_RNG_OBJECT_MAX, id);
}

int options_find_io_thread(const struct config_guest *guest, const char *id)
{
    return find_id(guest->io_threads, CONFIG_IO_THREAD_MAX, id);
}

int options_find_throttle_group(const struct config_guest *guest, const char *id)
{
    for (int i = 0; i < CONFIG_THROTTLE_MAX; i++)
        if (guest->throttle_groups[i].id && strcmp(guest->throttle_groups[i].id, id) == 0)
            return i;
    return -1;
}

bool options_read_io_thread(const struct config_guest *guest, const struct keyval *device,
                            unsigned *number)
{
    static const char folder[] = "/objects/";
    const char *id = keyval_get(device, "iothread");
    if (id && strncmp(id, folder, strlen(folder)) == 0)
        id += strlen(folder);
    *number = id && *id ? (unsigned)(options_find_io_thread(guest, id) + 1) : 0;
    return *number || !id || !*id;
}

int options_find_memory_backend(const struct config_guest *guest, const char *id)
{
    for (int i = 0; i < CONFIG_MEM_MAX; i++)
        if (guest->memory_backends[i].id && strcmp(guest->memory_backends[i].id, id) == 0)
            return i;
    return -1;
}

/* An object of which the id is all that is kept. */
static int add_id(char *ids[], unsigned count, struct keyval *list,
                  const struct keyval_known *known, struct error *err)
{
    unsigned i = 0;
    int result = keyval_check(list, known, err);
    if (result)
        return result;
    while (i < count && ids[i])
        i++;
    if (i == count)
        return error_set(err, ENOSPC, "%s: there are %u such objects: remove one first",
                         list->option, count);
    ids[i] = text_copy(keyval_get(list, "id"));
    return 0;
}

/* A folder's file is nobody else's; what is in another is changed, which has to be wanted. */
static int check_file(const struct keyval *list, const char *path, bool is_shared,
                      struct error *err)
{
    struct stat info;
    if (!path)
        return error_set(err, EINVAL, "%s: mem-path property not set", list->option);
    if (!is_shared && (stat(path, &info) || !S_ISDIR(info.st_mode)))
        return error_set(err, EINVAL,
                         "%s: the guest's memory is written to the file mem-path=%s: add share=on, "
                         "or name a folder",
                         list->option, path);
    return 0;
}

static int read_memory(struct config_memory_backend *backend, const struct keyval *list,
                       struct error *err)
{
    const char *path = keyval_get(list, "mem-path");
    bool is_file = strcmp(keyval_get(list, "qom-type"), "memory-backend-file") == 0;
    backend->is_memfd = strcmp(keyval_get(list, "qom-type"), "memory-backend-memfd") == 0;
    backend->is_shared = backend->is_memfd;
    int result = keyval_bool(list, "share", &backend->is_shared, err);
    if (!result)
        result = keyval_bool(list, "prealloc", &backend->prealloc, err);
    if (!result)
        result = keyval_size(list, "size", 1, &backend->size_bytes, err);
    if (!result && is_file)
        result = check_file(list, path, backend->is_shared, err);
    else if (!result && path)
        result =
            error_set(err, EINVAL, "%s: mem-path= belongs to memory-backend-file", list->option);
    if (!result && !backend->size_bytes)
        result = error_set(err, EINVAL, "%s: can't create backend with size 0; add size=SIZE",
                           list->option);
    return result;
}

static int add_memory(struct config_guest *guest, struct keyval *list, const char *id,
                      struct error *err)
{
    struct config_memory_backend *backend = guest->memory_backends, read = {0};
    int result = keyval_check(list, memory_known, err);
    while (backend < guest->memory_backends + CONFIG_MEM_MAX && backend->id)
        backend++;
    if (!result && backend == guest->memory_backends + CONFIG_MEM_MAX)
        result =
            error_set(err, E2BIG, "%s: more than %d memory backends", list->option, CONFIG_MEM_MAX);
    if (!result)
        result = read_memory(&read, list, err);
    if (result)
        return result;
    *backend = read;
    backend->id = text_copy(id);
    backend->path = text_copy(keyval_get(list, "mem-path"));
    return 0;
}

int options_object_load(struct config_guest *guest, struct keyval *list, struct error *err)
{
    const char *type = keyval_get(list, "qom-type"), *id = keyval_get(list, "id");
    if (!type)
        return error_set(err, EINVAL, "Parameter 'qom-type' is missing");
    bool is_rng = keyval_name_index(RNG_TYPES, type) >= 0, is_thread = !strcmp(type, "iothread");
    bool is_group = !strcmp(type, "throttle-group");
    if (!is_rng && !is_thread && !is_group && keyval_name_index(MEMORY_TYPES, type) < 0)
        return error_set(err, ENOTSUP,
                         "Parameter 'qom-type' does not accept value '%s': there are rng-random, "
                         "rng-builtin, iothread, throttle-group, memory-backend-ram and "
                         "memory-backend-file",
                         type);
    if (!id || !*id)
        return error_set(err, EINVAL, "Parameter 'id' is missing");
    if (!keyval_is_id(id))
        return error_set(err, EINVAL, "Parameter 'id' expects an identifier");
    if (options_find_rng_object(guest, id) >= 0 || options_find_memory_backend(guest, id) >= 0 ||
        options_find_io_thread(guest, id) >= 0 || options_find_throttle_group(guest, id) >= 0)
        return error_set(err, EEXIST,
                         "attempt to add duplicate property '%s' to object (type 'container')", id);
    if (is_group)
        return options_throttle_group_load(guest, list, err);
    if (is_thread)
        return add_id(guest->io_threads, CONFIG_IO_THREAD_MAX, list, io_thread_known, err);
    return is_rng ? add_id(guest->rng_objects, CONFIG_RNG_OBJECT_MAX, list, rng_known, err)
                  : add_memory(guest, list, id, err);
}

int option_object(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    struct keyval list;
    (void)entry;
    int result = keyval_parse_either(&list, "-object", argument, "qom-type", err);
    if (result)
        return result;
    result = options_object_load(&options->config->guest, &list, err);
    if (result && strncmp(err->text, "-object", 7) != 0)
        error_prefix(err, "-object %s", argument);
    keyval_fini(&list);
    return result;
}
