use super::*;

fn form(format: CopyFormat) -> CopyForm {
    let csv = format == CopyFormat::Csv;
    CopyForm {
        format,
        delimiter: if csv { b',' } else { b'\t' },
        null: if csv { "" } else { "\\N" }.to_owned(),
        default: None,
        quote: b'"',
        escape: b'"',
        header: false,
    }
}

/// All records of `bytes`, given `step` bytes at a time, as `records | lines`.
fn records(form: &CopyForm, bytes: &[u8], step: usize) -> Result<(Vec<Vec<u8>>, u64), Refusal> {
    let mut reader = CopyReader::new(form.clone());
    let (mut start, mut given, mut found) = (0, 0, Vec::new());
    loop {
        match reader.next(&bytes[start..given], given == bytes.len())? {
            Found::Head(end) | Found::Record(end) => {
                found.push(bytes[start..start + end].to_vec());
                start += end;
            }
            Found::End(_) | Found::Broken => break,
            Found::More if given == bytes.len() => break,
            Found::More => given = bytes.len().min(given + step),
        }
    }
    Ok((found, reader.lines()))
}

fn check_records(form: &CopyForm, bytes: &[u8], expect: &[&[u8]], lines: u64) {
    for step in [1, 2, 3, 7, 1_000] {
        let (found, counted) = records(form, bytes, step).unwrap();
        assert_eq!(found, expect, "{} by {step}", String::from_utf8_lossy(bytes));
        assert_eq!(counted, lines, "{} by {step}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn lines_of_text_end_where_no_backslash_hides_it() {
    let text = form(CopyFormat::Text);
    check_records(&text, b"1\ta\n2\tb\\\nc\n3\t\\\\\n", &[b"1\ta\n", b"2\tb\\\nc\n", b"3\t\\\\\n"], 3);
    check_records(&text, b"1\n\n2", &[b"1\n", b"\n", b"2"], 3);
    check_records(&text, b"1\r\n2\r\n", &[b"1\r\n", b"2\r\n"], 2);
    check_records(&text, b"1\r2\r", &[b"1\r", b"2\r"], 2);
    check_records(&text, b"1\n\\.\nignored\n", &[b"1\n"], 2);
    check_records(&text, b"", &[], 0);
}

#[test]
fn lines_of_csv_end_outside_of_quotes() {
    let csv = form(CopyFormat::Csv);
    let bytes = b"1,\"a\nb\"\n2,\"\"\"\n\"\n3,x\n";
    check_records(&csv, bytes, &[b"1,\"a\nb\"\n", b"2,\"\"\"\n\"\n", b"3,x\n"], 4);
    let other = CopyForm { quote: b'\'', escape: b'\\', ..csv.clone() };
    check_records(&other, b"1,'a\\'\n\\\\'\n2,x\n", &[b"1,'a\\'\n\\\\'\n", b"2,x\n"], 2);
    let head = CopyForm { header: true, ..csv };
    check_records(&head, b"a,b\n1,2\n", &[b"a,b\n", b"1,2\n"], 2);
}

#[test]
fn lines_that_end_otherwise_are_an_error_as_in_postgresql() {
    for (format, bytes, message) in [
        (CopyFormat::Text, &b"1\n2\r\n"[..], "literal carriage return found in data"),
        (CopyFormat::Text, b"1\r\n2\n", "literal newline found in data"),
        (CopyFormat::Text, b"1\r\n2\rx", "literal carriage return found in data"),
        (CopyFormat::Csv, b"1\n2\r\n", "unquoted carriage return found in data"),
        (CopyFormat::Csv, b"1\r2\n", "unquoted newline found in data"),
    ] {
        let refusal = records(&form(format), bytes, 1).unwrap_err();
        assert_eq!((refusal.message(), refusal.state().0), (message, "22P04"));
    }
    assert!(records(&form(CopyFormat::Csv), b"1,2\n\\.\n", 1).is_err());
}

fn told(fields: Vec<CopyField<'_>>) -> Vec<String> {
    let told = |it: &CopyField<'_>| match it {
        CopyField::Value(it) => String::from_utf8_lossy(it).into_owned(),
        CopyField::Null => "NULL".to_owned(),
        CopyField::Default => "DEFAULT".to_owned(),
        CopyField::Missing => "missing".to_owned(),
    };
    fields.iter().map(told).collect()
}

#[test]
fn fields_are_read_as_postgresql_reads_them() {
    let text = CopyReader::new(CopyForm { default: Some("\\D".into()), ..form(CopyFormat::Text) });
    let of = |line: &'static [u8], wanted: &[usize]| told(text.fields(line, wanted));
    assert_eq!(
        of(b"1\t\\N\t\\D\ta\\tb\\x41\\101\\q\\\\\n", &[0, 1, 2, 3]),
        ["1", "NULL", "DEFAULT", "a\tbAAq\\"]
    );
    assert_eq!(of(b"a\\\tb\tc\r\n", &[1, 0, 2]), ["c", "a\tb", "missing"]);
    assert_eq!(of(b"\n", &[0, 1]), ["", "missing"]);
    let csv = CopyReader::new(form(CopyFormat::Csv));
    let of = |line: &'static [u8], wanted: &[usize]| told(csv.fields(line, wanted));
    assert_eq!(of(b"1,\"a,\"\"b\"c,,\"\"\n", &[0, 1, 2, 3, 4]), ["1", "a,\"bc", "NULL", "", "missing"]);
    let other =
        CopyReader::new(CopyForm { quote: b'\'', escape: b'\\', null: "x".into(), ..form(CopyFormat::Csv) });
    assert_eq!(told(other.fields(b"'a\\'\\\\b',x,'x'", &[0, 1, 2])), ["a'\\b", "NULL", "x"]);
}

#[test]
fn binary_records_are_told_by_their_lengths() {
    let binary = form(CopyFormat::Binary);
    let head = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x01x";
    let row = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
    let bytes = [&head[..], row, row, b"\xff\xff"].concat();
    check_records(&binary, &bytes, &[head, row, row], 3);
    let reader = CopyReader::new(binary.clone());
    assert_eq!(told(reader.fields(row, &[0, 1, 2, 3])), ["ab", "NULL", "", "missing"]);
    let mut reader = CopyReader::new(binary);
    assert_eq!(reader.next(b"PGCOPX", false), Ok(Found::Broken));
    assert_eq!(reader.next(b"PG", true), Ok(Found::Broken));
}

#[test]
fn lines_of_a_shard_are_lines_of_the_client() {
    let mut map = LineMap::default();
    // A header for all, then lines 3 and 4 with a newline in it, then 8.
    map.add(1, 1);
    map.add(1, 3);
    map.add(2, 5);
    map.add(1, 8);
    let found: Vec<_> = (1..=7).map(|it| map.clients(it, 10)).collect();
    assert_eq!(found, [1, 3, 4, 5, 8, 11, 12].map(Some));
}

#[test]
fn a_shards_first_record_tells_how_lines_end() {
    let mut reader = CopyReader::new(form(CopyFormat::Csv));
    let (first, second) = (b"1,\"a\nb\"\n", b"2,\"a\rb\nc\"\n");
    assert_eq!(reader.next(&first[..7], false), Ok(Found::More));
    assert_eq!(reader.next(first, false), Ok(Found::Record(first.len())));
    assert_eq!((reader.lines(), reader.lines_of(first, true)), (1, 1));
    assert_eq!(reader.next(&second[..8], false), Ok(Found::More));
    assert_eq!(reader.next(second, false), Ok(Found::Record(second.len())));
    assert_eq!((reader.lines(), reader.lines_of(second, false), reader.lines_of(second, true)), (3, 2, 2));
}
