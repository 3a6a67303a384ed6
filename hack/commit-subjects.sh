#!/usr/bin/env bash
# Checks the subjects of commits: commit-subjects.sh RANGE, for example origin/main..HEAD.
# A subject is 'area: imperative', in lower case after the colon, of at most 72 characters. A merge has no rule.
set -euo pipefail

subjects=$(git log --no-merges --format='%h %s' "$1")
wrong=$(awk '{ subject = substr($0, length($1) + 2) }
	length(subject) > 72 || subject !~ /^[a-z0-9][a-z0-9 ,\/_.-]*: [a-z]/' <<<"$subjects")
if [ -n "$subjects" ] && [ -n "$wrong" ]; then
	printf '%s\n' "$wrong" >&2
	echo "commit subjects: not 'area: imperative' of at most 72 characters; reword with 'git rebase --interactive'" >&2
	exit 1
fi
