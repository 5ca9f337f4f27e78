/* SPDX-License-Identifier: MIT */
/*
 * vhdx_log: replays, in memory, the log of a VHDX that was not closed. The log is a ring of entries
 * of whole 4 KiB sectors. The active sequence is the valid run of entries with rising numbers whose
 * newest number is the highest; its last entry says where the replay begins. [MS-VHDX] 2.3.
 *
 * The structure of an entry is checked before its checksum, so that no forged lengths make the
 * search cost more than one pass over the log.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "disk/foreign/foreign_private.h"
#include "disk/foreign/vhdx.h"

#define LOG_SECTOR       4096u
#define LOG_HEADER_BYTES 64u
#define LOG_DESC_BYTES   32u
#define CRC32C           0x82f63b78u
/* To be replayed: every read of the image looks through them. A log of the largest size has room
 * for the data of 16384. */
#define DESCRIPTORS_MAX 65536u

struct log {
    struct foreign *foreign;
    const struct vhdx_log_place *place;
    uint8_t *ring; /* its contents twice in a row: entries that wrap are in one piece */
    uint32_t sectors;
};

struct log_entry {
    uint64_t sequence;
    uint32_t sectors, tail;
    uint32_t descriptors;
    uint64_t flushed_bytes;
};

/* --- checksums --- */

static uint32_t crc_table[256];

static void fill_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? CRC32C : 0);
        crc_table[i] = value;
    }
}

uint32_t vhdx_checksum(const uint8_t *data, uint64_t bytes, uint64_t hole)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    uint32_t crc = UINT32_MAX;
    pthread_once(&once, fill_crc_table);
    for (uint64_t i = 0; i < bytes; i++) {
        uint8_t byte = i >= hole && i < hole + 4 ? 0 : data[i];
        crc = crc >> 8 ^ crc_table[(crc ^ byte) & 0xff];
    }
    return ~crc;
}

/* --- entries --- */

static uint32_t descriptor_sectors(uint32_t descriptors)
{
    return (uint32_t)((LOG_HEADER_BYTES + (uint64_t)descriptors * LOG_DESC_BYTES + LOG_SECTOR - 1) /
                      LOG_SECTOR);
}

static const uint8_t *descriptor_of(const uint8_t *entry, uint32_t index)
{
    return entry + LOG_HEADER_BYTES + (size_t)index * LOG_DESC_BYTES;
}

static bool is_data_sector_valid(const uint8_t *sector, uint64_t sequence)
{
    return !memcmp(sector, "data", 4) && load_le32(sector + 4) == sequence >> 32 &&
           load_le32(sector + LOG_SECTOR - 4) == (uint32_t)sequence;
}

/* Every descriptor is one of the two kinds, and every data sector belongs to one. */
static bool is_body_valid(const uint8_t *entry, const struct log_entry *header)
{
    uint32_t data = descriptor_sectors(header->descriptors);
    for (uint32_t i = 0; i < header->descriptors; i++) {
        const uint8_t *descriptor = descriptor_of(entry, i);
        uint64_t offset = load_le64(descriptor + 16);
        bool is_zero = !memcmp(descriptor, "zero", 4);
        if (!is_zero && memcmp(descriptor, "desc", 4))
            return false;
        uint64_t bytes = is_zero ? load_le64(descriptor + 8) : LOG_SECTOR;
        if (load_le64(descriptor + 24) != header->sequence || offset % LOG_SECTOR ||
            bytes % LOG_SECTOR || offset > INT64_MAX || bytes > INT64_MAX - offset)
            return false;
        if (is_zero)
            continue;
        if (data == header->sectors ||
            !is_data_sector_valid(entry + (size_t)data * LOG_SECTOR, header->sequence))
            return false;
        data++;
    }
    return data == header->sectors;
}

static bool read_entry(const struct log *log, uint32_t sector, struct log_entry *out)
{
    const uint8_t *entry = log->ring + (size_t)sector * LOG_SECTOR;
    uint32_t bytes = load_le32(entry + 8);
    if (memcmp(entry, "loge", 4) || bytes % LOG_SECTOR || !bytes || bytes > log->place->bytes ||
        memcmp(entry + 32, log->place->guid, 16))
        return false;
    out->tail = load_le32(entry + 12);
    out->sequence = load_le64(entry + 16);
    out->descriptors = load_le32(entry + 24);
    out->sectors = bytes / LOG_SECTOR;
    out->flushed_bytes = load_le64(entry + 48);
    return out->sequence && out->tail < log->place->bytes && out->tail % LOG_SECTOR == 0 &&
           descriptor_sectors(out->descriptors) <= out->sectors && is_body_valid(entry, out) &&
           vhdx_checksum(entry, bytes, 4) == load_le32(entry + 4);
}

/* --- the active sequence --- */

struct sequence {
    uint32_t start;   /* sector of the tail */
    uint32_t entries; /* from there on */
    uint64_t newest;
    uint64_t flushed_bytes;
};

/* The longest run from `start` on, if its last entry begins its replay inside of the run. */
static bool follow(const struct log *log, uint32_t start, struct sequence *out, uint32_t *next)
{
    struct log_entry entry, last = {0};
    uint32_t at = start, used = 0, since_tail = 0;
    while (used < log->sectors && read_entry(log, at, &entry) &&
           (!used || entry.sequence == last.sequence + 1) && used + entry.sectors <= log->sectors) {
        last = entry;
        used += entry.sectors;
        at = (at + entry.sectors) % log->sectors;
    }
    *next = start + MAX(used, 1);
    if (!used)
        return false;
    *out = (struct sequence){last.tail / LOG_SECTOR, 0, last.sequence, last.flushed_bytes};
    uint32_t end = at;
    for (at = start, used = 0; read_entry(log, at, &entry);
         at = (at + entry.sectors) % log->sectors) {
        since_tail += at == out->start || since_tail;
        used += entry.sectors;
        if (entry.sequence == last.sequence)
            break;
    }
    out->entries = since_tail;
    return since_tail && (at + entry.sectors) % log->sectors == end;
}

static bool find_active(const struct log *log, struct sequence *active)
{
    bool found = false;
    for (uint32_t start = 0, next; start < log->sectors; start = next) {
        struct sequence sequence;
        if (follow(log, start, &sequence, &next) && (!found || sequence.newest > active->newest)) {
            *active = sequence;
            found = true;
        }
    }
    return found;
}

/* --- replay --- */

/* The first 8 and the last 4 bytes of a data sector are in its descriptor. */
static void restore_sector(uint8_t *sector, const uint8_t *descriptor)
{
    memcpy(sector, descriptor + 8, 8);
    memcpy(sector + LOG_SECTOR - 4, descriptor + 4, 4);
}

static void replay_entry(struct log *log, uint8_t *entry, const struct log_entry *header)
{
    struct foreign *foreign = log->foreign;
    uint32_t data = descriptor_sectors(header->descriptors);
    for (uint32_t i = 0; i < header->descriptors; i++) {
        const uint8_t *descriptor = descriptor_of(entry, i);
        struct foreign_patch *patch = &foreign->patches[foreign->patch_count++];
        patch->offset = load_le64(descriptor + 16);
        patch->bytes = LOG_SECTOR;
        if (!memcmp(descriptor, "zero", 4)) {
            patch->bytes = load_le64(descriptor + 8);
            patch->data = NULL;
            continue;
        }
        uint8_t *sector = entry + (size_t)data++ * LOG_SECTOR;
        restore_sector(sector, descriptor);
        patch->data = sector;
    }
}

static int replay(struct log *log, const struct sequence *active, struct error *err)
{
    struct foreign *foreign = log->foreign;
    struct log_entry entry;
    uint64_t descriptors = 0;
    uint32_t at = active->start;
    for (uint32_t i = 0; i < active->entries && read_entry(log, at, &entry); i++) {
        descriptors += entry.descriptors;
        at = (at + entry.sectors) % log->sectors;
    }
    if (descriptors > DESCRIPTORS_MAX)
        return foreign_refuse(foreign, err,
                              "it was not closed, and its log has more than %u entries; let "
                              "Hyper-V open it once",
                              DESCRIPTORS_MAX);
    foreign->patches = calloc(descriptors + 1, sizeof(*foreign->patches));
    if (!foreign->patches)
        return error_set(err, ENOMEM, "no memory to open '%s'", foreign_path(foreign));
    at = active->start;
    for (uint32_t i = 0; i < active->entries && read_entry(log, at, &entry); i++) {
        replay_entry(log, log->ring + (size_t)at * LOG_SECTOR, &entry);
        at = (at + entry.sectors) % log->sectors;
    }
    return 0;
}

int vhdx_log_read(struct foreign *foreign, const struct vhdx_log_place *place, uint8_t **memory,
                  struct error *err)
{
    struct log log = {foreign, place, malloc(place->bytes * UINT64_C(2) + 1),
                      place->bytes / LOG_SECTOR};
    struct sequence active = {0};
    *memory = log.ring;
    if (!log.ring)
        return error_set(err, ENOMEM, "no memory to open '%s'", foreign_path(foreign));
    int result = foreign_read(foreign, 0, place->offset, log.ring, place->bytes, err);
    if (result)
        return result;
    memcpy(log.ring + place->bytes, log.ring, place->bytes);
    if (!find_active(&log, &active))
        return foreign_refuse(foreign, err,
                              "it was not closed, and its log is damaged; let Hyper-V open it once "
                              "or take another copy");
    if (active.flushed_bytes > foreign->files[0].length_bytes)
        return foreign_refuse(foreign, err,
                              "it is cut short: its log speaks of %llu bytes; take another copy",
                              (unsigned long long)active.flushed_bytes);
    return replay(&log, &active, err);
}
