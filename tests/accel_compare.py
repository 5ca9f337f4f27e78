#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""
accel_compare: what small system programs leave behind on the software CPU and under KVM, compared.

    tests/accel_compare.py [--box]    natively, or under the KVM of the KVM box

tests/acceltable/not_judged.txt names the programs that are left out, each with its reason. The box may
end, or an interrupt of its own may show, in any program (its hardware is a translator): what did not
agree there is run once more in another. The software CPU does the same every time.
"""

import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[1]
TABLE = "build/tests/accel_table"
LEFT_OUT = TOP / "tests/acceltable/not_judged.txt"
RESULTS = TOP / "build/test-results"
BOXES = 3


def left_out(in_box):
    """Names of the programs that such a KVM cannot judge."""
    names = set()
    for line in LEFT_OUT.read_text().splitlines():
        if line and not line.startswith("#"):
            where, name, reason = line.split(maxsplit=2)
            if where not in ("kvm", "box") or not reason:
                raise ValueError(f"{LEFT_OUT}: cannot read '{line}'")
            if where == "kvm" or in_box:
                names.add(name)
    return names


def programs(in_box):
    listed = subprocess.run([TABLE, "--list"], check=True, capture_output=True, text=True,
                            cwd=TOP).stdout.split()
    unknown = left_out(in_box) - set(listed)
    if unknown:
        raise ValueError(f"{LEFT_OUT}: there is no program '{unknown.pop()}'")
    return [name for name in listed if name not in left_out(in_box)]


def _table(accelerator, names, in_box):
    """What the programs print. The box has no XSAVE, so there both CPUs go without."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    output = RESULTS / f"table-{accelerator}"
    output.unlink(missing_ok=True)
    command = ["sh", "-c", f'out=$1; shift; exec {TABLE} "$@" >"$out"', "sh", str(output),
               "--accel", accelerator, *(["--without-xsave"] if in_box else []), *names]
    if in_box and accelerator == "kvm":
        command = ["tools/kvm-box", "--writable", str(RESULTS), "--timeout", "600", "--", *command]
    subprocess.run(command, check=False, cwd=TOP)
    return _by_program(output.read_text() if output.exists() else "")


def _by_program(table):
    """Each program's lines."""
    blocks = [block.splitlines() for block in re.split(r"(?m)^(?=\S)", table) if block]
    return {name: lines for name, *lines in blocks}


def _difference(name, ours, theirs):
    if not ours or len(ours) != len(theirs):
        return f"{name}: soft left {len(ours)} lines, KVM {len(theirs)}"
    for mine, other in zip(ours, theirs):
        if mine != other:
            return f"{name}: soft has '{mine.strip()}', KVM '{other.strip()}'"
    return None


def compare(in_box):
    """How many programs were compared, and a sentence for each that differs."""
    names = programs(in_box)
    soft = _table("soft", names, in_box)
    differences = {name: "" for name in names}
    for _ in range(BOXES if in_box else 1):
        kvm = _table("kvm", list(differences), in_box)
        differences = {name: _difference(name, soft.get(name, []), kvm.get(name, []))
                       for name in differences}
        differences = {name: text for name, text in differences.items() if text}
        if not differences:
            break
    return len(names), list(differences.values())


def main():
    count, differences = compare("--box" in sys.argv[1:])
    for difference in differences:
        print(difference)
    print(f"{count} programs, {len(differences)} of them left other registers or memory behind")
    return 1 if differences or not count else 0


if __name__ == "__main__":
    sys.exit(main())
