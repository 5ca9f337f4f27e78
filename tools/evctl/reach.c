/* SPDX-License-Identifier: MIT */
/* reach: how the guest is reached: its addresses, forwarded ports, ssh. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/evctl/evctl.h"
#include "tools/evctl/interrupt.h"
#include "tools/evctl/life.h"
#include "tools/evctl/model.h"
#include "tools/evctl/network.h"
#include "tools/evctl/run.h"
#include "tools/evctl/tell.h"

#define ADDRESS_LOOK_MS 200

/* --- addresses --- */

static bool is_usable(const json_t *address)
{
    const char *text = model_text(address, "ip-address");
    return *text && strncmp(text, "fe80:", 5) != 0 && strncmp(text, "169.254.", 8) != 0;
}

const char *life_best_address(const json_t *nics)
{
    size_t i, k;
    json_t *nic, *address;
    for (int pass = 0; pass < 2; pass++)
        json_array_foreach(nics, i, nic) json_array_foreach(
            json_object_get(nic, "addresses"), k,
            address) if (is_usable(address) &&
                         strcmp(model_text(address, "ip-address-type"), pass ? "ipv6" : "ipv4") ==
                             0) return model_text(address, "ip-address");
    return "";
}

int life_addresses(const struct machine *machine, uint64_t wait_ms, json_t **addresses,
                   struct error *err)
{
    struct qmp qmp;
    struct tell_progress progress;
    uint64_t until_ns = tell_now_ns() + wait_ms * 1000000u;
    int result = qmp_open(machine, &qmp, err);
    if (result)
        return result;
    tell_progress_begin(&progress, "waiting for the guest's address");
    for (;;) {
        result = qmp_execute(&qmp, "query-nic-addresses", NULL, addresses, err);
        if (result || *life_best_address(*addresses))
            break;
        json_decref(*addresses);
        *addresses = NULL;
        if (tell_now_ns() >= until_ns) {
            result = error_set(err, ETIMEDOUT,
                               "the guest of '%s' has shown no address%s; it may not have asked "
                               "for one yet",
                               machine->name, wait_ms ? "" : " so far: evctl ip --wait waits");
            break;
        }
        usleep(ADDRESS_LOOK_MS * 1000);
        result = interrupt_check(err);
        if (result)
            break;
        tell_progress_update(&progress, -1);
    }
    tell_progress_end(&progress);
    qmp_close(&qmp);
    return result;
}

/* One row for each address, for people. */
static json_t *flatten(const json_t *nics)
{
    json_t *rows = json_array(), *nic, *address;
    size_t i, k;
    json_array_foreach(nics, i, nic)
        json_array_foreach(json_object_get(nic, "addresses"), k, address)
    {
        json_t *row = json_copy(address);
        json_object_set(row, "nic", json_object_get(nic, "id"));
        json_array_append_new(rows, row);
    }
    return rows;
}

int cmd_ip(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    json_t *addresses = NULL;
    uint64_t timeout_s = 120;
    int result = call_uint(call, "timeout", 1, 86400, &timeout_s, err);
    if (!result)
        result = machine_open(call->arguments[0], MACHINE_RUNNING, &machine, err);
    if (result)
        return result;
    result =
        life_addresses(&machine, call_has(call, "wait") ? timeout_s * 1000 : 0, &addresses, err);
    if (!result) {
        json_t *rows = flatten(addresses);
        if (call_has(call, "all"))
            tell_table(rows, "nic:NIC mac:MAC ip-address:ADDRESS source:SOURCE");
        else
            tell_line("%s", life_best_address(addresses));
        tell_json(json_pack("{s:s, s:o}", "ip", life_best_address(addresses), "addresses", rows));
        json_decref(addresses);
    }
    machine_close(&machine);
    return result;
}

/* --- forwarded ports --- */

static int monitor_command(const struct machine *machine, const char *command, const char *nic,
                           const char *rule, struct error *err)
{
    struct qmp qmp;
    char *line = NULL;
    int result = qmp_open(machine, &qmp, err);
    if (result)
        return result;
    CHECK(asprintf(&line, "%s %s %s", command, nic, rule) > 0);
    char *answer = qmp_monitor(&qmp, line, err);
    if (!answer)
        result = -err->code;
    else if (strncmp(answer, "Error: ", 7) == 0 || strncmp(answer, "usage:", 6) == 0)
        result = error_set(err, EIO, "%.*s", (int)strcspn(answer + 7, "\r\n"), answer + 7);
    free(answer);
    free(line);
    qmp_close(&qmp);
    return result;
}

/* The NIC that --nic names, or the first one behind NAT. */
static json_t *find_nat(const struct evctl_call *call, const struct machine *machine,
                        struct error *err)
{
    const char *id = call_get(call, "nic");
    size_t i;
    json_t *nic;
    json_array_foreach(json_object_get(machine->config, "nics"), i,
                       nic) if ((!id || strcmp(id, model_text(nic, "id")) == 0) &&
                                (network_forwards(nic) || network_is_kernel_nat(nic))) return nic;
    error_set(err, ENODEV, "the machine '%s' has no NIC %s; only one behind NAT forwards ports",
              machine->name, id ? id : "behind NAT");
    return NULL;
}

/* The part before '-': what the host listens on. */
static bool is_same_listener(const char *a, const char *b)
{
    size_t length = strcspn(a, "-");
    return length == strcspn(b, "-") && strncmp(a, b, length) == 0;
}

static int find_rule(const json_t *nic, const char *rule)
{
    size_t i;
    json_t *known;
    json_array_foreach(json_object_get(nic, "forwards"), i,
                       known) if (is_same_listener(json_string_value(known), rule)) return (int)i;
    return -1;
}

/* In the description first: should all end in between, the next start forwards it. */
static int add_rule(struct machine *machine, json_t *nic, const char *rule, struct error *err)
{
    char *whole = NULL;
    int result = 0;
    if (find_rule(nic, rule) >= 0)
        return error_set(err, EEXIST,
                         "'%.*s' is forwarded already; take it back first: evctl "
                         "forward del",
                         (int)strcspn(rule, "-"), rule);
    if (network_is_kernel_nat(nic))
        result = network_forward_add(nic, rule, &whole, err);
    if (result)
        return result;
    if (!json_object_get(nic, "forwards"))
        json_object_set_new(nic, "forwards", json_array());
    json_t *forwards = json_object_get(nic, "forwards");
    bool is_live = !whole && machine_pid(machine->folder_fd);
    json_array_append_new(forwards, json_string(whole ? whole : rule));
    free(whole);
    result = machine_save(machine, err);
    if (result || !is_live)
        return result;
    result = monitor_command(machine, "hostfwd_add", model_text(nic, "id"), rule, err);
    if (result) {
        json_array_remove(forwards, json_array_size(forwards) - 1);
        unused_result(machine_save(machine, NULL));
    }
    return result;
}

int cmd_forward_add(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    char *rule = model_read_forward(call->arguments[1], err);
    if (!rule)
        return -EINVAL;
    int result = machine_open(call->arguments[0], MACHINE_LOCK, &machine, err);
    if (!result) {
        json_t *nic = find_nat(call, &machine, err);
        result = nic ? add_rule(&machine, nic, rule, err) : -ENODEV;
        if (!result) {
            tell_note("%s is forwarded", rule);
            tell_json(json_pack("{s:s, s:s}", "nic", model_text(nic, "id"), "rule", rule));
        }
        machine_close(&machine);
    }
    free(rule);
    return result;
}

/* "2222", "tcp:2222", "tcp:127.0.0.1:2222" or a whole rule name the same listener. */
static char *read_listener(const char *text, struct error *err)
{
    char *longer = NULL;
    struct error ignored = {0};
    char *rule = model_read_forward(text, &ignored);
    if (rule)
        return rule;
    CHECK(asprintf(&longer, "%s:1", text) > 0);
    rule = model_read_forward(longer, &ignored);
    free(longer);
    if (!rule)
        error_set(err, EINVAL, "'%s' is no forwarded port; write [tcp|udp:][ADDRESS:]HOSTPORT",
                  text);
    return rule;
}

static int take_back(const struct machine *machine, const json_t *nic, int at, struct error *err)
{
    const char *rule =
        json_string_value(json_array_get(json_object_get(nic, "forwards"), (size_t)at));
    char listener[64];
    if (network_is_kernel_nat(nic))
        return network_forward_del(nic, rule, err);
    snprintf(listener, sizeof(listener), "%.*s", (int)strcspn(rule, "-"), rule);
    return machine_pid(machine->folder_fd)
               ? monitor_command(machine, "hostfwd_remove", model_text(nic, "id"), listener, err)
               : 0;
}

static int del_rule(struct machine *machine, const char *rule, struct error *err)
{
    size_t i;
    json_t *nic;
    json_array_foreach(json_object_get(machine->config, "nics"), i, nic)
    {
        int at = find_rule(nic, rule);
        if (at < 0)
            continue;
        int result = take_back(machine, nic, at, err);
        json_array_remove(json_object_get(nic, "forwards"), (size_t)at);
        return result ? result : machine_save(machine, err);
    }
    return error_set(err, ENODEV, "'%.*s' is not forwarded; 'evctl forward list' shows what is",
                     (int)strcspn(rule, "-"), rule);
}

int cmd_forward_del(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    char *rule = read_listener(call->arguments[1], err);
    if (!rule)
        return -EINVAL;
    int result = machine_open(call->arguments[0], MACHINE_LOCK, &machine, err);
    if (!result) {
        result = del_rule(&machine, rule, err);
        if (!result)
            tell_json(json_pack("{s:b}", "deleted", 1));
        machine_close(&machine);
    }
    free(rule);
    return result;
}

static json_t *list_rules(const json_t *config)
{
    json_t *rows = json_array(), *nic, *rule;
    size_t i, k;
    json_array_foreach(json_object_get(config, "nics"), i, nic)
        json_array_foreach(json_object_get(nic, "forwards"), k, rule)
    {
        const char *text = json_string_value(rule), *guest = strchr(text, '-') + 1;
        json_array_append_new(
            rows, json_pack("{s:s, s:s%, s:s%, s:s%}", "nic", model_text(nic, "id"), "protocol",
                            text, (size_t)3, "host", text + 4, (size_t)(guest - text - 5), "guest",
                            guest + (*guest == ':'), strlen(guest + (*guest == ':'))));
    }
    return rows;
}

int cmd_forward_list(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    int result = machine_open(call->arguments[0], 0, &machine, err);
    if (result)
        return result;
    json_t *rows = list_rules(machine.config);
    tell_table(rows, "nic:NIC protocol:PROTOCOL host:HOST guest:GUEST");
    tell_json(rows);
    machine_close(&machine);
    return 0;
}

/* --- ssh --- */

/* The host's end of a rule to the guest's port 22. */
static bool find_ssh_rule(const json_t *config, char host[64], unsigned *port)
{
    json_t *rows = list_rules(config), *row;
    size_t i;
    bool found = false;
    json_array_foreach(rows, i, row)
    {
        const char *guest = model_text(row, "guest"), *colon = strrchr(guest, ':');
        if (found || strcmp(colon ? colon + 1 : guest, "22") != 0 ||
            strcmp(model_text(row, "protocol"), "tcp") != 0)
            continue;
        found = sscanf(model_text(row, "host"), "%63[^:]:%u", host, port) == 2;
        if (strcmp(host, "0.0.0.0") == 0)
            snprintf(host, 64, "127.0.0.1");
    }
    json_decref(rows);
    return found;
}

/* A port of this host that nobody has now. */
static unsigned free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
              getsockname(fd, (struct sockaddr *)&address, &size) == 0;
    if (fd >= 0)
        close(fd);
    return ok ? ntohs(address.sin_port) : 0;
}

/* A forwarded port, made now if there is none; or the guest's own address. */
static int find_way(const struct evctl_call *call, struct machine *machine, char host[64],
                    unsigned *port, struct error *err)
{
    json_t *addresses = NULL;
    if (find_ssh_rule(machine->config, host, port))
        return 0;
    json_t *nic = find_nat(call, machine, NULL);
    if (nic) {
        char rule[64];
        *port = free_port();
        snprintf(host, 64, "127.0.0.1");
        snprintf(rule, sizeof(rule), "tcp:127.0.0.1:%u-:22", *port);
        return add_rule(machine, nic, rule, err);
    }
    int result = life_addresses(machine, 0, &addresses, err);
    if (!result)
        snprintf(host, 64, "%s", life_best_address(addresses));
    *port = 22;
    json_decref(addresses);
    return result;
}

/* The host key of a machine that is made and deleted is nobody's to remember for an address. */
static void become_ssh(const struct evctl_call *call, const struct machine *machine,
                       const char *host, unsigned port)
{
    const struct model_os *os = model_find_os(model_text(machine->config, "os"));
    const char *user = call_get(call, "user"), *own = model_text(machine->config, "user");
    char target[160], port_text[16], hosts[600], alias[100];
    const char *words[EVCTL_ARGUMENTS_MAX + 16] = {
        "ssh", "-p", port_text, "-o", hosts, "-o", alias, "-o", "StrictHostKeyChecking=accept-new"};
    unsigned count = 9;
    user = user ? user : *own ? own : os ? os->user : "root";
    snprintf(target, sizeof(target), "%s@%s", user, host);
    snprintf(port_text, sizeof(port_text), "%u", port);
    snprintf(hosts, sizeof(hosts), "UserKnownHostsFile=\"%.500s/known_hosts\"", machine->folder);
    snprintf(alias, sizeof(alias), "HostKeyAlias=%.36s", model_text(machine->config, "uuid"));
    words[count++] = target;
    for (unsigned i = 1; i < call->argument_count; i++)
        words[count++] = call->arguments[i];
    execvp("ssh", (char *const *)words);
}

int cmd_ssh(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    char host[64] = "";
    unsigned port = 22;
    int result = machine_open(call->arguments[0], MACHINE_LOCK | MACHINE_RUNNING, &machine, err);
    if (result)
        return result;
    result = find_way(call, &machine, host, &port, err);
    machine_unlock(&machine);
    if (!result && call->json) {
        tell_json(json_pack("{s:s, s:i}", "host", host, "port", (int)port));
    } else if (!result) {
        become_ssh(call, &machine, host, port);
        result = error_set_errno(err, errno, "cannot start ssh (apt-get install openssh-client)");
    }
    machine_close(&machine);
    return result;
}
