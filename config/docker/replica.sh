#!/bin/bash
# The entrypoint of a replica: on an empty data directory it copies the primary $PRIMARY and follows
# it; afterwards it starts as the image does.
set -euo pipefail

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chown postgres:postgres "$PGDATA"
    chmod 0700 "$PGDATA"
    # -R writes standby.signal and primary_conninfo, the password included.
    PGPASSWORD="$REPLICATOR_PASSWORD" gosu postgres pg_basebackup \
        --host "$PRIMARY" --username replicator --pgdata "$PGDATA" \
        --wal-method stream --slot replica --write-recovery-conf --checkpoint fast
fi

exec docker-entrypoint.sh postgres
