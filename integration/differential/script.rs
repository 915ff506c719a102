//! Message scripts as text; `../scripts/README.md` is their manual.

use crate::harness::Fallible;
use crate::harness::wire::message;

pub struct Script {
    pub name: String,
    pub agreement: Agreement,
    /// Of the startup packet.
    pub protocol: u32,
    /// Major version of the oldest server that answers so.
    pub server_min: u32,
    pub settings: Vec<(String, String)>,
    pub turns: Vec<Turn>,
}

/// Whether Keyway answers as PostgreSQL does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    Agrees,
    Differs,
    Varies,
}

/// Messages that are sent at once, and what is read before the next turn.
#[derive(Default)]
pub struct Turn {
    pub bytes: Vec<u8>,
    pub wait: Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// So many ReadyForQuery.
    Ready(usize),
    /// A message of this type.
    Message(char),
    Closed,
}

impl Default for Wait {
    fn default() -> Wait {
        Wait::Ready(0)
    }
}

/// The scripts of a file.
pub fn read(file: &str, text: &str) -> Fallible<Vec<Script>> {
    let (mut scripts, mut told) = (Vec::<Script>::new(), None);
    for (index, line) in text.lines().enumerate() {
        let at = |error| format!("{file}, line {}: {error}", index + 1);
        if let Some(name) = line.strip_prefix("== ") {
            finish(&mut scripts, &mut told);
            let name = format!("{file}: {name}");
            scripts.push(Script {
                name,
                agreement: Agreement::Agrees,
                protocol: 3 << 16,
                server_min: 0,
                settings: Vec::new(),
                turns: vec![Turn::default()],
            });
        } else if line.trim().is_empty() {
            finish(&mut scripts, &mut told);
        } else if !line.starts_with('#') {
            let script = scripts.last_mut().ok_or_else(|| at("no script has begun".into()))?;
            add_line(script, &mut told, &words(line).map_err(at)?).map_err(at)?;
        }
    }
    finish(&mut scripts, &mut told);
    Ok(scripts)
}

/// Ends a turn, if it has anything.
fn finish(scripts: &mut [Script], told: &mut Option<Wait>) {
    let Some(script) = scripts.last_mut() else { return };
    let Some(turn) = script.turns.last_mut() else { return };
    if let Some(told) = told.take() {
        turn.wait = told;
    }
    if !turn.bytes.is_empty() {
        script.turns.push(Turn::default());
    }
}

fn add_line(script: &mut Script, told: &mut Option<Wait>, words: &[Word]) -> Result<(), String> {
    let (verb, rest) = words.split_first().ok_or("an empty line")?;
    let turn = script.turns.last_mut().ok_or("no turn")?;
    let text = |index: usize| rest.get(index).ok_or("a word is missing")?.text();
    match verb.text()?.as_str() {
        // With the reason, which is for readers.
        "Differs" => (script.agreement, _) = (Agreement::Differs, text(0)?),
        "Varies" => (script.agreement, _) = (Agreement::Varies, text(0)?),
        "Protocol" => {
            let minor = text(0)?.strip_prefix("3.").and_then(|it| it.parse::<u16>().ok());
            script.protocol = 3 << 16 | u32::from(minor.ok_or("no version of protocol 3")?);
        }
        "From" => script.server_min = number(rest, 0)? as u32,
        "Startup" => script.settings.push((text(0)?, text(1)?)),
        "Ready" => *told = Some(Wait::Ready(number(rest, 0)? as usize)),
        "Until" => *told = Some(Wait::Message(text(0)?.chars().next().ok_or("no type")?)),
        "Closed" => *told = Some(Wait::Closed),
        "Repeat" => {
            let (count, line) = (number(rest, 0)?, rest.get(1..).unwrap_or_default());
            for _ in 0..count {
                add_line(script, told, line)?;
            }
        }
        verb => {
            turn.bytes.extend(encoded(verb, rest)?);
            if let (Wait::Ready(count), "Query" | "Sync" | "FunctionCall") = (&mut turn.wait, verb) {
                *count += 1;
            }
        }
    }
    Ok(())
}

fn encoded(verb: &str, words: &[Word]) -> Result<Vec<u8>, String> {
    let bytes = |index: usize| words.get(index).ok_or("a word is missing")?.bytes();
    let cstr = |index: usize| Ok::<_, String>([bytes(index)?, vec![0]].concat());
    let list = |index: usize| words.get(index).map_or(Ok(&[][..]), Word::list);
    Ok(match verb {
        "Query" => message('Q', &cstr(0)?),
        "Parse" => {
            let types = list(2)?.iter().map(type_oid).collect::<Result<Vec<_>, _>>()?;
            let mut body = [cstr(0)?, cstr(1)?, (types.len() as u16).to_be_bytes().to_vec()].concat();
            types.iter().for_each(|it| body.extend(it.to_be_bytes()));
            message('P', &body)
        }
        "Bind" => {
            let mut body = [cstr(0)?, cstr(1)?].concat();
            body.extend(formats(list(3)?)?);
            body.extend(values(list(2)?)?);
            body.extend(formats(list(4)?)?);
            message('B', &body)
        }
        "Describe" => message('D', &[bytes(0)?, cstr(1)?].concat()),
        "Close" => message('C', &[bytes(0)?, cstr(1)?].concat()),
        "Execute" => message('E', &[cstr(0)?, number(words, 1)?.to_be_bytes().to_vec()].concat()),
        "Sync" => message('S', &[]),
        "Flush" => message('H', &[]),
        "CopyData" => message('d', &bytes(0)?),
        "CopyDone" => message('c', &[]),
        "CopyFail" => message('f', &cstr(0)?),
        "Terminate" => message('X', &[]),
        // The function's oid, arguments, their formats, the format of the result.
        "FunctionCall" => {
            let mut body = number(words, 0)?.to_be_bytes().to_vec();
            body.extend(formats(list(2)?)?);
            body.extend(values(list(1)?)?);
            body.extend((number(words, 3)? as u16).to_be_bytes());
            message('F', &body)
        }
        "Raw" => bytes(0)?,
        "Message" => message(char::from(*bytes(0)?.first().ok_or("no type")?), &bytes(1)?),
        _ => return Err(format!("no such message: {verb}")),
    })
}

fn number(words: &[Word], index: usize) -> Result<i32, String> {
    let text = words.get(index).ok_or("a number is missing")?.text()?;
    text.parse().map_err(|_| format!("no number: {text}"))
}

fn type_oid(word: &Word) -> Result<u32, String> {
    let text = word.text()?;
    Ok(match text.as_str() {
        "bool" => 16,
        "bytea" => 17,
        "int8" => 20,
        "int2" => 21,
        "int4" => 23,
        "text" => 25,
        "float8" => 701,
        "date" => 1082,
        "timestamptz" => 1184,
        "numeric" => 1700,
        "unknown" => 705,
        other => other.parse().map_err(|_| format!("no such type: {other}"))?,
    })
}

fn formats(words: &[Word]) -> Result<Vec<u8>, String> {
    let mut out = (words.len() as u16).to_be_bytes().to_vec();
    for index in 0..words.len() {
        out.extend((number(words, index)? as u16).to_be_bytes());
    }
    Ok(out)
}

fn values(words: &[Word]) -> Result<Vec<u8>, String> {
    let mut out = (words.len() as u16).to_be_bytes().to_vec();
    for word in words {
        match word {
            Word::Bare(it) if it == "null" => out.extend((-1i32).to_be_bytes()),
            it => {
                let bytes = it.bytes()?;
                out.extend((bytes.len() as u32).to_be_bytes());
                out.extend(bytes);
            }
        }
    }
    Ok(out)
}

#[derive(Debug)]
enum Word {
    Bare(String),
    Bytes(Vec<u8>),
    List(Vec<Word>),
}

impl Word {
    fn bytes(&self) -> Result<Vec<u8>, String> {
        match self {
            Word::Bare(it) => Ok(it.clone().into_bytes()),
            Word::Bytes(it) => Ok(it.clone()),
            Word::List(_) => Err("a list is no text".into()),
        }
    }

    fn text(&self) -> Result<String, String> {
        String::from_utf8(self.bytes()?).map_err(|_| "not text".into())
    }

    fn list(&self) -> Result<&[Word], String> {
        match self {
            Word::List(it) => Ok(it),
            other => Err(format!("no list: {other:?}")),
        }
    }
}

fn words(line: &str) -> Result<Vec<Word>, String> {
    let mut open = vec![Vec::new()];
    let mut chars = line.chars().peekable();
    while let Some(it) = chars.next() {
        let word = match it {
            ' ' => continue,
            '[' => {
                open.push(Vec::new());
                continue;
            }
            ']' => Word::List(open.pop().filter(|_| !open.is_empty()).ok_or("] without [")?),
            '"' => Word::Bytes(string(&mut chars)?),
            it => {
                let mut bare = String::from(it);
                while let Some(it) = chars.next_if(|it| !matches!(it, ' ' | ']' | '"')) {
                    bare.push(it);
                }
                if bare == "x" && chars.next_if_eq(&'"').is_some() {
                    Word::Bytes(hex(&string(&mut chars)?)?)
                } else {
                    Word::Bare(bare)
                }
            }
        };
        open.last_mut().ok_or("] without [")?.push(word);
    }
    match <[_; 1]>::try_from(open) {
        Ok([words]) => Ok(words),
        Err(_) => Err("[ without ]".into()),
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Up to the quote that ends it, and as often as `*n` behind it says.
fn string(chars: &mut Chars<'_>) -> Result<Vec<u8>, String> {
    let mut out = String::new();
    loop {
        match chars.next().ok_or("\" is missing")? {
            '"' => break,
            '\\' => out.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('0') => '\0',
                Some(it @ ('"' | '\\')) => it,
                other => return Err(format!("no such escape: {other:?}")),
            }),
            it => out.push(it),
        }
    }
    let mut times = String::new();
    if chars.next_if_eq(&'*').is_some() {
        while let Some(it) = chars.next_if(char::is_ascii_digit) {
            times.push(it);
        }
    }
    let times = if times.is_empty() { 1 } else { times.parse().map_err(|_| "too often")? };
    Ok(out.into_bytes().repeat(times))
}

fn hex(digits: &[u8]) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = digits.iter().copied().filter(|it| *it != b' ').collect();
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).map_err(|_| "no hex")?;
        u8::from_str_radix(text, 16).map_err(|_| format!("no hex: {text}"))
    };
    digits.chunks(2).map(byte).collect()
}
