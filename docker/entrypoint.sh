#!/bin/sh
# Started as root: go on as the user `dagster`, in the group of the Docker socket, which has another number on each machine.
set -eu
if [ "$(id -u)" -eq 0 ]; then
    group=$(stat --dereference --format=%g /var/run/docker.sock 2>/dev/null || id -g dagster)
    exec setpriv --reuid=dagster --regid=dagster --groups="$group" --no-new-privs -- "$@"
fi
exec "$@"
