/* SPDX-License-Identifier: MIT */
/* block_export: the machine's disks for others over NBD: one server, any number of exports. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/socket.h"
#include "vmm/block/block_private.h"

#define BITMAPS_MAX 16

struct block_export {
    struct list node;
    struct block *block;
    char *id, *name;
    struct disk *disk;
    bool is_leaving;
};

static struct block_export *find_export(struct block *block, const char *text, bool by_id)
{
    list_for_each(node, &block->exports)
    {
        struct block_export *export = list_entry(node, struct block_export, node);
        if (text && !export->is_leaving && !strcmp(by_id ? export->id : export->name, text))
            return export;
    }
    return NULL;
}

bool block_exports_disk(const struct block *block, const struct disk *disk)
{
    list_for_each(node, &block->exports)
    {
        if (list_entry(node, struct block_export, node)->disk == disk)
            return true;
    }
    return false;
}

static void on_export_gone(void *opaque)
{
    struct block_export *export = opaque;
    struct block *block = export->block;
    json_t *data = json_pack("{s:s}", "id", export->id);
    list_remove(&export->node);
    if (!block->is_closing)
        block->host.emit(block->host.opaque, "BLOCK_EXPORT_DELETED", data);
    else
        json_decref(data);
    free(export->id);
    free(export->name);
    free(export);
}

static int remove_export(struct block_export *export, bool is_hard, struct error *err)
{
    int result =
        nbd_server_remove(export->block->nbd, export->name, is_hard, on_export_gone, export, err);
    if (!result)
        export->is_leaving = true;
    return result;
}

void block_drop_exports(struct block *block, struct disk *disk)
{
    struct error ignored = {0};
    list_for_each(node, &block->exports)
    {
        struct block_export *export = list_entry(node, struct block_export, node);
        if (!export->is_leaving && (!disk || export->disk == disk))
            unused_result(remove_export(export, true, &ignored));
    }
}

/* {"type": "unix", "data": {"path"}} or {"type": "inet", "data": {"host", "port"}}, flat or not. */
static int listen_at(const json_t *addr, struct error *err)
{
    const json_t *data = json_object_get(addr, "data") ? json_object_get(addr, "data") : addr;
    const char *type = block_text(addr, "type"), *path = block_text(data, "path");
    const char *host = block_text(data, "host"), *port = block_text(data, "port");
    if (type && !strcmp(type, "unix") && path)
        return socket_listen_unix(path, err);
    if (type && !strcmp(type, "inet") && host && port) {
        char *end;
        unsigned long number = strtoul(port, &end, 10);
        if (*end || !*port || number > UINT16_MAX)
            return error_set(err, EINVAL, "Parameter 'port' expects a port number");
        return socket_listen_tcp(host, (uint16_t)number, err);
    }
    return error_set(err, EINVAL,
                     "Parameter 'addr' needs type unix with a path, or inet with host "
                     "(of this machine's loopback) and port");
}

void block_nbd_start(struct block_call *call)
{
    struct block *block = call->block;
    struct error err = {0};
    if (block->nbd) {
        block_fail(call, BLOCK_GENERIC, "NBD server already running");
        return;
    }
    if (block_text(call->args, "tls-creds") || block_text(call->args, "tls-authz")) {
        block_fail(call, BLOCK_GENERIC, "tls-creds: TLS is not there; use a unix socket");
        return;
    }
    struct nbd_server_options options = {
        .listener = listen_at(json_object_get(call->args, "addr"), &err),
        .clients_max = (unsigned)block_uint(call->args, "max-connections", 0),
    };
    int result = options.listener < 0 ? options.listener : 0;
    if (!result) {
        result = nbd_server_create(block->loop, &options, &block->nbd, &err);
        if (result)
            close(options.listener);
    }
    block_finish(call, result, &err);
}

static int add(struct block *block, const char *id, const char *name, struct disk *disk,
               const json_t *args, struct error *err)
{
    const json_t *list = json_object_get(args, "bitmaps"), *entry;
    const char *bitmaps[BITMAPS_MAX], *single = block_text(args, "bitmap");
    size_t count = 0, index;
    json_array_foreach(list, index, entry)
    {
        const char *bitmap =
            json_is_object(entry) ? block_text(entry, "name") : json_string_value(entry);
        if (!bitmap || count == BITMAPS_MAX)
            return error_set(err, EINVAL, "Parameter 'bitmaps' expects up to %d names",
                             BITMAPS_MAX);
        bitmaps[count++] = bitmap;
    }
    if (single)
        bitmaps[count++ % BITMAPS_MAX] = single;
    const struct nbd_export_options options = {
        .name = name,
        .description = block_text(args, "description"),
        .disk = disk,
        .read_only = !block_bool(args, "writable", false),
        .bitmaps = bitmaps,
        .bitmap_count = count,
    };
    struct block_export *export = calloc(1, sizeof(*export));
    if (!export)
        return error_set(err, ENOMEM, "no memory for an export");
    *export =
        (struct block_export){.block = block, .id = strdup(id), .name = strdup(name), .disk = disk};
    int result = export->id && export->name ? nbd_server_add(block->nbd, &options, err) : -ENOMEM;
    if (result) {
        free(export->id);
        free(export->name);
        free(export);
        return result;
    }
    list_push_back(&block->exports, &export->node);
    return 0;
}

static void add_checked(struct block_call *call, const char *id, const char *name,
                        const char *device)
{
    struct block *block = call->block;
    struct error err = {0};
    struct disk *disk = NULL;
    int result = 0;
    if (!block->nbd || block->is_stopping_nbd)
        result = error_set(&err, EINVAL, "NBD server not running");
    else if (find_export(block, id, true))
        result = error_set(&err, EEXIST, "Block export id '%s' is already in use", id);
    else if (!(disk = block_find_root(block, device, &err)))
        result = -ENODEV;
    else if (disk_is_read_only(disk) && block_bool(call->args, "writable", false))
        result = error_set(&err, EROFS, "Cannot export read-only node as writable");
    if (!result)
        result = add(block, id, name, disk, call->args, &err);
    block_finish(call, result, &err);
}

void block_nbd_add(struct block_call *call)
{
    const char *device = block_text(call->args, "device"), *name = block_text(call->args, "name");
    add_checked(call, name ? name : device, name ? name : device, device);
}

void block_export_add(struct block_call *call)
{
    const char *type = block_text(call->args, "type"), *id = block_text(call->args, "id");
    const char *node = block_text(call->args, "node-name"), *name = block_text(call->args, "name");
    if (strcmp(type, "nbd") != 0)
        block_fail(call, BLOCK_GENERIC, "Parameter 'type' does not accept value '%.32s'", type);
    else
        add_checked(call, id, name ? name : node, node);
}

static void remove_found(struct block_call *call, struct block_export *export)
{
    struct error err = {0};
    unsigned is_hard;
    int result = block_choice(call->args, "mode", "safe|hard", 0, &is_hard, &err);
    if (!result)
        result = remove_export(export, is_hard, &err);
    block_finish(call, result, &err);
}

void block_nbd_remove(struct block_call *call)
{
    const char *name = block_text(call->args, "name");
    struct block_export *export = find_export(call->block, name, false);
    if (!call->block->nbd)
        block_fail(call, BLOCK_GENERIC, "NBD server not running");
    else if (!export)
        block_fail(call, BLOCK_GENERIC, "Export '%s' is not found", name);
    else
        remove_found(call, export);
}

void block_export_del(struct block_call *call)
{
    const char *id = block_text(call->args, "id");
    struct block_export *export = find_export(call->block, id, true);
    if (!export)
        block_fail(call, BLOCK_GENERIC, "Export '%s' is not found", id);
    else
        remove_found(call, export);
}

static void on_stopped(void *opaque)
{
    struct block_call *call = opaque;
    struct block *block = call->block;
    block->nbd = NULL;
    block->is_stopping_nbd = false;
    block_return(call, NULL);
    block_check_closed(block);
}

void block_nbd_stop(struct block_call *call)
{
    struct block *block = call->block;
    if (!block->nbd || block->is_stopping_nbd) {
        block_fail(call, BLOCK_GENERIC, "NBD server not running");
        return;
    }
    block_drop_exports(block, NULL);
    block->is_stopping_nbd = true;
    nbd_server_close(block->nbd, on_stopped, call);
}

void block_query_exports(struct block_call *call)
{
    json_t *list = json_array();
    list_for_each(node, &call->block->exports)
    {
        const struct block_export *export = list_entry(node, struct block_export, node);
        json_array_append_new(list, json_pack("{s:s,s:b,s:s,s:s}", "node-name",
                                              disk_node_name(export->disk), "shutting-down",
                                              export->is_leaving, "type", "nbd", "id", export->id));
    }
    block_return(call, list);
}
