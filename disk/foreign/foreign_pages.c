/* SPDX-License-Identifier: MIT */
/*
 * foreign_pages: the tables of an image, a page at a time, in a set-associative cache of fixed
 * size. Where a log overrides the file, pages are patched as they come in.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "disk/foreign/foreign_private.h"

#define FILE_SHIFT 52 /* page numbers stay below: a file has at most 2^63 bytes */

int foreign_pages_init(struct foreign *foreign)
{
    struct foreign_pages *pages = &foreign->pages;
    list_init(&pages->waiters);
    pages->pages = calloc(FOREIGN_PAGES, sizeof(*pages->pages));
    pages->memory = mmap(NULL, FOREIGN_PAGES * FOREIGN_PAGE_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages->memory == MAP_FAILED)
        pages->memory = NULL;
    return pages->pages && pages->memory ? 0 : -ENOMEM;
}

void foreign_pages_fini(struct foreign *foreign)
{
    struct foreign_pages *pages = &foreign->pages;
    CHECK(!pages->waiters.next || list_is_empty(&pages->waiters));
    if (pages->memory)
        munmap(pages->memory, FOREIGN_PAGES * FOREIGN_PAGE_BYTES);
    free(pages->pages);
}

void foreign_patch_apply(const struct foreign *foreign, uint64_t offset, uint8_t *data,
                         uint64_t bytes)
{
    for (uint32_t i = 0; i < foreign->patch_count; i++) {
        const struct foreign_patch *patch = &foreign->patches[i];
        if (!ranges_overlap(offset, bytes, patch->offset, patch->bytes))
            continue;
        uint64_t start = MAX(offset, patch->offset);
        uint64_t length = MIN(offset + bytes, patch->offset + patch->bytes) - start;
        if (patch->data)
            memcpy(data + (start - offset), patch->data + (start - patch->offset), length);
        else
            memset(data + (start - offset), 0, length);
    }
}

static uint8_t *page_data(const struct foreign_page *page)
{
    const struct foreign_pages *pages = &page->foreign->pages;
    return pages->memory + (size_t)(page - pages->pages) * FOREIGN_PAGE_BYTES;
}

static uint32_t file_of(uint64_t key)
{
    return (uint32_t)((key - 1) >> FILE_SHIFT);
}

static uint64_t offset_of(uint64_t key)
{
    return ((key - 1) & ((UINT64_C(1) << FILE_SHIFT) - 1)) * FOREIGN_PAGE_BYTES;
}

static struct foreign_page *set_of(struct foreign_pages *pages, uint64_t key)
{
    uint64_t hash = key * UINT64_C(0x9e3779b97f4a7c15);
    return pages->pages + (hash >> 58) % FOREIGN_PAGE_SETS * FOREIGN_PAGE_WAYS;
}

static struct foreign_page *find_page(struct foreign_pages *pages, uint64_t key)
{
    struct foreign_page *set = set_of(pages, key);
    for (unsigned i = 0; i < FOREIGN_PAGE_WAYS; i++)
        if (set[i].key == key)
            return &set[i];
    return NULL;
}

/* The least recently used one that is not being loaded; NULL if all are. */
static struct foreign_page *take_page(struct foreign *foreign, uint64_t key)
{
    struct foreign_page *set = set_of(&foreign->pages, key), *oldest = NULL;
    for (unsigned i = 0; i < FOREIGN_PAGE_WAYS; i++)
        if (!set[i].loading && (!oldest || set[i].used < oldest->used))
            oldest = &set[i];
    if (oldest) {
        oldest->foreign = foreign;
        oldest->key = key;
        oldest->used = ++foreign->pages.clock;
    }
    return oldest;
}

static void page_arrived(struct foreign_page *page, int result)
{
    if (result)
        page->key = 0;
    else if (file_of(page->key) == 0)
        foreign_patch_apply(page->foreign, offset_of(page->key), page_data(page),
                            FOREIGN_PAGE_BYTES);
}

static int load_now(struct foreign *foreign, uint64_t key, struct foreign_page **out)
{
    struct foreign_page *page = take_page(foreign, key);
    int result = io_read_now(foreign->files[file_of(key)].file, offset_of(key), page_data(page),
                             FOREIGN_PAGE_BYTES);
    page_arrived(page, result);
    *out = page;
    return result ? foreign_corrupt(foreign, "a table at %#llx cannot be read: %s",
                                    (unsigned long long)offset_of(key), strerror(-result))
                  : 0;
}

int foreign_entry(struct foreign *foreign, uint32_t file, uint64_t offset, uint64_t bytes,
                  const uint8_t **out)
{
    struct foreign_pages *pages = &foreign->pages;
    if (!range_fits(offset, bytes, foreign->files[file].length_bytes) || offset % bytes)
        return foreign_corrupt(foreign, "a table entry at %#llx is outside of the file",
                               (unsigned long long)offset);
    uint64_t key = ((uint64_t)file << FILE_SHIFT) + offset / FOREIGN_PAGE_BYTES + 1;
    struct foreign_page *page = find_page(pages, key);
    if (!page && foreign->blocking) {
        int result = load_now(foreign, key, &page);
        if (result)
            return result;
    }
    if (!page || page->loading) {
        pages->wanted = key;
        return -EINPROGRESS;
    }
    page->used = ++pages->clock;
    *out = page_data(page) + offset % FOREIGN_PAGE_BYTES;
    return 0;
}

static void on_page_read(struct io_request *io, int result)
{
    struct foreign_page *page = container_of(io, struct foreign_page, io);
    struct foreign *foreign = page->foreign;
    struct list waiting;
    page->loading = false;
    page_arrived(page, result);
    list_init(&waiting);
    list_splice_back(&waiting, &foreign->pages.waiters);
    for (struct list *node; (node = list_pop_front(&waiting));) {
        struct foreign_waiter *waiter = list_entry(node, struct foreign_waiter, node);
        waiter->wake(waiter, result);
    }
}

void foreign_pages_wait(struct foreign *foreign, struct foreign_waiter *waiter)
{
    struct foreign_pages *pages = &foreign->pages;
    uint64_t key = pages->wanted;
    list_push_back(&pages->waiters, &waiter->node);
    if (find_page(pages, key))
        return; /* on its way */
    struct foreign_page *page = take_page(foreign, key);
    if (!page)
        return; /* all of its set are on their way: look again when one came */
    page->loading = true;
    page->iov = (struct iovec){page_data(page), FOREIGN_PAGE_BYTES};
    page->io = (struct io_request){
        .kind = IO_READ,
        .offset = offset_of(key),
        .bytes = FOREIGN_PAGE_BYTES,
        .iov = &page->iov,
        .iov_count = 1,
        .on_done = on_page_read,
    };
    io_submit(foreign->files[file_of(key)].file, &page->io);
}
