/* SPDX-License-Identifier: MIT */
/* live: device_add and its like, and waiting for the guest to follow. */
#include "tools/evctl/live.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/evctl/interrupt.h"
#include "tools/evctl/model.h"
#include "tools/evctl/network.h"
#include "tools/evctl/tell.h"

#define GUEST_PATIENCE_MS 20000
#define LOOK_MS           50
#define MIB               (1u << 20)

const char *live_device(const char *id, char buffer[LIVE_DEVICE_BYTES])
{
    snprintf(buffer, LIVE_DEVICE_BYTES, "dev-%.40s", id);
    return buffer;
}

/* --- disks and NICs --- */

int live_attach_disk(struct qmp *qmp, const json_t *disk, struct error *err)
{
    char device[LIVE_DEVICE_BYTES];
    const char *id = model_text(disk, "id");
    bool is_iso = strcmp(model_text(disk, "kind"), "iso") == 0;
    json_t *node = json_pack("{s:s, s:s, s:b, s:{s:s, s:s}}", "driver", model_text(disk, "format"),
                             "node-name", id, "read-only", is_iso, "file", "driver", "file",
                             "filename", model_text(disk, "file"));
    int result = qmp_execute(qmp, "blockdev-add", node, NULL, err);
    if (result)
        return result;
    result = qmp_execute(qmp, "device_add",
                         json_pack("{s:s, s:s, s:s}", "driver", "virtio-blk-pci", "id",
                                   live_device(id, device), "drive", id),
                         NULL, err);
    if (result)
        unused_result(
            qmp_execute(qmp, "blockdev-del", json_pack("{s:s}", "node-name", id), NULL, NULL));
    return result;
}

/* "user,net=10.1.2.0/24" as an object with the member "type". */
static json_t *netdev_arguments(const json_t *nic, struct error *err)
{
    char *text = network_netdev(nic, err), *rest = text, *part;
    if (!text)
        return NULL;
    json_t *arguments =
        json_pack("{s:s, s:s}", "type", strsep(&rest, ","), "id", model_text(nic, "id"));
    while ((part = strsep(&rest, ","))) {
        char *value = strchr(part, '=');
        if (value)
            *value++ = '\0';
        json_object_set_new(arguments, part, json_string(value ? value : "on"));
    }
    if (network_forwards(nic) && json_array_size(json_object_get(nic, "forwards")))
        json_object_set(arguments, "hostfwd", json_object_get(nic, "forwards"));
    free(text);
    return arguments;
}

int live_attach_nic(struct qmp *qmp, const json_t *nic, struct error *err)
{
    char device[LIVE_DEVICE_BYTES];
    const char *id = model_text(nic, "id");
    json_t *arguments = netdev_arguments(nic, err);
    if (!arguments)
        return -err->code;
    int result = qmp_execute(qmp, "netdev_add", arguments, NULL, err);
    if (result)
        return result;
    result =
        qmp_execute(qmp, "device_add",
                    json_pack("{s:s, s:s, s:s, s:s}", "driver", "virtio-net-pci", "id",
                              live_device(id, device), "netdev", id, "mac", model_text(nic, "mac")),
                    NULL, err);
    if (result)
        unused_result(qmp_execute(qmp, "netdev_del", json_pack("{s:s}", "id", id), NULL, NULL));
    return result;
}

/* Until DEVICE_DELETED names the device. */
static int wait_deleted(struct qmp *qmp, const char *device, const char *what, struct error *err)
{
    struct tell_progress progress;
    uint64_t until_ns = tell_now_ns() + GUEST_PATIENCE_MS * 1000000ull;
    int result = 0;
    bool is_gone = false;
    tell_progress_begin(&progress, "waiting for the guest to let go");
    while (!result && !is_gone && tell_now_ns() < until_ns) {
        json_t *event = NULL;
        result = qmp_wait_event(qmp, tell_now_ns() + LOOK_MS * 1000000ull, &event);
        is_gone = !result && strcmp(model_text(event, "event"), "DEVICE_DELETED") == 0 &&
                  strcmp(model_text(json_object_get(event, "data"), "device"), device) == 0;
        json_decref(event);
        result = result == -ETIMEDOUT ? 0 : result;
        tell_progress_update(&progress, -1);
    }
    tell_progress_end(&progress);
    if (is_gone)
        return 0;
    if (interrupt_is_pending())
        return interrupt_check(err);
    if (result)
        return error_set(err, -result, "the machine '%s' has ended", qmp->name);
    return error_set(err, ETIMEDOUT,
                     "the guest of '%s' has not let go of %s; it must run and must not use it; "
                     "unmount a disk, or take a NIC down, and try again",
                     qmp->name, what);
}

int live_detach(struct qmp *qmp, const char *id, bool is_nic, struct error *err)
{
    char device[LIVE_DEVICE_BYTES];
    struct error ignored = {0};
    int result = qmp_execute(qmp, "device_del", json_pack("{s:s}", "id", live_device(id, device)),
                             NULL, err);
    if (result == -ENODEV) { /* a detach that was interrupted, or one by other means */
        result = 0;
        *err = (struct error){0};
    } else if (!result) {
        result = wait_deleted(qmp, device, id, err);
    }
    if (result)
        return result;
    /* The disks of the start are closed with their devices. */
    if (is_nic) {
        result = qmp_execute(qmp, "netdev_del", json_pack("{s:s}", "id", id), NULL, &ignored);
        *err = result == -ENODEV ? *err : ignored;
        return result == -ENODEV ? 0 : result;
    }
    unused_result(
        qmp_execute(qmp, "blockdev-del", json_pack("{s:s}", "node-name", id), NULL, &ignored));
    return 0;
}

int live_set_link(struct qmp *qmp, const char *nic, bool is_up, struct error *err)
{
    return qmp_execute(qmp, "set_link", json_pack("{s:s, s:b}", "name", nic, "up", is_up), NULL,
                       err);
}

/* --- CPUs --- */

static bool is_plugged_in(const json_t *cpu)
{
    return strncmp(model_text(cpu, "qom-path"), "/machine/peripheral/", 20) == 0;
}

/* "live-cpu3": after its place in the list, which no other has. */
static int plug_cpu(struct qmp *qmp, const json_t *cpu, size_t place, struct error *err)
{
    json_t *arguments = json_deep_copy(json_object_get(cpu, "props"));
    json_object_set(arguments, "driver", json_object_get(cpu, "type"));
    json_object_set_new(arguments, "id", json_sprintf("live-cpu%zu", place));
    return qmp_execute(qmp, "device_add", arguments, NULL, err);
}

static int unplug_cpu(struct qmp *qmp, const json_t *cpu, struct error *err)
{
    const char *id = model_text(cpu, "qom-path") + 20;
    int result = qmp_execute(qmp, "device_del", json_pack("{s:s}", "id", id), NULL, err);
    return result ? result : wait_deleted(qmp, id, "a CPU", err);
}

int live_set_cpus(struct qmp *qmp, uint64_t count, struct error *err)
{
    json_t *cpus = NULL, *cpu;
    uint64_t present = 0;
    size_t i;
    int result = qmp_execute(qmp, "query-hotpluggable-cpus", NULL, &cpus, err);
    json_array_foreach(cpus, i, cpu) present += *model_text(cpu, "qom-path") != 0;
    /* QEMU lists the last one first: what is added comes from the end, what goes from the start. */
    for (i = json_array_size(cpus); !result && i-- > 0 && present < count;) {
        cpu = json_array_get(cpus, i);
        if (*model_text(cpu, "qom-path"))
            continue;
        result = plug_cpu(qmp, cpu, json_array_size(cpus) - 1 - i, err);
        present += !result;
    }
    for (i = 0; !result && i < json_array_size(cpus) && present > count; i++) {
        cpu = json_array_get(cpus, i);
        if (!is_plugged_in(cpu))
            continue;
        result = unplug_cpu(qmp, cpu, err);
        present -= !result;
    }
    json_decref(cpus);
    if (result || present == count)
        return result;
    if (present < count)
        return error_set(err, ENOTSUP,
                         "'%s' was started for at most %llu CPUs; stop it and give it room: evctl "
                         "set --max-cpus",
                         qmp->name, (unsigned long long)present);
    return error_set(err, ENOTSUP,
                     "'%s' was started with %llu CPUs, and only those that came later can go",
                     qmp->name, (unsigned long long)present);
}

/* --- memory --- */

struct sizes {
    uint64_t base, balloon, plugged, requested, device, block;
    bool has_device;
};

static int read_sizes(struct qmp *qmp, struct sizes *sizes, struct error *err)
{
    json_t *summary = NULL, *balloon = NULL, *devices = NULL;
    *sizes = (struct sizes){0};
    int result = qmp_execute(qmp, "query-memory-size-summary", NULL, &summary, err);
    if (!result)
        result = qmp_execute(qmp, "query-balloon", NULL, &balloon, err);
    if (!result)
        result = qmp_execute(qmp, "query-memory-devices", NULL, &devices, err);
    const json_t *device = json_object_get(json_array_get(devices, 0), "data");
    sizes->base = model_number(summary, "base-memory");
    sizes->balloon = model_number(balloon, "actual");
    sizes->has_device = device;
    sizes->plugged = model_number(device, "size");
    sizes->requested = model_number(device, "requested-size");
    sizes->device = model_number(device, "max-size");
    sizes->block = model_number(device, "block-size");
    json_decref(summary);
    json_decref(balloon);
    json_decref(devices);
    return result;
}

/* Until balloon and device have the sizes; what is less than a page or a block does not count. */
static int wait_memory(struct qmp *qmp, uint64_t balloon, uint64_t plugged, struct error *err)
{
    struct tell_progress progress;
    struct sizes sizes;
    uint64_t until_ns = tell_now_ns() + GUEST_PATIENCE_MS * 1000000ull;
    bool is_done = false;
    int result = 0;
    tell_progress_begin(&progress, "waiting for the guest to follow");
    while (!result && !is_done && tell_now_ns() < until_ns) {
        result = read_sizes(qmp, &sizes, err);
        is_done = !result && sizes.balloon / MIB == balloon / MIB && sizes.plugged == plugged;
        if (!result && !is_done) {
            usleep(LOOK_MS * 1000);
            result = interrupt_check(err);
        }
        tell_progress_update(&progress, -1);
    }
    tell_progress_end(&progress);
    if (result || is_done)
        return result;
    return error_set(
        err, ETIMEDOUT,
        "the guest of '%s' has %llu MiB so far; it may be busy, use the memory itself, "
        "or lack the drivers virtio_balloon and virtio_mem",
        qmp->name, (unsigned long long)((sizes.balloon + sizes.plugged) / MIB));
}

int live_set_memory(struct qmp *qmp, uint64_t mib, struct error *err)
{
    struct sizes sizes;
    uint64_t bytes = mib * MIB;
    int result = read_sizes(qmp, &sizes, err);
    if (result)
        return result;
    uint64_t balloon = MIN(bytes, sizes.base), more = bytes - balloon;
    if (more > sizes.device)
        return error_set(err, ENOTSUP,
                         "'%s' was started for at most %llu MiB; stop it and give it room: evctl "
                         "set --max-memory",
                         qmp->name, (unsigned long long)((sizes.base + sizes.device) / MIB));
    if (sizes.block)
        more = (more + sizes.block - 1) / sizes.block * sizes.block;
    if (sizes.has_device && more != sizes.requested)
        result = qmp_execute(qmp, "qom-set",
                             json_pack("{s:s, s:s, s:I}", "path", "/machine/peripheral/dev-memory",
                                       "property", "requested-size", "value", (json_int_t)more),
                             NULL, err);
    if (!result)
        result = qmp_execute(qmp, "balloon", json_pack("{s:I}", "value", (json_int_t)balloon), NULL,
                             err);
    return result ? result : wait_memory(qmp, balloon, more, err);
}

int live_read_now(struct qmp *qmp, uint64_t *cpus, uint64_t *memory_mib, struct error *err)
{
    struct sizes sizes;
    json_t *list = NULL;
    int result = read_sizes(qmp, &sizes, err);
    if (!result)
        result = qmp_execute(qmp, "query-cpus-fast", NULL, &list, err);
    *cpus = json_array_size(list);
    *memory_mib = result ? 0 : (sizes.balloon + sizes.plugged) / MIB;
    json_decref(list);
    return result;
}
