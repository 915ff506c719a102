use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::aggregate::{Aggregate, AggregateFunction, partials};
use super::super::expression::{Comparison, Expression};
use super::super::spec::{Collation, Output, Window};
use super::super::types::{Format, Type};
use super::*;
use crate::wire::{RowField, row_description, row_fields};

const BUDGET: Budget = Budget { memory_bytes_max: 1 << 20, hash_seed: 7 };

type TextRow = Vec<Option<String>>;

fn description(types: &[Type]) -> Vec<u8> {
    let names: Vec<String> = (0..types.len()).map(|it| format!("c{it}")).collect();
    let field = |(of, name): (&Type, &String)| RowField {
        name: Box::leak(name.clone().into_boxed_str()).as_bytes(),
        table_oid: 0,
        attribute: 0,
        type_oid: of.oid(),
        type_bytes: of.bytes(),
        type_mod: -1,
        binary: false,
    };
    let fields: Vec<RowField<'_>> = types.iter().zip(&names).map(field).collect();
    let mut out = Vec::new();
    row_description(&mut out, &fields);
    out
}

fn message(row: &[Option<String>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = RowWriter::new(&mut out, row.len() as u16);
    for it in row {
        match it {
            None => writer.null(),
            Some(it) => writer.value(it.as_bytes()),
        }
    }
    writer.finish();
    out
}

fn rows_of(mut bytes: &[u8]) -> Vec<TextRow> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let (message, rest) = bytes.split_at(row_length(bytes).unwrap());
        let mut values = RowValues::read(message).unwrap();
        let text = |it: Option<Range<usize>>| it.map(|it| String::from_utf8(message[it].to_vec()).unwrap());
        rows.push((0..values.left()).map(|_| text(values.next_place().unwrap())).collect());
        bytes = rest;
    }
    rows
}

fn row(values: &[&str]) -> TextRow {
    values.iter().map(|it| (*it != "NULL").then(|| (*it).to_owned())).collect()
}

/// Feeds each shard's rows in batches of `batch`, only when they are wanted, and pulls into a small buffer.
fn run(
    spec: MergeSpec,
    types: &[Type],
    shards: &[Vec<TextRow>],
    batch: usize,
) -> Result<(Vec<TextRow>, u64), Refusal> {
    let mut merger = Merger::new(Arc::new(spec), shards.len(), ResultFormats::default(), BUDGET);
    for shard in 0..shards.len() {
        merger.describe(shard, &description(types))?;
    }
    let mut left: Vec<std::slice::Chunks<'_, TextRow>> = shards.iter().map(|it| it.chunks(batch)).collect();
    let (mut out, mut all) = (Vec::new(), Vec::new());
    loop {
        let progress = merger.pull(&mut out, 64)?;
        all.append(&mut out);
        match progress {
            Progress::Done => break,
            Progress::OutFull => {}
            Progress::Paused => panic!("nobody asked it to pause"),
            Progress::NeedRows => {
                let wanted: Vec<usize> = (0..shards.len()).filter(|it| merger.wants_rows(*it)).collect();
                assert!(!wanted.is_empty(), "it waits for nobody");
                for shard in wanted {
                    match left[shard].next() {
                        None => merger.end(shard)?,
                        Some(rows) => {
                            let bytes: Vec<u8> = rows.iter().flat_map(|it| message(it)).collect();
                            let forward = merger.feed(shard, &bytes)?;
                            all.extend_from_slice(&bytes[forward]);
                        }
                    }
                }
            }
        }
    }
    Ok((rows_of(&all), merger.rows()))
}

fn shown(visible: &[usize]) -> MergeSpec {
    MergeSpec { visible: visible.to_vec(), collation: Collation::Deterministic, ..MergeSpec::default() }
}

fn limit(count: u64) -> Window {
    Window { count: Some(count), ..Window::default() }
}

fn table(shards: &[&[&[&str]]]) -> Vec<Vec<TextRow>> {
    shards.iter().map(|it| it.iter().map(|it| row(it)).collect()).collect()
}

#[test]
fn rows_without_an_order_pass_through_uncopied_and_are_cut_by_limit() {
    let shards = table(&[&[&["1"], &["2"]], &[&["3"], &["4"]]]);
    let spec = MergeSpec { window: Window { offset: 1, count: Some(2), with_ties: false }, ..shown(&[0]) };
    let mut merger = Merger::new(Arc::new(spec), 2, ResultFormats::default(), BUDGET);
    merger.describe(0, &description(&[Type::Int4])).unwrap();
    assert!(merger.feed(0, &message(&shards[0][0])).is_err(), "not all have described their rows");
    merger.describe(1, &description(&[Type::Int4])).unwrap();
    assert!(merger.passes_through());
    let bytes: Vec<u8> = shards[0].iter().flat_map(|it| message(it)).collect();
    let forward = merger.feed(0, &bytes).unwrap();
    assert_eq!(rows_of(&bytes[forward]), [row(&["2"])]);
    assert!(!merger.is_done());
    let bytes: Vec<u8> = shards[1].iter().flat_map(|it| message(it)).collect();
    let forward = merger.feed(1, &bytes).unwrap();
    assert_eq!(rows_of(&bytes[forward]), [row(&["3"])]);
    assert!(merger.is_done() && merger.rows() == 2 && !merger.wants_rows(0));
    assert_eq!(merger.pull(&mut Vec::new(), 64).unwrap(), Progress::Done);
}

#[test]
fn a_portal_pauses_and_goes_on_where_it_was() {
    let rows: Vec<u8> = ["1", "2", "3", "4"].iter().flat_map(|it| message(&row(&[it]))).collect();
    let mut merger = Merger::new(Arc::new(shown(&[0])), 1, ResultFormats::default(), BUDGET);
    merger.describe(0, &description(&[Type::Int4])).unwrap();
    merger.pause_at(Some(2));
    assert!(merger.feed(0, &rows).unwrap().is_empty());
    let mut out = Vec::new();
    assert_eq!(merger.pull(&mut out, 1 << 20).unwrap(), Progress::Paused);
    assert_eq!(rows_of(&out), [row(&["1"]), row(&["2"])]);
    merger.pause_at(Some(3));
    out.clear();
    assert_eq!(merger.pull(&mut out, 1 << 20).unwrap(), Progress::Paused);
    assert_eq!(rows_of(&out), [row(&["3"])]);
    merger.pause_at(None);
    assert!(!merger.passes_through(), "one is held");
    out.clear();
    assert_eq!(merger.pull(&mut out, 1 << 20).unwrap(), Progress::NeedRows);
    assert_eq!(rows_of(&out), [row(&["4"])]);
    assert!(merger.passes_through());
    assert_eq!(merger.feed(0, &rows).unwrap(), 0..rows.len());
    merger.end(0).unwrap();
    assert_eq!(merger.pull(&mut out, 1 << 20).unwrap(), Progress::Done);
    assert_eq!(merger.rows(), 8);
}

#[test]
fn what_is_no_row_is_refused_and_never_a_panic() {
    let spec = MergeSpec { sorted: vec![SortKey::ascending(0)], ..shown(&[0, 1]) };
    let types = [Type::Int4, Type::Int4];
    let good = message(&row(&["1", "NULL"]));
    let check = |bytes: &[u8]| {
        let mut merger = Merger::new(Arc::new(spec.clone()), 1, ResultFormats::default(), BUDGET);
        merger.describe(0, &description(&types)).unwrap();
        let fed = merger.feed(0, bytes).and_then(|_| merger.pull(&mut Vec::new(), 64));
        fed.err().map(|it| it.state().0)
    };
    assert_eq!(check(&good), None);
    for end in 1..good.len() {
        assert_eq!(check(&good[..end]), Some("08P01"), "cut at {end}");
    }
    assert_eq!(check(&message(&row(&["1"]))), Some("08P01"));
    assert_eq!(check(&description(&types)), Some("08P01"));
    let mut merger = Merger::new(Arc::new(spec.clone()), 2, ResultFormats::default(), BUDGET);
    merger.describe(0, &description(&types)).unwrap();
    let other = merger.describe(1, &description(&[Type::Int4, Type::Int8])).unwrap_err();
    assert_eq!(other.state().0, "0A000");
}

#[test]
fn helper_columns_are_dropped_and_shown_columns_put_in_order() {
    let shards = table(&[&[&["a", "1", "x"], &["b", "3", "y"]], &[&["c", "2", "z"], &["NULL", "NULL", "w"]]]);
    let types = [Type::Text, Type::Int4, Type::Text];
    let run_shown = |visible: &[usize]| {
        let spec = MergeSpec { sorted: vec![SortKey::ascending(1)], ..shown(visible) };
        run(spec, &types, &shards, 1).unwrap()
    };
    let all =
        [row(&["a", "1", "x"]), row(&["c", "2", "z"]), row(&["b", "3", "y"]), row(&["NULL", "NULL", "w"])];
    assert_eq!(run_shown(&[0, 1, 2]), (all.to_vec(), 4));
    let cut = |columns: &[usize]| -> Vec<TextRow> {
        all.iter().map(|row| columns.iter().map(|it| row[*it].clone()).collect()).collect()
    };
    for visible in [&[0][..], &[0, 1], &[2, 0], &[]] {
        assert_eq!(run_shown(visible).0, cut(visible), "{visible:?}");
    }
    let spec = shown(&[2, 0]);
    let message = spec.description(&description(&types)).unwrap();
    let names: Vec<&[u8]> = row_fields(&message).unwrap().iter().map(|it| it.name).collect();
    assert_eq!(names, [b"c2", b"c0"]);
}

#[test]
fn ties_and_distinct_follow_the_sort_keys() {
    let shards = table(&[&[&["1", "a"], &["2", "b"], &["2", "c"]], &[&["1", "d"], &["2", "b"], &["3", "e"]]]);
    let types = [Type::Int4, Type::Text];
    let sorted = vec![SortKey::ascending(0)];
    let run = |spec| run(spec, &types, &shards, 2).unwrap().0;
    let window = Window { with_ties: true, ..limit(3) };
    let ties = run(MergeSpec { sorted: sorted.clone(), window, ..shown(&[0, 1]) });
    assert_eq!(ties, [["1", "a"], ["1", "d"], ["2", "b"], ["2", "c"], ["2", "b"]].map(|it| row(&it)));
    let on = run(MergeSpec { sorted: sorted.clone(), distinct: Distinct::On(1), ..shown(&[0, 1]) });
    assert_eq!(on, [["1", "a"], ["2", "b"], ["3", "e"]].map(|it| row(&it)));
    let distinct = run(MergeSpec { sorted: sorted.clone(), distinct: Distinct::Rows, ..shown(&[0, 1]) });
    assert_eq!(distinct, [["1", "a"], ["1", "d"], ["2", "b"], ["2", "c"], ["3", "e"]].map(|it| row(&it)));
    let adjacent = run(MergeSpec { sorted, distinct: Distinct::Rows, window: limit(2), ..shown(&[0]) });
    assert_eq!(adjacent, [["1"], ["2"]].map(|it| row(&it)));
    assert!(run(MergeSpec { window: limit(0), ..shown(&[0]) }).is_empty());
}

fn aggregate(function: AggregateFunction, argument: Type, columns: &[usize]) -> Aggregate {
    Aggregate {
        function,
        argument: Some(argument),
        distinct: false,
        columns: columns.to_vec(),
        order: Vec::new(),
        delimiter: None,
        collation: Collation::Deterministic,
    }
}

fn outputs(count: usize) -> Vec<Output> {
    let output =
        |it| Output { name: format!("o{it}").into(), expression: Expression::Column(it), type_mod: -1 };
    (0..count).map(output).collect()
}

/// `SELECT k, count(v), sum(v), avg(v), min(v), max(v) ... GROUP BY k` over parts (k, sum, count, min, max).
fn grouping() -> Grouping {
    use AggregateFunction as F;
    Grouping {
        keys: vec![0],
        aggregates: vec![
            aggregate(F::Count, Type::Int4, &[2]),
            aggregate(F::Sum, Type::Int4, &[1]),
            aggregate(F::Avg, Type::Int4, &[1, 2]),
            aggregate(F::Min, Type::Int4, &[3]),
            aggregate(F::Max, Type::Int4, &[4]),
        ],
        outputs: outputs(6),
        ..Grouping::default()
    }
}

const PARTS: [Type; 5] = [Type::Int4, Type::Int8, Type::Int8, Type::Int4, Type::Int4];

/// What a shard answers over its rows (k, v), ordered by k with NULL last.
fn parts_of(rows: &[(Option<i32>, Option<i32>)]) -> Vec<TextRow> {
    let mut groups: BTreeMap<(bool, Option<i32>), Vec<i32>> = BTreeMap::new();
    for (k, v) in rows {
        groups.entry((k.is_none(), *k)).or_default().extend(v.iter());
    }
    let text = |it: Option<i64>| it.map(|it| it.to_string());
    let parts = |((_, k), vs): ((bool, Option<i32>), Vec<i32>)| {
        let extreme = |it: Option<&i32>| text(it.map(|it| i64::from(*it)));
        let sum = (!vs.is_empty()).then(|| vs.iter().map(|it| i64::from(*it)).sum());
        let count = Some(vs.len() as i64);
        vec![
            text(k.map(i64::from)),
            text(sum),
            text(count),
            extreme(vs.iter().min()),
            extreme(vs.iter().max()),
        ]
    };
    groups.into_iter().map(parts).collect()
}

#[test]
fn empty_input_is_one_group_without_keys_and_none_with() {
    let mut grouping = grouping();
    let spec = |grouping: Grouping| MergeSpec {
        visible: (0..grouping.outputs.len()).collect(),
        grouping: Some(grouping),
        ..MergeSpec::default()
    };
    assert!(run(spec(grouping.clone()), &PARTS, &[vec![], vec![]], 1).unwrap().0.is_empty());
    grouping.keys.clear();
    grouping.outputs.truncate(5);
    let empty = row(&["NULL", "NULL", "0", "NULL", "NULL"]);
    let got = run(spec(grouping), &PARTS, &[vec![empty.clone()], vec![empty]], 1).unwrap();
    assert_eq!(got, (vec![row(&["0", "NULL", "NULL", "NULL", "NULL"])], 1));
}

#[test]
fn having_outputs_and_sort_of_groups() {
    let mut grouping = grouping();
    let column = |it| Box::new(Expression::Column(it));
    let constant = |it| Box::new(Expression::Constant(Type::Int4, Some(Value::Int4(it))));
    grouping.having =
        Some(Expression::Compare(Comparison::Greater, column(1), constant(1), Collation::Deterministic));
    let ratio = Expression::Arithmetic(super::super::Operator::Divide, column(2), constant(2));
    grouping.outputs = vec![
        Output { name: "k".into(), expression: *column(0), type_mod: -1 },
        Output { name: "half".into(), expression: ratio, type_mod: -1 },
        Output { name: "avg".into(), expression: *column(3), type_mod: -1 },
    ];
    grouping.sort = vec![SortKey::ascending(1).descending()];
    let rows = [(1, 10), (1, 20), (2, 5), (2, 6), (3, 100), (2, 8)].map(|(k, v)| (Some(k), Some(v)));
    let shards = [parts_of(&rows[..3]), parts_of(&rows[3..])];
    let spec = MergeSpec {
        grouping: Some(grouping),
        window: limit(2),
        visible: vec![0, 1, 2],
        ..MergeSpec::default()
    };
    let got = run(spec, &PARTS, &shards, 1).unwrap().0;
    assert_eq!(got, [row(&["1", "15", "15.0000000000000000"]), row(&["2", "9", "6.3333333333333333"])]);
}

#[test]
fn lists_are_merged_in_order_and_distinct_values_counted_once() {
    use AggregateFunction as F;
    let list = |function| Aggregate {
        order: vec![SortKey::ascending(1).descending()],
        delimiter: Some(b"; "[..].into()),
        ..aggregate(function, Type::Text, &[0, 1])
    };
    let grouping = Grouping {
        aggregates: vec![list(F::StringAgg), list(F::ArrayAgg)],
        outputs: outputs(2),
        ..Grouping::default()
    };
    let spec = MergeSpec { grouping: Some(grouping), visible: vec![0, 1], ..MergeSpec::default() };
    let types = [Type::Other(1009), Type::Other(1007)];
    let shards = table(&[&[&["{\"x y\",NULL,z}", "{9,7,1}"]], &[&["{b}", "{8}"]], &[&["NULL", "NULL"]]]);
    let got = run(spec, &types, &shards, 1).unwrap().0;
    assert_eq!(got, [row(&["x y; b; z", "{\"x y\",b,NULL,z}"])]);

    let distinct = |function| Aggregate { distinct: true, ..aggregate(function, Type::Int4, &[1]) };
    let grouping = Grouping {
        keys: vec![0],
        aggregates: vec![
            distinct(F::Count),
            distinct(F::Sum),
            distinct(F::ArrayAgg),
            aggregate(F::Count, Type::Int4, &[2]),
        ],
        outputs: outputs(5),
        ..Grouping::default()
    };
    let spec = MergeSpec { grouping: Some(grouping), visible: (0..5).collect(), ..MergeSpec::default() };
    let shards = table(&[
        &[&["1", "5", "2"], &["1", "7", "1"], &["2", "NULL", "4"]],
        &[&["1", "5", "3"], &["1", "1", "1"], &["1", "NULL", "1"]],
    ]);
    let got = run(spec, &[Type::Int4, Type::Int4, Type::Int8], &shards, 1).unwrap().0;
    assert_eq!(got, [row(&["1", "3", "13", "{1,5,7,NULL}", "8"]), row(&["2", "0", "NULL", "{NULL}", "4"])]);
}

#[test]
fn more_groups_than_the_budget_holds_are_refused_unless_they_come_in_order() {
    let rows: Vec<_> = (0..20_000).map(|it| (Some(it), Some(it))).collect();
    let shards = [parts_of(&rows)];
    let spec = MergeSpec { grouping: Some(grouping()), visible: vec![0], ..MergeSpec::default() };
    let refusal = run(spec.clone(), &PARTS, &shards, 100).unwrap_err();
    assert_eq!(refusal.state().0, "54000");
    assert!(refusal.hint_text().is_some());
    let sorted = MergeSpec { sorted: vec![SortKey::ascending(0)], ..spec.clone() };
    assert_eq!(run(sorted, &PARTS, &shards, 100).unwrap().1, 20_000);
    let mut grouping = grouping();
    grouping.sort = vec![SortKey::ascending(2).descending()];
    let top =
        MergeSpec { sorted: vec![SortKey::ascending(0)], grouping: Some(grouping), window: limit(2), ..spec };
    assert_eq!(run(top, &PARTS, &shards, 100).unwrap().0, [row(&["19999"]), row(&["19998"])]);
}

#[test]
fn formats_are_asked_for_as_they_are_needed() {
    let spec = MergeSpec { sorted: vec![SortKey::ascending(2)], ..shown(&[1, 0]) };
    let client = ResultFormats(vec![Format::Text, Format::Binary]);
    assert_eq!(spec.shard_formats(3, &client).0, [Format::Binary, Format::Text, Format::Binary]);
    assert_eq!(
        spec.shard_formats(3, &ResultFormats::default()).0,
        [Format::Text, Format::Text, Format::Binary]
    );
}

fn sort_cell(cell: &Option<String>) -> Option<i64> {
    cell.as_ref().map(|it| it.parse().unwrap())
}

proptest! {
    #[test]
    fn sorted_streams_are_merged_to_the_sorted_whole(
        rows in prop::collection::vec((prop::option::of(-5i64..5), "[a-c]{0,2}", 0usize..5), 0..60),
        shards in 1usize..6,
        batch in 1usize..9,
        (descending, nulls_first, offset, count, with_ties) in
            (any::<bool>(), any::<bool>(), 0u64..8, prop::option::of(0u64..20), any::<bool>()),
    ) {
        let first = SortKey { descending, nulls_first, ..SortKey::ascending(0) };
        let sort = vec![first, SortKey::ascending(1).by_bytes()];
        let compare = |a: &TextRow, b: &TextRow| {
            let (x, y) = (sort_cell(&a[0]), sort_cell(&b[0]));
            let nulls = match (x.is_none(), y.is_none()) {
                (true, false) => Some(if nulls_first { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }),
                (false, true) => Some(if nulls_first { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less }),
                _ => None,
            };
            let order = nulls.unwrap_or_else(|| if descending { y.cmp(&x) } else { x.cmp(&y) });
            order.then_with(|| a[1].cmp(&b[1]))
        };
        let mut all: Vec<TextRow> = Vec::new();
        let mut split = vec![Vec::new(); shards];
        for (k, text, shard) in rows {
            let row = vec![k.map(|it| it.to_string()), Some(text)];
            all.push(row.clone());
            split[shard % shards].push(row);
        }
        all.sort_by(compare);
        split.iter_mut().for_each(|it| it.sort_by(compare));
        let mut want: Vec<TextRow> = all.iter().skip(offset as usize).cloned().collect();
        if let Some(count) = count.map(|it| it as usize) {
            let mut end = count.min(want.len());
            while with_ties && end > 0 && end < want.len() && compare(&want[end - 1], &want[end]).is_eq() {
                end += 1;
            }
            want.truncate(end);
        }
        let spec = MergeSpec { sorted: sort, window: Window { offset, count, with_ties }, ..shown(&[0, 1]) };
        let (got, shown) = run(spec, &[Type::Int8, Type::Text], &split, batch).unwrap();
        prop_assert_eq!(shown, want.len() as u64);
        prop_assert_eq!(got, want);
    }

    #[test]
    fn aggregates_of_a_split_are_those_of_the_whole(
        rows in prop::collection::vec((prop::option::of(-3i32..3), prop::option::of(any::<i32>()), 0usize..4), 0..60),
        batch in 1usize..5,
        in_order in any::<bool>(),
    ) {
        let whole: Vec<_> = rows.iter().map(|(k, v, _)| (*k, *v)).collect();
        let part = |shard| -> Vec<_> { rows.iter().filter(|it| it.2 == shard).map(|(k, v, _)| (*k, *v)).collect() };
        let split: Vec<Vec<TextRow>> = (0..4).map(|it| parts_of(&part(it))).collect();
        let spec = MergeSpec {
            sorted: if in_order { vec![SortKey::ascending(0)] } else { Vec::new() },
            grouping: Some(grouping()),
            visible: (0..6).collect(),
            ..MergeSpec::default()
        };
        let (mut got, _) = run(spec.clone(), &PARTS, &split, batch).unwrap();
        let (mut want, _) = run(spec, &PARTS, &[parts_of(&whole)], 100).unwrap();
        if !in_order {
            got.sort();
            want.sort();
        }
        prop_assert_eq!(got, want);
    }
}

#[test]
fn partials_say_what_shards_compute() {
    let sql = |function, of| -> Vec<String> {
        let parts = partials(function, Some(of), false, Collation::Bytes).unwrap();
        parts.columns.iter().map(|it| it.sql("x", "")).collect()
    };
    use AggregateFunction as F;
    assert_eq!(sql(F::Avg, Type::Int8), ["sum(x)", "count(x)"]);
    assert_eq!(
        sql(F::StddevPop, Type::Int2),
        ["count(x)", "sum(x::numeric)", "sum(x::numeric * x::numeric)"]
    );
    assert_eq!(sql(F::StringAgg, Type::Text), ["array_agg(x)"]);
    let refused =
        |function, of, distinct, collation| partials(function, Some(of), distinct, collation).unwrap_err();
    assert_eq!(refused(F::Max, Type::Text, false, Collation::Deterministic).state().0, "0A000");
    assert_eq!(refused(F::Avg, Type::Interval, false, Collation::Deterministic).state().0, "0A000");
    assert_eq!(refused(F::Count, Type::Other(114), true, Collation::Deterministic).state().0, "0A000");
    assert!(partials(F::Sum, Some(Type::Float8), false, Collation::Deterministic).unwrap().order_of_addition);
}
