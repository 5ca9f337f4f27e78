/* SPDX-License-Identifier: MIT */
/* run: children and what they say. */
#include "tools/evctl/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/evctl/interrupt.h"
#include "tools/evctl/tell.h"

#define OUTPUT_MAX_BYTES (4u << 20)

extern char **environ;

static char *beside_us(const char *program)
{
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    char *found = NULL;
    if (length <= 0)
        return NULL;
    path[length] = '\0';
    char *slash = strrchr(path, '/');
    *(slash ? slash : path) = '\0';
    CHECK(asprintf(&found, "%s/%s", path, program) > 0);
    if (access(found, X_OK) == 0)
        return found;
    free(found);
    return NULL;
}

static char *on_path(const char *program)
{
    const char *path = getenv("PATH");
    char *copy = strdup(path ? path : "/usr/bin:/bin"), *rest = copy, *folder, *found = NULL;
    while (!found && (folder = strsep(&rest, ":"))) {
        CHECK(asprintf(&found, "%s/%s", folder, program) > 0);
        if (access(found, X_OK) < 0) {
            free(found);
            found = NULL;
        }
    }
    free(copy);
    return found;
}

char *run_find(const char *program, struct error *err)
{
    const char *variable = strcmp(program, "evisor") == 0       ? "EVISOR"
                           : strcmp(program, "evisor-img") == 0 ? "EVISOR_IMG"
                                                                : "EVISOR_SSH";
    const char *named = getenv(variable);
    char *found = named && *named ? strdup(named) : beside_us(program);
    if (!found)
        found = on_path(program);
    if (!found || access(found, X_OK) < 0) {
        error_set(err, ENOENT, "%s is not there; install it beside evctl, or name it with %s=PATH",
                  found ? found : program, variable);
        free(found);
        return NULL;
    }
    return found;
}

static char **make_arguments(const char *program, json_t *words)
{
    size_t count = json_array_size(words), i;
    json_t *word;
    char **arguments = calloc(count + 2, sizeof(*arguments));
    CHECK(arguments);
    arguments[0] = (char *)program;
    json_array_foreach(words, i, word) arguments[i + 1] = (char *)json_string_value(word);
    return arguments;
}

static void reset_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
}

/* In the child. */
static void become(const char *program, char **arguments, int in, int out, int errors)
    __attribute__((noreturn));

static void become(const char *program, char **arguments, int in, int out, int errors)
{
    reset_signals();
    if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
        dup2(errors, STDERR_FILENO) < 0)
        _exit(126);
    execve(program, arguments, environ);
    dprintf(STDERR_FILENO, "%s: %s\n", program, strerror(errno));
    _exit(127);
}

struct stream {
    int fd;
    char *text;
    size_t length;
};

static void stream_read(struct stream *stream)
{
    char *longer =
        stream->length < OUTPUT_MAX_BYTES ? realloc(stream->text, stream->length + 4097) : NULL;
    ssize_t got = longer ? read(stream->fd, longer + stream->length, 4096) : 0;
    if (longer)
        stream->text = longer;
    if (got > 0)
        stream->length += (size_t)got;
    if (longer)
        longer[stream->length] = '\0';
    if (got < 0 && errno == EINTR)
        return;
    if (got <= 0) {
        close(stream->fd);
        stream->fd = -1;
    }
}

static double last_percent(const char *text)
{
    const char *at = text ? strrchr(text, '(') : NULL;
    char *end;
    double percent = at ? strtod(at + 1, &end) : -1;
    return at && strncmp(end, "/100%", 5) == 0 ? percent : -1;
}

static void read_streams(struct stream streams[2], pid_t child, const char *what)
{
    struct tell_progress progress;
    tell_progress_begin(&progress, what ? what : "");
    while (streams[0].fd >= 0 || streams[1].fd >= 0) {
        struct pollfd ready[2] = {{.fd = streams[0].fd, .events = POLLIN},
                                  {.fd = streams[1].fd, .events = POLLIN}};
        if (poll(ready, 2, 250) < 0 && errno != EINTR)
            break;
        interrupt_pass_on(child);
        for (unsigned i = 0; i < 2; i++)
            if (streams[i].fd >= 0 && ready[i].revents)
                stream_read(&streams[i]);
        if (what)
            tell_progress_update(&progress, last_percent(streams[0].text));
    }
    tell_progress_end(&progress);
}

/*
 * The last line, without the program's name before it; the first of nft, which points at places,
 * and of tar, which ends by saying that it ends.
 */
static const char *best_line(char *text)
{
    size_t length = text ? strlen(text) : 0;
    if (length && (strncmp(text, "Error: ", 7) == 0 || strstr(text, "previous errors\n"))) {
        text[strcspn(text, "\n")] = '\0';
        length = strlen(text);
    }
    while (length && text[length - 1] == '\n')
        text[--length] = '\0';
    if (!length)
        return "it gave no reason";
    char *line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    char *colon = strstr(line, ": ");
    return colon && !memchr(line, ' ', (size_t)(colon - line)) ? colon + 2 : line;
}

static int judge(const char *program, pid_t child, struct stream *errors, struct error *err)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (interrupt_is_pending())
        return interrupt_check(err);
    if (WIFSIGNALED(status))
        return error_set(err, EIO, "%s was ended by signal %d", program, WTERMSIG(status));
    return error_set(err, EIO, "%s", best_line(errors->text));
}

int run_program(const char *program, json_t *words, const char *what, char **output,
                struct error *err)
{
    int out[2], errors[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0) {
        json_decref(words);
        return error_set_errno(err, errno, "cannot start %s", program);
    }
    char **arguments = make_arguments(program, words);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        become(program, arguments, null, out[1], errors[1]);
    free(arguments);
    json_decref(words);
    close(null);
    close(out[1]);
    close(errors[1]);
    struct stream streams[2] = {{.fd = out[0]}, {.fd = errors[0]}};
    int result = child < 0 ? error_set_errno(err, errno, "cannot start %s", program) : 0;
    read_streams(streams, child, what);
    if (!result)
        result = judge(program, child, &streams[1], err);
    if (output)
        *output = streams[0].text ? streams[0].text : strdup("");
    else
        free(streams[0].text);
    free(streams[1].text);
    return result;
}

int run_img(json_t *words, const char *what, char **output, struct error *err)
{
    char *program = run_find("evisor-img", err);
    if (output)
        *output = NULL;
    if (!program) {
        json_decref(words);
        return -ENOENT;
    }
    int result = run_program(program, words, what, output, err);
    free(program);
    return result;
}

pid_t run_detached(const char *program, json_t *words, int folder_fd, int log_fd, struct error *err)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char **arguments = make_arguments(program, words);
    fflush(NULL);
    pid_t child = null < 0 ? -1 : fork();
    if (child == 0) {
        setsid();
        if (fchdir(folder_fd) < 0)
            _exit(126);
        become(program, arguments, null, log_fd, log_fd);
    }
    if (child < 0)
        child = error_set_errno(err, errno, "cannot start %s", program);
    if (null >= 0)
        close(null);
    free(arguments);
    return child;
}
