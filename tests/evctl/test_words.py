# SPDX-License-Identifier: MIT
"""What evctl answers to wrong words, and that every command answers in JSON."""
import json
import socket

import pytest


@pytest.mark.parametrize("status, words", [
    (1, "create taken"), (2, "create a/b"), (2, "create x --memory 0"), (2, "create x --memory 99999G"),
    (2, "create x --memory abc"), (2, "create x --cpus 1000"), (2, "create x --cpus"),
    (2, "create x --disk 10Q"), (1, "create x --disk /none.qcow2"), (1, "create x --iso /"),
    (1, "create x --iso /none.iso"), (1, "create x --image /dev/null"), (1, "create x --kernel /"),
    (1, "create x --bios /none"), (3, "create x --net foo"), (2, "create x --net user,foo=1"),
    (2, "create x --forward 22"), (2, "create x --forward 99999:22"),
    (2, "create x --forward 2222:22:22:22"), (2, "create x --net none --forward 2222:22"),
    (2, "create x --os dbian"), (2, "create x --accel kv"), (2, "create x --accel kvm:bogus"),
    (2, "create x --boot n"), (1, "create x --user-data /none"), (2, "create x extra"),
    (3, "start take"), (2, "start taken --timeout 0"), (4, "stop taken"), (4, "console taken"),
    (4, "ip taken"), (4, "ssh taken"), (2, "set taken"), (3, "set taken --net net5=user"),
    (2, "set taken --link net0=maybe"), (2, "attach taken floppy x"), (2, "attach taken disk none"),
    (3, "detach taken disk9"), (2, "disk resize taken disk0 x"), (3, "disk resize taken disk9 1G"),
    (1, "disk create /none/x 1G"), (2, "forward add taken 80"), (3, "forward del taken 80"),
    (2, "snapshot create taken 1"), (3, "snapshot revert taken none"), (1, "clone taken taken"),
    (3, "clone none x"), (2, "export taken x.zip"), (1, "export taken /none/x.ova"),
    (1, "import /none.ova"), (2, "import /etc/passwd"), (2, "net create lab --mode foo"),
    (3, "net delete lab"), (2, "logs taken --lines -5"), (1, "up /none"), (2, "help bogus"),
    (2, "completion fish"), (2, "--bogus"), (2, "list --bogus"), (3, "delete --force none")])
def test_wrong_words_get_one_line_and_change_nothing(evctl, status, words):
    evctl("create", "taken", "--disk", "1M")
    before = (evctl.store / "taken/machine.json").read_text()
    evctl.fails(status, [], *words.split())
    assert evctl("list", "--names").out == "taken\n"
    assert (evctl.store / "taken/machine.json").read_text() == before
    assert [path.name for path in evctl.store.iterdir() if path.name != ".networks"] == ["taken"]


def test_every_command_answers_in_json(evctl, guest, tmp_path):
    (tmp_path / "evctl.conf").write_text(f"name = up\nkernel = {guest.diskless[1]}\n")
    walk = f"""create web --disk 1M --kernel {guest.diskless[1]}
        clone web two
        clone web three --linked
        rename two four
        list
        list --names
        list --os-types
        info web
        start web --paused
        pause web
        resume web
        reset web
        logs web
        set web --cpus 1
        attach web disk 1M
        detach web disk1
        disk create {tmp_path}/x.qcow2 1M
        disk resize web disk0 2M
        disk info web
        disk flatten three
        forward list web
        qmp web query-status
        stats web
        top
        stop --force web
        snapshot create four first
        snapshot list four
        snapshot revert four first
        snapshot delete four first
        export web {tmp_path}/web.ova
        import {tmp_path}/web.ova five
        net create lab
        net list
        net start --all
        net stop --all
        net delete lab
        up {tmp_path}
        doctor
        completion bash
        completion zsh
        help
        help disk
        help create
        delete --force up"""
    seen = set()
    for line in walk.split("\n"):
        result = evctl(*line.split(), "--json", check="doctor" not in line)
        assert json.loads(result.out) is not None, line
        seen.add(" ".join(line.split()[:2]))
    answered = {row["command"] for row in evctl("help", "--json").json()}
    left = {name for name in answered if not any((line + " ").startswith(name + " ") for line in seen)}
    # These want a guest that has an address or a forwarded port, or root; or are for people only.
    assert left == {"console", "ip", "ssh", "forward add", "forward del"}
    assert evctl("console", "web", "--json", check=False).json()["error"]["status"] == 2


def test_up_that_does_not_start_is_made_anew(evctl, guest, tmp_path):
    file = tmp_path / "evctl.conf"
    file.write_text("name = up\nmemory = 64M\n")
    result = evctl("up", file, check=False)
    assert result.status == 1 and "nothing to boot" in result.err and "taken back" in result.err
    assert evctl("list", "--names").out == ""
    file.write_text(file.read_text() + "disk = 1M\n")
    evctl("up", file)
    assert len(evctl("info", "up", "--json").json()["disks"]) == 1
    # What was there before stays, whether it starts or not.
    evctl("stop", "--force", "up")
    file.write_text(f"name = up\nkernel = {file}\n")
    evctl("up", file, check=False)
    assert evctl("list", "--names").out == "up\n"


def test_up_again_follows_the_file(evctl, guest, tmp_path):
    file = tmp_path / "evctl.conf"
    file.write_text(f"name = up\nkernel = {guest.diskless[1]}\ninitrd = {guest.diskless[3]}\n"
                    "memory = 128M\n")
    evctl("up", tmp_path)
    evctl("stop", "--force", "up")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    evctl("forward", "add", "up", f"udp:{port}:53")
    file.write_text(file.read_text() + f"cpus = 2\nforward = {port}:80\n")
    assert "follows its changed description" in evctl("up", file).err
    info = evctl("info", "up", "--json").json()
    rules = [f"udp:127.0.0.1:{port}-:53", f"tcp:127.0.0.1:{port}-:80"]
    assert info["cpus"] == 2 and info["nics"][0]["forwards"] == rules
    assert "running already" in evctl("up", file).err
    assert evctl("info", "up", "--json").json()["nics"][0]["forwards"] == rules
    # One end at the host leads to one port of the guest: what the file says last.
    file.write_text(file.read_text().replace(f"{port}:80", f"{port}:8080"))
    evctl("up", file)
    rules[1] += "80"
    assert evctl("info", "up", "--json").json()["nics"][0]["forwards"] == rules
    file.write_text("forward = 80\n")
    evctl.fails(2, ["no rule of forwarding"], "up", tmp_path)
