/* SPDX-License-Identifier: MIT */
/* loops: small loops of the kinds programs are made of; nanoseconds for a step of each. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SIEVE_BYTES  (1U << 18)
#define BUFFER_BYTES (1U << 18)
#define NODES        (1U << 14)
#define BUCKETS      (1U << 12)

/* Each loop returns how many steps it took; what it computed goes to a place gcc cannot see
 * through. */
static volatile uint64_t result;

static uint64_t sieve(void)
{
    static unsigned char composite[SIEVE_BYTES];
    uint64_t steps = 0;
    for (int pass = 0; pass < 20; pass++) {
        memset(composite, 0, sizeof composite);
        for (unsigned i = 2; i < SIEVE_BYTES; i++) {
            if (composite[i])
                continue;
            for (unsigned j = 2 * i; j < SIEVE_BYTES; j += i, steps++)
                composite[j] = 1;
        }
        result += composite[SIEVE_BYTES - 1];
    }
    return steps;
}

static uint64_t crc32(void)
{
    static uint32_t table[256];
    static unsigned char bytes[BUFFER_BYTES];
    uint32_t crc = UINT32_MAX;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xedb88320U : 0);
        table[i] = value;
    }
    for (unsigned i = 0; i < BUFFER_BYTES; i++)
        bytes[i] = (unsigned char)(i * 7);
    for (int pass = 0; pass < 40; pass++)
        for (unsigned i = 0; i < BUFFER_BYTES; i++)
            crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 255];
    result += crc;
    return 40ULL * BUFFER_BYTES;
}

struct node {
    struct node *next;
    uint64_t key, value;
};

static struct node *find(struct node *const *buckets, uint64_t key)
{
    struct node *node = buckets[key * 0x9e3779b97f4a7c15U >> 52];
    while (node && node->key != key)
        node = node->next;
    return node;
}

static uint64_t hash_and_list(void)
{
    static struct node nodes[NODES];
    static struct node *buckets[BUCKETS];
    uint64_t key = 1;
    memset(buckets, 0, sizeof buckets);
    for (unsigned i = 0; i < NODES; i++) {
        struct node **bucket = &buckets[i * 0x9e3779b97f4a7c15U >> 52];
        nodes[i] = (struct node){*bucket, i, i};
        *bucket = &nodes[i];
    }
    for (unsigned i = 0; i < 1000000; i++) {
        struct node *node = find(buckets, key % NODES);
        node->value += i;
        key = key * 6364136223846793005U + node->value;
    }
    result += key;
    return 1000000;
}

/* The number of calls below and including this one; the barriers keep gcc from making a loop of it.
 */
static __attribute__((noipa)) uint64_t tree(unsigned depth)
{
    if (depth == 0)
        return 1;
    uint64_t left = tree(depth - 1);
    __asm__ volatile("" : "+r"(left));
    uint64_t right = tree(depth - 1);
    __asm__ volatile("" : "+r"(right));
    return left + right + 1;
}

static uint64_t call_and_return(void)
{
    return tree(21);
}

static uint64_t copy(void)
{
    static unsigned char from[BUFFER_BYTES], to[BUFFER_BYTES];
    for (int pass = 0; pass < 2000; pass++) {
        from[pass] = (unsigned char)pass;
        memcpy(to, from, sizeof to);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
    return 2000ULL * BUFFER_BYTES / 1024;
}

static uint64_t floats(void)
{
    uint64_t steps = 0, inside = 0;
    for (double y = -1.25; y < 1.25; y += 0.01) {
        for (double x = -2; x < 0.5; x += 0.01) {
            double a = 0, b = 0;
            int turn = 0;
            for (; turn < 500 && a * a + b * b < 4; turn++) {
                double next = a * a - b * b + x;
                b = 2 * a * b + y;
                a = next;
            }
            steps += (uint64_t)turn;
            inside += turn == 500;
        }
    }
    result += inside;
    return steps;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

int main(void)
{
    static const struct {
        const char *name;
        uint64_t (*run)(void);
    } loops[] = {{"sieve", sieve},
                 {"crc32", crc32},
                 {"hash/list", hash_and_list},
                 {"call/return", call_and_return},
                 {"memcpy-KiB", copy},
                 {"float", floats}};
    for (unsigned i = 0; i < sizeof loops / sizeof *loops; i++) {
        uint64_t began = now_ns();
        uint64_t steps = loops[i].run();
        uint64_t took = now_ns() - began;
        printf("LOOP %s %.3f %.1f\n", loops[i].name, (double)took / (double)steps,
               (double)took / 1e6);
    }
    return 0;
}
