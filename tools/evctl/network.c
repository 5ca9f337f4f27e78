/* SPDX-License-Identifier: MIT */
/* network: net create, list and delete; what a NIC's -netdev is. Nothing here needs root. */
#include "tools/evctl/network.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/evctl/evctl.h"
#include "tools/evctl/model.h"
#include "tools/evctl/tell.h"

static const char no_root_modes[] =
    "evctl makes networks that need no root: user and internal; for bridged, make the bridge "
    "yourself (ip link add br0 type bridge; /etc/qemu/bridge.conf: allow br0) and name it with "
    "--mode bridged --bridge br0";

/* "ROOT/.networks" and what follows; the caller frees it. */
static char *network_path(const char *name, const char *suffix, struct error *err)
{
    char *root = store_root(err), *path = NULL;
    if (!root)
        return NULL;
    CHECK(asprintf(&path, "%s/.networks%s%s%s", root, *name ? "/" : "", name, suffix) > 0);
    free(root);
    return path;
}

static int check_name(const char *name, struct error *err)
{
    static const char rule[] = "a network's name has 1 to 32 of a-z, A-Z, 0-9, - and _";
    if (strcmp(name, "user") == 0 || strcmp(name, "nat") == 0 || strcmp(name, "none") == 0)
        return error_set(err, EINVAL, "'%s' is the name of a mode; choose another", name);
    size_t good = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
    return good && !name[good] && good <= 32 && *name != '-'
               ? 0
               : error_set(err, EINVAL, "'%s': %s", name, rule);
}

json_t *network_load(const char *name, struct error *err)
{
    json_error_t where;
    char *path = check_name(name, NULL) ? NULL : network_path(name, ".json", err);
    json_t *network = path ? json_load_file(path, 0, &where) : NULL;
    if (!network && path && access(path, F_OK) == 0)
        error_set(err, EBADMSG, "the network '%s' cannot be read: %s: %s", name, path, where.text);
    else if (!network)
        error_set(err, ENODEV,
                  "there is no network '%s'; use user, none, bridge=NAME, tap=NAME, or make one: "
                  "evctl net create %s",
                  name, name);
    free(path);
    return network;
}

static char *netdev_of_network(const char *name, const json_t *network, struct error *err)
{
    const char *mode = model_text(network, "mode");
    const char *subnet = model_text(network, "subnet");
    char *text = NULL;
    if (strcmp(mode, "internal") == 0)
        /* Relative to the machine's folder: a socket's path must be short. */
        CHECK(asprintf(&text, "internal,folder=../.networks/%s", name) > 0);
    else if (strcmp(mode, "bridged") == 0)
        CHECK(asprintf(&text, "bridge,br=%s", model_text(network, "bridge")) > 0);
    else if (strcmp(mode, "user") == 0)
        CHECK(asprintf(&text, "user%s%s%s", *subnet ? ",net=" : "", subnet,
                       json_is_true(json_object_get(network, "restrict")) ? ",restrict=on" : "") >
              0);
    else
        error_set(err, ENOTSUP, "the network '%s' has the mode '%s': %s", name, mode,
                  no_root_modes);
    return text;
}

char *network_netdev(const json_t *nic, struct error *err)
{
    const char *mode = model_text(nic, "mode");
    char *text = NULL;
    if (strcmp(mode, "user") == 0)
        return strdup("user");
    if (strcmp(mode, "bridged") == 0)
        CHECK(asprintf(&text, "bridge,br=%s", model_text(nic, "bridge")) > 0);
    else if (strcmp(mode, "tap") == 0)
        CHECK(asprintf(&text, "tap,ifname=%s,script=no,downscript=no", model_text(nic, "tap")) > 0);
    if (text)
        return text;
    if (strcmp(mode, "network") != 0) {
        error_set(err, EINVAL, "the NIC '%s' has the unknown mode '%s'", model_text(nic, "id"),
                  mode);
        return NULL;
    }
    const char *name = model_text(nic, "network");
    json_t *network = network_load(name, err);
    if (network)
        text = netdev_of_network(name, network, err);
    json_decref(network);
    return text;
}

/* --- net create --- */

static bool is_subnet(const char *text)
{
    char address[32] = "";
    unsigned bits = 0;
    int used = 0;
    struct in_addr parsed;
    return sscanf(text, "%31[0-9.]/%u%n", address, &bits, &used) == 2 && !text[used] &&
           inet_pton(AF_INET, address, &parsed) == 1 && bits >= 8 && bits <= 28;
}

static int describe(const struct evctl_call *call, json_t *network, struct error *err)
{
    const char *mode = call_get(call, "mode"), *subnet = call_get(call, "subnet");
    const char *bridge = call_get(call, "bridge");
    mode = mode ? mode : "internal";
    mode = strcmp(mode, "nat") == 0 ? "user" : mode;
    bool is_user = strcmp(mode, "user") == 0, is_bridged = strcmp(mode, "bridged") == 0;
    json_object_set_new(network, "mode", json_string(mode));
    if (strcmp(mode, "hostonly") == 0)
        return error_set(err, ENOTSUP, "--mode hostonly: %s", no_root_modes);
    if (!is_user && !is_bridged && strcmp(mode, "internal") != 0)
        return error_set(err, EINVAL, "--mode %s is not known; use internal, user or bridged",
                         mode);
    if (is_bridged && !bridge)
        return error_set(err, EINVAL, "--mode bridged wants the bridge's name: --bridge br0");
    if (!is_user && (subnet || call_has(call, "restrict")))
        return error_set(err, EINVAL, "--subnet and --restrict go with --mode user");
    if (subnet && !is_subnet(subnet))
        return error_set(err, EINVAL, "--subnet %s: write an IPv4 network such as 10.1.2.0/24",
                         subnet);
    if (subnet)
        json_object_set_new(network, "subnet", json_string(subnet));
    if (bridge)
        json_object_set_new(network, "bridge", json_string(bridge));
    if (call_has(call, "restrict"))
        json_object_set_new(network, "restrict", json_true());
    return 0;
}

static int save(const char *name, const json_t *network, struct error *err)
{
    char *folder = network_path("", "", err),
         *path = folder ? network_path(name, ".json", err) : NULL;
    if (!path) {
        free(folder);
        return -err->code;
    }
    mkdir(folder, 0700);
    char *text = json_dumps(network, JSON_INDENT(2));
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), result = 0;
    errno = fd < 0 ? errno : 0;
    if (fd < 0 && errno == EEXIST)
        result = error_set(err, EEXIST, "there is a network '%s' already", name);
    else if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        result = error_set_errno(err, errno ? errno : ENOSPC, "cannot write %s", path);
    if (fd >= 0)
        close(fd);
    if (result && fd >= 0)
        unlink(path);
    free(text);
    free(folder);
    free(path);
    return result;
}

int cmd_net_create(struct evctl_call *call, struct error *err)
{
    const char *name = call->arguments[0];
    json_t *network = json_object();
    int result = check_name(name, err);
    if (!result)
        result = describe(call, network, err);
    if (!result)
        result = save(name, network, err);
    if (!result) {
        tell_note("the network '%s' is made; a machine joins it with --net %s", name, name);
        json_object_set_new(network, "name", json_string(name));
        tell_json(json_incref(network));
    }
    json_decref(network);
    return result;
}

/* --- net list, net delete --- */

/* The machines that have a NIC on it. */
static json_t *users_of(const char *name)
{
    json_t *names = store_names(NULL), *users = json_array(), *machine_name, *nic;
    size_t i, k;
    json_array_foreach(names, i, machine_name)
    {
        struct machine machine;
        if (machine_open(json_string_value(machine_name), 0, &machine, NULL))
            continue;
        bool is_user = false;
        json_array_foreach(json_object_get(machine.config, "nics"), k, nic) is_user |=
            strcmp(model_text(nic, "network"), name) == 0;
        if (is_user)
            json_array_append(users, machine_name);
        machine_close(&machine);
    }
    json_decref(names);
    return users;
}

static json_t *row_of(const char *name)
{
    json_t *network = network_load(name, NULL), *users = users_of(name);
    json_t *row = network ? network : json_pack("{s:s}", "mode", "broken");
    json_object_set_new(row, "name", json_string(name));
    json_object_set_new(row, "machine-count", json_integer((json_int_t)json_array_size(users)));
    json_object_set_new(row, "machines", users);
    return row;
}

int cmd_net_list(struct evctl_call *call, struct error *err)
{
    (void)call;
    json_t *rows = json_array();
    char *path = network_path("", "", err);
    DIR *folder = path ? opendir(path) : NULL;
    free(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".json") != 0)
            continue;
        *dot = '\0';
        json_array_append_new(rows, row_of(entry->d_name));
    }
    if (folder)
        closedir(folder);
    if (json_array_size(rows))
        tell_table(rows, "name:NAME mode:MODE subnet:SUBNET bridge:BRIDGE machine-count:MACHINES");
    else
        tell_note("no networks by name; 'evctl net create' makes one");
    tell_json(rows);
    return 0;
}

/* The sockets of members that were killed lie there still. */
static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        unlinkat(dirfd(folder), entry->d_name, 0);
    if (folder)
        closedir(folder);
    rmdir(path);
}

int cmd_net_delete(struct evctl_call *call, struct error *err)
{
    const char *name = call->arguments[0];
    json_t *network = network_load(name, err);
    if (!network && err->code == ENODEV)
        return -ENODEV;
    json_decref(network);
    json_t *users = users_of(name);
    int result = 0;
    if (json_array_size(users))
        result = error_set(err, EBUSY,
                           "the network '%s' is used by the machine '%s'; take its NIC off first: "
                           "evctl detach",
                           name, json_string_value(json_array_get(users, 0)));
    json_decref(users);
    char *path = result ? NULL : network_path(name, ".json", err);
    char *folder = path ? network_path(name, "", err) : NULL;
    if (path && unlink(path) < 0)
        result = error_set_errno(err, errno, "cannot remove %s", path);
    else if (folder)
        remove_folder(folder);
    free(path);
    free(folder);
    if (!result) {
        tell_note("the network '%s' is deleted", name);
        tell_json(json_pack("{s:s, s:b}", "name", name, "deleted", 1));
    }
    return result;
}
