-- The sample shop, the same on every shard; config/docker/keyway.toml says which rows belong where.
SET ROLE app;

CREATE TABLE users (
    user_id bigint PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE orders (
    user_id bigint NOT NULL REFERENCES users,
    order_id bigint NOT NULL,
    amount_cents bigint NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, order_id)
);

CREATE TABLE events (
    happened_at timestamptz NOT NULL,
    user_id bigint,
    kind text NOT NULL
);
CREATE INDEX ON events (happened_at);

CREATE TABLE countries (
    code text PRIMARY KEY,
    name text NOT NULL
);
INSERT INTO countries VALUES ('DE', 'Germany'), ('FR', 'France'), ('JP', 'Japan');
