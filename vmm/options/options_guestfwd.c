/* SPDX-License-Identifier: MIT */
/*
 * options_guestfwd: guestfwd=...-chardev:ID, where -chardev socket,id=ID says which service it is.
 * Each of the guest's connections becomes one of its own to that service, so the chardev itself is
 * never opened at the start. Later ones may name the same, or one that is open and used by nobody.
 */
#include <errno.h>
#include <string.h>

#include "vmm/options/options_private.h"

static struct config_chardev *find_chardev(struct vm_config *config, const char *id)
{
    for (unsigned i = 0; i < config->chardev_count; i++)
        if (config->chardevs[i].id && strcmp(config->chardevs[i].id, id) == 0)
            return &config->chardevs[i];
    return NULL;
}

static bool has_user(const struct options *options, const char *id)
{
    for (unsigned i = 0; i < options->char_user_count; i++)
        if (strcmp(options->char_users[i].chardev_id, id) == 0)
            return true;
    return false;
}

/* Also of one that drop_chardev left behind. */
static bool is_client(const struct config_chardev *chardev)
{
    bool was_client = chardev->kind == CHARDEV_NULL && (chardev->path || chardev->port);
    return !chardev->is_server &&
           (chardev->kind == CHARDEV_UNIX || chardev->kind == CHARDEV_TCP || was_client);
}

int options_guest_forward_target(struct vm_config *config, struct config_guest_forward *forward,
                                 struct error *err)
{
    const char *id = forward->chardev;
    const struct config_chardev *chardev = find_chardev(config, id);
    if (!chardev)
        return error_set(err, ENOENT,
                         "guestfwd: there is no chardev with id=%s; add -chardev "
                         "socket,id=%s,path=PATH",
                         id, id);
    if (!is_client(chardev))
        return error_set(err, EINVAL,
                         "guestfwd: chardev %s is no client of a socket: connect to a service "
                         "with -chardev socket,id=%s,path=PATH, or run a command with -cmd:COMMAND",
                         id, id);
    if (chardev->is_telnet)
        return error_set(err, ENOTSUP,
                         "guestfwd: chardev %s speaks telnet, and a forwarded connection is plain: "
                         "leave telnet=on out",
                         id);
    if (chardev->path)
        forward->target_path = text_copy(chardev->path);
    else if (chardev->host)
        forward->target_host = text_copy(chardev->host);
    forward->target_port = chardev->port;
    return 0;
}

static int take_target(struct options *options, struct config_guest_forward *forward,
                       struct error *err)
{
    if (has_user(options, forward->chardev))
        return error_set(err, EBUSY, "guestfwd: chardev %s is used by something else too",
                         forward->chardev);
    return options_guest_forward_target(options->config, forward, err);
}

/* It says where the service is, to those who come later too, and is the null device otherwise. */
static void drop_chardev(struct options *options, struct config_guest_forward *forward)
{
    find_chardev(options->config, forward->chardev)->kind = CHARDEV_NULL;
}

/* Several may name one chardev: all take their target before any gives it up. */
static int for_each_forward(struct options *options, bool takes, struct error *err)
{
    struct vm_config *config = options->config;
    int result = 0;
    for (unsigned i = 0; i < config->nic_count; i++) {
        struct config_net_user *user = &config->nics[i].user;
        for (unsigned j = 0; j < user->guest_forward_count && !result; j++) {
            if (!user->guest_forwards[j].chardev)
                continue;
            if (takes)
                result = take_target(options, &user->guest_forwards[j], err);
            else
                drop_chardev(options, &user->guest_forwards[j]);
        }
    }
    return result;
}

int options_finish_guestfwd(struct options *options, struct error *err)
{
    int result = for_each_forward(options, true, err);
    return result ? result : for_each_forward(options, false, err);
}
