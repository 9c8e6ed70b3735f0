#!/bin/sh
# The latest failures: list-failed.sh [--queue QUEUE] [--task TASK] [--error TEXT] [--since 2h] [--limit N]
exec "$(dirname -- "$0")/../intelliflow" jobs failed "$@"
