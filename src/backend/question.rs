//! Questions of Keyway's own, on connections that no client uses: short answers, read whole.

use thiserror::Error;

use super::{Backend, ConnectError};
use crate::net::{self, Buffer, ReadError};
use crate::wire::{self, BackendTag};

/// Of one message. Nothing that Keyway asks for is longer: a password has at most 65,535 bytes
/// (`PG_MAX_AUTH_TOKEN_LENGTH`), and so has the source of a function that is read.
const ANSWER_BYTES_MAX: usize = 1 << 17;

/// Values in text format; `None` is NULL.
pub type Row = Vec<Option<String>>;

#[derive(Debug, Error)]
pub enum QuestionError {
    /// The connection is lost.
    #[error("{0}")]
    Lost(ConnectError),
    /// The server's own error, after which the connection is good for the next question.
    #[error("{message} (SQLSTATE {state})")]
    Refused { state: String, message: String },
}

impl From<ReadError> for QuestionError {
    fn from(error: ReadError) -> QuestionError {
        QuestionError::Lost(error.into())
    }
}

impl Backend {
    /// Sends one Query, or messages up to one Sync, and reads all rows. Not cancel safe: dropped half way
    /// the connection is of no use.
    pub async fn rows(&mut self, request: &[u8]) -> Result<Vec<Row>, QuestionError> {
        let mut rows = Vec::new();
        self.each_row(request, |row| rows.push(row.iter().map(|it| it.map(str::to_owned)).collect())).await?;
        Ok(rows)
    }

    /// As `rows`, for answers that are not to be kept as they come.
    pub async fn each_row(
        &mut self,
        request: &[u8],
        mut take: impl FnMut(&[Option<&str>]),
    ) -> Result<(), QuestionError> {
        let lost = QuestionError::Lost;
        self.stream.write_all(request).await.map_err(|it| lost(ConnectError::Io(it)))?;
        let (mut buffer, mut refused) = (Buffer::default(), None);
        loop {
            let (tag, total) = net::read_message(&mut self.stream, &mut buffer, ANSWER_BYTES_MAX).await?;
            let message = &buffer.filled()[..total];
            match BackendTag(tag) {
                BackendTag::DATA_ROW => take(&wire::row_texts(message).map_err(|_| malformed())?),
                BackendTag::ERROR => {
                    let fields = wire::error_fields(message).map_err(|_| malformed())?;
                    let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
                    let (state, text) = (text(fields.state), text(fields.message));
                    if fields.severity != b"ERROR" {
                        let bytes = message.into();
                        return Err(lost(ConnectError::Refused { state, message: text, bytes }));
                    }
                    refused = Some(QuestionError::Refused { state, message: text });
                }
                BackendTag::READY_FOR_QUERY => return refused.map_or(Ok(()), Err),
                _ => {}
            }
            buffer.consume(total);
        }
    }

    /// Whether the server has said something, or gone, since the last answer.
    pub fn has_news(&mut self) -> bool {
        self.stream.has_spoken()
    }
}

fn malformed() -> QuestionError {
    QuestionError::Lost(ConnectError::Protocol("malformed answer".to_owned()))
}
