/* SPDX-License-Identifier: MIT */
#include "tests/boot_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/test.h"

struct memory memory;
struct boot boot;
struct error err;
char boot_rig_path[64];

int boot_rig_set_up(void **state)
{
    (void)state;
    assert_int_equal(memory_init(&memory, 64 * MIB, NULL, false, NULL), 0);
    return 0;
}

int boot_rig_tear_down(void **state)
{
    (void)state;
    memory_fini(&memory);
    return 0;
}

int boot_rig_open(const void *kernel, size_t bytes, const char *initrd, const char *cmdline)
{
    err = (struct error){0};
    snprintf(boot_rig_path, sizeof(boot_rig_path), "/tmp/evisor-boot-XXXXXX");
    int fd = mkstemp(boot_rig_path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, kernel, bytes), (ssize_t)bytes);
    close(fd);
    int result = boot_open(&boot, &memory, boot_rig_path, initrd, cmdline, &err);
    unlink(boot_rig_path);
    return result;
}
