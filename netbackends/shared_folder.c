/* SPDX-License-Identifier: MIT */
/*
 * shared_folder: one line in a file, "nat 10.0.2.0/255.255.255.0 host 10.0.2.2 dns 10.0.2.3 from
 * 10.0.2.15 prefix fec0::/64". It appears whole, by link(): no machine reads half of it.
 */
#include "netbackends/shared_folder.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"

enum { LINE_MAX_BYTES = 320, WORD_BYTES = 64 };

static const char *kind_of(const struct net_slirp_options *options)
{
    return options->host_only ? "hostonly" : "nat";
}

static void write_line(const struct net_slirp_options *options,
                       const struct slirp_addresses *addresses, char line[LINE_MAX_BYTES])
{
    const struct in_addr *const shown[] = {&addresses->net, &addresses->mask, &addresses->host,
                                           &addresses->dns, &addresses->dhcpstart};
    char text[ARRAY_SIZE(shown)][INET_ADDRSTRLEN], prefix[INET6_ADDRSTRLEN];
    for (size_t i = 0; i < ARRAY_SIZE(shown); i++)
        inet_ntop(AF_INET, shown[i], text[i], sizeof(text[i]));
    inet_ntop(AF_INET6, &addresses->prefix6, prefix, sizeof(prefix));
    snprintf(line, LINE_MAX_BYTES, "%s %s/%s host %s dns %s from %s prefix %s/%u\n",
             kind_of(options), text[0], text[1], text[2], text[3], text[4], prefix,
             addresses->prefix6_bits);
}

/* -EEXIST: somebody was first. */
static int publish(int folder_fd, const char *line)
{
    char name[WORD_BYTES];
    size_t length = strlen(line);
    int fd = -1;
    for (unsigned i = 0; fd < 0 && i < 100; i++) {
        snprintf(name, sizeof(name), ".network.%u.%u", (unsigned)getpid(), i);
        fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 && errno != EEXIST)
            return -errno;
    }
    int result = fd < 0 ? -EEXIST : 0;
    if (!result && write(fd, line, length) != (ssize_t)length)
        result = -EIO;
    if (!result && linkat(folder_fd, name, folder_fd, SHARED_NETWORK_FILE, 0) < 0)
        result = -errno;
    if (fd >= 0) {
        close(fd);
        unlinkat(folder_fd, name, 0);
    }
    return result;
}

static int read_line(int folder_fd, char line[LINE_MAX_BYTES])
{
    int fd = openat(folder_fd, SHARED_NETWORK_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t length = read(fd, line, LINE_MAX_BYTES - 1);
    int result = length < 0 ? -errno : 0;
    close(fd);
    line[MAX(length, 0)] = '\0';
    return result;
}

/* What the file says, through the same checks as what a person types. */
static int parse_line(const char *folder, const char *line, const struct net_slirp_options *options,
                      struct slirp_addresses *addresses, struct error *err)
{
    char kind[WORD_BYTES], net[WORD_BYTES], host[WORD_BYTES], dns[WORD_BYTES], from[WORD_BYTES],
        prefix[WORD_BYTES];
    if (sscanf(line, "%63s %63s host %63s dns %63s from %63s prefix %63s", kind, net, host, dns,
               from, prefix) != 6)
        return error_set(err, EINVAL,
                         "file '%s/" SHARED_NETWORK_FILE
                         "' does not describe a network: remove it, or name another folder",
                         folder);
    if (strcmp(kind, kind_of(options)) != 0)
        return error_set(err, EEXIST, "network '%s' is of type %s, not %s: name another folder",
                         folder, kind, kind_of(options));
    struct net_slirp_options known = *options;
    known.net = net;
    known.host = host;
    known.dns = dns;
    known.dhcpstart = from;
    known.ipv6_prefix = prefix;
    return slirp_options_addresses(&known, addresses, err);
}

static int join(const char *folder, int folder_fd, const struct net_slirp_options *options,
                struct slirp_addresses *addresses, struct error *err)
{
    struct slirp_addresses wanted = *addresses;
    char line[LINE_MAX_BYTES], own_line[LINE_MAX_BYTES];
    int result = read_line(folder_fd, line);
    if (result)
        return error_set_errno(err, -result, "cannot read '%s/" SHARED_NETWORK_FILE "'", folder);
    result = parse_line(folder, line, options, addresses, err);
    if (result)
        return result;
    bool has_wishes =
        options->net || options->host || options->dns || options->dhcpstart || options->ipv6_prefix;
    write_line(options, &wanted, own_line);
    if (!has_wishes || !strcmp(line, own_line))
        return 0;
    line[strcspn(line, "\n")] = '\0';
    return error_set(err, EEXIST,
                     "network '%s' is there already, as '%s': leave net= and the other addresses "
                     "out, or name another folder",
                     folder, line);
}

int shared_folder_agree(const char *folder, const struct net_slirp_options *options,
                        struct slirp_addresses *addresses, struct error *err)
{
    char line[LINE_MAX_BYTES];
    int result = slirp_options_addresses(options, addresses, err);
    if (result)
        return result;
    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "cannot make the folder of network '%s'", folder);
    int folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd < 0 && errno == ENOTDIR)
        return error_set(err, ENOTDIR, "network '%s' is not a folder: name another one", folder);
    if (folder_fd < 0)
        return error_set_errno(err, errno, "cannot use the folder of network '%s'", folder);
    write_line(options, addresses, line);
    result = faccessat(folder_fd, SHARED_NETWORK_FILE, F_OK, 0) == 0 ? -EEXIST
                                                                     : publish(folder_fd, line);
    if (result == -EEXIST)
        result = join(folder, folder_fd, options, addresses, err);
    else if (result)
        error_set_errno(err, -result, "cannot write '%s/" SHARED_NETWORK_FILE "'", folder);
    close(folder_fd);
    return result;
}
