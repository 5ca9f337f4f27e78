/* SPDX-License-Identifier: MIT */
/*
 * nbd_handshake: fixed newstyle negotiation. An option's data is looked at only when all of it is
 * there; too long an option is skipped and refused. Nothing here touches the disk.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "disk/nbd/nbd_private.h"

#define ZEROES_AFTER_EXPORT 124

/* Room for a reply's payload; NULL after closing the client for want of memory. */
static struct nbd_out *new_out(struct nbd_client *client, size_t bytes, uint8_t **payload)
{
    struct nbd_out *out = calloc(1, sizeof(*out) + bytes);
    if (!out) {
        nbd_client_close(client);
        return NULL;
    }
    *payload = (uint8_t *)(out + 1);
    out->payload = *payload;
    out->payload_bytes = bytes;
    return out;
}

/* A reply to `option` with room for `bytes` of data, to be filled and sent. */
static struct nbd_out *new_reply(struct nbd_client *client, uint32_t option, uint32_t type,
                                 size_t bytes, uint8_t **data)
{
    struct nbd_out *out = new_out(client, bytes, data);
    if (!out)
        return NULL;
    store_be64(out->head, NBD_OPTION_REPLY_MAGIC);
    store_be32(out->head + 8, option);
    store_be32(out->head + 12, type);
    store_be32(out->head + 16, (uint32_t)bytes);
    out->head_bytes = 20;
    return out;
}

static void reply_bytes(struct nbd_client *client, uint32_t option, uint32_t type,
                        const void *bytes, size_t length)
{
    uint8_t *data;
    struct nbd_out *out = client->closing ? NULL : new_reply(client, option, type, length, &data);
    if (!out)
        return;
    if (length)
        memcpy(data, bytes, length);
    nbd_client_send(client, out);
}

static void ack(struct nbd_client *client, uint32_t option)
{
    reply_bytes(client, option, NBD_REP_ACK, NULL, 0);
}

static void refuse(struct nbd_client *client, uint32_t option, uint32_t type, const char *why)
{
    reply_bytes(client, option, type, why, strlen(why));
}

void nbd_handshake_begin(struct nbd_client *client)
{
    uint8_t *hello;
    struct nbd_out *out = new_out(client, 18, &hello);
    if (!out)
        return;
    store_be64(hello, NBD_MAGIC);
    store_be64(hello + 8, NBD_OPTION_MAGIC);
    store_be16(hello + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    nbd_client_send(client, out);
}

bool nbd_handshake_hello(struct nbd_client *client)
{
    if (nbd_input_bytes(client) < 4)
        return false;
    uint32_t flags = load_be32(nbd_input(client));
    client->in_start += 4;
    client->is_fixed = flags & NBD_FIXED_NEWSTYLE;
    client->no_zeroes = flags & NBD_NO_ZEROES;
    client->phase = NBD_PHASE_OPTION;
    if (flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)) {
        log_limited("nbd: a client has unknown flags (%#x)", flags);
        nbd_client_close(client);
    }
    return !client->closing;
}

/* --- strings inside of option data --- */

struct cursor {
    const uint8_t *at, *end;
};

static bool take32(struct cursor *cursor, uint32_t *value)
{
    if (cursor->end - cursor->at < 4)
        return false;
    *value = load_be32(cursor->at);
    cursor->at += 4;
    return true;
}

/* A length and so many bytes. */
static bool take_string(struct cursor *cursor, const char **text, uint32_t *bytes)
{
    if (!take32(cursor, bytes) || *bytes > cursor->end - cursor->at || *bytes > NBD_NAME_MAX)
        return false;
    *text = (const char *)cursor->at;
    cursor->at += *bytes;
    return true;
}

/* --- choosing an export --- */

static uint16_t transmission_flags(const struct nbd_client *client, const struct nbd_export *export)
{
    /* All clients share one disk: a flush of any covers the completed writes of all. */
    unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_SEND_CACHE | NBD_FLAG_CAN_MULTI_CONN;
    if (client->structured)
        flags |= NBD_FLAG_SEND_DF;
    if (export->read_only)
        flags |= NBD_FLAG_READ_ONLY;
    else
        flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    return (uint16_t)flags;
}

static void enter_transmission(struct nbd_client *client, struct nbd_export *export)
{
    if (client->contexts_of != export)
        client->contexts = 0;
    client->export = export;
    export->clients++;
    client->phase = NBD_PHASE_REQUEST;
    loop_timer_disarm(&client->timer);
}

static bool on_export_name(struct nbd_client *client, const uint8_t *data, uint32_t bytes)
{
    uint8_t *reply;
    struct nbd_export *export = nbd_find_export(client->server, (const char *)data, bytes);
    size_t zeroes = client->no_zeroes ? 0 : ZEROES_AFTER_EXPORT;
    /* This option knows no other refusal. */
    struct nbd_out *out = export ? new_out(client, 10 + zeroes, &reply) : NULL;
    if (!out) {
        nbd_client_close(client);
        return false;
    }
    store_be64(reply, disk_size_bytes(export->disk));
    store_be16(reply + 8, transmission_flags(client, export));
    nbd_client_send(client, out);
    enter_transmission(client, export);
    return true;
}

static void send_info(struct nbd_client *client, uint32_t option, enum nbd_info type,
                      const void *bytes, size_t length)
{
    uint8_t *data;
    struct nbd_out *out =
        client->closing ? NULL : new_reply(client, option, NBD_REP_INFO, 2 + length, &data);
    if (!out)
        return;
    store_be16(data, (uint16_t)type);
    memcpy(data + 2, bytes, length);
    nbd_client_send(client, out);
}

static void send_infos(struct nbd_client *client, uint32_t option, const struct nbd_export *export,
                       const uint8_t *wanted, uint16_t count)
{
    uint8_t about[10], sizes[12];
    for (uint16_t i = 0; i < count; i++) {
        uint16_t type = load_be16(wanted + 2 * i);
        if (type == NBD_INFO_NAME)
            send_info(client, option, NBD_INFO_NAME, export->name, strlen(export->name));
        if (type == NBD_INFO_DESCRIPTION && export->description)
            send_info(client, option, NBD_INFO_DESCRIPTION, export->description,
                      strlen(export->description));
    }
    uint32_t preferred = MAX(disk_discard_granularity(export->disk), 4096u);
    store_be32(sizes, 1);
    store_be32(sizes + 4, MIN(preferred, 65536u));
    store_be32(sizes + 8, NBD_REQUEST_BYTES_MAX);
    send_info(client, option, NBD_INFO_BLOCK_SIZE, sizes, sizeof(sizes));
    store_be64(about, disk_size_bytes(export->disk));
    store_be16(about + 8, transmission_flags(client, export));
    send_info(client, option, NBD_INFO_EXPORT, about, sizeof(about));
}

static void on_info(struct nbd_client *client, uint32_t option, struct cursor cursor)
{
    const char *name;
    uint32_t name_bytes;
    char why[128];
    if (!take_string(&cursor, &name, &name_bytes) || cursor.end - cursor.at < 2) {
        refuse(client, option, NBD_REP_ERR_INVALID, "cut off");
        return;
    }
    uint16_t count = load_be16(cursor.at);
    if (cursor.end - cursor.at != 2 + 2 * (ptrdiff_t)count) {
        refuse(client, option, NBD_REP_ERR_INVALID, "the number of requests is wrong");
        return;
    }
    struct nbd_export *export = nbd_find_export(client->server, name, name_bytes);
    if (!export) {
        snprintf(why, sizeof(why), "export '%.*s' not present", (int)MIN(name_bytes, 80u), name);
        refuse(client, option, NBD_REP_ERR_UNKNOWN, why);
        return;
    }
    send_infos(client, option, export, cursor.at + 2, count);
    ack(client, option);
    if (option == NBD_OPT_GO && !client->closing)
        enter_transmission(client, export);
}

static void on_list(struct nbd_client *client)
{
    list_for_each(node, &client->server->exports)
    {
        const struct nbd_export *export = list_entry(node, struct nbd_export, node);
        const char *description = export->description ? export->description : "";
        size_t name_bytes = strlen(export->name), bytes = 4 + name_bytes + strlen(description);
        uint8_t *data;
        if (export->is_leaving || client->closing)
            continue;
        struct nbd_out *out = new_reply(client, NBD_OPT_LIST, NBD_REP_SERVER, bytes, &data);
        if (!out)
            return;
        store_be32(data, (uint32_t)name_bytes);
        memcpy(data + 4, export->name, name_bytes);
        memcpy(data + 4 + name_bytes, description, strlen(description));
        nbd_client_send(client, out);
    }
    ack(client, NBD_OPT_LIST);
}

/* --- metadata contexts --- */

/* In a list, "base:" and "qemu:dirty-bitmap:" ask for all that begin so. */
static bool context_matches(const char *name, const char *query, uint32_t bytes, bool is_list)
{
    bool is_prefix = is_list && bytes && query[bytes - 1] == ':';
    size_t length = strlen(name);
    return (is_prefix ? length > bytes : length == bytes) && !memcmp(name, query, bytes);
}

static uint32_t find_contexts(const struct nbd_export *export, const char *query, uint32_t bytes,
                              bool is_list)
{
    char name[NBD_CONTEXT_NAME_BYTES];
    uint32_t found = 0;
    for (unsigned i = 0; nbd_context_name(export, i, name); i++)
        if (context_matches(name, query, bytes, is_list))
            found |= UINT32_C(1) << i;
    return found;
}

static void send_contexts(struct nbd_client *client, uint32_t option,
                          const struct nbd_export *export, uint32_t contexts)
{
    char name[NBD_CONTEXT_NAME_BYTES];
    for (unsigned i = 0; nbd_context_name(export, i, name) && !client->closing; i++) {
        uint8_t *data;
        if (!(contexts >> i & 1))
            continue;
        struct nbd_out *out =
            new_reply(client, option, NBD_REP_META_CONTEXT, 4 + strlen(name), &data);
        if (!out)
            return;
        store_be32(data, option == NBD_OPT_SET_META_CONTEXT ? i : 0);
        memcpy(data + 4, name, strlen(name));
        nbd_client_send(client, out);
    }
}

/* True if all queries could be read; *contexts is what they asked for. */
static bool read_queries(struct cursor *cursor, const struct nbd_export *export, bool is_list,
                         uint32_t *contexts)
{
    uint32_t count;
    if (!take32(cursor, &count))
        return false;
    *contexts = is_list && !count && export ? UINT32_MAX : 0;
    for (; count; count--) {
        const char *query;
        uint32_t bytes;
        if (!take_string(cursor, &query, &bytes))
            return false;
        if (export)
            *contexts |= find_contexts(export, query, bytes, is_list);
    }
    return cursor->at == cursor->end;
}

static void on_contexts(struct nbd_client *client, uint32_t option, struct cursor cursor)
{
    bool is_list = option == NBD_OPT_LIST_META_CONTEXT;
    const char *name = NULL;
    uint32_t name_bytes = 0, contexts = 0;
    if (!client->structured) {
        refuse(client, option, NBD_REP_ERR_INVALID, "structured replies come first");
        return;
    }
    bool is_whole = take_string(&cursor, &name, &name_bytes);
    struct nbd_export *export = is_whole ? nbd_find_export(client->server, name, name_bytes) : NULL;
    if (!is_whole || !read_queries(&cursor, export, is_list, &contexts)) {
        refuse(client, option, NBD_REP_ERR_INVALID, "cut off");
        return;
    }
    if (!is_list) {
        client->contexts = contexts;
        client->contexts_of = export;
    }
    if (!export) {
        refuse(client, option, NBD_REP_ERR_UNKNOWN, "export not present");
        return;
    }
    send_contexts(client, option, export, contexts);
    ack(client, option);
}

/* --- options --- */

static void on_structured_reply(struct nbd_client *client)
{
    if (client->structured) {
        refuse(client, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID, "negotiated already");
        return;
    }
    client->structured = true;
    ack(client, NBD_OPT_STRUCTURED_REPLY);
}

static bool takes_no_data(uint32_t option)
{
    return option == NBD_OPT_LIST || option == NBD_OPT_STARTTLS ||
           option == NBD_OPT_STRUCTURED_REPLY;
}

static void handle_option(struct nbd_client *client, uint32_t option, const uint8_t *data,
                          uint32_t bytes)
{
    struct cursor cursor = {data, data + bytes};
    if (bytes && takes_no_data(option)) {
        refuse(client, option, NBD_REP_ERR_INVALID, "this option has no data");
        return;
    }
    switch (option) {
    case NBD_OPT_ABORT:
        ack(client, option);
        nbd_client_leave(client);
        break;
    case NBD_OPT_LIST:
        on_list(client);
        break;
    case NBD_OPT_STARTTLS:
        refuse(client, option, NBD_REP_ERR_POLICY,
               "TLS not configured: this server is for this host only, connect without");
        break;
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        on_info(client, option, cursor);
        break;
    case NBD_OPT_STRUCTURED_REPLY:
        on_structured_reply(client);
        break;
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        on_contexts(client, option, cursor);
        break;
    default:
        refuse(client, option, NBD_REP_ERR_UNSUP, "unknown option");
    }
}

/* Old clients know nothing but the name of the export; others cannot be answered. */
static bool is_bad_option(const struct nbd_client *client, uint64_t magic, uint32_t option,
                          uint32_t bytes)
{
    if (magic != NBD_OPTION_MAGIC)
        return true;
    if (option == NBD_OPT_EXPORT_NAME)
        return bytes > NBD_NAME_MAX;
    return !client->is_fixed;
}

bool nbd_handshake_option(struct nbd_client *client)
{
    const uint8_t *head = nbd_input(client);
    if (nbd_input_bytes(client) < NBD_OPTION_HEAD_BYTES)
        return false;
    uint32_t option = load_be32(head + 8), bytes = load_be32(head + 12);
    if (is_bad_option(client, load_be64(head), option, bytes)) {
        log_limited("nbd: a client does not speak the protocol (option %u); disconnected", option);
        nbd_client_close(client);
        return false;
    }
    if (bytes > NBD_OPTION_BYTES_MAX) {
        client->in_start += NBD_OPTION_HEAD_BYTES;
        client->skip = bytes;
        refuse(client, option, NBD_REP_ERR_TOO_BIG, "too long an option");
        return !client->closing;
    }
    if (nbd_input_bytes(client) < NBD_OPTION_HEAD_BYTES + bytes)
        return false;
    client->in_start += NBD_OPTION_HEAD_BYTES + bytes;
    if (option == NBD_OPT_EXPORT_NAME)
        return on_export_name(client, head + NBD_OPTION_HEAD_BYTES, bytes);
    handle_option(client, option, head + NBD_OPTION_HEAD_BYTES, bytes);
    return !client->closing;
}
