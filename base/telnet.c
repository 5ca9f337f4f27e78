/* SPDX-License-Identifier: MIT */
/* telnet: commands out of the data of a peer, and the one byte that must be written twice. */
#include "base/telnet.h"

enum {
    SE = 240,
    BREAK = 243,
    SB = 250,
    WILL = 251,
    WONT = 252,
    DO = 253,
    DONT = 254,
    IAC = 255,
};
enum { BINARY = 0, ECHO = 1, SUPPRESS_GO_AHEAD = 3 };

const uint8_t telnet_greeting[12] = {IAC, WILL, ECHO,   IAC, WILL, SUPPRESS_GO_AHEAD,
                                     IAC, WILL, BINARY, IAC, DO,   BINARY};

void telnet_init(struct telnet *telnet)
{
    *telnet = (struct telnet){.state = TELNET_DATA};
}

/* Without its agreement on bytes as they are, a peer's end of line is CR LF or CR NUL. */
static bool take_data(struct telnet *telnet, uint8_t byte)
{
    bool is_padding = byte == 0 && telnet->has_cr && !telnet->is_binary;
    telnet->has_cr = byte == '\r';
    return !is_padding;
}

/* The byte after IAC. True: it is data. */
static bool take_command(struct telnet *telnet, uint8_t byte, unsigned *breaks)
{
    telnet->state = TELNET_DATA;
    if (byte == IAC)
        return take_data(telnet, byte);
    if (byte >= WILL)
        telnet->state = TELNET_OPTION;
    else if (byte == SB)
        telnet->state = TELNET_SUB;
    telnet->command = byte;
    *breaks += byte == BREAK;
    return false;
}

static bool take_byte(struct telnet *telnet, uint8_t byte, unsigned *breaks)
{
    switch (telnet->state) {
    case TELNET_DATA:
        if (byte != IAC)
            return take_data(telnet, byte);
        telnet->state = TELNET_COMMAND;
        break;
    case TELNET_COMMAND:
        return take_command(telnet, byte, breaks);
    case TELNET_OPTION:
        if (byte == BINARY && (telnet->command == WILL || telnet->command == WONT))
            telnet->is_binary = telnet->command == WILL;
        telnet->state = TELNET_DATA;
        break;
    case TELNET_SUB:
        if (byte == IAC)
            telnet->state = TELNET_SUB_COMMAND;
        break;
    case TELNET_SUB_COMMAND:
        telnet->state = byte == SE ? TELNET_DATA : TELNET_SUB;
        break;
    }
    return false;
}

size_t telnet_take(struct telnet *telnet, uint8_t *bytes, size_t length, unsigned *breaks)
{
    size_t kept = 0;
    for (size_t i = 0; i < length; i++)
        if (take_byte(telnet, bytes[i], breaks))
            bytes[kept++] = bytes[i];
    return kept;
}

size_t telnet_escape(const uint8_t *from, size_t length, uint8_t *to, size_t room, size_t *taken)
{
    size_t made = 0, i = 0;
    for (; i < length && made + 1 + (from[i] == IAC) <= room; i++) {
        to[made++] = from[i];
        if (from[i] == IAC)
            to[made++] = IAC;
    }
    *taken = i;
    return made;
}
