# SPDX-License-Identifier: MIT
"""Clones and what they build on; and commands that are killed half-way."""
import shutil
import signal
import subprocess
import time

import pytest

from conftest import BUILD


def read_seed(path):
    """The files of a NoCloud image, by a reader that is not ours."""
    if not shutil.which("isoinfo"):
        pytest.skip("isoinfo is missing: apt-get install genisoimage")
    listing = subprocess.run(["isoinfo", "-J", "-f", "-i", str(path)], capture_output=True, text=True,
                             check=True).stdout.split()
    return {name.lstrip("/"): subprocess.run(["isoinfo", "-J", "-x", name, "-i", str(path)], text=True,
                                             capture_output=True, check=True).stdout
            for name in listing}


def disk_of(evctl, name):
    return evctl("info", name, "--json").json()["disks"][0]


def write_pattern(evctl, name, value, at="0"):
    """Into the first disk of a stopped machine, as its guest would."""
    path = evctl.store / name / disk_of(evctl, name)["file"]
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -P {value} {at} 64k", str(path)],
                   check=True, capture_output=True)


def read_pattern(evctl, name, value, at="0"):
    path = evctl.store / name / disk_of(evctl, name)["file"]
    done = subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"read -P {value} {at} 64k", str(path)],
                          check=True, capture_output=True, text=True)
    assert "Pattern verification failed" not in done.stdout, (name, done.stdout)


@pytest.fixture
def tools(qemu_img):
    return qemu_img


def seed_of(evctl, name):
    isos = [disk for disk in evctl("info", name, "--json").json()["disks"] if disk["kind"] == "iso"]
    assert len(isos) == 1
    return read_seed(evctl.store / name / isos[0]["file"])


def test_a_clone_does_not_come_up_as_its_twin(evctl, tmp_path, tools):
    (tmp_path / "user").write_text("#cloud-config\nusers: [default]\n")
    (tmp_path / "net").write_text("version: 2\n")
    evctl("create", "web", "--disk", "10M", "--user-data", tmp_path / "user", "--network-config",
          tmp_path / "net")
    evctl("clone", "web", "copy")
    evctl("clone", "web", "linked", "--linked")
    evctl("clone", "copy", "copy of copy")
    ids = set()
    for name in ("web", "copy", "linked", "copy of copy"):
        info, seed = evctl("info", name, "--json").json(), seed_of(evctl, name)
        assert seed["meta-data"] == f"instance-id: {info['uuid']}\nlocal-hostname: {name}\n"
        assert seed["user-data"] == "#cloud-config\nusers: [default]\n"
        assert seed["network-config"] == "version: 2\n"
        ids.add((info["uuid"], info["nics"][0]["mac"]))
    assert len(ids) == 4


def test_a_seed_of_another_program_is_renewed_too(evctl, tmp_path, tools):
    if not shutil.which("genisoimage"):
        pytest.skip("genisoimage is missing: apt-get install genisoimage")
    folder = tmp_path / "seed"
    folder.mkdir()
    (folder / "user-data").write_text("#cloud-config\nhostname: web\n")
    (folder / "meta-data").write_text("instance-id: iid-1\nlocal-hostname: web\npublic-keys: [k]\n")
    (folder / "vendor-data").write_text("#cloud-config\n")
    subprocess.run(["genisoimage", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-o",
                    str(tmp_path / "own.iso"), str(folder)], check=True)
    other = tmp_path / "other.iso"
    subprocess.run(["genisoimage", "-quiet", "-volid", "tools", "-joliet", "-rock", "-o", str(other),
                    str(folder)], check=True)
    evctl("create", "web", "--iso", tmp_path / "own.iso")
    evctl("create", "plain", "--iso", other)
    assert "names the host" in evctl("clone", "web", "copy").err
    seed, uuid = seed_of(evctl, "copy"), evctl("info", "copy", "--json").json()["uuid"]
    assert seed["meta-data"] == f"instance-id: {uuid}\nlocal-hostname: copy\npublic-keys: [k]\n"
    assert seed["vendor-data"] == "#cloud-config\n"
    evctl("clone", "plain", "plain2")
    assert disk_of(evctl, "plain2")["file"] == str(other)


def test_other_user_data_make_a_new_machine_of_it(evctl, tmp_path, tools):
    (tmp_path / "user").write_text("#cloud-config\n")
    evctl("create", "web", "--user-data", tmp_path / "user")
    before = seed_of(evctl, "web")
    (tmp_path / "user").write_text("echo hello\n")
    assert "does not begin with" in evctl("set", "web", "--user-data", tmp_path / "user").err
    after = seed_of(evctl, "web")
    assert after["user-data"] == "echo hello\n" and after["meta-data"] != before["meta-data"]
    evctl("create", "late", "--disk", "1M")
    evctl("set", "late", "--network-config", tmp_path / "user")
    files = read_seed(evctl.store / "late/seed.iso")
    assert files["network-config"] == "echo hello\n" and files["user-data"] == "#cloud-config\n"


def test_a_linked_clone_leaves_its_original_free(evctl, guest, tools):
    evctl("create", "web", *guest.diskless, "--disk", "10M")
    write_pattern(evctl, "web", 1)
    evctl("clone", "web", "one", "two", "--linked")
    # Nothing was written since: the same image serves again.
    evctl("clone", "web", "three", "--linked")
    assert disk_of(evctl, "one")["base"] == disk_of(evctl, "three")["base"]
    assert disk_of(evctl, "web")["layers"] == ["disk0.qcow2"]
    evctl("start", "web", "--paused")
    evctl("start", "one", "--paused")
    evctl("stop", "--force", "web")
    evctl("stop", "--force", "one")
    write_pattern(evctl, "web", 2)
    write_pattern(evctl, "two", 3)
    evctl("clone", "web", "four", "--linked")
    evctl("clone", "two", "grandchild", "--linked")
    write_pattern(evctl, "two", 4)
    for name, value in (("web", 2), ("one", 1), ("two", 4), ("three", 1), ("four", 2),
                        ("grandchild", 3)):
        read_pattern(evctl, name, value)
    # A name that changes in the middle of the family.
    evctl("rename", "two", "zwei")
    read_pattern(evctl, "grandchild", 3)
    evctl.fails(5, ["linked clone of 'web'", "disk flatten"], "delete", "--force", "web")
    for name in ("one", "zwei", "three", "four"):
        evctl("disk", "flatten", name)
    # What the clone of the clone builds on builds on the original.
    evctl.fails(5, ["linked clone of 'web'"], "delete", "web")
    evctl("disk", "flatten", "grandchild")
    evctl("disk", "flatten", "zwei")
    evctl("delete", "web")
    for name, value in (("one", 1), ("zwei", 4), ("three", 1), ("four", 2), ("grandchild", 3)):
        read_pattern(evctl, name, value)
    assert "base" not in disk_of(evctl, "one")


def check_refused_beside_an_unreadable_clone(evctl, guest, *words):
    """What "web" is asked to do would take away what its clone "one" stands on."""
    evctl("create", "web", *guest.diskless, "--disk", "10M")
    write_pattern(evctl, "web", 1)
    evctl("clone", "web", "one", "--linked")
    description = evctl.store / "one/machine.json"
    text = description.read_text()
    description.write_text("{")
    evctl.fails(1, ["'one' builds on", "evctl info"], *words)
    description.write_text(text)
    read_pattern(evctl, "one", 1)
    return description


def test_flatten_removes_nothing_while_a_machine_cannot_be_read(evctl, guest, tools):
    check_refused_beside_an_unreadable_clone(evctl, guest, "disk", "flatten", "web")


def test_nothing_is_deleted_while_a_machine_cannot_be_read(evctl, guest, tools):
    description = check_refused_beside_an_unreadable_clone(evctl, guest, "delete", "web")
    # The broken one itself may go, and with --force any.
    description.write_text("{")
    evctl("create", "other", *guest.diskless, "--disk", "10M")
    evctl.fails(1, ["'one' builds on"], "delete", "other")
    evctl("delete", "other", "--force")
    evctl("delete", "one", "--force")
    evctl("delete", "web")


def test_flatten_merges_the_layers_that_no_clone_needs(evctl, guest, tools):
    evctl("create", "web", *guest.diskless, "--disk", "10M")
    write_pattern(evctl, "web", 1)
    evctl("clone", "web", "one", "--linked")
    write_pattern(evctl, "web", 2, "1M")
    evctl("clone", "web", "two", "--linked")
    write_pattern(evctl, "web", 3, "2M")
    assert disk_of(evctl, "web")["layers"] == ["disk0.qcow2", "disk0-1.qcow2"]
    evctl("delete", "two")
    evctl("disk", "flatten", "web")
    assert disk_of(evctl, "web")["layers"] == ["disk0.qcow2"]
    assert not (evctl.store / "web/disk0-1.qcow2").exists()
    for value, at in ((1, "0"), (2, "1M"), (3, "2M")):
        read_pattern(evctl, "web", value, at)
    read_pattern(evctl, "one", 1)
    evctl("delete", "one")
    evctl("disk", "flatten", "web")
    assert "building" not in evctl("disk", "flatten", "web").err
    evctl("snapshot", "create", "web", "first")
    evctl("clone", "web", "three", "--linked")
    evctl("snapshot", "create", "three", "own")
    evctl.fails(7, ["has snapshots"], "disk", "flatten", "three")
    evctl.fails(3, ["no disk 'disk9'"], "disk", "flatten", "web", "disk9")


def test_flatten_while_it_runs(evctl, guest, tools):
    evctl("create", "web", *guest.diskless, "--disk", "10M")
    write_pattern(evctl, "web", 1)
    evctl("clone", "web", "one", "--linked")
    evctl("start", "one", "--paused")
    evctl("disk", "flatten", "one")
    evctl("delete", "web")
    evctl("clone", "one", "linked", "--linked")
    evctl("stop", "--force", "one")
    read_pattern(evctl, "one", 1)
    read_pattern(evctl, "linked", 1)


# --- killed half-way ---

@pytest.fixture
def killer(evctl, tmp_path):
    """killer(n, words): evctl is killed after the n-th program that it ran. False if none was."""
    script = tmp_path / "killing-img"
    script.write_text("#!/bin/sh\n\"$REAL_IMG\" \"$@\"; status=$?\n"
                      "echo >>\"$COUNT\"\n"
                      "[ $(wc -l <\"$COUNT\") = \"$KILL_AT\" ] && kill -9 $PPID\nexit $status\n")
    script.chmod(0o755)

    def run(number, *words):
        count = tmp_path / "count"
        count.write_text("")
        environment = dict(evctl.environment, EVISOR_IMG=str(script), COUNT=str(count),
                           REAL_IMG=str(BUILD / "evisor-img"), KILL_AT=str(number))
        done = subprocess.run(evctl.command(*words), env=environment, check=False,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
        assert done.returncode in (0, -signal.SIGKILL), done
        return done.returncode != 0
    return run


def killed_everywhere(killer, make_words):
    """Kills it after each program in turn, until it needs no more of them."""
    number = 0
    while True:
        number += 1
        assert number < 50
        words = make_words(number)
        if not killer(number, *words):
            return number - 1
        yield words


def test_a_killed_create_or_clone_is_given_again(evctl, killer, tmp_path, tools):
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    for words in killed_everywhere(killer, lambda n: (
            "create", f"web{n}", "--image", tmp_path / "image", "--disk", "8M", "--disk", "2M")):
        assert words[1] not in evctl("list", "--names").out.split()
        evctl(*words)
    evctl("create", "from", "--disk", "1M", "--disk", "1M")
    for kind in ((), ("--linked",)):
        for words in killed_everywhere(killer,
                                       lambda n: ("clone", "from", f"to{len(kind)}{n}", *kind)):
            assert words[2] not in evctl("list", "--names").out.split()
            evctl(*words)
            read_pattern(evctl, words[2], 0)
    assert not [path for path in evctl.store.iterdir() if path.name.startswith(".")]


def test_a_killed_rename_is_given_again(evctl, killer, tools):
    evctl("create", "m0", "--disk", "1M")
    write_pattern(evctl, "m0", 5)
    evctl("clone", "m0", "one", "two", "--linked")
    count = 0
    for words in killed_everywhere(killer, lambda n: ("rename", f"m{n - 1}", f"m{n}")):
        evctl(*words)
        count += 1
        for name in ("one", "two"):
            read_pattern(evctl, name, 5)
            evctl.fails(5, [f"linked clone of '{words[2]}'"], "delete", words[2])
    assert count >= 4


def test_a_start_after_a_killed_rename_says_how_to_finish(evctl, guest, killer, tools):
    evctl("create", "web", "--disk", "1M")
    evctl("clone", "web", "one", "--linked")
    assert killer(1, "rename", "web", "other")
    evctl("set", "one", "--kernel", guest.diskless[1])
    evctl.fails(1, ["linked clone", "rename", "again"], "start", "one")
    evctl("rename", "web", "other")
    evctl("start", "one", "--paused")


def test_killed_snapshots(evctl, guest, killer, tools):
    evctl("create", "web", *guest.diskless, "--disk", "1M", "--disk", "1M", "--disk", "1M")
    names = []
    for words in killed_everywhere(killer, lambda n: ("snapshot", "create", "web", f"s{n}")):
        names.append(words[3])
        listed = evctl("snapshot", "list", "web", "--json").json()
        mine = [row for row in listed if row["name"] == words[3]]
        if mine and mine[0]["missing"]:
            evctl.fails(7, ["has no snapshot"], "snapshot", "revert", "web", words[3])
        if mine:
            evctl("snapshot", "delete", "web", words[3])
    assert len(names) >= 5
    for row in evctl("snapshot", "list", "web", "--json").json():
        evctl("snapshot", "delete", "web", row["name"])
    write_pattern(evctl, "web", 1)
    evctl("snapshot", "create", "web", "good")
    stopped = 0
    for words in killed_everywhere(killer, lambda n: ("snapshot", "revert", "web", "good")):
        result = evctl("start", "web", "--paused", check=False)
        if result.status:
            assert result.status == 5 and "'good' was interrupted" in result.err, result
            stopped += 1
        else:
            evctl("stop", "--force", "web")
        evctl("snapshot", "revert", "web", "good")
        evctl("start", "web", "--paused")
        evctl("stop", "--force", "web")
    assert stopped >= 2
    for words in killed_everywhere(killer, lambda n: ("snapshot", "delete", "web", "good")):
        if evctl("snapshot", "list", "web", "--json").json():
            evctl("snapshot", "delete", "web", "good")
        evctl("snapshot", "create", "web", "good")


def test_a_killed_delete_leaves_no_machine(evctl):
    evctl("create", "web", "--disk", "1M")
    left = evctl.store / ".web.gone"
    (evctl.store / "web").rename(left)  # what a kill in between leaves
    assert evctl("list", "--json").json() == []
    evctl("create", "web")
    assert not left.exists()


def test_a_killed_export_is_given_again(evctl, killer, tmp_path, tools):
    evctl("create", "web", "--disk", "1M", "--disk", "1M")
    for words in killed_everywhere(killer, lambda n: ("export", "web", tmp_path / f"{n}.ova")):
        assert not words[2].exists()
        evctl(*words)
        assert [path.name for path in tmp_path.glob(words[2].name + "*")] == [words[2].name]


def test_two_creates_of_one_name(evctl, tmp_path):
    slow = tmp_path / "slow-img"
    slow.write_text(f"#!/bin/sh\n: >{tmp_path}/started\n"
                    f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done\n"
                    f"exec {BUILD}/evisor-img \"$@\"\n")
    slow.chmod(0o755)
    first = subprocess.Popen(evctl.command("create", "web", "--disk", "1M"),
                             env=dict(evctl.environment, EVISOR_IMG=str(slow)),
                             stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    evctl.fails(5, ["is making a machine 'web'"], "create", "web")
    assert evctl("list", "--json").json() == []
    (tmp_path / "go").write_text("")
    assert first.wait(60) == 0
    assert evctl("list", "--names").out == "web\n"
