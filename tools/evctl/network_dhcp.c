/* SPDX-License-Identifier: MIT */
/* network_dhcp: dnsmasq's command line, and its file of leases. */
#include "tools/evctl/network_dhcp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tools/evctl/network_steps.h"

#define PROGRAM "dnsmasq"

enum { MAC_LETTERS = 17 };

static void pid_path(const char *folder, char path[4096])
{
    snprintf(path, 4096, "%s/dnsmasq.pid", folder);
}

static bool read_lease(const char *text, const struct network_subnet *subnet, uint32_t *address)
{
    const char *equals = strchr(text, '=');
    return equals && equals - text == MAC_LETTERS &&
           strspn(text, "0123456789abcdefABCDEF:") == MAC_LETTERS &&
           network_read_address(equals + 1, address) &&
           (*address & subnet->mask) == subnet->address;
}

static int add_leases(json_t *words, const json_t *leases, const struct network_subnet *subnet,
                      struct error *err)
{
    size_t i;
    json_t *text;
    json_array_foreach(leases, i, text)
    {
        const char *lease = json_string_value(text);
        uint32_t address;
        if (!read_lease(lease, subnet, &address))
            return error_set(err, EINVAL,
                             "--lease %s: write MAC=ADDRESS, with an address of the subnet", lease);
        json_array_append_new(words,
                              json_sprintf("--dhcp-host=%.17s,%s", lease, lease + MAC_LETTERS + 1));
    }
    return 0;
}

/* Machines make their own addresses of the prefix; without an outside no router is told of. */
static void add_ipv6(json_t *words, const struct network_dhcp *dhcp)
{
    json_array_append_new(words, json_string("--enable-ra"));
    json_array_append_new(words, json_sprintf("--dhcp-range=%.*s,ra-stateless,64,12h",
                                              (int)strcspn(dhcp->subnet6, "/"), dhcp->subnet6));
    if (!dhcp->is_nat)
        json_array_append_new(words, json_sprintf("--ra-param=%s,0,0", dhcp->bridge));
}

static json_t *make_words(const struct network_dhcp *dhcp, const char *pid_file, struct error *err)
{
    char first[INET_ADDRSTRLEN], last[INET_ADDRSTRLEN];
    const struct network_subnet *subnet = &dhcp->subnet;
    json_t *words = steps_words(PROGRAM, "--conf-file=", "--bind-dynamic", "--except-interface=lo",
                                "--dhcp-authoritative", "--dhcp-no-override", "--strict-order",
                                "--no-hosts", dhcp->is_nat ? "--port=53" : "--port=0", NULL);
    if (!dhcp->is_nat)
        json_array_append_new(words, json_string("--dhcp-option=3"));
    json_array_append_new(words, json_sprintf("--interface=%s", dhcp->bridge));
    json_array_append_new(words, json_sprintf("--pid-file=%s", pid_file));
    json_array_append_new(words, json_sprintf("--dhcp-leasefile=%s/leases", dhcp->folder));
    json_array_append_new(
        words, json_sprintf("--dhcp-range=%s,%s,12h", network_dotted(subnet->address + 2, first),
                            network_dotted((subnet->address | ~subnet->mask) - 1, last)));
    if (*dhcp->subnet6)
        add_ipv6(words, dhcp);
    int result = add_leases(words, dhcp->leases, subnet, err);
    if (!result)
        result = add_leases(words, dhcp->pins, subnet, err);
    if (!result)
        return words;
    json_decref(words);
    return NULL;
}

int network_dhcp_start(json_t *undo, const struct network_dhcp *dhcp, struct error *err)
{
    char pid_file[4096];
    pid_path(dhcp->folder, pid_file);
    json_t *words = make_words(dhcp, pid_file, err);
    /* It goes to the background once it listens, so a failure is known here. */
    int result = words ? steps_run(undo, words, NULL, err) : -err->code;
    if (!result && undo)
        steps_end_process(undo, PROGRAM, pid_file);
    return result;
}

int network_dhcp_restart(const struct network_dhcp *dhcp, struct error *err)
{
    char pid_file[4096];
    pid_path(dhcp->folder, pid_file);
    json_t *words = make_words(dhcp, pid_file, err);
    if (!words)
        return -err->code;
    steps_stop_process(PROGRAM, pid_file);
    return steps_run(NULL, words, NULL, err);
}

bool network_dhcp_is_alive(const char *folder)
{
    char pid_file[4096];
    pid_path(folder, pid_file);
    return steps_is_alive(PROGRAM, pid_file);
}

/* Among "MAC=ADDRESS": the address of `mac`, or who has `address`. */
static bool find(const json_t *leases, const char *mac, uint32_t *address)
{
    size_t i;
    json_t *text;
    json_array_foreach(leases, i, text)
    {
        const char *lease = json_string_value(text);
        uint32_t of_lease = 0;
        if (!network_read_address(lease + MAC_LETTERS + 1, &of_lease))
            continue;
        bool is_it = mac ? strncasecmp(lease, mac, MAC_LETTERS) == 0 : of_lease == *address;
        if (is_it) {
            *address = of_lease;
            return true;
        }
    }
    return false;
}

/* What dnsmasq has leased, in the same form. Lines: expiry, MAC, address, name, client. */
static json_t *read_leased(const char *folder)
{
    char path[4096], line[1024], mac[18], address[INET_ADDRSTRLEN];
    json_t *leased = json_array();
    snprintf(path, sizeof(path), "%s/leases", folder);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "%*u %17s %15s", mac, address) == 2 && strlen(mac) == MAC_LETTERS)
            json_array_append_new(leased, json_sprintf("%s=%s", mac, address));
    if (file)
        fclose(file);
    return leased;
}

int network_dhcp_address(const struct network_dhcp *dhcp, const char *mac, uint32_t *out,
                         struct error *err)
{
    json_t *leased = read_leased(dhcp->folder);
    uint32_t last = (dhcp->subnet.address | ~dhcp->subnet.mask) - 1, at = last;
    bool is_found =
        find(dhcp->leases, mac, out) || find(dhcp->pins, mac, out) || find(leased, mac, out);
    /* From the end: dnsmasq chooses by the MAC address, people from the beginning. */
    while (
        !is_found && at > dhcp->subnet.address + 1 &&
        (find(dhcp->leases, NULL, &at) || find(dhcp->pins, NULL, &at) || find(leased, NULL, &at)))
        at--;
    json_decref(leased);
    if (!is_found)
        *out = at;
    return is_found || at > dhcp->subnet.address + 1
               ? 0
               : error_set(err, ENOSPC, "the network has no address left for %s", mac);
}
