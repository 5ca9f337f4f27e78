/* SPDX-License-Identifier: MIT */
/* hmp_network: the commands of the human monitor about NICs and forwarded ports. */
#include <stdlib.h>
#include <string.h>

#include "netbackends/net.h"
#include "netbackends/shared.h"
#include "vmm/control/commands.h"
#include "vmm/control/hmp_private.h"
#include "vmm/options/forward.h"
#include "vmm/options/nic_words.h"

static const struct vm_config *config_of(const struct hmp_call *call)
{
    return machine_config(call->control->machine);
}

static bool is_named(const struct config_nic *nic, const char *name)
{
    return strcmp(nic->netdev_id, name) == 0 || (nic->qdev_id && strcmp(nic->qdev_id, name) == 0);
}

void hmp_set_link(struct hmp_call *call)
{
    const char *name = call->words[1], *to = call->words[2];
    if (!to || (strcmp(to, "on") != 0 && strcmp(to, "off") != 0)) {
        fprintf(call->out, "usage: set_link NETDEV on|off\r\n");
        return;
    }
    for (unsigned i = 0; i < config_of(call)->nic_count; i++) {
        struct net_backend *backend = machine_net_backend(call->control->machine, i);
        if (!backend || !is_named(&config_of(call)->nics[i], name))
            continue;
        net_set_link(backend, strcmp(to, "on") == 0);
        return;
    }
    fprintf(call->out, "Error: Device '%s' not found\r\n", name);
}

/* NULL if there is none behind that NIC. */
static struct net_backend *nat_of(const struct hmp_call *call, unsigned index)
{
    struct net_backend *backend = machine_net_backend(call->control->machine, index);
    return backend ? net_shared_nat(backend) : NULL;
}

/* Reads [netdev] rule; the rule is the caller's to forward_fini if a backend comes back. */
static struct net_backend *read_rule(struct hmp_call *call, bool has_guest,
                                     struct config_forward *rule)
{
    const char *text = call->words[call->word_count - 1];
    if (call->word_count < 2 || call->word_count > 3 || !forward_parse(text, has_guest, rule)) {
        fprintf(call->out, "usage: %s [NETDEV] tcp|udp:[ADDRESS]:PORT%s, or unix:PATH%s\r\n",
                call->words[0], has_guest ? "-[ADDRESS]:PORT" : "",
                has_guest ? "-[ADDRESS]:PORT" : "");
        if (call->word_count >= 2 && call->word_count <= 3)
            forward_fini(rule);
        return NULL;
    }
    const char *name = call->word_count == 3 ? call->words[1] : NULL;
    struct net_backend *nat = commands_find_nat(call->control->machine, name);
    if (nat)
        return nat;
    fprintf(call->out, "Error: there is no NAT%s%s\r\n", name ? " on netdev " : "",
            name ? name : "");
    forward_fini(rule);
    return nat;
}

void hmp_hostfwd_add(struct hmp_call *call)
{
    struct config_forward rule;
    struct net_backend *nat = read_rule(call, true, &rule);
    if (!nat)
        return;
    struct net_forward forward = forward_for_net(&rule);
    struct error err = {0};
    if (net_slirp_forward_add(nat, &forward, &err))
        fprintf(call->out, "Error: %s\r\n", err.text);
    forward_fini(&rule);
}

void hmp_hostfwd_remove(struct hmp_call *call)
{
    struct config_forward rule;
    struct net_backend *nat = read_rule(call, false, &rule);
    if (!nat)
        return;
    struct net_forward forward = forward_for_net(&rule);
    struct error err = {0};
    const char *text = call->words[call->word_count - 1];
    if (net_slirp_forward_remove(nat, &forward, &err))
        fprintf(call->out, "host forwarding rule for %s not found\r\n", text);
    else
        fprintf(call->out, "host forwarding rule for %s removed\r\n", text);
    forward_fini(&rule);
}

static void print_nic(FILE *out, const struct vm_config *config, unsigned index, bool is_off)
{
    uint8_t mac[6];
    char name[NIC_NAME_BYTES], address[NIC_MAC_BYTES];
    nic_words_name(config, index, name);
    nic_words_mac(config, index, mac);
    nic_words_print_mac(mac, address);
    fprintf(out, "%s: index=0,type=nic,model=virtio-net-pci,macaddr=%s%s\r\n", name, address,
            is_off ? ",link=off" : "");
}

void hmp_info_network(struct hmp_call *call)
{
    for (unsigned i = 0; i < config_of(call)->nic_count; i++) {
        const struct config_nic *nic = &config_of(call)->nics[i];
        const struct net_backend *backend = machine_net_backend(call->control->machine, i);
        char text[256] = "";
        if (nic->has_device)
            print_nic(call->out, config_of(call), i, backend && !backend->link_up);
        if (backend && backend->ops->describe)
            backend->ops->describe(backend, text, sizeof(text));
        else if (backend)
            snprintf(text, sizeof(text), "index=0,type=%s", backend->ops->kind);
        if (backend)
            fprintf(call->out, "%s%s: %s\r\n", nic->has_device ? " \\ " : "", nic->netdev_id, text);
    }
}

static void print_forward(void *opaque, const struct net_forward *forward)
{
    char *text = forward_text(forward);
    fprintf(opaque, "  hostfwd=%s\r\n", text);
    free(text);
}

static void print_guest_forward(void *opaque, const struct net_guest_forward *forward)
{
    char *text = forward_text_guest(forward);
    fprintf(opaque, "  guestfwd=%s\r\n", text);
    free(text);
}

static void print_lines(FILE *out, const char *text)
{
    for (; *text; text++)
        fputs(*text == '\n' ? "\r\n" : (char[]){*text, 0}, out);
}

void hmp_info_usernet(struct hmp_call *call)
{
    for (unsigned i = 0; i < config_of(call)->nic_count; i++) {
        struct net_backend *nat = nat_of(call, i);
        if (!nat)
            continue;
        char *connections = net_slirp_connections(nat);
        fprintf(call->out, "Hub -1 (%s):\r\n", config_of(call)->nics[i].netdev_id);
        net_slirp_for_each_forward(nat, print_forward, call->out);
        net_slirp_for_each_guest_forward(nat, print_guest_forward, call->out);
        print_lines(call->out, connections ? connections : "");
        free(connections);
    }
}
