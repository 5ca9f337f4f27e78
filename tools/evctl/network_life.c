/* SPDX-License-Identifier: MIT */
/*
 * network_life: networks of the host's kernel come up again and go: net start, stop and delete.
 *
 * What reverses a network's making is kept with it, and is true as long as the host runs. After the
 * host's restart nothing of it is there any more, and nothing of it may be reversed: a process of
 * that number is another, a setting that is on was turned on by others.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/evctl/evctl.h"
#include "tools/evctl/model.h"
#include "tools/evctl/network_kernel.h"
#include "tools/evctl/network_private.h"
#include "tools/evctl/network_steps.h"
#include "tools/evctl/tell.h"

/* --- down --- */

static bool is_setting_needed(const json_t *other, const char *path)
{
    return strcmp(model_text(other, "mode"), "nat") == 0 && network_is_up(other) &&
           (!strstr(path, "/ipv6/") || *model_text(other, "ipv6"));
}

/* Moves to `other` what it goes on needing. True if there was something. */
static bool hand_to(json_t *other, json_t *undo)
{
    size_t moved = 0;
    for (size_t i = 0; i < json_array_size(undo);) {
        json_t *entry = json_array_get(undo, i);
        const char *path = model_text(entry, "path");
        if (!*path || !is_setting_needed(other, path)) {
            i++;
            continue;
        }
        json_array_insert(json_object_get(other, "undo"), moved++, entry);
        json_array_remove(undo, i);
    }
    return moved > 0;
}

/* Settings of the host that another network needs, too: it takes over the turning back. */
static void hand_over_settings(const char *name, json_t *undo)
{
    json_t *names = network_names(), *other_name;
    size_t i;
    json_array_foreach(names, i, other_name)
    {
        const char *other = json_string_value(other_name);
        json_t *network = strcmp(other, name) != 0 ? network_load(other, NULL) : NULL;
        json_t *kept = json_deep_copy(undo);
        if (network && hand_to(network, undo) && network_replace(other, network, NULL)) {
            json_array_clear(undo);
            json_array_extend(undo, kept);
        }
        json_decref(kept);
        json_decref(network);
    }
    json_decref(names);
}

static int check_root(const char *name, const char *command, struct error *err)
{
    return geteuid() == 0
               ? 0
               : error_set(err, EPERM, "the network '%s' is root's: sudo evctl net %s %s", name,
                           command, name);
}

static void forget_old_start(const char *name, json_t *network)
{
    char *pid_file = network_path(name, "/dnsmasq.pid", NULL);
    json_array_clear(json_object_get(network, "undo"));
    if (pid_file)
        unlink(pid_file);
    free(pid_file);
}

/* Reverses what was done, unless the host has started anew since. */
static int take_down(const char *name, json_t *network, struct error *err)
{
    const char *bridge = model_text(network, "bridge"), *boot = model_text(network, "boot");
    json_t *undo = json_object_get(network, "undo");
    char boot_now[64];
    steps_boot_id(boot_now);
    if (*boot && strcmp(boot, boot_now) != 0) {
        forget_old_start(name, network);
        return 0;
    }
    steps_shield();
    hand_over_settings(name, undo);
    steps_undo(undo);
    if (steps_interface_exists(bridge))
        return error_set(err, EBUSY,
                         "the bridge %s is still there; see what holds it: ip link show master %s",
                         bridge, bridge);
    return 0;
}

/* --- up --- */

int network_bring_up(const char *name, const struct network_kernel_options *options,
                     json_t *network, struct error *err)
{
    const char *mode = model_text(network, "mode");
    char *folder = network_path(name, "", err), boot[64];
    int result;
    if (!folder)
        return -err->code;
    steps_shield();
    mkdir(folder, 0700);
    if (options->uplink)
        result = network_uplink_up(name, options->uplink, options->bridge, options->moves_ip,
                                   network, err);
    else
        result = network_kernel_up(name, mode, folder, options, network, err);
    free(folder);
    if (result)
        return result;
    steps_boot_id(boot);
    json_object_set_new(network, "boot", json_string(boot));
    result = network_replace(name, network, err);
    if (result)
        steps_undo(json_object_get(network, "undo"));
    return result;
}

static const char *text_or_null(const json_t *network, const char *key)
{
    return json_string_value(json_object_get(network, key));
}

static int bring_up_again(const char *name, json_t *network, struct error *err)
{
    json_t *before = json_deep_copy(network);
    const struct network_kernel_options options = {
        .subnet = text_or_null(before, "subnet"),
        .ipv6 = text_or_null(before, "ipv6"),
        .bridge = text_or_null(before, "bridge"),
        .uplink = text_or_null(before, "uplink"),
        .moves_ip = json_is_true(json_object_get(before, "move-ip")),
        .no_dhcp = json_is_false(json_object_get(before, "dhcp")),
        .forwards = json_object_get(before, "forwards"),
        .leases = json_object_get(before, "leases"),
        .pins = json_object_get(before, "pins"),
    };
    /* If only the bridge was taken away, the rest of it still lies about. */
    int result = take_down(name, network, err);
    if (!result)
        result = network_bring_up(name, &options, network, err);
    if (result)
        error_prefix(err, "network '%s'", name);
    json_decref(before);
    return result;
}

/* *is_new: it was not there. */
static int start(const char *name, json_t *network, bool *is_new, struct error *err)
{
    int result = check_root(name, "start", err);
    *is_new = !network_is_up(network);
    if (result)
        return result;
    if (*is_new)
        return bring_up_again(name, network, err);
    if (json_object_get(network, "uplink"))
        return 0;
    char *folder = network_path(name, "", err);
    result = folder ? network_kernel_mend(name, folder, network, err) : -err->code;
    free(folder);
    return result;
}

int network_ensure(const json_t *nic, struct error *err)
{
    const char *name = model_text(nic, "network");
    bool is_new = false;
    json_t *network =
        strcmp(model_text(nic, "mode"), "network") == 0 ? network_load(name, NULL) : NULL;
    int result = 0;
    if (network_is_kernel(network) && !network_is_up(network))
        result = start(name, network, &is_new, err);
    if (!result && is_new)
        tell_note("the network '%s' was not there, and is made again", name);
    json_decref(network);
    return result;
}

/* --- the commands --- */

/* Calls `act` for the network named, or with --all for each that root made; the first error stays,
 * the others go on. */
static int for_networks(struct evctl_call *call, const char *word,
                        int (*act)(const char *name, json_t *network, struct error *err),
                        struct error *err)
{
    bool is_all = call_has(call, "all");
    json_t *names = is_all ? network_names() : json_array(), *name, *done = json_array();
    size_t i;
    int result = 0;
    if (is_all == (call->argument_count > 0))
        result = error_set(err, EINVAL, "name a network, or all of them: evctl net %s --all", word);
    else if (!is_all)
        json_array_append_new(names, json_string(call->arguments[0]));
    json_array_foreach(names, i, name)
    {
        struct error own = {0};
        json_t *network = result && !is_all ? NULL : network_load(json_string_value(name), &own);
        int of_one = network ? 0 : -own.code;
        if (network && !network_is_kernel(network) && !is_all)
            of_one = error_set(&own, EINVAL,
                               "the network '%s' lives in its machines, or was there before: there "
                               "is nothing to %s",
                               json_string_value(name), word);
        else if (network_is_kernel(network))
            of_one = act(json_string_value(name), network, &own);
        if (network_is_kernel(network) && !of_one)
            json_array_append(done, name);
        if (of_one && !result)
            result = error_set(err, own.code, "%s", own.text);
        else if (of_one)
            tell_note("%s", own.text);
        json_decref(network);
    }
    json_decref(names);
    if (!result)
        tell_json(json_pack("{s:O}", "networks", done));
    json_decref(done);
    return result;
}

static int start_one(const char *name, json_t *network, struct error *err)
{
    bool is_new;
    int result = start(name, network, &is_new, err);
    if (!result)
        tell_note("the network '%s' is up%s, bridge %s", name, is_new ? "" : " already",
                  model_text(network, "bridge"));
    return result;
}

int cmd_net_start(struct evctl_call *call, struct error *err)
{
    return for_networks(call, "start", start_one, err);
}

/* A port of the bridge that is not the host's own, "" if there is none. */
static void find_port(const json_t *network, char port[64])
{
    char path[128];
    snprintf(path, sizeof(path), "/sys/class/net/%.64s/brif", model_text(network, "bridge"));
    DIR *folder = opendir(path);
    *port = '\0';
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (*entry->d_name != '.' && strcmp(entry->d_name, model_text(network, "uplink")) != 0)
            snprintf(port, 64, "%.63s", entry->d_name);
    if (folder)
        closedir(folder);
}

static int stop_one(const char *name, json_t *network, struct error *err)
{
    char port[64];
    int result = check_root(name, "stop", err);
    find_port(network, port);
    if (!result && *port)
        result = error_set(err, EBUSY,
                           "the network '%s' is in use, by interface %s: stop its machines first",
                           name, port);
    if (!result)
        result = take_down(name, network, err);
    if (!result)
        result = network_replace(name, network, err);
    if (!result)
        tell_note("the network '%s' is down; it comes back with: evctl net start %s", name, name);
    return result;
}

int cmd_net_stop(struct evctl_call *call, struct error *err)
{
    return for_networks(call, "stop", stop_one, err);
}

int cmd_net_delete(struct evctl_call *call, struct error *err)
{
    const char *name = call->arguments[0];
    json_t *network = network_load(name, err);
    if (!network && err->code == ENODEV)
        return -ENODEV;
    json_t *users = network_users(name);
    int result = 0;
    if (json_array_size(users))
        result = error_set(err, EBUSY,
                           "the network '%s' is used by the machine '%s'; take its NIC off first: "
                           "evctl detach",
                           name, json_string_value(json_array_get(users, 0)));
    json_decref(users);
    if (!result && network_is_kernel(network)) {
        result = check_root(name, "delete", err);
        if (!result)
            result = take_down(name, network, err);
    }
    json_decref(network);
    if (!result)
        network_forget(name);
    if (!result) {
        tell_note("the network '%s' is deleted", name);
        tell_json(json_pack("{s:s, s:b}", "name", name, "deleted", 1));
    }
    return result;
}
