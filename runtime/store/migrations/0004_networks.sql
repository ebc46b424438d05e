-- Networks, who is on them under which address and names, and the host's ports that lead to them.

CREATE TABLE networks (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    driver     TEXT NOT NULL,
    device     TEXT NOT NULL UNIQUE,          -- the bridge
    subnet     TEXT NOT NULL UNIQUE,          -- "172.30.0.0/20"
    gateway    INTEGER NOT NULL,
    ip_range   TEXT NOT NULL DEFAULT '',      -- where addresses are taken from, '' is all of the subnet
    automatic  INTEGER NOT NULL,              -- the subnet was chosen by us: it may be chosen again
    internal   INTEGER NOT NULL DEFAULT 0,
    mtu        INTEGER NOT NULL,
    icc        INTEGER NOT NULL DEFAULT 1,    -- containers of the network may talk to each other
    masquerade INTEGER NOT NULL DEFAULT 1,
    host_ip    TEXT NOT NULL DEFAULT '',      -- published ports that name no address are bound here
    labels     TEXT NOT NULL DEFAULT '{}',
    reserved   TEXT NOT NULL DEFAULT '{}',    -- auxiliary addresses by name, never given away
    cursor     INTEGER NOT NULL DEFAULT 0,    -- the last address given away: the next search starts behind it
    created    REAL NOT NULL
) STRICT;

-- One interface of one running container. `owner` is the process that keeps it: first the one that reserved it, then
-- the container's init.
CREATE TABLE endpoints (
    id             TEXT PRIMARY KEY,
    network        TEXT NOT NULL REFERENCES networks (id),
    container      TEXT NOT NULL,
    container_name TEXT NOT NULL,
    position       INTEGER NOT NULL,          -- n of the interface ethN
    address        INTEGER NOT NULL,
    mac            TEXT NOT NULL,
    device         TEXT NOT NULL UNIQUE,      -- the host's end
    default_route  INTEGER NOT NULL,
    owner          TEXT NOT NULL,
    UNIQUE (network, address),
    UNIQUE (network, container),
    UNIQUE (container, position)
) STRICT;

CREATE TABLE endpoint_names (
    network  TEXT NOT NULL,
    name     TEXT NOT NULL,                   -- lower case
    endpoint TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    PRIMARY KEY (network, name, endpoint)
) STRICT, WITHOUT ROWID;

CREATE INDEX endpoint_names_endpoint ON endpoint_names (endpoint);

CREATE TABLE ports (
    protocol       TEXT NOT NULL,
    host_ip        TEXT NOT NULL,
    host_port      INTEGER NOT NULL,
    endpoint       TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    container      TEXT NOT NULL,
    address        TEXT NOT NULL,
    container_port INTEGER NOT NULL,
    PRIMARY KEY (protocol, host_ip, host_port)
) STRICT, WITHOUT ROWID;

CREATE INDEX ports_container ON ports (container);
CREATE INDEX ports_endpoint ON ports (endpoint);

-- The state of the host's packet filter when we last found our rules complete; one row per network namespace.
CREATE TABLE firewall_marks (
    host TEXT PRIMARY KEY,                    -- boot and namespace
    mark TEXT NOT NULL
) STRICT, WITHOUT ROWID;
