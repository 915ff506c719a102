//! [users.NAME]

use std::path::Path;

use super::document::Section;
use super::settings;
use super::{Auth, Password, User};

const PASSWORD_BYTES_MAX: u64 = 65_536;
/// PostgreSQL's NAMEDATALEN - 1.
const NAME_BYTES_MAX: usize = 63;

pub fn users(top: &Section<'_>, directory: &Path, env: &dyn Fn(&str) -> Option<String>) -> Vec<User> {
    let section = top.section(settings::USERS_SECTION.key, "users");
    if section.entries().is_empty() {
        let instead = "[users.NAME] with a password";
        section.add(section.offset, "no user is configured", instead);
    }
    let user = |(name, _): (&str, _)| {
        let path = format!("users.{name}");
        let it = section.section(name, &path);
        it.check_keys(settings::USER);
        check_name(&it, it.offset, "user", name);
        let auth = auth(&it);
        let password = password(&it, directory, env);
        if auth == Auth::Scram && !it.has(settings::PASSWORD.key) {
            it.add(
                it.offset,
                format!("user `{name}` has no password"),
                "password = \"...\", or auth = \"trust\"",
            );
        }
        User { name: name.to_owned(), auth, password }
    };
    section.entries().into_iter().map(user).collect()
}

fn auth(section: &Section<'_>) -> Auth {
    match section.text(&settings::AUTH) {
        None | Some(("scram", _)) => Auth::Scram,
        Some(("trust", _)) => Auth::Trust,
        Some((other, offset)) => {
            section.add(offset, format!("`auth` is \"{other}\""), "auth = \"scram\" or auth = \"trust\"");
            Auth::Scram
        }
    }
}

fn password(
    section: &Section<'_>,
    directory: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Option<Password> {
    let value = section.get(settings::PASSWORD.key)?;
    let offset = value.span().start;
    let found = if let Some(text) = value.get_ref().as_str() {
        Ok(text.to_owned())
    } else {
        let field = |key: &str| value.get_ref().get(key).and_then(|it| it.get_ref().as_str());
        match (field("env"), field("file")) {
            (Some(name), None) => env(name).ok_or_else(|| {
                (
                    format!("environment variable {name} is not set"),
                    format!("a value into {name} before the start"),
                )
            }),
            (None, Some(file)) => from_file(&directory.join(file)).map_err(|error| {
                (
                    format!("cannot read password file {file}: {error}"),
                    "the path of a readable file".to_owned(),
                )
            }),
            _ => Err((
                "`password` is neither a string nor a place".to_owned(),
                "password = \"...\", { env = \"NAME\" } or { file = \"PATH\" }".to_owned(),
            )),
        }
    };
    match found {
        Ok(text) if text.contains('\0') => {
            section.add(offset, "the password has a zero byte", "a password without it");
        }
        Ok(text) if text.is_empty() => section.add(offset, "the password is empty", "a password"),
        Ok(text) => return Some(Password::new(&text)),
        Err((message, instead)) => section.add(offset, message, instead),
    }
    None
}

/// A device or a log named by mistake is not read into memory.
fn from_file(path: &Path) -> Result<String, String> {
    let about = std::fs::metadata(path).map_err(|it| it.to_string())?;
    if !about.is_file() || about.len() > PASSWORD_BYTES_MAX {
        return Err(format!("it is no file of at most {PASSWORD_BYTES_MAX} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|it| it.to_string())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// Names go to servers as they are, which cut longer ones.
pub fn check_name(section: &Section<'_>, offset: usize, what: &str, name: &str) {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        let message = format!("{name:?} cannot be the name of a {what}");
        section.add(offset, message, format!("1 to {NAME_BYTES_MAX} bytes"));
    }
}
