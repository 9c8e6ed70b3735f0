#!/bin/sh
# How many jobs of each queue are where: queue-stats.sh [--by task] [-o json]
exec "$(dirname -- "$0")/../intelliflow" jobs stats "$@"
