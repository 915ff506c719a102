//! The limits of the config, counted where they are hit.

use prometheus::IntCounter;

use super::{RegisterError, Registry};

/// The bounded `limit` label of `keyway_limit_hits_total`; named as in the config, with the section where
/// the key is in several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    Clients,
    DatabaseClients,
    UserClients,
    FoundUsers,
    Logins,
    Cancels,
    Replication,
    LoginTime,
    StartupPacket,
    MessageBytes,
    Statements,
    StatementBytes,
    Waiters,
    WaitTime,
    ServerConnections,
    DatabaseConnections,
    UserConnections,
    ServerLogins,
    ClientIdle,
    IdleInTransaction,
    AbortedTransaction,
    Unfinished,
    QueryTime,
    TransactionTime,
    Channels,
    NotificationBytes,
    MergeBytes,
    CancelTime,
    LookupTime,
    LockTime,
    Shutdown,
    Buffers,
    Plans,
    ServerStatements,
    ServerStatementBytes,
    PoolSize,
    Ramp,
    ConnectTime,
    ServerIdle,
    Lifetime,
    ProbeTime,
    CatalogTime,
    CatalogWait,
    CatalogRows,
    PrimaryReads,
    FailoverHold,
    FailoverQueue,
    SlowStatements,
    Spans,
    AdminStreams,
    WriteQueue,
    SharedReplyBytes,
    CacheBytes,
}

impl Limit {
    const ALL: [Limit; 53] = [
        Limit::Clients,
        Limit::DatabaseClients,
        Limit::UserClients,
        Limit::FoundUsers,
        Limit::Logins,
        Limit::Cancels,
        Limit::Replication,
        Limit::LoginTime,
        Limit::StartupPacket,
        Limit::MessageBytes,
        Limit::Statements,
        Limit::StatementBytes,
        Limit::Waiters,
        Limit::WaitTime,
        Limit::ServerConnections,
        Limit::DatabaseConnections,
        Limit::UserConnections,
        Limit::ServerLogins,
        Limit::ClientIdle,
        Limit::IdleInTransaction,
        Limit::AbortedTransaction,
        Limit::Unfinished,
        Limit::QueryTime,
        Limit::TransactionTime,
        Limit::Channels,
        Limit::NotificationBytes,
        Limit::MergeBytes,
        Limit::CancelTime,
        Limit::LookupTime,
        Limit::LockTime,
        Limit::Shutdown,
        Limit::Buffers,
        Limit::Plans,
        Limit::ServerStatements,
        Limit::ServerStatementBytes,
        Limit::PoolSize,
        Limit::Ramp,
        Limit::ConnectTime,
        Limit::ServerIdle,
        Limit::Lifetime,
        Limit::ProbeTime,
        Limit::CatalogTime,
        Limit::CatalogWait,
        Limit::CatalogRows,
        Limit::PrimaryReads,
        Limit::FailoverHold,
        Limit::FailoverQueue,
        Limit::SlowStatements,
        Limit::Spans,
        Limit::AdminStreams,
        Limit::WriteQueue,
        Limit::SharedReplyBytes,
        Limit::CacheBytes,
    ];

    fn label(self) -> &'static str {
        match self {
            Limit::Clients => "limits.clients_max",
            Limit::DatabaseClients => "databases.clients_max",
            Limit::UserClients => "users.clients_max",
            Limit::FoundUsers => "auth_query_users_max",
            Limit::Logins => "logins_max",
            Limit::Cancels => "cancels_max",
            Limit::Replication => "replication_connections_max",
            Limit::LoginTime => "login_timeout",
            Limit::StartupPacket => "startup_packet",
            Limit::MessageBytes => "message_bytes_max",
            Limit::Statements => "statements_max",
            Limit::StatementBytes => "statement_bytes_max",
            Limit::Waiters => "waiters_max",
            Limit::WaitTime => "wait_timeout",
            Limit::ServerConnections => "limits.server_connections_max",
            Limit::DatabaseConnections => "databases.server_connections_max",
            Limit::UserConnections => "users.server_connections_max",
            Limit::ServerLogins => "server_logins_max",
            Limit::ClientIdle => "client_idle_timeout",
            Limit::IdleInTransaction => "idle_in_transaction_timeout",
            Limit::AbortedTransaction => "aborted_transaction_timeout",
            Limit::Unfinished => "unfinished_timeout",
            Limit::QueryTime => "query_timeout",
            Limit::TransactionTime => "transaction_timeout",
            Limit::Channels => "channels_max",
            Limit::NotificationBytes => "notification_bytes_max",
            Limit::MergeBytes => "merge_bytes_max",
            Limit::CancelTime => "cancel_timeout",
            Limit::LookupTime => "auth_query_timeout",
            Limit::LockTime => "cross_shard_lock_timeout",
            Limit::Shutdown => "shutdown_timeout",
            Limit::Buffers => "buffers_max",
            Limit::Plans => "plans_max",
            Limit::ServerStatements => "server_statements_max",
            Limit::ServerStatementBytes => "server_statement_bytes_max",
            Limit::PoolSize => "pool.size",
            Limit::Ramp => "ramp",
            Limit::ConnectTime => "connect_timeout",
            Limit::ServerIdle => "idle_timeout",
            Limit::Lifetime => "lifetime",
            Limit::ProbeTime => "probe_timeout",
            Limit::CatalogTime => "catalog_timeout",
            Limit::CatalogWait => "catalog_wait",
            Limit::CatalogRows => "catalog_rows_max",
            Limit::PrimaryReads => "primary_read_share",
            Limit::FailoverHold => "failover_hold",
            Limit::FailoverQueue => "failover_queue",
            Limit::SlowStatements => "slow_statements_max",
            Limit::Spans => "spans_max",
            Limit::AdminStreams => "admin_streams_max",
            Limit::WriteQueue => "write_queue_max",
            Limit::SharedReplyBytes => "shared_reply_bytes_max",
            Limit::CacheBytes => "cache_bytes_max",
        }
    }
}

#[derive(Clone, Debug)]
pub struct LimitHits(std::sync::Arc<[IntCounter]>);

impl LimitHits {
    pub fn register(registry: &Registry) -> Result<LimitHits, RegisterError> {
        let hits = registry.counters(
            "keyway_limit_hits_total",
            "Times that somebody was refused, sent away or made to wait, or something was given up, by a limit of the configuration.",
            &["limit"],
        )?;
        Ok(LimitHits(Limit::ALL.iter().map(|it| hits.with_label_values(&[it.label()])).collect()))
    }

    pub fn hit(&self, limit: Limit) {
        self.hit_times(limit, 1);
    }

    pub fn hit_times(&self, limit: Limit, times: u64) {
        // `ALL` is in the order of the enum.
        if let Some(counter) = self.0.get(limit as usize) {
            counter.inc_by(times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_counts_under_its_own_name() {
        let registry = Registry::default();
        let hits = LimitHits::register(&registry).unwrap();
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index, "{limit:?}");
            hits.hit(limit);
        }
        let text = registry.text().unwrap();
        for limit in Limit::ALL {
            let line = format!("keyway_limit_hits_total{{limit=\"{}\"}} 1\n", limit.label());
            assert!(text.contains(&line), "{line}");
        }
    }
}
