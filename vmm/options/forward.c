/* SPDX-License-Identifier: MIT */
/* forward: parses rules of port forwarding. */
#include "vmm/options/forward.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/options/keyval.h"

bool forward_is_ipv4(const char *text, size_t length)
{
    char copy[INET_ADDRSTRLEN];
    struct in_addr address;
    if (length >= sizeof(copy))
        return false;
    memcpy(copy, text, length);
    copy[length] = 0;
    return inet_pton(AF_INET, copy, &address) == 1;
}

static bool is_address(const char *text)
{
    unsigned char address[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

static bool read_port(const char *text, const char *end, uint16_t *port)
{
    char digits[8];
    size_t length = (size_t)(end - text);
    uint64_t number;
    if (length >= sizeof(digits))
        return false;
    memcpy(digits, text, length);
    digits[length] = 0;
    if (!keyval_text_to_uint(digits, &number) || number < 1 || number > UINT16_MAX)
        return false;
    *port = (uint16_t)number;
    return true;
}

/* Reads "[address]:port", up to `end`; the address goes to *address unless it is empty. */
static bool read_endpoint(const char *text, const char *end, char **address, uint16_t *port)
{
    const char *colon = memrchr(text, ':', (size_t)(end - text));
    if (!colon || !read_port(colon + 1, end, port))
        return false;
    const char *last = colon;
    bool has_brackets = *text == '[' && last > text + 1 && last[-1] == ']';
    text += has_brackets;
    last -= has_brackets;
    if (text == last)
        return !has_brackets;
    *address = strndup(text, (size_t)(last - text));
    CHECK(*address);
    return is_address(*address) && has_brackets == (strchr(*address, ':') != NULL);
}

/* A path may have a "-" in it: the last one ends it. */
static bool read_path(const char *text, bool has_guest, struct config_forward *out)
{
    const char *end = has_guest ? strrchr(text, '-') : text + strlen(text);
    if (!end || end == text)
        return false;
    out->host_path = strndup(text, (size_t)(end - text));
    CHECK(out->host_path);
    return !has_guest ||
           read_endpoint(end + 1, end + strlen(end), &out->guest_address, &out->guest_port);
}

/* "tcp:" may be left out, its colon may not: what follows, or NULL. */
static const char *skip_tcp(const char *text)
{
    if (strncmp(text, "tcp:", 4) == 0)
        return text + 4;
    return *text == ':' ? text + 1 : NULL;
}

bool forward_parse(const char *text, bool has_guest, struct config_forward *out)
{
    memset(out, 0, sizeof(*out));
    if (strncmp(text, "unix:", 5) == 0)
        return read_path(text + 5, has_guest, out);
    out->is_udp = strncmp(text, "udp:", 4) == 0;
    text = out->is_udp ? text + 4 : skip_tcp(text);
    if (!text)
        return false;
    const char *end = text + strcspn(text, "-");
    if ((*end == '-') != has_guest ||
        !read_endpoint(text, end, &out->host_address, &out->host_port))
        return false;
    return !has_guest ||
           read_endpoint(end + 1, end + strlen(end), &out->guest_address, &out->guest_port);
}

void forward_fini(struct config_forward *forward)
{
    free(forward->host_path);
    free(forward->host_address);
    free(forward->guest_address);
}

static bool read_target(const char *text, struct config_guest_forward *out)
{
    if (strncmp(text, "tcp:localhost:", 14) == 0)
        return read_port(text + 14, text + strlen(text), &out->target_port);
    if (strncmp(text, "tcp:", 4) == 0)
        return read_endpoint(text + 4, text + strlen(text), &out->target_host, &out->target_port);
    const struct {
        const char *kind;
        char **out;
    } kinds[] = {
        {"unix:", &out->target_path}, {"cmd:", &out->command}, {"chardev:", &out->chardev}};
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        size_t length = strlen(kinds[i].kind);
        if (strncmp(text, kinds[i].kind, length) != 0)
            continue;
        *kinds[i].out = strdup(text + length);
        CHECK(*kinds[i].out);
        return text[length] != 0;
    }
    return false;
}

bool forward_parse_guest(const char *text, bool has_target, struct config_guest_forward *out)
{
    memset(out, 0, sizeof(*out));
    text = skip_tcp(text);
    if (!text)
        return false;
    const char *end = text + strcspn(text, "-");
    if ((*end == '-') != has_target || !read_endpoint(text, end, &out->address, &out->port))
        return false;
    return !has_target || read_target(end + 1, out);
}

void forward_fini_guest(struct config_guest_forward *forward)
{
    free(forward->address);
    free(forward->command);
    free(forward->target_path);
    free(forward->target_host);
    free(forward->chardev);
}

struct net_forward forward_for_net(const struct config_forward *forward)
{
    return (struct net_forward){
        .is_udp = forward->is_udp,
        .host_path = forward->host_path,
        .host_address = forward->host_address,
        .host_port = forward->host_port,
        .guest_address = forward->guest_address,
        .guest_port = forward->guest_port,
    };
}

struct net_guest_forward forward_guest_for_net(const struct config_guest_forward *forward)
{
    return (struct net_guest_forward){
        .guest_address = forward->address,
        .guest_port = forward->port,
        .command = forward->command,
        .target = {.path = forward->target_path,
                   .host = forward->target_host,
                   .port = forward->target_port},
    };
}

/* "10.0.2.15:22", "[fec0::2]:22", ":22" */
static void write_endpoint(char text[64], const char *address, uint16_t port)
{
    bool is_ipv6 = address && strchr(address, ':');
    snprintf(text, 64, "%s%s%s:%u", is_ipv6 ? "[" : "", address ? address : "", is_ipv6 ? "]" : "",
             port);
}

char *forward_text(const struct net_forward *forward)
{
    char host[64], guest[64], *text;
    write_endpoint(host, forward->host_address ? forward->host_address : "127.0.0.1",
                   forward->host_port);
    write_endpoint(guest, forward->guest_address, forward->guest_port);
    const char *kind = forward->host_path ? "unix" : forward->is_udp ? "udp" : "tcp";
    CHECK(asprintf(&text, "%s:%s-%s", kind, forward->host_path ? forward->host_path : host, guest) >
          0);
    return text;
}

char *forward_text_guest(const struct net_guest_forward *forward)
{
    char guest[64], target[64], *text;
    write_endpoint(guest, forward->guest_address, forward->guest_port);
    write_endpoint(target, forward->target.host ? forward->target.host : "127.0.0.1",
                   forward->target.port);
    const char *kind = forward->command ? "cmd" : forward->target.path ? "unix" : "tcp";
    const char *to = forward->command       ? forward->command
                     : forward->target.path ? forward->target.path
                                            : target;
    CHECK(asprintf(&text, "tcp:%s-%s:%s", guest, kind, to) > 0);
    return text;
}
