/* SPDX-License-Identifier: MIT */
/* limits: every bound of the program by name, so that none hides in the code. */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

/* base */
#define LOG_BURST 10 /* guest-caused lines a second */

/* machine */
#define VCPU_MAX          64
#define RAM_MIN_MIB       16
#define RAM_MAX_GIB       512
#define MEMSLOT_MAX       32
#define DISK_MAX          26 /* as many as virtio-blk names without a second letter */
#define DRIVE_MAX         64 /* with those that no device uses */
#define NIC_MAX           8
#define PCI_SLOT_MAX      32
#define PCI_BAR_MAX       6
#define BUS_REGION_MAX    256
#define MSIX_VECTOR_MAX   64
#define GSI_IOAPIC_PINS   24
#define GSI_MAX           1024
#define CMDLINE_MAX_BYTES 4096
#define PIT_PERIOD_MIN_US 100
#define SERIAL_STALL_MS   100 /* how long an idle reader holds the guest up */

/* virtio */
#define VIRTQUEUE_SIZE_MAX     1024
#define VIRTQUEUE_INDIRECT_MAX 1024 /* descriptors in one indirect table */
#define VIRTIO_QUEUES_MAX      64
#define VIRTIO_DRAIN_BUDGET    256 /* chains popped from one queue in one loop turn */
#define BLK_SEG_MAX            254
#define BLK_QUEUES_MAX         32
#define BLK_ERASE_SECTORS_MAX  0x3fffff /* of one discard or write-zeroes: just under 2 GiB */
#define NET_FRAME_MAX          65562    /* 64 KiB of segment, Ethernet, VLAN and slack */

/* disk */
#define DISK_BACKING_DEPTH_MAX 64
#define DISK_REQUEST_IOV_MAX   1024
#define IO_MEMORY_PIECES_MAX   512 /* of memory registered with io_uring, 1 GiB each */
#define QCOW2_CACHE_BYTES      (32u * 1024 * 1024)
#define CACHE_CLEAN_INTERVAL_S 600 /* tables that a machine has not used for so long are dropped   \
                                    */
#define IDLE_WRITEBACK_MS 1000     /* discarded space waits no longer for a flush of the guest */

/* NBD server */
#define NBD_CLIENTS_MAX         100
#define NBD_BITMAPS_MAX         16
#define NBD_REQUESTS_MAX        64 /* of one client in flight */
#define NBD_REQUEST_BYTES_MAX   (32u * 1024 * 1024)
#define NBD_CLIENT_BUFFER_BYTES (64u * 1024 * 1024) /* of all its requests together */
#define NBD_KEPT_BUFFER_BYTES   (1024u * 1024) /* a slot keeps this much for the next request */
#define NBD_KEPT_CLIENT_BYTES   (16u * 1024 * 1024) /* all of them together */
#define NBD_INPUT_BYTES         (64u * 1024)        /* read ahead; an option must fit */
#define NBD_OPTION_BYTES_MAX    (32u * 1024)
#define NBD_OUTPUT_BYTES_MAX    (1024 * 1024) /* replies to options that a client does not read */
#define NBD_EXTENTS_MAX         1024          /* of one context in one reply */
#define NBD_TURN_BYTES          (4u * 1024 * 1024) /* read from one client in one loop turn */
#define NBD_HANDSHAKE_MS        10000
#define NBD_LEAVING_MS          5000 /* to take the last replies */

/* fw_cfg */
#define FW_CFG_ITEMS_MAX      64
#define FW_CFG_DMA_TURN_BYTES (1024 * 1024) /* copied in one loop turn */
#define FW_CFG_PAST_END_BYTES (64 * 1024)   /* zeroes that one transfer may ask for */

/* chardev */
#define CHARDEV_INPUT_BYTES  4096        /* read ahead for each user */
#define CHARDEV_OUTPUT_BYTES (64 * 1024) /* held for a slow reader */
#define CHARDEV_RING_MAX     (16u * 1024 * 1024) /* of -chardev ringbuf */

/* control */
#define CONTROL_REQUEST_MAX_BYTES (64 * 1024)
#define CONTROL_OUTPUT_MAX_BYTES  (1024 * 1024)
#define CONTROL_JSON_DEPTH_MAX    32
#define CONTROL_CLIENTS_MAX       8
#define CONTROL_LINGER_MS         1000 /* to send the last replies before closing */
#define GDB_PACKET_MAX            16384
#define GDB_BREAKPOINT_MAX        256

#endif
