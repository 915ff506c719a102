//! Who may see the dashboard.

use std::path::Path;

use super::document::Section;
use super::settings;
use super::user::secret_text;
use super::{Dashboard, Password};

/// Cookies are made of the token: one that can be guessed from them would be none.
const TOKEN_CHARS_MIN: usize = 16;

pub fn dashboard(top: &Section<'_>, directory: &Path, env: &dyn Fn(&str) -> Option<String>) -> Dashboard {
    Dashboard {
        admin_token: token(top, directory, env),
        redact_keys: top.flag(&settings::REDACT_KEYS),
        admin_streams_max: top.count(&settings::ADMIN_STREAMS_MAX),
    }
}

/// It goes through a header as it is.
fn token(top: &Section<'_>, directory: &Path, env: &dyn Fn(&str) -> Option<String>) -> Option<Password> {
    let setting = &settings::ADMIN_TOKEN;
    if top.get(setting.key).is_some_and(|it| it.get_ref().as_str() == Some("off")) {
        return None;
    }
    let (text, offset) = secret_text(top, setting, directory, env)?;
    let is_plain = text.bytes().all(|it| it.is_ascii_graphic());
    if text.len() < TOKEN_CHARS_MIN || !is_plain {
        let message =
            format!("the `{}` is too short, or has a space or another character than ASCII's", setting.key);
        top.add(
            offset,
            message,
            format!("at least {TOKEN_CHARS_MIN} characters, such as `openssl rand -hex 16` prints"),
        );
        return None;
    }
    Some(Password::new(&text))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Problem};
    use super::*;

    fn parse(line: &str) -> Result<Config, Vec<Problem>> {
        let text = format!("{line}\n[users.app]\nauth = \"trust\"\n[databases.shop]\nservers = [\"a\"]\n");
        let env = |name: &str| (name == "TOKEN").then(|| "from the environment".replace(' ', "-"));
        Config::parse(&text, Path::new(""), &env)
    }

    #[test]
    fn a_token_is_text_or_a_place_and_never_shown() {
        let token = |line: &str| parse(line).unwrap().dashboard.admin_token.map(|it| it.reveal().to_string());
        assert_eq!(token(""), None);
        assert_eq!(token("admin_token = \"off\""), None);
        assert_eq!(token("admin_token = \"0123456789abcdef\"").as_deref(), Some("0123456789abcdef"));
        assert_eq!(token("admin_token = { env = \"TOKEN\" }").as_deref(), Some("from-the-environment"));
        let config = parse("admin_token = \"0123456789abcdef\"").unwrap();
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
        assert!(config.listed().iter().any(|it| it.key == "admin_token" && it.value == "given"));
    }

    #[test]
    fn what_can_be_guessed_or_not_be_sent_is_no_token() {
        for line in [
            "admin_token = \"0123456789abcde\"",
            "admin_token = \"0123456789 abcdef\"",
            "admin_token = \"0123456789äbcdef\"",
            "admin_token = \"\"",
            "admin_token = { env = \"UNSET\" }",
            "admin_token = 5",
            "redact_keys = \"no\"",
            "admin_streams_max = 0",
        ] {
            let problems = parse(line).unwrap_err();
            assert!(problems.len() == 1 && problems[0].line == Some(1), "{line}: {problems:?}");
        }
        assert!(!parse("redact_keys = false").unwrap().dashboard.redact_keys);
    }
}
