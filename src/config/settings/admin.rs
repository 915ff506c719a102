//! The HTTP side.

use super::{Setting, count, other};

pub const ADMIN: Setting = other(
    "admin",
    "\"127.0.0.1:9432\"",
    "127.0.0.1:9432",
    "HTTP for /metrics, /healthz and /readyz, which anyone who reaches it can read, and for the dashboard, which `admin_token` is about",
);
pub const ADMIN_TOKEN: Setting = other(
    "admin_token",
    "\"off\"",
    "off: the dashboard is for browsers on this machine alone",
    "who may see the dashboard and /api: with a token, whoever has it, from anywhere. At least 16 characters, as text, { env = \"NAME\" } or { file = \"PATH\" }",
);
pub const REDACT_KEYS: Setting = other(
    "redact_keys",
    "true",
    "true",
    "keys of hot rows, and advice that has them in it, are told to those with the token alone; others see rank and hash",
);
pub const ADMIN_STREAMS_MAX: Setting = count(
    "admin_streams_max",
    16,
    1,
    48,
    "dashboards, and readers of /api/events, that are sent what is new as it comes; one more asks again every few seconds",
);
