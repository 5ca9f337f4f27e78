# SPDX-License-Identifier: MIT
"""What query-qmp-schema tells of arguments: as QEMU tells it, and as evisor's parsers take them."""

import re

import pytest

from conftest import qemu_img
from test_monitor import commands_of_both, evisor, qemu  # pylint: disable=unused-import

# What evisor alone has, or has not in QEMU's way.
OUR_OWN = re.compile(r"(hostonly|internal|nat)(\): no such case| is not there)$|"
                     r"^query-stats.*evisor is not there$|^query-stats\.target: optional|"
                     r"^blockdev-mirror\.unmap: not there$")
NOT_ACCEPTED = re.compile(r"does not accept value|: say |: zero detection is not there|Invalid parameter|is no network type|Unknown driver")


def test_arguments_have_the_types_that_qemu_gives_them(evisor, qemu):
    found, told = [], 0
    for name in commands_of_both(evisor, qemu):
        ours, theirs = (monitor.schema.types[name]["arg-type"] for monitor in (evisor, qemu))
        told += bool(evisor.schema.types[ours]["members"])
        found += evisor.schema.differences(qemu.schema, ours, theirs, name, set())
    assert [line for line in found if not OUR_OWN.search(line)] == []
    assert told > 50


def test_nothing_is_called_any_that_qemu_has_a_type_for(evisor, qemu):
    def vague(schema, name, where, seen):
        entry = schema.types[name]
        if name in seen:
            return
        seen.add(name)
        if name == "any":
            yield where
        for member in entry.get("members", []) if entry["meta-type"] == "object" else []:
            yield from vague(schema, member["type"], f"{where}.{member['name']}", seen)
        if entry["meta-type"] == "array":
            yield from vague(schema, entry["element-type"], where + "[]", seen)

    for name in commands_of_both(evisor, qemu):
        ours, theirs = (list(vague(monitor.schema, monitor.schema.types[name]["arg-type"], name, set()))
                        for monitor in (evisor, qemu))
        assert ours == theirs


class Builder:
    """Values of a type, with as little in them as may be."""

    def __init__(self, schema):
        self.types = schema.types

    def value(self, name, word=None):
        entry = self.types[name]
        kind = entry["meta-type"]
        if kind == "builtin":
            return {"int": 4194304, "boolean": True, "null": None}.get(entry["json-type"], word or "zz")
        if kind == "enum":
            return entry["values"][0]
        if kind == "array":
            return [self.value(entry["element-type"])]
        if kind == "alternate":
            return self.value("str")
        return self.least(name)

    def least(self, name, **chosen):
        entry = self.types[name]
        made = {member["name"]: self.value(member["type"]) for member in entry["members"]
                if "default" not in member}
        made.update(chosen)
        for variant in entry.get("variants", []):
            if variant["case"] == made[entry["tag"]]:
                made = {**self.least(variant["type"]), **made}
        return made


def image_of(driver, folder):
    """A file of the driver's format, as its blockdev-add names it."""
    kind = driver if driver in ("qcow2", "vdi", "vhdx", "vmdk", "vpc") else "raw"
    path = folder / kind
    if not path.exists():
        qemu_img("create", "-f", kind, path, "4M")
    named = {"filename": str(path)}
    return named if driver in ("file", "host_device") else {"file": {"driver": "file", **named}}


def send(monitor, command, arguments, folder):
    """Why it was refused, or ""; what it made is gone again. A node at the root has a name."""
    if command == "blockdev-add":
        arguments = {"node-name": "zz", **arguments, **image_of(arguments["driver"], folder)}
    if arguments.get("type") in ("hostonly", "internal", "nat"):
        arguments = {"folder": str(folder), **arguments}
    refusal = monitor.ask(command, **arguments).get("error", {}).get("desc", "")
    if not refusal and arguments.get("driver") in ("file", "host_device"):
        # The words of a file's node are read by the image that uses it.
        refusal = monitor.ask("blockdev-add", **{"driver": "raw", "node-name": "above", "file": "zz"}
                              ).get("error", {}).get("desc", "")
        monitor.ask("blockdev-del", **{"node-name": "above"})
    for undo, member in (("blockdev-del", "node-name"), ("netdev_del", "id"), ("object-del", "id"),
                         ("chardev-remove", "id")):
        monitor.ask(undo, **{member: "zz"})
    return refusal


def test_the_words_of_each_enum_are_those_that_are_taken(evisor, tmp_path):
    """One that is not told is refused as such; one that is told is not."""
    build, checked = Builder(evisor.schema), 0
    for command in [entry["name"] for entry in evisor.ask("query-commands")["return"]]:
        arg_type = evisor.schema.types[command]["arg-type"]
        for member in evisor.schema.types[arg_type]["members"]:
            kind = evisor.schema.types[member["type"]]
            if kind["meta-type"] != "enum":
                continue
            least = build.least(arg_type)
            refusal = send(evisor, command, {**least, member["name"]: "nonsense"}, tmp_path)
            assert NOT_ACCEPTED.search(refusal) and "nonsense" in refusal, (command, member, refusal)
            for word in kind["values"]:
                told = send(evisor, command, build.least(arg_type, **{member["name"]: word}),
                            tmp_path)
                assert not (NOT_ACCEPTED.search(told) and word in told), (command, member, word, told)
                checked += 1
    assert checked > 60


@pytest.mark.parametrize("command, name", [
    ("blockdev-add", "BlockdevOptions"), ("netdev_add", "Netdev"), ("object-add", "ObjectOptions"),
    ("block-export-add", "BlockExportOptions")])
def test_members_of_each_variant_are_those_that_are_taken(evisor, command, name, tmp_path):
    """Each member that is told is known to the parser; one that is not told is named by it."""
    build, entry = Builder(evisor.schema), evisor.schema.types[name]
    for variant in entry["variants"]:
        least = build.least(name, **{entry["tag"]: variant["case"]})
        refusal = send(evisor, command, {**least, "no-such-member": "zz"}, tmp_path)
        assert "no-such-member" in refusal, (variant, refusal)
        members = entry["members"] + evisor.schema.types[variant["type"]]["members"]
        for member in members:
            told = send(evisor, command, {**least, member["name"]: build.value(member["type"])},
                        tmp_path)
            unknown = re.search(r"no-such-member", refusal) and \
                refusal.replace("no-such-member", member["name"]).split("; ")[0] in told
            assert not unknown, (variant, member, told)


def test_probes_as_libvirt_makes_them(evisor):
    """Paths as its qemu_capabilities.c walks them: a command's argument, a member, a variant, a word."""
    types = evisor.schema.types

    def reaches(path):
        command, *steps = path.split("/")
        entry = types[types[command][steps.pop(0)]]
        for step in steps:
            while entry["meta-type"] == "array":
                entry = types[entry["element-type"]]
            if entry["meta-type"] == "alternate":
                entry = next(types[member["type"]] for member in entry["members"]
                             if types[member["type"]]["meta-type"] == "object")
            if step.startswith("^"):
                return step[1:] in entry["values"]
            if step.startswith("+"):
                found = [variant["type"] for variant in entry["variants"] if variant["case"] == step[1:]]
            else:
                found = [member["type"] for member in entry["members"] if member["name"] == step.lstrip("*")]
            if not found:
                return False
            entry = types[found[0]]
        return True

    for path in ("blockdev-add/arg-type/discard/^unmap", "blockdev-add/arg-type/+file/locking",
                 "blockdev-add/arg-type/+file/aio/^io_uring", "blockdev-add/arg-type/auto-read-only",
                 "blockdev-add/arg-type/+qcow2/cache-size", "block-commit/arg-type/*top",
                 "drive-mirror/arg-type/sync/^full", "blockdev-mirror/arg-type/copy-mode",
                 "nbd-server-start/arg-type/addr/+unix/data/path", "transaction/arg-type/actions/+abort",
                 "transaction/arg-type/actions/+block-dirty-bitmap-merge/data/bitmaps/name",
                 "blockdev-create/arg-type/options/+qcow2/version/^v3",
                 "object-add/arg-type/+memory-backend-file/share",
                 "object-add/arg-type/+throttle-group/limits/iops-total-max",
                 "chardev-add/arg-type/backend/+socket/data/addr/+inet/data/port",
                 "block-export-add/arg-type/bitmaps", "netdev_add/arg-type/+user/hostfwd/str"):
        wanted = path != "block-export-add/arg-type/bitmaps"  # of its variant nbd only
        assert reaches(path) is wanted, path
