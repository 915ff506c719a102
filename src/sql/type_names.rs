//! Built-in types by the names that SQL has for them (manual, "Data Types"), as PREPARE declares its parameters.

use super::lexer::{Token, TokenKind};

/// Name in `pg_type`, oid, oid of the array (`pg_type.dat`).
const TYPES: [(&str, u32, u32); 34] = [
    ("bool", 16, 1000),
    ("bytea", 17, 1001),
    ("char", 18, 1002),
    ("name", 19, 1003),
    ("int8", 20, 1016),
    ("int2", 21, 1005),
    ("int4", 23, 1007),
    ("text", 25, 1009),
    ("oid", 26, 1028),
    ("json", 114, 199),
    ("xml", 142, 143),
    ("point", 600, 1017),
    ("box", 603, 1020),
    ("cidr", 650, 651),
    ("float4", 700, 1021),
    ("float8", 701, 1022),
    ("macaddr8", 774, 775),
    ("money", 790, 791),
    ("macaddr", 829, 1040),
    ("inet", 869, 1041),
    ("bpchar", 1042, 1014),
    ("varchar", 1043, 1015),
    ("date", 1082, 1182),
    ("time", 1083, 1183),
    ("timestamp", 1114, 1115),
    ("timestamptz", 1184, 1185),
    ("interval", 1186, 1187),
    ("timetz", 1266, 1270),
    ("bit", 1560, 1561),
    ("varbit", 1562, 1563),
    ("numeric", 1700, 1231),
    ("regclass", 2205, 2210),
    ("uuid", 2950, 2951),
    ("jsonb", 3802, 3807),
];

/// What the grammar makes of its keywords (`SimpleTypename` in gram.y).
const KEYWORDS: [(&str, &str); 22] = [
    ("int", "int4"),
    ("integer", "int4"),
    ("smallint", "int2"),
    ("bigint", "int8"),
    ("real", "float4"),
    ("float", "float8"),
    ("double precision", "float8"),
    ("decimal", "numeric"),
    ("dec", "numeric"),
    ("boolean", "bool"),
    ("char", "bpchar"),
    ("character", "bpchar"),
    ("nchar", "bpchar"),
    ("char varying", "varchar"),
    ("character varying", "varchar"),
    ("national character varying", "varchar"),
    ("bit varying", "varbit"),
    ("time without time zone", "time"),
    ("time with time zone", "timetz"),
    ("timestamp without time zone", "timestamp"),
    ("timestamp with time zone", "timestamptz"),
    ("national character", "bpchar"),
];

/// The oids of types apart by commas; `None` where one is not told by its name alone, such as a user's own. What
/// stands in parentheses says nothing of a parameter (`PrepareQuery` in prepare.c takes the type alone).
pub(super) fn type_oids(text: &str, tokens: &[Token]) -> Option<Vec<u32>> {
    let (mut oids, mut one, mut depth) = (Vec::new(), Vec::new(), 0usize);
    for token in tokens {
        let written = text.get(token.start..token.end)?;
        match written {
            "(" => depth += 1,
            ")" => depth = depth.checked_sub(1)?,
            // Of FLOAT the number names the type.
            _ if depth > 0 && one.iter().any(|it: &(String, bool)| it.0 == "float") => return None,
            _ if depth > 0 => {}
            "," => oids.push(type_oid(&std::mem::take(&mut one))?),
            _ => one.push(match token.kind {
                TokenKind::Word => (written.to_ascii_lowercase(), false),
                TokenKind::QuotedName => (written.trim_matches('"').to_owned(), true),
                _ => (written.to_owned(), false),
            }),
        }
    }
    oids.push(type_oid(&one)?);
    (depth == 0).then_some(oids)
}

/// Of the words and marks of one type, each with whether it stands in quotes.
fn type_oid(words: &[(String, bool)]) -> Option<u32> {
    let (name, array) = match words {
        [name @ .., open, close] if open.0 == "[" && close.0 == "]" => (name, true),
        name => (name, false),
    };
    let (name, quoted) = match name {
        [schema, dot, name] if schema.0 == "pg_catalog" && dot.0 == "." => (name.0.clone(), true),
        [name] => (name.0.clone(), name.1),
        words if words.iter().any(|it| it.1) => return None,
        words => (words.iter().map(|it| &*it.0).collect::<Vec<_>>().join(" "), false),
    };
    let keyword = KEYWORDS.iter().find(|it| it.0 == name && !quoted);
    let name = keyword.map_or(&*name, |it| it.1);
    TYPES.iter().find(|it| it.0 == name).map(|it| if array { it.2 } else { it.1 })
}
