//! One read of one shard: a connection of its own for a moment, one snapshot, and a digest first, so that what
//! has not changed costs one question and no memory.

use std::time::{Duration, Instant};

use thiserror::Error;

use crate::backend::{self, Backend, BackendSpec, ConnectError, QuestionError};
use crate::metrics::Limit;
use crate::route::{LOCAL_PATH, Part, RowError, Schema, SchemaReader};
use crate::wire;

#[derive(Debug, Error)]
pub(super) enum ReadError {
    #[error("no server of the shard is known to be up")]
    NoServer,
    #[error("connect: {0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Question(#[from] QuestionError),
    #[error("{0}")]
    Row(#[from] RowError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Task(#[from] tokio::task::JoinError),
}

impl ReadError {
    /// What the read has come up against.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            ReadError::Timeout(_) => Some(Limit::CatalogTime),
            ReadError::Connect(error) if error.is_timeout() => Some(Limit::ConnectTime),
            ReadError::Row(RowError::TooMany(_)) => Some(Limit::CatalogRows),
            _ => None,
        }
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Which transactions made the rows of the catalogs that are read (`xmin`): PostgreSQL's own upkeep changes
/// rows in place and leaves it, and all else that changes a row, changes it.
const DIGEST: &str = "SELECT concat_ws(' ', \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_class WHERE oid >= 16384), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_attribute \
        WHERE attrelid >= 16384 AND attnum > 0), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_attrdef), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_constraint), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_inherits), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_proc WHERE oid >= 16384), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_aggregate), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_trigger), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_rewrite), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_policy), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_type WHERE oid >= 16384), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_enum), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_collation), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_namespace), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_extension), \
    (SELECT concat(count(*), ':', hash_array_extended(array_agg(xmin), 0)) FROM pg_db_role_setting), \
    (SELECT concat(oid, ':', xmin) FROM pg_database WHERE datname = current_database()), \
    (SELECT reset_val FROM pg_settings WHERE name = 'search_path'))";

/// The digest and the schema of the server's database; `None` where the digest is still `known`.
pub(super) async fn schema(
    spec: &BackendSpec,
    rows_max: usize,
    known: Option<&str>,
) -> Result<Option<(String, Schema)>, ReadError> {
    let mut backend = backend::connect(spec, Instant::now()).await?;
    let read = on(&mut backend, rows_max, known).await;
    backend.close().await;
    read
}

async fn on(
    backend: &mut Backend,
    rows_max: usize,
    known: Option<&str>,
) -> Result<Option<(String, Schema)>, ReadError> {
    backend.rows(&question(BEGIN)).await?;
    let mut reader = SchemaReader::new(rows_max);
    part(backend, &mut reader, Part::Database).await?;
    backend.rows(&question(LOCAL_PATH)).await?;
    let digest = backend.rows(&question(DIGEST)).await?.concat().into_iter().flatten().collect::<String>();
    if known == Some(&digest) {
        return Ok(None);
    }
    for it in Part::ALL.into_iter().filter(|it| *it != Part::Database) {
        part(backend, &mut reader, it).await?;
    }
    // Pure work that may take a while with many objects: the tasks of this thread go on meanwhile.
    let schema = tokio::task::spawn_blocking(move || reader.finish()).await;
    Ok(Some((digest, schema?)))
}

async fn part(backend: &mut Backend, reader: &mut SchemaReader, part: Part) -> Result<(), ReadError> {
    let mut failed = None;
    backend
        .each_row(&question(part.sql()), |row| {
            if failed.is_none() {
                failed = reader.take(part, row).err();
            }
        })
        .await?;
    failed.map_or(Ok(()), |it| Err(it.into()))
}

fn question(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    wire::query(&mut out, text);
    out
}
