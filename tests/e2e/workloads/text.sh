# SPDX-License-Identifier: Apache-2.0
# 50 MB through sort, gzip, xz and sha256sum.
set -e
export LC_ALL=C
sha256sum <data.large
sort data.large | sha256sum
sort -n -k 2 -t ' ' data.large | sha256sum
gzip -n -1 <data.large >z.gz
sha256sum <z.gz
gzip -dc z.gz | cmp - data.large
rm z.gz
xz -0 -T1 <data.large >z.xz
sha256sum <z.xz
xz -dc z.xz | cmp - data.large
sha512sum <data.large
wc <data.large
