//! The scanner is held against libpg_query's own, token by token.

use pg_query::protobuf::{KeywordKind, Token as PgToken};
use proptest::prelude::*;

use super::*;
use crate::sql::lexer::Token;

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut lexer = Lexer::new(text.as_bytes());
    let mut found = Vec::new();
    while let Some(token) = lexer.token().ok()? {
        found.push(token);
    }
    Some(found)
}

/// libpg_query's tokens in our words; `None` where its scanner fails.
fn theirs(text: &str) -> Option<Vec<(TokenKind, usize, usize)>> {
    let result = pg_query::scan(text).ok()?;
    let kind = |it: &pg_query::protobuf::ScanToken, written: &str| match it.token() {
        PgToken::SqlComment | PgToken::CComment => None,
        PgToken::Nchar if written.len() == 1 => Some(TokenKind::NationalPrefix),
        _ if it.keyword_kind() != KeywordKind::NoKeyword => Some(TokenKind::Word),
        PgToken::Ident if written.starts_with('"') => Some(TokenKind::QuotedName),
        PgToken::Ident => Some(TokenKind::Word),
        PgToken::Uident => Some(TokenKind::UnicodeName),
        PgToken::Iconst => Some(TokenKind::Literal(LiteralKind::Integer)),
        // An integer beyond 32 bits is an FCONST too.
        PgToken::Fconst if written.contains('.') => Some(TokenKind::Literal(LiteralKind::Float)),
        PgToken::Fconst if is_radix(written) => Some(TokenKind::Literal(LiteralKind::Integer)),
        PgToken::Fconst if written.contains(['e', 'E']) => Some(TokenKind::Literal(LiteralKind::Float)),
        PgToken::Fconst => Some(TokenKind::Literal(LiteralKind::Integer)),
        PgToken::Sconst => Some(TokenKind::Literal(match written.as_bytes()[0] {
            b'\'' => LiteralKind::String,
            b'$' => LiteralKind::DollarString,
            _ => LiteralKind::EscapeString,
        })),
        PgToken::Usconst => Some(TokenKind::Literal(LiteralKind::UnicodeString)),
        PgToken::Bconst => Some(TokenKind::Literal(LiteralKind::Bits)),
        PgToken::Xconst => Some(TokenKind::Literal(LiteralKind::HexBits)),
        PgToken::Param => Some(TokenKind::Param),
        _ if ["(", ")", "[", "]", ",", ";"].contains(&written) => Some(TokenKind::Punctuation),
        _ => Some(TokenKind::Operator),
    };
    let found = result.tokens.iter().filter_map(|it| {
        let (start, end) = (it.start as usize, it.end as usize);
        Some((kind(it, &text[start..end])?, start, end))
    });
    Some(found.collect())
}

fn is_radix(written: &str) -> bool {
    matches!(written.as_bytes(), [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..])
}

/// Where libpg_query's scanner takes the text, ours finds the same tokens. Where it fails, ours may take
/// the text only if escapes or encoding are at fault, which it does not look into.
fn agrees(text: &str) {
    let ours = tokens(text);
    let Some(theirs) = theirs(text) else { return };
    // What stops being a token of the grammar is an error here at once.
    let strays =
        theirs.iter().any(|(_, start, end)| ["$", "\\", "{", "}", "\u{1}"].contains(&&text[*start..*end]));
    if strays {
        assert_eq!(ours, None, "{text:?}");
        return;
    }
    let ours = ours.unwrap_or_else(|| panic!("not scanned: {text:?}"));
    let ours: Vec<_> = ours.into_iter().map(|it| (it.kind, it.start, it.end)).collect();
    assert_eq!(ours, theirs, "{text:?}");
}

#[test]
fn corpus_is_scanned_as_libpg_query_does() {
    let corpus = include_str!("corpus.sql");
    let texts: Vec<&str> = corpus.split("\n\n").filter(|it| !it.trim().is_empty()).collect();
    assert!(texts.len() >= 200, "{} texts", texts.len());
    for text in &texts {
        agrees(text);
        // Cut anywhere: the scanner must stop where PostgreSQL's does.
        (0..text.len()).filter(|at| text.is_char_boundary(*at)).for_each(|at| agrees(&text[..at]));
    }
    let taken = texts.iter().filter(|it| theirs(it).is_some()).count();
    assert!(taken * 10 >= texts.len() * 9, "{taken} of {} are statements", texts.len());
}

#[test]
fn malformed_texts_are_malformed_for_both() {
    for text in [
        "SELECT 'open",
        "SELECT E'open\\'",
        "SELECT \"open",
        "SELECT \"\"",
        "SELECT $$open",
        "SELECT $a$x$b$",
        "SELECT /* open",
        "SELECT /* /* */",
        "SELECT 1a",
        "SELECT 0x",
        "SELECT 0b12",
        "SELECT 0o8",
        "SELECT 1_",
        "SELECT 1__0",
        "SELECT 1e",
        "SELECT 1e+",
        "SELECT 1.5x",
        "SELECT 0x1g",
        "SELECT U&\"",
        "SELECT B'1",
        "SELECT 100_",
        "SELECT 1._5",
        "SELECT .5_",
    ] {
        assert!(theirs(text).is_none(), "libpg_query takes {text:?}");
        assert!(tokens(text).is_none(), "taken: {text:?}");
        assert!(!scan(text).well_formed, "{text:?}");
    }
}

#[test]
fn names_of_every_length_are_folded_as_ascii() {
    let bytes: Vec<u8> = (0..=255).chain(0..=255).collect();
    for length in 0..40 {
        for name in bytes.windows(length.max(1)).map(|it| &it[..length]) {
            let mut room = vec![0; length + 1];
            super::fold(name, &mut room);
            assert_eq!(room[..length], name.to_ascii_lowercase());
        }
    }
}

fn same(a: &str, b: &str) {
    assert_eq!(scan(a).fingerprint, scan(b).fingerprint, "{a:?} and {b:?}");
}

fn differ(a: &str, b: &str) {
    assert_ne!(scan(a).fingerprint, scan(b).fingerprint, "{a:?} and {b:?}");
}

#[test]
fn fingerprint_forgets_values_space_comments_and_case() {
    same("SELECT * FROM t WHERE id = 7", "select *\n from T  where ID=8 -- seven");
    same("SELECT 'a', 1.5, $$x$$", "SELECT 'it''s'\n 'long', 2e9, $q$y$$z$q$");
    same("SELECT /* a /* b */ c */ 1", "SELECT 2");
    same("SELECT E'\\'' , 0x1F", "SELECT E'' , 1_000");
    same("SELECT N'a'", "SELECT nchar 'b'");
    same("SELECT 3000000000", "SELECT 1");
    same("SELECT a=-1", "SELECT a = - 2");
}

#[test]
fn fingerprint_keeps_what_has_meaning() {
    differ("SELECT 1", "SELECT '1'");
    differ("SELECT 1", "SELECT 1.0");
    differ("SELECT '1'", "SELECT E'1'");
    differ("SELECT B'1'", "SELECT X'1'");
    differ("SELECT $1", "SELECT $2");
    differ("SELECT $1", "SELECT 1");
    differ("SELECT a", "SELECT \"a\"");
    differ("SELECT \"a\"", "SELECT \"A\"");
    differ("SELECT \"a b\"", "SELECT \"a\" b");
    differ("SELECT a.b", "SELECT a b");
    differ("SELECT N'a'", "SELECT n 'a'");
    differ("SELECT a + @-b", "SELECT a +@-b");
    differ("SELECT a <<= b", "SELECT a < <= b");
    differ("SELECT ab", "SELECT a b");
    differ("SELECT é", "SELECT É");
    differ("SELECT 1", "SELECT -1");
    differ("SELECT a::int", "SELECT a : :int");
    differ("SELECT f(1)", "SELECT f(1, 2)");
    differ("SELECT 'a' 'b'", "SELECT 'a'\n'b'");
}

#[test]
fn a_long_form_hashes_as_a_short_one_does() {
    // Forms around the buffer's end: the streaming hash and the one-shot hash must agree.
    for length in 480..540 {
        let text = format!("SELECT {}", "x".repeat(length));
        let form = format!("select {} ", "x".repeat(length));
        assert_eq!(scan(&text).fingerprint, xxh3_128(form.as_bytes()), "{length}");
    }
}

#[test]
fn literals_are_found_with_their_values() {
    let text = "SELECT -7, 'it''s' 'x', E'a\\n\\x41\\u00e9', $$raw'$$, 1_000, 0x1F, .5, 'a'\n -- c\n 'b' FROM t WHERE b = B'1'";
    let scan = scan(text);
    let values: Vec<Option<String>> =
        scan.literals.iter().map(|it| it.value(text).map(|it| it.into_owned())).collect();
    let want = ["7", "it's", "x", "a\nAé", "raw'", "1000", "31", ".5", "ab"].map(|it| Some(it.to_owned()));
    assert_eq!(values[..9], want);
    assert_eq!(values[9], None);
    assert_eq!(scan.literals.len(), 10);
}

#[test]
fn eight_literals_need_no_allocation() {
    let text = "SELECT * FROM t WHERE id IN (1, 2, 3, 4, 5, 6, 7, 8)";
    let scan = scan(text);
    assert_eq!(scan.literals.len(), 8);
    assert!(!scan.literals.spilled());
}

#[rustfmt::skip]
const PIECES: &[&str] = &[
    " ", "\n", "\t", "--c\n", "/* x */", "/*/**/*/", "'a'", "'it''s'", "e'\\''", "E'\\\\'", "U&'d\\0061'",
    "b'10'", "X'1F'", "N'n'", "n", "e", "u&\"a\"", "\"q\"\"q\"", "$$d$$", "$t$d$$e$t$", "$1", "$", "1",
    "1.5", ".5", "1.", "1e3", "1E-3", "1_0", "0x1f", "0b1", "..", ".", "::", ":=", ":", "=>", "<=", ">=",
    "<>", "!=", "=", "+", "-", "*", "/", "%", "^", "<", ">", "~", "!", "@", "#", "&", "|", "`", "?", "(",
    ")", "[", "]", ",", ";", "select", "FROM", "x", "_y1$", "é", "'", "\"", "\\", "e'", "/*", "*/", "--",
    "\r", "u&", "0", "x'",
];

/// Pieces that meet in unforeseen ways: what matters is where one token ends and the next begins.
fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(PIECES);
    prop_oneof![8 => fixed.prop_map(str::to_owned), 1 => "[ -~]{1,4}", 1 => "[0-9_.exb]{1,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pieces_are_scanned_as_libpg_query_does(pieces in prop::collection::vec(piece(), 1..14)) {
        agrees(&pieces.concat());
    }

    #[test]
    fn one_fingerprint_is_one_list_of_tokens(
        a in prop::collection::vec(piece(), 1..6),
        b in prop::collection::vec(piece(), 1..6),
    ) {
        let (a, b) = (a.concat(), b.concat());
        let form = |text: &str| tokens(text).map(|it| it.iter().map(|it| match it.kind {
            TokenKind::Literal(kind) => format!("{kind:?}"),
            TokenKind::Word => text[it.start..it.end].to_ascii_lowercase(),
            TokenKind::NationalPrefix => "nchar".into(),
            _ => text[it.start..it.end].to_owned(),
        }).collect::<Vec<_>>());
        let (scan_a, scan_b) = (scan(&a), scan(&b));
        if scan_a.well_formed && scan_b.well_formed {
            prop_assert_eq!(scan_a.fingerprint == scan_b.fingerprint, form(&a) == form(&b), "{:?} {:?}", a, b);
        }
    }

    #[test]
    fn any_text_is_survived(text in "\\PC{0,60}") {
        let scan = scan(&text);
        for literal in &scan.literals {
            let _ = literal.value(&text);
        }
    }

    #[test]
    fn values_are_what_the_parser_reads(piece in prop_oneof![
        "'([ -&(-~é]|''){0,8}'", "E'([ -&(-\\[\\]-~]|''|\\\\[bfnrt'x0-7\\\\]|\\\\u00[4-7][0-9]){0,6}'",
        "[0-9]{1,5}", "[0-9]_[0-9]{1,3}", "0x[0-9a-f]{1,6}", "\\$a\\$[ -#%-~]{0,8}\\$a\\$",
    ]) {
        let text = format!("SELECT {piece}");
        let found = scan(&text);
        let parsed = pg_query::parse(&text, 0);
        if let (Ok(parsed), [literal]) = (parsed, &found.literals[..]) {
            let constant = constant(&parsed.protobuf);
            // An integer of the tree has lost its leading zeros.
            let plain = |it: String| match it.bytes().all(|it| it.is_ascii_digit()) && piece.as_bytes()[0].is_ascii_digit() {
                true => it.parse::<u64>().map_or(it, |it| it.to_string()),
                false => it,
            };
            let value = literal.value(&text).map(|it| plain(it.into_owned()));
            prop_assert_eq!(value, constant, "{}", text);
        }
    }
}

/// The value of `SELECT constant`.
fn constant(tree: &pg_query::protobuf::ParseResult) -> Option<String> {
    use pg_query::NodeEnum as N;
    use pg_query::protobuf::a_const::Val;
    let N::SelectStmt(select) = tree.stmts.first()?.stmt.as_ref()?.node.as_ref()? else { return None };
    let N::ResTarget(target) = select.target_list.first()?.node.as_ref()? else { return None };
    let N::AConst(constant) = target.val.as_ref()?.node.as_ref()? else { return None };
    match constant.val.as_ref()? {
        Val::Ival(it) => Some(it.ival.to_string()),
        Val::Fval(it) => Some(it.fval.clone()),
        Val::Sval(it) => Some(it.sval.clone()),
        _ => None,
    }
}
