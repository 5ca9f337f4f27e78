# SPDX-License-Identifier: MIT
"""Every option of every command that qemu-img 7.2 has, well used and misused, by both tools."""
import re

import pytest

from conftest import assert_same, evisor_img, qemu_img, run

COMMANDS = """
amend --image-opts -o lazy_refcounts=on driver=qcow2,file.filename=base.q
amend --image-opts -f qcow2 -o lazy_refcounts=on driver=qcow2,file.filename=base.q
amend --force -q -f qcow2 -o size=5M base.q
amend -t none -o size=5M base.q
amend -t foo -o size=5M base.q
bench -c foo base.q
bench -d foo base.q
bench -d 0x10000000000 base.q
bench -i foo base.q
bench -t foo base.q
bench -o foo base.q
bench -s foo base.q
bench -S foo base.q
bench --pattern=256 base.q
bench --flush-interval=foo base.q
bench --flush-interval=5 base.q
bench -w --flush-interval=5 -d 8 base.q
bench --image-opts -f qcow2 file.filename=base.q
bench
check -q base.q
check -U base.q
check --force-share base.q
check --forma qcow2 base.q
check --repair all base.q
check -r leaks base.q
check -T none base.q
check -T foo base.q
check --output json base.q
check --output=xml base.q
check --image-opts driver=qcow2,file.filename=base.q
check --image-opts -f qcow2 driver=qcow2,file.filename=base.q
check --image-opts driver=raw,file.filename=base.q
check --object secret,id=s,data=x base.q
check --object secret,data=x base.q
commit -t foo top.q
commit -t unsafe -q top.q
commit -r foo top.q
commit -r 1G -d top.q
commit -b base.q top.q
commit --image-opts driver=qcow2,file.filename=top.q
commit --image-opts -f qcow2 driver=qcow2,file.filename=top.q
compare -T foo s.raw c.q
compare -T none -U s.raw c.q
compare -f raw -F raw s.raw c.q
compare -F foo s.raw c.q
compare --image-opts file.filename=s.raw file.filename=c.q
compare --image-opts -f raw file.filename=s.raw file.filename=c.q
compare -U --image-opts file.filename=s.raw,force-share=on file.filename=c.q
compare s.raw s.raw s.raw
convert -l nope snap.q out
convert -l snapshot.id=9 snap.q out
convert -l snapshot.id=1,snapshot.name=nope snap.q out
convert -l snapshot.foo=1 snap.q out
convert -l snapshot.name=first snap.q out
convert -l first snap.q out
convert -l 1 -O qcow2 snap.q out.q
convert -l 1 s.raw out
convert -l 1 snap.q snap.q out
convert -C -c s.raw out
convert -C -S 4k s.raw out
convert -C --salvage s.raw out
convert -C -f raw s.raw out
convert --salvage s.raw out
convert --bitmaps s.raw out
convert --bitmaps -O qcow2 base.q s.raw out.q
convert --skip-broken-bitmaps base.q out
convert -r foo s.raw out
convert -r 0 s.raw out
convert -r 1G s.raw out
convert -m 0 s.raw out
convert -m 17 s.raw out
convert -m 16 -W s.raw out
convert -S 513 s.raw out
convert -S foo s.raw out
convert -S 0 -O qcow2 s.raw out.q
convert -O foo s.raw out
convert -f foo s.raw out
convert -T foo s.raw out
convert -t none -T none s.raw out
convert -t writethrough -T directsync s.raw out
convert -n -o size=1M s.raw out
convert -n s.raw s2.raw
convert -n -O qcow2 s.raw base2.q
convert -n s3.raw s.raw
convert -n s.raw nonexistent
convert --target-is-zero s.raw out
convert -B base.q -O raw s.raw out
convert -B base.q -F qcow2 -O raw s.raw out
convert -B base.q -O qcow2 s.raw out.q
convert -B base.q -F qcow2 -O qcow2 top.q out.q
convert -o backing_file=base.q,backing_fmt=qcow2 -O qcow2 top.q out.q
convert -B base.q -F qcow2 -O qcow2 top.q top.q out.q
convert -c -O raw s.raw out
convert -c -O qcow2 -o preallocation=metadata s.raw out.q
convert --target-image-opts s.raw out
convert --target-image-opts -n s.raw driver=raw,file.filename=s2.raw
convert --target-image-opts -n s.raw driver=qcow2,file.filename=base2.q
convert --image-opts driver=raw,file.filename=s.raw out
convert --image-opts -f raw driver=raw,file.filename=s.raw out
convert 'json:{"driver":"raw","file.filename":"s.raw"}' out
convert "json:{'driver':'raw','file':{'driver':'file','filename':'s.raw'}}" out
convert s.raw image:out
convert s.raw file:out
convert -U s.raw out
convert s.raw s2.raw out
convert -q -p s.raw out
create -f qcow2 image:top 1M
create -f qcow2 file:top 1M
create -f qcow2 file:image:top 1M
create --object secret,id=s,data=x -f qcow2 out.q 1M
create -q -f qcow2 out.q 1M
create -u -f qcow2 -b nonexistent -F raw out.q 1M
create -u -f qcow2 -b nonexistent out.q 1M
create -b base.q -F raw -f raw out 1M
create -f qcow2 -o foo=1 out.q 1M
create -f qcow2 -o refcount_bits=0 out.q 1M
create -f qcow2 -o refcount_bits=-1 out.q 1M
dd --image-opts if=driver=qcow2,file.filename=base.q of=out bs=1M
dd -U if=base.q of=out
dd -O foo if=base.q of=out
dd -f foo if=base.q of=out
dd if=base.q of=out bs=64k count=3 skip=1
dd if=base.q of=out bs=1M skip=100
dd if=base.q of=out count=0
dd if=base.q of=out count=foo
dd if=base.q of=out skip=-1
info --image-opts base.q
info --image-opts filename=base.q
info --image-opts driver=qcow2,foo=bar,file.filename=base.q
info --image-opts driver=qcow2
info -U --image-opts driver=qcow2,file.filename=base.q,force-share=off
info image:top
info file:c.q
map --image-opts file.filename=top.q
map -U top.q
map --output json --start-offset 64k --max-length 64k top.q
map -s foo top.q
map -l foo top.q
measure -l nope -O qcow2 snap.q
measure -l first -O qcow2 snap.q
measure -l 2 --output=json -O qcow2 snap.q
measure -l first --size 1M
measure -f qcow2 --size 1M
measure --image-opts --size 1M
measure --image-opts -O qcow2 driver=qcow2,file.filename=top.q
measure -O foo --size 1M
measure --size foo
measure -U -O qcow2 top.q
rebase -T foo -u -b '' top.q
rebase -t foo -u -b '' top.q
rebase -q -p -b base2.q -F qcow2 top.q
rebase -t unsafe -T none -b '' top.q
rebase --image-opts -u -b '' driver=qcow2,file.filename=top.q
rebase -u top.q
resize --image-opts driver=qcow2,file.filename=base.q +1M
resize --preallocation=metadata base.q 5M
resize --preallocation=falloc base.q 5M
resize --preallocation=full base.q 5M
resize --preallocation=metadata -f raw s.raw 5M
resize --preallocation=full -f raw s.raw 5M
resize --preallocation=off base.q 5M
resize --preallocation=full --shrink base.q 2M
snapshot --image-opts -c foo driver=qcow2,file.filename=base.q,read-only=on
snapshot --image-opts -c foo driver=qcow2,file.filename=base.q
snapshot -U -l base.q
snapshot -q -c foo base.q
snapshot -d 1 snap.q
snapshot -a first snap.q
""".strip().split("\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_same_options(images, pair, command):
    assert_same(images, pair, command)


def their_options():
    """(command, option) of the usage lines that qemu-img prints."""
    usage = re.findall(r"^  (\w+) (.*)$", qemu_img("--help").out.split("Command syntax:")[1]
                       .split("\n\n")[0], flags=re.MULTILINE)
    return [(command, option) for command, line in usage
            for option in sorted(set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", line)))]


@pytest.mark.parametrize("command,option", their_options(), ids=" ".join)
def test_no_option_is_unknown(tmp_path, command, option):
    """Our help names it, and what is wrong with a line that has nothing but it is not the option."""
    shown = evisor_img(command, "--help").out
    assert option in shown or option == "--object", shown
    for words in ([option], [option, "x"]):
        result = evisor_img(command, *words, cwd=tmp_path)
        assert "unrecognized option" not in result.err, result


def test_image_opts_quote_commas(images, tmp_path):
    (tmp_path / "a,b").write_bytes((images / "base.q").read_bytes())
    result = evisor_img("info", "--image-opts", "driver=qcow2,file.filename=a,,b", cwd=tmp_path)
    assert result.status == 0 and "image: a,b" in result.out


def test_salvage(tmp_path):
    """Of a damaged image, what can be read is saved; the rest is zeroes, and said to be."""
    image, out = tmp_path / "x", tmp_path / "out"
    (tmp_path / "raw").write_bytes(b"A" * (1 << 20))
    assert qemu_img("convert", "-c", "-O", "qcow2", tmp_path / "raw", image).status == 0
    spans = evisor_img("map", "--output=json", image).json()
    assert spans[0]["data"]
    data = bytearray(image.read_bytes())
    at = (data.rindex(b"\xec") if b"\xec" in data[-4096:] else len(data.rstrip(b"\0"))) - 20
    data[at:at + 16] = b"\xff" * 16
    image.write_bytes(data)
    assert evisor_img("convert", image, out).status == 1 and not out.exists()
    result = evisor_img("convert", "--salvage", image, out)
    assert result.status == 0 and "warning: error while reading offset" in result.err
    contents = out.read_bytes()
    assert set(contents) == {0, ord("A")} and contents.count(0) % 512 == 0
    # Ours saves the sectors of a cluster that come before the damage; theirs loses all of it.
    assert run("qemu-img", "convert", "--salvage", image, tmp_path / "theirs").status == 0
    theirs = (tmp_path / "theirs").read_bytes()
    assert all(mine == other for mine, other in zip(contents, theirs) if other)
