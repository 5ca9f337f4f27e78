/* SPDX-License-Identifier: MIT */
/*
 * portable_vbox: VirtualBox's .vbox. Snapshots stand inside the machine and have hardware of their
 * own; what counts is what stands directly in Machine.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/evctl/model.h"
#include "tools/evctl/portable_plan.h"

static struct xml_node *child(const struct xml_node *node, const char *name)
{
    struct xml_node *found = node ? node->first : NULL;
    while (found && strcmp(found->name, name) != 0)
        found = found->next;
    return found;
}

static void plan_forwards(json_t *plan, struct xml_node *nat)
{
    struct xml_node *rule = NULL;
    while ((rule = xml_find(nat, rule, "Forwarding"))) {
        char text[160];
        const char *host = xml_attribute(rule, "hostip"), *guest = xml_attribute(rule, "guestip");
        snprintf(text, sizeof(text), "%s:%.40s:%.6s-%.40s:%.6s",
                 strcmp(xml_attribute(rule, "proto"), "0") == 0 ? "udp" : "tcp", host,
                 xml_attribute(rule, "hostport"), guest, xml_attribute(rule, "guestport"));
        char *read = model_read_forward(text, NULL);
        if (read)
            json_array_append_new(json_object_get(plan, "forwards"), json_string(read));
        free(read);
    }
}

/* False where the adapter is attached to nothing. */
static bool plan_attachment(json_t *plan, const struct xml_node *adapter)
{
    struct xml_node *node;
    /* What is not in use stands inside DisabledModes. */
    for (node = adapter->first; node; node = node->next) {
        if (strcmp(node->name, "BridgedInterface") == 0)
            plan_nic(plan, "bridged", xml_attribute(node, "name"));
        else if (strcmp(node->name, "InternalNetwork") == 0)
            plan_nic(plan, "internal", xml_attribute(node, "name"));
        else if (strcmp(node->name, "HostOnlyInterface") == 0 ||
                 strcmp(node->name, "HostOnlyNetwork") == 0)
            plan_nic(plan, "hostonly", xml_attribute(node, "name"));
        else if (strcmp(node->name, "NAT") == 0 || strcmp(node->name, "NATNetwork") == 0)
            plan_nic(plan, "user", "");
        else
            continue;
        plan_forwards(plan, node);
        return true;
    }
    plan_nic(plan, "user", "");
    return false;
}

static void plan_adapter(json_t *plan, const struct xml_node *adapter)
{
    if (strcmp(xml_attribute(adapter, "enabled"), "true") != 0)
        return;
    bool is_attached = plan_attachment(plan, adapter);
    if (!is_attached || strcmp(xml_attribute(adapter, "cable"), "false") == 0)
        plan_unplug(plan);
}

/* What VirtualBox encrypts it keeps the keys of with the disk's properties. */
static bool is_encrypted(const struct xml_node *medium)
{
    const struct xml_node *node = medium ? medium->first : NULL;
    while (node && (strcmp(node->name, "Property") != 0 ||
                    strncmp(xml_attribute(node, "name"), "CRYPT/", 6) != 0))
        node = node->next;
    return node;
}

/* The image that a snapshot left for what came later holds but the difference. */
static bool plan_device(json_t *plan, struct xml_node *root, struct xml_node *device,
                        const char *path, struct error *err)
{
    const char *type = xml_attribute(device, "type");
    const char *uuid = xml_attribute(child(device, "Image"), "uuid");
    bool is_dvd = strcmp(type, "DVD") == 0;
    if (!*uuid || (!is_dvd && strcmp(type, "HardDisk") != 0))
        return true; /* an empty drive, or a floppy */
    struct xml_node *medium = plan_find_with(root, is_dvd ? "Image" : "HardDisk", "uuid", uuid);
    if (medium && medium->parent && strcmp(medium->parent->name, "HardDisk") == 0) {
        error_set(
            err, ENOTSUP,
            "%s: the disk %s is the difference to a snapshot; make a whole image of it first: "
            "VBoxManage clonemedium",
            path, xml_attribute(medium, "location"));
        return false;
    }
    if (is_encrypted(medium)) {
        error_set(err, ENOTSUP,
                  "%s: the disk %s is encrypted; take that away first: VBoxManage encryptmedium",
                  path, xml_attribute(medium, "location"));
        return false;
    }
    if (medium)
        plan_disk(plan, xml_attribute(medium, "location"), is_dvd ? "iso" : "disk");
    return true;
}

bool portable_read_vbox(json_t *plan, struct xml_node *root, const char *path, struct error *err)
{
    struct xml_node *machine = xml_find(root, NULL, "Machine"), *node = NULL;
    if (!machine) {
        error_set(err, EBADMSG, "%s: it describes no Machine", path);
        return false;
    }
    struct xml_node *hardware = child(machine, "Hardware");
    struct xml_node *storage = child(hardware, "StorageControllers");
    storage = storage ? storage : child(machine, "StorageControllers");
    json_object_set_new(plan, "name", json_string(xml_attribute(machine, "name")));
    plan_os(plan, xml_attribute(machine, "OSType"));
    plan_number(plan, "cpus", xml_attribute(child(hardware, "CPU"), "count"), 1);
    plan_number(plan, "memory-mib", xml_attribute(child(hardware, "Memory"), "RAMSize"), 1);
    plan_firmware(xml_attribute(child(hardware, "Firmware"), "type"));
    while (storage && (node = xml_find(storage, node, "AttachedDevice")))
        if (!plan_device(plan, root, node, path, err))
            return false;
    node = NULL;
    while (hardware && (node = xml_find(hardware, node, "Adapter")))
        plan_adapter(plan, node);
    return true;
}
