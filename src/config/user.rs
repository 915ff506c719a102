//! [users.NAME]

use std::path::Path;

use super::document::Section;
use super::settings;
use super::{Auth, Password, User};

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
            (None, Some(file)) => std::fs::read_to_string(directory.join(file))
                .map(|it| it.strip_suffix('\n').map(str::to_owned).unwrap_or(it))
                .map_err(|error| {
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
        Ok(text) if text.is_empty() => section.add(offset, "the password is empty", "a password"),
        Ok(text) => return Some(Password::new(&text)),
        Err((message, instead)) => section.add(offset, message, instead),
    }
    None
}
