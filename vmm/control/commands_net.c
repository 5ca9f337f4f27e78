/* SPDX-License-Identifier: MIT */
/* commands_net: the QMP commands about NICs: their cables, and the addresses that guests use. */
#include <arpa/inet.h>
#include <string.h>

#include "netbackends/address_snoop.h"
#include "netbackends/net.h"
#include "vmm/control/commands.h"

static json_t *describe_address(const struct address_entry *entry)
{
    char mac[18], address[INET6_ADDRSTRLEN];
    const uint8_t *m = entry->mac;
    snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
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
    const struct address_snoop *snoop = machine_nic_addresses(machine, index);
    const struct net_backend *backend = machine_net_backend(machine, index);
    unsigned by_rank[ADDRESS_SNOOP_MAX];
    json_t *list = json_array();
    for (unsigned i = 0; i < snoop->count; i++)
        by_rank[rank(snoop, i)] = i;
    for (unsigned i = 0; i < snoop->count; i++)
        json_array_append_new(list, describe_address(&snoop->entries[by_rank[i]]));
    return json_pack("{s:s,s:o}", "id", backend ? backend->id : "", "addresses", list);
}

void qmp_query_nic_addresses(struct qmp_call *call)
{
    const struct machine *machine = call->control->machine;
    json_t *list = json_array();
    for (unsigned i = 0; i < machine_config(machine)->nic_count; i++)
        if (machine_net_backend(machine, i))
            json_array_append_new(list, qmp_nic_addresses(machine, i));
    qmp_call_return(call, list);
}

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
