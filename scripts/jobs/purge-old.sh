#!/bin/sh
# Deletes what ended so long ago: purge-old.sh DAYS [--include-failed]. At a terminal it counts, and wants --apply.
exec "$(dirname -- "$0")/../intelliflow" jobs purge "$@"
