/* SPDX-License-Identifier: MIT */
/* options_net: -nic, -netdev and -net, and what -device virtio-net-pci makes of a netdev. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/forward.h"
#include "vmm/options_private.h"
#include "vmm/suggest.h"

#define NET_KINDS     "user|none"
#define NIC_MODELS    "virtio|virtio-net-pci|virtio-net"
#define OTHER_KINDS   "tap|bridge|socket|stream|dgram|vde|vhost-user|vhost-vdpa|hubport|l2tpv3|passt"
#define FORWARD_SHAPE "hostfwd=tcp::HOSTPORT-:GUESTPORT"

static const char no_type[] = "only user (built-in NAT) and none are there";
static const char no_model[] = "the NIC is virtio; use model=virtio or leave it out";

#define USER_KEYS                                                                                  \
    {"type", NULL, NULL}, {"id", NULL, NULL}, {"net", NULL, NULL}, {"host", NULL, NULL},           \
        {"dns", NULL, NULL}, {"dhcpstart", NULL, NULL}, {"hostname", NULL, NULL},                  \
        {"dnssearch", NULL, NULL}, {"domainname", NULL, NULL}, {"tftp", NULL, NULL},               \
        {"bootfile", NULL, NULL}, {"restrict", NULL, NULL}, {"ipv4", NULL, NULL},                  \
        {"ipv6", NULL, NULL}, {"hostfwd", NULL, NULL},                                             \
        {"guestfwd", "",                                                                           \
         "forwarding from the guest is not there; services on the host are "                       \
         "reached as 10.0.2.2"},                                                                   \
    {                                                                                              \
        "smb", "", "there is no SMB server; copy files over ssh"                                   \
    }

static const struct keyval_known netdev_known[] = {USER_KEYS, {0}};

static const struct keyval_known nic_known[] = {
    USER_KEYS, {"model", NIC_MODELS, no_model}, {"mac", NULL, NULL}, {"macaddr", NULL, NULL}, {0}};

static const struct keyval_known legacy_nic_known[] = {
    {"type", NULL, NULL},
    {"model", NIC_MODELS, no_model},
    {"macaddr", "", "use -nic user,mac=ADDRESS instead"},
    {0}};

/* "10.0.2.0" or "10.0.2.0/24" or "10.0.2.0/255.255.255.0" */
static bool is_network(const char *text)
{
    size_t length = strcspn(text, "/");
    uint64_t bits;
    if (!forward_is_ipv4(text, length))
        return false;
    const char *mask = text + length + 1;
    return !text[length] || forward_is_ipv4(mask, strlen(mask)) ||
           (keyval_text_to_uint(mask, &bits) && bits >= 1 && bits <= 30);
}

static int read_addresses(struct config_net_user *user, const struct keyval *list,
                          struct error *err)
{
    const struct {
        const char *key;
        char **out;
    } addresses[] = {{"host", &user->host}, {"dns", &user->dns}, {"dhcpstart", &user->dhcpstart}};
    const char *net = keyval_get(list, "net");
    if (net && !is_network(net))
        return error_set(err, EINVAL, "%s: net=%s: say a network such as 10.0.2.0/24", list->option,
                         net);
    keyval_string(list, "net", &user->net);
    for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++) {
        const char *value = keyval_get(list, addresses[i].key);
        if (!value || !*value)
            continue;
        if (!forward_is_ipv4(value, strlen(value)))
            return error_set(err, EINVAL, "%s: %s=%s: say an IPv4 address such as 10.0.2.3",
                             list->option, addresses[i].key, value);
        keyval_string(list, addresses[i].key, addresses[i].out);
    }
    return 0;
}

static bool is_same_forward(const struct config_forward *a, const struct config_forward *b)
{
    const char *one = a->host_address ? a->host_address : "127.0.0.1";
    const char *other = b->host_address ? b->host_address : "127.0.0.1";
    return a->is_udp == b->is_udp && a->host_port == b->host_port && strcmp(one, other) == 0;
}

static int add_forward(struct config_net_user *user, const struct keyval *list, const char *text,
                       struct error *err)
{
    user->forwards = options_grow(user->forwards, user->forward_count, sizeof(*user->forwards));
    struct config_forward *forward = &user->forwards[user->forward_count++];
    if (!forward_parse(text, true, forward))
        return error_set(err, EINVAL, "%s: hostfwd=%s: say " FORWARD_SHAPE " (or udp)",
                         list->option, text);
    for (unsigned i = 0; i + 1 < user->forward_count; i++)
        if (is_same_forward(&user->forwards[i], forward))
            return error_set(err, EEXIST, "%s: hostfwd=%s: port %u is forwarded twice",
                             list->option, text, forward->host_port);
    return 0;
}

static void add_search_domain(struct config_net_user *user, const char *domain)
{
    if (!*domain)
        return;
    char *joined;
    CHECK(asprintf(&joined, "%s%s%s", user->dnssearch ? user->dnssearch : "",
                   user->dnssearch ? "," : "", domain) > 0);
    free(user->dnssearch);
    user->dnssearch = joined;
}

static int read_repeated(struct config_net_user *user, const struct keyval *list, struct error *err)
{
    int result = 0;
    for (unsigned i = 0; i < list->count && !result; i++) {
        const struct keyval_pair *pair = &list->pairs[i];
        if (strcmp(pair->key, "hostfwd") == 0)
            result = add_forward(user, list, pair->value, err);
        else if (strcmp(pair->key, "dnssearch") == 0)
            add_search_domain(user, pair->value);
    }
    return result;
}

static int read_user(struct config_net_user *user, const struct keyval *list, struct error *err)
{
    bool ipv4 = true, ipv6 = true;
    int result = read_addresses(user, list, err);
    if (!result)
        result = keyval_bool(list, "restrict", &user->restrict_access, err);
    if (!result)
        result = keyval_bool(list, "ipv4", &ipv4, err);
    if (!result)
        result = keyval_bool(list, "ipv6", &ipv6, err);
    if (!result && !ipv4 && !ipv6)
        result = error_set(err, EINVAL, "%s: both IPv4 and IPv6 are off", list->option);
    user->ipv4_off = !ipv4;
    user->ipv6_off = !ipv6;
    keyval_string(list, "hostname", &user->hostname);
    keyval_string(list, "domainname", &user->domainname);
    keyval_string(list, "tftp", &user->tftp);
    keyval_string(list, "bootfile", &user->bootfile);
    return result ? result : read_repeated(user, list, err);
}

static int read_mac(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    const char *text = keyval_get(list, "mac");
    if (!text)
        text = keyval_get(list, "macaddr");
    if (!text)
        return 0;
    unsigned bytes[6];
    char separators[5], rest;
    int fields = sscanf(text, "%2x%c%2x%c%2x%c%2x%c%2x%c%2x%c", &bytes[0], &separators[0],
                        &bytes[1], &separators[1], &bytes[2], &separators[2], &bytes[3],
                        &separators[3], &bytes[4], &separators[4], &bytes[5], &rest);
    bool fits = fields == 11 && strlen(text) == 17;
    for (unsigned i = 0; fits && i < 5; i++)
        fits = separators[i] == ':' || separators[i] == '-';
    if (!fits)
        return error_set(err, EINVAL, "%s: mac=%s: say an address such as 52:54:00:12:34:56",
                         list->option, text);
    if (bytes[0] & 1)
        return error_set(err, EINVAL, "%s: mac=%s is a multicast address; make its first byte even",
                         list->option, text);
    for (unsigned i = 0; i < 6; i++)
        nic->mac[i] = (uint8_t)bytes[i];
    nic->has_mac = true;
    return 0;
}

static struct config_nic *find_nic(struct vm_config *config, const char *id)
{
    for (unsigned i = 0; i < config->nic_count; i++)
        if (config->nics[i].netdev_id && strcmp(config->nics[i].netdev_id, id) == 0)
            return &config->nics[i];
    return NULL;
}

static int check_kind(const struct keyval *list, struct error *err)
{
    const char *type = keyval_get(list, "type");
    if (type && keyval_name_index(OTHER_KINDS, type) >= 0)
        return error_set(err, ENOTSUP, "%s: network type %s is not there; use user (built-in NAT)",
                         list->option, type);
    if (type && keyval_name_index(NET_KINDS, type) < 0)
        return error_set(err, EINVAL, "%s: '%s' is no network type; %s", list->option, type,
                         no_type);
    return 0;
}

static int add_nic(struct options *options, struct keyval *list, const struct keyval_known *known,
                   struct config_nic **out, struct error *err)
{
    struct vm_config *config = options->config;
    int result = check_kind(list, err);
    if (!result)
        result = keyval_check(list, known, err);
    if (!result && config->nic_count == NIC_MAX)
        result = error_set(err, E2BIG, "%s: more than %d NICs", list->option, NIC_MAX);
    const char *id = keyval_get(list, "id");
    if (!result && id && find_nic(config, id))
        result = error_set(err, EEXIST, "%s: there is another netdev with id=%s", list->option, id);
    if (result)
        return result;
    config->nics = options_grow(config->nics, config->nic_count, sizeof(*config->nics));
    *out = &config->nics[config->nic_count++];
    (*out)->kind = NET_KIND_USER;
    keyval_string(list, "id", &(*out)->netdev_id);
    result = read_user(&(*out)->user, list, err);
    return result ? result : read_mac(*out, list, err);
}

static bool wants_list(struct options *options, const char *argument)
{
    if (strcmp(argument, "help") != 0 && strcmp(argument, "?") != 0)
        return false;
    options->text = options_copy("Available netdev backend types:\nuser\n");
    return true;
}

int option_netdev(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    (void)entry;
    struct keyval list;
    struct config_nic *nic;
    if (wants_list(options, argument))
        return 0;
    int result = keyval_parse(&list, "-netdev", argument, "type", err);
    if (result)
        return result;
    const char *type = keyval_get(&list, "type");
    if (type && strcmp(type, "none") == 0)
        result = error_set(err, EINVAL, "%s: leave the option out for no network", list.option);
    else if (!keyval_get(&list, "id"))
        result = error_set(err, EINVAL, "%s: add id=NAME, for -device virtio-net-pci,netdev=NAME",
                           list.option);
    else
        result = add_nic(options, &list, netdev_known, &nic, err);
    options->has_net = true;
    keyval_fini(&list);
    return result;
}

int option_nic(struct options *options, const struct option_entry *entry, const char *argument,
               struct error *err)
{
    (void)entry;
    struct keyval list;
    struct config_nic *nic;
    if (wants_list(options, argument))
        return 0;
    int result = keyval_parse(&list, "-nic", argument, "type", err);
    if (result)
        return result;
    const char *type = keyval_get(&list, "type");
    options->has_net = true;
    if (!type || strcmp(type, "none") != 0) {
        result = add_nic(options, &list, nic_known, &nic, err);
        if (!result)
            nic->has_device = true;
    }
    keyval_fini(&list);
    return result;
}

/* The old pair "-net nic -net user" is one -nic user. */
int option_net(struct options *options, const struct option_entry *entry, const char *argument,
               struct error *err)
{
    (void)entry;
    struct keyval list;
    int result = keyval_parse(&list, "-net", argument, "type", err);
    if (result)
        return result;
    const char *type = keyval_get(&list, "type");
    bool is_nic = type && strcmp(type, "nic") == 0, is_user = type && strcmp(type, "user") == 0;
    options->has_net = true;
    if (type && strcmp(type, "none") == 0) {
        result = 0;
    } else if (!is_nic && !is_user) {
        result = error_set(err, ENOTSUP, "%s: use -nic user instead", list.option);
    } else if (is_nic ? options->has_legacy_nic : options->has_legacy_user) {
        result = error_set(err, EINVAL, "%s: for more than one NIC, give -nic user for each",
                           list.option);
    } else if (is_nic) {
        options->has_legacy_nic = true;
        result = keyval_check(&list, legacy_nic_known, err);
    } else {
        struct config_nic *nic;
        options->has_legacy_user = true;
        result = add_nic(options, &list, netdev_known, &nic, err);
        if (!result)
            nic->has_device = true;
    }
    keyval_fini(&list);
    return result;
}

static int refuse_netdev(struct options *options, const struct keyval *device, const char *id,
                         struct error *err)
{
    struct suggest suggest;
    suggest_init(&suggest, id);
    for (unsigned i = 0; i < options->config->nic_count; i++)
        if (options->config->nics[i].netdev_id)
            suggest_offer(&suggest, options->config->nics[i].netdev_id);
    return error_set(err, ENOENT, "%s: there is no -netdev with id=%s%s%s%s", device->option, id,
                     suggest.best ? "; did you mean '" : "; add -netdev user,id=...",
                     suggest.best ? suggest.best : "", suggest.best ? "'?" : "");
}

int options_attach_net(struct options *options, struct keyval *device, struct error *err)
{
    const char *id = keyval_get(device, "netdev");
    if (!id)
        return error_set(err, EINVAL, "%s: say which network: netdev=ID, with -netdev user,id=ID",
                         device->option);
    struct config_nic *nic = find_nic(options->config, id);
    if (!nic)
        return refuse_netdev(options, device, id, err);
    if (nic->has_device)
        return error_set(err, EBUSY, "%s: netdev %s is used by another NIC", device->option, id);
    nic->has_device = true;
    keyval_string(device, "id", &nic->qdev_id);
    return read_mac(nic, device, err);
}

static void give_netdev_ids(struct vm_config *config)
{
    for (unsigned i = 0, number = 0; i < config->nic_count; i++) {
        if (config->nics[i].netdev_id)
            continue;
        char id[32];
        do
            snprintf(id, sizeof(id), "net%u", number++);
        while (find_nic(config, id));
        config->nics[i].netdev_id = options_copy(id);
    }
}

int options_finish_net(struct options *options, struct error *err)
{
    if (options->has_legacy_nic != options->has_legacy_user)
        return error_set(err, EINVAL, "-net nic and -net user belong together; use -nic user");
    int result = 0;
    if (!options->has_net && !options->nodefaults)
        result = option_nic(options, NULL, "user", err);
    give_netdev_ids(options->config);
    return result;
}
