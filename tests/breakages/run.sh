#!/usr/bin/env bash
# Checks the checks: applies each *.patch of this directory to a copy of the sources and expects
# the check that the patch names to fail. `run.sh [NAME...]` runs only those.
#
# A patch begins with lines of words: what it breaks, and
#   Check: <arguments of cargo test>
# and, where the check is to run less than usual or without servers,
#   Env: NAME=value
# The check must pass on the sources as they are, and fail with the patch.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/breakages
tree=$work/tree
export CARGO_TARGET_DIR=$work/target CARGO_PROFILE_DEV_DEBUG=0
unset CHASKI_TEST_BINARY # tests that start processes build them from the copy

say() { echo "breakages: $*" >&2; }

# The copy is what is committed and changed, without what is ignored. Files that are the same keep
# their time, so that only what a patch touches is built again.
fresh_copy() {
  local file
  mkdir -p "$tree"
  (cd "$root" && git ls-files -z --cached --others --exclude-standard) | while IFS= read -r -d '' file; do
    [[ -f $root/$file ]] || continue
    cmp -s "$root/$file" "$tree/$file" && continue
    mkdir -p "$tree/$(dirname "$file")"
    cp "$root/$file" "$tree/$file"
  done
}

# Runs a check in the patch's environment; its output goes to a file.
check() { # ARGUMENTS...
  (cd "$tree" && env "${variables[@]}" cargo test --locked "$@") >"$work/check.log" 2>&1
}

ran_a_test() { grep -q '^test .* ok$' "$work/check.log"; }

names=("$@")
((${#names[@]})) || mapfile -t names < <(cd "$here" && ls -- *.patch | sed 's/\.patch$//')
((${#names[@]})) || { say "there is no patch"; exit 1; }
failed=0
fresh_copy
for name in "${names[@]}"; do
  patch=$here/$name.patch
  read -r -a arguments < <(sed -n 's/^Check: //p' "$patch") || true
  mapfile -t variables < <(sed -n 's/^Env: //p' "$patch")
  ((${#arguments[@]})) || { say "$name: no line 'Check: …'"; failed=1; continue; }
  if ! check "${arguments[@]}" || ! ran_a_test; then
    say "$name: the check does not pass on the sources as they are: ${arguments[*]}"
    tail -n 20 "$work/check.log" >&2
    failed=1
    continue
  fi
  # Not as a part of the repository around the copy.
  if ! GIT_CEILING_DIRECTORIES=$work git -C "$tree" apply "$patch"; then
    say "$name: the patch does not apply any more: make it anew"
    failed=1
  elif check "${arguments[@]}"; then
    say "$name: BROKEN BUT NOT SEEN by ${arguments[*]}"
    failed=1
  elif ! grep -q '^test .* FAILED$' "$work/check.log"; then
    say "$name: the broken code did not build, or its test did not run"
    tail -n 20 "$work/check.log" >&2
    failed=1
  else
    say "$name: seen"
  fi
  fresh_copy
done
exit "$failed"
