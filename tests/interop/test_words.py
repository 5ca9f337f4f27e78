# SPDX-License-Identifier: MIT
"""The same command lines, given to both tools: the same output, errors, exit status."""
import pytest

from conftest import assert_same

COMMANDS = """
map -f qcow2 base.q
map -f qcow2 --output=json base.q
map top.q
map --output=json top.q
map -f raw s.raw
map -f raw --output=json s.raw
map --output=json ext.q
map ext.q
map --output=json c.q
map --start-offset=100k --max-length=1M --output=json top.q
map --start-offset=100k --max-length=1M top.q
map --start-offset=10M top.q
map
map --output=xml base.q
compare s.raw c.q
compare -f raw s.raw s2.raw
compare s.raw s3.raw
compare s3.raw s.raw
compare s.raw s4.raw
compare s4.raw s.raw
compare -s s.raw s3.raw
compare s2.raw s3.raw
compare -s s.raw c.q
compare s.raw
compare -q s.raw s2.raw
compare -s base.q base2.q
resize base2.q 8M
resize base2.q +1M
resize base2.q -- -2M
resize --shrink base2.q -2M
resize base2.q
resize -f raw s2.raw 1000
resize -f raw --shrink s2.raw 1000
resize -q -f raw s2.raw +1M
resize base2.q 0
resize base2.q foo
resize base2.q 7M --preallocation=falloc
resize --preallocation=foo base2.q 9M
measure -O qcow2 --size 1G
measure --size 1G
measure -O qcow2 s.raw
measure --output=json -O qcow2 s.raw
measure -O raw c.q
measure -O qcow2 -o cluster_size=512 --size 10M
measure -O qcow2 top.q
measure
measure --size 1G s.raw
measure -O qcow2 -o preallocation=full --size 1G
measure -O qcow2 -o extended_l2=on --size 1G
measure -O qcow2 -o refcount_bits=64,cluster_size=4k --size 100G
measure -O qcow2 base2.q
dd if=s.raw
dd of=x
dd if=s.raw of=o.raw foo=1
dd if=s.raw of=o.raw bs=0
dd if=s.raw of=o2.raw bs=512 skip=10000
dd -O qcow2 if=c.q of=o.q bs=1M
bench -c 10 -w --flush-interval=5 -f qcow2 base.q
check s.raw
check -r foo base.q
check -f qcow2 s.raw
check base.q
check --output=json top.q
info
info s.raw s2.raw
info --output=xml s.raw
info -f qcow2 s.raw
info -f foo s.raw
snapshot
snapshot -l base.q
snapshot -d none base.q
snapshot -a none base.q
snapshot -l -c a base.q
snapshot -l snap.q
rebase top.q
rebase -b base2.q top.q
rebase -u -b nonexistent -F foo top.q
commit base.q
commit -f raw s.raw
commit -b foo top.q
commit -q top.q
commit top.q
amend base.q
amend -o foo=1 base.q
amend -o compat=0.9 base.q
amend -o refcount_bits=7 base.q
amend -o compat=0.10,refcount_bits=8 base.q
amend -o compat=0.10,lazy_refcounts=on base.q
amend -o compat=1.1,lazy_refcounts=on,refcount_bits=8 base.q
amend -o size=8M base.q
amend -o cluster_size=4k base.q
amend -f raw -o size=1M s.raw
create
create -z
create -f
nonsense
""".strip().split("\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_same_words(images, pair, command):
    assert_same(images, pair, command)
