/* SPDX-License-Identifier: MIT */
/*
 * chardev: moves bytes between descriptors of the host and the users' queues.
 *
 * Theory of operation. A `link` is the two directions to whoever is at the other end; each has a
 * descriptor of its own, so each has its own watch. Input is read only while the user in focus has
 * room in his queue; that is the backpressure towards the source. Output goes to one ring; a task
 * writes it out once per turn and, where the host takes no more, waits for it to be writable. When
 * nobody is there the ring is emptied into nothing. A link ends by itself (the peer leaves) or with
 * the chardev; in both cases its memory goes when its last watch or job has ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/log.h"
#include "base/socket.h"
#include "vmm/chardev/chardev_private.h"
#include "vmm/chardev/terminal.h"

#define PTY_LOOK_NS UINT64_C(300000000)

static bool is_there(const struct chardev *chardev)
{
    return chardev->link && !chardev->link->is_hung_up && chardev->link->out.fd >= 0;
}

/* The oldest makes room for the newest. */
static void remember(struct chardev *chardev, const uint8_t *bytes, size_t length)
{
    struct chardev_ring *memory = &chardev->memory;
    size_t kept = MIN(length, memory->capacity);
    if (kept > ring_room(memory))
        ring_drop(memory, kept - ring_room(memory));
    ring_put(memory, bytes + (length - kept), kept);
}

/* A piece at a time, as each may need more room than it has. */
size_t chardev_put_output(struct chardev *chardev, const uint8_t *bytes, size_t length)
{
    uint8_t escaped[512];
    if (!chardev->config->is_telnet)
        return ring_put(&chardev->output, bytes, length);
    size_t done = 0, taken = 1;
    while (done < length && taken) {
        size_t made = telnet_escape(bytes + done, length - done, escaped,
                                    MIN(sizeof(escaped), ring_room(&chardev->output)), &taken);
        ring_put(&chardev->output, escaped, made);
        done += taken;
    }
    return done;
}

size_t chardev_queue_output(struct chardev *chardev, const void *bytes, size_t length)
{
    if (chardev->is_closing)
        return length;
    if (chardev->memory.capacity)
        remember(chardev, bytes, length);
    if (is_there(chardev)) {
        loop_task_queue(&chardev->flush);
        length = chardev_put_output(chardev, bytes, length);
    }
    chardev_log_take(chardev, bytes, length);
    return length;
}

/* --- the end of links and of the chardev --- */

void chardev_release(struct chardev *chardev)
{
    CHECK(chardev->handles > 0);
    if (--chardev->handles == 0 && chardev->is_closing)
        loop_task_queue(&chardev->finish);
}

static void release_link(struct chardev_link *link)
{
    struct chardev *chardev = link->chardev;
    CHECK(link->handles > 0);
    if (--link->handles > 0 || !link->is_closing)
        return;
    free(link);
    chardev_release(chardev);
}

static struct chardev_link *link_of_in(struct chardev_end *end)
{
    return container_of(end, struct chardev_link, in);
}

static struct chardev_link *link_of_out(struct chardev_end *end)
{
    return container_of(end, struct chardev_link, out);
}

static void on_in_watch_closed(struct loop_watch *watch)
{
    release_link(link_of_in(container_of(watch, struct chardev_end, watch)));
}

static void on_out_watch_closed(struct loop_watch *watch)
{
    release_link(link_of_out(container_of(watch, struct chardev_end, watch)));
}

static void end_close(struct chardev_end *end, void (*on_closed)(struct loop_watch *watch))
{
    int fd = end->fd;
    if (fd < 0)
        return;
    end->fd = -1;
    if (end->is_polled)
        loop_watch_close(&end->watch, on_closed);
    if (!end->job_is_running) /* else its completion closes the descriptor */
        close(fd);
}

static void job_submit(struct chardev_link *link, struct chardev_end *end, const uint8_t *bytes,
                       size_t length)
{
    end->job_is_running = true;
    end->job_fd = end->fd;
    end->job_bytes = (uint8_t *)bytes;
    end->job_length = length;
    link->handles++;
    loop_job_submit(link->chardev->loop, &end->job);
}

static void job_ended(struct chardev_end *end)
{
    end->job_is_running = false;
    if (end->fd < 0)
        close(end->job_fd);
}

/* The peer is gone, or we go. What is still queued for it goes with it. */
static void link_down(struct chardev_link *link)
{
    struct chardev *chardev = link->chardev;
    if (link->is_closing)
        return;
    link->is_closing = true;
    chardev->link = NULL;
    link->handles++;
    end_close(&link->in, on_in_watch_closed);
    end_close(&link->out, on_out_watch_closed);
    ring_drop(&chardev->output, chardev->output.count);
    release_link(link);
    if (chardev->listener_is_polled && !chardev->is_closing)
        loop_watch_set(&chardev->listener_watch, UV_READABLE);
    if (chardev->client.is_used)
        chardev_client_retry(chardev);
    chardev_tell_open(chardev, false);
    chardev_tell_writable(chardev);
}

/* --- input --- */

static void hang_up(struct chardev_link *link)
{
    link->is_hung_up = true;
    loop_watch_set(&link->in.watch, 0);
    loop_watch_set(&link->out.watch, 0);
    chardev_tell_open(link->chardev, false);
    loop_timer_arm(&link->chardev->pty_timer, loop_now_ns() + PTY_LOOK_NS);
    loop_task_queue(&link->chardev->flush);
}

/* The source has ended: for a pty until it is opened again, for standard input alone. */
static void input_ended(struct chardev_link *link)
{
    struct chardev *chardev = link->chardev;
    if (chardev->config->kind == CHARDEV_PTY)
        hang_up(link);
    else if (chardev->config->kind == CHARDEV_STDIO)
        end_close(&link->in, on_in_watch_closed);
    else
        link_down(link);
}

static void take_input(struct chardev *chardev, uint8_t *bytes, size_t length)
{
    unsigned breaks = 0;
    if (chardev->config->is_telnet)
        length = telnet_take(&chardev->telnet, bytes, length, &breaks);
    if (length)
        chardev_take_input(chardev, bytes, length);
    while (breaks--)
        chardev_send_break(chardev);
}

static void on_input_result(struct chardev_link *link, ssize_t result)
{
    if (result > 0)
        take_input(link->chardev, link->in_bytes, (size_t)result);
    else if (result == 0 || (result != -EAGAIN && result != -EINTR))
        input_ended(link);
}

static void on_readable(struct loop_watch *watch, int events)
{
    struct chardev_end *end = container_of(watch, struct chardev_end, watch);
    struct chardev_link *link = link_of_in(end);
    (void)events;
    size_t room = MIN(chardev_input_room(link->chardev), sizeof(link->in_bytes));
    if (room == 0) {
        loop_watch_set(watch, 0);
        return;
    }
    ssize_t result = read(end->fd, link->in_bytes, room);
    on_input_result(link, result < 0 ? -errno : result);
}

static void read_job(struct loop_job *job)
{
    struct chardev_end *end = container_of(job, struct chardev_end, job);
    end->job_result = read(end->job_fd, end->job_bytes, end->job_length);
    if (end->job_result < 0)
        end->job_result = -errno;
}

static void on_read_job_done(struct loop_job *job)
{
    struct chardev_end *end = container_of(job, struct chardev_end, job);
    struct chardev_link *link = link_of_in(end);
    job_ended(end);
    if (!link->is_closing && end->fd >= 0)
        on_input_result(link, end->job_result);
    release_link(link);
}

static void update_input(struct chardev *chardev)
{
    struct chardev_link *link = chardev->link;
    if (!link || link->is_hung_up || link->in.fd < 0)
        return;
    size_t room = MIN(chardev_input_room(chardev), sizeof(link->in_bytes));
    if (link->in.is_polled) {
        loop_watch_set(&link->in.watch, room ? UV_READABLE : 0);
    } else if (link->in.is_null) {
        input_ended(link);
    } else if (room && !link->in.job_is_running) {
        job_submit(link, &link->in, link->in_bytes, room);
    }
}

static void on_deliver(struct loop_task *task)
{
    struct chardev *chardev = container_of(task, struct chardev, deliver);
    chardev_deliver(chardev);
    update_input(chardev);
}

/* --- output --- */

/* Said once until output gets through again; a pipe whose reader has left is not tried again. */
static void output_failed(struct chardev_link *link, int error)
{
    struct chardev *chardev = link->chardev;
    switch (chardev->config->kind) {
    case CHARDEV_PTY:
        hang_up(link);
        return;
    case CHARDEV_UNIX:
    case CHARDEV_TCP:
        link_down(link);
        return;
    default:
        break;
    }
    if (!chardev->has_lost_output)
        log_warn("chardev '%s': %s; the guest's output is lost", chardev->config->id,
                 strerror(error));
    chardev->has_lost_output = true;
    if (error == EPIPE)
        end_close(&link->out, on_out_watch_closed);
}

/* True if the host took something; false if it is full or the bytes are gone. */
static bool write_some(struct chardev_link *link)
{
    struct chardev_ring *output = &link->chardev->output;
    const uint8_t *bytes;
    size_t run = ring_run(output, &bytes);
    ssize_t done = write(link->out.fd, bytes, run);
    int error = errno;
    if (done > 0) {
        ring_drop(output, (size_t)done);
        link->chardev->has_lost_output = false;
        return true;
    }
    if (done < 0 && (error == EAGAIN || error == EINTR)) {
        loop_watch_set(&link->out.watch, UV_WRITABLE);
        return false;
    }
    ring_drop(output, output->count);
    output_failed(link, error);
    return false;
}

static void write_job(struct loop_job *job)
{
    struct chardev_end *end = container_of(job, struct chardev_end, job);
    end->job_result = write(end->job_fd, end->job_bytes, end->job_length);
    if (end->job_result < 0)
        end->job_result = -errno;
}

static void on_write_job_done(struct loop_job *job)
{
    struct chardev_end *end = container_of(job, struct chardev_end, job);
    struct chardev_link *link = link_of_out(end);
    struct chardev *chardev = link->chardev;
    job_ended(end);
    if (end->job_result > 0) {
        ring_drop(&chardev->output, (size_t)end->job_result);
        chardev->has_lost_output = false;
    } else if (end->job_result != -EINTR) {
        ring_drop(&chardev->output, chardev->output.count);
        output_failed(link, (int)-end->job_result);
    }
    loop_task_queue(&chardev->flush);
    release_link(link);
}

static bool pty_is_hung_up(const struct chardev_link *link)
{
    struct pollfd look = {.fd = link->out.fd, .events = POLLOUT};
    return poll(&look, 1, 0) == 1 && (look.revents & POLLHUP);
}

static void flush_link(struct chardev_link *link)
{
    struct chardev *chardev = link->chardev;
    if (chardev->config->kind == CHARDEV_PTY && !link->is_hung_up && pty_is_hung_up(link))
        hang_up(link);
    if (!is_there(chardev)) {
        ring_drop(&chardev->output, chardev->output.count);
    } else if (link->out.is_polled) {
        loop_watch_set(&link->out.watch, 0);
        while (chardev->output.count > 0 && write_some(link))
            ;
    } else if (chardev->output.count > 0 && !link->out.job_is_running) {
        const uint8_t *bytes;
        size_t run = ring_run(&chardev->output, &bytes);
        job_submit(link, &link->out, bytes, run);
    }
}

static bool is_drained(const struct chardev *chardev)
{
    const struct chardev_link *link = chardev->link;
    return chardev->output.count == 0 || !link || link->out.is_polled || link->out.fd < 0;
}

static void on_flush(struct loop_task *task)
{
    struct chardev *chardev = container_of(task, struct chardev, flush);
    if (chardev->link)
        flush_link(chardev->link);
    if (ring_room(&chardev->output) > 0)
        chardev_tell_writable(chardev);
    if (chardev->is_closing && chardev->link && is_drained(chardev))
        link_down(chardev->link);
}

static void on_writable(struct loop_watch *watch, int events)
{
    struct chardev_end *end = container_of(watch, struct chardev_end, watch);
    (void)events;
    loop_watch_set(watch, 0);
    loop_task_queue(&link_of_out(end)->chardev->flush);
}

/* --- the beginning --- */

static bool is_null_device(int fd)
{
    struct stat file;
    return fstat(fd, &file) == 0 && S_ISCHR(file.st_mode) && file.st_rdev == makedev(1, 3);
}

/* What epoll does not know (files, the null device's output) the pool serves. */
static int end_open(struct chardev_link *link, struct chardev_end *end, int fd,
                    void (*on_ready)(struct loop_watch *watch, int events))
{
    end->fd = fd;
    if (fd < 0)
        return 0;
    int result = loop_watch_init(link->chardev->loop, &end->watch, fd, on_ready);
    end->is_polled = result == 0;
    end->is_null = !end->is_polled && is_null_device(fd);
    link->handles += end->is_polled;
    return result == -EPERM ? 0 : result;
}

int chardev_link_up(struct chardev *chardev, int in_fd, int out_fd)
{
    struct chardev_link *link = calloc(1, sizeof(*link));
    CHECK(link && !chardev->link);
    link->chardev = chardev;
    link->in.fd = link->out.fd = -1;
    link->in.job = (struct loop_job){.work = read_job, .on_done = on_read_job_done};
    link->out.job = (struct loop_job){.work = write_job, .on_done = on_write_job_done};
    chardev->link = link;
    chardev->handles++;
    int result = end_open(link, &link->in, in_fd, on_readable);
    if (result) {
        link->in.fd = -1;
        unused_result(in_fd >= 0 && close(in_fd));
    }
    int out_result = end_open(link, &link->out, out_fd, on_writable);
    if (out_result) {
        link->out.fd = -1;
        unused_result(out_fd >= 0 && close(out_fd));
    }
    result = result ? result : out_result;
    if (result) {
        link_down(link);
        return result;
    }
    if (chardev->config->is_telnet) {
        telnet_init(&chardev->telnet);
        ring_put(&chardev->output, telnet_greeting, sizeof(telnet_greeting));
    }
    chardev_tell_open(chardev, true);
    loop_task_queue(&chardev->deliver);
    return 0;
}

static void on_pty_timer(struct loop_timer *timer)
{
    struct chardev *chardev = container_of(timer, struct chardev, pty_timer);
    struct chardev_link *link = chardev->link;
    if (!link || !link->is_hung_up)
        return;
    if (pty_is_hung_up(link)) {
        loop_timer_arm(timer, loop_now_ns() + PTY_LOOK_NS);
        return;
    }
    link->is_hung_up = false;
    chardev_tell_open(chardev, true);
    update_input(chardev);
}

int chardev_start_pty(struct chardev *chardev)
{
    int result = loop_timer_init(chardev->loop, &chardev->pty_timer, on_pty_timer);
    if (result)
        return result;
    chardev->has_pty_timer = true;
    chardev->handles++;
    hang_up(chardev->link);
    return 0;
}

static void on_connection(struct loop_watch *watch, int events)
{
    struct chardev *chardev = container_of(watch, struct chardev, listener_watch);
    (void)events;
    if (!chardev->link)
        unused_result(chardev_accept(chardev));
    if (chardev->link)
        loop_watch_set(watch, 0); /* the next one waits until this one has left */
}

int chardev_accept(struct chardev *chardev)
{
    int fd = socket_accept(chardev->listener);
    if (fd < 0)
        return fd;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
        int result = -errno;
        close(fd);
        return result;
    }
    int result = chardev_link_up(chardev, fd, copy);
    if (!result) {
        chardev_log_replay(chardev);
        loop_task_queue(&chardev->flush);
    }
    return result;
}

int chardev_watch_listener(struct chardev *chardev)
{
    int result =
        loop_watch_init(chardev->loop, &chardev->listener_watch, chardev->listener, on_connection);
    if (result)
        return result;
    chardev->listener_is_polled = true;
    chardev->handles++;
    loop_watch_set(&chardev->listener_watch, chardev->link ? 0 : UV_READABLE);
    return 0;
}

static void on_finish(struct loop_task *task)
{
    struct chardev *chardev = container_of(task, struct chardev, finish);
    struct closing closing = chardev->closing;
    loop_task_cancel(&chardev->deliver);
    loop_task_cancel(&chardev->flush);
    chardev_log_close(chardev);
    free(chardev->memory.bytes);
    free(chardev);
    closing_tell(closing);
}

int chardev_create(struct loop *loop, const struct config_chardev *config, struct chardev **out,
                   struct error *err)
{
    struct chardev *chardev = calloc(1, sizeof(*chardev));
    CHECK(chardev);
    /* A reader who leaves is an error code, not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    chardev->loop = loop;
    chardev->config = config;
    chardev->listener = -1;
    chardev->output =
        (struct chardev_ring){.bytes = chardev->output_bytes, .capacity = CHARDEV_OUTPUT_BYTES};
    loop_task_init(loop, &chardev->deliver, LOOP_STAGE_DRAIN, on_deliver);
    loop_task_init(loop, &chardev->flush, LOOP_STAGE_NOTIFY, on_flush);
    loop_task_init(loop, &chardev->finish, LOOP_STAGE_COMPLETE, on_finish);
    chardev_init_users(chardev);
    int result = chardev_log_open(chardev, err);
    if (!result)
        result = chardev_open(chardev, err);
    if (result) {
        chardev_close(chardev, NULL, NULL);
        return result;
    }
    *out = chardev;
    return 0;
}

void chardev_on_quit(struct chardev *chardev, void (*on_quit)(void *opaque), void *opaque)
{
    chardev->on_quit = on_quit;
    chardev->on_quit_opaque = opaque;
}

bool chardev_is_ringbuf(const struct chardev *chardev)
{
    return chardev->memory.capacity > 0;
}

size_t chardev_ringbuf_read(struct chardev *chardev, void *to, size_t length)
{
    size_t done = 0;
    while (done < length && chardev->memory.count) {
        const uint8_t *bytes;
        size_t run = MIN(ring_run(&chardev->memory, &bytes), length - done);
        memcpy((uint8_t *)to + done, bytes, run);
        ring_drop(&chardev->memory, run);
        done += run;
    }
    return done;
}

void chardev_ringbuf_write(struct chardev *chardev, const void *bytes, size_t length)
{
    remember(chardev, bytes, length);
}

const char *chardev_filename(const struct chardev *chardev)
{
    return chardev->filename;
}

static void on_listener_closed(struct loop_watch *watch)
{
    chardev_release(container_of(watch, struct chardev, listener_watch));
}

static void on_pty_timer_closed(struct loop_timer *timer)
{
    chardev_release(container_of(timer, struct chardev, pty_timer));
}

static void stop_listening(struct chardev *chardev)
{
    if (chardev->listener < 0)
        return;
    if (chardev->listener_is_polled)
        loop_watch_close(&chardev->listener_watch, on_listener_closed);
    close(chardev->listener);
    if (chardev->config->kind == CHARDEV_UNIX)
        unlink(chardev->config->path);
}

void chardev_close(struct chardev *chardev, void (*on_closed)(void *opaque), void *opaque)
{
    CHECK(!chardev->is_closing);
    chardev->closing = (struct closing){on_closed, opaque};
    chardev->handles++;
    if (chardev->link)
        flush_link(chardev->link);
    chardev->is_closing = true;
    stop_listening(chardev);
    chardev_client_close(chardev);
    if (chardev->has_pty_timer)
        loop_timer_close(&chardev->pty_timer, on_pty_timer_closed);
    if (chardev->link && is_drained(chardev))
        link_down(chardev->link);
    if (chardev->config->kind == CHARDEV_STDIO)
        terminal_restore();
    chardev_release(chardev);
}
