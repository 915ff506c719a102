use super::super::parse::Parser;
use super::super::scan::scan;
use super::*;

fn split_of(text: &str) -> Result<Split> {
    Parser::new().split(text, &scan(text).literals).split
}

fn fixed_literals(text: &str) -> Vec<u32> {
    Parser::new().split(text, &scan(text).literals).fixed_literals
}

#[track_caller]
fn check_whole(text: &str, want: &str) {
    let split = split_of(text).unwrap();
    let filled = split.whole.fill(text, &scan(text).literals).unwrap();
    assert_eq!(filled.text, want);
}

fn groups(text: &str) -> SplitGroups {
    split_of(text).unwrap().grouped.unwrap().unwrap()
}

#[test]
fn each_shard_sorts_and_shows_what_it_sorts_by() {
    check_whole(
        "SELECT a FROM t ORDER BY b DESC, a",
        "SELECT a, b AS keyway_1, a AS keyway_2 FROM t ORDER BY b DESC, a",
    );
    check_whole(
        "SELECT a + 1 AS b FROM t ORDER BY b",
        "SELECT a + 1 AS b, a + 1 AS keyway_1 FROM t ORDER BY b",
    );
    check_whole("SELECT a, c FROM t ORDER BY 2", "SELECT a, c, c AS keyway_1 FROM t ORDER BY 2");
    check_whole(
        "SELECT * FROM t ORDER BY lower(a)",
        "SELECT *, lower(a) AS keyway_1 FROM t ORDER BY lower(a)",
    );
}

#[test]
fn limits_and_offsets_add_up() {
    check_whole("SELECT a FROM t LIMIT 3", "SELECT a FROM t LIMIT 3");
    check_whole("SELECT a FROM t LIMIT 3 OFFSET 5", "SELECT a FROM t LIMIT 3::bigint + 5::bigint");
    check_whole("SELECT a FROM t LIMIT $2 OFFSET $1", "SELECT a FROM t LIMIT $1::bigint + $2::bigint");
    check_whole("SELECT a FROM t OFFSET 5", "SELECT a FROM t");
    let split = split_of("SELECT a FROM t LIMIT 3 OFFSET $1").unwrap();
    let place = |it| Some(WindowValue::Place(it));
    let count = place(Value::Literal { index: 0, negative: false, cast: None });
    let offset = place(Value::Param { number: 1, cast: None });
    let window = SplitWindow { count, offset, with_ties: false };
    assert_eq!(split.window, window);
}

#[test]
fn literals_are_fixed_only_where_they_were_looked_at() {
    assert_eq!(fixed_literals("SELECT a, 7 FROM t WHERE b = 8 ORDER BY 1"), [2]);
    assert!(fixed_literals("SELECT a FROM t WHERE b = 8 LIMIT 5").is_empty());
    // Another position might be one.
    assert_eq!(fixed_literals("SELECT a FROM t ORDER BY 5"), [0]);
}

#[test]
fn groups_are_keys_aggregates_and_what_is_made_of_them() {
    let it = groups(
        "SELECT a / 10, count(*) + 1, sum(b) FILTER (WHERE c > 3) FROM t WHERE d = 4 GROUP BY a / 10 HAVING max(b) > 5",
    );
    assert_eq!((it.keys.len(), it.aggregates.len()), (1, 3));
    assert_eq!(it.outputs[0], Computed::Key(0));
    assert!(
        matches!(&it.outputs[1], Computed::Operator(name, Some(left), _) if name == "+" && **left == Computed::Aggregate(0))
    );
    assert_eq!(it.outputs[2], Computed::Aggregate(1));
    assert_eq!(it.aggregates[1].name, "sum");
    assert!(it.aggregates[1].filter.is_some() && it.having.is_some());
    // Another value is another expression.
    let it = groups("SELECT a / 11 FROM t GROUP BY a / 10, a");
    assert_ne!(it.outputs[0], Computed::Key(0));
}

#[test]
fn what_cannot_be_split_is_named() {
    let check = |text: &str, want: &str| {
        let got = match split_of(text) {
            Err(it) => it,
            Ok(it) => it.grouped.unwrap().unwrap_err(),
        };
        assert!(got.0.contains(want), "{text}: {got:?}");
    };
    check("SELECT a, count(*) FROM t GROUP BY ROLLUP (a)", "ROLLUP");
    check("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t", "WITHIN GROUP");
    check("SELECT a FROM t LIMIT (SELECT 3)", "LIMIT");
    check("SELECT a FROM t FOR UPDATE", "FOR UPDATE");
    check("SELECT DISTINCT ON (a) a, b FROM t", "DISTINCT ON");
    check("SELECT a FROM t WHERE b = B'101'", "bit string");
}

#[test]
fn set_operations_are_sorted_by_their_columns() {
    let split =
        split_of("SELECT a AS x, b FROM t UNION ALL SELECT c, d FROM u ORDER BY 2, x LIMIT 4").unwrap();
    assert_eq!(split.set_operation, Some(SplitSet::UnionAll));
    assert_eq!(split.sort.iter().map(|it| it.column).collect::<Vec<_>>(), [Some(1), Some(0)]);
    assert_eq!(split_of("SELECT a FROM t UNION SELECT b FROM u").unwrap().distinct, SplitDistinct::Rows);
}
