/* SPDX-License-Identifier: MIT */
/* metrics: who asks for the counters, and how they get there. */
#include "vmm/control/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/socket.h"

#define CLIENTS_MAX 8

struct metrics_client {
    struct metrics *metrics;
    struct loop_watch watch;
    int fd; /* -1: free */
    bool is_closing;
    char *text;
    size_t at, length;
};

struct metrics {
    struct loop *loop;
    struct machine *machine;
    char *path;
    bool is_socket, is_closing;
    int listener;
    struct loop_watch watch;
    struct metrics_client clients[CLIENTS_MAX];
    struct loop_timer timer;
    struct loop_job job;
    bool is_writing;
    char *text;
    size_t length;
    unsigned open_handles;
    void (*on_closed)(void *opaque);
    void *opaque;
};

static void on_handle_closed(struct metrics *metrics)
{
    metrics->open_handles--;
    if (!metrics->is_closing || metrics->open_handles || metrics->is_writing)
        return;
    void (*on_closed)(void *) = metrics->on_closed;
    void *opaque = metrics->opaque;
    free(metrics->path);
    free(metrics);
    on_closed(opaque);
}

/* --- the socket --- */

static void on_client_closed(struct loop_watch *watch)
{
    struct metrics_client *client = watch->opaque;
    client->fd = -1;
    client->is_closing = false;
    on_handle_closed(client->metrics);
}

static void drop(struct metrics_client *client)
{
    if (client->is_closing)
        return;
    client->is_closing = true;
    free(client->text);
    client->text = NULL;
    loop_watch_close(&client->watch, on_client_closed);
    close(client->fd);
}

/* Whatever was asked for, this is the answer. */
static void prepare_answer(struct metrics_client *client)
{
    size_t length = 0;
    char *body = metrics_text(client->metrics->machine, &length);
    int head = body ? asprintf(&client->text,
                               "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
                               "Content-Length: %zu\r\n\r\n%s",
                               length, body)
                    : -1;
    free(body);
    client->at = 0;
    client->length = head < 0 ? 0 : (size_t)head;
    if (head < 0)
        client->text = NULL;
}

static void on_client_ready(struct loop_watch *watch, int events)
{
    struct metrics_client *client = watch->opaque;
    char ignored[1024];
    (void)events;
    if (!client->text) {
        ssize_t got = recv(client->fd, ignored, sizeof(ignored), 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got >= 0)
            prepare_answer(client);
        if (!client->text) {
            drop(client);
            return;
        }
        loop_watch_set(watch, UV_WRITABLE);
    }
    ssize_t sent = send(client->fd, client->text + client->at, client->length - client->at,
                        MSG_NOSIGNAL);
    if (sent > 0)
        client->at += (size_t)sent;
    if ((sent < 0 && errno != EAGAIN) || client->at == client->length)
        drop(client);
}

static void on_connection(struct loop_watch *watch, int events)
{
    struct metrics *metrics = watch->opaque;
    struct metrics_client *client = metrics->clients;
    int fd = socket_accept(metrics->listener);
    (void)events;
    if (fd < 0)
        return;
    while (client < metrics->clients + CLIENTS_MAX && client->fd >= 0)
        client++;
    if (client == metrics->clients + CLIENTS_MAX ||
        loop_watch_init(metrics->loop, &client->watch, fd, on_client_ready)) {
        close(fd);
        return;
    }
    client->fd = fd;
    client->watch.opaque = client;
    metrics->open_handles++;
    loop_watch_set(&client->watch, UV_READABLE);
}

/* --- the file --- */

static void write_file(struct loop_job *job)
{
    struct metrics *metrics = container_of(job, struct metrics, job);
    char name[4096];
    if ((size_t)snprintf(name, sizeof(name), "%s.new", metrics->path) >= sizeof(name))
        return;
    FILE *file = fopen(name, "we");
    if (!file)
        return;
    size_t written = fwrite(metrics->text, 1, metrics->length, file);
    if (fclose(file) || written != metrics->length || rename(name, metrics->path))
        unlink(name);
}

static void on_file_written(struct loop_job *job)
{
    struct metrics *metrics = container_of(job, struct metrics, job);
    free(metrics->text);
    metrics->text = NULL;
    metrics->is_writing = false;
    metrics->open_handles++;
    on_handle_closed(metrics);
}

static void on_period(struct loop_timer *timer)
{
    struct metrics *metrics = timer->opaque;
    loop_timer_arm(timer, loop_now_ns() + METRICS_PERIOD_S * UINT64_C(1000000000));
    if (metrics->is_writing)
        return;
    metrics->text = metrics_text(metrics->machine, &metrics->length);
    if (!metrics->text)
        return;
    metrics->is_writing = true;
    metrics->job.work = write_file;
    metrics->job.on_done = on_file_written;
    loop_job_submit(metrics->loop, &metrics->job);
}

/* --- both --- */

static int open_socket(struct metrics *metrics, struct error *err)
{
    metrics->listener = socket_listen_unix(metrics->path, err);
    if (metrics->listener < 0)
        return metrics->listener;
    int result = loop_watch_init(metrics->loop, &metrics->watch, metrics->listener, on_connection);
    if (result) {
        close(metrics->listener);
        return error_set_errno(err, -result, "-metrics");
    }
    metrics->watch.opaque = metrics;
    loop_watch_set(&metrics->watch, UV_READABLE);
    return 0;
}

static int open_file(struct metrics *metrics, struct error *err)
{
    int fd = open(metrics->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return error_set_errno(err, errno, "-metrics file:%s", metrics->path);
    close(fd);
    int result = loop_timer_init(metrics->loop, &metrics->timer, on_period);
    if (result)
        return error_set_errno(err, -result, "-metrics");
    metrics->timer.opaque = metrics;
    loop_timer_arm(&metrics->timer, 0);
    return 0;
}

int metrics_create(struct loop *loop, struct machine *machine, const char *where,
                   struct metrics **out, struct error *err)
{
    bool is_socket = strncmp(where, "unix:", 5) == 0;
    if ((!is_socket && strncmp(where, "file:", 5) != 0) || !where[5])
        return error_set(err, EINVAL, "-metrics %s: write unix:PATH or file:PATH", where);
    struct metrics *metrics = calloc(1, sizeof(*metrics));
    CHECK(metrics);
    metrics->loop = loop;
    metrics->machine = machine;
    metrics->is_socket = is_socket;
    metrics->path = strdup(where + 5);
    CHECK(metrics->path);
    metrics->open_handles = 1;
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        metrics->clients[i].metrics = metrics;
        metrics->clients[i].fd = -1;
    }
    int result = is_socket ? open_socket(metrics, err) : open_file(metrics, err);
    if (result) {
        free(metrics->path);
        free(metrics);
        return result;
    }
    *out = metrics;
    return 0;
}

static void on_listener_closed(struct loop_watch *watch)
{
    on_handle_closed(watch->opaque);
}

static void on_timer_closed(struct loop_timer *timer)
{
    on_handle_closed(timer->opaque);
}

void metrics_close(struct metrics *metrics, void (*on_closed)(void *opaque), void *opaque)
{
    metrics->is_closing = true;
    metrics->on_closed = on_closed;
    metrics->opaque = opaque;
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        if (metrics->clients[i].fd >= 0)
            drop(&metrics->clients[i]);
    if (metrics->is_socket) {
        loop_watch_close(&metrics->watch, on_listener_closed);
        close(metrics->listener);
        unlink(metrics->path);
    } else {
        loop_timer_close(&metrics->timer, on_timer_closed);
    }
}
