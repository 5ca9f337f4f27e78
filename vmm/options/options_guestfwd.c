/* SPDX-License-Identifier: MIT */
/*
 * options_guestfwd: guestfwd=...-chardev:ID, where -chardev socket,id=ID says which service it is.
 * Each of the guest's connections becomes one of its own to that service, so the chardev itself is
 * never opened.
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

static int take_target(struct options *options, struct config_guest_forward *forward,
                       struct error *err)
{
    const char *id = forward->chardev;
    struct config_chardev *chardev = find_chardev(options->config, id);
    if (!chardev)
        return error_set(err, ENOENT,
                         "guestfwd: there is no chardev with id=%s; add -chardev "
                         "socket,id=%s,path=PATH",
                         id, id);
    if ((chardev->kind != CHARDEV_UNIX && chardev->kind != CHARDEV_TCP) || chardev->is_server)
        return error_set(err, EINVAL,
                         "guestfwd: chardev %s is no client of a socket: connect to a service "
                         "with -chardev socket,id=%s,path=PATH, or run a command with -cmd:COMMAND",
                         id, id);
    if (has_user(options, id))
        return error_set(err, EBUSY, "guestfwd: chardev %s is used by something else too", id);
    if (chardev->path)
        forward->target_path = options_copy(chardev->path);
    else if (chardev->host)
        forward->target_host = options_copy(chardev->host);
    forward->target_port = chardev->port;
    return 0;
}

static void drop_chardev(struct options *options, struct config_guest_forward *forward)
{
    struct config_chardev *chardev = find_chardev(options->config, forward->chardev);
    char *id = chardev->id;
    chardev->id = NULL;
    options_chardev_fini(chardev);
    chardev->id = id; /* a name that leads nowhere: the null device */
    chardev->kind = CHARDEV_NULL;
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

int options_refuse_chardevs(const struct config_nic *nic, struct error *err)
{
    for (unsigned i = 0; i < nic->user.guest_forward_count; i++)
        if (nic->user.guest_forwards[i].chardev)
            return error_set(err, ENOTSUP,
                             "guestfwd: chardev:%s works at the start only; name the service "
                             "itself: unix:PATH or tcp:HOST:PORT",
                             nic->user.guest_forwards[i].chardev);
    return 0;
}
