/* SPDX-License-Identifier: MIT */
/*
 * options_char: -chardev, and -serial, -monitor, -qmp and -mon, whose short forms ("stdio",
 * "unix:PATH,server=on,wait=off") become chardevs of their own.
 *
 * Who uses which chardev is settled at the end: one that several share must be multiplexed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/suggest.h"
#include "vmm/options/options_groups.h"
#include "vmm/options/options_private.h"

#define OTHER_BACKENDS                                                                             \
    "serial|tty|parallel|parport|msmouse|wctablet|braille|testdev|udp|"     \
    "spicevmc|spiceport|console|hub|qemu-vdagent"

static const struct keyval_known socket_known[] = {
    {"backend", NULL, NULL},
    {"id", NULL, NULL},
    {"path", NULL, NULL},
    {"host", NULL, NULL},
    {"port", NULL, NULL},
    {"server", NULL, NULL},
    {"wait", NULL, NULL},
    {"mux", NULL, NULL},
    {"history", NULL, NULL},
    {"nodelay", "*", NULL},
    {"delay", "*", NULL},
    {"ipv4", "*", NULL},
    {"ipv6", "off", "use ipv4"},
    {"telnet", NULL, NULL},
    {"websocket", "off", "there is no websocket; use a plain connection"},
    {"reconnect", NULL, NULL},
    {"reconnect-ms", NULL, NULL},
    {"abstract", "off", "abstract names are not safe; use a path"},
    {"logfile", NULL, NULL},
    {"logappend", NULL, NULL},  {"logsize", NULL, NULL},
    {0}};
static const struct keyval_known file_known[] = {
    {"backend", NULL, NULL},      {"id", NULL, NULL},
    {"path", NULL, NULL},         {"append", NULL, NULL},
    {"mux", NULL, NULL},          {"logfile", NULL, NULL},
    {"logappend", NULL, NULL},  {"logsize", NULL, NULL}, {0}};
static const struct keyval_known plain_known[] = {
    {"backend", NULL, NULL}, {"id", NULL, NULL},           {"mux", NULL, NULL},
    {"logfile", NULL, NULL}, {"logappend", NULL, NULL},  {"logsize", NULL, NULL}, {0}};
static const struct keyval_known stdio_known[] = {{"backend", NULL, NULL},
                                                  {"id", NULL, NULL},
                                                  {"mux", NULL, NULL},
                                                  {"signal", NULL, NULL},
                                                  {"logfile", NULL, NULL},
                                                  {"logappend", NULL, NULL},  {"logsize", NULL, NULL},
                                                  {0}};

static const struct keyval_known pipe_known[] = {
    {"backend", NULL, NULL}, {"id", NULL, NULL},      {"path", NULL, NULL},
    {"mux", NULL, NULL},     {"logfile", NULL, NULL}, {"logappend", NULL, NULL},
    {"logsize", NULL, NULL}, {0}};
static const struct keyval_known ringbuf_known[] = {
    {"backend", NULL, NULL}, {"id", NULL, NULL},      {"size", NULL, NULL},
    {"mux", NULL, NULL},     {"logfile", NULL, NULL}, {"logappend", NULL, NULL},
    {"logsize", NULL, NULL}, {0}};

const struct keyval_known *const options_chardev_known[] = {
    socket_known, file_known, plain_known, stdio_known, pipe_known, ringbuf_known, NULL};

static struct config_chardev *find_chardev(struct vm_config *config, const char *id)
{
    for (unsigned i = 0; i < config->chardev_count; i++)
        if (config->chardevs[i].id && strcmp(config->chardevs[i].id, id) == 0)
            return &config->chardevs[i];
    return NULL;
}

static int read_tcp(struct config_chardev *chardev, const struct keyval *list, struct error *err)
{
    uint64_t port = 0;
    int result = keyval_uint(list, "port", 1, UINT16_MAX, &port, err);
    keyval_string(list, "host", &chardev->host);
    if (!result && !port)
        result = error_set(err, EINVAL, "%s: say where to listen: path=PATH, or port=NUMBER",
                           list->option);
    chardev->port = (uint16_t)port;
    if (!result && chardev->host && *chardev->host && strncmp(chardev->host, "127.", 4) != 0 &&
        keyval_name_index("localhost|::1", chardev->host) < 0)
        result = error_set(err, EINVAL,
                           "%s: host=%s: only this host may come; use 127.0.0.1 and, from "
                           "elsewhere, ssh -L",
                           list->option, chardev->host);
    return result;
}

/* A server may wait for its client, a client try again. */
static int read_waiting(struct config_chardev *chardev, const struct keyval *list,
                        struct error *err)
{
    uint64_t reconnect_s = 0;
    int result = keyval_uint(list, "reconnect", 0, 86400, &reconnect_s, err);
    chardev->reconnect_ms = reconnect_s * 1000;
    if (!result)
        result = keyval_uint(list, "reconnect-ms", 0, 86400 * 1000, &chardev->reconnect_ms, err);
    chardev->wait = chardev->is_server;
    if (!result && chardev->is_server && chardev->reconnect_ms)
        return error_set(
            err, EINVAL,
            "%s: 'reconnect' option is incompatible with socket in server listen mode",
            list->option);
    if (!result && !chardev->is_server && keyval_get(list, "wait"))
        return error_set(err, EINVAL,
                         "%s: 'wait' option is incompatible with socket in client connect mode",
                         list->option);
    return result ? result : keyval_bool(list, "wait", &chardev->wait, err);
}

static int read_socket(struct config_chardev *chardev, const struct keyval *list, struct error *err)
{
    keyval_string(list, "path", &chardev->path);
    chardev->kind = chardev->path ? CHARDEV_UNIX : CHARDEV_TCP;
    int result = chardev->path ? 0 : read_tcp(chardev, list, err);
    if (!result && chardev->path && !*chardev->path)
        result = error_set(err, EINVAL, "%s: the path is empty", list->option);
    if (!result)
        result = keyval_bool(list, "server", &chardev->is_server, err);
    if (!result)
        result = keyval_bool(list, "telnet", &chardev->is_telnet, err);
    return result ? result : read_waiting(chardev, list, err);
}

static int read_pipe(struct config_chardev *chardev, const struct keyval *list, struct error *err)
{
    chardev->kind = CHARDEV_PIPE;
    keyval_string(list, "path", &chardev->path);
    if (!chardev->path || !*chardev->path)
        return error_set(err, EINVAL, "%s: name the FIFO with path=PATH", list->option);
    return 0;
}

static int read_ringbuf(struct config_chardev *chardev, const struct keyval *list,
                        struct error *err)
{
    chardev->kind = CHARDEV_RINGBUF;
    chardev->ring_bytes = 64 * 1024;
    int result = keyval_size(list, "size", 1, &chardev->ring_bytes, err);
    if (!result && (!is_power_of_2(chardev->ring_bytes) || chardev->ring_bytes > CHARDEV_RING_MAX))
        result = error_set(err, EINVAL,
                           "%s: size of ringbuf chardev must be power of two, and at most 16M",
                           list->option);
    return result;
}

static int read_file(struct config_chardev *chardev, const struct keyval *list, struct error *err)
{
    chardev->kind = CHARDEV_FILE;
    keyval_string(list, "path", &chardev->path);
    if (!chardev->path || !*chardev->path)
        return error_set(err, EINVAL, "%s: name the file with path=PATH", list->option);
    return keyval_bool(list, "append", &chardev->append, err);
}

static int read_stdio(struct config_chardev *chardev, const struct keyval *list, struct error *err)
{
    chardev->kind = CHARDEV_STDIO;
    chardev->has_signals = true;
    return keyval_bool(list, "signal", &chardev->has_signals, err);
}

static int read_pty(struct config_chardev *chardev, const struct keyval *list, struct error *err)
{
    (void)list, (void)err;
    chardev->kind = CHARDEV_PTY;
    return 0;
}

static int read_null(struct config_chardev *chardev, const struct keyval *list, struct error *err)
{
    (void)list, (void)err;
    chardev->kind = CHARDEV_NULL;
    return 0;
}

static const struct backend {
    const char *name;
    const struct keyval_known *known;
    int (*read)(struct config_chardev *chardev, const struct keyval *list, struct error *err);
} backends[] = {
    {"null", plain_known, read_null},      {"stdio", stdio_known, read_stdio},
    {"file", file_known, read_file},       {"pty", plain_known, read_pty},
    {"socket", socket_known, read_socket},   {"pipe", pipe_known, read_pipe},
    {"ringbuf", ringbuf_known, read_ringbuf}, {"memory", ringbuf_known, read_ringbuf},
};

static const struct backend *find_backend(const struct keyval *list, struct error *err)
{
    const char *name = keyval_get(list, "backend");
    struct suggest suggest;
    suggest_init(&suggest, name ? name : "");
    for (unsigned i = 0; name && i < ARRAY_SIZE(backends); i++) {
        if (strcmp(backends[i].name, name) == 0)
            return &backends[i];
        suggest_offer(&suggest, backends[i].name);
    }
    if (name && strcmp(name, "vc") == 0)
        error_set(err, ENOTSUP, "%s: evisor has no window; use stdio or socket", list->option);
    else if (name && keyval_name_index(OTHER_BACKENDS, name) >= 0)
        error_set(err, ENOTSUP,
                  "%s: %s is not there; use null, stdio, file, pipe, pty, socket or ringbuf",
                  list->option, name);
    else if (suggest.best)
        error_set(err, EINVAL, "%s: unknown kind '%s'; did you mean '%s'?", list->option, name,
                  suggest.best);
    else
        error_set(err, EINVAL, "%s: say null, stdio, file, pipe, pty, socket or ringbuf", list->option);
    return NULL;
}

static int check_mux(const struct vm_config *config, const struct config_chardev *chardev,
                     const struct keyval *list, struct error *err)
{
    if (chardev->is_mux && chardev->kind != CHARDEV_STDIO && chardev->kind != CHARDEV_PTY)
        return error_set(err, ENOTSUP, "%s: only stdio and pty can be shared by mux=on",
                         list->option);
    for (unsigned i = 0; i < config->chardev_count; i++)
        if (&config->chardevs[i] != chardev && chardev->kind == CHARDEV_STDIO &&
            config->chardevs[i].kind == CHARDEV_STDIO)
            return error_set(err, EBUSY,
                             "%s: stdio is in use already; to share it, write -chardev "
                             "stdio,id=ID,mux=on once, and chardev:ID everywhere",
                             list->option);
    return 0;
}

static int read_log(struct config_chardev *chardev, const struct keyval *list, struct error *err)
{
    keyval_string(list, "logfile", &chardev->logfile);
    int result = keyval_bool(list, "logappend", &chardev->logappend, err);
    if (!result)
        result = keyval_size(list, "logsize", 1, &chardev->log_bytes, err);
    return result ? result : keyval_bool(list, "history", &chardev->history, err);
}

void options_chardev_fini(struct config_chardev *chardev)
{
    free(chardev->id);
    free(chardev->path);
    free(chardev->host);
    free(chardev->logfile);
    *chardev = (struct config_chardev){0};
}

/* The first entry that is free, or a new one; NULL if there is no room. */
static struct config_chardev *new_entry(struct vm_config *config)
{
    for (unsigned i = 0; i < config->chardev_count; i++)
        if (!config->chardevs[i].id)
            return &config->chardevs[i];
    return config->chardev_count < CONFIG_CHARDEV_MAX ? &config->chardevs[config->chardev_count++]
                                                      : NULL;
}

/* Adds what the list describes. */
static int load_chardev(struct vm_config *config, struct keyval *list, const char *id,
                        struct config_chardev **out, struct error *err)
{
    const struct backend *backend = find_backend(list, err);
    int result = backend ? keyval_check(list, backend->known, err) : -EINVAL;
    struct config_chardev *chardev = result ? NULL : new_entry(config);
    if (result)
        return result;
    if (!chardev)
        return error_set(err, E2BIG, "%s: more than %d chardevs", list->option, CONFIG_CHARDEV_MAX);
    chardev->id = text_copy(id);
    result = backend->read(chardev, list, err);
    if (!result)
        result = keyval_bool(list, "mux", &chardev->is_mux, err);
    if (!result)
        result = read_log(chardev, list, err);
    if (!result)
        result = check_mux(config, chardev, list, err);
    if (result)
        options_chardev_fini(chardev);
    else
        *out = chardev;
    return result;
}

int options_chardev_load(struct vm_config *config, struct keyval *list,
                         struct config_chardev **out, struct error *err)
{
    const char *id = keyval_get(list, "id");
    if (!id || !*id)
        return error_set(err, EINVAL, "Parameter 'id' is missing");
    if (find_chardev(config, id))
        return error_set(err, EEXIST, "Chardev with id '%s' already exists", id);
    return load_chardev(config, list, id, out, err);
}

static int add_chardev(struct options *options, struct keyval *list, const char *id,
                       struct error *err)
{
    struct config_chardev *chardev;
    if (find_chardev(options->config, id))
        return error_set(err, EEXIST, "%s: there is another chardev with id=%s", list->option, id);
    return load_chardev(options->config, list, id, &chardev, err);
}

int option_chardev(struct options *options, const struct option_entry *entry, const char *argument,
                   struct error *err)
{
    (void)entry;
    if (strcmp(argument, "help") == 0 || strcmp(argument, "?") == 0) {
        options->text = text_copy("Available chardev backend types:\n  file\n  null\n  pipe\n"
                                     "  pty\n  ringbuf\n  socket\n  stdio\n");
        return 0;
    }
    struct keyval list;
    if (*argument == '{')
        return error_set(err, ENOTSUP,
                         "-chardev %s: no JSON here, as in QEMU; write it as "
                         "-chardev BACKEND,id=ID,KEY=VALUE,...",
                         argument);
    int result = keyval_parse(&list, "-chardev", argument, "backend", err);
    if (result)
        return result;
    const char *id = keyval_get(&list, "id");
    if (!id || !*id)
        result = error_set(err, EINVAL, "%s: add id=NAME", list.option);
    else
        result = add_chardev(options, &list, id, err);
    keyval_fini(&list);
    return result;
}

/* "HOST:PORT,server=on" in the words of -chardev socket; NULL if it has no port. */
static char *spell_tcp(const char *text, bool is_telnet)
{
    size_t address = strcspn(text, ",");
    const char *colon = memrchr(text, ':', address);
    char *spelled = NULL;
    if (colon)
        CHECK(asprintf(&spelled, "socket,telnet=%s,host=%.*s,port=%s", is_telnet ? "on" : "off",
                       (int)(colon - text), text, colon + 1) > 0);
    return spelled;
}

/* The short form in the words of -chardev; NULL if it is none. */
static char *spell_out(const char *text)
{
    static const struct {
        const char *prefix, *meaning;
    } prefixes[] = {{"unix:", "socket,path="}, {"file:", "file,path="}, {"pipe:", "pipe,path="}};
    char *spelled = NULL;
    if (strncmp(text, "tcp:", 4) == 0)
        return spell_tcp(text + 4, false);
    if (strncmp(text, "telnet:", 7) == 0)
        return spell_tcp(text + 7, true);
    for (unsigned i = 0; i < ARRAY_SIZE(prefixes); i++) {
        size_t length = strlen(prefixes[i].prefix);
        if (strncmp(text, prefixes[i].prefix, length) == 0)
            CHECK(asprintf(&spelled, "%s%s", prefixes[i].meaning, text + length) > 0);
    }
    if (!spelled && keyval_name_index("stdio|pty|null", text) >= 0)
        spelled = text_copy(text);
    return spelled;
}

static bool is_monitor(const struct options_char_user *user)
{
    return !user->is_serial && !user->is_port;
}

static int add_user(struct options *options, const char *option, const char *chardev_id,
                    const struct options_char_user *as, struct error *err)
{
    unsigned monitors = 0;
    for (unsigned i = 0; i < options->char_user_count; i++)
        monitors += is_monitor(&options->char_users[i]);
    if (is_monitor(as) && monitors == CONFIG_MONITOR_MAX)
        return error_set(err, E2BIG, "%s: more than %d monitors", option, CONFIG_MONITOR_MAX);
    struct options_char_user *user = &options->char_users[options->char_user_count++];
    *user = *as;
    user->chardev_id = text_copy(chardev_id);
    user->option = text_copy(option);
    return 0;
}

int options_add_port_user(struct options *options, const char *option, const char *chardev_id,
                          unsigned port, struct error *err)
{
    const struct options_char_user user = {.is_port = true, .port = port};
    return add_user(options, option, chardev_id, &user, err);
}

/* Makes a chardev of a short form; its id is written to `id`. */
static int add_short(struct options *options, const char *option, const char *text, bool is_mux,
                     char *id, struct error *err)
{
    struct keyval list;
    char *spelled = spell_out(text);
    if (!spelled)
        return error_set(err, EINVAL,
                         "%s %s%s: say stdio, mon:stdio, file:PATH, unix:PATH,server=on,wait=off, "
                         "telnet:127.0.0.1:PORT,server=on,wait=off, pty, null, none or chardev:ID",
                         option, is_mux ? "mon:" : "", text);
    int result = keyval_parse(&list, option, spelled, "backend", err);
    free(spelled);
    if (result)
        return result;
    free(list.option);
    CHECK(asprintf(&list.option, "%s %s%s", option, is_mux ? "mon:" : "", text) > 0);
    result = add_chardev(options, &list, id, err);
    if (!result && is_mux) {
        struct config_chardev *chardev = find_chardev(options->config, id);
        chardev->is_mux = true;
        chardev->has_signals = false;
        result = check_mux(options->config, chardev, &list, err);
    }
    keyval_fini(&list);
    return result;
}

static int attach_text(struct options *options, const char *option, const char *text,
                       const struct options_char_user *as, struct error *err)
{
    static const struct options_char_user human = {.kind = MONITOR_HUMAN};
    char id[32];
    if (strncmp(text, "chardev:", 8) == 0)
        return add_user(options, option, text + 8, as, err);
    if (strcmp(text, "vc") == 0 || strncmp(text, "vc:", 3) == 0)
        return error_set(err, ENOTSUP, "%s %s: evisor has no window; use stdio or unix:", option,
                         text);
    bool is_mux = strncmp(text, "mon:", 4) == 0;
    if (as->is_serial)
        snprintf(id, sizeof(id), "serial0");
    else
        snprintf(id, sizeof(id), "compat_monitor%u", options->monitor_ids++);
    int result = add_short(options, option, text + (is_mux ? 4 : 0), is_mux, id, err);
    if (!result)
        result = add_user(options, option, id, as, err);
    if (!result && is_mux && as->is_serial)
        result = add_user(options, option, id, &human, err);
    options->has_monitor |= is_mux;
    return result;
}

int option_serial(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    (void)entry;
    static const struct options_char_user serial = {.is_serial = true};
    bool is_nothing = keyval_name_index("none|null", argument) >= 0;
    if (options->has_serial && is_nothing)
        return 0;
    if (options->has_serial)
        return error_set(err, ENOTSUP, "-serial %s: there is one serial port, and it is in use",
                         argument);
    options->has_serial = true;
    if (strcmp(argument, "none") == 0)
        return 0;
    return attach_text(options, "-serial", argument, &serial, err);
}

/* -monitor, -qmp and -qmp-pretty. */
int option_monitor(struct options *options, const struct option_entry *entry, const char *argument,
                   struct error *err)
{
    struct options_char_user user = {.pretty = strcmp(entry->name, "qmp-pretty") == 0};
    user.kind = strcmp(entry->name, "monitor") == 0 ? MONITOR_HUMAN : MONITOR_QMP;
    char option[16];
    snprintf(option, sizeof(option), "-%s", entry->name);
    options->has_monitor = true;
    if (keyval_name_index("none|null", argument) >= 0)
        return 0;
    return attach_text(options, option, argument, &user, err);
}

const struct keyval_known options_mon_known[] = {{"chardev", NULL, NULL}, {"mode", NULL, NULL},
                                                {"pretty", NULL, NULL},  {"default", "*", NULL},
                                                {"id", "*", NULL},       {0}};

int option_mon(struct options *options, const struct option_entry *entry, const char *argument,
               struct error *err)
{
    (void)entry;
    struct keyval list;
    int result = keyval_parse(&list, "-mon", argument, "chardev", err);
    if (result)
        return result;
    struct options_char_user user = {0};
    unsigned mode = 0;
    const char *id = keyval_get(&list, "chardev");
    result = keyval_check(&list, options_mon_known, err);
    if (!result && !id)
        result = error_set(err, EINVAL, "%s: say which chardev: chardev=ID", list.option);
    if (!result)
        result = keyval_choice(&list, "mode", "readline|control", &mode, err);
    if (!result)
        result = keyval_bool(&list, "pretty", &user.pretty, err);
    user.kind = mode ? MONITOR_QMP : MONITOR_HUMAN;
    options->has_monitor = true;
    if (!result)
        result = add_user(options, list.option, id, &user, err);
    keyval_fini(&list);
    return result;
}

/* There is no window, so without other words the terminal is where the guest is seen. */
static int add_defaults(struct options *options, struct error *err)
{
    static const struct options_char_user serial = {.is_serial = true};
    bool has_terminal = !options->has_display && !options->config->daemonize;
    bool stdio_is_free = true;
    for (unsigned i = 0; i < options->config->chardev_count; i++)
        stdio_is_free &= options->config->chardevs[i].kind != CHARDEV_STDIO;
    if (options->nodefaults || options->has_serial || !stdio_is_free ||
        !(options->nographic || has_terminal))
        return 0;
    options->has_serial = true;
    return attach_text(options, "-nographic", options->has_monitor ? "stdio" : "mon:stdio", &serial,
                       err);
}

static int refuse_chardev(struct options *options, const struct options_char_user *user,
                          struct error *err)
{
    struct suggest suggest;
    suggest_init(&suggest, user->chardev_id);
    for (unsigned i = 0; i < options->config->chardev_count; i++)
        suggest_offer(&suggest, options->config->chardevs[i].id);
    return error_set(err, ENOENT, "%s: there is no chardev with id=%s%s%s%s", user->option,
                     user->chardev_id, suggest.best ? "; did you mean '" : "",
                     suggest.best ? suggest.best : "", suggest.best ? "'?" : "");
}

static unsigned count_users(const struct options *options, const char *id)
{
    unsigned count = 0;
    for (unsigned i = 0; i < options->char_user_count; i++)
        count += strcmp(options->char_users[i].chardev_id, id) == 0;
    return count;
}

static int settle_user(struct options *options, const struct options_char_user *user,
                       struct error *err)
{
    struct vm_config *config = options->config;
    struct config_chardev *chardev = find_chardev(config, user->chardev_id);
    if (!chardev)
        return refuse_chardev(options, user, err);
    if (!chardev->is_mux && count_users(options, chardev->id) > 1)
        return error_set(err, EBUSY, "%s: chardev %s has another user; add mux=on to share it",
                         user->option, chardev->id);
    if (is_monitor(user) && chardev->kind == CHARDEV_FILE)
        return error_set(err, EINVAL, "%s: a file cannot give commands; use unix: or stdio",
                         user->option);
    unsigned index = (unsigned)(chardev - config->chardevs);
    if (user->is_port) {
        config->guest.serial_ports[user->port].chardev = (int)index;
    } else if (user->is_serial) {
        config->serial_chardev = (int)index;
    } else {
        config->monitors[config->monitor_count++] =
            (struct config_monitor){.kind = user->kind, .chardev = index, .pretty = user->pretty};
    }
    return 0;
}

static int check_terminal(const struct options *options, struct error *err)
{
    if (!options->config->daemonize)
        return 0;
    if (options->nographic)
        return error_set(err, EINVAL,
                         "-nographic uses the terminal that -daemonize leaves; use -display none "
                         "and -serial file:PATH");
    for (unsigned i = 0; i < options->config->chardev_count; i++)
        if (options->config->chardevs[i].kind == CHARDEV_STDIO)
            return error_set(err, EINVAL,
                             "stdio is the terminal that -daemonize leaves; use unix: or file:");
    return 0;
}

int options_finish_chars(struct options *options, struct error *err)
{
    int result = check_terminal(options, err);
    if (!result)
        result = add_defaults(options, err);
    for (unsigned i = 0; i < options->char_user_count && !result; i++)
        result = settle_user(options, &options->char_users[i], err);
    return result;
}
