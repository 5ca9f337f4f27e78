/* SPDX-License-Identifier: MIT */
/* probe: a table of magic numbers; what matches none is raw. */
#include "disk/probe.h"

#include <errno.h>
#include <string.h>

static const struct {
    const char *format;
    uint32_t at;
    uint32_t length;
    const char *magic;
} magics[] = {
    {"qcow2", 0, 4, "QFI\xfb"},
    {"qed", 0, 4, "QED"},
    {"vmdk", 0, 4, "KDMV"},
    {"vmdk", 0, 4, "COWD"},
    {"vmdk", 0, 21, "# Disk DescriptorFile"},
    {"vdi", 64, 4, "\x7f\x10\xda\xbe"},
    {"vhdx", 0, 8, "vhdxfile"},
    {"vpc", 0, 8, "conectix"},
    {"luks", 0, 6, "LUKS\xba\xbe"},
};

int probe_format(struct io_file *file, const char *path, const char **format, struct error *err)
{
    char start[512];
    int result = io_read_now(file, 0, start, sizeof(start));
    if (result)
        return error_set_errno(
            err, -result,
            "Could not open '%s': Could not read image for determining its format; name it with -f",
            path);
    *format = "raw";
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
        if (!memcmp(start + magics[i].at, magics[i].magic, magics[i].length)) {
            *format = magics[i].format;
            break;
        }
    return 0;
}
