//! A parsed TOML file whose every key and value knows its line, and the list of what is wrong with it.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;
use super::settings::{Kind, Setting};

/// Collects problems; shared by all sections of one file.
pub struct Findings<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Findings<'a> {
    pub fn new(text: &'a str) -> Findings<'a> {
        Findings { text, problems: RefCell::default() }
    }

    pub fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|it| **it == b'\n').count()
    }

    pub fn add(&self, offset: usize, message: impl Into<String>, instead: impl Into<String>) {
        let (message, instead) = (message.into(), instead.into());
        self.problems.borrow_mut().push(Problem { line: Some(self.line(offset)), message, instead });
    }

    /// In the order of the file.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|it| it.line);
        problems
    }
}

/// A table of the file, or one that is not there: then every setting has its default.
#[derive(Clone, Copy)]
pub struct Section<'a> {
    pub path: &'a str,
    pub offset: usize,
    table: Option<&'a DeTable<'a>>,
    pub findings: &'a Findings<'a>,
}

/// A value with its place.
pub type Value<'a> = &'a Spanned<DeValue<'a>>;

impl<'a> Section<'a> {
    pub fn new(
        path: &'a str,
        offset: usize,
        table: Option<&'a DeTable<'a>>,
        findings: &'a Findings<'a>,
    ) -> Section<'a> {
        Section { path, offset, table, findings }
    }

    /// Names every key that is not a setting of this section, with the nearest that is.
    pub fn check_keys(&self, known: &[&Setting]) {
        for (key, value) in self.entries() {
            if !known.iter().any(|it| it.key == key) {
                let nearest = known.iter().min_by_key(|it| distance(key, it.key));
                let instead = match nearest {
                    Some(it) if distance(key, it.key) <= 1 + key.len() / 4 => format!("`{}`", it.key),
                    _ => format!("one of {}", known.iter().map(|it| it.key).collect::<Vec<_>>().join(", ")),
                };
                self.add(
                    key_offset(self.table, key).unwrap_or(value.span().start),
                    format!("unknown key `{key}`{}", self.place()),
                    instead,
                );
            }
        }
    }

    fn place(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!(" in [{}]", self.path) }
    }

    pub fn add(&self, offset: usize, message: impl Into<String>, instead: impl Into<String>) {
        self.findings.add(offset, message, instead);
    }

    /// Keys and values in the order of the file.
    pub fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let Some(table) = self.table else { return Vec::new() };
        let mut entries: Vec<_> =
            table.iter().map(|(key, value)| (key.span().start, &**key.get_ref(), value)).collect();
        entries.sort_by_key(|it| it.0);
        entries.into_iter().map(|(_, key, value)| (key, value)).collect()
    }

    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.table?.get(key)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A table under this one.
    pub fn section(&self, key: &str, path: &'a str) -> Section<'a> {
        let Some(value) = self.get(key) else { return Section::new(path, self.offset, None, self.findings) };
        let offset = key_offset(self.table, key).unwrap_or(value.span().start);
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.add(offset, format!("`{key}` is {}", kind_of(value)), format!("a table: [{path}]"));
        }
        Section::new(path, offset, table, self.findings)
    }

    pub fn text(&self, setting: &Setting) -> Option<(&'a str, usize)> {
        let value = self.get(setting.key)?;
        match value.get_ref().as_str() {
            Some(it) => Some((it, value.span().start)),
            None => {
                self.wrong_kind(setting, value, "a string");
                None
            }
        }
    }

    pub fn count(&self, setting: &Setting) -> usize {
        let Kind::Count { default, min, max } = setting.kind else { return 0 };
        let Some(value) = self.get(setting.key) else { return default };
        self.whole_number(setting, value, (min, max), "").unwrap_or(default)
    }

    pub fn flag(&self, setting: &Setting) -> bool {
        let Kind::Other { default, .. } = setting.kind else { return false };
        let default = default == "true";
        let Some(value) = self.get(setting.key) else { return default };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong_kind(setting, value, "true or false");
            default
        })
    }

    /// Whole or not; `None` where it is not there, or no such number.
    pub fn number(&self, setting: &Setting, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.get(setting.key)?;
        let of = value.get_ref();
        let number = of.as_float().map(|it| it.as_str()).or_else(|| of.as_integer().map(|it| it.as_str()));
        let number = number.and_then(|it| it.parse().ok()).filter(|it| range.contains(it));
        if number.is_none() {
            let message = format!("`{}` is {}", setting.key, shown(value));
            let (from, to) = range.into_inner();
            let instead = format!("{} = a number from {from:?} to {to:?}", setting.key);
            self.add(value.span().start, message, instead);
        }
        number
    }

    /// `"off"` is `None`.
    pub fn optional_count(&self, setting: &Setting) -> Option<usize> {
        let Kind::OptionalCount { min, max } = setting.kind else { return None };
        let value = self.get(setting.key)?;
        if value.get_ref().as_str() == Some("off") {
            return None;
        }
        self.whole_number(setting, value, (min, max), " or \"off\"")
    }

    fn whole_number(
        &self,
        setting: &Setting,
        value: Value<'_>,
        (min, max): (usize, usize),
        or: &str,
    ) -> Option<usize> {
        let found =
            value.get_ref().as_integer().and_then(|it| usize::from_str_radix(it.as_str(), it.radix()).ok());
        let found = found.filter(|it| (min..=max).contains(it));
        if found.is_none() {
            let message = format!("`{}` is {}", setting.key, shown(value));
            let instead = format!("{} = a whole number from {min} to {max}{or}", setting.key);
            self.add(value.span().start, message, instead);
        }
        found
    }

    /// `"off"` is `None` where the setting may be off.
    pub fn duration(&self, setting: &Setting) -> Option<Duration> {
        let Kind::Duration { default, min, max, may_be_off } = setting.kind else { return None };
        let parse = |it: &str| humantime::parse_duration(it).ok();
        let fallback = parse(default);
        let Some(value) = self.get(setting.key) else { return fallback };
        let text = value.get_ref().as_str();
        if may_be_off && text == Some("off") {
            return None;
        }
        let (low, high) = (parse(min).unwrap_or_default(), parse(max).unwrap_or(Duration::MAX));
        match text.and_then(parse) {
            Some(it) if (low..=high).contains(&it) => Some(it),
            _ => {
                let off = if may_be_off { " or \"off\"" } else { "" };
                let instead = format!("{} = a duration from \"{min}\" to \"{max}\"{off}", setting.key);
                self.add(value.span().start, format!("`{}` is {}", setting.key, shown(value)), instead);
                fallback
            }
        }
    }

    pub fn wrong_kind(&self, setting: &Setting, value: Value<'_>, want: &str) {
        self.add(
            value.span().start,
            format!("`{}` is {}", setting.key, kind_of(value)),
            format!("{} = {want}", setting.key),
        );
    }
}

fn key_offset(table: Option<&DeTable<'_>>, key: &str) -> Option<usize> {
    table?.get_key_value(key).map(|(key, _)| key.span().start)
}

pub fn kind_of(value: Value<'_>) -> String {
    format!("of type {}", value.get_ref().type_str())
}

/// The value as a person wrote it, where that is short.
pub fn shown(value: Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(it) => format!("\"{it}\""),
        DeValue::Integer(it) => it.as_str().to_owned(),
        DeValue::Boolean(it) => it.to_string(),
        _ => kind_of(value),
    }
}

/// Edit distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
