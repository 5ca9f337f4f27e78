# SPDX-License-Identifier: MIT
"""What query-qmp-schema tells, and whether what a monitor says is as it tells."""

KINDS = {"string": str, "int": int, "boolean": bool, "number": (int, float), "null": type(None)}


class Schema:
    def __init__(self, entries):
        self.types = {entry["name"]: entry for entry in entries}
        assert len(self.types) == len(entries), "a name occurs twice"

    def answer(self, command):
        return self.types[command]["ret-type"]

    def check_answer(self, command, value):
        wrong = list(self.faults(self.answer(command), value, command))
        assert not wrong, "\n".join(wrong)

    def check_event(self, message):
        name = message["event"]
        assert self.types[name]["meta-type"] == "event"
        wrong = list(self.faults(self.types[name]["arg-type"], message.get("data", {}), name))
        assert not wrong, "\n".join(wrong)

    def members(self, entry, value):
        """Of an object of this value: with those of the variant that its tag chooses."""
        members = list(entry["members"])
        for variant in entry.get("variants", []):
            if variant["case"] == value.get(entry["tag"]):
                members += self.members(self.types[variant["type"]], value)
        return members

    def faults(self, name, value, where):
        """A line for each thing in which the value differs from the type."""
        entry = self.types[name]
        yield from getattr(self, "faults_of_" + entry["meta-type"])(entry, value, where)

    def faults_of_builtin(self, entry, value, where):
        kind = KINDS.get(entry["json-type"])
        if kind and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            yield f"{where}: {value!r} is no {entry['name']}"

    def faults_of_enum(self, entry, value, where):
        if value not in entry["values"]:
            yield f"{where}: {value!r} is none of {entry['values']}"

    def faults_of_array(self, entry, value, where):
        if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
            return
        for index, element in enumerate(value):
            yield from self.faults(entry["element-type"], element, f"{where}[{index}]")

    def faults_of_alternate(self, entry, value, where):
        if all(list(self.faults(member["type"], value, where)) for member in entry["members"]):
            yield f"{where}: {value!r} is none of the alternatives"

    def faults_of_object(self, entry, value, where):
        if not isinstance(value, dict):
            yield f"{where}: {value!r} is no object"
            return
        members = {member["name"]: member for member in self.members(entry, value)}
        for name in value.keys() - members.keys():
            yield f"{where}.{name}: not in the schema"
        for name, member in members.items():
            if name in value:
                yield from self.faults(member["type"], value[name], f"{where}.{name}")
            elif "default" not in member:
                yield f"{where}.{name}: missing"

    def differences(self, other, ours, theirs, where, seen):
        """What is not as in `other`: a member it has not, another type, one it always has."""
        mine, peer = self.types[ours], other.types[theirs]
        kinds = mine["meta-type"], peer["meta-type"]
        if (ours, theirs) in seen or ours == "any":
            return
        seen.add((ours, theirs))
        if kinds == ("builtin", "alternate"):
            if ours not in [member["type"] for member in peer["members"]]:
                yield f"{where}: {ours} is none of the alternatives"
        elif kinds[0] != kinds[1] or (kinds[0] == "builtin" and ours != theirs):
            yield f"{where}: {ours} ({kinds[0]}), there {theirs} ({kinds[1]})"
        elif kinds[0] == "array":
            yield from self.differences(other, mine["element-type"], peer["element-type"],
                                        where + "[]", seen)
        elif kinds[0] == "enum":
            for value in set(mine["values"]) - set(peer["values"]):
                yield f"{where}: {value} is not there"
        elif kinds[0] == "alternate":
            there = {other.types[member["type"]]["meta-type"]: member["type"] for member in peer["members"]}
            for member in mine["members"]:
                kind = self.types[member["type"]]["meta-type"]
                if kind not in there:
                    yield f"{where}: a {kind} is none of the alternatives"
                elif kind == "object":
                    yield from self.differences(other, member["type"], there[kind], where, seen)
        elif kinds[0] == "object":
            yield from self.object_differences(other, mine, peer, where, seen)

    def object_differences(self, other, mine, peer, where, seen):
        members, others = ({member["name"]: member for member in entry["members"]}
                           for entry in (mine, peer))
        for name, member in members.items():
            if name not in others:
                yield f"{where}.{name}: not there"
                continue
            yield from self.differences(other, member["type"], others[name]["type"],
                                        f"{where}.{name}", seen)
            if "default" in member and "default" not in others[name]:
                yield f"{where}.{name}: optional, there always"
        for name in others.keys() - members.keys():
            if "default" not in others[name]:
                yield f"{where}.{name}: missing, there always"
        cases = {variant["case"]: variant["type"] for variant in peer.get("variants", [])}
        for variant in mine.get("variants", []):
            if variant["case"] not in cases:
                yield f"{where}({variant['case']}): no such case"
                continue
            yield from self.differences(other, variant["type"], cases[variant["case"]],
                                        f"{where}({variant['case']})", seen)
