/* SPDX-License-Identifier: MIT */
/*
 * block: the cache of decoded code of one vCPU.
 *
 * Theory of operation. A block is a run of instructions of one page (one that crosses into the next
 * page is a block of its own). Blocks are keyed by the host address of their first byte, so all
 * mappings share them. Memory comes from an arena that is only ever reset as a whole.
 *
 * Coherence. Before a vCPU reads a page's bytes to decode them, it sets its bit in the page's owner
 * word, and tells the others to let go of their TLB entries for writing it. While a bit is set,
 * writes take the slow path of mem.c and end in block_code_written: the word is cleared and each
 * owner is told to forget. The writer's own code is forgotten at once, which is what the
 * architecture wants of self-modifying code; others do so before their next block, and in any case
 * before they see an interrupt that was sent after the write. A vCPU that is told to let go and
 * finds that it could write until now assumes that it did, and tells the owners.
 *
 * A forgotten block cannot be unlinked from everything that jumps to it. Its operations all become
 * `stale` instead, which look up where they stand; that also ends the block that is running.
 */
#include "vmm/soft/block.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "vmm/soft/decode.h"
#include "vmm/soft/mmu.h"

#define BLOCK_BUCKETS          65536
#define BLOCK_PAGE_BUCKETS     4096
#define BLOCK_INSTRUCTIONS_MAX 32
#define BLOCK_OPS_MAX          96
#define BLOCK_ARENA_BYTES      (48 * MIB)

struct soft_block {
    const uint8_t *host;        /* of the first byte */
    const uint8_t *second_host; /* of the second page, if it crosses */
    struct soft_block *next;
    uint16_t op_count;
    uint8_t mode;
    bool is_dead;
    struct soft_op ops[];
};

struct page_ref {
    struct soft_block *block;
    struct page_ref *next;
};

/* A page that some block comes from. */
struct code_page {
    const uint8_t *host;
    struct page_ref *refs;
    struct code_page *next;
};

struct soft_cache {
    struct soft_block *buckets[BLOCK_BUCKETS];
    struct code_page *pages[BLOCK_PAGE_BUCKETS];
    uint8_t *arena;
    size_t used;
    uint64_t resets;
    struct soft_op stale;                                /* what an empty jump slot leads to */
    struct soft_op single[SOFT_INSTRUCTION_OPS_MAX + 2]; /* block_decode_single's */
};

int block_cache_create(struct soft_cpu *cpu)
{
    struct soft_cache *cache = calloc(1, sizeof(*cache));

    if (!cache)
        return -ENOMEM;
    cache->arena = mmap(NULL, BLOCK_ARENA_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->arena == MAP_FAILED) {
        free(cache);
        return -ENOMEM;
    }
    cache->stale.handler = soft_handlers[SOP_stale];
    cpu->cache = cache;
    block_flush_jumps(cpu);
    return 0;
}

void block_cache_destroy(struct soft_cpu *cpu)
{
    if (!cpu->cache)
        return;
    munmap(cpu->cache->arena, BLOCK_ARENA_BYTES);
    free(cpu->cache);
    cpu->cache = NULL;
}

static size_t hash(const void *pointer, unsigned mode, size_t buckets)
{
    uint64_t key =
        ((uint64_t)(uintptr_t)pointer ^ (uint64_t)mode << 56) * UINT64_C(0x9e3779b97f4a7c15);

    return (size_t)(key >> 40) & (buckets - 1);
}

static const uint8_t *page_of(const uint8_t *host)
{
    return host - ((uintptr_t)host & 0xfff);
}

/* --- The jump cache --- */

static void empty_jump(struct soft_cpu *cpu, struct soft_jump *jump)
{
    jump->rip = UINT64_MAX;
    jump->ops = &cpu->cache->stale;
}

void block_flush_jumps(struct soft_cpu *cpu)
{
    for (unsigned set = 0; set < ARRAY_SIZE(cpu->jump_sets); set++)
        for (unsigned i = 0; i < SOFT_JUMPS_SIZE; i++)
            empty_jump(cpu, &cpu->jump_sets[set][i]);
    cpu->jump_dirty_count = 0;
    memset(cpu->jump_pages, 0, sizeof(cpu->jump_pages));
}

void block_flush_non_global_jumps(struct soft_cpu *cpu)
{
    if (cpu->jump_dirty_count > ARRAY_SIZE(cpu->jump_dirty)) {
        block_flush_jumps(cpu);
        return;
    }
    for (unsigned i = 0; i < cpu->jump_dirty_count; i++)
        empty_jump(cpu, &cpu->jump_sets[0][0] + cpu->jump_dirty[i]);
    cpu->jump_dirty_count = 0;
}

static unsigned jump_page_bit(uint64_t rip)
{
    return (unsigned)(rip >> 12 ^ rip >> 24) &
           (ARRAY_SIZE(((struct soft_cpu *)0)->jump_pages) * 64 - 1);
}

void block_flush_page_jumps(struct soft_cpu *cpu, uint64_t address)
{
    uint64_t rip = address - cpu->cs_base;
    unsigned bit = jump_page_bit(rip);

    if (!(cpu->jump_pages[bit / 64] >> (bit & 63) & 1))
        return;
    block_flush_jumps(cpu);
}

static void remember_jump(struct soft_cpu *cpu, uint64_t rip, struct soft_op *ops, bool is_global)
{
    struct soft_jump *jump = block_jump_slot(cpu, rip);
    unsigned bit = jump_page_bit(rip);

    *jump = (struct soft_jump){.rip = rip, .ops = ops};
    cpu->jump_pages[bit / 64] |= UINT64_C(1) << (bit & 63);
    if (is_global)
        return;
    if (cpu->jump_dirty_count < ARRAY_SIZE(cpu->jump_dirty))
        cpu->jump_dirty[cpu->jump_dirty_count] = (uint16_t)(jump - &cpu->jump_sets[0][0]);
    cpu->jump_dirty_count++;
}

/* --- Memory --- */

void block_flush_all(struct soft_cpu *cpu)
{
    struct soft_cache *cache = cpu->cache;

    memset(cache->buckets, 0, sizeof(cache->buckets));
    memset(cache->pages, 0, sizeof(cache->pages));
    cache->used = 0;
    cache->resets++;
    block_flush_jumps(cpu);
}

static void *arena_take(struct soft_cpu *cpu, size_t bytes)
{
    struct soft_cache *cache = cpu->cache;
    void *memory = cache->arena + cache->used;

    cache->used += align_up(bytes, 32);
    return memory;
}

/* Room for a block of full size and its references; else everything is forgotten first. */
static void arena_reserve(struct soft_cpu *cpu)
{
    size_t worst = sizeof(struct soft_block) + BLOCK_OPS_MAX * sizeof(struct soft_op) + 512;

    if (cpu->cache->used + worst > BLOCK_ARENA_BYTES)
        block_flush_all(cpu);
}

/* --- Pages and their coherence --- */

static struct code_page *find_page(struct soft_cpu *cpu, const uint8_t *host_page)
{
    struct code_page *page = cpu->cache->pages[hash(host_page, 0, BLOCK_PAGE_BUCKETS)];

    while (page && page->host != host_page)
        page = page->next;
    return page;
}

static void reference_page(struct soft_cpu *cpu, const uint8_t *host_page, struct soft_block *block)
{
    struct code_page *page = find_page(cpu, host_page);

    if (!page) {
        struct code_page **bucket = &cpu->cache->pages[hash(host_page, 0, BLOCK_PAGE_BUCKETS)];

        page = arena_take(cpu, sizeof(*page));
        *page = (struct code_page){.host = host_page, .next = *bucket};
        *bucket = page;
    }
    struct page_ref *ref = arena_take(cpu, sizeof(*ref));

    *ref = (struct page_ref){.block = block, .next = page->refs};
    page->refs = ref;
}

static void kill_block(struct soft_cpu *cpu, struct soft_block *block)
{
    if (block->is_dead)
        return;
    struct soft_block **link = &cpu->cache->buckets[hash(block->host, block->mode, BLOCK_BUCKETS)];

    while (*link != block)
        link = &(*link)->next;
    *link = block->next;
    block->is_dead = true;
    for (unsigned i = 0; i < block->op_count; i++)
        block->ops[i].handler = soft_handlers[SOP_stale];
}

static void forget_page(struct soft_cpu *cpu, const uint8_t *host_page)
{
    struct code_page *page = find_page(cpu, host_page);

    if (!page)
        return;
    for (struct page_ref *ref = page->refs; ref; ref = ref->next)
        kill_block(cpu, ref->block);
    page->refs = NULL;
}

static void post_request(struct soft_cpu *cpu, uint64_t gpa, bool is_changed)
{
    if (!is_changed && atomic_load(&cpu->is_idle)) {
        atomic_store(&cpu->missed_code, true);
        if (atomic_load(&cpu->is_idle))
            return;
    }
    pthread_mutex_lock(&cpu->code_mutex);
    if (cpu->code_request_count < SOFT_CODE_REQUESTS_MAX)
        cpu->code_requests[cpu->code_request_count] =
            (struct soft_code_request){.gpa = gpa, .is_changed = is_changed};
    if (cpu->code_request_count <= SOFT_CODE_REQUESTS_MAX)
        cpu->code_request_count++;
    pthread_mutex_unlock(&cpu->code_mutex);
    atomic_fetch_or(&cpu->requests, SOFT_REQUEST_CODE);
    atomic_store(&cpu->poll, 1);
}

static void page_written(struct soft_vm *vm, struct soft_cpu *self, const struct physmem_slot *slot,
                         uint64_t gpa)
{
    _Atomic uint64_t *word = physmem_owners(slot, gpa);

    if (likely(!atomic_load(word)))
        return;
    uint64_t owners = atomic_exchange(word, 0);

    while (owners) {
        struct soft_cpu *cpu = vm->cpus[__builtin_ctzll(owners)];

        owners &= owners - 1;
        if (cpu == self)
            forget_page(cpu, physmem_host(slot, gpa & ~UINT64_C(0xfff)));
        else
            post_request(cpu, gpa, true);
    }
}

void block_code_written(struct soft_vm *vm, struct soft_cpu *self, const struct physmem_slot *slot,
                        uint64_t gpa, uint64_t length)
{
    /* The bytes before the look at the owners; a decoder does it the other way round. */
    atomic_thread_fence(memory_order_seq_cst);
    for (uint64_t page = gpa & ~UINT64_C(0xfff); page < gpa + length; page += 0x1000)
        page_written(vm, self, slot, page);
}

static void own_page(struct soft_cpu *cpu, const struct mmu_page *page)
{
    uint64_t bit = UINT64_C(1) << cpu->index;
    uint64_t gpa = page->gpa & ~UINT64_C(0xfff);

    if (atomic_fetch_or(physmem_owners(page->slot, gpa), bit) & bit)
        return;
    mmu_forget_writes(cpu, physmem_host(page->slot, gpa));
    unsigned count = atomic_load(&cpu->vm->cpu_count);

    for (unsigned i = 0; i < count; i++)
        if (cpu->vm->cpus[i] != cpu)
            post_request(cpu->vm->cpus[i], gpa, false);
}

static void serve_request(struct soft_cpu *cpu, const struct soft_code_request *request)
{
    const struct physmem_slot *slot = physmem_find(&cpu->vm->mem, request->gpa);

    if (!slot)
        return;
    const uint8_t *host = physmem_host(slot, request->gpa & ~UINT64_C(0xfff));

    if (request->is_changed)
        forget_page(cpu, host);
    else if (mmu_forget_writes(cpu, host))
        page_written(cpu->vm, cpu, slot, request->gpa);
}

/* More requests than were kept: assume the worst of every page. */
static void serve_overflow(struct soft_cpu *cpu)
{
    mmu_flush_all(cpu);
    block_flush_all(cpu);
    for (unsigned i = 0; i < atomic_load(&cpu->vm->cpu_count); i++)
        if (cpu->vm->cpus[i] != cpu)
            soft_post(cpu->vm->cpus[i], SOFT_REQUEST_FLUSH);
}

void block_serve_requests(struct soft_cpu *cpu)
{
    struct soft_code_request request;

    for (;;) {
        pthread_mutex_lock(&cpu->code_mutex);
        unsigned count = cpu->code_request_count;
        bool is_overflow = count > SOFT_CODE_REQUESTS_MAX;

        if (count)
            cpu->code_request_count = is_overflow ? 0 : count - 1;
        if (count && !is_overflow)
            request = cpu->code_requests[count - 1];
        pthread_mutex_unlock(&cpu->code_mutex);
        if (!count)
            return;
        if (is_overflow)
            serve_overflow(cpu);
        else
            serve_request(cpu, &request);
    }
}

/* --- Decoding --- */

/* A block in the making. */
struct build {
    struct soft_cpu *cpu;
    struct soft_decoder decoder;
    struct soft_op ops[BLOCK_OPS_MAX];
    unsigned op_count;
    unsigned offset; /* of the next instruction */
    unsigned instruction_count;
    const uint8_t *host;
    const uint8_t *second_host; /* page */
};

/* Raises what stands instead of an instruction. */
static void emit_raise(struct build *build, enum soft_vector vector)
{
    build->decoder.ops = &build->ops[build->op_count];
    build->decoder.op_count = 0;
    decode_emit_raise(&build->decoder, vector, 0);
}

/* Adds the decoded instruction's place to its operations, and itself to the block. */
static void accept_instruction(struct build *build)
{
    struct soft_decoder *d = &build->decoder;
    unsigned end = build->offset + d->position;

    for (unsigned i = 0; i < d->op_count; i++) {
        d->ops[i].offset = (uint16_t)build->offset;
        d->ops[i].length = (uint8_t)d->position;
    }
    if (d->rip_relative)
        d->rip_relative->disp = (int32_t)((uint32_t)d->rip_relative->disp + end);
    if (d->branch)
        d->branch->rel = (int32_t)((uint32_t)d->branch->rel + end);
    build->op_count += d->op_count;
    build->offset = end;
    build->instruction_count++;
}

static struct soft_op *emit_last(struct build *build, enum soft_op_kind kind)
{
    build->decoder.ops = &build->ops[build->op_count];
    build->decoder.op_count = 0;
    struct soft_op *op = decode_emit(&build->decoder, kind);

    op->offset = (uint16_t)build->offset;
    build->op_count++;
    return op;
}

static enum soft_decoded decode_bytes(struct build *build, const uint8_t *bytes, unsigned available)
{
    struct soft_decoder *d = &build->decoder;

    d->bytes = bytes;
    d->available = MIN(available, SOFT_INSTRUCTION_MAX);
    d->ops = &build->ops[build->op_count];
    enum soft_decoded result = soft_decode(d);

    if (d->is_short && d->available < SOFT_INSTRUCTION_MAX)
        return result; /* the caller sees is_short */
    if (d->is_short) {
        emit_raise(build, SOFT_GP);
        d->is_short = false;
        return SOFT_DECODED_END;
    }
    if (result == SOFT_UNDEFINED) {
        emit_raise(build, SOFT_UD);
        return SOFT_DECODED_END;
    }
    return result;
}

/* The first instruction crosses into the next page, whose bytes follow. False: a fault. */
static bool decode_crossing(struct build *build, uint64_t linear, enum soft_decoded *result)
{
    uint8_t bytes[2 * SOFT_INSTRUCTION_MAX];
    unsigned left = 0x1000 - (unsigned)(linear & 0xfff);
    struct mmu_page page;

    if (!mmu_translate(build->cpu, linear + left, SOFT_EXEC, &page))
        return false;
    memcpy(bytes, build->host, left);
    memset(bytes + left, 0xff, SOFT_INSTRUCTION_MAX);
    if (page.slot) {
        own_page(build->cpu, &page);
        build->second_host = physmem_host(page.slot, page.gpa);
        memcpy(bytes + left, build->second_host, SOFT_INSTRUCTION_MAX);
    }
    build->decoder.rip_relative = build->decoder.branch = NULL;
    *result = decode_bytes(build, bytes, SOFT_INSTRUCTION_MAX);
    return true;
}

/* CMP or TEST and the like followed by Jcc: the first gets the handler that does both. */
static void fuse_last(struct build *build)
{
    static const uint16_t pairs[][2] = {
        {SOP_cmp_rr_32, SOP_cmp_rr_32_jcc_0},   {SOP_cmp_rr_64, SOP_cmp_rr_64_jcc_0},
        {SOP_cmp_ri_8, SOP_cmp_ri_8_jcc_0},     {SOP_cmp_ri_32, SOP_cmp_ri_32_jcc_0},
        {SOP_cmp_ri_64, SOP_cmp_ri_64_jcc_0},   {SOP_cmp_rm_64, SOP_cmp_rm_64_jcc_0},
        {SOP_test_rr_8, SOP_test_rr_8_jcc_0},   {SOP_test_rr_32, SOP_test_rr_32_jcc_0},
        {SOP_test_rr_64, SOP_test_rr_64_jcc_0}, {SOP_test_ri_8, SOP_test_ri_8_jcc_0},
        {SOP_dec_r_32, SOP_dec_r_32_jcc_0},     {SOP_sub_ri_64, SOP_sub_ri_64_jcc_0},
        {SOP_cmp_rm_32, SOP_cmp_rm_32_jcc_0},   {SOP_cmp_mi_8, SOP_cmp_mi_8_jcc_0},
        {SOP_cmp_mi_32, SOP_cmp_mi_32_jcc_0},   {SOP_test_mi_8, SOP_test_mi_8_jcc_0},
        {SOP_sub_ri_32, SOP_sub_ri_32_jcc_0},   {SOP_add_ri_64, SOP_add_ri_64_jcc_0},
    };
    unsigned condition = 0;

    if (build->op_count < 2)
        return;
    const struct soft_op *last = &build->ops[build->op_count - 1];
    struct soft_op *before = &build->ops[build->op_count - 2];

    while (condition < 16 && last->handler != soft_handlers[SOP_jcc64_0 + condition])
        condition++;
    for (unsigned i = 0; condition < 16 && i < ARRAY_SIZE(pairs); i++) {
        if (before->handler != soft_handlers[pairs[i][0]])
            continue;
        before->handler = soft_handlers[pairs[i][1] + condition];
        return;
    }
}

/* Ends a block that no branch ends. */
static void finish(struct build *build, enum soft_decoded last, bool is_single)
{
    if (last == SOFT_DECODED_SHADOW)
        emit_last(build, SOP_stop)->c = SOFT_STOP_INTERRUPTS;
    else if (last == SOFT_DECODED_STACK_SHADOW)
        emit_last(build, SOP_stop)->c = SOFT_STOP_STACK;
    else if (is_single)
        emit_last(build, SOP_stop);
    else if (last != SOFT_DECODED_END)
        emit_last(build, SOP_end);
    else
        fuse_last(build);
}

/* Decodes up to `instructions_max`. False: the first one could not be fetched. */
static bool decode_run(struct build *build, uint64_t linear, unsigned instructions_max)
{
    unsigned in_page = 0x1000 - (unsigned)(linear & 0xfff);
    bool is_single = instructions_max == 1;
    enum soft_decoded last = SOFT_DECODED;
    bool in_shadow = false;

    while (build->instruction_count < instructions_max &&
           build->op_count + SOFT_INSTRUCTION_OPS_MAX + 1 < BLOCK_OPS_MAX) {
        uint8_t bytes[SOFT_INSTRUCTION_MAX];
        unsigned available = MIN(in_page - build->offset, SOFT_INSTRUCTION_MAX);

        memcpy(bytes, build->host + build->offset, available);
        enum soft_decoded result = decode_bytes(build, bytes, available);

        if (build->decoder.is_short) {
            if (build->offset)
                break;
            if (!decode_crossing(build, linear, &result))
                return false;
            instructions_max = 1;
        }
        accept_instruction(build);
        last = result;
        if (result == SOFT_DECODED_END || in_shadow)
            break;
        if (result == SOFT_DECODED_SHADOW || result == SOFT_DECODED_STACK_SHADOW) {
            in_shadow = true;
            instructions_max = MAX(instructions_max, build->instruction_count + !is_single);
        }
    }
    finish(build, last, is_single);
    return true;
}

static bool start_build(struct build *build, struct soft_cpu *cpu, uint64_t linear)
{
    struct mmu_page page;

    if (!mmu_translate(cpu, linear, SOFT_EXEC, &page))
        return false;
    /*
     * Code where no memory is: #UD. Hardware would fetch all ones there, which is an undefined
     * instruction; KVM injects #UD because it cannot emulate the fetch.
     */
    if (!page.slot)
        return soft_raise(cpu, SOFT_UD, 0);
    own_page(cpu, &page);
    build->cpu = cpu;
    build->decoder = (struct soft_decoder){.cpu = cpu, .mode = cpu->mode};
    build->op_count = build->offset = build->instruction_count = 0;
    build->host = physmem_host(page.slot, page.gpa);
    build->second_host = NULL;
    return true;
}

static struct soft_block *publish(struct build *build)
{
    struct soft_cpu *cpu = build->cpu;
    size_t ops_bytes = build->op_count * sizeof(struct soft_op);
    struct soft_block **bucket = &cpu->cache->buckets[hash(build->host, cpu->mode, BLOCK_BUCKETS)];

    arena_reserve(cpu);
    struct soft_block *block = arena_take(cpu, sizeof(*block) + ops_bytes);

    *block = (struct soft_block){.host = build->host,
                                 .second_host = build->second_host,
                                 .next = *bucket,
                                 .op_count = (uint16_t)build->op_count,
                                 .mode = cpu->mode};
    memcpy(block->ops, build->ops, ops_bytes);
    *bucket = block;
    reference_page(cpu, page_of(build->host), block);
    if (build->second_host)
        reference_page(cpu, build->second_host, block);
    return block;
}

/* --- Lookup --- */

static bool fetch_is_legal(struct soft_cpu *cpu)
{
    if (soft_is_64bit(cpu) || cpu->rip <= cpu->seg[SOFT_CS].limit)
        return true;
    return soft_raise(cpu, SOFT_GP, 0);
}

static uint64_t linear_rip(const struct soft_cpu *cpu)
{
    uint64_t linear = cpu->rip + cpu->cs_base;

    return soft_is_64bit(cpu) ? linear : (uint32_t)linear;
}

static const struct soft_tlb_entry *exec_entry(struct soft_cpu *cpu, uint64_t linear)
{
    const struct soft_tlb_entry *entry =
        &cpu->tlbs[cpu->cpl == 3][(linear >> 12) & (SOFT_TLB_SIZE - 1)];

    if ((entry->exec & ~SOFT_TLB_GLOBAL) == ((linear & ~UINT64_C(0xfff)) | SOFT_TLB_VALID))
        return entry;
    return NULL;
}

/* Host address of the code at `linear`. False: a fault, or no RAM (*host NULL). */
static bool code_host(struct soft_cpu *cpu, uint64_t linear, const uint8_t **host, bool *is_global)
{
    const struct soft_tlb_entry *entry = exec_entry(cpu, linear);
    struct mmu_page page;

    *host = NULL;
    if (entry) {
        *host = (const uint8_t *)(uintptr_t)(linear + entry->addend);
        *is_global = entry->exec & SOFT_TLB_GLOBAL;
        return true;
    }
    if (!mmu_translate(cpu, linear, SOFT_EXEC, &page))
        return false;
    if (page.slot)
        *host = physmem_host(page.slot, page.gpa);
    *is_global = page.is_global;
    return true;
}

static struct soft_block *find_block(struct soft_cpu *cpu, const uint8_t *host)
{
    struct soft_block *block = cpu->cache->buckets[hash(host, cpu->mode, BLOCK_BUCKETS)];

    while (block && (block->host != host || block->mode != cpu->mode))
        block = block->next;
    return block;
}

/* A crossing block also depends on where its second page is now. */
static bool second_page_matches(struct soft_cpu *cpu, const struct soft_block *block,
                                uint64_t linear, bool *matches)
{
    const uint8_t *host;
    bool is_global;

    if (!code_host(cpu, (linear | 0xfff) + 1, &host, &is_global))
        return false;
    *matches = host == block->second_host;
    return true;
}

static struct soft_block *lookup(struct soft_cpu *cpu)
{
    uint64_t linear = linear_rip(cpu);
    const uint8_t *host;
    bool is_global, matches = true;
    struct build build;

    if (!fetch_is_legal(cpu) || !code_host(cpu, linear, &host, &is_global))
        return NULL;
    struct soft_block *block = host ? find_block(cpu, host) : NULL;

    if (block && block->second_host && !second_page_matches(cpu, block, linear, &matches))
        return NULL;
    if (block && !matches) {
        kill_block(cpu, block);
        block = NULL;
    }
    if (!block) {
        if (!start_build(&build, cpu, linear) ||
            !decode_run(&build, linear, BLOCK_INSTRUCTIONS_MAX))
            return NULL;
        block = publish(&build);
    }
    if (!block->second_host)
        remember_jump(cpu, cpu->rip, block->ops, is_global);
    return block;
}

struct soft_op *block_lookup(struct soft_cpu *cpu)
{
    struct soft_block *block = lookup(cpu);

    return block ? block->ops : NULL;
}

struct soft_op *block_lookup_link(struct soft_cpu *cpu, struct soft_op **link)
{
    uint64_t resets = cpu->cache->resets;
    bool in_page = !block_is_elsewhere(cpu, cpu->rip);
    struct soft_block *block = lookup(cpu);

    if (!block)
        return NULL;
    if (in_page && !block->second_host && resets == cpu->cache->resets)
        *link = block->ops;
    return block->ops;
}

struct soft_op *block_decode_single(struct soft_cpu *cpu)
{
    uint64_t linear = linear_rip(cpu);
    struct build build;

    if (!fetch_is_legal(cpu) || !start_build(&build, cpu, linear) || !decode_run(&build, linear, 1))
        return NULL;
    CHECK(build.op_count <= ARRAY_SIZE(cpu->cache->single));
    memcpy(cpu->cache->single, build.ops, build.op_count * sizeof(struct soft_op));
    return cpu->cache->single;
}
