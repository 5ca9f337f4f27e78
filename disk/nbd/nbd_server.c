/* SPDX-License-Identifier: MIT */
/* nbd_server: the listener, the exports, and who is connected. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/socket.h"
#include "disk/nbd/nbd_private.h"

static void on_watch_closed(struct loop_watch *watch);

static unsigned clients_max(const struct nbd_server *server)
{
    return server->options.clients_max ? server->options.clients_max : NBD_CLIENTS_MAX;
}

/* Who is too much waits in the listener's backlog. */
static void update_watch(struct nbd_server *server)
{
    if (!server->closing)
        loop_watch_set(&server->watch,
                       server->client_count < clients_max(server) ? UV_READABLE : 0);
}

/* Descriptors or memory are out: the next one comes in when somebody has left. */
static void on_refused(struct nbd_server *server, int result)
{
    log_limited("nbd: cannot serve one more client: %s", strerror(-result));
    if (server->client_count)
        loop_watch_set(&server->watch, 0);
}

static void on_listener_ready(struct loop_watch *watch, int events)
{
    struct nbd_server *server = watch->opaque;
    int fd = socket_accept(server->listener);
    (void)events;
    if (fd == -EPERM)
        log_limited("nbd: a client of another user was turned away");
    if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM)
        on_refused(server, fd);
    if (fd < 0)
        return;
    int result = nbd_client_open(server, fd);
    if (result) {
        close(fd);
        on_refused(server, result);
        return;
    }
    update_watch(server);
}

static void free_export(struct nbd_export *export)
{
    free(export->name);
    free(export->description);
    free(export);
}

static void finish_exports(struct nbd_server *server)
{
    list_for_each(node, &server->exports)
    {
        struct nbd_export *export = list_entry(node, struct nbd_export, node);
        if (!export->is_leaving || export->clients)
            continue;
        list_remove(&export->node);
        if (export->on_removed)
            export->on_removed(export->opaque);
        free_export(export);
    }
}

static void on_settle(struct loop_task *task)
{
    struct nbd_server *server = container_of(task, struct nbd_server, settle);
    finish_exports(server);
    if (!server->closing || !server->watch_closed || server->client_count)
        return;
    void (*on_closed)(void *) = server->on_closed;
    void *opaque = server->opaque;
    CHECK(list_is_empty(&server->exports));
    free(server);
    on_closed(opaque);
}

int nbd_server_create(struct loop *loop, const struct nbd_server_options *options,
                      struct nbd_server **out, struct error *err)
{
    struct nbd_server *server = calloc(1, sizeof(*server));
    if (!server)
        return error_set(err, ENOMEM, "no memory for an NBD server");
    server->loop = loop;
    server->listener = options->listener;
    server->options = *options;
    list_init(&server->exports);
    list_init(&server->clients);
    loop_task_init(loop, &server->settle, LOOP_STAGE_DRAIN, on_settle);
    int result = loop_watch_init(loop, &server->watch, server->listener, on_listener_ready);
    if (result) {
        free(server);
        return error_set_errno(err, -result, "cannot watch the NBD server's socket");
    }
    server->watch.opaque = server;
    update_watch(server);
    *out = server;
    return 0;
}

struct nbd_export *nbd_find_export(struct nbd_server *server, const char *name, size_t name_bytes)
{
    list_for_each(node, &server->exports)
    {
        struct nbd_export *export = list_entry(node, struct nbd_export, node);
        if (!export->is_leaving && strlen(export->name) == name_bytes &&
            !memcmp(export->name, name, name_bytes))
            return export;
    }
    return NULL;
}

static int add_bitmaps(struct nbd_export *export, const struct nbd_export_options *options,
                       struct error *err)
{
    if (options->bitmap_count > NBD_BITMAPS_MAX)
        return error_set(err, E2BIG, "at most %d bitmaps of an export can be shown",
                         NBD_BITMAPS_MAX);
    for (size_t i = 0; i < options->bitmap_count; i++) {
        const char *name = options->bitmaps[i];
        struct dirty_bitmap *bitmap = disk_find_bitmap(options->disk, name);
        if (!bitmap)
            return error_set(err, ENOENT, "Bitmap '%s' is not found", name);
        if (bitmap->inconsistent)
            return error_set(err, EINVAL,
                             "Bitmap '%s' is inconsistent and cannot be used; remove it with "
                             "evisor-img bitmap --remove",
                             name);
        if (export->read_only && bitmap->enabled && !disk_is_read_only(options->disk))
            return error_set(err, EINVAL, "Enabled bitmap '%s' incompatible with readonly export",
                             name);
        export->bitmaps[export->bitmap_count++] = bitmap;
    }
    return 0;
}

static int check_strings(const struct nbd_server *server, const struct nbd_export_options *options,
                         struct error *err)
{
    const char *description = options->description ? options->description : "";
    if (strlen(options->name) > NBD_NAME_MAX)
        return error_set(err, EINVAL, "export name '%.20s...' too long (at most %d bytes)",
                         options->name, NBD_NAME_MAX);
    if (strlen(description) > NBD_NAME_MAX)
        return error_set(err, EINVAL, "description '%.20s...' too long (at most %d bytes)",
                         description, NBD_NAME_MAX);
    list_for_each(node, &server->exports)
    {
        if (!strcmp(list_entry(node, struct nbd_export, node)->name, options->name))
            return error_set(err, EEXIST, "NBD server already has export named '%s'",
                             options->name);
    }
    return 0;
}

int nbd_server_add(struct nbd_server *server, const struct nbd_export_options *options,
                   struct error *err)
{
    int result = check_strings(server, options, err);
    if (result)
        return result;
    struct nbd_export *export = calloc(1, sizeof(*export));
    if (!export)
        return error_set(err, ENOMEM, "no memory for an NBD export");
    export->name = strdup(options->name);
    export->description = options->description ? strdup(options->description) : NULL;
    export->disk = options->disk;
    export->detect_zeroes = options->detect_zeroes;
    export->zeroes_unmap = options->zeroes_unmap;
    export->read_only = options->read_only || disk_is_read_only(options->disk);
    if (!export->name || (options->description && !export->description))
        result = error_set(err, ENOMEM, "no memory for an NBD export");
    if (!result)
        result = add_bitmaps(export, options, err);
    if (result)
        free_export(export);
    else
        list_push_back(&server->exports, &export->node);
    return result;
}

static void send_away(struct nbd_server *server, struct nbd_export *export)
{
    list_for_each(node, &server->clients)
    {
        struct nbd_client *client = list_entry(node, struct nbd_client, node);
        if (client->contexts_of == export)
            client->contexts_of = NULL;
        if (client->export == export)
            nbd_client_close(client);
    }
    export->is_leaving = true;
    loop_task_queue(&server->settle);
}

int nbd_server_remove(struct nbd_server *server, const char *name, bool hard,
                      void (*on_removed)(void *opaque), void *opaque, struct error *err)
{
    struct nbd_export *export = nbd_find_export(server, name, strlen(name));
    if (!export)
        return error_set(err, ENOENT, "Export '%s' is not found", name);
    if (export->clients && !hard)
        return error_set(err, EBUSY, "export '%s' still in use", name);
    export->on_removed = on_removed;
    export->opaque = opaque;
    send_away(server, export);
    return 0;
}

void nbd_server_forget(struct nbd_server *server, struct nbd_client *client)
{
    struct nbd_export *export = client->export;
    list_remove(&client->node);
    server->client_count--;
    loop_task_queue(&server->settle);
    update_watch(server);
    if (!export)
        return;
    export->clients--;
    if (!server->closing && server->options.on_client_gone)
        server->options.on_client_gone(server->options.opaque, server->client_count);
}

static void on_watch_closed(struct loop_watch *watch)
{
    struct nbd_server *server = watch->opaque;
    server->watch_closed = true;
    loop_task_queue(&server->settle);
}

void nbd_server_close(struct nbd_server *server, void (*on_closed)(void *opaque), void *opaque)
{
    CHECK(!server->closing);
    server->closing = true;
    server->on_closed = on_closed;
    server->opaque = opaque;
    loop_watch_close(&server->watch, on_watch_closed);
    close(server->listener);
    list_for_each(node, &server->exports)
    {
        list_entry(node, struct nbd_export, node)->is_leaving = true;
    }
    list_for_each(node, &server->clients)
    {
        nbd_client_close(list_entry(node, struct nbd_client, node));
    }
    loop_task_queue(&server->settle);
}
