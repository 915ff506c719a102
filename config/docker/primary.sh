#!/bin/bash
# Runs once, in /docker-entrypoint-initdb.d of a new primary: the roles, and a slot that keeps the log
# for the replica until it has read it.
set -euo pipefail

psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v app="$APP_PASSWORD" -v replicator="$REPLICATOR_PASSWORD" <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'app';
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator';
SELECT pg_create_physical_replication_slot('replica');
GRANT CREATE ON SCHEMA public TO app;
SQL

echo "host replication replicator all scram-sha-256" >> "$PGDATA/pg_hba.conf"
