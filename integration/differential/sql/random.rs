//! Random statements over the three schemas: joins, groupings, sublinks, set operations, NULLs, odd types.
//! The same seed makes the same statements.

use super::answer::{Case, Step};
use crate::harness::Xorshift;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    Int,
    Numeric,
    Float,
    Text,
    Bool,
    Date,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Bytea,
}

struct Table {
    name: &'static str,
    /// The shard key first, then the rest of what makes a row unique; empty where nothing does.
    key: &'static [&'static str],
    columns: &'static [(&'static str, Type)],
}

use Type::*;

const TABLES: [Table; 9] = [
    Table {
        name: "users",
        key: &["user_id"],
        columns: &[
            ("user_id", Int),
            ("name", Text),
            ("country", Text),
            ("age", Int),
            ("score", Numeric),
            ("active", Bool),
            ("joined", Date),
        ],
    },
    Table {
        name: "orders",
        key: &["user_id", "order_id"],
        columns: &[
            ("user_id", Int),
            ("order_id", Int),
            ("amount", Numeric),
            ("placed_at", Timestamp),
            ("status", Text),
            ("note", Text),
        ],
    },
    Table {
        name: "items",
        key: &["user_id", "order_id", "line"],
        columns: &[
            ("user_id", Int),
            ("order_id", Int),
            ("line", Int),
            ("sku", Text),
            ("qty", Int),
            ("price", Numeric),
        ],
    },
    Table {
        name: "events",
        key: &["occurred_at"],
        columns: &[
            ("occurred_at", Timestamptz),
            ("user_id", Int),
            ("kind", Text),
            ("weight", Float),
            ("span", Interval),
            ("payload", Bytea),
        ],
    },
    Table {
        name: "pgbench_accounts",
        key: &["aid"],
        columns: &[("aid", Int), ("bid", Int), ("abalance", Int), ("filler", Text)],
    },
    Table {
        name: "pgbench_tellers",
        key: &["bid", "tid"],
        columns: &[("bid", Int), ("tid", Int), ("tbalance", Int)],
    },
    Table {
        name: "tenants",
        key: &["tenant_id"],
        columns: &[("tenant_id", Uuid), ("name", Text), ("plan", Text), ("created", Timestamptz)],
    },
    Table {
        name: "projects",
        key: &["tenant_id", "project_id"],
        columns: &[
            ("tenant_id", Uuid),
            ("project_id", Int),
            ("title", Text),
            ("budget", Int),
            ("starts", Date),
        ],
    },
    Table {
        name: "tasks",
        key: &["tenant_id", "project_id", "task_id"],
        columns: &[
            ("tenant_id", Uuid),
            ("project_id", Int),
            ("task_id", Int),
            ("title", Text),
            ("state", Text),
            ("due", Date),
            ("effort", Interval),
            ("done", Bool),
            ("hours", Numeric),
        ],
    },
];

/// Tables that meet on one shard by the first column of each.
const FAMILIES: [&[usize]; 2] = [&[0, 1, 2], &[6, 7, 8]];
/// A reference table, the column that joins it, and whose column that is.
const LOOKUPS: [(&str, &str, usize, &str); 2] =
    [("countries", "code", 0, "country"), ("plans", "plan", 6, "plan")];

pub struct Generator {
    random: Xorshift,
    made: u64,
}

/// What a query's FROM offers, with an alias each.
struct Source {
    from: String,
    columns: Vec<(String, Type)>,
    /// A row of the source is known by these.
    unique: Vec<String>,
    /// The shard key, and its type.
    key: (String, Type),
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator { random: Xorshift(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1), made: 0 }
    }

    pub fn case(&mut self) -> Case {
        self.made += 1;
        let (sql, ordered) = match self.below(12) {
            0..=2 => self.plain(),
            3..=5 => self.grouped(),
            6 => self.aggregated(),
            7 => self.set_operation(),
            8 => self.with_sublink(),
            9 => self.windowed(),
            10 => self.distinct(),
            _ => self.nested(),
        };
        let step = Step { sql: sql.clone(), params: None, ordered };
        Case { name: format!("random:{}", self.made), text: sql, steps: vec![step] }
    }

    fn below(&mut self, count: usize) -> usize {
        ((self.random.next() >> 33) as usize) % count.max(1)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn source(&mut self) -> Source {
        if self.chance(60) {
            let index = self.below(TABLES.len());
            return single(index, TABLES[index].name.to_owned(), "");
        }
        let family = FAMILIES[self.below(FAMILIES.len())];
        let left = self.below(family.len() - 1);
        let right = left + 1 + self.below(family.len() - 1 - left);
        let (left, right) = (family[left], family[right]);
        let (mut a, b) = (single(left, String::new(), "a."), single(right, String::new(), "b."));
        let (l, r) = (&TABLES[left], &TABLES[right]);
        let join = self.one(&["JOIN", "LEFT JOIN", "JOIN"]);
        let mut on = format!("a.{} = b.{}", l.key[0], r.key[0]);
        if l.key.len() > 1 && self.chance(70) {
            on.push_str(&format!(" AND a.{} = b.{}", l.key[1], r.key[1]));
        }
        a.from = format!("{} a {join} {} b ON {on}", l.name, r.name);
        a.columns.extend(b.columns);
        a.unique.extend(b.unique);
        if let Some((table, code, _, column)) =
            LOOKUPS.iter().find(|it| it.2 == left).copied().filter(|_| self.chance(30))
        {
            a.from.push_str(&format!(" LEFT JOIN {table} c ON c.{code} = a.{column}"));
            a.columns.push((format!("c.{code}"), Text));
        }
        a
    }

    fn constant(&mut self, of: Type) -> String {
        match of {
            Int => (self.below(90) as i64 - 5).to_string(),
            Numeric => format!("{}.{}", self.below(60), self.below(100)),
            Float => format!("{}.25", self.below(5)),
            Text => format!(
                "'{}'",
                self.one(&["adam", "paid", "user 3", "NL", "task 2", "view", "a1", "", "Zoë 5"])
            ),
            Bool => self.one(&["true", "false"]).to_owned(),
            Date => format!("date '2026-01-{:02}'", self.below(28) + 1),
            Timestamp => format!("timestamp '2026-01-{:02} 10:00'", self.below(28) + 1),
            Timestamptz => format!("timestamptz '2026-01-{:02} 00:00:00+00'", self.below(28) + 1),
            Interval => format!("interval '{} minutes'", self.below(300)),
            Uuid => format!("'00000000-0000-4000-8000-{:012x}'", (self.below(26) + 1) * 7919),
            Bytea => format!("'\\x00{:02x}'", self.below(130)),
        }
    }

    fn predicate(&mut self, source: &Source) -> String {
        let (column, of) = source.columns[self.below(source.columns.len())].clone();
        match self.below(9) {
            0 => format!("{column} IS NULL"),
            1 => format!("{column} IS NOT NULL"),
            2 => {
                let values: Vec<String> = (0..=self.below(3)).map(|_| self.constant(of)).collect();
                format!("{column} IN ({})", values.join(", "))
            }
            3 if of != Bool => format!("{column} BETWEEN {} AND {}", self.constant(of), self.constant(of)),
            4 if of == Text => format!("{column} LIKE '{}'", self.one(&["%a%", "user %", "t%", "_d%"])),
            5 => {
                let (key, of) = source.key.clone();
                format!("{key} = {}", self.constant(of))
            }
            6 => format!("{column} IS DISTINCT FROM {}", self.constant(of)),
            7 => format!("NOT ({column} = {})", self.constant(of)),
            _ => format!("{column} {} {}", self.one(&["=", "<", ">", "<=", ">=", "<>"]), self.constant(of)),
        }
    }

    fn filter(&mut self, source: &Source, chance: usize) -> String {
        if !self.chance(chance) {
            return String::new();
        }
        let mut text = format!(" WHERE {}", self.predicate(source));
        while self.chance(40) {
            text.push_str(&format!(" {} {}", self.one(&["AND", "AND", "OR"]), self.predicate(source)));
        }
        text
    }

    fn expression(&mut self, source: &Source) -> String {
        let (column, of) = source.columns[self.below(source.columns.len())].clone();
        if self.chance(60) {
            return column;
        }
        match of {
            Int => match self.below(5) {
                0 => format!("{column} + {}", self.below(9)),
                1 => format!("{column} % 7"),
                2 => format!("{column} / 3"),
                3 => format!("-{column}"),
                _ => format!("CASE WHEN {column} > 20 THEN 'big' ELSE 'small' END"),
            },
            Numeric => match self.below(4) {
                0 => format!("{column} * 1.5"),
                1 => format!("{column} / 7"),
                2 => format!("round({column}, 1)"),
                _ => format!("coalesce({column}, -1.0)"),
            },
            Text => match self.below(4) {
                0 => format!("upper({column})"),
                1 => format!("length({column})"),
                2 => format!("{column} || '!'"),
                _ => format!("coalesce({column}, 'none')"),
            },
            Bool => format!("NOT {column}"),
            Date => format!("{column} + 3"),
            Timestamp | Timestamptz => format!("date_trunc('day', {column})"),
            Interval => format!("{column} * 2"),
            Float => format!("{column} * 2"),
            Uuid | Bytea => column,
        }
    }

    fn direction(&mut self) -> &'static str {
        self.one(&["", "", " ASC", " DESC", " DESC NULLS LAST", " ASC NULLS FIRST", " DESC NULLS FIRST"])
    }

    /// ORDER BY that leaves no two rows alike, with a LIMIT now and then; `None` where nothing is unique.
    fn total_order(&mut self, source: &Source) -> String {
        let mut keys = Vec::new();
        for _ in 0..self.below(3) {
            keys.push(format!("{}{}", self.expression(source), self.direction()));
        }
        for it in &source.unique {
            keys.push(format!("{it}{}", self.direction()));
        }
        // A position would be meant by a number alone.
        keys.retain(|it| !it.starts_with(|it: char| it.is_ascii_digit()));
        format!(" ORDER BY {}{}", keys.join(", "), self.limit())
    }

    fn limit(&mut self) -> String {
        match self.below(6) {
            0 => format!(" LIMIT {}", self.below(12)),
            1 => format!(" LIMIT {} OFFSET {}", self.below(12), self.below(9)),
            2 => format!(" OFFSET {} ROWS FETCH FIRST {} ROWS ONLY", self.below(6), self.below(8) + 1),
            _ => String::new(),
        }
    }

    fn plain(&mut self) -> (String, bool) {
        let source = self.source();
        let columns: Vec<String> = (0..=self.below(4)).map(|_| self.expression(&source)).collect();
        let columns = if self.chance(10) { "*".to_owned() } else { columns.join(", ") };
        let filter = self.filter(&source, 60);
        let select = format!("SELECT {columns} FROM {}{filter}", source.from);
        if self.chance(50) {
            (format!("{select}{}", self.total_order(&source)), true)
        } else {
            (select, false)
        }
    }

    fn aggregate(&mut self, source: &Source) -> String {
        let (column, of) = source.columns[self.below(source.columns.len())].clone();
        let number = matches!(of, Int | Numeric);
        let call = match self.below(10) {
            0 => "count(*)".to_owned(),
            1 => format!("count({column})"),
            2 => format!("count(DISTINCT {column})"),
            3 | 4 if number => format!("sum({column})"),
            5 if number => format!("avg({column})"),
            6 if number => {
                format!("{}({column})", self.one(&["stddev", "var_pop", "variance", "stddev_pop"]))
            }
            7 if of == Bool => format!("{}({column})", self.one(&["bool_and", "bool_or", "every"])),
            8 if of == Int => format!("{}({column})", self.one(&["bit_and", "bit_or"])),
            _ if !matches!(of, Bool | Uuid | Bytea) => format!("{}({column})", self.one(&["min", "max"])),
            _ => format!("count({column})"),
        };
        if self.chance(15) { format!("{call} FILTER (WHERE {})", self.predicate(source)) } else { call }
    }

    fn outputs(&mut self, source: &Source) -> Vec<String> {
        let mut outputs = Vec::new();
        for _ in 0..=self.below(3) {
            let call = self.aggregate(source);
            outputs.push(match self.below(8) {
                0 if call.starts_with("count") => format!("{call} + 1"),
                1 if call.starts_with("count") => format!("{call} * 2 - count(*)"),
                2 if call.starts_with("sum") => format!("coalesce({call}, 0)"),
                _ => call,
            });
        }
        outputs
    }

    fn grouped(&mut self) -> (String, bool) {
        let source = self.source();
        let mut keys: Vec<String> = (0..=self.below(2)).map(|_| self.expression(&source)).collect();
        keys.sort();
        keys.dedup();
        let outputs = self.outputs(&source);
        let filter = self.filter(&source, 40);
        let having = match self.below(5) {
            0 => format!(" HAVING count(*) > {}", self.below(4)),
            1 => " HAVING count(*) % 2 = 0".to_owned(),
            _ => String::new(),
        };
        let all: Vec<String> = keys.iter().chain(&outputs).cloned().collect();
        let order: Vec<String> = keys.iter().map(|it| format!("{it}{}", self.direction())).collect();
        let (keys, all) = (keys.join(", "), all.join(", "));
        let select = format!("SELECT {all} FROM {}{filter} GROUP BY {keys}{having}", source.from);
        if self.chance(50) {
            (format!("{select} ORDER BY {}{}", order.join(", "), self.limit()), true)
        } else {
            (select, false)
        }
    }

    fn aggregated(&mut self) -> (String, bool) {
        let source = self.source();
        let outputs = self.outputs(&source).join(", ");
        let filter = self.filter(&source, 60);
        (format!("SELECT {outputs} FROM {}{filter}", source.from), false)
    }

    fn distinct(&mut self) -> (String, bool) {
        let source = self.source();
        let filter = self.filter(&source, 30);
        if self.chance(30) {
            let on = source.columns[self.below(source.columns.len())].0.clone();
            let rest = source.unique.join(", ");
            let text = format!(
                "SELECT DISTINCT ON ({on}) {on}, {rest} FROM {}{filter} ORDER BY {on}, {rest}",
                source.from
            );
            return (text, true);
        }
        let columns: Vec<String> = (0..=self.below(2)).map(|_| self.expression(&source)).collect();
        let list = columns.join(", ");
        let select = format!("SELECT DISTINCT {list} FROM {}{filter}", source.from);
        if self.chance(50) {
            let order: Vec<String> =
                (1..=columns.len()).map(|it| format!("{it}{}", self.direction())).collect();
            (format!("{select} ORDER BY {}{}", order.join(", "), self.limit()), true)
        } else {
            (select, false)
        }
    }

    fn set_operation(&mut self) -> (String, bool) {
        let operation = self.one(&["UNION ALL", "UNION ALL", "UNION", "INTERSECT", "EXCEPT"]);
        let (a, b) = (self.below(TABLES.len()), self.below(TABLES.len()));
        let (a, b) = (single(a, TABLES[a].name.to_owned(), ""), single(b, TABLES[b].name.to_owned(), ""));
        let of = self.one(&[&Int, &Text]);
        let pick = |it: &Source| it.columns.iter().find(|it| it.1 == *of).map(|it| it.0.clone());
        let (Some(left), Some(right)) = (pick(&a), pick(&b)) else { return self.plain() };
        let (f, g) = (self.filter(&a, 70), self.filter(&b, 70));
        let text =
            format!("SELECT {left} AS x FROM {}{f} {operation} SELECT {right} FROM {}{g}", a.from, b.from);
        if self.chance(40) { (format!("{text} ORDER BY x"), true) } else { (text, false) }
    }

    fn with_sublink(&mut self) -> (String, bool) {
        let family = FAMILIES[self.below(FAMILIES.len())];
        let (outer, inner) = (family[0], family[1 + self.below(family.len() - 1)]);
        let (a, b) =
            (single(outer, format!("{} a", TABLES[outer].name), "a."), single(inner, String::new(), "b."));
        let (o, i) = (&TABLES[outer], &TABLES[inner]);
        let inner_filter = self.predicate(&b);
        let link = format!("b.{} = a.{}", i.key[0], o.key[0]);
        let column = a.columns[self.below(a.columns.len())].0.clone();
        let text = match self.below(5) {
            0 => format!(
                "SELECT {column} FROM {} WHERE EXISTS (SELECT FROM {} b WHERE {link} AND {inner_filter})",
                a.from, i.name
            ),
            1 => format!(
                "SELECT {column} FROM {} WHERE NOT EXISTS (SELECT FROM {} b WHERE {link} AND {inner_filter})",
                a.from, i.name
            ),
            2 => format!(
                "SELECT {column} FROM {} WHERE a.{} IN (SELECT b.{} FROM {} b WHERE {inner_filter})",
                a.from, o.key[0], i.key[0], i.name
            ),
            3 => format!(
                "SELECT {column}, (SELECT count(*) FROM {} b WHERE {link} AND {inner_filter}) FROM {}",
                i.name, a.from
            ),
            _ => format!(
                "SELECT {column}, s.n FROM {} CROSS JOIN LATERAL (SELECT count(*) AS n FROM {} b WHERE {link}) s",
                a.from, i.name
            ),
        };
        (text, false)
    }

    fn windowed(&mut self) -> (String, bool) {
        let index = self.below(TABLES.len());
        let source = single(index, TABLES[index].name.to_owned(), "");
        let rest = source.unique.join(", ");
        let partition = if self.chance(80) { source.key.0.clone() } else { source.columns[1].0.clone() };
        let call = self.one(&["row_number()", "rank()", "count(*)", "lag(1)", "dense_rank()"]);
        let text = format!(
            "SELECT {rest}, {call} OVER (PARTITION BY {partition} ORDER BY {rest}) FROM {}{}",
            source.from,
            self.filter(&source, 40)
        );
        (text, false)
    }

    fn nested(&mut self) -> (String, bool) {
        let source = self.source();
        let key = source.key.0.clone();
        let filter = self.filter(&source, 50);
        let inner = format!("SELECT {key} AS k, count(*) AS n FROM {}{filter} GROUP BY {key}", source.from);
        let text = match self.below(4) {
            0 => format!("SELECT k, n FROM ({inner}) s WHERE n > 1"),
            1 => format!("WITH s AS ({inner}) SELECT k, n + 1 FROM s ORDER BY k"),
            2 => format!("SELECT max(n), count(*) FROM ({inner}) s"),
            _ => format!("SELECT n, count(*) FROM ({inner}) s GROUP BY n ORDER BY n"),
        };
        let ordered = text.contains("ORDER BY k") || text.contains("ORDER BY n");
        (text, ordered)
    }
}

fn single(index: usize, from: String, alias: &str) -> Source {
    let table = &TABLES[index];
    Source {
        from,
        columns: table.columns.iter().map(|it| (format!("{alias}{}", it.0), it.1)).collect(),
        unique: table.key.iter().map(|it| format!("{alias}{it}")).collect(),
        key: (format!("{alias}{}", table.key[0]), table.columns[0].1),
    }
}
