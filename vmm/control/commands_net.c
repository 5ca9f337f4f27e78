/* SPDX-License-Identifier: MIT */
/* commands_net: the QMP commands about NICs: their cables, and the addresses that guests use. */
#include <arpa/inet.h>
#include <string.h>

#include "devices/net_filter.h"
#include "netbackends/address_snoop.h"
#include "netbackends/net.h"
#include "vmm/control/commands.h"
#include "vmm/options/nic_words.h"

static json_t *describe_address(const struct address_entry *entry)
{
    char mac[NIC_MAC_BYTES], address[INET6_ADDRSTRLEN];
    nic_words_print_mac(entry->mac, mac);
    inet_ntop(entry->is_ipv6 ? AF_INET6 : AF_INET, entry->address, address, sizeof(address));
    json_t *value = json_pack(
        "{s:s,s:s,s:s,s:s,s:I,s:I}", "mac", mac, "ip-address", address, "ip-address-type",
        entry->is_ipv6 ? "ipv6" : "ipv4", "source", address_source_name(entry->source),
        "first-seen", (json_int_t)entry->first_seen_s, "last-seen", (json_int_t)entry->last_seen_s);
    if (entry->expires_s)
        json_object_set_new(value, "expires", json_integer(entry->expires_s));
    return value;
}

/* Where in the list an address belongs: the newest first. */
static size_t rank(const struct address_snoop *snoop, unsigned index)
{
    size_t newer = 0;
    for (unsigned i = 0; i < snoop->count; i++) {
        int64_t ahead_s = snoop->entries[i].last_seen_s - snoop->entries[index].last_seen_s;
        newer += ahead_s > 0 || (ahead_s == 0 && i < index);
    }
    return newer;
}

json_t *qmp_nic_addresses(const struct machine *machine, unsigned index)
{
    const struct vm_config *config = machine_config(machine);
    const struct address_snoop *snoop = machine_nic_addresses(machine, index);
    const struct net_backend *backend = machine_net_backend(machine, index);
    unsigned by_rank[ADDRESS_SNOOP_MAX];
    char name[NIC_NAME_BYTES] = "";
    json_t *list = json_array();
    for (unsigned i = 0; i < snoop->count; i++)
        by_rank[rank(snoop, i)] = i;
    for (unsigned i = 0; i < snoop->count; i++)
        json_array_append_new(list, describe_address(&snoop->entries[by_rank[i]]));
    if (config->nics[index].has_device)
        nic_words_name(config, index, name);
    return json_pack("{s:s,s:s*,s:o}", "id", backend ? backend->id : "", "nic", *name ? name : NULL,
                     "addresses", list);
}

void qmp_query_nic_addresses(struct qmp_call *call)
{
    const struct machine *machine = call->control->machine;
    json_t *list = json_array();
    for (unsigned i = 0; i < machine_config(machine)->nic_count; i++)
        if (machine_net_backend(machine, i) || machine_config(machine)->nics[i].has_device)
            json_array_append_new(list, qmp_nic_addresses(machine, i));
    qmp_call_return(call, list);
}

/* --- which frames the guest wants --- */

static const char *state_word(bool is_none, bool is_all)
{
    return is_none ? "none" : is_all ? "all" : "normal";
}

static json_t *list_addresses(const struct net_filter_table *table)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < table->count; i++) {
        char text[NIC_MAC_BYTES];
        nic_words_print_mac(table->addresses + (size_t)i * 6, text);
        json_array_append_new(list, json_string(text));
    }
    return list;
}

/* Descending, as QEMU has them. */
static json_t *list_vlans(const struct net_filter *filter)
{
    json_t *list = json_array();
    for (unsigned vlan = NET_FILTER_VLANS; vlan-- > 0;)
        if (net_filter_has_vlan(filter, vlan))
            json_array_append_new(list, json_integer(vlan));
    return list;
}

static json_t *describe_filter(const char *name, const struct net_filter *filter)
{
    char mac[NIC_MAC_BYTES];
    json_t *vlans = list_vlans(filter);
    nic_words_print_mac(filter->mac, mac);
    return json_pack("{s:s,s:b,s:s,s:s,s:s,s:b,s:b,s:b,s:s,s:o,s:o,s:o}", "name", name,
                     "promiscuous", filter->promiscuous, "multicast",
                     state_word(filter->no_multicast, filter->all_multicast), "unicast",
                     state_word(filter->no_unicast, filter->all_unicast), "vlan",
                     state_word(!json_array_size(vlans), !filter->checks_vlan), "broadcast-allowed",
                     !filter->no_broadcast, "multicast-overflow", filter->multicast.overflowed,
                     "unicast-overflow", filter->unicast.overflowed, "main-mac", mac, "vlan-table",
                     vlans, "unicast-table", list_addresses(&filter->unicast), "multicast-table",
                     list_addresses(&filter->multicast));
}

/* Why there is no NIC of that name, in QEMU's words. */
static void fail_filter(struct qmp_call *call, const char *name)
{
    const struct machine *machine = call->control->machine;
    for (unsigned i = 0; i < machine_config(machine)->nic_count; i++) {
        const char *netdev = machine_config(machine)->nics[i].netdev_id;
        if (netdev && strcmp(netdev, name) == 0) {
            qmp_call_fail(call, QMP_GENERIC, "net client(%s) isn't a NIC", name);
            return;
        }
    }
    qmp_call_fail(call, QMP_GENERIC, "invalid net client name: %s", name);
}

void qmp_query_rx_filter(struct qmp_call *call)
{
    const struct machine *machine = call->control->machine;
    const char *wanted = json_string_value(json_object_get(call->arguments, "name"));
    json_t *list = json_array();
    for (unsigned i = 0; i < machine_config(machine)->nic_count; i++) {
        char name[NIC_NAME_BYTES];
        nic_words_name(machine_config(machine), i, name);
        if (wanted && strcmp(name, wanted) != 0)
            continue;
        const struct net_filter *filter = machine_read_filter(machine, i);
        if (filter)
            json_array_append_new(list, describe_filter(name, filter));
    }
    if (!wanted || json_array_size(list)) {
        qmp_call_return(call, list);
        return;
    }
    json_decref(list);
    fail_filter(call, wanted);
}

/* --- cables --- */

static bool is_named(const char *a, const char *name)
{
    return a && strcmp(a, name) == 0;
}

void qmp_set_link(struct qmp_call *call)
{
    const char *name = json_string_value(json_object_get(call->arguments, "name"));
    const struct vm_config *config = machine_config(call->control->machine);
    for (unsigned i = 0; i < config->nic_count; i++) {
        const struct config_nic *nic = &config->nics[i];
        struct net_backend *backend = machine_net_backend(call->control->machine, i);
        if (!backend || (!is_named(nic->netdev_id, name) && !is_named(nic->qdev_id, name)))
            continue;
        net_set_link(backend, json_is_true(json_object_get(call->arguments, "up")));
        qmp_call_return(call, NULL);
        return;
    }
    qmp_call_fail(call, "DeviceNotFound", "Device '%s' not found", name);
}
