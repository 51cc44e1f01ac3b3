//! The four kinds of load the table is made of.
//!
//! Two are about whole answers and two about streams; of each, one asks how much later an answer comes and one how
//! many there can be. How long each lasts decides how long a run takes.

use std::time::Duration;

use serde::Serialize;

use crate::mock::Settings;

/// One kind of load. The order is the order of measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Whole answers over one connection: what a request costs when nothing waits.
    OneConnection,
    /// Whole answers over 64 connections: the most requests per second.
    ManyConnections,
    /// 64 streams as fast as they come: the most chunks per second.
    UnpacedStreams,
    /// 16 streams at a model's pace: how much later the first token arrives.
    PacedStreams,
}

impl Phase {
    pub const ALL: [Self; 4] = [
        Self::OneConnection,
        Self::ManyConnections,
        Self::UnpacedStreams,
        Self::PacedStreams,
    ];

    /// As progress tells it.
    pub fn title(self) -> &'static str {
        match self {
            Self::OneConnection => "whole answers, 1 connection",
            Self::ManyConnections => "whole answers, 64 connections",
            Self::UnpacedStreams => "64 unpaced streams",
            Self::PacedStreams => "16 paced streams",
        }
    }

    pub fn connections(self) -> usize {
        match self {
            Self::OneConnection => 1,
            Self::ManyConnections | Self::UnpacedStreams => 64,
            Self::PacedStreams => 16,
        }
    }

    pub fn streams(self) -> bool {
        matches!(self, Self::UnpacedStreams | Self::PacedStreams)
    }

    pub fn mock_settings(self) -> Settings {
        match self {
            // Short, because every stream has only one first token.
            Self::PacedStreams => Settings {
                delay_ms: Some(0),
                chunks: Some(5),
                chunk_delay_ms: Some(20),
            },
            _ => Settings {
                delay_ms: Some(0),
                chunks: Some(200),
                chunk_delay_ms: Some(0),
            },
        }
    }

    /// Paced streams that all began together would all send together for ever.
    pub fn ramp(self) -> Duration {
        if self == Self::PacedStreams {
            Duration::from_millis(80)
        } else {
            Duration::ZERO
        }
    }

    pub fn time(self, full: bool) -> Duration {
        let quick_ms = match self {
            Self::OneConnection => 1000,
            Self::ManyConnections | Self::UnpacedStreams => 1200,
            Self::PacedStreams => 1600,
        };
        Duration::from_millis(quick_ms) * if full { 6 } else { 1 }
    }
}
