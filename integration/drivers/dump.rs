//! pg_dump and pg_restore through a database of one shard: what is dumped through Keyway is what the server
//! gives directly, byte for byte, and what is restored through it is dumped the same again.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use libtest_mimic::Trial;
use tokio::process::Command;

use super::run;
use crate::harness::{APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared};

const USER: &str = "dumper";
const FROM: &str = "dump_from";
const TO: [&str; 2] = ["dump_to_text", "dump_to_custom"];

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![harness.test("drivers::pg_dump_and_pg_restore", dumps_and_restores)]
}

/// Something of each kind that a dump has a section for.
const SCHEMA: &str = "CREATE SCHEMA stock; CREATE SEQUENCE stock.numbers START 100 INCREMENT 7; \
    CREATE TYPE stock.mood AS ENUM ('good', 'bad'); CREATE DOMAIN stock.small AS int CHECK (VALUE < 1000); \
    CREATE TYPE stock.pair AS (a int, b text); \
    CREATE FUNCTION stock.twice(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a * 2'; \
    CREATE FUNCTION stock.noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.noted := true; RETURN NEW; END $$; \
    CREATE PROCEDURE stock.nothing() LANGUAGE plpgsql AS $$ BEGIN NULL; END $$; \
    CREATE AGGREGATE stock.all_of(text) (SFUNC = textcat, STYPE = text, INITCOND = ''); \
    CREATE TABLE stock.items (id int PRIMARY KEY DEFAULT nextval('stock.numbers'), name text NOT NULL UNIQUE, \
        price numeric(10,2) CHECK (price >= 0), mood stock.mood, amount stock.small, pair stock.pair, tags text[], \
        extra jsonb, bytes bytea, at timestamptz, noted boolean, twice int GENERATED ALWAYS AS (id * 2) STORED); \
    CREATE TABLE stock.parts (item int REFERENCES stock.items ON DELETE CASCADE, n bigint GENERATED ALWAYS AS IDENTITY); \
    CREATE TABLE stock.log (at date NOT NULL, what text) PARTITION BY RANGE (at); \
    CREATE TABLE stock.log_2025 PARTITION OF stock.log FOR VALUES FROM ('2025-01-01') TO ('2026-01-01'); \
    CREATE TABLE stock.log_2026 PARTITION OF stock.log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01'); \
    CREATE VIEW stock.cheap AS SELECT id, name FROM stock.items WHERE price < 5; \
    CREATE MATERIALIZED VIEW stock.counted AS SELECT count(*) FROM stock.items; \
    CREATE INDEX by_price ON stock.items (price DESC NULLS LAST) WHERE price IS NOT NULL; \
    CREATE TRIGGER noted BEFORE INSERT ON stock.items FOR EACH ROW EXECUTE FUNCTION stock.noted(); \
    CREATE RULE quiet AS ON DELETE TO stock.parts DO INSTEAD NOTHING; \
    COMMENT ON TABLE stock.items IS 'it''s all \"here\"'; COMMENT ON COLUMN stock.items.name IS E'two\\nlines'; \
    ALTER TABLE stock.log ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON stock.log USING (what <> 'hidden'); \
    GRANT SELECT ON stock.items TO public; \
    INSERT INTO stock.items (name, price, mood, amount, pair, tags, extra, bytes, at) \
        SELECT 'item ' || n || E' \\\\ \\t na\u{ef}ve', n / 4.0, CASE WHEN n % 2 = 0 THEN 'good' ELSE 'bad' END::stock.mood, \
        n % 1000, ROW(n, 'p')::stock.pair, ARRAY['a', NULL, 'b,c'], jsonb_build_object('n', n), decode(md5(n::text), 'hex'), \
        timestamptz '2026-01-01 00:00Z' + n * interval '1 minute' FROM generate_series(1, 20000) n; \
    INSERT INTO stock.items (id, name) VALUES (-1, ''), (-2, 'all NULL'); \
    INSERT INTO stock.parts (item) SELECT id FROM stock.items WHERE id % 3 = 0; \
    INSERT INTO stock.log SELECT date '2025-06-01' + n, repeat('long ', 2000) FROM generate_series(1, 300) n; \
    REFRESH MATERIALIZED VIEW stock.counted; \
    SELECT lo_from_bytea(4711, decode(repeat('00ff10', 100000), 'hex')), lo_from_bytea(4712, ''); \
    COMMENT ON LARGE OBJECT 4711 IS 'a large one'; SELECT setval('stock.numbers', 900000)";

struct Place<'a> {
    harness: &'a Shared,
    keyway: KeywayProcess,
    server: String,
}

impl Place<'_> {
    fn direct(&self, dbname: &str) -> String {
        format!("postgresql://{USER}:{APP_PASSWORD}@{}/{dbname}", self.server)
    }

    fn through(&self, dbname: &str) -> String {
        self.keyway.url(USER, APP_PASSWORD, dbname)
    }

    async fn tool(&self, name: &str, arguments: &[&str]) -> Fallible<String> {
        run(Command::new(self.harness.installation().client_program(name)?).args(arguments)).await
    }

    /// A dump as text, without what is drawn by chance for each.
    async fn dump(&self, url: &str, file: &Path, options: &[&str]) -> Fallible<String> {
        let file_name = file.to_str().ok_or("a path that is no text")?;
        self.tool("pg_dump", &[&["--file", file_name], options, &[url]].concat()).await?;
        let text = fs::read_to_string(file)?;
        let lines =
            text.lines().filter(|it| !it.starts_with("\\restrict ") && !it.starts_with("\\unrestrict "));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
}

async fn dumps_and_restores(harness: Arc<Shared>) -> Outcome {
    let place = start(&harness).await?;
    let dir = harness.fresh_dir()?;
    let path = |name: &str| dir.path().join(name);
    let name_of = |name: &str| path(name).to_str().map(str::to_owned).ok_or("a path that is no text");
    for options in
        [&[][..], &["--inserts", "--rows-per-insert=100"], &["--schema-only"], &["--clean", "--if-exists"]]
    {
        let direct = place.dump(&place.direct(FROM), &path("direct.sql"), options).await?;
        let through = place.dump(&place.through(FROM), &path("through.sql"), options).await?;
        assert!(direct.contains("CREATE TABLE stock.items"), "{options:?}");
        assert!(direct == through, "{options:?}: {}", first_difference(&direct, &through));
    }
    let want = place.dump(&place.direct(FROM), &path("want.sql"), &[]).await?;
    assert!(
        want.contains("lo_create('4711')") && want.contains("\\\\x00ff10") || want.contains("lowrite"),
        "no large object"
    );

    // Text by psql, the custom format by pg_restore; both as one transaction and not.
    let sql = name_of("through.sql")?;
    place.dump(&place.through(FROM), &path("through.sql"), &[]).await?;
    let to_text = place.through(TO[0]);
    place.tool("psql", &["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-f", &sql, &to_text]).await?;
    let custom = name_of("through.custom")?;
    place.tool("pg_dump", &["--format=custom", "--file", &custom, &place.through(FROM)]).await?;
    let to_custom = place.through(TO[1]);
    place
        .tool("pg_restore", &["--exit-on-error", "--single-transaction", "--dbname", &to_custom, &custom])
        .await?;
    for restored in TO {
        let got = place.dump(&place.direct(restored), &path("got.sql"), &[]).await?;
        assert!(got == want, "{restored}: {}", first_difference(&want, &got));
        let got = place.dump(&place.through(restored), &path("got.sql"), &[]).await?;
        assert!(got == want, "{restored}, through Keyway: {}", first_difference(&want, &got));
    }

    // Over what is there, several at a time, from a directory.
    let parallel = name_of("through.dir")?;
    place
        .tool("pg_dump", &["--format=directory", "--jobs=3", "--file", &parallel, &place.through(FROM)])
        .await?;
    place
        .tool(
            "pg_restore",
            &["--clean", "--if-exists", "--jobs=3", "--exit-on-error", "--dbname", &to_custom, &parallel],
        )
        .await?;
    let got = place.dump(&place.direct(TO[1]), &path("got.sql"), &[]).await?;
    assert!(got == want, "restored over: {}", first_difference(&want, &got));
    Ok(())
}

/// A Keyway of its own with few server connections, on the primary alone: pg_dump reads what was written
/// behind Keyway's back.
async fn start(harness: &Shared) -> Fallible<Place<'_>> {
    let primary = &harness.single().await?.shard.primary;
    primary.create_database(FROM, USER, APP_PASSWORD).await?;
    let admin = primary.connect("postgres").await?;
    for name in TO {
        admin.batch_execute(&format!("CREATE DATABASE {name} OWNER {USER}")).await?;
    }
    let server = primary.address();
    let keyway = harness
        .start_keyway(|listen, admin| {
            let databases = [FROM, TO[0], TO[1]].map(|it| {
                format!("[databases.{it}]\nservers = [\"{server}\"]\n[databases.{it}.pool]\nsize = 4\n")
            });
            format!(
                "listen = \"{listen}\"\nadmin = \"{admin}\"\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n{}",
                databases.concat()
            )
        })
        .await?;
    let place = Place { harness, keyway, server };
    let owner = crate::harness::connect(&place.direct(FROM)).await?;
    crate::harness::run(&owner, SCHEMA).await.map_err(|it| it.to_string().replace(SCHEMA, "the schema"))?;
    Ok(place)
}

fn first_difference(want: &str, got: &str) -> String {
    let pairs = want.lines().zip(got.lines()).enumerate();
    let cut = |it: &str| it.chars().take(200).collect::<String>();
    pairs
        .filter(|(_, (want, got))| want != got)
        .map(|(line, (want, got))| format!("line {}\n  want {}\n  got  {}", line + 1, cut(want), cut(got)))
        .next()
        .unwrap_or_else(|| format!("{} and {} lines", want.lines().count(), got.lines().count()))
}
