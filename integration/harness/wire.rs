//! A client that speaks the protocol byte by byte, for what drivers never send.

use std::net::SocketAddr;
use std::time::Duration;

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Fallible;

/// No answer takes as long; a test that waits for none must not hang.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub tag: char,
    pub body: Vec<u8>,
}

impl Message {
    /// A field of ErrorResponse or NoticeResponse.
    pub fn field(&self, code: char) -> Option<String> {
        let mut fields = self.body.split(|it| *it == 0);
        fields.find_map(|it| {
            let text = std::str::from_utf8(it).ok()?;
            text.strip_prefix(code).map(str::to_owned)
        })
    }

    /// Of a RowDescription: each column's name, and what stands behind it (table, attribute, type, length,
    /// modifier, format). `None` where it is cut off.
    pub fn columns(&self) -> Option<Vec<(&[u8], &[u8; 18])>> {
        let (_, mut rest) = self.body.split_first_chunk::<2>()?;
        let mut columns = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|it| *it == 0)?;
            let (fixed, after) = rest.get(end + 1..)?.split_first_chunk::<18>()?;
            columns.push((&rest[..end], fixed));
            rest = after;
        }
        Some(columns)
    }

    /// SQLSTATE of an error, its message behind it.
    pub fn error(&self) -> String {
        let field = |code| self.field(code).unwrap_or_default();
        format!("{} {}", field('C'), field('M'))
    }
}

pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    /// NegotiateProtocolVersion, which comes before the password is asked for.
    pub negotiated: Option<Message>,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Fallible<Wire> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, unread: Vec::new(), negotiated: None })
    }

    /// Logged in, with everything up to the first ReadyForQuery read.
    pub async fn log_in(
        address: SocketAddr,
        user: &str,
        password: &str,
        dbname: &str,
        settings: &[(&str, &str)],
    ) -> Fallible<Wire> {
        let mut wire = Wire::connect(address).await?;
        let mut parameters = vec![("user", user), ("database", dbname)];
        parameters.extend_from_slice(settings);
        wire.send(&startup(196_608, &parameters)).await?;
        wire.prove(password).await?;
        let answer = wire.until('Z').await?;
        match answer.iter().find(|it| it.tag == 'E') {
            Some(error) => Err(error.error().into()),
            None => Ok(wire),
        }
    }

    /// SCRAM-SHA-256, up to its last message but AuthenticationOk.
    pub async fn prove(&mut self, password: &str) -> Fallible<()> {
        let mut first = self.message().await?;
        if first.tag == 'v' {
            self.negotiated = Some(first);
            first = self.message().await?;
        }
        if first.tag != 'R' {
            return Err(first.error().into());
        }
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let mut body = format!("{SCRAM_SHA_256}\0").into_bytes();
        body.extend((scram.message().len() as u32).to_be_bytes());
        body.extend(scram.message());
        self.send(&message('p', &body)).await?;
        let challenge = self.message().await?;
        scram.update(challenge.body.get(4..).ok_or("a short challenge")?)?;
        self.send(&message('p', scram.message())).await
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Fallible<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    async fn fill(&mut self, count: usize) -> Fallible<()> {
        while self.unread.len() < count {
            let read = timeout(READ_TIMEOUT, self.stream.read_buf(&mut self.unread)).await??;
            if read == 0 {
                return Err("the connection was closed".into());
            }
        }
        Ok(())
    }

    pub async fn bytes(&mut self, count: usize) -> Fallible<Vec<u8>> {
        self.fill(count).await?;
        Ok(self.unread.drain(..count).collect())
    }

    pub async fn message(&mut self) -> Fallible<Message> {
        let head = self.bytes(5).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let body = self.bytes(length.checked_sub(4).ok_or("a length below 4")?).await?;
        Ok(Message { tag: char::from(head[0]), body })
    }

    /// Up to and with the first message of this type, or an error that ends the connection.
    pub async fn until(&mut self, tag: char) -> Fallible<Vec<Message>> {
        let mut messages = Vec::new();
        loop {
            let it = self.message().await?;
            let ends = it.tag == tag || it.tag == 'E' && it.field('V').as_deref() == Some("FATAL");
            messages.push(it);
            if ends {
                return Ok(messages);
            }
        }
    }

    /// Sends, and reads so many answers that end in ReadyForQuery.
    pub async fn ask(&mut self, bytes: &[u8], answers: usize) -> Fallible<Vec<Message>> {
        self.send(bytes).await?;
        let mut messages = Vec::new();
        for _ in 0..answers {
            messages.extend(self.until('Z').await?);
        }
        Ok(messages)
    }

    /// The values of the first column of a Query's rows; an error fails.
    pub async fn rows(&mut self, sql: &str) -> Fallible<Vec<String>> {
        let messages = self.ask(&query(sql), 1).await?;
        if let Some(error) = messages.iter().find(|it| it.tag == 'E') {
            return Err(format!("{sql}: {}", error.error()).into());
        }
        let value = |it: &Message| {
            let length = i32::from_be_bytes(it.body[2..6].try_into().unwrap());
            match usize::try_from(length) {
                Ok(length) => String::from_utf8_lossy(&it.body[6..6 + length]).into_owned(),
                Err(_) => "NULL".to_owned(),
            }
        };
        Ok(messages.iter().filter(|it| it.tag == 'D').map(value).collect())
    }

    /// The error that a Query is answered with.
    pub async fn error(&mut self, sql: &str) -> Fallible<String> {
        let messages = self.ask(&query(sql), 1).await?;
        let error = messages.iter().find(|it| it.tag == 'E').ok_or_else(|| format!("no error: {sql}"))?;
        Ok(error.error())
    }

    /// What is left until the other side closes.
    pub async fn rest(&mut self) -> Fallible<Vec<u8>> {
        loop {
            match timeout(READ_TIMEOUT, self.stream.read_buf(&mut self.unread)).await? {
                Ok(0) | Err(_) => return Ok(std::mem::take(&mut self.unread)),
                Ok(_) => {}
            }
        }
    }

    pub async fn shut(mut self) -> Fallible<()> {
        Ok(self.stream.shutdown().await?)
    }
}

pub fn message(tag: char, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag as u8];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
    out
}

pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(format!("{name}\0{value}\0").into_bytes());
    }
    body.push(0);
    let mut out = (body.len() as u32 + 4).to_be_bytes().to_vec();
    out.extend(body);
    out
}

/// What cancels the query of whoever has this BackendKeyData.
pub fn cancel_request(key: &[u8]) -> Vec<u8> {
    let mut out = (key.len() as u32 + 8).to_be_bytes().to_vec();
    out.extend(80_877_102u32.to_be_bytes());
    out.extend(key);
    out
}

pub fn query(sql: &str) -> Vec<u8> {
    message('Q', format!("{sql}\0").as_bytes())
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message('P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Text parameters; `binary` asks for binary results.
pub fn bind(portal: &str, statement: &str, values: &[&str], binary: bool) -> Vec<u8> {
    let values: Vec<_> = values.iter().map(|it| Some(*it)).collect();
    bind_or_null(portal, statement, &values, binary)
}

/// As `bind`; `None` is NULL.
pub fn bind_or_null(portal: &str, statement: &str, values: &[Option<&str>], binary: bool) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\0").into_bytes();
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend(value.map_or(-1, |it| it.len() as i32).to_be_bytes());
        body.extend(value.unwrap_or_default().as_bytes());
    }
    body.extend([0, 1, 0, u8::from(binary)]);
    message('B', &body)
}

pub fn describe(kind: char, name: &str) -> Vec<u8> {
    message('D', format!("{kind}{name}\0").as_bytes())
}

pub fn close(kind: char, name: &str) -> Vec<u8> {
    message('C', format!("{kind}{name}\0").as_bytes())
}

pub fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    let mut body = format!("{portal}\0").into_bytes();
    body.extend(rows_max.to_be_bytes());
    message('E', &body)
}

pub fn sync() -> Vec<u8> {
    message('S', &[])
}

pub fn flush() -> Vec<u8> {
    message('H', &[])
}
