//! What `merge` computes and compares, against what PostgreSQL answers: numbers to the digit, the order of
//! every type, both formats of every value, and whole merges of split tables.

mod merges;

use std::sync::Arc;

use keyway::demo::shop;
use keyway::merge::{Expression, Format, Numeric, Type, Value};
use libtest_mimic::Trial;

use crate::harness::wire::{Message, Wire, bind, describe, execute, parse, query, sync};
use crate::harness::{APP_PASSWORD, Fallible, Harness, Outcome, OwnShard, Shared};

const DATABASE: &str = "plain";

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("merge_values::numeric_is_postgres_own", numeric_is_postgres_own),
        harness.test("merge_values::floats_are_postgres_own", floats_are_postgres_own),
        harness.test("merge_values::order_and_formats_are_postgres_own", order_and_formats_are_postgres_own),
        harness.test("merge_values::merges_answer_as_one_server", merges::answer_as_one_server),
    ]
}

/// A server and a connection that speaks bytes.
async fn server(harness: &Shared) -> Fallible<(OwnShard, Wire)> {
    let own = harness.fresh_shard(0).await?;
    own.shard.primary.create_database(DATABASE, shop::USER, APP_PASSWORD).await?;
    let address = own.shard.primary.address().parse()?;
    let settings = [("TimeZone", "America/St_Johns"), ("DateStyle", "ISO")];
    let wire = Wire::log_in(address, shop::USER, APP_PASSWORD, DATABASE, &settings).await?;
    Ok((own, wire))
}

/// Marsaglia's xorshift: the same values in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn digits(&mut self, count: u64) -> String {
        (0..count).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    /// Of any size and scale, with the values around which digits change places.
    fn numeric(&mut self) -> String {
        const ODD: [&str; 14] = [
            "0",
            "0.000",
            "1",
            "-1.0",
            "9999",
            "10000",
            "9999.9999",
            "0.0001",
            "0.00009999",
            "1e-20",
            "99999999.5",
            "NaN",
            "Infinity",
            "-Infinity",
        ];
        if self.below(12) == 0 {
            return self.pick(&ODD).to_owned();
        }
        let sign = self.pick(&["", "-"]);
        let whole_digits = self.below(12) * self.below(4);
        let scale = self.below(9) * self.below(4);
        let whole = self.digits(whole_digits.max(1));
        let decimals = self.digits(scale);
        if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{decimals}") }
    }
}

async fn answer(wire: &mut Wire, sql: &str, binary: bool) -> Fallible<Vec<Message>> {
    let bytes = if binary {
        [parse("", sql), bind("", "", &[], true), describe('P', ""), execute("", 0), sync()].concat()
    } else {
        query(sql)
    };
    let messages = wire.ask(&bytes, 1).await?;
    match messages.iter().find(|it| it.tag == 'E') {
        Some(error) => Err(format!("{sql}: {}", error.error()).into()),
        None => Ok(messages),
    }
}

type Cells = Vec<Option<Vec<u8>>>;

fn cells(body: &[u8]) -> Cells {
    let (count, mut rest) = body.split_at(2);
    let count = u16::from_be_bytes(count.try_into().unwrap());
    let mut cells = Vec::new();
    for _ in 0..count {
        let (length, after) = rest.split_at(4);
        let length = i32::from_be_bytes(length.try_into().unwrap());
        let (cell, after) = after.split_at(length.max(0) as usize);
        cells.push((length >= 0).then(|| cell.to_vec()));
        rest = after;
    }
    cells
}

fn rows_of(messages: &[Message]) -> Vec<Cells> {
    messages.iter().filter(|it| it.tag == 'D').map(|it| cells(&it.body)).collect()
}

fn text(cell: &Option<Vec<u8>>) -> String {
    cell.as_ref().map_or_else(|| "NULL".to_owned(), |it| String::from_utf8_lossy(it).into_owned())
}

/// An array literal, quoted for SQL.
fn array(texts: &[String]) -> String {
    let quoted = |it: &String| format!("\"{}\"", it.replace('\\', "\\\\").replace('"', "\\\""));
    let all: Vec<String> = texts.iter().map(quoted).collect();
    format!("'{{{}}}'", all.join(",").replace('\'', "''"))
}

async fn numeric_is_postgres_own(harness: Arc<Shared>) -> Outcome {
    let (_own, mut wire) = server(&harness).await?;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let a: Vec<String> = (0..4_000).map(|_| random.numeric()).collect();
    let b: Vec<String> = (0..4_000).map(|_| random.numeric()).collect();
    let sql = format!(
        "SELECT a, b, a + b, a - b, a * b, a / nullif(b, 0), a % nullif(b, 0), round(a, 3), round(a, -2), trunc(a, 2), \
         ceil(a), floor(a), -a, abs(a), a::float8, CASE WHEN abs(a) < 9e18 THEN a::int8 END, a < b, a = b \
         FROM unnest({}::numeric[], {}::numeric[]) WITH ORDINALITY t (a, b, n) ORDER BY n",
        array(&a),
        array(&b)
    );
    let rows = rows_of(&answer(&mut wire, &sql, false).await?);
    assert_eq!(rows.len(), a.len());
    for row in &rows {
        let (a, b): (Numeric, Numeric) = (text(&row[0]).parse().unwrap(), text(&row[1]).parse().unwrap());
        let shown = |it: Result<Numeric, keyway::base::Refusal>| it.unwrap().to_string();
        let divisor_is_zero = b == Numeric::zero();
        let unless_zero = |it: fn(&Numeric, &Numeric) -> Result<Numeric, keyway::base::Refusal>| {
            if divisor_is_zero { "NULL".to_owned() } else { shown(it(&a, &b)) }
        };
        let cast = |to| {
            let operand = Expression::Constant(Type::Numeric, Some(Value::Numeric(a.clone())));
            let value =
                Expression::Cast(Box::new(operand), to, None).evaluate::<[Option<Value>]>(&[]).unwrap();
            let mut out = Vec::new();
            value.unwrap().encode(Format::Text, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let truth = |it: bool| if it { "t" } else { "f" }.to_owned();
        let in_range = text(&row[15]) != "NULL";
        let got = [
            a.to_string(),
            b.to_string(),
            shown(a.add(&b)),
            shown(a.sub(&b)),
            shown(a.mul(&b)),
            unless_zero(Numeric::div),
            unless_zero(Numeric::rem),
            shown(a.round(3)),
            shown(a.round(-2)),
            a.trunc(2).to_string(),
            shown(a.ceil()),
            shown(a.floor()),
            a.negated().to_string(),
            a.abs().to_string(),
            cast(Type::Float8),
            if in_range { cast(Type::Int8) } else { "NULL".to_owned() },
            truth(a < b),
            truth(a == b),
        ];
        let want: Vec<String> = row.iter().map(text).collect();
        assert_eq!(got.to_vec(), want, "of {a} and {b}");
    }
    deviations(&mut wire, &mut random).await
}

/// avg, stddev and variance of random sets, through count, sum and sum of squares.
async fn deviations(wire: &mut Wire, random: &mut Random) -> Outcome {
    let mut sets: Vec<String> = Vec::new();
    let mut values: Vec<String> = Vec::new();
    for set in 0..600 {
        for _ in 0..1 + random.below(6) {
            sets.push(set.to_string());
            let any = random.numeric();
            values.push(if set % 50 == 0 || !any.contains('n') && !any.contains('N') {
                any
            } else {
                "2.50".to_owned()
            });
        }
    }
    let sql = format!(
        "SELECT count(x), sum(x), sum(x * x), avg(x), stddev_samp(x), stddev_pop(x), var_samp(x), var_pop(x) \
         FROM unnest({}::int[], {}::numeric[]) t (s, x) GROUP BY s",
        array(&sets),
        array(&values)
    );
    let rows = rows_of(&answer(wire, &sql, false).await?);
    assert_eq!(rows.len(), 600);
    for row in rows {
        let count: i64 = text(&row[0]).parse().unwrap();
        let (sum, squares): (Numeric, Numeric) =
            (text(&row[1]).parse().unwrap(), text(&row[2]).parse().unwrap());
        assert_eq!(sum.div(&Numeric::from(count)).unwrap().to_string(), text(&row[3]));
        for (at, (sample, root)) in
            [(true, true), (false, true), (true, false), (false, false)].iter().enumerate()
        {
            let got = Numeric::deviation(count, &sum, &squares, *sample, *root).unwrap();
            let got = got.map_or_else(|| "NULL".to_owned(), |it| it.to_string());
            assert_eq!(got, text(&row[4 + at]), "sample {sample}, root {root} of {count}, {sum}, {squares}");
        }
    }
    Ok(())
}

async fn floats_are_postgres_own(harness: Arc<Shared>) -> Outcome {
    let (_own, mut wire) = server(&harness).await?;
    let mut random = Random(0xD1B5_4A32_D192_ED03);
    let mut floats: Vec<f64> = (-1074..=1023).map(|it| 2f64.powi(it)).collect();
    floats.extend((0..40).map(|it| 10f64.powi(it - 20)));
    floats.extend((0..4_000).map(|_| f64::from_bits(random.next())).filter(|it| it.is_finite()));
    floats.extend((0..500).map(|_| (random.next() >> 11) as f64 / 4.0));
    let texts: Vec<String> = floats.iter().map(|it| format!("{it:.17e}")).collect();
    let sql = format!(
        "SELECT x, x::numeric, CASE WHEN abs(x) < 1e18 THEN x::int8 END, CASE WHEN abs(x) BETWEEN 1e-30 AND 1e30 THEN x::float4 END \
         FROM unnest({}::float8[]) WITH ORDINALITY t (x, n) ORDER BY n",
        array(&texts)
    );
    let rows = rows_of(&answer(&mut wire, &sql, false).await?);
    assert_eq!(rows.len(), floats.len());
    for (float, row) in floats.iter().zip(&rows) {
        let operand = || Box::new(Expression::Constant(Type::Float8, Some(Value::Float8(*float))));
        let cast = |to, wanted: &Option<Vec<u8>>| {
            if wanted.is_none() {
                return "NULL".to_owned();
            }
            let value = Expression::Cast(operand(), to, None).evaluate::<[Option<Value>]>(&[]).unwrap();
            let mut out = Vec::new();
            value.unwrap().encode(Format::Text, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let types = [Type::Float8, Type::Numeric, Type::Int8, Type::Float4];
        let got: Vec<String> = types.iter().zip(row).map(|(of, cell)| cast(*of, cell)).collect();
        assert_eq!(got, row.iter().map(text).collect::<Vec<_>>(), "{float:e}");
    }
    Ok(())
}

/// Random literals of a type, extremes among them.
fn literals(of: &str, random: &mut Random) -> Vec<String> {
    let mut texts: Vec<String> = extremes(of).iter().map(|it| (*it).to_owned()).collect();
    for _ in 0..400 {
        let any = random.next();
        let clock =
            format!("{:02}:{:02}:{:02}.{:06}", any % 24, any / 24 % 60, any / 1440 % 60, any % 1_000_000);
        let zone = format!("{}{:02}:{:02}", random.pick(&["+", "-"]), random.below(15), random.below(60));
        // The calendar begins in 4713 BC.
        let (era, years) = if random.below(3) == 0 { (" BC", 4_712) } else { ("", 9_999) };
        let year = 1 + random.below(years);
        let date = format!("{year:04}-{:02}-{:02}", 1 + random.below(12), 1 + random.below(28));
        texts.push(match of {
            "bool" => random.pick(&["t", "f"]).to_owned(),
            "\"char\"" => char::from(33 + random.below(90) as u8).to_string(),
            "int2" => (any as i16).to_string(),
            "int4" => (any as i32).to_string(),
            "int8" => (any as i64 >> random.below(60)).to_string(),
            "oid" => (any as u32).to_string(),
            "float4" => format!("{:e}", f32::from_bits(any as u32 & 0xBFFF_FFFF)),
            "float8" => format!("{:e}", f64::from_bits(any & 0xBFFF_FFFF_FFFF_FFFF)),
            "numeric" => random.numeric(),
            "text" | "varchar" | "char(8)" | "name" => {
                let count = random.below(8);
                (0..count)
                    .map(|_| random.pick(&["a", "B", " ", "_", "é", "z", "\\", "\"", "'", "0"]))
                    .collect()
            }
            "bytea" => format!("\\x{any:016x}").chars().take(2 + 2 * random.below(8) as usize).collect(),
            "date" => date + era,
            "time" => clock,
            "timetz" => clock + &zone,
            "timestamp" => format!("{date} {clock}{era}"),
            "timestamptz" => format!("{date} {clock}{zone}{era}"),
            "interval" => {
                let (sign, other) = (random.pick(&["", "-"]), random.pick(&["", "-"]));
                format!("{sign}{} mons {other}{} days {sign}{clock}", random.below(40), random.below(99))
            }
            "uuid" => format!("{any:016x}{:016x}", random.next()),
            other => panic!("{other}"),
        });
    }
    texts
}

fn extremes(of: &str) -> &'static [&'static str] {
    match of {
        "int2" => &["-32768", "32767"],
        "int4" => &["-2147483648", "2147483647"],
        "int8" => &["-9223372036854775808", "9223372036854775807"],
        "float4" | "float8" => &["NaN", "Infinity", "-Infinity", "0", "-0", "1e-37", "1", "1.0"],
        "\"char\"" => &["", "\\200", "\\377", "\\177"],
        "numeric" => {
            &["NaN", "Infinity", "-Infinity", "0", "0.0", "1", "1.00", "1e1000", "-1e1000", "1e-1000"]
        }
        "date" => &["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "2000-02-29", "0001-12-31 BC"],
        "time" => &["00:00:00", "24:00:00", "23:59:59.999999"],
        "timetz" => &["00:00:00+15:59", "24:00:00-15:59", "12:00:00+00", "13:00:00+01", "12:00:00+00:00:01"],
        "timestamp" => &["infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999"],
        "timestamptz" => &["infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "1800-01-01 00:00:00+00"],
        "interval" => &[
            "0",
            "1 mon",
            "30 days",
            "720:00:00",
            "-178000000 years",
            "178000000 years",
            "1 year",
            "360 days",
        ],
        "char(8)" => &["", "a", "a       ", "a b", "a  b"],
        _ => &[],
    }
}

async fn order_and_formats_are_postgres_own(harness: Arc<Shared>) -> Outcome {
    let (_own, mut wire) = server(&harness).await?;
    let mut random = Random(0xA076_1D64_78BD_642F);
    for of in [
        "bool",
        "\"char\"",
        "int2",
        "int4",
        "int8",
        "oid",
        "float4",
        "float8",
        "numeric",
        "text",
        "varchar",
        "char(8)",
        "name",
        "bytea",
        "date",
        "time",
        "timetz",
        "timestamp",
        "timestamptz",
        "interval",
        "uuid",
    ] {
        let collate = if matches!(of, "text" | "varchar" | "char(8)") { "COLLATE \"C\"" } else { "" };
        let sql = format!(
            "SELECT v, v = lag(v) OVER (ORDER BY v, n) FROM (SELECT x::{of} {collate} AS v, n \
             FROM unnest({}::text[]) WITH ORDINALITY t (x, n)) t ORDER BY v, n",
            array(&literals(of, &mut random))
        );
        let texts = answer(&mut wire, &sql, false).await?;
        let binaries = answer(&mut wire, &sql, true).await?;
        let oid = type_oids(&texts)[0];
        let known = Type::from_oid(oid);
        assert!(known.is_known(), "{of} has oid {oid}");
        let mut last: Option<Value> = None;
        let pairs = rows_of(&texts).into_iter().zip(rows_of(&binaries));
        for (row, binary_row) in pairs {
            let (shown, binary) = (row[0].as_ref().unwrap(), binary_row[0].as_ref().unwrap());
            let from_text = Value::decode(known, Format::Text, shown).unwrap();
            let from_binary = Value::decode(known, Format::Binary, binary).unwrap();
            let note = String::from_utf8_lossy(shown).into_owned();
            assert!(from_text.compare(&from_binary).unwrap().is_eq(), "{of} {note}");
            let encoded = |value: &Value, format| {
                let mut out = Vec::new();
                value.encode(format, &mut out).map(|()| out)
            };
            assert_eq!(encoded(&from_text, Format::Text).unwrap(), *shown, "{of} {note}");
            assert_eq!(encoded(&from_text, Format::Binary).unwrap(), *binary, "{of} {note}");
            // Only text says what the session's time zone makes of an instant.
            if of != "timestamptz" {
                assert_eq!(encoded(&from_binary, Format::Text).unwrap(), *shown, "{of} {note}");
            }
            if let Some(last) = &last {
                let want =
                    if text(&row[1]) == "t" { std::cmp::Ordering::Equal } else { std::cmp::Ordering::Less };
                assert_eq!(last.compare(&from_text), Some(want), "{of}: {last:?} before {from_text:?}");
            }
            last = Some(from_text);
        }
    }
    Ok(())
}

fn type_oids(messages: &[Message]) -> Vec<u32> {
    let description = messages.iter().find(|it| it.tag == 'T').expect("rows are described");
    fields(description).into_iter().map(|it| it.1).collect()
}

/// Name and type of each column of a RowDescription.
fn fields(description: &Message) -> Vec<(String, u32)> {
    let field = |(name, fixed): (&[u8], &[u8; 18])| {
        let oid = u32::from_be_bytes(fixed[6..10].try_into().unwrap());
        (String::from_utf8_lossy(name).into_owned(), oid)
    };
    description.columns().expect("a whole RowDescription").into_iter().map(field).collect()
}
