/* SPDX-License-Identifier: MIT */
/* forward: how people and evisor write a forwarded port. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/evctl/model.h"

struct rule {
    char protocol[4], host[40], guest[40];
    unsigned long host_port, guest_port;
};

static bool read_port(const char *text, unsigned long *port)
{
    char *end;
    *port = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && *port >= 1 && *port <= 65535;
}

static bool is_address(const char *text)
{
    struct in_addr address;
    return !*text || inet_pton(AF_INET, text, &address) == 1;
}

/* Splits "ADDRESS:PORT" or "PORT". */
static bool read_end(char *text, char address[40], unsigned long *port)
{
    char *colon = strrchr(text, ':');
    if (colon)
        *colon = '\0';
    snprintf(address, 40, "%s", colon ? text : "");
    return is_address(address) && read_port(colon ? colon + 1 : text, port);
}

/* Without a '-' the last colon parts the host's side from the guest's port. */
static char *split_sides(char *text)
{
    char *mark = strchr(text, '-');
    if (!mark)
        mark = strrchr(text, ':');
    if (mark)
        *mark++ = '\0';
    return mark;
}

static bool read_rule(char *text, struct rule *rule)
{
    snprintf(rule->protocol, sizeof(rule->protocol), "tcp");
    if (strncmp(text, "tcp:", 4) == 0 || strncmp(text, "udp:", 4) == 0) {
        memcpy(rule->protocol, text, 3);
        text += 4;
    }
    char *guest = split_sides(text);
    return guest && read_end(text, rule->host, &rule->host_port) &&
           read_end(guest, rule->guest, &rule->guest_port);
}

char *model_read_forward(const char *text, struct error *err)
{
    struct rule rule = {0};
    char *copy = strdup(text), *result = NULL;
    if (read_rule(copy, &rule))
        CHECK(asprintf(&result, "%s:%s:%lu-%s:%lu", rule.protocol,
                       *rule.host ? rule.host : "127.0.0.1", rule.host_port, rule.guest,
                       rule.guest_port) > 0);
    else
        error_set(err, EINVAL,
                  "'%s' is no rule of forwarding; write HOSTPORT:GUESTPORT, as 2222:22, or "
                  "tcp|udp:[ADDRESS:]HOSTPORT:GUESTPORT",
                  text);
    free(copy);
    return result;
}
