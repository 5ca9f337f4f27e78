#!/bin/sh
# SPDX-License-Identifier: MIT
# Deterministic work in a Debian userland; each line of output is a name and what came out.
set -eu
export LC_ALL=C
folder=$(cd "$(dirname "$0")" && pwd)
cd /tmp

digest() {
    printf '%s ' "$1"
    sha256sum | cut -d ' ' -f 1
}

seq 1 150000 >numbers
digest seq <numbers
for tool in md5sum sha1sum sha512sum b2sum cksum; do
    printf '%s ' $tool
    $tool <numbers | cut -d ' ' -f 1
done

# A generator of its own: rand() is seeded and made differently everywhere.
awk 'BEGIN { x = 1
    for (i = 0; i < 30000; i++) {
        x = x * 16807 % 2147483647
        printf "%d %.17g %s\n", x, x / 2147483647, substr("abcdefghijklmnopqrstuvwxyz", x % 20, 6)
    }
}' >lines
digest awk <lines
sort lines | digest sort
sort -n --parallel=4 -k 2 lines | digest sort-by-value
sort -t ' ' -k 3 lines | uniq -c -f 2 | digest uniq
awk '{ s += sin($2) * exp($2) / sqrt(1 + $2); p = atan2(p, $2) + log(1 + $2); n += $1 }
    END { printf "awk-floats %.17g %.17g %.17g\n", s, p, n }' lines
sed -E 's/([a-z])([a-z]+)/\2\1/; s/0\.([0-9]{3})/\1/' lines | grep -E '^[0-9]*7 .*[aeiou]{1}' | digest sed-grep
perl -ne '@f = split; $h{$f[2]} += $f[1]; END { printf "%s %.15g\n", $_, $h{$_} for sort keys %h }' lines |
    digest perl
gzip -9n <lines | digest gzip
gzip -9n <lines | gunzip | cmp - lines
tar -c --sort=name --mtime=@0 --owner=0 --group=0 -C /usr/lib/python3.11 json email | digest tar

# As many at once as there may be CPUs, so that they migrate and share.
for part in 1 2 3 4; do
    (for turn in 1 2 3; do cat numbers lines; done | tail -c +$part | sha256sum >part$part) &
done
wait
cat part1 part2 part3 part4 | digest parallel

python3 "$folder/work.py"

gcc -O2 -Wall -o floats "$folder/floats.c" -lm
digest gcc <floats
./floats
gcc -O0 -mfpmath=387 -o floats87 "$folder/floats.c" -lm
digest gcc-x87 <floats87
./floats87 | digest floats-x87

printf 'busybox-bits '
python3 -c 'print({1: 32, 2: 64}[open("/bin/busybox", "rb").read(5)[4]])'
busybox sha256sum <lines | digest busybox-sha256
busybox md5sum <lines | digest busybox-md5
echo 'scale=60; sqrt(2); 4*a(1); e(1); 3^400 % 10^9' | busybox bc -l | digest busybox-bc
busybox awk '{ s += $2 * $2; t = t / 3 + $1 / (1 + $2); n = (n * 31 + $1) % 1000003 }
    END { printf "busybox-awk %.17g %.17g %d\n", s, t, n }' lines
busybox sh -c 'x=1; i=0; while [ $i -lt 5000 ]; do x=$(((x * 6364136223846793005 + i) ^ (x >> 7))); i=$((i + 1)); done
    echo "busybox-sh $x"'
busybox bzip2 <lines | digest busybox-bzip2
sync
