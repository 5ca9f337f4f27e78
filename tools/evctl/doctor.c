/* SPDX-License-Identifier: MIT */
/* doctor: whether this host can run machines, found out by doing, and what to do where it cannot.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tools/evctl/evctl.h"
#include "tools/evctl/run.h"
#include "tools/evctl/store.h"
#include "tools/evctl/tell.h"
#include "vmm/accel_select.h"

/* Good, works with less, does not work. */
enum verdict { GOOD, LESS, BAD };

static void add(json_t *rows, const char *what, enum verdict verdict, const char *format, ...)
    printf_like(4, 5);

static void add(json_t *rows, const char *what, enum verdict verdict, const char *format, ...)
{
    static const char *const words[] = {"good", "less", "bad"};
    va_list args;
    char *text = NULL;
    va_start(args, format);
    CHECK(vasprintf(&text, format, args) >= 0);
    va_end(args);
    json_array_append_new(rows, json_pack("{s:s, s:s, s:s}", "what", what, "verdict",
                                          words[verdict], "detail", text));
    free(text);
}

/* Opens it, makes a machine with it, runs a loop and takes the time: flags of the CPU tell little.
 */
static void check_kvm(json_t *rows)
{
    struct error err = {0};
    char why[512];
    if (kvm_accel_ops.probe(&err)) {
        add(rows, "kvm", LESS, "%s; machines run on evisor's own CPU, slower", err.text);
        return;
    }
    double rate = accel_measure(&kvm_accel_ops);
    if (accel_kvm_is_native(why, sizeof(why)))
        add(rows, "kvm", GOOD, "runs guests natively, %.0f million instructions a second measured",
            rate / 1e6);
    else
        add(rows, "kvm", LESS,
            "%s; machines run on evisor's own CPU: if this host is a virtual machine, turn nested "
            "virtualization on",
            why);
}

static void check_soft(json_t *rows)
{
    double rate = accel_measure(&soft_accel_ops);
    add(rows, "soft", rate > 0 ? GOOD : BAD,
        "evisor's own CPU, %.0f million instructions a second measured", rate / 1e6);
}

static void check_tun(json_t *rows)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        add(rows, "tun", GOOD, "/dev/net/tun opens: NICs on TAP interfaces can be made");
    else
        add(rows, "tun", LESS,
            "/dev/net/tun: %s; networks behind NAT and internal ones work without"
            "%s",
            strerror(errno), errno == ENOENT ? " (modprobe tun)" : "");
    if (fd >= 0)
        close(fd);
}

static void check_memory(json_t *rows)
{
    char line[128], text[TELL_SIZE_BYTES];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    add(rows, "memory", kib >= 512 * 1024 ? GOOD : LESS, "%s available%s",
        tell_size(kib * 1024, text), kib >= 512 * 1024 ? "" : "; small machines only");
}

static void check_space(json_t *rows)
{
    struct statvfs space;
    struct error err = {0};
    char text[TELL_SIZE_BYTES], *root = store_root(&err);
    if (!root || statvfs(root, &space) < 0) {
        add(rows, "folder", BAD, "%s", root ? strerror(errno) : err.text);
    } else {
        uint64_t bytes = (uint64_t)space.f_bavail * space.f_frsize;
        bool is_writable = access(root, W_OK) == 0;
        add(rows, "folder",
            !is_writable         ? BAD
            : bytes < (1u << 30) ? LESS
                                 : GOOD,
            "%s%s, %s free", root, is_writable ? "" : " cannot be written", tell_size(bytes, text));
    }
    free(root);
}

static void check_program(json_t *rows, const char *program)
{
    struct error err = {0};
    char *path = run_find(program, &err), *version = NULL;
    if (path && run_program(path, json_pack("[s]", "--version"), NULL, &version, &err) == 0)
        add(rows, program, GOOD, "%s: %.*s", path, (int)strcspn(version, "\n"), version);
    else
        add(rows, program, BAD, "%s", err.text);
    free(path);
    free(version);
}

static void check_ssh(json_t *rows)
{
    struct error err = {0};
    char *path = run_find("ssh", &err);
    add(rows, "ssh", path ? GOOD : LESS, "%s",
        path ? path : "not there, evctl ssh needs it: apt-get install openssh-client");
    free(path);
}

static void print(const json_t *rows)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *verdict = json_string_value(json_object_get(row, "verdict"));
        enum tell_colour colour = *verdict == 'g'   ? TELL_GREEN
                                  : *verdict == 'l' ? TELL_YELLOW
                                                    : TELL_RED;
        if (!tell_is_json())
            printf("%s%-5s%s %-11s %s\n", tell_colour(colour), verdict, tell_colour(TELL_PLAIN),
                   json_string_value(json_object_get(row, "what")),
                   json_string_value(json_object_get(row, "detail")));
    }
}

int cmd_doctor(struct evctl_call *call, struct error *err)
{
    size_t i;
    json_t *row, *rows = json_array();
    bool is_bad = false;
    (void)call;
    check_kvm(rows);
    check_soft(rows);
    check_tun(rows);
    check_memory(rows);
    check_space(rows);
    check_program(rows, "evisor");
    check_program(rows, "evisor-img");
    check_ssh(rows);
    print(rows);
    json_array_foreach(rows, i, row) is_bad |=
        strcmp(json_string_value(json_object_get(row, "verdict")), "bad") == 0;
    tell_json(rows);
    return is_bad ? error_set(err, EIO,
                              "this host cannot run machines yet; the lines that say bad "
                              "tell what to do")
                  : 0;
}
