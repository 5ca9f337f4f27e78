/* SPDX-License-Identifier: MIT */
/*
 * nbd_server: disks for others, over the NBD protocol: fixed newstyle, structured replies, block
 * status (base:allocation, qemu:dirty-bitmap:NAME). One listening socket, any number of exports.
 *
 * Everything runs on the loop. Clients are hostile: memory and requests in flight of each are
 * bounded (base/limits.h), what one does not read or send holds up nobody else. The disks are not
 * owned: they stay open until the export is gone.
 */
#ifndef DISK_NBD_NBD_SERVER_H
#define DISK_NBD_NBD_SERVER_H

#include "base/error.h"
#include "base/loop.h"
#include "disk/disk.h"

struct nbd_server;

struct nbd_server_options {
    int listener;         /* of base/socket.h; owned by the server from now on */
    unsigned clients_max; /* at once; others wait to be accepted. 0: NBD_CLIENTS_MAX */
    /* May be NULL. A client that had chosen an export is gone; so many of them are left. */
    void (*on_client_gone)(void *opaque, unsigned clients_left);
    void *opaque;
};

struct nbd_export_options {
    const char *name;        /* "" is the one that clients get who name none */
    const char *description; /* or NULL */
    struct disk *disk;
    bool read_only;             /* also if the disk is writable */
    bool detect_zeroes;         /* writes of zeroes are turned into DISK_ZERO */
    bool zeroes_unmap;          /* which may give space back then */
    const char *const *bitmaps; /* shown as qemu:dirty-bitmap:NAME; at most NBD_BITMAPS_MAX */
    size_t bitmap_count;
};

/* On failure the listener is still the caller's. */
int must_check nbd_server_create(struct loop *loop, const struct nbd_server_options *options,
                                 struct nbd_server **out, struct error *err);

int must_check nbd_server_add(struct nbd_server *server, const struct nbd_export_options *options,
                              struct error *err);

/*
 * Clients of the export are disconnected when what they have in flight is done; refused with -EBUSY
 * if there are any and `hard` is not set. `on_removed` comes later, on the loop; from then on the
 * disk is not used. -ENOENT if there is no such export.
 */
int must_check nbd_server_remove(struct nbd_server *server, const char *name, bool hard,
                                 void (*on_removed)(void *opaque), void *opaque, struct error *err);


/* Disconnects all, waits for what is in flight, frees. Nothing is flushed: that is disk_close's. */
void nbd_server_close(struct nbd_server *server, void (*on_closed)(void *opaque), void *opaque);

#endif
