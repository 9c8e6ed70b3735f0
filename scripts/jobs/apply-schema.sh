#!/bin/sh
# Brings the jobs database to the current schema; safe to repeat, and to run twice at once: apply-schema.sh
exec "$(dirname -- "$0")/../intelliflow" jobs migrate "$@"
