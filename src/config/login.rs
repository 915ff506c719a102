//! How Keyway itself logs in to the servers of a database, and where it finds the passwords of users that
//! the file does not list.

use super::document::{Section, shown};
use super::settings::{self, Kind, Setting};
use super::{Auth, AuthQuery, Secret, ServerAuth, User};

pub fn server_auth(section: &Section<'_>) -> ServerAuth {
    let setting = &settings::SERVER_AUTH;
    let Some(value) = section.get(setting.key) else { return ServerAuth::default() };
    let wanted = "[\"scram\"], with \"md5\" and \"password\" where servers need them";
    let Some(list) = value.get_ref().as_array() else {
        section.wrong_kind(setting, value, wanted);
        return ServerAuth::default();
    };
    let mut found = ServerAuth { scram: false, md5: false, password: false };
    for method in list.iter() {
        match method.get_ref().as_str() {
            Some("scram") => found.scram = true,
            Some("md5") => found.md5 = true,
            Some("password") => found.password = true,
            _ => section.add(
                method.span().start,
                "`server_auth` has a method that keyway does not know",
                wanted,
            ),
        }
    }
    found
}

/// Whether Keyway can log in as this user, whatever the server asks for and before any client has.
pub fn may_log_in_alone(user: &User) -> bool {
    matches!(user.password, None | Some(Secret::Plain(_)))
}

/// A list of users of the file.
pub fn named_users(section: &Section<'_>, setting: &Setting, users: &[User]) -> Vec<String> {
    let Some(value) = section.get(setting.key) else { return Vec::new() };
    let Some(list) = value.get_ref().as_array() else {
        section.wrong_kind(setting, value, "[\"USER\", ...]");
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in list.iter() {
        match entry.get_ref().as_str().filter(|name| users.iter().any(|it| it.name == *name)) {
            Some(name) => found.push(name.to_owned()),
            None => {
                let names = users.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
                let message = format!("`{}` names no user: {}", setting.key, shown(entry));
                section.add(entry.span().start, message, format!("one of: {names}"));
            }
        }
    }
    found
}

/// A user of the file by whom Keyway does work of its own.
pub fn own_user<'a>(section: &Section<'a>, setting: &Setting, users: &'a [User]) -> Option<&'a str> {
    let (name, offset) = section.text(setting)?;
    let Some(user) = users.iter().find(|it| it.name == name) else {
        let names = users.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
        let message = format!("`{}` names no user: \"{name}\"", setting.key);
        section.add(offset, message, format!("one of: {names}"));
        return None;
    };
    if !may_log_in_alone(user) {
        let message = format!("of `{}` \"{name}\" the password itself is not known", setting.key);
        section.add(offset, message, "a user whose password is in this file");
    }
    Some(name)
}

pub fn auth_query(section: &Section<'_>, users: &[User]) -> Option<AuthQuery> {
    let Some(user) = own_user(section, &settings::AUTH_USER, users) else {
        if let Some(value) = section.get(settings::AUTH_QUERY.key).filter(|_| !section.has("auth_user")) {
            section.add(
                value.span().start,
                "`auth_query` has nobody to run it",
                "auth_user = a user of this file",
            );
        }
        return None;
    };
    let Kind::Other { default, .. } = settings::AUTH_QUERY.kind else { return None };
    let text = section.text(&settings::AUTH_QUERY);
    if let Some((text, offset)) = text.filter(|it| !it.0.contains("$1") || it.0.contains('\0')) {
        let message = format!("`auth_query` is \"{text}\", which asks for no user");
        section.add(offset, message, format!("auth_query = \"{default}\""));
    }
    Some(AuthQuery {
        user: user.to_owned(),
        text: text.map_or(default, |it| it.0).to_owned(),
        method: method(section),
        timeout: section.duration(&settings::AUTH_QUERY_TIMEOUT).unwrap_or_default(),
        lifetime: section.duration(&settings::AUTH_QUERY_LIFETIME).unwrap_or_default(),
        users_max: section.count(&settings::AUTH_QUERY_USERS_MAX),
    })
}

fn method(section: &Section<'_>) -> Auth {
    match section.text(&settings::AUTH_QUERY_METHOD) {
        None | Some(("scram", _)) => Auth::Scram,
        Some(("md5", _)) => Auth::Md5,
        Some((other, offset)) => {
            let message = format!("`auth_query_method` is \"{other}\"");
            section.add(offset, message, "auth_query_method = \"scram\" or \"md5\"");
            Auth::Scram
        }
    }
}
