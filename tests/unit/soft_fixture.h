/* SPDX-License-Identifier: MIT */
/* soft_fixture: one guest of one CPU, made before each test of a program and gone after it. */
#ifndef TESTS_UNIT_SOFT_FIXTURE_H
#define TESTS_UNIT_SOFT_FIXTURE_H

#include "tests/soft_guest.h"

static struct soft_guest guest;

static int set_up(void **state)
{
    (void)state;
    soft_guest_create(&guest, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    soft_guest_destroy(&guest);
    return 0;
}

#endif
