/* SPDX-License-Identifier: MIT */
/* options_net: -nic, -netdev and -net, and what -device virtio-net-pci makes of a netdev. */
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "vmm/options/keyval_json.h"
#include "vmm/options/options_private.h"

#define NIC_MODELS "virtio|virtio-net-pci|virtio-net"

static const char no_model[] = "the NIC is virtio; use model=virtio or leave it out";

static const struct keyval_known nothing_known[] = {{0}};

static const struct keyval_known nic_known[] = {
    {"model", NIC_MODELS, no_model}, {"mac", NULL, NULL}, {"macaddr", NULL, NULL}, {"host_mtu", NULL, NULL}, {0}};

static const struct keyval_known legacy_nic_known[] = {
    {"type", NULL, NULL},
    {"model", NIC_MODELS, no_model},
    {"macaddr", "", "use -nic user,mac=ADDRESS instead"},
    {0}};

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

static const struct {
    const char *key;
    uint64_t features;
} feature_keys[] = {
    {"csum", UINT64_C(1) << VIRTIO_NET_F_CSUM},
    {"gso", UINT64_C(1) << VIRTIO_NET_F_HOST_TSO4 | UINT64_C(1) << VIRTIO_NET_F_HOST_TSO6},
    {"host_tso4", UINT64_C(1) << VIRTIO_NET_F_HOST_TSO4},
    {"host_tso6", UINT64_C(1) << VIRTIO_NET_F_HOST_TSO6},
    {"host_ecn", UINT64_C(1) << VIRTIO_NET_F_HOST_ECN},
    {"guest_csum", UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM},
    {"guest_tso4", UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4},
    {"guest_tso6", UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO6},
    {"guest_ecn", UINT64_C(1) << VIRTIO_NET_F_GUEST_ECN},
    {"guest_announce", UINT64_C(1) << VIRTIO_NET_F_GUEST_ANNOUNCE},
    {"mrg_rxbuf", UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF},
};

static int read_features(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(feature_keys); i++) {
        bool is_on = true;
        int result = keyval_bool(list, feature_keys[i].key, &is_on, err);
        if (result)
            return result;
        if (!is_on)
            nic->features_off |= feature_keys[i].features;
    }
    return 0;
}

/* What -nic and -device say of the NIC itself. */
static int read_nic(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    uint64_t mtu = 0;
    int result = keyval_uint(list, "host_mtu", 68, UINT16_MAX, &mtu, err);
    nic->mtu = (uint16_t)mtu;
    if (!result)
        result = read_features(nic, list, err);
    return result ? result : read_mac(nic, list, err);
}

static struct config_nic *find_nic(struct vm_config *config, const char *id)
{
    for (unsigned i = 0; i < config->nic_count; i++)
        if (config->nics[i].netdev_id && strcmp(config->nics[i].netdev_id, id) == 0)
            return &config->nics[i];
    return NULL;
}

/* `also` are the keys beside those of the kind of network. */
static int add_nic(struct options *options, struct keyval *list, const struct keyval_known *also,
                   struct config_nic **out, struct error *err)
{
    struct vm_config *config = options->config;
    const struct options_netdev *kind;
    int result = options_netdev_check(list, also, &kind, err);
    if (!result && config->nic_count == NIC_MAX)
        result = error_set(err, E2BIG, "%s: more than %d NICs", list->option, NIC_MAX);
    const char *id = keyval_get(list, "id");
    if (!result && id && find_nic(config, id))
        result = error_set(err, EEXIST, "%s: there is another netdev with id=%s", list->option, id);
    if (result)
        return result;
    config->nics = options_grow(config->nics, config->nic_count, sizeof(*config->nics));
    *out = &config->nics[config->nic_count++];
    keyval_string(list, "id", &(*out)->netdev_id);
    result = options_netdev_read(kind, *out, list, err);
    return result ? result : read_nic(*out, list, err);
}

static bool wants_list(struct options *options, const char *argument)
{
    if (strcmp(argument, "help") != 0 && strcmp(argument, "?") != 0)
        return false;
    options->text =
        text_copy("Available netdev backend types:\nbridge\ndgram\nhostonly\ninternal\nnat\n"
                     "socket\nstream\ntap\nuser\n");
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
    int result = keyval_parse_either(&list, "-netdev", argument, "type", err);
    if (result)
        return result;
    const char *type = keyval_get(&list, "type");
    if (type && strcmp(type, "none") == 0)
        result = error_set(err, EINVAL, "%s: leave the option out for no network", list.option);
    else if (!keyval_get(&list, "id"))
        result = error_set(err, EINVAL, "%s: add id=NAME, for -device virtio-net-pci,netdev=NAME",
                           list.option);
    else
        result = add_nic(options, &list, nothing_known, &nic, err);
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
        result = add_nic(options, &list, nothing_known, &nic, err);
        if (!result)
            nic->has_device = true;
    }
    keyval_fini(&list);
    return result;
}

int options_netdev_load(struct config_nic *nic, struct keyval *list, struct error *err)
{
    const struct options_netdev *kind;
    int result = options_netdev_check(list, nothing_known, &kind, err);
    if (result)
        return result;
    keyval_string(list, "id", &nic->netdev_id);
    return options_netdev_read(kind, nic, list, err);
}

int options_net_device(struct config_nic *nic, const struct keyval *device, struct error *err)
{
    keyval_string(device, "id", &nic->qdev_id);
    return read_nic(nic, device, err);
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
    int result = options_read_slot(device, &nic->pci_slot, err);
    return result ? result : options_net_device(nic, device, err);
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
        config->nics[i].netdev_id = text_copy(id);
    }
}

static bool has_neighbours(const struct config_nic *nic)
{
    return nic->kind == NET_KIND_INTERNAL || nic->kind == NET_KIND_NAT ||
           nic->kind == NET_KIND_HOST_ONLY;
}

/* Machines that meet on one network need different addresses: from their names (by FNV-1a). */
static void give_macs(struct vm_config *config)
{
    for (unsigned i = 0; i < config->nic_count; i++) {
        struct config_nic *nic = &config->nics[i];
        if (nic->has_mac || !config->name || !has_neighbours(nic))
            continue;
        uint32_t hash = 2166136261u;
        for (const char *at = config->name; *at; at++)
            hash = (hash ^ (uint8_t)*at) * 16777619u;
        hash += i;
        const uint8_t mac[6] = {0x52,         0x54, 0, (uint8_t)(hash >> 16), (uint8_t)(hash >> 8),
                                (uint8_t)hash};
        memcpy(nic->mac, mac, sizeof(nic->mac));
        nic->has_mac = true;
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
    give_macs(options->config);
    return result ? result : options_finish_guestfwd(options, err);
}
