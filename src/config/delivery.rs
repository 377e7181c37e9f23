//! Settings of what is sent to the receivers of subscriptions.

use std::time::Duration;

use clap::Args;

use super::{MAX_SETTING, parse_duration};

/// Settings of deliveries.
#[derive(Args, Clone, Debug)]
pub struct DeliveryArgs {
    /// How long a receiver may take to answer a delivery.
    #[arg(long = "delivery-timeout", env = "HOLDFAST_DELIVERY_TIMEOUT", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// The pause after the first time that a delivery is not taken. Each one after that is twice as long.
    #[arg(long = "delivery-first-pause", env = "HOLDFAST_DELIVERY_FIRST_PAUSE", default_value = "5s", value_parser = parse_duration)]
    pub first_pause: Duration,

    /// The longest pause between two tries of a delivery. A receiver that takes nothing is tried once a minute at least.
    #[arg(long = "delivery-longest-pause", env = "HOLDFAST_DELIVERY_LONGEST_PAUSE", default_value = "1h", value_parser = parse_duration)]
    pub longest_pause: Duration,

    /// For how long a delivery is tried before it is a dead letter.
    #[arg(long = "delivery-give-up", env = "HOLDFAST_DELIVERY_GIVE_UP", default_value = "3days", value_parser = parse_duration)]
    pub give_up: Duration,
}

impl Default for DeliveryArgs {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            first_pause: Duration::from_secs(5),
            longest_pause: Duration::from_secs(60 * 60),
            give_up: Duration::from_secs(3 * 24 * 60 * 60),
        }
    }
}

impl DeliveryArgs {
    /// What does not fit together.
    pub(super) fn contradictions(&self) -> Vec<String> {
        let all = [
            ("HOLDFAST_DELIVERY_TIMEOUT", self.timeout),
            ("HOLDFAST_DELIVERY_FIRST_PAUSE", self.first_pause),
            ("HOLDFAST_DELIVERY_LONGEST_PAUSE", self.longest_pause),
            ("HOLDFAST_DELIVERY_GIVE_UP", self.give_up),
        ];
        let mut wrong = Vec::new();
        for (name, value) in all {
            if value.is_zero() {
                wrong.push(format!("{name} must be more than 0"));
            }
            if value > MAX_SETTING {
                wrong.push(format!("{name} must be at most 7days"));
            }
        }
        if self.first_pause > self.longest_pause {
            wrong.push(
                "HOLDFAST_DELIVERY_FIRST_PAUSE must be at most HOLDFAST_DELIVERY_LONGEST_PAUSE"
                    .to_owned(),
            );
        }
        wrong
    }
}
