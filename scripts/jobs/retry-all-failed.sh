#!/bin/sh
# Lets all failed jobs begin again: retry-all-failed.sh [QUEUE]. At a terminal it shows them, and wants --apply.
exec "$(dirname -- "$0")/../intelliflow" jobs retry-all "$@"
