/* SPDX-License-Identifier: MIT */
/*
 * nbd_client: one connection: bytes in, bytes out, and the slots that bound what is in flight.
 *
 * Input is a buffer that the parsers look into; what belongs to a write goes straight into the
 * request's own buffer. A parser that finds no free slot (or too many replies unsent) stalls the
 * client: nothing more is read from it until something is sent or done. A client is freed when it
 * is closed, its watch and timer are, and the disk has finished all that it asked for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/nbd/nbd_private.h"

#define SEND_IOV   64
#define ALIGNMENT  4096 /* of buffers: what O_DIRECT wants */
#define LOOP_PARTS 2    /* the watch and the timer */

static void free_when_done(struct nbd_client *client)
{
    if (client->closed_parts < LOOP_PARTS || client->in_flight)
        return;
    for (size_t i = 0; i < NBD_REQUESTS_MAX; i++)
        free(client->requests[i].buffer);
    nbd_server_forget(client->server, client);
    free(client);
}

static void on_watch_closed(struct loop_watch *watch)
{
    struct nbd_client *client = watch->opaque;
    client->closed_parts++;
    free_when_done(client);
}

static void on_timer_closed(struct loop_timer *timer)
{
    struct nbd_client *client = timer->opaque;
    client->closed_parts++;
    free_when_done(client);
}

static void drop_output(struct nbd_client *client)
{
    for (struct list *node; (node = list_pop_front(&client->out));) {
        struct nbd_out *out = list_entry(node, struct nbd_out, node);
        if (!out->request)
            free(out);
    }
}

void nbd_client_close(struct nbd_client *client)
{
    if (client->closing)
        return;
    client->closing = true;
    client->phase = NBD_PHASE_LEAVING;
    loop_task_cancel(&client->input);
    loop_task_cancel(&client->output);
    drop_output(client);
    loop_watch_close(&client->watch, on_watch_closed);
    loop_timer_close(&client->timer, on_timer_closed);
    close(client->fd);
}

static void update_watch(struct nbd_client *client)
{
    bool reads = client->phase != NBD_PHASE_LEAVING && !client->stalled;
    bool writes = !list_is_empty(&client->out) && !loop_task_is_queued(&client->output);
    if (!client->closing)
        loop_watch_set(&client->watch, (reads ? UV_READABLE : 0) | (writes ? UV_WRITABLE : 0));
}

static void close_if_done(struct nbd_client *client)
{
    if (client->phase == NBD_PHASE_LEAVING && !client->in_flight && list_is_empty(&client->out))
        nbd_client_close(client);
}

void nbd_client_leave(struct nbd_client *client)
{
    if (client->phase == NBD_PHASE_LEAVING)
        return;
    client->phase = NBD_PHASE_LEAVING;
    loop_timer_arm(&client->timer, loop_now_ns() + NBD_LEAVING_MS * UINT64_C(1000000));
    close_if_done(client);
    update_watch(client);
}

/* --- slots --- */

struct nbd_request *nbd_request_get(struct nbd_client *client, size_t bytes, int *result)
{
    bool is_too_much =
        client->buffer_bytes && bytes > NBD_CLIENT_BUFFER_BYTES - client->buffer_bytes;
    *result = -EAGAIN;
    if (list_is_empty(&client->idle) || is_too_much)
        return NULL;
    struct nbd_request *request =
        list_entry(list_pop_front(&client->idle), struct nbd_request, node);
    client->kept_bytes -= request->buffer_bytes;
    if (bytes > request->buffer_bytes) {
        free(request->buffer);
        request->buffer_bytes = align_up(bytes, ALIGNMENT);
        request->buffer = aligned_alloc(ALIGNMENT, request->buffer_bytes);
        if (!request->buffer)
            request->buffer_bytes = 0;
    }
    client->buffer_bytes += request->buffer_bytes;
    *result = bytes && !request->buffer ? -ENOMEM : 0;
    return request;
}

void nbd_request_put(struct nbd_request *request)
{
    struct nbd_client *client = request->client;
    client->buffer_bytes -= request->buffer_bytes;
    if (request->buffer_bytes > NBD_KEPT_BUFFER_BYTES ||
        client->kept_bytes + request->buffer_bytes > NBD_KEPT_CLIENT_BYTES) {
        free(request->buffer);
        request->buffer = NULL;
        request->buffer_bytes = 0;
    }
    client->kept_bytes += request->buffer_bytes;
    list_push_front(&client->idle, &request->node);
}

void nbd_client_landed(struct nbd_client *client)
{
    CHECK(client->in_flight > 0);
    client->in_flight--;
    if (client->closing)
        free_when_done(client);
}

/* --- output --- */

void nbd_client_send(struct nbd_client *client, struct nbd_out *out)
{
    list_push_back(&client->out, &out->node);
    if (!out->request)
        client->out_bytes += out->head_bytes + out->payload_bytes;
    loop_task_queue(&client->output);
}

static size_t gather(const struct nbd_client *client, struct iovec *iov)
{
    size_t count = 0, skip = client->out_sent;
    list_for_each(node, &client->out)
    {
        const struct nbd_out *out = list_entry(node, struct nbd_out, node);
        if (count + 2 > SEND_IOV)
            break;
        if (skip < out->head_bytes)
            iov[count++] = (struct iovec){(void *)(out->head + skip), out->head_bytes - skip};
        skip -= MIN(skip, out->head_bytes);
        if (skip < out->payload_bytes)
            iov[count++] = (struct iovec){(void *)(out->payload + skip), out->payload_bytes - skip};
        skip = 0;
    }
    return count;
}

static void on_sent(struct nbd_client *client, size_t bytes)
{
    client->out_sent += bytes;
    while (!list_is_empty(&client->out)) {
        struct nbd_out *out = list_entry(client->out.next, struct nbd_out, node);
        size_t whole = out->head_bytes + out->payload_bytes;
        if (client->out_sent < whole)
            return;
        client->out_sent -= whole;
        list_remove(&out->node);
        if (out->request) {
            nbd_request_put(out->request);
        } else {
            client->out_bytes -= whole;
            free(out);
        }
        if (client->stalled) {
            client->stalled = false;
            loop_task_queue(&client->input);
        }
    }
}

static void on_output(struct loop_task *task)
{
    struct nbd_client *client = container_of(task, struct nbd_client, output);
    struct iovec iov[SEND_IOV];
    for (size_t budget = NBD_TURN_BYTES; !list_is_empty(&client->out);) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = gather(client, iov)};
        ssize_t sent = sendmsg(client->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN) {
            nbd_client_close(client);
            return;
        }
        if (sent <= 0)
            break;
        on_sent(client, (size_t)sent);
        if ((size_t)sent >= budget) {
            loop_task_queue(&client->output);
            break;
        }
        budget -= (size_t)sent;
    }
    close_if_done(client);
    update_watch(client);
}

/* --- input --- */

static bool drop_skipped(struct nbd_client *client)
{
    size_t bytes = (size_t)MIN(client->skip, nbd_input_bytes(client));
    client->in_start += bytes;
    client->skip -= bytes;
    return !client->skip;
}

static bool take_payload(struct nbd_client *client)
{
    struct nbd_request *request = client->receiving;
    size_t bytes = MIN(request->bytes - client->received, nbd_input_bytes(client));
    memcpy(request->buffer + client->received, nbd_input(client), bytes);
    client->in_start += bytes;
    client->received += bytes;
    if (client->received < request->bytes)
        return false;
    client->receiving = NULL;
    client->phase = NBD_PHASE_REQUEST;
    nbd_request_run(request);
    return true;
}

/* True if something was understood, false if more must come first. */
static bool step(struct nbd_client *client)
{
    if (client->skip && !drop_skipped(client))
        return false;
    if (client->out_bytes > NBD_OUTPUT_BYTES_MAX) {
        client->stalled = true;
        return false;
    }
    switch (client->phase) {
    case NBD_PHASE_HELLO:
        return nbd_handshake_hello(client);
    case NBD_PHASE_OPTION:
        return nbd_handshake_option(client);
    case NBD_PHASE_REQUEST:
        return nbd_request_parse(client);
    case NBD_PHASE_PAYLOAD:
        return take_payload(client);
    case NBD_PHASE_LEAVING:
        return false;
    }
    UNREACHABLE("every phase is listed");
}

static ssize_t receive(struct nbd_client *client)
{
    struct iovec iov[2];
    int count = 0;
    struct nbd_request *request = client->receiving;
    memmove(client->in, nbd_input(client), nbd_input_bytes(client));
    client->in_end -= client->in_start;
    client->in_start = 0;
    size_t wanted = request ? request->bytes - client->received : 0;
    if (request)
        iov[count++] = (struct iovec){request->buffer + client->received, wanted};
    iov[count++] = (struct iovec){client->in + client->in_end, sizeof(client->in) - client->in_end};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    ssize_t got = recvmsg(client->fd, &message, MSG_DONTWAIT);
    if (got > 0) {
        client->received += MIN((size_t)got, wanted);
        client->in_end += (size_t)got - MIN((size_t)got, wanted);
    }
    return got;
}

static void on_input(struct loop_task *task)
{
    struct nbd_client *client = container_of(task, struct nbd_client, input);
    for (size_t budget = NBD_TURN_BYTES;;) {
        while (step(client))
            ;
        if (client->phase == NBD_PHASE_LEAVING || client->stalled || !budget)
            break;
        ssize_t got = receive(client);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno != EAGAIN) {
            nbd_client_close(client);
            return;
        }
        if (got < 0)
            break;
        if (!got) {
            nbd_client_leave(client);
            break;
        }
        budget -= MIN(budget, (size_t)got);
    }
    update_watch(client);
}

static void on_ready(struct loop_watch *watch, int events)
{
    struct nbd_client *client = watch->opaque;
    if (events & UV_WRITABLE)
        loop_task_queue(&client->output);
    if (events & UV_READABLE)
        loop_task_queue(&client->input);
}

static void on_expired(struct loop_timer *timer)
{
    nbd_client_close(timer->opaque);
}

static void init(struct nbd_client *client, struct nbd_server *server, int fd)
{
    client->server = server;
    client->fd = fd;
    list_init(&client->node);
    list_init(&client->out);
    list_init(&client->idle);
    for (size_t i = 0; i < NBD_REQUESTS_MAX; i++) {
        client->requests[i].client = client;
        list_init(&client->requests[i].out.node);
        list_push_back(&client->idle, &client->requests[i].node);
    }
    loop_task_init(server->loop, &client->input, LOOP_STAGE_DRAIN, on_input);
    loop_task_init(server->loop, &client->output, LOOP_STAGE_NOTIFY, on_output);
}

static void on_init_failed(struct loop_watch *watch)
{
    free(watch->opaque);
}

int nbd_client_open(struct nbd_server *server, int fd)
{
    struct nbd_client *client = calloc(1, sizeof(*client));
    if (!client)
        return -ENOMEM;
    init(client, server, fd);
    client->watch.opaque = client;
    int result = loop_watch_init(server->loop, &client->watch, fd, on_ready);
    if (result) {
        free(client);
        return result;
    }
    client->watch.opaque = client;
    result = loop_timer_init(server->loop, &client->timer, on_expired);
    if (result) {
        loop_watch_close(&client->watch, on_init_failed);
        return result;
    }
    client->timer.opaque = client;
    loop_timer_arm(&client->timer, loop_now_ns() + NBD_HANDSHAKE_MS * UINT64_C(1000000));
    list_push_back(&server->clients, &client->node);
    server->client_count++;
    nbd_handshake_begin(client);
    update_watch(client);
    return 0;
}
