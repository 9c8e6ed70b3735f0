#!/bin/sh
# One job with its attempts and their errors: job-status.sh ID
exec "$(dirname -- "$0")/../intelliflow" jobs show "$@"
