/* SPDX-License-Identifier: MIT */
/*
 * footprint: gives back to the host what a process needed only to start.
 *
 * The code and the constants that starting went through stay resident otherwise for as long as the
 * process runs, its libraries' included. What is needed again comes back from the page cache.
 */
#ifndef BASE_FOOTPRINT_H
#define BASE_FOOTPRINT_H

/* Once, when the start is over; any thread. A few microseconds. */
void footprint_trim(void);

#endif
