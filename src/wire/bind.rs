//! The body of Bind: parameters are looked at in place, because a shard key may be among them.

use super::HEADER_BYTES;
use super::frontend::{Body, BodyError};

/// The message with the places of its parts: small, as each message of a group is kept until the group is answered.
#[derive(Clone, Copy, Debug)]
pub struct Bind<'a> {
    message: &'a [u8],
    /// Where the name of the statement begins, behind that of the portal with its zero byte; the others are behind their counts.
    statement_at: u32,
    formats_at: u32,
    values_at: u32,
    result_formats_at: u32,
}

/// Of a list of format codes or values.
const COUNT_BYTES: usize = 2;

/// Parameter format codes: none (all text), one for all, or one for each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Formats<'a>(&'a [u8]);

impl Formats<'_> {
    /// As they stand in the message.
    pub fn codes(&self) -> impl Iterator<Item = i16> {
        self.0.as_chunks::<2>().0.iter().map(|it| i16::from_be_bytes(*it))
    }

    /// Whether parameter `index` (from 0) is in binary form.
    pub fn is_binary(&self, index: usize) -> bool {
        let codes = self.0.as_chunks::<2>().0;
        let code = if codes.len() == 1 { codes.first() } else { codes.get(index) };
        code.is_some_and(|it| u16::from_be_bytes(*it) == 1)
    }
}

/// Parameter values in order; each was checked to lie within the message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Values<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// NULL is `None`.
    pub fn iter(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let mut body = Body(self.bytes);
        (0..self.count).map_while(move |_| value(&mut body).ok())
    }
}

fn value<'a>(body: &mut Body<'a>) -> Result<Option<&'a [u8]>, BodyError> {
    match body.i32()? {
        -1 => Ok(None),
        length => body.take(usize::try_from(length).map_err(|_| BodyError)?).map(Some),
    }
}

impl<'a> Bind<'a> {
    pub fn read(message: &'a [u8]) -> Result<Bind<'a>, BodyError> {
        let mut body = Body::of(message)?;
        let at = |body: &Body<'_>| u32::try_from(message.len() - body.0.len()).map_err(|_| BodyError);
        body.cstr()?;
        let statement_at = at(&body)?;
        body.cstr()?;
        let format_count = usize::from(body.u16()?);
        let formats_at = at(&body)?;
        body.take(format_count * 2)?;
        let count = usize::from(body.u16()?);
        let values_at = at(&body)?;
        for _ in 0..count {
            value(&mut body)?;
        }
        let result_count = usize::from(body.u16()?);
        let result_formats_at = at(&body)?;
        body.take(result_count * 2)?;
        body.end()?;
        if format_count > 1 && format_count != count {
            return Err(BodyError);
        }
        Ok(Bind { message, statement_at, formats_at, values_at, result_formats_at })
    }

    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    pub fn portal(&self) -> &'a [u8] {
        &self.message[HEADER_BYTES..self.statement_at() - 1]
    }

    pub fn statement(&self) -> &'a [u8] {
        &self.message[self.statement_at()..self.formats_at as usize - COUNT_BYTES - 1]
    }

    /// Where the name of the statement stands in the message.
    pub fn statement_at(&self) -> usize {
        self.statement_at as usize
    }

    pub fn formats(&self) -> Formats<'a> {
        Formats(&self.message[self.formats_at as usize..self.values_at as usize - COUNT_BYTES])
    }

    pub fn values(&self) -> Values<'a> {
        let (at, end) = (self.values_at as usize, self.result_formats_at as usize - COUNT_BYTES);
        let count = u16::from_be_bytes([self.message[at - 2], self.message[at - 1]]);
        Values { count: usize::from(count), bytes: &self.message[at..end] }
    }

    /// Of the columns of the result.
    pub fn result_formats(&self) -> Formats<'a> {
        Formats(&self.message[self.result_formats_at as usize..])
    }

    /// All behind the names, as in the message.
    pub fn put_values(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.message[self.formats_at as usize - COUNT_BYTES..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"B\0\0\0\x20p\0st\0\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\0\0";

    #[test]
    fn bind_reads_values_and_formats() {
        let it = Bind::read(MESSAGE).unwrap();
        assert_eq!((it.portal(), it.statement(), it.statement_at()), (&b"p"[..], &b"st"[..], 7));
        assert!(it.formats().is_binary(0) && it.formats().is_binary(1));
        assert_eq!(it.values().iter().collect::<Vec<_>>(), [Some(&b"\0\0\0\x07"[..]), None]);
        let mut values = Vec::new();
        it.put_values(&mut values);
        assert_eq!(values, MESSAGE[10..]);
    }

    #[test]
    fn bind_cut_anywhere_is_an_error_and_never_a_panic() {
        for end in 0..MESSAGE.len() {
            assert!(Bind::read(&MESSAGE[..end]).is_err(), "cut at {end}");
        }
    }
}
