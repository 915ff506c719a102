//! Keyway, a shard-aware PostgreSQL routing proxy.
//!
//! ```text
//! client bytes -> net -> wire -> proto -> sql::scan -> route::PlanCache -> route::decide -> pool -> backend
//! client bytes <- client::relay (one shard) / client::scatter (many shards) <- proto::pipeline <- backend
//! ```
//!
//! Modules stand in layer order: each imports only from those above it in this list, which
//! `tests/tidy.rs` checks. `ARCHITECTURE.md` has the table with what each layer may do.

pub mod base;
pub mod metrics;
pub mod shard;
pub mod sketch;
pub mod sql;
pub mod wire;

pub mod config;
pub mod merge;
pub mod proto;

pub mod net;
pub mod route;

pub mod auth;
pub mod hotspot;
pub mod otlp;

pub mod backend;

pub mod cancel;
pub mod catalog;
pub mod pool;
pub mod topology;

pub mod client;

pub mod admin;

pub mod app;
pub mod demo;
