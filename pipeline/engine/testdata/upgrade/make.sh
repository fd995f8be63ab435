#!/bin/sh
# make.sh COMMIT: runs in the source tree, with the whole history there.
#
# 1. The release of COMMIT leaves a ledger with pending commits in testdata/upgrade/
#    COMMIT, which TestReleaseFinishesCommits of every later release finishes.
# 2. This release leaves one, and that of COMMIT finishes it: the way back.
#
# What a release before 2026-11-26 needs to start an engine is in start_COMMIT.go.txt;
# for a later COMMIT, upgrade_start_test.go fits.
set -eu
commit=$1
cd "$(git rev-parse --show-toplevel)"
here=pipeline/engine/testdata/upgrade
work=$(mktemp -d)
trap 'git worktree remove --force "$work/old" 2>/dev/null || true; rm -rf "$work"' EXIT
git worktree add -q --detach "$work/old" "$commit"
cp pipeline/engine/upgrade_test.go "$work/old/pipeline/engine/"
start=pipeline/engine/upgrade_start_test.go
[ -f "$here/start_$commit.go.txt" ] && start=$here/start_$commit.go.txt
cp "$start" "$work/old/pipeline/engine/upgrade_start_test.go"

rm -rf "$here/$commit"
mkdir -p "$here/$commit" "$work/new"
out=$PWD/$here/$commit
(cd "$work/old" && RELEASE_OUT=$out go test -count=1 -run TestReleaseLeavesPendingCommits ./pipeline/engine)
rm -f "$out/ledger/lock"
RELEASE_OUT=$work/new go test -count=1 -run TestReleaseLeavesPendingCommits ./pipeline/engine
(cd "$work/old" && RELEASE_IN=$work/new go test -count=1 -run TestReleaseFinishesCommits ./pipeline/engine)
