/* SPDX-License-Identifier: MIT */
/* commands_forward: the QMP commands about ways through a NAT: -netdev user, nat and hostonly. */
#include <stdlib.h>
#include <string.h>

#include "netbackends/shared.h"
#include "vmm/control/commands.h"
#include "vmm/machine_chardev.h"
#include "vmm/options/forward.h"

#define RULE_HELP "tcp|udp:[ADDRESS]:PORT-[ADDRESS]:PORT or unix:PATH-[ADDRESS]:PORT"

static const char *text_of(const struct qmp_call *call, const char *key)
{
    return json_string_value(json_object_get(call->arguments, key));
}

/* NULL if there is none behind that NIC. */
static struct net_backend *nat_of(const struct machine *machine, unsigned index)
{
    struct net_backend *backend = machine_net_backend(machine, index);
    return backend ? net_shared_nat(backend) : NULL;
}

struct net_backend *commands_find_nat(const struct machine *machine, const char *name)
{
    const struct vm_config *config = machine_config(machine);
    for (unsigned i = 0; i < config->nic_count; i++) {
        const struct config_nic *nic = &config->nics[i];
        struct net_backend *nat = nat_of(machine, i);
        if (nat && (!name || (nic->netdev_id && strcmp(nic->netdev_id, name) == 0) ||
                    (nic->qdev_id && strcmp(nic->qdev_id, name) == 0)))
            return nat;
    }
    return NULL;
}

/* Fails the call for NULL. */
static struct net_backend *find_nat(struct qmp_call *call)
{
    const char *name = text_of(call, "netdev");
    struct net_backend *nat = commands_find_nat(call->control->machine, name);
    if (!nat)
        qmp_call_fail(call, "DeviceNotFound",
                      "there is no NAT%s%s: forwards need a netdev of type user, nat or hostonly",
                      name ? " on netdev " : "", name ? name : "");
    return nat;
}

static void end_call(struct qmp_call *call, int result, const struct error *err)
{
    if (result)
        qmp_call_fail(call, QMP_GENERIC, "%s", err->text);
    else
        qmp_call_return(call, NULL);
}

static void change_forward(struct qmp_call *call, bool adds)
{
    struct net_backend *nat = find_nat(call);
    struct config_forward rule;
    struct error err = {0};
    if (!nat)
        return;
    if (!forward_parse(text_of(call, "rule"), adds, &rule)) {
        qmp_call_fail(call, QMP_GENERIC, "rule '%s': say " RULE_HELP "%s", text_of(call, "rule"),
                      adds ? "" : ", without the part from '-' on");
    } else {
        const struct net_forward forward = forward_for_net(&rule);
        end_call(call,
                 adds ? net_slirp_forward_add(nat, &forward, &err)
                      : net_slirp_forward_remove(nat, &forward, &err),
                 &err);
    }
    forward_fini(&rule);
}

void qmp_hostfwd_add(struct qmp_call *call)
{
    change_forward(call, true);
}

void qmp_hostfwd_remove(struct qmp_call *call)
{
    change_forward(call, false);
}

static void change_guest_forward(struct qmp_call *call, bool adds)
{
    struct net_backend *nat = find_nat(call);
    struct config_guest_forward rule;
    struct error err = {0};
    if (!nat)
        return;
    if (!forward_parse_guest(text_of(call, "rule"), adds, &rule)) {
        qmp_call_fail(call, QMP_GENERIC, "rule '%s': say tcp:ADDRESS:PORT%s", text_of(call, "rule"),
                      adds ? "-cmd:COMMAND, -tcp:HOST:PORT, -unix:PATH or -chardev:ID" : "");
    } else {
        int result = machine_guest_forward_target(call->control->machine, &rule, &err);
        const struct net_guest_forward forward = forward_guest_for_net(&rule);
        if (!result)
            result = adds ? net_slirp_guest_forward_add(nat, &forward, &err)
                          : net_slirp_guest_forward_remove(nat, &forward, &err);
        end_call(call, result, &err);
    }
    forward_fini_guest(&rule);
}

void qmp_guestfwd_add(struct qmp_call *call)
{
    change_guest_forward(call, true);
}

void qmp_guestfwd_remove(struct qmp_call *call)
{
    change_guest_forward(call, false);
}

static void take_text(json_t *list, char *text)
{
    json_array_append_new(list, json_string(text));
    free(text);
}

static void list_forward(void *opaque, const struct net_forward *forward)
{
    take_text(opaque, forward_text(forward));
}

static void list_guest_forward(void *opaque, const struct net_guest_forward *forward)
{
    take_text(opaque, forward_text_guest(forward));
}

void qmp_query_forwards(struct qmp_call *call)
{
    const struct machine *machine = call->control->machine;
    json_t *list = json_array();
    for (unsigned i = 0; i < machine_config(machine)->nic_count; i++) {
        const struct net_backend *nat = nat_of(machine, i);
        if (!nat)
            continue;
        json_t *forwards = json_array(), *guest_forwards = json_array();
        net_slirp_for_each_forward(nat, list_forward, forwards);
        net_slirp_for_each_guest_forward(nat, list_guest_forward, guest_forwards);
        json_array_append_new(list, json_pack("{s:s,s:o,s:o}", "netdev", nat->id, "hostfwd",
                                              forwards, "guestfwd", guest_forwards));
    }
    qmp_call_return(call, list);
}
