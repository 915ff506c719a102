//! `keyway demo`: PostgreSQL servers, a shop on them, and load, on one machine, for a first look.

pub mod postgres;
pub mod shop;
