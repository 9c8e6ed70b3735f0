#!/bin/sh
# Lets a job begin again that is over, or whose worker has vanished: retry-job.sh ID
exec "$(dirname -- "$0")/../intelliflow" jobs retry "$@"
