/* SPDX-License-Identifier: MIT */
/* drive_format: looks at the fixed fields of a qcow2 header, and at nothing they point to. */
#include "vmm/drive_format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#include "base/bytes.h"

#define QCOW2_MAGIC              0x514649fbu
#define QCOW2_AT_BACKING         8
#define QCOW2_AT_INCOMPATIBLE    72
#define QCOW2_INCOMPAT_DATA_FILE 4u
#define HEADER_BYTES             80

static bool names_another_file(const uint8_t *header)
{
    return load_be64(header + QCOW2_AT_BACKING) ||
           (load_be32(header + 4) >= 3 &&
            load_be64(header + QCOW2_AT_INCOMPATIBLE) & QCOW2_INCOMPAT_DATA_FILE);
}

int drive_format_tell(const char *path, const char **format, struct error *err)
{
    uint8_t header[HEADER_BYTES] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set_errno(err, errno, "cannot open image '%s'", path);
    ssize_t got = pread(fd, header, sizeof(header), 0);
    int code = errno;
    close(fd);
    if (got < 0)
        return error_set_errno(err, code, "cannot read image '%s'", path);
    if (load_be32(header) != QCOW2_MAGIC) {
        *format = "raw";
        return 0;
    }
    if (names_another_file(header))
        return error_set(err, EINVAL,
                         "image '%s' says that it is qcow2 and builds on another file; if that is "
                         "so, say it: format=qcow2",
                         path);
    *format = "qcow2";
    return 0;
}
