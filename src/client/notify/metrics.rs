//! What listening costs and brings.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::metrics::{self, RegisterError, Registry};

#[derive(Clone)]
pub struct NotifyMetricFamilies {
    channels: IntGaugeVec,
    clients: IntGaugeVec,
    delivered: IntCounterVec,
    losses: IntCounterVec,
}

impl NotifyMetricFamilies {
    pub fn register(registry: &Registry) -> Result<NotifyMetricFamilies, RegisterError> {
        let labels = &["database"];
        Ok(NotifyMetricFamilies {
            channels: registry.gauges(
                "keyway_channels",
                "Channels that clients listen to, each counted once.",
                labels,
            )?,
            clients: registry.gauges("keyway_listening_clients", "Clients that listen.", labels)?,
            delivered: registry.counters(
                "keyway_notifications_total",
                "Notifications handed to clients.",
                labels,
            )?,
            losses: registry.counters(
                "keyway_listener_losses_total",
                "Connections lost on which keyway listened for clients, which may have missed notifications.",
                labels,
            )?,
        })
    }

    /// A database that is gone.
    pub fn forget(&self, database: &str) {
        let of = [("database", database)];
        metrics::forget(&self.channels, &of);
        metrics::forget(&self.clients, &of);
        metrics::forget(&self.delivered, &of);
        metrics::forget(&self.losses, &of);
    }

    pub fn of_database(&self, database: &str) -> NotifyMetrics {
        NotifyMetrics {
            channels: self.channels.with_label_values(&[database]),
            clients: self.clients.with_label_values(&[database]),
            delivered: self.delivered.with_label_values(&[database]),
            losses: self.losses.with_label_values(&[database]),
        }
    }
}

/// The handles of one database.
pub struct NotifyMetrics {
    pub channels: IntGauge,
    pub clients: IntGauge,
    pub delivered: IntCounter,
    pub losses: IntCounter,
}
