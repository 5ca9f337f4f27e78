/* SPDX-License-Identifier: MIT */
/*
 * network: net create and list; what a NIC's -netdev is. What root makes in the host's kernel is in
 * network_kernel.c and network_uplink.c; how it goes and comes back in network_life.c.
 */
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
#include "tools/evctl/network_kernel.h"
#include "tools/evctl/network_private.h"
#include "tools/evctl/tell.h"

static const char modes[] = "internal, nat, hostonly, bridged and user";

char *network_path(const char *name, const char *suffix, struct error *err)
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
    if (strcmp(name, "user") == 0 || strcmp(name, "none") == 0)
        return error_set(err, EINVAL, "'%s' is the name of a mode; choose another", name);
    size_t good = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
    return good && !name[good] && good <= 32 && *name != '-'
               ? 0
               : error_set(err, EINVAL, "'%s': %s", name, rule);
}

/* `known`, which is freed: what may have been meant. */
static void set_not_found(const char *name, json_t *known, const char *advice, struct error *err)
{
    const char *nearest = store_nearest(known, name);
    if (nearest)
        error_set(err, ENODEV, "there is no network '%s'; did you mean '%s'?", name, nearest);
    else
        error_set(err, ENODEV, "there is no network '%s'; %s", name, advice);
    json_decref(known);
}

json_t *network_load(const char *name, struct error *err)
{
    json_error_t where;
    char *path = check_name(name, NULL) ? NULL : network_path(name, ".json", err);
    json_t *network = path ? json_load_file(path, 0, &where) : NULL;
    if (!network && path && (access(path, F_OK) == 0 || errno != ENOENT))
        error_set(err, EBADMSG, "the network '%s' cannot be read: %s: %s", name, path, where.text);
    else if (!network)
        set_not_found(name, network_names(), "'evctl net list' shows those that are", err);
    free(path);
    return network;
}

json_t *network_load_for_nic(const char *name, struct error *err)
{
    struct error why = {0};
    json_t *network = network_load(name, &why);
    char advice[160];
    if (network)
        return network;
    if (why.code != ENODEV) {
        error_set(err, why.code, "%s", why.text);
        return NULL;
    }
    json_t *known = json_array();
    network_add_names(known);
    snprintf(advice, sizeof(advice),
             "use user, none, bridge=NAME, tap=NAME, or make one: evctl net create %.32s", name);
    set_not_found(name, known, advice, err);
    return NULL;
}

static char *netdev_of_network(const char *name, const json_t *network, struct error *err)
{
    const char *mode = model_text(network, "mode"), *subnet = model_text(network, "subnet");
    const char *bridge = model_text(network, "bridge"), *net = *subnet ? ",net=" : "";
    bool is_shared = strcmp(mode, "nat") == 0 || strcmp(mode, "hostonly") == 0;
    char *text = NULL;
    if (*bridge)
        CHECK(asprintf(&text, "bridge,br=%s", bridge) > 0);
    else if (strcmp(mode, "internal") == 0 || is_shared)
        /* Relative to the machine's folder: a socket's path must be short. */
        CHECK(asprintf(&text, "%s,folder=../.networks/%s%s%s", mode, name, net, subnet) > 0);
    else if (strcmp(mode, "user") == 0)
        CHECK(asprintf(&text, "user%s%s%s", net, subnet,
                       json_is_true(json_object_get(network, "restrict")) ? ",restrict=on" : "") >
              0);
    else
        error_set(err, ENOTSUP, "the network '%s' has the mode '%s'; there are %s", name, mode,
                  modes);
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
    json_t *network = network_load_for_nic(name, err);
    if (network)
        text = netdev_of_network(name, network, err);
    json_decref(network);
    return text;
}

bool network_forwards(const json_t *nic)
{
    const char *mode = model_text(nic, "mode");
    json_t *network =
        strcmp(mode, "network") == 0 ? network_load(model_text(nic, "network"), NULL) : NULL;
    const char *of_network = model_text(network, "mode");
    bool result = strcmp(mode, "user") == 0 ||
                  (!*model_text(network, "bridge") &&
                   (strcmp(of_network, "user") == 0 || strcmp(of_network, "nat") == 0 ||
                    strcmp(of_network, "hostonly") == 0));
    json_decref(network);
    return result;
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

static bool is_bridge(const char *interface)
{
    char path[128];
    snprintf(path, sizeof(path), "/sys/class/net/%.64s/bridge", interface);
    return access(path, F_OK) == 0;
}

bool network_is_kernel(const json_t *network)
{
    return json_is_true(json_object_get(network, "kernel"));
}

bool network_is_up(const json_t *network)
{
    return network_is_kernel(network) && is_bridge(model_text(network, "bridge"));
}

/* What the command line asks for, before anything is made. */
struct request {
    const char *mode, *subnet, *bridge, *uplink;
    bool is_kernel; /* root's: made on the host */
};

static json_t *all_values(const struct evctl_call *call, const char *option)
{
    json_t *values = json_array();
    const char *value;
    for (unsigned i = 0; (value = call_nth(call, option, i)); i++)
        json_array_append_new(values, json_string(value));
    return values;
}

/* Options that only some modes have. */
static int check_options(const struct evctl_call *call, const struct request *request,
                         struct error *err)
{
    bool is_shared = strcmp(request->mode, "nat") == 0 || strcmp(request->mode, "hostonly") == 0;
    bool is_user = strcmp(request->mode, "user") == 0, is_nat = strcmp(request->mode, "nat") == 0;
    bool is_bridged = strcmp(request->mode, "bridged") == 0;
    const struct {
        const char *option, *modes;
        bool fits;
    } rules[] = {
        {"subnet", "nat, hostonly and user", is_shared || is_user},
        {"restrict", "user", is_user},
        {"bridge", "bridged, and with nat and hostonly that root makes",
         is_bridged || (is_shared && request->is_kernel)},
        {"uplink", "bridged", is_bridged},
        {"move-ip", "bridged and --uplink", is_bridged && request->uplink},
        {"no-dhcp", "nat and hostonly that root makes", is_shared && request->is_kernel},
        {"lease", "nat and hostonly that root makes", is_shared && request->is_kernel},
        {"ipv6", "nat and hostonly that root makes; those in the machines have it by themselves",
         is_shared && request->is_kernel},
        {"forward", "a nat that root makes; elsewhere use: evctl forward add",
         is_nat && request->is_kernel},
        {"rootless", "nat and hostonly", is_shared},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
        if (call_has(call, rules[i].option) && !rules[i].fits)
            return error_set(err, EINVAL, "--%s goes with --mode %s", rules[i].option,
                             rules[i].modes);
    return 0;
}

static int read_request(const struct evctl_call *call, struct request *request, struct error *err)
{
    static const char *const known[] = {"internal", "nat", "hostonly", "bridged", "user"};
    const char *mode = call_get(call, "mode");
    bool is_known = false;
    *request = (struct request){.mode = mode ? mode : "internal",
                                .subnet = call_get(call, "subnet"),
                                .bridge = call_get(call, "bridge"),
                                .uplink = call_get(call, "uplink")};
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        is_known |= strcmp(request->mode, known[i]) == 0;
    if (!is_known)
        return error_set(err, EINVAL, "--mode %s is not known; there are %s", request->mode, modes);
    bool is_bridged = strcmp(request->mode, "bridged") == 0;
    bool is_shared = strcmp(request->mode, "nat") == 0 || strcmp(request->mode, "hostonly") == 0;
    request->is_kernel = is_bridged ? request->uplink != NULL
                                    : is_shared && geteuid() == 0 && !call_has(call, "rootless");
    if (is_bridged && !request->bridge && !request->uplink)
        return error_set(
            err, EINVAL,
            "--mode bridged wants a bridge that is there (--bridge br0), or as root an "
            "interface to make one for (--uplink eth0)");
    if (request->subnet && !is_subnet(request->subnet))
        return error_set(err, EINVAL, "--subnet %s: write an IPv4 network such as 10.1.2.0/24",
                         request->subnet);
    if (request->uplink && geteuid() != 0)
        return error_set(err, EPERM,
                         "--uplink changes the host's network, which is root's: sudo evctl net "
                         "create %s --mode bridged --uplink %s",
                         call->arguments[0], request->uplink);
    return check_options(call, request, err);
}

/* What needs no change of the host. */
static int describe(const struct evctl_call *call, const struct request *request, json_t *network,
                    struct error *err)
{
    json_object_set_new(network, "mode", json_string(request->mode));
    if (request->is_kernel)
        return 0;
    if (request->bridge && !is_bridge(request->bridge))
        return error_set(err, ENXIO,
                         "--bridge %s: there is no such bridge; as root: ip link add %s type "
                         "bridge && ip link set %s up, or evctl net create --uplink",
                         request->bridge, request->bridge, request->bridge);
    if (request->subnet)
        json_object_set_new(network, "subnet", json_string(request->subnet));
    if (request->bridge)
        json_object_set_new(network, "bridge", json_string(request->bridge));
    if (call_has(call, "restrict"))
        json_object_set_new(network, "restrict", json_true());
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

static int write_whole(const char *path, int flags, const json_t *network, struct error *err)
{
    char *text = json_dumps(network, JSON_INDENT(2));
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600), result = 0;
    if (fd < 0)
        result = error_set_errno(err, errno, "cannot write %s", path);
    else if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd) < 0)
        result = error_set_errno(err, errno ? errno : ENOSPC, "cannot write %s", path);
    if (fd >= 0)
        close(fd);
    if (result && fd >= 0)
        unlink(path);
    free(text);
    return result;
}

/* A new file takes the name; -EEXIST if the network is there. */
static int reserve(const char *name, const json_t *network, struct error *err)
{
    char *folder = network_path("", "", err),
         *path = folder ? network_path(name, ".json", err) : NULL;
    int result = path ? 0 : -err->code;
    if (path) {
        mkdir(folder, 0700);
        result = access(path, F_OK) == 0
                     ? error_set(err, EEXIST, "there is a network '%s' already", name)
                     : write_whole(path, O_EXCL, network, err);
    }
    free(folder);
    free(path);
    return result;
}

int network_replace(const char *name, const json_t *network, struct error *err)
{
    char *path = network_path(name, ".json", err),
         *fresh = path ? network_path(name, ".fresh", err) : NULL;
    int result = fresh ? write_whole(fresh, O_TRUNC, network, err) : -err->code;
    if (!result && rename(fresh, path) < 0)
        result = error_set_errno(err, errno, "cannot write %s", path);
    free(path);
    free(fresh);
    return result;
}

void network_forget(const char *name)
{
    char *path = network_path(name, ".json", NULL), *folder = network_path(name, "", NULL);
    if (path)
        unlink(path);
    if (folder)
        remove_folder(folder);
    free(path);
    free(folder);
}

static int bring_up(const struct evctl_call *call, const struct request *request, json_t *network,
                    struct error *err)
{
    const struct network_kernel_options options = {
        .subnet = request->subnet,
        .ipv6 = call_get(call, "ipv6"),
        .bridge = request->bridge,
        .uplink = request->uplink,
        .moves_ip = call_has(call, "move-ip"),
        .no_dhcp = call_has(call, "no-dhcp"),
        .forwards = all_values(call, "forward"),
        .leases = all_values(call, "lease"),
    };
    int result = network_bring_up(call->arguments[0], &options, network, err);
    json_decref(options.forwards);
    json_decref(options.leases);
    return result;
}

static int make(const struct evctl_call *call, json_t *network, struct error *err)
{
    const char *name = call->arguments[0];
    struct request request;
    int result = check_name(name, err);
    if (!result)
        result = read_request(call, &request, err);
    if (!result)
        result = describe(call, &request, network, err);
    if (!result)
        result = reserve(name, network, err);
    if (result || !request.is_kernel)
        return result;
    result = bring_up(call, &request, network, err);
    if (result)
        network_forget(name);
    return result;
}

int cmd_net_create(struct evctl_call *call, struct error *err)
{
    const char *name = call->arguments[0];
    json_t *network = json_object();
    int result = make(call, network, err);
    if (!result) {
        const char *bridge = model_text(network, "bridge"), *subnet = model_text(network, "subnet");
        tell_note("the network '%s' is made%s%s%s%s; a machine joins it with --net %s", name,
                  *bridge ? ", bridge " : "", bridge, *subnet ? ", " : "", subnet, name);
        if (json_is_true(json_object_get(network, "kernel")))
            tell_note("for machines of others than root: echo 'allow %s' >>/etc/qemu/bridge.conf",
                      bridge);
        json_object_set_new(network, "name", json_string(name));
        json_object_del(network, "undo");
        json_object_del(network, "boot");
        tell_json(json_incref(network));
    }
    json_decref(network);
    return result;
}

/* --- net list --- */

/* Without the folder there are none. -errno if there is no place for it. */
static int add_all_networks(json_t *names, struct error *err)
{
    char *path = network_path("", "", err);
    if (!path)
        return -EINVAL;
    DIR *folder = opendir(path);
    free(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char *dot = strrchr(entry->d_name, '.');
        if (dot && strcmp(dot, ".json") == 0)
            json_array_append_new(names,
                                  json_stringn(entry->d_name, (size_t)(dot - entry->d_name)));
    }
    if (folder)
        closedir(folder);
    return 0;
}

json_t *network_names(void)
{
    json_t *names = json_array();
    (void)add_all_networks(names, NULL);
    return names;
}

json_t *network_users(const char *name)
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
    json_t *network = network_load(name, NULL), *users = network_users(name);
    json_t *row = network ? network : json_pack("{s:s}", "mode", "broken");
    const char *bridge = model_text(row, "bridge");
    if (*bridge)
        json_object_set_new(row, "state", json_string(is_bridge(bridge) ? "up" : "down"));
    json_object_del(row, "undo");
    json_object_del(row, "boot");
    json_object_set_new(row, "name", json_string(name));
    json_object_set_new(row, "machine-count", json_integer((json_int_t)json_array_size(users)));
    json_object_set_new(row, "machines", users);
    return row;
}

void network_add_names(json_t *names)
{
    json_array_append_new(names, json_string("user"));
    json_array_append_new(names, json_string("none"));
    (void)add_all_networks(names, NULL);
}

int cmd_net_list(struct evctl_call *call, struct error *err)
{
    (void)call;
    json_t *rows = json_array(), *names = json_array(), *name;
    size_t i;
    int result = add_all_networks(names, err);
    json_array_foreach(names, i, name) json_array_append_new(rows, row_of(json_string_value(name)));
    json_decref(names);
    if (result) {
        json_decref(rows);
        return result;
    }
    if (json_array_size(rows))
        tell_table(rows, "name:NAME mode:MODE subnet:SUBNET ipv6:IPV6 bridge:BRIDGE uplink:UPLINK "
                         "state:STATE machine-count:MACHINES");
    else
        tell_note("no networks by name; 'evctl net create' makes one");
    tell_json(rows);
    return 0;
}
