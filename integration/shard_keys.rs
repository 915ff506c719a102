//! Keys as PostgreSQL sees them: the hash of its hash partitioning, and which rows a constant of another type
//! is equal to or becomes.

use std::sync::Arc;

use keyway::shard::{KeyColumn, KeyType, KeyValue, Purpose, Usage, partition_hash};
use libtest_mimic::Trial;
use tokio_postgres::Client;

use crate::harness::{Fallible, Harness, Outcome, Shared, Xorshift};

/// A prime: a hash that differs in any bit is very unlikely to leave the same remainder.
const MODULUS: i32 = 2_000_000_011;
const VALUES: usize = 10_000;
const SEED: u64 = 0x6b65_7977_6179;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("shard_keys::hash_is_postgres_own", hash_is_postgres_own),
        harness.test("shard_keys::hash_of_several_columns_is_postgres_own", hash_of_several_columns),
        harness.test("shard_keys::constants_mean_what_postgres_takes_them_for", constants_mean_the_same),
    ]
}

/// A failure can be had again.
struct Random(Xorshift);

impl Random {
    fn next(&mut self) -> u64 {
        self.0.next()
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Of any size as likely as of any other.
    fn integer(&mut self, bits: u32) -> i64 {
        let magnitude = self.next() >> (64 - 1 - self.below(u64::from(bits)) as u32).min(63);
        let value = (magnitude & (u64::MAX >> (65 - bits))) as i64;
        if self.below(2) == 0 { value } else { -value }
    }

    fn digits(&mut self, count: u64) -> String {
        (0..count).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    fn words(&mut self) -> String {
        const LETTERS: [char; 10] = ['a', 'z', '0', ' ', 'é', '漢', '\'', '\\', '"', '🔑'];
        (0..self.below(70)).map(|_| LETTERS[self.below(10) as usize]).collect()
    }

    fn date(&mut self) -> String {
        let year = 1 + self.below(9_998);
        format!("{year:04}-{:02}-{:02}", 1 + self.below(12), 1 + self.below(28))
    }

    fn timestamp(&mut self) -> String {
        let (hour, minute, micros) = (self.below(24), self.below(60), self.below(60_000_000));
        let (second, fraction) = (micros / 1_000_000, micros % 1_000_000);
        format!("{} {hour:02}:{minute:02}:{second:02}.{fraction:06}", self.date())
    }

    /// A value in a spelling that both sides read.
    fn spelling(&mut self, column: &str) -> String {
        let rare = self.below(50) == 0;
        match column {
            "smallint" => self.integer(16).to_string(),
            "integer" => self.integer(32).to_string(),
            "bigint" if rare => {
                ["-9223372036854775808", "9223372036854775807", "0"][self.below(3) as usize].into()
            }
            "bigint" => self.integer(64).to_string(),
            "numeric" => self.numeric(),
            "boolean" => ["t", "false", "on", "0"][self.below(4) as usize].into(),
            "text" | "varchar(400)" | "char(100)" => self.words(),
            "uuid" => format!("{:016x}{:016x}", self.next(), self.next()),
            "bytea" => {
                let count = self.below(70);
                let bytes: String = (0..count).map(|_| format!("{:02x}", self.below(256))).collect();
                format!("\\x{bytes}")
            }
            _ if rare => ["infinity", "-infinity"][self.below(2) as usize].into(),
            "date" => self.date(),
            "timestamp" => self.timestamp(),
            "timestamptz" => format!("{}{:+03}", self.timestamp(), self.below(24) as i64 - 12),
            other => panic!("no spelling of {other}"),
        }
    }

    /// Whole numbers in odd forms: zeros at both ends, a point, an exponent.
    fn numeric(&mut self) -> String {
        let sign = ["", "-", "+"][self.below(3) as usize];
        let (count, zeros) = (self.below(18), self.below(15));
        let digits = format!("{}{}{}", self.digits(count), "0".repeat(zeros as usize), self.below(10));
        match self.below(5) {
            0 => format!("{sign}{digits}.{}", "0".repeat(self.below(9) as usize)),
            1 => format!("{sign}{digits}e{}", self.below(4)),
            2 => format!("{sign}{digits}000e-3"),
            3 => format!("{sign}00{digits}"),
            _ => format!("{sign}{digits}"),
        }
    }
}

const TYPES: [&str; 13] = [
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "boolean",
    "text",
    "varchar(400)",
    "char(100)",
    "uuid",
    "bytea",
    "date",
    "timestamp",
    "timestamptz",
];

async fn session(harness: &Shared) -> Fallible<Client> {
    let client = harness.single().await?.shard.primary.connect("plain").await?;
    client.batch_execute("SET TimeZone TO 'UTC'").await?;
    Ok(client)
}

fn remainder(key: &KeyValue) -> i32 {
    (partition_hash(key) % MODULUS as u64) as i32
}

async fn hash_is_postgres_own(harness: Arc<Shared>) -> Outcome {
    let client = session(&harness).await?;
    let mut random = Random(Xorshift(SEED));
    for name in TYPES {
        let column: KeyColumn = name.parse().unwrap();
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS hashed; CREATE TEMP TABLE hashed (k {name}) PARTITION BY HASH (k)"
            ))
            .await?;
        let texts: Vec<String> = (0..VALUES).map(|_| random.spelling(name)).collect();
        let keys = texts.iter().map(|it| column.key_type.parse_text(it, true));
        let keys: Vec<KeyValue> = keys.collect::<Result<_, _>>().map_err(|it| format!("{name}: {it}"))?;
        let remainders: Vec<i32> = keys.iter().map(remainder).collect();
        let wrong = client
            .query(
                &format!(
                    "SELECT v FROM unnest($1::text[], $2::int4[]) AS it (v, r) \
                     WHERE NOT satisfies_hash_partition('hashed'::regclass, {MODULUS}, r, v::{name}) LIMIT 3"
                ),
                &[&texts, &remainders],
            )
            .await?;
        let wrong: Vec<&str> = wrong.iter().map(|it| it.get(0)).collect();
        assert!(wrong.is_empty(), "{name}, seed {SEED:#x}: another hash of {wrong:?}");
    }
    Ok(())
}

async fn hash_of_several_columns(harness: Arc<Shared>) -> Outcome {
    let client = session(&harness).await?;
    let mut random = Random(Xorshift(SEED));
    for names in [
        &["bigint", "text"][..],
        &["uuid", "date", "char(100)"],
        &["numeric", "boolean", "bytea", "timestamptz"],
    ] {
        let list: Vec<String> = names.iter().enumerate().map(|(at, it)| format!("k{at} {it}")).collect();
        let by: Vec<String> = (0..names.len()).map(|it| format!("k{it}")).collect();
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS hashed; CREATE TEMP TABLE hashed ({}) PARTITION BY HASH ({})",
                list.join(", "),
                by.join(", ")
            ))
            .await?;
        let columns: Vec<KeyType> =
            names.iter().map(|it| it.parse::<KeyColumn>().unwrap().key_type).collect();
        let (mut texts, mut remainders) = (vec![Vec::new(); names.len()], Vec::new());
        for _ in 0..VALUES {
            let mut row = Vec::new();
            for ((texts, name), key_type) in texts.iter_mut().zip(names).zip(&columns) {
                let text = random.spelling(name);
                row.push(key_type.parse_text(&text, true).map_err(|it| it.to_string())?);
                texts.push(text);
            }
            remainders.push(remainder(&KeyValue::Row(row.into())));
        }
        let values: Vec<String> = names.iter().enumerate().map(|(at, it)| format!("v{at}::{it}")).collect();
        let arrays: Vec<String> = (0..names.len()).map(|it| format!("${}::text[]", it + 2)).collect();
        let named: Vec<String> = (0..names.len()).map(|it| format!("v{it}")).collect();
        let sql = format!(
            "SELECT count(*) FROM unnest($1::int4[], {}) AS it (r, {}) \
             WHERE NOT satisfies_hash_partition('hashed'::regclass, {MODULUS}, r, {})",
            arrays.join(", "),
            named.join(", "),
            values.join(", ")
        );
        let mut params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = vec![&remainders];
        params.extend(texts.iter().map(|it| it as &(dyn tokio_postgres::types::ToSql + Sync)));
        let wrong: i64 = client.query_one(&sql, &params).await?.get(0);
        assert_eq!(wrong, 0, "{names:?}, seed {SEED:#x}");
    }
    Ok(())
}

/// Spellings that columns are filled with and compared with.
const CONSTANTS: &[&str] = &[
    "7",
    "-7",
    "70000",
    "7.0",
    "7.5",
    "9223372036854775807",
    "1e25",
    "t",
    "a",
    "a ",
    "a  ",
    "abc",
    "abcdef",
    "",
    "2026-01-31",
    "1999-12-31",
    "2026-01-31 00:00:00",
    "1999-12-31 12:00:00.5",
    "2000-12-31 12:00:00.5",
    "2026-01-31 10:00:00+02",
    "infinity",
    "-infinity",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "\\x6120",
];

const SOURCES: [KeyType; 13] = [
    KeyType::Smallint,
    KeyType::Integer,
    KeyType::Bigint,
    KeyType::Numeric,
    KeyType::Boolean,
    KeyType::Text,
    KeyType::Varchar,
    KeyType::Bpchar,
    KeyType::Uuid,
    KeyType::Bytea,
    KeyType::Date,
    KeyType::Timestamp,
    KeyType::Timestamptz,
];

/// What Keyway answers for a constant, PostgreSQL must: a refusal is allowed, a difference never.
async fn constants_mean_the_same(harness: Arc<Shared>) -> Outcome {
    let client = session(&harness).await?;
    let columns = [
        "smallint",
        "integer",
        "bigint",
        "numeric",
        "boolean",
        "text",
        "varchar",
        "varchar(3)",
        "char(4)",
        "uuid",
        "bytea",
        "date",
        "timestamp",
        "timestamptz",
        "timestamp(0)",
    ];
    let (mut compared, mut stored) = (0, 0);
    for name in columns {
        let column: KeyColumn = name.parse().unwrap();
        client
            .batch_execute(&format!("DROP TABLE IF EXISTS keys; CREATE TEMP TABLE keys (k {name})"))
            .await?;
        for text in CONSTANTS {
            // Those that are no values of the type stay out.
            let _ = client.execute(&format!("INSERT INTO keys VALUES ({})", quoted(text)), &[]).await;
        }
        for source in SOURCES {
            // A bare `character` in SQL would be character(1).
            let cast = if source == KeyType::Bpchar { "bpchar".to_owned() } else { source.to_string() };
            for text in CONSTANTS {
                let constant = format!("{}::{cast}", quoted(text));
                compared += usize::from(check_compare(&client, &column, source, text, &constant).await?);
                stored += usize::from(check_store(&client, &column, source, text, &constant).await?);
            }
        }
    }
    assert!(compared > 150 && stored > 150, "{compared} comparisons and {stored} assignments were told");
    Ok(())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn usage(purpose: Purpose) -> Usage {
    Usage { purpose, utc: true }
}

/// Whether both gave an answer.
async fn check_compare(
    client: &Client,
    column: &KeyColumn,
    source: KeyType,
    text: &str,
    constant: &str,
) -> Fallible<bool> {
    let Ok(told) = column.of_text(source.oid(), text, usage(Purpose::Compare)) else { return Ok(false) };
    let Ok(rows) = client.query(&format!("SELECT k::text FROM keys WHERE k = {constant}"), &[]).await else {
        return Ok(false);
    };
    for row in rows {
        let stored: &str = row.get(0);
        // What a column holds with a fraction has been refused when it was written.
        let Ok(key) = column.key_type.parse_text(stored, true) else { continue };
        assert_eq!(Some(key), told, "a column of {column} where {stored:?} = {constant}");
    }
    Ok(true)
}

async fn check_store(
    client: &Client,
    column: &KeyColumn,
    source: KeyType,
    text: &str,
    constant: &str,
) -> Fallible<bool> {
    let Ok(told) = column.of_text(source.oid(), text, usage(Purpose::Store)) else { return Ok(false) };
    client.batch_execute("BEGIN").await?;
    let made =
        client.query_one(&format!("INSERT INTO keys VALUES ({constant}) RETURNING k::text"), &[]).await;
    client.batch_execute("ROLLBACK").await?;
    let Ok(row) = made else { return Ok(false) };
    let stored: &str = row.get(0);
    let key = column.key_type.parse_text(stored, true).map_err(|it| it.to_string())?;
    assert_eq!(Some(key), told, "a column of {column} keeps {stored:?} of {constant}");
    Ok(true)
}
