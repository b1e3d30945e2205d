# SPDX-License-Identifier: Apache-2.0
# A repository whose every object name is determined: fixed author, dates and contents.
set -e
export GIT_AUTHOR_NAME=Author GIT_AUTHOR_EMAIL=author@example.org GIT_COMMITTER_NAME=Author GIT_COMMITTER_EMAIL=author@example.org
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null HOME=$PWD LC_ALL=C
git init -q -b main repo
cd repo
for i in 1 2 3 4 5 6 7 8; do
	export GIT_AUTHOR_DATE="2026-01-0${i}T00:00:00Z" GIT_COMMITTER_DATE="2026-01-0${i}T00:00:00Z"
	seq 1 $((i * 100)) >numbers
	mkdir -p dir$i
	seq $i 7 700 >dir$i/more
	git add .
	git commit -q -m "Commit $i"
done
git checkout -q -b side HEAD~3
echo side >side
git add side
git commit -q -m "Side"
git checkout -q main
git merge -q -m "Merge" side
git log --graph --format='%H %T %ad %s' --date=iso
git gc -q
git fsck --full --strict
git log --stat | sha256sum
git diff HEAD~4 | sha256sum
git archive HEAD | sha256sum
git clone -q . ../clone
git -C ../clone rev-parse HEAD
git bundle create -q ../b.bundle main
git bundle verify -q ../b.bundle 2>/dev/null && echo bundle is fine
