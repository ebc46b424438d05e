#!/bin/sh
# Make the cluster on the first start, then become the server.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username=postgres --auth-local=trust --auth-host=scram-sha-256 --pwfile=/dev/stdin <<EOF
$POSTGRES_PASSWORD
EOF
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    # Only the local socket while the cluster is being made, so that nobody is told "ready" too early.
    pg_ctl --wait --options="-c listen_addresses='' -c unix_socket_directories=/tmp" start
    psql -h /tmp -U postgres -v ON_ERROR_STOP=1 -v password="$POSTGRES_PASSWORD" <<'EOF'
CREATE ROLE shop LOGIN PASSWORD :'password';
CREATE DATABASE shop OWNER shop;
EOF
    pg_ctl --wait stop
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp
