//! `ExportTraceServiceRequest` in OTLP's JSON (opentelemetry/proto/trace/v1/trace.proto): ids in hexadecimal, 64-bit numbers as
//! strings. Names of attributes are those of the semantic conventions for databases where there is one.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::Span;

/// `SpanKind`: Keyway asks a database.
const CLIENT: u8 = 3;
/// `StatusCode`.
const ERROR: u8 = 2;

pub fn request(spans: &[Span]) -> String {
    let resource = [text("service.name", "keyway"), text("service.version", env!("CARGO_PKG_VERSION"))];
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let scope = json!({ "name": "keyway", "version": env!("CARGO_PKG_VERSION") });
    let whole = json!({
        "resourceSpans": [{
            "resource": { "attributes": resource },
            "scopeSpans": [{ "scope": scope, "spans": spans }],
        }],
    });
    whole.to_string()
}

fn span(it: &Span) -> Value {
    let mut attributes = vec![
        text("db.system.name", "postgresql"),
        text("db.namespace", &it.database),
        text("db.user", &it.user),
        text("keyway.shard", &it.shards),
        text("keyway.access", it.access),
        number("keyway.wait_us", it.wait_us),
        number("keyway.server_us", it.server_us),
        number("db.response.returned_rows", it.rows),
        number("keyway.response_bytes", it.bytes),
    ];
    attributes.extend(it.role.map(|role| text("keyway.role", role)));
    attributes.extend(it.fingerprint.map(|of| text("keyway.fingerprint", &format!("{of:032x}"))));
    attributes.extend(it.text.as_ref().map(|of| text("db.query.text", of)));
    if it.statements > 1 {
        attributes.push(number("db.operation.batch.size", it.statements as u64));
    }
    if let Some(state) = &it.error {
        attributes.extend([text("db.response.status_code", state), text("error.type", state)]);
    }
    let mut span = json!({
        "traceId": format!("{:032x}", it.trace_id),
        "spanId": format!("{:016x}", it.span_id),
        "name": it.name,
        "kind": CLIENT,
        "startTimeUnixNano": unix_ns(it.began),
        "endTimeUnixNano": unix_ns(it.ended),
        "attributes": attributes,
        "status": {},
    });
    if let Some(parent) = it.parent_id {
        span["parentSpanId"] = Value::String(format!("{parent:016x}"));
    }
    if it.error.is_some() {
        span["status"] = json!({ "code": ERROR });
    }
    span
}

fn unix_ns(at: SystemTime) -> String {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos().to_string()
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    // int64 in the protocol.
    json!({ "key": key, "value": { "intValue": value.min(i64::MAX as u64).to_string() } })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn example() -> Span {
        let began = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        Span {
            trace_id: 0x5bd6_6ef5_0953_69c7_b0d1_f8f4_bd33_716a,
            span_id: 0x2a,
            parent_id: Some(0xc532_cb40_98ac_3dd2),
            name: "SELECT users".to_owned(),
            began,
            ended: began + Duration::from_micros(1_500),
            database: "shop".into(),
            user: "app".into(),
            shards: "s1".to_owned(),
            role: Some("replica"),
            access: "read",
            fingerprint: Some(0xFF),
            text: Some("SELECT * FROM users WHERE id = ?".into()),
            statements: 1,
            wait_us: 200,
            server_us: 1_250,
            rows: 1,
            bytes: 77,
            error: None,
        }
    }

    fn only_span(spans: &[Span]) -> Value {
        let mut whole: Value = serde_json::from_str(&request(spans)).unwrap();
        assert_eq!(whole["resourceSpans"][0]["resource"]["attributes"][0], text("service.name", "keyway"));
        whole["resourceSpans"][0]["scopeSpans"][0]["spans"][0].take()
    }

    #[test]
    fn a_span_is_as_the_protocol_writes_it() {
        let span = only_span(&[example()]);
        assert_eq!(span["traceId"], "5bd66ef5095369c7b0d1f8f4bd33716a");
        assert_eq!(span["spanId"], "000000000000002a");
        assert_eq!(span["parentSpanId"], "c532cb4098ac3dd2");
        assert_eq!(span["startTimeUnixNano"], "1700000000123456789");
        assert_eq!(span["endTimeUnixNano"], "1700000000124956789");
        assert_eq!((&span["kind"], &span["status"]), (&json!(3), &json!({})));
        let attributes = span["attributes"].as_array().unwrap();
        for want in [
            text("keyway.role", "replica"),
            text("keyway.fingerprint", "000000000000000000000000000000ff"),
            text("db.query.text", "SELECT * FROM users WHERE id = ?"),
            number("keyway.wait_us", 200),
            number("keyway.server_us", 1_250),
        ] {
            assert!(attributes.contains(&want), "{want}: {attributes:?}");
        }
        assert!(
            !attributes.iter().any(|it| it["key"] == "error.type" || it["key"] == "db.operation.batch.size")
        );
    }

    #[test]
    fn an_error_has_its_state_and_a_root_no_parent() {
        let error = Some("40001".to_owned());
        let span = only_span(&[Span { error, parent_id: None, role: None, statements: 3, ..example() }]);
        assert_eq!(span["status"]["code"], 2);
        assert_eq!(span.get("parentSpanId"), None);
        let attributes = span["attributes"].as_array().unwrap();
        assert!(attributes.contains(&text("db.response.status_code", "40001")));
        assert!(attributes.contains(&number("db.operation.batch.size", 3)));
    }
}
