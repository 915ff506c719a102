//! The body of Bind: parameters are looked at in place, because a shard key may be among them.

use super::HEADER_BYTES;
use super::frontend::{Body, BodyError};

#[derive(Clone, Copy, Debug)]
pub struct Bind<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    pub formats: Formats<'a>,
    pub values: Values<'a>,
    /// Of the columns of the result.
    pub result_formats: Formats<'a>,
    /// Where the statement name stands in the message, without its zero byte.
    pub statement_at: usize,
}

/// Parameter format codes: none (all text), one for all, or one for each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Formats<'a>(&'a [u8]);

impl Formats<'_> {
    /// As they stand in the message.
    pub fn codes(&self) -> impl Iterator<Item = i16> {
        self.0.as_chunks::<2>().0.iter().map(|it| i16::from_be_bytes(*it))
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&((self.0.len() / 2) as u16).to_be_bytes());
        out.extend_from_slice(self.0);
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
    pub fn iter(&self) -> impl Iterator<Item = Option<&'a [u8]>> {
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
        let portal = body.cstr()?;
        let statement = body.cstr()?;
        let statement_at = HEADER_BYTES + portal.len() + 1;
        let format_count = usize::from(body.u16()?);
        let formats = Formats(body.take(format_count * 2)?);
        let count = usize::from(body.u16()?);
        let start = body.0;
        for _ in 0..count {
            value(&mut body)?;
        }
        let values = Values { count, bytes: &start[..start.len() - body.0.len()] };
        let result_count = usize::from(body.u16()?);
        let result_formats = Formats(body.take(result_count * 2)?);
        body.end()?;
        if format_count > 1 && format_count != count {
            return Err(BodyError);
        }
        Ok(Bind { portal, statement, formats, values, result_formats, statement_at })
    }
}

impl Bind<'_> {
    /// All behind the names, as in the message.
    pub fn put_values(&self, out: &mut Vec<u8>) {
        self.formats.put(out);
        out.extend_from_slice(&(self.values.count as u16).to_be_bytes());
        out.extend_from_slice(self.values.bytes);
        self.result_formats.put(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"B\0\0\0\x20p\0st\0\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\0\0";

    #[test]
    fn bind_reads_values_and_formats() {
        let it = Bind::read(MESSAGE).unwrap();
        assert_eq!((it.portal, it.statement, it.statement_at), (&b"p"[..], &b"st"[..], 7));
        assert!(it.formats.is_binary(0) && it.formats.is_binary(1));
        assert_eq!(it.values.iter().collect::<Vec<_>>(), [Some(&b"\0\0\0\x07"[..]), None]);
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
