use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

const ID: StatementId = StatementId(7);

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
    out
}

fn error(severity: &str, state: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{state}\0Mno\0\0").as_bytes())
}

fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

fn row() -> Vec<u8> {
    message(b'D', b"\0\x01\0\0\0\x011")
}

fn described(type_oid: u8) -> Vec<u8> {
    let mut body = b"\0\x01id\0".to_vec();
    body.extend([0, 0, 0, 9, 0, 1, 0, 0, 0, type_oid, 0, 8, 255, 255, 255, 255, 0, 0]);
    message(b'T', &body)
}

fn pipeline(expects: &[Expect]) -> Pipeline {
    let mut it = Pipeline::new(1 << 20);
    expects.iter().for_each(|expect| it.push(*expect));
    it
}

/// What the client gets of `input`.
fn client_sees(pipeline: &mut Pipeline, replies: &mut Replies, input: &[u8]) -> Result<Vec<u8>, Unexpected> {
    replies.next_buffer();
    pipeline.release_made(replies);
    let consumed = pipeline.feed(input, replies)?;
    assert_eq!(consumed, input.len());
    let mut out = Vec::new();
    for piece in &replies.pieces {
        match piece {
            Piece::Input(range) => out.extend(&input[range.clone()]),
            Piece::Made(bytes) => out.extend(*bytes),
            Piece::Owned(bytes) => out.extend(bytes),
        }
    }
    Ok(out)
}

fn check(expects: &[Expect], input: &[Vec<u8>], want: &[Vec<u8>]) -> (Pipeline, Replies) {
    let (mut it, mut replies) = (pipeline(expects), Replies::default());
    let out = client_sees(&mut it, &mut replies, &input.concat()).unwrap();
    assert_eq!(out, want.concat());
    (it, replies)
}

#[test]
fn a_simple_answer_is_one_piece_and_frees_the_server() {
    let input = [described(20), row(), row(), message(b'C', b"SELECT 2\0"), ready(b'I')];
    let (it, replies) = check(&[Expect::Query(Origin::Client)], &input, &input);
    assert_eq!(replies.pieces.len(), 1);
    assert_eq!((replies.rows, &replies.tag[..]), (2, &b"SELECT 2"[..]));
    assert!(it.is_free());
}

#[test]
fn a_server_in_a_transaction_or_with_two_answers_owed_is_not_free() {
    let (it, _) = check(&[Expect::Query(Origin::Client)], &[ready(b'T')], &[ready(b'T')]);
    assert!(it.is_drained() && !it.is_free());
    let two = [Expect::Query(Origin::Client), Expect::Query(Origin::Client)];
    let (it, _) = check(&two, &[ready(b'I')], &[ready(b'I')]);
    assert!(!it.is_drained() && !it.is_free());
}

#[test]
fn keyways_own_requests_are_swallowed() {
    let expects = [Expect::Query(Origin::Keyway), Expect::Query(Origin::Client)];
    let own = [message(b'C', b"BEGIN\0"), message(b'S', b"TimeZone\0UTC\0"), ready(b'T')];
    let answer = [message(b'C', b"INSERT 0 1\0"), ready(b'T')];
    let (_, replies) = check(&expects, &[&own[..], &answer[..]].concat(), &answer);
    assert!(replies.parameters.is_empty());
}

#[test]
fn a_notification_is_the_clients_even_among_keyways_own() {
    let notification = message(b'A', b"\0\0\0\x07ours\0heard\0");
    let own =
        [notification.clone(), message(b'N', b"SNOTICE\0\0"), message(b'C', b"SELECT 1\0"), ready(b'I')];
    check(&[Expect::Query(Origin::Keyway)], &own, std::slice::from_ref(&notification));
    // From the server's own process it is the client's own.
    let (mut it, mut replies) = (pipeline(&[]), Replies::default());
    it.know_as(7, 258);
    let own = client_sees(&mut it, &mut replies, &notification).unwrap();
    assert_eq!(own, message(b'A', b"\0\0\x01\x02ours\0heard\0"));
    it.know_as(8, 258);
    assert_eq!(client_sees(&mut it, &mut replies, &notification).unwrap(), notification);
    it.mute_notifications(true);
    assert_eq!(client_sees(&mut it, &mut replies, &notification).unwrap(), b"");
}

#[test]
fn the_error_of_a_prologue_stands_for_the_statement_behind_it() {
    let expects =
        [Expect::Query(Origin::Keyway), Expect::Parse(Origin::Client, ID), Expect::Bind, Expect::Sync];
    let input = [error("ERROR", "22023"), ready(b'E'), error("ERROR", "25P02"), ready(b'E')];
    let (it, _) = check(&expects, &input, &[error("ERROR", "22023"), ready(b'E')]);
    assert_eq!(it.status(), TxStatus::Failed);
}

#[test]
fn a_set_up_is_not_seen_and_its_error_silences_what_follows() {
    let expects = [Expect::SetUp, Expect::Query(Origin::Client)];
    let set = [described(25), row(), message(b'C', b"SELECT 1\0"), message(b'C', b"COMMIT\0"), ready(b'I')];
    let answer = [message(b'C', b"INSERT 0 1\0"), ready(b'I')];
    let (it, replies) = check(&expects, &[&set[..], &answer[..]].concat(), &answer);
    assert!(it.is_free() && replies.set_up_error.is_none());
    let failed = [error("ERROR", "22023"), ready(b'E'), error("ERROR", "25P02"), ready(b'E')];
    let (it, replies) = check(&expects, &failed, &[]);
    assert!(it.is_drained() && !it.is_free());
    assert_eq!(replies.set_up_error, Some(error("ERROR", "22023")));
}

#[test]
fn a_parse_in_front_of_a_query_has_its_own_sync() {
    let expects = [Expect::Parse(Origin::Keyway, ID), Expect::OwnSync, Expect::Query(Origin::Client)];
    let (parsed, done) = (message(b'1', b""), message(b'C', b"SELECT 1\0"));
    let input = [parsed.clone(), ready(b'I'), described(23), row(), done.clone(), ready(b'I')];
    let (it, replies) = check(&expects, &input, &[described(23), row(), done, ready(b'I')]);
    assert!(it.is_free() && replies.prepared.contains(&ID) && replies.named == 0);
    // What cannot be parsed is told once: that the Query then lacks it is not the client's to know.
    let input = [error("ERROR", "42P01"), ready(b'T'), error("ERROR", "26000"), ready(b'E')];
    let (it, replies) = check(&expects, &input, &[error("ERROR", "42P01"), ready(b'E')]);
    assert!(it.is_drained() && replies.failed && replies.prepared.is_empty());
}

#[test]
fn a_prepare_that_is_executed_is_there_when_it_is_complete() {
    let expects = [Expect::Bind, Expect::ExecutePrepare(ID), Expect::Sync];
    let input = [message(b'2', b""), message(b'C', b"PREPARE\0"), ready(b'I')];
    let (it, replies) = check(&expects, &input, &input);
    assert!(it.is_free());
    assert_eq!((replies.named, &replies.prepared[..]), (1, &[ID][..]));
    let failed = [message(b'2', b""), error("ERROR", "42P01"), ready(b'I')];
    let (it, replies) = check(&expects, &failed, &failed);
    assert!(it.is_free() && replies.error.is_some());
    assert_eq!((replies.named, replies.prepared.len()), (0, 0));
}

#[test]
fn a_statement_that_execute_needs_is_there_once_it_is_prepared() {
    let expects = [Expect::Prepare(ID), Expect::Query(Origin::Client)];
    let prepared = [message(b'C', b"PREPARE\0"), ready(b'I')];
    let answer = [row(), message(b'C', b"SELECT 1\0"), ready(b'I')];
    let (_, replies) = check(&expects, &[&prepared[..], &answer[..]].concat(), &answer);
    assert_eq!(replies.prepared[..], [ID]);
    // What is wrong with it is the answer to EXECUTE.
    let failed = [error("ERROR", "42P01"), ready(b'I'), error("ERROR", "26000"), ready(b'I')];
    let (_, replies) = check(&expects, &failed, &[error("ERROR", "42P01"), ready(b'I')]);
    assert!(replies.prepared.is_empty());
}

#[test]
fn rows_for_keyway_are_given_whole() {
    let (mut it, mut replies) = (pipeline(&[Expect::Query(Origin::Keyway)]), Replies::default());
    let whole = row();
    assert_eq!(it.feed(&whole[..whole.len() - 1], &mut replies), Ok(0));
    assert_eq!(it.feed(&whole, &mut replies), Ok(whole.len()));
    assert_eq!((replies.own_rows.first(), replies.pieces.len()), (Some(&(0..whole.len())), 0));
}

#[test]
fn made_replies_stand_in_their_place() {
    let expects = [Expect::MadeParse(ID), Expect::Bind, Expect::MadeClose, Expect::Execute, Expect::Sync];
    let bind = wire::BIND_COMPLETE.to_vec();
    let done = message(b'C', b"SELECT 0\0");
    let input = [bind.clone(), done.clone(), ready(b'I')];
    let want = [wire::PARSE_COMPLETE.to_vec(), bind, wire::CLOSE_COMPLETE.to_vec(), done, ready(b'I')];
    let (_, replies) = check(&expects, &input, &want);
    assert_eq!(replies.prepared[..], [ID]);
}

#[test]
fn an_error_skips_to_sync_and_drops_made_replies() {
    let expects = [
        Expect::Parse(Origin::Client, ID),
        Expect::MadeParse(StatementId(8)),
        Expect::Bind,
        Expect::Execute,
        Expect::Sync,
    ];
    let input = [error("ERROR", "42601"), ready(b'I')];
    let (it, replies) = check(&expects, &input, &input);
    assert!(it.is_free() && replies.prepared.is_empty());
}

#[test]
fn what_was_named_before_an_error_is_counted() {
    use Origin::{Client, Keyway};
    let other = StatementId(8);
    let expects = [
        Expect::Close(Keyway),
        Expect::Parse(Client, ID),
        Expect::MadeClose,
        Expect::MadeParse(other),
        Expect::Execute,
        Expect::Parse(Client, other),
        Expect::MadeParse(ID),
        Expect::Sync,
    ];
    let (closed, parsed) = (message(b'3', b""), message(b'1', b""));
    let input = [closed.clone(), parsed.clone(), error("ERROR", "22012"), ready(b'I')];
    let want = [parsed.clone(), closed, parsed, error("ERROR", "22012"), ready(b'I')];
    assert_eq!(check(&expects, &input, &want).1.named, 3);
}

#[test]
fn what_keyway_executes_is_answered_in_its_place() {
    let made = wire::DEALLOCATED;
    let expects = [
        Expect::Bind,
        Expect::MadeExecute(made),
        Expect::Close(Origin::Keyway),
        Expect::Execute,
        Expect::MadeExecute(made),
        Expect::Sync,
    ];
    let (bind, closed) = (message(b'2', b""), message(b'3', b""));
    let input = [bind.clone(), closed, error("ERROR", "22012"), ready(b'I')];
    let want = [bind, made.to_vec(), error("ERROR", "22012"), ready(b'I')];
    assert_eq!(check(&expects, &input, &want).1.named, 1);
}

#[test]
fn an_error_before_sync_ignores_what_is_sent_until_sync() {
    let (mut it, mut replies) =
        check(&[Expect::Bind], &[error("ERROR", "42601")], &[error("ERROR", "42601")]);
    assert!(it.is_drained() && it.is_skipping() && !it.is_free());
    it.push(Expect::Execute);
    it.push(Expect::Query(Origin::Client));
    assert!(it.is_drained());
    it.push(Expect::Sync);
    assert_eq!(client_sees(&mut it, &mut replies, &ready(b'I')), Ok(ready(b'I')));
    assert!(it.is_free());
}

#[test]
fn rows_longer_than_the_buffer_stream_through() {
    let mut it = pipeline(&[Expect::Query(Origin::Client)]);
    let long = message(b'D', &vec![b'x'; 5_000]);
    let input = [long, message(b'C', b"SELECT 1\0"), ready(b'I')].concat();
    let (mut replies, mut out, mut kept) = (Replies::default(), Vec::<u8>::new(), Vec::<u8>::new());
    for chunk in input.chunks(777) {
        kept.extend_from_slice(chunk);
        replies.next_buffer();
        let consumed = it.feed(&kept, &mut replies).unwrap();
        for piece in &replies.pieces {
            let Piece::Input(range) = piece else { panic!("{piece:?}") };
            out.extend_from_slice(&kept[range.clone()]);
        }
        kept.drain(..consumed);
        assert_eq!(it.is_amid_message(), out.len() < 5_005, "after {} bytes", out.len());
    }
    assert_eq!(out, input);
    assert!(it.is_free());
}

#[test]
fn rows_of_parts_follow_one_another_under_one_head_and_one_tag() {
    let answer = |rows: usize| {
        let mut it = vec![described(20)];
        it.extend(std::iter::repeat_n(row(), rows));
        it.extend([message(b'C', format!("SELECT {rows}\0").as_bytes()), ready(b'I')]);
        it.concat()
    };
    let (mut out, mut replies) = (Vec::new(), Replies::default());
    for (index, rows) in [2, 0, 1].into_iter().enumerate() {
        let mut it = pipeline(&[Expect::Query(Origin::Client)]);
        it.set_part(Part::of_rows(index, 3));
        out.extend(client_sees(&mut it, &mut replies, &answer(rows)).unwrap());
        assert!(it.is_free());
    }
    let want = [described(20), row(), row(), row(), message(b'C', b"SELECT 3\0"), ready(b'I')];
    assert_eq!(out, want.concat());
}

#[test]
fn an_error_of_one_part_is_seen_once_and_silences_the_rest() {
    let mut replies = Replies::default();
    let mut out = Vec::new();
    let failing = [error("ERROR", "22012"), ready(b'I')].concat();
    for index in 0..2 {
        let mut it = pipeline(&[Expect::Query(Origin::Client)]);
        it.set_part(Part::of_rows(index, 2));
        out.extend(client_sees(&mut it, &mut replies, &failing).unwrap());
    }
    assert_eq!(out, failing);
}

#[test]
fn parts_with_different_columns_are_an_error_not_a_guess() {
    let mut replies = Replies::default();
    let mut first = pipeline(&[Expect::Query(Origin::Client)]);
    first.set_part(Part::of_rows(0, 2));
    client_sees(&mut first, &mut replies, &described(20)).unwrap();
    let mut second = pipeline(&[Expect::Query(Origin::Client)]);
    second.set_part(Part::of_rows(1, 2));
    assert_eq!(client_sees(&mut second, &mut replies, &described(25)), Err(Unexpected::Columns));
}

#[test]
fn sync_sent_along_with_copy_in_is_not_owed() {
    let expects = [Expect::Bind, Expect::Execute, Expect::Sync];
    let input = [wire::BIND_COMPLETE.to_vec(), message(b'G', b"\0\0\0")];
    let (mut it, mut replies) = check(&expects, &input, &input);
    assert!(replies.copy_in && !it.is_drained());
    it.push(Expect::Sync);
    let end = [message(b'C', b"COPY 5\0"), ready(b'I')].concat();
    assert_eq!(client_sees(&mut it, &mut replies, &end), Ok(end.clone()));
    assert!(it.is_free());
}

#[test]
fn what_no_request_explains_ends_the_connection() {
    let feed = |expects: &[Expect], input: &[u8]| pipeline(expects).feed(input, &mut Replies::default());
    assert!(matches!(feed(&[], &row()), Err(Unexpected::Message { .. })));
    assert!(matches!(feed(&[], &ready(b'I')), Err(Unexpected::Message { .. })));
    assert!(matches!(feed(&[Expect::Bind], &row()), Err(Unexpected::Message { .. })));
    assert!(matches!(feed(&[Expect::Sync], wire::BIND_COMPLETE), Err(Unexpected::Message { .. })));
    assert!(matches!(feed(&[Expect::Sync], &message(b'?', b"")), Err(Unexpected::Message { .. })));
    assert!(matches!(feed(&[Expect::Sync], b"Z\0\0\0\x01"), Err(Unexpected::Malformed(_))));
    let fatal = error("FATAL", "57P01");
    assert_eq!(feed(&[Expect::Sync], &fatal), Err(Unexpected::Fatal("57P01".into(), "no".into())));
    assert!(matches!(feed(&[Expect::Sync], b"T\x7f\xff\xff\xff"), Err(Unexpected::TooLong(_))));
}

fn empty(tag: u8) -> Vec<u8> {
    message(tag, b"")
}

const CLIENT: Origin = Origin::Client;

#[test]
fn a_description_is_one_reply_or_two() {
    let parameters = message(b't', b"\0\x01\0\0\0\x17");
    let expects = [Expect::Describe, Expect::Describe, Expect::Describe, Expect::Sync];
    // Of a statement with and without rows, and of a portal.
    let input = [parameters.clone(), described(20), parameters, empty(b'n'), described(20), ready(b'I')];
    let (it, _) = check(&expects, &input, &input);
    assert!(it.is_free());
}

#[test]
fn an_execution_ends_in_each_of_four_ways() {
    let done = message(b'C', b"SELECT 1\0");
    let expects = [Expect::Execute, Expect::Execute, Expect::Execute, Expect::Execute, Expect::Sync];
    let input = [row(), empty(b's'), row(), done, empty(b'I'), error("ERROR", "22012"), ready(b'I')];
    let (it, replies) = check(&expects, &input, &input);
    assert!(it.is_free() && replies.error.is_some() && !replies.failed);
}

#[test]
fn a_simple_text_has_many_results_and_one_end() {
    let input = [
        empty(b'I'),
        described(20),
        row(),
        message(b'C', b"SELECT 1\0"),
        message(b'C', b"INSERT 0 3\0"),
        error("ERROR", "22012"),
        ready(b'T'),
    ];
    let (it, replies) = check(&[Expect::Query(CLIENT)], &input, &input);
    assert_eq!((replies.rows, &replies.tag[..]), (4, &b"INSERT 0 3"[..]));
    assert_eq!(it.status(), TxStatus::Open);
    let call = [message(b'V', b"\0\0\0\x011"), ready(b'I')];
    check(&[Expect::Query(CLIENT)], &call, &call);
}

#[test]
fn copy_out_is_rows_and_copy_in_stops_the_relay() {
    let copy = |tag: u8| message(tag, b"\0\0\x01\0\0");
    let data = message(b'd', b"1\n");
    let done = message(b'C', b"COPY 1\0");
    for expects in [&[Expect::Query(CLIENT)][..], &[Expect::Execute, Expect::Sync]] {
        let out = [copy(b'H'), data.clone(), empty(b'c'), done.clone(), ready(b'I')];
        let (it, replies) = check(expects, &out, &out);
        assert!(it.is_free() && !replies.copy_in);
    }
    let (mut it, mut replies) = check(&[Expect::Query(CLIENT)], &[copy(b'G')], &[copy(b'G')]);
    assert!(replies.copy_in && !it.is_drained());
    let end = [done, ready(b'I')].concat();
    assert_eq!(client_sees(&mut it, &mut replies, &end), Ok(end));
    // COPY BOTH is replication's, which has no pipeline.
    let both = pipeline(&[Expect::Query(CLIENT)]).feed(&copy(b'W'), &mut Replies::default());
    assert!(matches!(both, Err(Unexpected::Message { tag: b'W', .. })));
}

#[test]
fn statements_are_closed_and_named_in_their_order() {
    let expects = [
        Expect::Parse(CLIENT, ID),
        Expect::Close(CLIENT),
        Expect::Close(Origin::Keyway),
        Expect::Parse(Origin::Keyway, StatementId(9)),
        Expect::Bind,
        Expect::Sync,
    ];
    let input = [empty(b'1'), empty(b'3'), empty(b'3'), empty(b'1'), empty(b'2'), ready(b'I')];
    let want = [empty(b'1'), empty(b'3'), empty(b'2'), ready(b'I')];
    let (_, replies) = check(&expects, &input, &want);
    assert_eq!((replies.named, &replies.prepared[..]), (2, &[ID, StatementId(9)][..]));
}

#[test]
fn what_comes_unasked_passes_and_parameters_are_noted() {
    let parameter = message(b'S', b"TimeZone\0UTC\0");
    let notice = message(b'N', b"SNOTICE\0\0");
    let unasked = [parameter.clone(), notice.clone(), message(b'A', b"\0\0\0\x01c\0p\0")];
    let (it, replies) = check(&[], &unasked, &unasked);
    assert!(it.is_free());
    assert_eq!(replies.parameters.iter().collect::<Vec<_>>(), [&(0..parameter.len())]);
    // Of an answer that the client is not shown, the notices are.
    let mut silent = Pipeline::new(1 << 20);
    silent.set_part(Part::SILENT);
    silent.push(Expect::Query(CLIENT));
    let input = [parameter, notice.clone(), ready(b'I')].concat();
    assert_eq!(client_sees(&mut silent, &mut Replies::default(), &input), Ok(notice));
}

#[test]
fn made_replies_at_the_head_need_no_server() {
    let mut it = pipeline(&[Expect::MadeParse(ID), Expect::MadeClose]);
    let (mut replies, want) = (Replies::default(), [empty(b'1'), empty(b'3')].concat());
    assert_eq!(client_sees(&mut it, &mut replies, b""), Ok(want));
    assert!(it.is_free() && replies.named == 2);
}

#[test]
fn parts_of_turns_show_the_last_and_what_is_unfinished_shows_no_end() {
    let answer = [described(20), row(), message(b'C', b"UPDATE 2\0"), ready(b'T')];
    let (mut out, mut replies) = (Vec::new(), Replies::default());
    for index in 0..3 {
        let mut it = pipeline(&[Expect::Query(CLIENT)]);
        it.set_part(Part::of_turns(index, 3));
        out.extend(client_sees(&mut it, &mut replies, &answer.concat()).unwrap());
    }
    assert_eq!(out, answer.concat());
    let mut it = pipeline(&[Expect::Query(CLIENT)]);
    it.set_part(Part::UNFINISHED);
    let mut replies = Replies::default();
    assert_eq!(client_sees(&mut it, &mut replies, &answer.concat()), Ok(answer[..2].concat()));
    assert_eq!((replies.rows, &replies.tag[..]), (2, &b"UPDATE 2"[..]));
}

#[test]
fn a_sum_keeps_a_tag_that_counts_nothing() {
    for (tag, want) in
        [("UPDATE 2", "UPDATE 5"), ("INSERT 0 2", "INSERT 0 5"), ("CREATE TABLE", "CREATE TABLE")]
    {
        let mut it = pipeline(&[Expect::Query(CLIENT)]);
        it.set_part(Part { complete: Complete::Sum, ..Part::WHOLE });
        let mut replies = Replies { rows: 3, ..Replies::default() };
        let input = message(b'C', format!("{tag}\0").as_bytes());
        let want = message(b'C', format!("{want}\0").as_bytes());
        assert_eq!(client_sees(&mut it, &mut replies, &input), Ok(want));
    }
}

#[test]
fn two_errors_in_two_exchanges_are_both_seen() {
    let expects = [Expect::Bind, Expect::Sync, Expect::Bind, Expect::Execute, Expect::Sync];
    let input = [error("ERROR", "42601"), ready(b'I'), error("ERROR", "42P01"), ready(b'I')];
    let (it, _) = check(&expects, &input, &input);
    assert!(it.is_free());
}

#[test]
fn the_start_of_a_message_waits_for_its_end() {
    let mut it = pipeline(&[Expect::Query(CLIENT)]);
    let mut replies = Replies::default();
    let input = [message(b'C', b"SELECT 0\0"), ready(b'I')].concat();
    for end in 0..14 {
        replies.next_buffer();
        assert_eq!(it.feed(&input[..end], &mut replies), Ok(0), "{end}");
        assert!(replies.pieces.is_empty() && !it.is_drained());
    }
    assert_eq!(it.feed(&input, &mut replies), Ok(input.len()));
}

#[test]
fn a_reply_of_another_kind_than_is_owed_ends_the_connection() {
    let replies_of = [
        (Expect::Parse(CLIENT, ID), b'1'),
        (Expect::Bind, b'2'),
        (Expect::Close(CLIENT), b'3'),
        (Expect::Describe, b'n'),
        (Expect::Execute, b'I'),
    ];
    for (expect, own) in replies_of {
        for (_, other) in replies_of {
            let fed = pipeline(&[expect]).feed(&empty(other), &mut Replies::default());
            assert_eq!(fed.is_ok(), own == other, "{expect:?} answered by {}", char::from(other));
        }
        for other in [ready(b'I'), message(b'G', b"\0\0\0"), message(b'K', b"\0\0\0\0\0\0\0\0")] {
            let fed = pipeline(&[expect]).feed(&other, &mut Replies::default());
            assert_eq!(fed.is_ok(), expect == Expect::Execute && other[0] == b'G', "{expect:?}");
        }
    }
    let unasked = pipeline(&[]).feed(&error("ERROR", "XX000"), &mut Replies::default());
    assert!(matches!(unasked, Err(Unexpected::Message { tag: b'E', .. })));
}

#[test]
fn errors_have_their_place_in_the_clients_text() {
    use crate::sql::{ColumnLists, ColumnsPlace};
    let place = ColumnsPlace::find("INSERT INTO t VALUES (x)", 12).unwrap();
    let mut lists = ColumnLists::default();
    lists.add(place, ["a".to_owned()].into());
    let moves = Arc::new(lists.name("INSERT INTO t VALUES (x)").moves);
    let at =
        |place: usize| message(b'E', format!("SERROR\0VERROR\0C42703\0Mno\0P{place}\0Rr\0\0").as_bytes());
    let moved = Expect::Parse(Origin::Client, ID);
    // Of the statement whose text is longer, and of no other of the pipeline.
    for (expects, want) in [
        ([moved, Expect::Bind, Expect::Sync], at(23)),
        ([Expect::Parse(Origin::Client, StatementId(8)), Expect::Bind, Expect::Sync], at(27)),
    ] {
        let (mut it, mut replies) = (pipeline(&expects), Replies::default());
        it.move_errors(moved, &moves);
        let input = [at(27), ready(b'I')].concat();
        let seen = client_sees(&mut it, &mut replies, &input).unwrap();
        assert_eq!(seen, [want, ready(b'I')].concat());
        assert!(replies.pieces.len() <= 2 && it.is_free());
        // What is owed later is of another text.
        it.push(moved);
        it.push(Expect::Sync);
        assert_eq!(client_sees(&mut it, &mut Replies::default(), &input).unwrap(), input);
    }
}

/// What answers it, where nothing is amiss.
fn answer(expect: Expect) -> Vec<u8> {
    let done = [row(), row(), message(b'C', b"SELECT 2\0")].concat();
    match expect {
        Expect::Query(_) => [described(20), done, ready(b'I')].concat(),
        Expect::Parse(..) => empty(b'1'),
        Expect::Bind => empty(b'2'),
        Expect::Describe => described(20),
        Expect::Execute => done,
        Expect::Close(_) => empty(b'3'),
        Expect::Sync => ready(b'T'),
        _ => Vec::new(),
    }
}

#[test]
fn a_whole_answer_is_taken_at_once() {
    let parse = Expect::Parse(Origin::Client, ID);
    let extended = [parse, Expect::Bind, Expect::Describe, Expect::Execute, Expect::Sync];
    for (expects, named) in
        [(&[Expect::Query(Origin::Client)][..], 0), (&extended[..], 1), (&extended[1..], 0)]
    {
        let mut it = pipeline(expects);
        let input: Vec<u8> = expects.iter().flat_map(|it| answer(*it)).collect();
        let prepared = (named > 0).then_some(ID);
        let whole = Whole { rows: 2, tag: b"SELECT 2", prepared, named };
        assert_eq!(it.take_whole(&input[..input.len() - 1]), None);
        assert_eq!(it.take_whole(&input), Some(whole));
        assert!(it.is_drained());
        assert_eq!(it.take_whole(b""), None);
    }
}

proptest! {
    /// Of what comes for some requests, cut, joined or with a message more, it says what `feed` says or nothing; and then
    /// it has changed nothing.
    #[test]
    fn what_is_taken_whole_is_what_feed_takes(
        expects in prop::collection::vec(
            select(vec![
                Expect::Query(Origin::Client),
                Expect::Query(Origin::Keyway),
                Expect::Parse(Origin::Client, ID),
                Expect::Parse(Origin::Keyway, ID),
                Expect::MadeParse(ID),
                Expect::Bind,
                Expect::Describe,
                Expect::Execute,
                Expect::Close(Origin::Client),
                Expect::Sync,
            ]),
            0..5,
        ),
        more in select(vec![
            Vec::new(),
            empty(b'N'),
            empty(b'n'),
            empty(b'I'),
            error("ERROR", "22012"),
            message(b'S', b"TimeZone\0UTC\0"),
            message(b'C', b"COMMIT\0"),
            row(),
            ready(b'E'),
        ]),
        (at, cut) in (any::<Index>(), prop_oneof![4 => Just(0), 1 => 1..9_usize]),
        part in select(vec![Part::WHOLE, Part::WHOLE, Part::SILENT, Part::UNFINISHED]),
    ) {
        let mut answers: Vec<Vec<u8>> = expects.iter().map(|it| answer(*it)).collect();
        answers.insert(at.index(answers.len() + 1), more);
        let mut input = answers.concat();
        input.truncate(input.len().saturating_sub(cut));
        let new = || {
            let mut it = Pipeline::new(1 << 20);
            it.set_part(part);
            expects.iter().for_each(|expect| it.push(*expect));
            it
        };
        let (mut one, mut other, mut replies) = (new(), new(), Replies::default());
        let Some(whole) = one.take_whole(&input) else {
            prop_assert_eq!(format!("{one:?}"), format!("{:?}", new()));
            return Ok(());
        };
        prop_assert_eq!(other.feed(&input, &mut replies).unwrap(), input.len());
        prop_assert_eq!(&replies.pieces[..], &[Piece::Input(0..input.len())]);
        let found = Whole {
            rows: replies.rows,
            tag: &replies.tag,
            prepared: replies.prepared.first().copied(),
            named: replies.named,
        };
        prop_assert_eq!(whole, found);
        prop_assert!(replies.prepared.len() < 2 && replies.error.is_none() && !replies.failed);
        prop_assert!(replies.parameters.is_empty() && replies.made.is_empty() && !replies.copy_in);
        prop_assert_eq!((one.status(), one.is_free()), (other.status(), other.is_free()));
        prop_assert!(one.is_drained() && other.is_drained());
    }
}
