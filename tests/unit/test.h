/* SPDX-License-Identifier: MIT */
/* test: what every unit test includes: cmocka with the headers that it wants first. */
#ifndef TESTS_UNIT_TEST_H
#define TESTS_UNIT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
