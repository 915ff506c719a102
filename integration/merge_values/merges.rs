//! Whole merges: a table on one server, and the same rows asked of it by parts and merged.

use std::sync::Arc;

use keyway::merge::{
    Aggregate, AggregateFunction, Budget, Collation, Comparison, Distinct, Expression, Format, Function,
    Grouping, MergeSpec, Merger, NumericModifier, Operator, Output, Progress, ResultFormats, SortKey, Type,
    Value, Window, partials,
};

use super::{Cells, answer, cells, fields, rows_of, server, text};
use crate::harness::wire::{Message, Wire, message};
use crate::harness::{Outcome, Shared};

const SHARDS: usize = 4;

/// A statement, what each shard is asked instead (`{}` is its rows), and what is done with the answers.
struct Case {
    whole: String,
    shard: String,
    spec: MergeSpec,
}

fn deterministic() -> MergeSpec {
    MergeSpec { collation: Collation::Deterministic, ..MergeSpec::default() }
}

/// Asks each shard, merges, and compares with the whole.
async fn check(wire: &mut Wire, case: &Case, binary: bool) -> Outcome {
    let want = answer(wire, &case.whole.replace("{}", "m"), binary).await?;
    let format = if binary { Format::Binary } else { Format::Text };
    let budget = Budget { memory_bytes_max: 1 << 24, hash_seed: 1 };
    let mut merger = Merger::new(Arc::new(case.spec.clone()), SHARDS, ResultFormats(vec![format]), budget);
    let mut left = Vec::new();
    for shard in 0..SHARDS {
        let rows = format!("(SELECT * FROM m WHERE shard = {shard}) m");
        let got = answer(wire, &case.shard.replace("{}", &rows), binary).await?;
        let raw = |it: &Message| message(it.tag, &it.body);
        let description = got.iter().find(|it| it.tag == 'T').expect("rows are described");
        merger.describe(shard, &raw(description)).map_err(|it| format!("{}: {it}", case.whole))?;
        left.push(got.iter().filter(|it| it.tag == 'D').map(raw).collect::<Vec<_>>().into_iter());
    }
    let (mut out, mut shown) = (Vec::new(), Vec::new());
    loop {
        let progress = merger.pull(&mut out, 4096).map_err(|it| format!("{}: {it}", case.whole))?;
        shown.append(&mut out);
        match progress {
            Progress::Done => break,
            Progress::OutFull | Progress::Paused => {}
            Progress::NeedRows => {
                for (shard, left) in left.iter_mut().enumerate() {
                    let batch: Vec<u8> = left.by_ref().take(7).flatten().collect();
                    if !merger.wants_rows(shard) {
                        assert!(batch.is_empty() || merger.feed(shard, &batch)?.is_empty());
                    } else if batch.is_empty() {
                        merger.end(shard)?;
                    } else {
                        let forward = merger.feed(shard, &batch)?;
                        shown.extend_from_slice(&batch[forward]);
                    }
                }
            }
        }
    }
    let mut got = Vec::new();
    let mut rest = &shown[..];
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize + 1;
        got.push(cells(&rest[5..length]));
        rest = &rest[length..];
    }
    let want_rows = rows_of(&want);
    for (at, (got, want)) in got.iter().zip(&want_rows).enumerate() {
        let show = |it: &Cells| it.iter().map(text).collect::<Vec<_>>();
        assert_eq!(show(got), show(want), "row {at}, binary {binary}, of {}", case.whole);
    }
    assert_eq!(got.len(), want_rows.len(), "rows of {}", case.whole);
    assert_eq!(merger.rows() as usize, want_rows.len());
    let description = merger.description();
    let described = Message { tag: 'T', body: description[5..].to_vec() };
    let want_description = want.iter().find(|it| it.tag == 'T').expect("rows are described");
    assert_eq!(fields(&described), fields(want_description), "columns of {}", case.whole);
    Ok(())
}

const COLUMNS: [(&str, Type); 13] = [
    ("i2", Type::Int2),
    ("i4", Type::Int4),
    ("i8", Type::Int8),
    ("n", Type::Numeric),
    ("f8", Type::Float8),
    ("t", Type::Text),
    ("c", Type::Bpchar),
    ("b", Type::Bool),
    ("d", Type::Date),
    ("ts", Type::Timestamptz),
    ("iv", Type::Interval),
    ("u", Type::Uuid),
    ("g", Type::Int4),
];

/// Rows with NULLs and many equal values; floats are whole, so that their sums do not depend on the order.
async fn create_table(wire: &mut Wire) -> Outcome {
    let sql = "CREATE TABLE m AS SELECT id, (id * 7919 % 4) AS shard, id % 13 AS g, \
        CASE WHEN id % 5 > 0 THEN (id * 31 % 200 - 100)::int2 END AS i2, \
        CASE WHEN id % 7 > 0 THEN (id * 7877 % 1000003 - 500000)::int4 END AS i4, \
        CASE WHEN id % 11 > 0 THEN (id::int8 * 922337203685477 - 100) END AS i8, \
        CASE WHEN id % 6 > 0 THEN round((id * 7907 % 10007) / 7.0, id % 9) END AS n, \
        CASE WHEN id % 8 > 0 THEN (id % 50)::float8 END AS f8, \
        CASE WHEN id % 9 > 0 THEN repeat(chr(65 + id % 26), id % 4) || id % 30 END COLLATE \"C\" AS t, \
        CASE WHEN id % 10 > 0 THEN chr(97 + id % 26)::char(4) END COLLATE \"C\" AS c, \
        CASE WHEN id % 4 > 0 THEN id % 3 = 0 END AS b, \
        CASE WHEN id % 12 > 0 THEN date '1999-12-01' + id % 90 END AS d, \
        CASE WHEN id % 13 > 0 THEN timestamptz '1883-11-18 12:00:00+00' + id * interval '41 days 1 second' END AS ts, \
        CASE WHEN id % 14 > 0 THEN make_interval(months => id % 5, days => id % 60 - 30, secs => id % 7) END AS iv, \
        CASE WHEN id % 15 > 0 THEN md5((id % 100)::text)::uuid END AS u \
        FROM generate_series(1, 900) id";
    answer(wire, sql, false).await?;
    Ok(())
}

fn output(name: &str, expression: Expression) -> Output {
    Output { name: name.into(), expression, type_mod: -1 }
}

fn sort_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (column, _) in COLUMNS {
        for (text, descending, nulls_first) in [
            ("ASC", false, false),
            ("DESC", true, true),
            ("ASC NULLS FIRST", false, true),
            ("DESC NULLS LAST", true, false),
        ] {
            let key = SortKey { column: 1, descending, nulls_first, collation: Collation::Bytes };
            let sorted = vec![key, SortKey::ascending(0)];
            let order = format!("ORDER BY {column} {text}, id");
            let window = Window { offset: 10, count: Some(100), with_ties: false };
            cases.push(Case {
                whole: format!("SELECT id FROM {{}} {order}"),
                shard: format!("SELECT id, {column} FROM {{}} {order}"),
                spec: MergeSpec { sorted: sorted.clone(), visible: vec![0], ..deterministic() },
            });
            cases.push(Case {
                whole: format!("SELECT id, {column} FROM {{}} {order} OFFSET 10 LIMIT 100"),
                shard: format!("SELECT id, {column} FROM {{}} {order} LIMIT 110"),
                spec: MergeSpec { sorted, window, visible: vec![0, 1], ..deterministic() },
            });
        }
        let key = SortKey::ascending(0).by_bytes();
        let one = |distinct, window| MergeSpec {
            sorted: vec![key],
            distinct,
            window,
            visible: vec![0],
            ..deterministic()
        };
        cases.push(Case {
            whole: format!("SELECT {column} FROM {{}} ORDER BY {column} FETCH FIRST 5 ROWS WITH TIES"),
            shard: format!("SELECT {column} FROM {{}} ORDER BY {column} FETCH FIRST 5 ROWS WITH TIES"),
            spec: one(Distinct::No, Window { offset: 0, count: Some(5), with_ties: true }),
        });
        cases.push(Case {
            whole: format!("SELECT DISTINCT {column} FROM {{}} ORDER BY {column}"),
            shard: format!("SELECT DISTINCT {column} FROM {{}} ORDER BY {column}"),
            spec: one(Distinct::Rows, Window::default()),
        });
        cases.push(Case {
            whole: format!("SELECT DISTINCT ON ({column}) {column}, id FROM {{}} ORDER BY {column}, id"),
            shard: format!("SELECT DISTINCT ON ({column}) {column}, id FROM {{}} ORDER BY {column}, id"),
            spec: MergeSpec {
                sorted: vec![key, SortKey::ascending(1)],
                distinct: Distinct::On(1),
                visible: vec![0, 1],
                ..deterministic()
            },
        });
        // A hashed DISTINCT, made an order of by a count.
        cases.push(Case {
            whole: format!("SELECT count(DISTINCT {column}) FROM {{}}"),
            shard: format!("SELECT {column} FROM {{}} GROUP BY 1"),
            spec: MergeSpec {
                grouping: Some(Grouping {
                    aggregates: vec![Aggregate {
                        distinct: true,
                        ..aggregate(AggregateFunction::Count, of(column), vec![0])
                    }],
                    outputs: vec![output("count", Expression::Column(0))],
                    ..Grouping::default()
                }),
                visible: vec![0],
                ..deterministic()
            },
        });
    }
    cases
}

fn of(column: &str) -> Type {
    COLUMNS.iter().find(|it| it.0 == column).unwrap().1
}

fn aggregate(function: AggregateFunction, argument: Type, columns: Vec<usize>) -> Aggregate {
    Aggregate {
        function,
        argument: Some(argument),
        distinct: false,
        columns,
        order: Vec::new(),
        delimiter: None,
        collation: Collation::Bytes,
    }
}

/// Every aggregate of every column that has parts, with and without groups, in order and hashed.
fn aggregate_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let names = [
        "count",
        "sum",
        "avg",
        "min",
        "max",
        "bool_and",
        "bool_or",
        "every",
        "bit_and",
        "bit_or",
        "bit_xor",
        "stddev",
        "stddev_pop",
        "variance",
        "var_pop",
    ];
    for (column, of) in COLUMNS {
        let (mut whole, mut shard, mut aggregates) = (Vec::new(), Vec::new(), Vec::new());
        let mut outputs = vec![output("g", Expression::Column(0))];
        for name in names {
            let function = AggregateFunction::by_name(name).unwrap();
            let Ok(parts) = partials(function, Some(of), false, Collation::Bytes) else { continue };
            // The last digits of these depend on the order, in one server too.
            if parts.order_of_addition && !matches!(name, "sum" | "avg") {
                continue;
            }
            let columns = (1 + shard.len()..).take(parts.columns.len()).collect();
            whole.push(format!("{name}({column})"));
            shard.extend(parts.columns.iter().map(|it| it.sql(column, "")));
            outputs.push(output(name, Expression::Column(1 + aggregates.len())));
            aggregates.push(aggregate(function, of, columns));
        }
        let (whole, shard) = (whole.join(", "), shard.join(", "));
        for (sorted, keyed) in [(true, true), (false, true), (false, false)] {
            let mut grouping =
                Grouping { aggregates: aggregates.clone(), outputs: outputs.clone(), ..Grouping::default() };
            let mut spec = MergeSpec { visible: (0..outputs.len()).collect(), ..deterministic() };
            let (key, clause) = if keyed { ("g", "GROUP BY g ORDER BY g") } else { ("1 AS g", "") };
            if keyed {
                grouping.keys = vec![0];
            } else {
                // Without groups the first output is a constant.
                let one = Expression::Constant(Type::Int4, Some(Value::Int4(1)));
                grouping.outputs[0] = output("g", one);
                for (at, it) in grouping.outputs.iter_mut().skip(1).enumerate() {
                    it.expression = Expression::Column(at);
                }
            }
            if sorted {
                spec.sorted = vec![SortKey::ascending(0)];
            } else if keyed {
                grouping.sort = vec![SortKey::ascending(0)];
            }
            spec.grouping = Some(grouping);
            cases.push(Case {
                whole: format!("SELECT {key}, {whole} FROM {{}} {clause}"),
                shard: format!("SELECT {key}, {shard} FROM {{}} {clause}"),
                spec: spec.clone(),
            });
            if !keyed {
                cases.push(Case {
                    whole: format!("SELECT {key}, {whole} FROM {{}} WHERE false"),
                    shard: format!("SELECT {key}, {shard} FROM {{}} WHERE false"),
                    spec,
                });
            }
        }
    }
    cases
}

fn distinct_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (column, names) in [
        ("i2", &["count", "sum", "avg", "var_pop", "min", "bit_or", "array_agg"][..]),
        ("i8", &["count", "sum", "avg"]),
        ("n", &["count", "avg", "stddev"]),
        ("t", &["count", "max", "array_agg"]),
        ("iv", &["count", "sum"]),
        ("b", &["bool_and", "array_agg"]),
    ] {
        let distinct = |name: &&str| Aggregate {
            distinct: true,
            ..aggregate(AggregateFunction::by_name(name).unwrap(), of(column), vec![1])
        };
        let mut outputs = vec![output("g", Expression::Column(0))];
        outputs.extend(names.iter().enumerate().map(|(at, name)| output(name, Expression::Column(1 + at))));
        let calls: Vec<String> = names.iter().map(|it| format!("{it}(DISTINCT {column})")).collect();
        cases.push(Case {
            whole: format!("SELECT g, {} FROM {{}} GROUP BY g ORDER BY g", calls.join(", ")),
            shard: format!("SELECT g, {column} FROM {{}} GROUP BY g, {column}"),
            spec: MergeSpec {
                visible: (0..outputs.len()).collect(),
                grouping: Some(Grouping {
                    keys: vec![0],
                    aggregates: names.iter().map(distinct).collect(),
                    outputs,
                    sort: vec![SortKey::ascending(0)],
                    having: None,
                }),
                ..deterministic()
            },
        });
    }
    cases
}

fn list_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (column, _) in COLUMNS {
        let order = vec![SortKey::ascending(1).by_bytes().descending(), SortKey::ascending(2)];
        let list = |function| Aggregate {
            order: order.clone(),
            delimiter: Some(b", "[..].into()),
            ..aggregate(function, of(column), vec![1, 2, 3])
        };
        let mut names = vec!["array_agg"];
        names.extend((column == "t").then_some("string_agg"));
        let mut outputs = vec![output("g", Expression::Column(0))];
        outputs.extend(names.iter().enumerate().map(|(at, name)| output(name, Expression::Column(1 + at))));
        let by = "ORDER BY t DESC, id";
        let text = if column == "t" { format!(", string_agg(t, ', ' {by})") } else { String::new() };
        let list_of = |it: &str| format!("array_agg({it} {by})");
        cases.push(Case {
            whole: format!("SELECT g, array_agg({column} {by}){text} FROM {{}} GROUP BY g ORDER BY g"),
            shard: format!(
                "SELECT g, {}, {}, {} FROM {{}} GROUP BY g ORDER BY g",
                list_of(column),
                list_of("t"),
                list_of("id")
            ),
            spec: MergeSpec {
                sorted: vec![SortKey::ascending(0)],
                visible: (0..outputs.len()).collect(),
                grouping: Some(Grouping {
                    keys: vec![0],
                    aggregates: names
                        .iter()
                        .map(|it| list(AggregateFunction::by_name(it).unwrap()))
                        .collect(),
                    outputs,
                    ..Grouping::default()
                }),
                ..deterministic()
            },
        });
    }
    cases
}

fn column(it: usize) -> Box<Expression> {
    Box::new(Expression::Column(it))
}

fn int(it: i32) -> Box<Expression> {
    Box::new(Expression::Constant(Type::Int4, Some(Value::Int4(it))))
}

/// Each as SQL, and over the row of g, count(*), sum(i4), sum(n), avg(i2), max(t), sum(f8).
fn written() -> Vec<(&'static str, Expression)> {
    let arithmetic = |operator, a, b| Expression::Arithmetic(operator, a, b);
    let ratio = arithmetic(Operator::Divide, column(3), column(1));
    let modifier = NumericModifier { precision: 12, scale: 3 };
    let negative = Expression::Compare(Comparison::Less, column(2), int(0), Collation::Deterministic);
    let branches = Expression::unify(
        vec![Expression::Column(3), *int(0)],
        &[Type::Int4, Type::Int8, Type::Int8, Type::Numeric],
    )
    .expect("numbers have a common type");
    vec![
        ("count(*) + 1", arithmetic(Operator::Add, column(1), int(1))),
        ("sum(i4) / 7", arithmetic(Operator::Divide, column(2), int(7))),
        ("sum(i4) % 7", arithmetic(Operator::Modulo, column(2), int(7))),
        ("sum(n) / count(*)", ratio.clone()),
        ("round(sum(n) / count(*), 2)", Expression::Call(Function::Round, Box::new(ratio), Some(int(2)))),
        ("avg(i2)::numeric(12,3)", Expression::Cast(column(4), Type::Numeric, Some(modifier))),
        ("avg(i2)::float8", Expression::Cast(column(4), Type::Float8, None)),
        ("avg(i2)::int4", Expression::Cast(column(4), Type::Int4, None)),
        ("sum(f8) / count(*)", arithmetic(Operator::Divide, column(6), column(1))),
        (
            "-sum(n) * 1.5::float8",
            arithmetic(
                Operator::Multiply,
                Box::new(Expression::Negate(column(3))),
                Box::new(Expression::Constant(Type::Float8, Some(Value::Float8(1.5)))),
            ),
        ),
        (
            "CASE WHEN sum(i4) < 0 THEN -1 ELSE g END",
            Expression::Case(vec![(negative, *int(-1))], Some(column(0))),
        ),
        ("coalesce(sum(n), 0)", Expression::Coalesce(branches)),
        ("nullif(g, 3)", Expression::NullIf(column(0), int(3), Collation::Unknown)),
        (
            "greatest(g, 6)",
            Expression::Greatest(vec![Expression::Column(0), *int(6)], Collation::Deterministic),
        ),
        (
            "max(t) || g::text",
            Expression::Concat(column(5), Box::new(Expression::Cast(column(0), Type::Text, None))),
        ),
        ("max(t) IS NULL", Expression::IsNull(column(5))),
    ]
}

fn expression_cases() -> Vec<Case> {
    use AggregateFunction as F;
    let written = written();
    let calls: Vec<String> =
        written.iter().enumerate().map(|(at, it)| format!("{} AS e{at}", it.0)).collect();
    let mut outputs = vec![output("g", Expression::Column(0))];
    outputs.extend(written.into_iter().enumerate().map(|(at, it)| output(&format!("e{at}"), it.1)));
    let having = Expression::And(vec![
        Expression::Compare(Comparison::Greater, column(1), int(60), Collation::Deterministic),
        Expression::Not(Box::new(Expression::Compare(
            Comparison::Equal,
            column(0),
            int(5),
            Collation::Deterministic,
        ))),
    ]);
    let count = Aggregate { argument: None, ..aggregate(F::Count, Type::Int8, vec![1]) };
    let grouping = Grouping {
        keys: vec![0],
        aggregates: vec![
            count,
            aggregate(F::Sum, Type::Int4, vec![2]),
            aggregate(F::Sum, Type::Numeric, vec![3]),
            aggregate(F::Avg, Type::Int2, vec![4, 5]),
            aggregate(F::Max, Type::Text, vec![6]),
            aggregate(F::Sum, Type::Float8, vec![7]),
        ],
        having: Some(having),
        sort: vec![SortKey::ascending(2).descending(), SortKey::ascending(0)],
        outputs,
    };
    let tail = "GROUP BY g HAVING count(*) > 60 AND NOT g = 5 ORDER BY sum(i4) / 7 DESC, g LIMIT 9";
    vec![Case {
        whole: format!("SELECT g, {} FROM {{}} {tail}", calls.join(", ")),
        shard: "SELECT g, count(*), sum(i4), sum(n), sum(i2), count(i2), max(t), sum(f8) FROM {} GROUP BY g"
            .to_owned(),
        spec: MergeSpec {
            visible: (0..grouping.outputs.len()).collect(),
            grouping: Some(grouping),
            window: Window { offset: 0, count: Some(9), with_ties: false },
            ..deterministic()
        },
    }]
}

pub(super) async fn answer_as_one_server(harness: Arc<Shared>) -> Outcome {
    let (_own, mut wire) = server(&harness).await?;
    create_table(&mut wire).await?;
    let all = [sort_cases(), aggregate_cases(), distinct_cases(), list_cases(), expression_cases()];
    let cases: Vec<Case> = all.into_iter().flatten().collect();
    assert!(cases.len() > 150, "{} cases", cases.len());
    for case in &cases {
        for binary in [false, true] {
            check(&mut wire, case, binary).await?;
        }
    }
    Ok(())
}
