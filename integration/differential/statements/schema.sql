-- Three schemas in one database. Rows are made on the whole database, and put on the shards through Keyway.
CREATE TABLE countries (code char(2) PRIMARY KEY, name text NOT NULL, population bigint, area float8);
CREATE TABLE users (user_id bigint PRIMARY KEY, name text NOT NULL, country char(2), age int, score numeric(8,2), active boolean, joined date, rating real);
CREATE TABLE orders (user_id bigint NOT NULL, order_id int NOT NULL, amount numeric(10,2), placed_at timestamp, status varchar(12), note text, PRIMARY KEY (user_id, order_id));
CREATE TABLE items (user_id bigint NOT NULL, order_id int NOT NULL, line smallint NOT NULL, sku text, qty int, price numeric(10,3), PRIMARY KEY (user_id, order_id, line));
CREATE TABLE events (occurred_at timestamptz NOT NULL, user_id bigint, kind text, weight float8, span interval, payload bytea);
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE pgbench_tellers (tid int NOT NULL, bid int NOT NULL, tbalance int, filler char(84), PRIMARY KEY (bid, tid));
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
CREATE TABLE plans (plan text PRIMARY KEY, price numeric, seats int);
CREATE TABLE tenants (tenant_id uuid PRIMARY KEY, name text NOT NULL, plan text, created timestamptz);
CREATE TABLE projects (tenant_id uuid NOT NULL, project_id int NOT NULL, title text, budget bigint, starts date, PRIMARY KEY (tenant_id, project_id));
CREATE TABLE tasks (tenant_id uuid NOT NULL, project_id int NOT NULL, task_id int NOT NULL, title text, state text, due date, effort interval, done boolean, hours numeric, PRIMARY KEY (tenant_id, project_id, task_id));
CREATE TABLE t (id bigint PRIMARY KEY, v int, s text);
