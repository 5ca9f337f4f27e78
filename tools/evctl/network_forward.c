/* SPDX-License-Identifier: MIT */
/* network_forward: the machine's rules stand in machine.json and, whole, with the network. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/evctl/model.h"
#include "tools/evctl/network_kernel.h"
#include "tools/evctl/network_private.h"
#include "tools/evctl/network_rules.h"
#include "tools/evctl/network_steps.h"

/* The network that a NIC is on, if the kernel translates there; the caller releases it. */
static json_t *load_nat(const json_t *nic)
{
    bool has_network = strcmp(model_text(nic, "mode"), "network") == 0;
    json_t *network = has_network ? network_load(model_text(nic, "network"), NULL) : NULL;
    if (network_is_kernel(network) && strcmp(model_text(network, "mode"), "nat") == 0)
        return network;
    json_decref(network);
    return NULL;
}

bool network_is_kernel_nat(const json_t *nic)
{
    json_t *network = load_nat(nic);
    json_decref(network);
    return network != NULL;
}

/* Translation would take the port from a program of the host's that listens there. */
static int check_port(const char *rule, struct error *err)
{
    char address[INET_ADDRSTRLEN] = "";
    unsigned port;
    bool is_udp = strncmp(rule, "udp:", 4) == 0;
    struct sockaddr_in at = {.sin_family = AF_INET};
    if (sscanf(rule + 4, "%15[0-9.]:%u-", address, &port) != 2 ||
        inet_pton(AF_INET, address, &at.sin_addr) != 1)
        return error_set(err, EINVAL, "'%s' is no rule of forwarding", rule);
    at.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, (is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0), on = 1,
        code = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0)
        code = errno;
    close(fd);
    if (code == EADDRINUSE)
        return error_set(err, code,
                         "port %u of %s is used by another program of this host: choose another",
                         port, address);
    return code == EADDRNOTAVAIL ? error_set(err, code, "this host has no address %s", address) : 0;
}

/* Keeps the network with these forwards, and has the kernel follow them. */
static int change(const char *name, json_t *network, json_t *forwards, struct error *err)
{
    char *folder = network_path(name, "", err);
    bool is_up = network_is_up(network);
    json_t *before = json_incref(json_object_get(network, "forwards"));
    int result =
        folder ? network_kernel_forward(name, folder, network, forwards, is_up, err) : -err->code;
    if (!result) {
        json_object_set(network, "forwards", forwards);
        result = network_replace(name, network, err);
        if (result && is_up)
            unused_result(network_kernel_forward(name, folder, network, before, true, NULL));
    }
    json_decref(before);
    free(folder);
    return result;
}

/* "tcp:127.0.0.1:8080-:80" and the guest's address. */
static int complete(const char *name, json_t *network, const json_t *nic, const char *rule,
                    char **whole, struct error *err)
{
    const char *guest = strchr(rule, '-') + 1;
    char address[16];
    if (*guest != ':') {
        *whole = strdup(rule);
        return 0;
    }
    char *folder = network_path(name, "", err);
    int result = folder ? network_kernel_pin(name, folder, network, model_text(nic, "mac"),
                                             network_is_up(network), address, err)
                        : -err->code;
    free(folder);
    if (!result)
        CHECK(asprintf(whole, "%.*s%s%s", (int)(guest - rule), rule, address, guest) > 0);
    return result;
}

static int add(const char *name, json_t *network, const json_t *nic, const char *rule, char **whole,
               struct error *err)
{
    json_t *known, *forwards = json_object_get(network, "forwards");
    size_t i;
    bool is_there = false;
    int result = complete(name, network, nic, rule, whole, err);
    json_array_foreach(forwards, i, known)
    {
        is_there |= !result && strcmp(json_string_value(known), *whole) == 0;
        if (!result && !is_there && network_rules_collide(json_string_value(known), rule))
            result = error_set(err, EEXIST, "'%.*s' is forwarded on the network '%s' already: %s",
                               (int)strcspn(rule, "-"), rule, name, json_string_value(known));
    }
    /* Should an earlier command have ended half-way, this one completes it. */
    if (!result && !is_there)
        result = check_port(rule, err);
    if (result || is_there)
        return result;
    json_t *longer = forwards ? json_deep_copy(forwards) : json_array();
    json_array_append_new(longer, json_string(*whole));
    result = change(name, network, longer, err);
    json_decref(longer);
    return result;
}

static int check_root(const char *name, struct error *err)
{
    return geteuid() == 0
               ? 0
               : error_set(err, EPERM, "the network '%s' is root's: use sudo evctl", name);
}

int network_forward_add(const json_t *nic, const char *rule, char **whole, struct error *err)
{
    const char *name = model_text(nic, "network");
    json_t *network = load_nat(nic);
    int result =
        network ? check_root(name, err) : error_set(err, ENODEV, "there is no network '%s'", name);
    if (!result)
        result = add(name, network, nic, rule, whole, err);
    if (result) {
        free(*whole);
        *whole = NULL;
    }
    json_decref(network);
    return result;
}

/* Without the rules that are `rule`, or go to the machine, where `rule` is NULL. */
static json_t *shorter(const json_t *network, const json_t *nic, const char *rule)
{
    json_t *left = json_array(), *text, *of_nic;
    size_t i, k;
    json_array_foreach(json_object_get(network, "forwards"), i, text)
    {
        bool goes = rule && strcmp(rule, json_string_value(text)) == 0;
        json_array_foreach(json_object_get(nic, "forwards"), k, of_nic) goes |=
            !rule && json_equal(of_nic, text);
        if (!goes)
            json_array_append(left, text);
    }
    return left;
}

int network_forward_del(const json_t *nic, const char *rule, struct error *err)
{
    const char *name = model_text(nic, "network");
    json_t *network = load_nat(nic);
    int result = network ? check_root(name, err) : 0;
    if (network && !result) {
        json_t *left = shorter(network, nic, rule);
        result = change(name, network, left, err);
        json_decref(left);
    }
    json_decref(network);
    return result;
}

void network_forward_forget(const json_t *nic)
{
    const char *name = model_text(nic, "network"), *mac = model_text(nic, "mac");
    json_t *network = load_nat(nic), *pins = json_object_get(network, "pins");
    struct error err = {0};
    if (!network)
        return;
    size_t had = json_array_size(pins);
    for (size_t i = had; i-- > 0;)
        if (strncasecmp(json_string_value(json_array_get(pins, i)), mac, strlen(mac)) == 0)
            json_array_remove(pins, i);
    if (json_array_size(json_object_get(nic, "forwards")) || json_array_size(pins) != had) {
        json_t *left = shorter(network, nic, NULL);
        (void)!change(name, network, left, &err);
        json_decref(left);
    }
    json_decref(network);
}

void network_forward_forget_all(const json_t *config)
{
    size_t i;
    json_t *nic;
    json_array_foreach(json_object_get(config, "nics"), i, nic) network_forward_forget(nic);
}
