/* SPDX-License-Identifier: MIT */
/*
 * qcow2_check: compares counted references with refcounts, and repairs.
 *
 * Theory of operation. The walk counts references. The refcount structure is counted next, so that
 * a block that something else refers to as well is seen. Then the comparison runs twice at most:
 * once to report, once to mend. Where a refcount is zero but should not be, or the structure is
 * damaged, mending in place is no use: a new structure is written past the end of everything, made
 * durable, and only then does one write of the header's first sector switch to it. The old one has
 * become a leak by that, which the repeated comparison gives back. Refcounts that were too low are
 * raised before COPIED flags are corrected, so an interrupted repair can be repeated.
 */
#include "disk/qcow2/qcow2_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_check_walk.h"
#include "disk/qcow2/qcow2_refcount.h"
#include "disk/qcow2/qcow2_rule.h"

#define say qcow2_checker_say

/* --- the refcount structure as it stands in the file --- */

static uint64_t per_block(const struct qcow2_checker *checker)
{
    return qcow2_refcount_entries(checker->header.cluster_bits, checker->header.refcount_order);
}

static bool is_usable(const struct qcow2_checker *checker, uint64_t offset)
{
    return is_aligned(offset, checker->cluster_bytes) && offset < checker->file_bytes;
}

/* False if there is no such block: all its refcounts are zero then. */
static bool read_block(struct qcow2_checker *checker, uint64_t index)
{
    if (index >= checker->reftable_entries || !checker->reftable[index] ||
        checker->block_marks[index] & QCOW2_BLOCK_UNUSABLE)
        return false;
    if (!io_read_now(checker->file, checker->reftable[index], checker->block,
                     checker->cluster_bytes))
        return true;
    say(checker, "ERROR: I/O error reading refcount block %" PRIu64, index);
    checker->result->check_errors++;
    checker->block_marks[index] |= QCOW2_BLOCK_UNUSABLE;
    return false;
}

static void note_ones(struct qcow2_checker *checker, uint64_t index)
{
    uint64_t first = index * per_block(checker);
    if (first >= checker->clusters || !read_block(checker, index))
        return;
    uint64_t count = MIN(per_block(checker), checker->clusters - first);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t cluster = first + i;
        uint8_t bit = (uint8_t)(1u << (cluster % 8));
        if (qcow2_refcount_get(checker->block, checker->header.refcount_order, i) == 1)
            checker->is_one[cluster / 8] |= bit;
    }
}

static void drop_refcounts(struct qcow2_checker *checker)
{
    free(checker->reftable);
    free(checker->block_marks);
    checker->reftable = NULL;
    checker->block_marks = NULL;
}

/* (Re)reads the refcount table and notes which clusters have a refcount of exactly one. */
static int load_refcounts(struct qcow2_checker *checker, struct error *err)
{
    uint64_t bytes = (uint64_t)checker->header.reftable_clusters << checker->header.cluster_bits;
    drop_refcounts(checker);
    checker->reftable_entries = bytes / 8;
    checker->reftable = malloc(bytes + 8);
    checker->block_marks = calloc(1, checker->reftable_entries + 1);
    if (!checker->reftable || !checker->block_marks)
        return error_set(err, ENOMEM, "out of memory for the refcount table");
    int result =
        io_read_now(checker->file, checker->header.reftable_offset, checker->reftable, bytes);
    if (result)
        return error_set_errno(err, -result, "Could not read the refcount table of '%s'",
                               checker->path);
    memset(checker->is_one, 0, checker->clusters / 8 + 1);
    for (uint64_t i = 0; i < checker->reftable_entries; i++) {
        uint64_t entry = load_be64(&checker->reftable[i]);
        checker->reftable[i] = entry & QCOW2_REFTABLE_OFFSET_MASK;
        checker->block_marks[i] = entry & QCOW2_REFTABLE_RESERVED ? QCOW2_BLOCK_RESERVED : 0;
        if (!is_usable(checker, checker->reftable[i]))
            checker->block_marks[i] |= QCOW2_BLOCK_UNUSABLE;
        else if (checker->reftable[i])
            note_ones(checker, i);
    }
    return 0;
}

static void report_bad_block(struct qcow2_checker *checker, uint64_t index)
{
    if (!is_aligned(checker->reftable[index], checker->cluster_bytes))
        say(checker,
            "ERROR refcount block %" PRIu64
            " is not cluster aligned; refcount table entry corrupted",
            index);
    else if (!is_usable(checker, checker->reftable[index])) /* else it could not be read */
        say(checker, "ERROR refcount block %" PRIu64 " is outside image", index);
    checker->result->corruptions++;
    checker->must_rebuild = true;
}

/* Counts the references that the refcount structure itself makes. */
static void count_structure(struct qcow2_checker *checker)
{
    const struct qcow2_header *header = &checker->header;
    (void)!qcow2_checker_count(checker, QCOW2_USE_ALONE, header->reftable_offset,
                               (uint64_t)header->reftable_clusters << header->cluster_bits);
    for (uint64_t i = 0; i < checker->reftable_entries; i++) {
        uint64_t entry = checker->reftable[i];
        if (checker->block_marks[i] & QCOW2_BLOCK_RESERVED) {
            say(checker, "ERROR refcount table entry %" PRIu64 " has reserved bits set", i);
            checker->result->corruptions++;
            checker->must_rebuild = true;
            continue;
        }
        if (!entry)
            continue;
        if (checker->block_marks[i] & QCOW2_BLOCK_UNUSABLE) {
            report_bad_block(checker, i);
            continue;
        }
        uint64_t cluster = entry >> header->cluster_bits;
        (void)!qcow2_checker_count(checker, QCOW2_USE_ALONE, entry, checker->cluster_bytes);
        if (checker->counts[cluster] == 1)
            continue;
        say(checker, "ERROR refcount block %" PRIu64 " refcount=%" PRIu32, i,
            checker->counts[cluster]);
        checker->result->corruptions++;
        checker->must_rebuild = true;
    }
}

/* --- comparison --- */

struct comparison {
    struct qcow2_checker *checker;
    enum qcow2_repair repair;
    bool block_changed;
};

static void compare_one(struct comparison *comparison, uint64_t cluster, uint64_t index,
                        uint64_t stored)
{
    struct qcow2_checker *checker = comparison->checker;
    struct qcow2_check_result *result = checker->result;
    uint64_t counted = checker->counts[cluster];
    bool is_leak = stored > counted;
    bool mend = stored && comparison->repair >= (is_leak ? QCOW2_REPAIR_LEAKS : QCOW2_REPAIR_ALL);
    const char *verb = mend ? "Repairing" : is_leak ? "Leaked" : "ERROR";
    say(checker, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64, verb, cluster,
        stored, counted);
    if (!stored)
        checker->must_rebuild = true;
    if (mend) {
        qcow2_refcount_set(checker->block, checker->header.refcount_order, index, counted);
        comparison->block_changed = true;
        *(is_leak ? &result->leaks_fixed : &result->corruptions_fixed) += 1;
    } else {
        *(is_leak ? &result->leaks : &result->corruptions) += 1;
    }
}

static void compare_block(struct comparison *comparison, uint64_t index, uint64_t clusters)
{
    struct qcow2_checker *checker = comparison->checker;
    uint64_t first = index * per_block(checker);
    uint64_t count = MIN(per_block(checker), clusters - first);
    bool exists = read_block(checker, index);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t cluster = first + i;
        uint64_t stored =
            exists ? qcow2_refcount_get(checker->block, checker->header.refcount_order, i) : 0;
        if (!stored && !checker->counts[cluster])
            continue;
        checker->result->image_end_offset = (cluster + 1) << checker->header.cluster_bits;
        if (stored != checker->counts[cluster])
            compare_one(comparison, cluster, i, stored);
    }
}

/* The file's last clusters, and the one past them only if something reaches into it. */
static uint64_t clusters_in_use(const struct qcow2_checker *checker)
{
    uint64_t whole =
        align_up(checker->file_bytes, checker->cluster_bytes) >> checker->header.cluster_bits;
    return whole < checker->clusters && checker->counts[whole] ? whole + 1 : whole;
}

static int compare(struct qcow2_checker *checker, enum qcow2_repair repair, struct error *err)
{
    struct comparison comparison = {.checker = checker, .repair = repair};
    uint64_t clusters = clusters_in_use(checker);
    checker->result->image_end_offset = 0;
    for (uint64_t index = 0; index * per_block(checker) < clusters; index++) {
        compare_block(&comparison, index, clusters);
        if (!comparison.block_changed)
            continue;
        comparison.block_changed = false;
        int result = io_write_now(checker->file, checker->reftable[index], checker->block,
                                  checker->cluster_bytes);
        if (result)
            return error_set_errno(err, -result, "Could not write refcounts of '%s'",
                                   checker->path);
    }
    return 0;
}

static int sync_file(struct qcow2_checker *checker, struct error *err)
{
    int result = io_sync_now(checker->file);
    return result ? error_set_errno(err, -result, "Could not flush '%s'", checker->path) : 0;
}

/* --- a new refcount structure --- */

struct rebuild {
    struct qcow2_checker *checker;
    uint64_t start;  /* first cluster of the new structure */
    uint64_t blocks; /* it begins with these */
    uint64_t table_clusters;
    uint64_t table_entries; /* up to the last block */
    uint8_t *is_needed;     /* per block */
};

static uint64_t reference_of(const struct rebuild *rebuild, uint64_t cluster)
{
    uint64_t end = rebuild->start + rebuild->blocks + rebuild->table_clusters;
    if (cluster >= rebuild->start)
        return cluster < end;
    return cluster < rebuild->checker->clusters ? rebuild->checker->counts[cluster] : 0;
}

static int plan_rebuild(struct rebuild *rebuild)
{
    struct qcow2_checker *checker = rebuild->checker;
    uint64_t n = per_block(checker);
    uint64_t entries_per_cluster = checker->cluster_bytes / 8;
    rebuild->start = clusters_in_use(checker);
    /* The structure needs less than one cluster for every cluster that there is, and a few more. */
    uint64_t blocks_max = rebuild->start * 2 / n + 8;
    rebuild->is_needed = calloc(1, blocks_max);
    if (!rebuild->is_needed)
        return -ENOMEM;
    for (uint64_t cluster = 0; cluster < rebuild->start; cluster++)
        if (checker->counts[cluster])
            rebuild->is_needed[cluster / n] = 1;
    for (;;) {
        uint64_t end = rebuild->start + rebuild->blocks + rebuild->table_clusters;
        uint64_t blocks = 0;
        uint64_t entries = (MAX(end, 1) - 1) / n + 1;
        if (entries > blocks_max)
            return -EFBIG;
        for (uint64_t i = rebuild->start / n; i < entries && end > rebuild->start; i++)
            rebuild->is_needed[i] = 1;
        for (uint64_t i = 0; i < entries; i++)
            blocks += rebuild->is_needed[i];
        uint64_t table = (entries + entries_per_cluster - 1) / entries_per_cluster;
        if (blocks == rebuild->blocks && table == rebuild->table_clusters) {
            rebuild->table_entries = entries;
            break;
        }
        rebuild->blocks = MAX(blocks, rebuild->blocks);
        rebuild->table_clusters = MAX(table, rebuild->table_clusters);
    }
    return rebuild->table_clusters << checker->header.cluster_bits > QCOW2_REFTABLE_BYTES_MAX
               ? -EFBIG
               : 0;
}

static int write_rebuilt(struct rebuild *rebuild, uint8_t *table)
{
    struct qcow2_checker *checker = rebuild->checker;
    uint32_t bits = checker->header.cluster_bits;
    uint64_t at = rebuild->start;
    for (uint64_t block = 0; block < rebuild->table_entries; block++) {
        if (!rebuild->is_needed[block])
            continue;
        memset(checker->block, 0, checker->cluster_bytes);
        for (uint64_t i = 0; i < per_block(checker); i++)
            qcow2_refcount_set(checker->block, checker->header.refcount_order, i,
                               reference_of(rebuild, block * per_block(checker) + i));
        store_be64(table + block * 8, at << bits);
        int result =
            io_write_now(checker->file, at << bits, checker->block, checker->cluster_bytes);
        if (result)
            return result;
        at++;
    }
    return io_write_now(checker->file, (rebuild->start + rebuild->blocks) << bits, table,
                        rebuild->table_clusters << bits);
}

static int write_fixed_header(struct qcow2_checker *checker, struct error *err)
{
    uint8_t fixed[QCOW2_V3_BYTES];
    qcow2_header_store_fixed(&checker->header, fixed);
    int result = io_write_now(checker->file, 0, fixed, qcow2_fixed_bytes(&checker->header));
    if (result)
        return error_set_errno(err, -result, "Could not write the header of '%s'", checker->path);
    return sync_file(checker, err);
}

static int write_structure(struct rebuild *rebuild, struct error *err)
{
    struct qcow2_checker *checker = rebuild->checker;
    uint32_t bits = checker->header.cluster_bits;
    uint8_t *table = calloc(1, rebuild->table_clusters << bits);
    if (!table)
        return error_set(err, ENOMEM, "out of memory for a refcount table");
    int result = write_rebuilt(rebuild, table);
    free(table);
    if (result)
        return error_set_errno(err, -result, "Could not write refcounts of '%s'", checker->path);
    result = qcow2_rule(REPAIR_BEFORE_SWITCH) ? sync_file(checker, err) : 0;
    if (result)
        return result;
    checker->header.reftable_offset = (rebuild->start + rebuild->blocks) << bits;
    checker->header.reftable_clusters = (uint32_t)rebuild->table_clusters;
    return write_fixed_header(checker, err);
}

static int rebuild_structure(struct qcow2_checker *checker, struct error *err)
{
    struct rebuild rebuild = {.checker = checker};
    int result = plan_rebuild(&rebuild);
    if (result)
        error_set_errno(err, -result, "Could not lay out new refcounts for '%s'", checker->path);
    else
        result = write_structure(&rebuild, err);
    free(rebuild.is_needed);
    return result;
}

/* --- the whole --- */

static int measure_file(struct qcow2_checker *checker, struct error *err)
{
    int result = io_length(checker->file, &checker->file_bytes);
    if (result)
        return error_set_errno(err, -result, "Could not measure '%s'", checker->path);
    checker->clusters = (checker->file_bytes >> checker->header.cluster_bits) + 2;
    free(checker->counts);
    free(checker->uses);
    free(checker->is_one);
    checker->counts = calloc(checker->clusters, sizeof(*checker->counts));
    checker->uses = calloc(checker->clusters, sizeof(*checker->uses));
    checker->is_one = calloc(1, checker->clusters / 8 + 1);
    if (!checker->counts || !checker->uses || !checker->is_one)
        return error_set(err, ENOMEM, "out of memory to check '%s'", checker->path);
    return 0;
}

static int count_all(struct qcow2_checker *checker, struct error *err)
{
    int result = measure_file(checker, err);
    checker->is_incomplete = false;
    if (!result)
        result = load_refcounts(checker, err);
    if (!result)
        result = qcow2_checker_walk(checker, err);
    if (!result)
        count_structure(checker);
    return result;
}

/* Repairing would give away clusters that are in use. */
static int refuse_incomplete(const struct qcow2_checker *checker, struct error *err)
{
    return error_set(err, EIO,
                     "Not all tables of '%s' can be read, and what they refer to would be given "
                     "away: nothing is repaired; copy what can be read with evisor-img convert "
                     "--salvage",
                     checker->path);
}

/* After the switch to a new structure: what it still disagrees with is the old one, leaked. */
static int settle_rebuilt(struct qcow2_checker *checker, struct error *err)
{
    const struct qcow2_check_options quiet = {.repair = QCOW2_REPAIR_NONE};
    const struct qcow2_check_options *options = checker->options;
    struct qcow2_check_result *visible = checker->result;
    struct qcow2_check_result scratch = {0};
    checker->must_rebuild = false;
    checker->result = &scratch;
    checker->options = &quiet;
    int result = count_all(checker, err);
    checker->options = options;
    if (!result && checker->is_incomplete)
        result = refuse_incomplete(checker, err);
    if (!result && !checker->must_rebuild)
        result = compare(checker, QCOW2_REPAIR_ALL, err);
    checker->result = visible;
    visible->image_end_offset = scratch.image_end_offset;
    visible->corruptions = scratch.corruptions;
    visible->leaks = scratch.leaks;
    visible->check_errors += scratch.check_errors;
    if (!result && checker->must_rebuild) {
        say(checker, "ERROR rebuilt refcount structure is still broken");
        return error_set(err, EIO, "The rebuilt refcounts of '%s' are still wrong", checker->path);
    }
    return result;
}

static int rebuild_and_settle(struct qcow2_checker *checker, struct error *err)
{
    struct qcow2_check_result *result = checker->result;
    struct qcow2_check_result before = *result;
    say(checker, "Rebuilding refcount structure");
    int failed = rebuild_structure(checker, err);
    if (!failed)
        failed = settle_rebuilt(checker, err);
    if (failed)
        return failed;
    if (before.corruptions > result->corruptions)
        result->corruptions_fixed += before.corruptions - result->corruptions;
    if (before.leaks > result->leaks)
        result->leaks_fixed += before.leaks - result->leaks;
    return 0;
}

/* `before` is the result before the comparison that only reported. */
static int mend(struct qcow2_checker *checker, const struct qcow2_check_result *before,
                struct error *err)
{
    enum qcow2_repair repair = checker->options->repair;
    int result;
    if (checker->must_rebuild && repair == QCOW2_REPAIR_ALL) {
        result = rebuild_and_settle(checker, err);
    } else if (checker->must_rebuild) {
        say(checker, "ERROR need to rebuild refcount structures");
        return error_set(err, EIO, "The refcounts of '%s' must be rebuilt: use -r all",
                         checker->path);
    } else {
        checker->result->corruptions = before->corruptions;
        checker->result->leaks = before->leaks;
        result = compare(checker, repair, err);
    }
    if (!result && qcow2_rule(REPAIR_BEFORE_COPIED))
        result = sync_file(checker, err);
    if (!result)
        result = load_refcounts(checker, err);
    checker->copied_is_wrong = true; /* not known: the second pass looks */
    return result;
}

/*
 * Counts of clusters past the end of the file, which a power cut may leave: nothing is lost by them
 * yet, so they are no findings; but once the file had grown over them they would be leaks.
 */
static int drop_counts_past_end(struct qcow2_checker *checker, struct error *err)
{
    uint64_t end = clusters_in_use(checker), n = per_block(checker);
    uint32_t order = checker->header.refcount_order;
    for (uint64_t index = end / n; index < checker->reftable_entries; index++) {
        bool has_changed = false;
        if (!read_block(checker, index))
            continue;
        for (uint64_t i = index == end / n ? end % n : 0; i < n; i++) {
            if (!qcow2_refcount_get(checker->block, order, i))
                continue;
            qcow2_refcount_set(checker->block, order, i, 0);
            has_changed = true;
        }
        int result = has_changed ? io_write_now(checker->file, checker->reftable[index],
                                                checker->block, checker->cluster_bytes)
                                 : 0;
        if (result)
            return error_set_errno(err, -result, "Could not write refcounts of '%s'",
                                   checker->path);
    }
    return 0;
}

/*
 * Refcounts say nothing of these, if they count all references. They are looked for where there is
 * no other corruption, whose repair may end them too; what remains cannot be repaired, for nobody
 * knows whose the contents are.
 */
static void report_clashes(struct qcow2_checker *checker)
{
    for (uint64_t cluster = 0; cluster < checker->clusters; cluster++) {
        if (checker->uses[cluster] != QCOW2_USE_CLASH)
            continue;
        say(checker, "ERROR cluster %" PRIu64 " is a table and something else at once", cluster);
        checker->result->corruptions++;
    }
}

static int judge_and_repair(struct qcow2_checker *checker, struct error *err)
{
    struct qcow2_check_result *result = checker->result;
    enum qcow2_repair repair = checker->options->repair;
    struct qcow2_check_result before = *result;
    int failed = compare(checker, QCOW2_REPAIR_NONE, err);
    if (!failed && repair != QCOW2_REPAIR_NONE && checker->is_incomplete)
        failed = refuse_incomplete(checker, err);
    if (!failed && repair != QCOW2_REPAIR_NONE && (result->leaks || result->corruptions))
        failed = mend(checker, &before, err);
    if (!failed && repair != QCOW2_REPAIR_NONE && !result->corruptions && !result->check_errors)
        failed = drop_counts_past_end(checker, err);
    bool may_repair = repair != QCOW2_REPAIR_NONE && !result->check_errors &&
                      !result->corruptions && !result->leaks;
    if (!failed && checker->copied_is_wrong)
        failed = qcow2_checker_walk_copied(checker, may_repair, err);
    if (!failed && !result->corruptions)
        report_clashes(checker);
    return failed;
}

/* A clean bill of health: the marks that say otherwise go. */
static int clear_marks(struct qcow2_checker *checker, struct error *err)
{
    struct qcow2_header *header = &checker->header;
    uint64_t marks = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
    if (checker->result->check_errors || checker->result->corruptions)
        return 0;
    if (!(header->incompatible & marks) && !(header->autoclear & ~QCOW2_AUTOCLEAR_KNOWN))
        return 0;
    int result = qcow2_rule(REPAIR_BEFORE_CLEAN) ? sync_file(checker, err) : 0;
    if (result)
        return result;
    header->incompatible &= ~marks;
    header->autoclear &= QCOW2_AUTOCLEAR_KNOWN;
    return write_fixed_header(checker, err);
}

/* An image whose refcount table is gone can still be repaired. */
static int read_header(struct qcow2_checker *checker, struct error *err)
{
    struct qcow2_header *header = &checker->header;
    uint8_t *bytes = calloc(1, 1u << QCOW2_CLUSTER_BITS_MAX);
    uint64_t file_bytes = 0;
    if (!bytes)
        return error_set(err, ENOMEM, "out of memory to check '%s'", checker->path);
    int result = io_length(checker->file, &file_bytes);
    size_t length = (size_t)MIN(file_bytes, 1u << QCOW2_CLUSTER_BITS_MAX);
    if (!result)
        result = io_read_now(checker->file, 0, bytes, length);
    if (result)
        error_set_errno(err, -result, "Could not open '%s': Could not read qcow2 header",
                        checker->path);
    else
        result = qcow2_header_decode(bytes, length, checker->path, header, err);
    free(bytes);
    if (result)
        return result;
    struct qcow2_header judged = *header;
    if (!header->reftable_clusters) {
        judged.reftable_clusters = 1;
        judged.reftable_offset = qcow2_cluster_bytes(header);
    }
    result = qcow2_header_validate(&judged, MAX(file_bytes, judged.reftable_offset + 1),
                                   checker->path, err);
    if (result)
        qcow2_header_fini(header);
    return result;
}

static int prepare(struct qcow2_checker *checker, struct error *err)
{
    const struct qcow2_header *header = &checker->header;
    checker->cluster_bytes = qcow2_cluster_bytes(header);
    checker->must_rebuild = !header->reftable_clusters;
    checker->table = malloc(checker->cluster_bytes);
    checker->block = malloc(checker->cluster_bytes);
    if (!checker->table || !checker->block)
        return error_set(err, ENOMEM, "out of memory to check '%s'", checker->path);
    checker->result->total_clusters = (header->size_bytes >> header->cluster_bits) +
                                      !is_aligned(header->size_bytes, checker->cluster_bytes);
    return count_all(checker, err);
}

static void checker_fini(struct qcow2_checker *checker)
{
    drop_refcounts(checker);
    free(checker->counts);
    free(checker->uses);
    free(checker->is_one);
    free(checker->table);
    free(checker->block);
    qcow2_header_fini(&checker->header);
}

static int run(struct qcow2_checker *checker, struct error *err)
{
    int result = prepare(checker, err);
    if (!result)
        result = judge_and_repair(checker, err);
    if (!result && checker->options->repair != QCOW2_REPAIR_NONE)
        result = clear_marks(checker, err);
    return result;
}

int qcow2_check(struct io_file *file, const char *path, const struct qcow2_check_options *options,
                struct qcow2_check_result *result, struct error *err)
{
    struct qcow2_checker checker = {
        .file = file, .path = path, .options = options, .result = result};
    memset(result, 0, sizeof(*result));
    int failed = read_header(&checker, err);
    if (failed)
        return failed;
    failed = run(&checker, err);
    checker_fini(&checker);
    return failed;
}

/* The counts must fit, and be right: they are what the new structure is made from. */
static int check_counts(struct qcow2_checker *checker, uint32_t order, struct error *err)
{
    const struct qcow2_check_result *result = checker->result;
    int failed = compare(checker, QCOW2_REPAIR_NONE, err);
    if (failed)
        return failed;
    report_clashes(checker);
    if (result->corruptions || result->leaks || result->check_errors)
        return error_set(err, EIO, "'%s' is not clean: run evisor-img check -r all first",
                         checker->path);
    for (uint64_t i = 0; i < checker->clusters; i++)
        if (checker->counts[i] > qcow2_refcount_max(order))
            return error_set(err, EINVAL,
                             "Cannot decrease refcount entry width to %u bits: Cluster at offset "
                             "%#" PRIx64 " has a refcount of %" PRIu32,
                             1u << order, i << checker->header.cluster_bits, checker->counts[i]);
    return 0;
}

int qcow2_check_set_refcount_order(struct io_file *file, const char *path, uint32_t order,
                                   struct error *err)
{
    const struct qcow2_check_options options = {.repair = QCOW2_REPAIR_NONE};
    struct qcow2_check_result result = {0};
    struct qcow2_checker checker = {
        .file = file, .path = path, .options = &options, .result = &result};
    int failed = read_header(&checker, err);
    if (failed)
        return failed;
    failed = prepare(&checker, err);
    if (!failed)
        failed = check_counts(&checker, order, err);
    checker.header.refcount_order = order;
    if (!failed)
        failed = rebuild_structure(&checker, err);
    if (!failed)
        failed = settle_rebuilt(&checker, err);
    if (!failed)
        failed = sync_file(&checker, err);
    checker_fini(&checker);
    return failed;
}

int qcow2_repair_now(struct io_file *file, const char *path, struct error *err)
{
    const struct qcow2_check_options options = {.repair = QCOW2_REPAIR_ALL};
    struct qcow2_check_result result;
    int failed = qcow2_check(file, path, &options, &result, err);
    if (failed) {
        error_prefix(err, "Could not repair dirty image");
        return failed;
    }
    if (result.corruptions || result.check_errors)
        return error_set(err, EIO,
                         "Could not open '%s': Could not repair dirty image: %llu corruptions "
                         "remain; run evisor-img check -r all",
                         path, (unsigned long long)(result.corruptions + result.check_errors));
    return 0;
}
