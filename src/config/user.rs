//! [users.NAME]

use std::path::Path;

use super::document::Section;
use super::settings::{self, Setting};
use super::{Auth, ClientTls, PoolMode, Secret, User};
use crate::base::Consistency;

const PASSWORD_BYTES_MAX: u64 = 65_536;
/// PostgreSQL's NAMEDATALEN - 1.
const NAME_BYTES_MAX: usize = 63;

pub fn users(
    top: &Section<'_>,
    tls: &ClientTls,
    directory: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Vec<User> {
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
        if auth == Auth::Cert {
            check_certificates(&it, name, tls);
        }
        if it.has(settings::PASSWORD.key) {
            check_use(&it, name, auth, password.as_ref());
        } else if !matches!(auth, Auth::Trust | Auth::Cert) {
            it.add(
                it.offset,
                format!("user `{name}` has no password"),
                "password = \"...\", or auth = \"trust\"",
            );
        }
        User {
            name: name.to_owned(),
            auth,
            password,
            clients_max: it.optional_count(&settings::USER_CLIENTS_MAX),
            server_connections_max: it.optional_count(&settings::USER_CONNECTIONS_MAX),
            pool_mode: pool_mode(&it, &settings::USER_POOL_MODE),
            consistency: consistency(&it, &settings::USER_CONSISTENCY),
        }
    };
    section.entries().into_iter().map(user).collect()
}

/// Of a user or a database.
pub fn pool_mode(section: &Section<'_>, setting: &Setting) -> Option<PoolMode> {
    let (text, offset) = section.text(setting)?;
    match text {
        "transaction" => Some(PoolMode::Transaction),
        "session" => Some(PoolMode::Session),
        other => {
            let instead = "pool_mode = \"transaction\" or \"session\"";
            section.add(offset, format!("`pool_mode` is \"{other}\""), instead);
            None
        }
    }
}

/// Of a user or a database.
pub fn consistency(section: &Section<'_>, setting: &Setting) -> Option<Consistency> {
    let (text, offset) = section.text(setting)?;
    let found = Consistency::of_name(text);
    if found.is_none() {
        let instead = format!("consistency = \"...\" with one of {}", Consistency::NAMES);
        section.add(offset, format!("`consistency` is \"{text}\""), instead);
    }
    found
}

fn auth(section: &Section<'_>) -> Auth {
    let Some((text, offset)) = section.text(&settings::AUTH) else { return Auth::Scram };
    match text {
        "scram" => Auth::Scram,
        "md5" => Auth::Md5,
        "password" => Auth::Password,
        "trust" => Auth::Trust,
        "cert" => Auth::Cert,
        other => {
            let instead = "auth = \"scram\", \"md5\", \"password\", \"trust\" or \"cert\"";
            section.add(offset, format!("`auth` is \"{other}\""), instead);
            Auth::Scram
        }
    }
}

/// Certificates need somebody who vouches for them.
fn check_certificates(section: &Section<'_>, name: &str, tls: &ClientTls) {
    if tls.authorities.is_none() {
        let offset = section.get(settings::AUTH.key).map_or(section.offset, |it| it.span().start);
        let message = format!("user `{name}` shows a certificate, and nothing says who vouches for it");
        section.add(offset, message, "ca = \"FILE\", cert and key in [tls], or another `auth`");
    }
}

/// A stored form of a password is good for some methods only.
fn check_use(section: &Section<'_>, name: &str, auth: Auth, secret: Option<&Secret>) {
    let offset = section.get(settings::PASSWORD.key).map_or(section.offset, |it| it.span().start);
    match (auth, secret) {
        (Auth::Scram, Some(Secret::Md5(_))) => section.add(
            offset,
            format!("user `{name}` has an MD5 digest, by which no client can log in with SCRAM"),
            "the password or a SCRAM verifier, or auth = \"md5\"",
        ),
        (Auth::Trust | Auth::Cert, Some(Secret::Scram(_))) => section.add(
            offset,
            format!("user `{name}` has a SCRAM verifier that nothing will use: clients show no proof"),
            "auth = \"scram\", or the password itself for the servers",
        ),
        _ => {}
    }
}

fn password(section: &Section<'_>, directory: &Path, env: &dyn Fn(&str) -> Option<String>) -> Option<Secret> {
    let (text, offset) = secret_text(section, &settings::PASSWORD, directory, env)?;
    let secret = Secret::parse(&text);
    if secret.is_none() {
        let instead = "SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey> as in pg_authid";
        section.add(offset, "the SCRAM verifier is malformed", instead);
    }
    secret
}

/// What stands in the file, or in the place that it names, and where.
pub fn secret_text(
    section: &Section<'_>,
    setting: &Setting,
    directory: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Option<(String, usize)> {
    let (key, value) = (setting.key, section.get(setting.key)?);
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
                (format!("cannot read {key} file {file}: {error}"), "the path of a readable file".to_owned())
            }),
            _ => Err((
                format!("`{key}` is neither a string nor a place"),
                format!("{key} = \"...\", {{ env = \"NAME\" }} or {{ file = \"PATH\" }}"),
            )),
        }
    };
    match found {
        Ok(text) if text.contains('\0') => {
            section.add(offset, format!("the {key} has a zero byte"), format!("a {key} without it"));
        }
        Ok(text) if text.is_empty() => section.add(offset, format!("the {key} is empty"), format!("a {key}")),
        Ok(text) => return Some((text, offset)),
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
