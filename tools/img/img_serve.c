/* SPDX-License-Identifier: MIT */
/*
 * img_serve: evisor-img serve: an image for others over NBD, as qemu-nbd does it: parses, opens,
 * listens, and runs the loop until the last client has gone or a signal comes.
 */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/daemonize.h"
#include "base/socket.h"
#include "disk/nbd/nbd_server.h"
#include "tools/img/img_args.h"
#include "tools/img/img_image.h"
#include "tools/img/img_overlay.h"
#include "tools/img/img_source.h"

#define PORT        10809
#define BITMAPS_MAX 16
#define SHARED_MAX  100

struct arguments {
    struct img_image image;
    const char *cache;
    const char *discard;
    const char *detect_zeroes;
    const char *socket_path;
    const char *bind;
    const char *name;
    const char *description;
    const char *pid_file;
    const char *aio;
    const char *bitmaps[BITMAPS_MAX];
    size_t bitmap_count;
    uint64_t port, shared;
    const char *load_snapshot;
    bool has_port, read_only, may_be_read_only, persistent, fork, verbose, no_cache, overlay;
};

struct serving {
    const struct arguments *arguments;
    struct loop *loop;
    struct img_source source;
    struct nbd_server *server;
    struct loop_event stop;
    struct pidfile pidfile;
    char *unlink_path; /* of the socket, absolute */
    bool is_stopping, is_closed;
};

/* --- arguments --- */

static int on_port(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    char *end;
    errno = 0;
    arguments->port = strtoull(value, &end, 10);
    arguments->has_port = true;
    if (errno || *end || end == value || *value == '-')
        return img_error("Invalid port `%s'", value);
    if (arguments->port > UINT16_MAX)
        return img_error("Port out of range `%s'", value);
    return 0;
}

static int on_shared(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    char *end;
    arguments->shared = strtoull(value, &end, 10);
    if (*end || end == value || *value == '-' || arguments->shared > SHARED_MAX)
        return img_error("Invalid shared device number '%s': 0 (as many as can be) to %d", value,
                         SHARED_MAX);
    return 0;
}

static int on_bitmap(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    if (arguments->bitmap_count == BITMAPS_MAX)
        return img_error("At most %d bitmaps can be shown", BITMAPS_MAX);
    arguments->bitmaps[arguments->bitmap_count++] = value;
    return 0;
}

static int on_connect(void *opaque, const char *value)
{
    (void)opaque;
    return img_error("-c %s: serve gives no kernel device; serve on a socket (-k PATH) and attach "
                     "it with nbd-client(8), or use qemu-nbd -c",
                     value);
}

static int on_disconnect(void *opaque, const char *value)
{
    (void)opaque;
    return img_error("-d %s: serve gives no kernel device; use nbd-client -d or qemu-nbd -d",
                     value);
}

static int on_tls(void *opaque, const char *value)
{
    (void)opaque;
    (void)value;
    return img_error("TLS is not supported: serve reaches this host only; from elsewhere use ssh "
                     "-L");
}

static const struct img_arg args[] = {
    IMG_TEXT('f', "format", image.format),
    IMG_TEXT('k', "socket", socket_path),
    IMG_CALL('p', "port", on_port),
    IMG_TEXT('b', "bind", bind),
    IMG_SWITCH('r', "read-only", read_only),
    IMG_SWITCH(0, "auto-read-only", may_be_read_only),
    IMG_SWITCH('s', "snapshot", overlay),
    IMG_SWITCH('t', "persistent", persistent),
    IMG_CALL('e', "shared", on_shared),
    IMG_TEXT('x', "export-name", name),
    IMG_TEXT('D', "description", description),
    IMG_TEXT(0, "cache", cache),
    IMG_SWITCH('n', "nocache", no_cache),
    IMG_TEXT(0, "aio", aio),
    IMG_TEXT(0, "discard", discard),
    IMG_TEXT(0, "detect-zeroes", detect_zeroes),
    IMG_CALL('B', "bitmap", on_bitmap),
    IMG_SWITCH(0, "fork", fork),
    IMG_TEXT(0, "pid-file", pid_file),
    IMG_SWITCH('v', "verbose", verbose),
    IMG_SWITCH('U', "force-share", image.no_lock),
    IMG_SWITCH(0, "image-opts", image.is_options),
    IMG_TEXT('l', "load-snapshot", load_snapshot),
    IMG_CALL('c', "connect", on_connect),
    IMG_CALL('d', "disconnect", on_disconnect),
    IMG_CALL(0, "tls-creds", on_tls),
    IMG_CALL(0, "tls-authz", on_tls),
    IMG_CALL(0, "tls-hostname", on_tls),
};

static int check(const struct arguments *arguments)
{
    static const char *const words[] = {"off", "on", "unmap"};
    const char *detect = arguments->detect_zeroes;
    if (arguments->socket_path && (arguments->has_port || arguments->bind))
        return img_error("-k goes with neither -p nor -b: a server has one socket");
    if (arguments->load_snapshot && arguments->overlay)
        return img_error("-l and -s cannot be combined");
    if (arguments->no_cache && arguments->cache)
        return img_error("-n and --cache can only be specified once");
    if (arguments->image.no_lock && !arguments->read_only)
        return img_error("-U reads past another's lock, which only -r may do");
    if (arguments->overlay && arguments->read_only)
        return img_error("-s makes a place for writes, and -r forbids them; choose one");
    if (detect && strcmp(detect, words[0]) && strcmp(detect, words[1]) && strcmp(detect, words[2]))
        return img_error("Failed to parse detect_zeroes mode: invalid parameter value: %s", detect);
    return 0;
}

static int parse(struct arguments *arguments, int argc, char **argv)
{
    static const struct img_syntax syntax = {args, ARRAY_SIZE(args), IMG_ONE_IMAGE};
    struct img_names names;
    int status = img_parse(argc, argv, &syntax, arguments, &names);
    if (status)
        return status;
    if (arguments->no_cache && !arguments->cache)
        arguments->cache = "none";
    arguments->read_only |= arguments->load_snapshot != NULL;
    arguments->image.writable = !arguments->read_only;
    status = check(arguments);
    return status ? status : img_image_take(names.list[0], &arguments->image);
}

/* --- the server --- */

static struct loop_event *stop_event;

static void on_signal(int number)
{
    (void)number;
    loop_event_signal(stop_event);
}

static void catch_signals(struct serving *serving)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    stop_event = &serving->stop;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (!serving->arguments->fork)
        sigaction(SIGHUP, &action, NULL);
}

static void on_closed(void *opaque)
{
    ((struct serving *)opaque)->is_closed = true;
}

static void stop(struct serving *serving)
{
    if (serving->is_stopping)
        return;
    serving->is_stopping = true;
    nbd_server_close(serving->server, on_closed, serving);
}

static void on_stop(struct loop_event *event)
{
    stop(event->opaque);
}

static void on_client_gone(void *opaque, unsigned clients_left)
{
    struct serving *serving = opaque;
    if (serving->arguments->verbose)
        fprintf(stderr, "evisor-img: a client has gone, %u left\n", clients_left);
    if (!clients_left && !serving->arguments->persistent)
        stop(serving);
}

static int listen_on(struct serving *serving, struct error *err)
{
    const struct arguments *arguments = serving->arguments;
    if (!arguments->socket_path)
        return socket_listen_tcp(arguments->bind,
                                 (uint16_t)(arguments->has_port ? arguments->port : PORT), err);
    int fd = socket_listen_unix(arguments->socket_path, err);
    if (fd >= 0)
        serving->unlink_path = realpath(arguments->socket_path, NULL);
    return fd;
}

static unsigned bound_port(int fd)
{
    struct sockaddr_in address = {0};
    socklen_t size = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        return 0;
    return ntohs(address.sin_port);
}

static void say_where(const struct serving *serving, int listener)
{
    const struct arguments *arguments = serving->arguments;
    const char *host = arguments->bind && *arguments->bind ? arguments->bind : "127.0.0.1";
    const char *mode = disk_is_read_only(serving->source.disk) ? " (read-only)" : "";
    if (arguments->socket_path)
        printf("Serving '%s'%s on nbd+unix:///%s?socket=%s\n", arguments->image.path, mode,
               arguments->name,
               serving->unlink_path ? serving->unlink_path : arguments->socket_path);
    else
        printf("Serving '%s'%s on nbd://%s:%u/%s\n", arguments->image.path, mode, host,
               bound_port(listener), arguments->name);
    fflush(stdout);
}

static int add_export(struct serving *serving, struct error *err)
{
    const struct arguments *arguments = serving->arguments;
    const char *detect = arguments->detect_zeroes ? arguments->detect_zeroes : "off";
    const struct nbd_export_options options = {
        .name = arguments->name,
        .description = arguments->description,
        .disk = serving->source.disk,
        .read_only = arguments->read_only,
        .detect_zeroes = strcmp(detect, "off") != 0,
        .zeroes_unmap = !strcmp(detect, "unmap"),
        .bitmaps = arguments->bitmaps,
        .bitmap_count = arguments->bitmap_count,
    };
    return nbd_server_add(serving->server, &options, err);
}

static int create_server(struct serving *serving, int *listener, struct error *err)
{
    int fd = listen_on(serving, err);
    if (fd < 0)
        return fd;
    const struct nbd_server_options options = {
        .listener = fd,
        .clients_max = (unsigned)serving->arguments->shared,
        .on_client_gone = on_client_gone,
        .opaque = serving,
    };
    int result = nbd_server_create(serving->loop, &options, &serving->server, err);
    if (result) {
        close(fd);
        return result;
    }
    *listener = fd;
    result = add_export(serving, err);
    if (result)
        stop(serving);
    return result;
}

static void on_event_closed(struct loop_event *event)
{
    ((struct serving *)event->opaque)->is_closed = true;
}

static int start(struct serving *serving, struct error *err)
{
    const struct arguments *arguments = serving->arguments;
    int listener = -1;
    int result = create_server(serving, &listener, err);
    if (!result && arguments->pid_file)
        result = pidfile_create(&serving->pidfile, arguments->pid_file, err);
    if (!result) {
        catch_signals(serving);
        say_where(serving, listener);
    }
    if (!result && arguments->fork)
        result = daemonize_ready(err);
    return result;
}

/* The image is open. Returns the exit status. */
static int serve(struct serving *serving)
{
    struct error err = {0};
    int result = loop_event_init(serving->loop, &serving->stop, on_stop);
    if (result)
        return img_error("cannot watch for signals: %s", strerror(-result));
    serving->stop.opaque = serving;
    result = start(serving, &err);
    if (result) {
        img_error("%s", err.text);
        if (serving->server)
            stop(serving);
    }
    while (serving->server && !serving->is_closed)
        loop_run_once(serving->loop, true);
    signal(SIGTERM, SIG_IGN); /* what is left is short, and must be done */
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    serving->is_closed = false;
    loop_event_close(&serving->stop, on_event_closed);
    while (!serving->is_closed)
        loop_run_once(serving->loop, true);
    if (serving->unlink_path)
        unlink(serving->unlink_path);
    free(serving->unlink_path);
    return result ? 1 : 0;
}

/* Images of other programs are only read. */
static bool is_foreign(struct loop *loop, const struct arguments *arguments)
{
    const struct img_file_options options = {.no_lock = true};
    const char *format = NULL;
    struct io_file *file = img_open_file(loop, arguments->image.path, &options);
    if (!file)
        return false;
    int status = img_find_format(file, arguments->image.path, arguments->image.format, &format);
    io_close_wait(file);
    return !status && !img_format_is_native(format);
}

static bool is_writable(struct loop *loop, const struct arguments *arguments)
{
    if (arguments->read_only)
        return false;
    if (arguments->may_be_read_only && is_foreign(loop, arguments))
        return false;
    bool is_refused =
        access(arguments->image.path, W_OK) < 0 && (errno == EACCES || errno == EROFS);
    return !(arguments->may_be_read_only && is_refused);
}

static int open_image(struct serving *serving)
{
    const struct arguments *arguments = serving->arguments;
    struct img_source_options options = {
        .path = arguments->image.path,
        .format = arguments->image.format,
        .cache = arguments->cache,
        .discard = arguments->discard,
        .aio = arguments->aio,
        .writable = is_writable(serving->loop, arguments),
        .no_lock = arguments->image.no_lock,
        .snapshot = arguments->load_snapshot,
        .no_map = true,
    };
    if (arguments->overlay)
        return img_overlay_open(serving->loop, &options, &serving->source);
    return img_source_open(serving->loop, &options, &serving->source);
}

static int go_to_background(struct loop *loop)
{
    struct error err = {0};
    if (daemonize_begin(&err))
        return img_error("%s", err.text);
    int result = loop_forked(loop);
    return result ? img_error("cannot go to the background: %s", strerror(-result)) : 0;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {.shared = 1, .name = ""};
    struct serving serving = {.arguments = &arguments, .loop = loop, .pidfile.fd = -1};
    if (parse(&arguments, argc, argv))
        return 1;
    if (arguments.fork && go_to_background(loop))
        return 1;
    if (open_image(&serving))
        return 1;
    int status = serve(&serving);
    int result = img_source_close(&serving.source);
    if (result)
        status = img_error("Could not close '%s': %s", arguments.image.path, strerror(-result));
    pidfile_remove(&serving.pidfile);
    return status;
}

const struct img_command img_serve_command = {
    .name = "serve",
    .synopsis =
        "[-k SOCKET | -p PORT [-b ADDRESS]] [-f FMT | --image-opts] [-r]\n"
        "          [--auto-read-only] [-s | -l SNAPSHOT] [-t]\n"
        "          [-e N] [-x NAME] [-D TEXT] [-B BITMAP] [--cache=CACHE] [-n] [--aio=AIO]\n"
        "          [--discard=ignore|unmap] [--detect-zeroes=off|on|unmap] [--fork]\n"
        "          [--pid-file=FILE] [-v] [-U] FILENAME",
    .help =
        "Lets others on this host use an image over the NBD protocol, as qemu-nbd does, and\n"
        "prints where. Ends with its last client, or when it is told to (Ctrl-C, SIGTERM).\n"
        "  -k, --socket PATH         listen on this unix socket\n"
        "  -p, --port PORT           or on this TCP port of 127.0.0.1 (10809; 0: a free one)\n"
        "  -b, --bind ADDRESS        another loopback address\n"
        "  -f, --format FMT          the format (default: found out from the file)\n"
        "  -r, --read-only           refuse writes\n"
        "  --auto-read-only          refuse writes if the image cannot be written\n"
        "  -l, --load-snapshot NAME  an internal snapshot, read-only\n"
        "  -s, --snapshot            keep writes in a temporary file, lost at the end\n"
        "  -t, --persistent          stay when the last client has gone\n"
        "  -e, --shared N            so many clients at once (1; 0: as many as can be)\n"
        "  -x, --export-name NAME    the name that clients ask for (none)\n"
        "  -D, --description TEXT    what clients see who ask for a list\n"
        "  -B, --bitmap NAME         show this bitmap as qemu:dirty-bitmap:NAME\n"
        "  --cache=CACHE             none, writeback (default), writethrough, directsync,\n"
        "                            unsafe; -n is none\n"
        "  --aio=AIO                 threads, native or io_uring (default: the best there is)\n"
        "  --discard=unmap|ignore    give discarded space back (default), or do not\n"
        "  --detect-zeroes=MODE      off, on: write zeroes as such; unmap: give their space back\n"
        "  --fork                    go to the background once it listens\n"
        "  --pid-file=FILE           write the process id there\n"
        "  -U, --force-share         with -r: read although another process uses the image\n"
        "Examples:\n"
        "  evisor-img serve -k /tmp/disk.sock -t disk.qcow2\n"
        "  nbdinfo --map 'nbd+unix:///?socket=/tmp/disk.sock'\n",
    .run = run,
};
