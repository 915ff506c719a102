//! Rows of four shards to one stream: in order of an integer, in order of a text, through, and grouped by hash.

// A bench whose rows cannot be merged must stop.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use keyway::merge::{
    Aggregate, AggregateFunction, Budget, Collation, Expression, Format, Grouping, MergeSpec, Merger, Output,
    Progress, ResultFormats, SortKey, Type,
};
use keyway::wire::{RowField, RowWriter, row_description};

const SHARDS: usize = 4;
const ROWS: usize = 20_000;
/// About what one read of a socket brings.
const BATCH_BYTES: usize = 16 * 1024;
const OUT_BYTES: usize = 16 * 1024;

/// The columns id bigint, name text and padding text, and each shard's batches of rows, in order of the first two.
struct Table {
    description: Vec<u8>,
    shards: Vec<Vec<Vec<u8>>>,
    bytes: u64,
}

fn table() -> Table {
    let field = |name: &'static str, of: Type| RowField {
        name: name.as_bytes(),
        table_oid: 0,
        attribute: 0,
        type_oid: of.oid(),
        type_bytes: of.bytes(),
        type_mod: -1,
        binary: true,
    };
    let mut description = Vec::new();
    let fields = [field("id", Type::Int8), field("name", Type::Text), field("padding", Type::Text)];
    row_description(&mut description, &fields);
    let mut shards = vec![vec![Vec::new()]; SHARDS];
    for id in 0..ROWS {
        let batches = &mut shards[id * 7919 % 31 % SHARDS];
        if batches.last().is_none_or(|it| it.len() > BATCH_BYTES) {
            batches.push(Vec::new());
        }
        let mut row = RowWriter::new(batches.last_mut().unwrap(), 3);
        row.value(&(id as i64).to_be_bytes());
        row.value(format!("customer-{id:08}").as_bytes());
        row.value(&[b'.'; 60]);
        row.finish();
    }
    let bytes = shards.iter().flatten().map(|it| it.len() as u64).sum();
    Table { description, shards, bytes }
}

/// Writes nothing anywhere: what is out is thrown away.
fn merge(spec: &Arc<MergeSpec>, table: &Table) -> u64 {
    let budget = Budget { memory_bytes_max: 1 << 30, hash_seed: 1 };
    let mut merger = Merger::new(Arc::clone(spec), SHARDS, ResultFormats(vec![Format::Binary]), budget);
    for shard in 0..SHARDS {
        merger.describe(shard, &table.description).unwrap();
    }
    let mut left: Vec<_> = table.shards.iter().map(|it| it.iter()).collect();
    let mut out = Vec::with_capacity(2 * OUT_BYTES);
    loop {
        let progress = merger.pull(&mut out, OUT_BYTES).unwrap();
        black_box(&out);
        out.clear();
        match progress {
            Progress::Done => return merger.rows(),
            Progress::OutFull | Progress::Paused => {}
            Progress::NeedRows => {
                for (shard, left) in left.iter_mut().enumerate() {
                    if merger.wants_rows(shard) {
                        match left.next() {
                            Some(rows) => drop(black_box(merger.feed(shard, rows).unwrap())),
                            None => merger.end(shard).unwrap(),
                        }
                    }
                }
            }
        }
    }
}

fn grouping() -> Grouping {
    let aggregate = |function, column| Aggregate {
        function,
        argument: Some(Type::Int8),
        distinct: false,
        columns: vec![column],
        order: Vec::new(),
        delimiter: None,
        collation: Collation::Bytes,
    };
    let output = |at| Output { name: "x".into(), expression: Expression::Column(at), type_mod: -1 };
    Grouping {
        keys: vec![1],
        // A count of a shard is a bigint too.
        aggregates: vec![aggregate(AggregateFunction::Count, 0), aggregate(AggregateFunction::Max, 0)],
        outputs: (0..3).map(output).collect(),
        ..Grouping::default()
    }
}

fn merges(criterion: &mut Criterion) {
    let table = table();
    let visible = vec![0, 1, 2];
    let sorted = |key| MergeSpec { sorted: vec![key], visible: visible.clone(), ..MergeSpec::default() };
    let specs = [
        ("through", MergeSpec { visible: visible.clone(), ..MergeSpec::default() }),
        ("sorted by bigint", sorted(SortKey::ascending(0))),
        ("sorted by text", sorted(SortKey::ascending(1).by_bytes())),
        ("sorted, helper dropped", MergeSpec { visible: vec![0, 1], ..sorted(SortKey::ascending(0)) }),
        (
            "grouped by hash",
            MergeSpec { grouping: Some(grouping()), visible: visible.clone(), ..MergeSpec::default() },
        ),
    ];
    for (unit, throughput) in
        [("rows", Throughput::Elements(ROWS as u64)), ("bytes", Throughput::Bytes(table.bytes))]
    {
        let mut group = criterion.benchmark_group(format!("merge {SHARDS} shards, {unit}"));
        group.throughput(throughput);
        for (name, spec) in &specs {
            let spec = Arc::new(spec.clone());
            assert_eq!(merge(&spec, &table), ROWS as u64, "{name}");
            group.bench_function(*name, |it| it.iter(|| merge(&spec, &table)));
        }
        group.finish();
    }
}

criterion_group!(benches, merges);
criterion_main!(benches);
