# SPDX-License-Identifier: MIT
"""check_rules: who may include whom, how long things may be, what is banned. Prints each breach."""

import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[1]

# Floor by floor: a room includes its own floor's and these.
MAY_INCLUDE = {
    "base": set(),
    "disk": {"base"},
    "netbackends": {"base"},
    "devices": {"base", "disk/disk.h", "netbackends/net.h"},
    "vmm": {"base", "devices", "netbackends", "disk/disk.h", "disk/dirty.h",
            "disk/histogram.h", "disk/throttle.h"},
    "vmm/block": {"base", "disk"},
    "vmm/boot": {"base", "devices", "vmm/accel.h", "vmm/config.h", "vmm/memory.h"},
    "vmm/chardev": {"base", "devices/char.h", "vmm/config.h"},
    "vmm/kvm": {"base", "vmm/accel.h"},
    "vmm/options": {"base", "devices", "netbackends", "disk/throttle.h", "vmm/config.h",
                    "vmm/config_guest.h"},
    "vmm/soft": {"base", "vmm/accel.h"},
    "tools": {"base", "disk", "vmm/accel_select.h"},
    "tools/bench": {"base", "disk", "devices", "netbackends", "tools"},
}

# System headers that belong to some rooms only.
RESERVED = {
    r"linux/kvm\.h": r"^(vmm/|tests/|tools/bench/bare_exit\.c$)",
    r"slirp/libslirp\.h": r"^netbackends/slirp_library\.h$",
    r"dlfcn\.h": r"^base/library\.c$",
    r"uv\.h": r"^(base/loop\.h|tests/)",
    r"liburing\.h": r"^disk/io_queue\.h$",
    r"jansson\.h": r"^(vmm|tools|tests)/",
}

# Calls that end in overruns, races or surprises, and what to use instead.
BANNED = {
    "strcpy": "snprintf", "strcat": "snprintf", "sprintf": "snprintf", "vsprintf": "vsnprintf",
    "gets": "fgets", "strtok": "strtok_r", "tmpnam": "mkostemp", "mktemp": "mkostemp",
    "alloca": "a named limit", "rand": "a seeded generator", "atoi": "strtoul", "system": "fork",
}

FUNCTION_MAX, FILE_MAX = 70, 800

breaches = []


def breach(where, what):
    breaches.append(f"{where}: {what}")


def sources():
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.c", "*.h"],
                             cwd=TOP, capture_output=True, text=True, check=True)
    return sorted(name for name in listing.stdout.split() if (TOP / name).exists())


def check_includes(name, lines):
    floor = next((room for room in sorted(MAY_INCLUDE, key=len, reverse=True)
                  if name.startswith(room + "/")), name.split("/")[0])
    for number, line in enumerate(lines, 1):
        own = re.match(r'#include "([^"]+)"', line)
        if own and floor in MAY_INCLUDE and "/" in own.group(1):
            target = own.group(1)
            allowed = MAY_INCLUDE[floor] | {floor, "build/config.h"}
            if not any(target == to or target.startswith(to + "/") for to in allowed):
                breach(f"{name}:{number}", f"{floor} may not include {target}")
        system = re.match(r"#include <([^>]+)>", line)
        for pattern, rooms in RESERVED.items():
            if system and re.fullmatch(pattern, system.group(1)) and not re.match(rooms, name):
                breach(f"{name}:{number}", f"<{system.group(1)}> does not belong here")


def check_banned(name, text):
    code = re.sub(r'/\*.*?\*/|"(\\.|[^"\\])*"', lambda m: "\n" * m.group(0).count("\n"), text,
                  flags=re.DOTALL)
    for number, line in enumerate(code.split("\n"), 1):
        for call in re.findall(r"(?<![\w.>])(\w+)\(", line):
            if call in BANNED:
                breach(f"{name}:{number}", f"{call}() is banned: use {BANNED[call]}")


def check_lengths(name, lines):
    if len(lines) > FILE_MAX:
        breach(name, f"{len(lines)} lines, more than {FILE_MAX}: give it a second room")
    start = None
    for number, line in enumerate(lines, 1):
        if line.startswith("{"):
            start = number
        elif line.startswith("}") and not line.startswith("};") and start:
            if number - start > FUNCTION_MAX:
                breach(f"{name}:{start}", f"a function of {number - start} lines, more than "
                       f"{FUNCTION_MAX}")
            start = None


def check_head(name, text):
    if not text.startswith("/* SPDX-License-Identifier: MIT */\n"):
        breach(name, "the first line must be the SPDX licence line")
    if name.endswith(".h"):
        guard = name.upper().replace("/", "_").replace(".", "_")
        if f"#ifndef {guard}\n#define {guard}\n" not in text and "X-macro" not in text:
            breach(name, f"the include guard must be {guard}")


def check_circles(names):
    """Headers must not include each other in a circle."""
    graph = {}
    for name in names:
        if name.endswith(".h"):
            found = re.findall(r'^#include "([^"]+)"', (TOP / name).read_text(), re.MULTILINE)
            graph[name] = [target for target in found if target.endswith(".h")]
    done, path = set(), []

    def visit(name):
        if name in path:
            breach(name, "includes itself through " + " -> ".join(path[path.index(name):]))
        elif name not in done:
            path.append(name)
            for target in graph.get(name, []):
                visit(target)
            path.pop()
            done.add(name)

    for name in graph:
        visit(name)


def main():
    names = sources()
    for name in names:
        text = (TOP / name).read_text()
        lines = text.split("\n")
        check_includes(name, lines)
        check_banned(name, text)
        check_lengths(name, lines)
        check_head(name, text)
    check_circles(names)
    print("\n".join(breaches) or f"{len(names)} files keep the rules")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
