/* SPDX-License-Identifier: MIT */
#include "devices/fw_cfg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/fake_board.h"
#include "tests/unit/test.h"

enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };

static struct fake_board board;
static struct fw_cfg *fw_cfg;
static uint8_t ram[4 << 20];

static const struct guest_mem mem = {
    .regions = {{.gpa = 0x1000, .size = sizeof(ram), .host = ram}},
    .region_count = 1,
};

static int set_up(void **state)
{
    (void)state;
    fake_board_init(&board);
    memset(ram, 0xee, sizeof(ram));
    return fw_cfg_create(&board.bus, &mem, &fw_cfg, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    fake_board_close(&board, &fw_cfg->device);
    fake_board_fini(&board);
    return 0;
}

static void select_key(uint16_t key)
{
    fake_board_out16(&board, 0x510, key);
}

static uint8_t next(void)
{
    return fake_board_in8(&board, 0x511);
}

static uint32_t next_be(unsigned bytes)
{
    uint32_t value = 0;
    while (bytes--)
        value = value << 8 | next();
    return value;
}

static uint8_t *at(uint64_t gpa)
{
    return ram + gpa - 0x1000;
}

static void start(uint64_t description_gpa)
{
    fake_board_out32(&board, 0x514, htobe32((uint32_t)(description_gpa >> 32)));
    fake_board_out32(&board, 0x518, htobe32((uint32_t)description_gpa));
}

/* Returns the control word that the guest sees at the end. */
static uint32_t dma(uint32_t control, uint32_t length, uint64_t gpa)
{
    store_be32(at(0x2000), control);
    store_be32(at(0x2004), length);
    store_be64(at(0x2008), gpa);
    start(0x2000);
    for (int turn = 0; turn < 20 && load_be32(at(0x2000)) > ERROR; turn++)
        loop_run_once(&board.loop, false);
    return load_be32(at(0x2000));
}

static void test_identifies_itself(void **state)
{
    (void)state;
    select_key(FW_CFG_SIGNATURE);
    assert_int_equal(next_be(4), 0x51454d55);
    assert_int_equal(next_be(4), 0);
    select_key(FW_CFG_ID);
    assert_int_equal(next(), 3);
    assert_int_equal(fake_board_in32(&board, 0x514), htobe32(0x51454d55));
    assert_int_equal(fake_board_in32(&board, 0x518), htobe32(0x20434647));
    select_key(0x3333);
    assert_int_equal(next_be(4), 0);
    select_key(0x8000); /* the architecture's items are others */
    assert_int_equal(next_be(4), 0);
}

static void test_files(void **state)
{
    (void)state;
    assert_int_equal(fw_cfg_add(fw_cfg, FW_CFG_CPUS, "\4\0", 2, NULL), 0);
    assert_int_equal(fw_cfg_add_file(fw_cfg, "etc/one", "1", 1, NULL), 0);
    assert_int_equal(fw_cfg_add_file(fw_cfg, "bootorder", "abc", 3, NULL), 0);
    select_key(FW_CFG_DIRECTORY);
    assert_int_equal(next_be(4), 2);
    assert_int_equal(next_be(4), 1);
    assert_int_equal(next_be(4), 0x20 << 16);
    for (const char *letter = "etc/one"; *letter; letter++)
        assert_int_equal(next(), *letter);
    for (int i = 7; i < FW_CFG_FILE_NAME_SIZE; i++)
        assert_int_equal(next(), 0);
    assert_int_equal(next_be(4), 3);
    assert_int_equal(next_be(4), 0x21 << 16);
    select_key(0x21);
    assert_int_equal(next_be(3), 0x616263);
    assert_int_equal(next(), 0);
}

static void test_a_file_changes(void **state)
{
    (void)state;
    assert_int_equal(fw_cfg_set_file(fw_cfg, "bootorder", "abc", 3, NULL), 0);
    assert_int_equal(fw_cfg_add_file(fw_cfg, "etc/one", "1", 1, NULL), 0);
    assert_int_equal(fw_cfg_set_file(fw_cfg, "bootorder", "d", 1, NULL), 0);
    select_key(FW_CFG_DIRECTORY);
    assert_int_equal(next_be(4), 2);
    assert_int_equal(next_be(4), 1);
    select_key(FW_CFG_FIRST_FILE);
    assert_int_equal(next_be(2), 'd' << 8);
}

static void test_limits(void **state)
{
    (void)state;
    struct error err = {0};
    char name[80];
    memset(name, 'n', sizeof(name));
    name[FW_CFG_FILE_NAME_SIZE] = '\0';
    assert_int_equal(fw_cfg_add_file(fw_cfg, name, "", 0, &err), -EINVAL);
    assert_int_equal(fw_cfg_add_file(fw_cfg, "", "", 0, NULL), -EINVAL);
    name[FW_CFG_FILE_NAME_SIZE - 1] = '\0';
    assert_int_equal(fw_cfg_add_file(fw_cfg, name, "", 0, NULL), 0);
    int result = 0;
    for (int i = 0; i < FW_CFG_ITEMS_MAX && !result; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        result = fw_cfg_add_file(fw_cfg, name, "x", 1, NULL);
    }
    assert_int_equal(result, -ENOSPC);
}

static void test_dma(void **state)
{
    (void)state;
    static uint8_t blob[3 << 20];
    for (size_t i = 0; i < sizeof(blob); i++)
        blob[i] = (uint8_t)(i * 31 >> 3);
    assert_int_equal(fw_cfg_add_file(fw_cfg, "blob", blob, sizeof(blob), NULL), 0);
    assert_int_equal(dma(0x20 << 16 | SELECT | READ, sizeof(blob), 0x3001), 0);
    assert_memory_equal(at(0x3001), blob, sizeof(blob));
    assert_int_equal(*at(0x3001 + sizeof(blob)), 0xee);
    assert_int_equal(dma(0x20 << 16 | SELECT | SKIP, 1000, 0), 0);
    assert_int_equal(dma(READ, 16, 0x3000), 0);
    assert_memory_equal(at(0x3000), blob + 1000, 16);
    assert_int_equal(next(), blob[1016]);
    assert_int_equal(dma(SKIP, UINT32_MAX, 0), 0);
    assert_int_equal(dma(READ, 16, 0x3000), 0);
    assert_int_equal(*at(0x3000), 0);
    assert_int_equal(*at(0x300f), 0);
    assert_int_equal(*at(0x3010), blob[0x300f - 0x3001 + 1]);
}

static void test_bad_transfers(void **state)
{
    (void)state;
    assert_int_equal(dma(READ, UINT32_MAX, 0x3000), ERROR);
    assert_int_equal(dma(WRITE, 4, 0x3000), ERROR);
    assert_int_equal(dma(READ, 16, 0), ERROR);
    assert_int_equal(dma(READ, 16, UINT64_MAX - 3), ERROR);
    assert_int_equal(dma(READ, 4096, 0x1000 + sizeof(ram) - 5), ERROR);
    select_key(FW_CFG_SIGNATURE);
    assert_int_equal(dma(0, 2, 0), 0); /* neither read nor skip: the cursor stays */
    assert_int_equal(next(), 'Q');
    assert_int_equal(dma(READ, 0, 0), 0);
    start(0x10);
    start(UINT64_MAX);
    start(UINT64_C(0x100002000)); /* the upper half counts */
    assert_false(fw_cfg->dma_is_running);
    start(0x1000 + sizeof(ram) - 8);
    loop_run_once(&board.loop, false);
    /* A description that lies over its own target. */
    assert_int_equal(dma(SELECT | READ, 4, 0x2000), 0);
    fake_board_out16(&board, 0x514, 0xffff);
    fake_board_out8(&board, 0x518, 0xff);
    bus_write(&board.bus, BUS_PIO, 0x514, 8, UINT64_MAX);
}

static void test_one_transfer_at_a_time(void **state)
{
    (void)state;
    static uint8_t blob[2 << 20];
    assert_int_equal(fw_cfg_add_file(fw_cfg, "blob", blob, sizeof(blob), NULL), 0);
    store_be32(at(0x2000), 0x20 << 16 | SELECT | READ);
    store_be32(at(0x2004), sizeof(blob));
    store_be64(at(0x2008), 0x4000);
    store_be32(at(0x3000), 0x20 << 16 | SELECT | READ);
    store_be32(at(0x3004), 16);
    store_be64(at(0x3008), 0x3100);
    start(0x2000);
    start(0x3000);
    fake_board_save_and_restore(&fw_cfg->device);
    for (int turn = 0; turn < 10; turn++)
        loop_run_once(&board.loop, false);
    assert_int_equal(load_be32(at(0x2000)), 0);
    assert_int_equal(*at(0x3100), 0xee);
    store_be32(at(0x2000), 0x20 << 16 | SELECT | READ);
    start(0x2000);
    fw_cfg->device.ops->reset(&fw_cfg->device);
    loop_run_once(&board.loop, false);
    assert_int_not_equal(load_be32(at(0x2000)), 0);
    assert_int_equal(next(), 'Q');
    start(0x2000); /* closed in the middle */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_identifies_itself),
        TEST(test_files),
        TEST(test_a_file_changes),
        TEST(test_limits),
        TEST(test_dma),
        TEST(test_bad_transfers),
        TEST(test_one_transfer_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
