//! A provider as a row.

use serde_json::{Map, Value};

use super::{text, time};
use crate::rpc::pb;

/// A provider's columns.
pub(crate) const PROVIDER: &[&str] = &[
    "provider_id",
    "version",
    "built_in",
    "currencies",
    "operations",
    "secrets",
    "case_count",
    "apply_time",
    "failing",
    "fail_time",
    "next_try_time",
    "pause_end_time",
    "brake_end_time",
];

/// The same, with the file.
pub(crate) const PROVIDER_WITH_FILE: &[&str] = &[
    "provider_id",
    "version",
    "built_in",
    "currencies",
    "operations",
    "secrets",
    "case_count",
    "apply_time",
    "failing",
    "fail_time",
    "next_try_time",
    "pause_end_time",
    "brake_end_time",
    "profile",
];

/// A provider's row, without the file. What holds back its calls is null where it was not told.
pub(crate) fn provider(provider: &pb::Provider) -> Vec<Value> {
    let status = provider.status.as_ref();
    vec![
        text(&provider.provider_id),
        provider.version.into(),
        provider.built_in.into(),
        provider.currencies.clone().into(),
        provider.operations.clone().into(),
        provider.secrets.clone().into(),
        provider.case_count.into(),
        time(provider.apply_time.as_ref()),
        status.map(|status| status.failing).into(),
        time(status.and_then(|status| status.fail_time.as_ref())),
        time(status.and_then(|status| status.next_try_time.as_ref())),
        time(status.and_then(|status| status.pause_end_time.as_ref())),
        time(status.and_then(|status| status.brake_end_time.as_ref())),
    ]
}

/// What holds back the calls to a provider, as an object of JSON.
pub(crate) fn provider_status(status: &pb::ProviderStatus) -> Value {
    let fields = [
        ("failing", status.failing.into()),
        ("fail_time", time(status.fail_time.as_ref())),
        ("next_try_time", time(status.next_try_time.as_ref())),
        ("failed_tries", status.failed_tries.into()),
        ("pause_end_time", time(status.pause_end_time.as_ref())),
        ("brake_end_time", time(status.brake_end_time.as_ref())),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<Map<_, _>>().into()
}

/// The same for people: one line for each thing that holds them back.
pub(crate) fn held_back(provider_id: &str, status: &pb::ProviderStatus) -> Vec<String> {
    let at = |moment| match time(moment) {
        Value::String(text) => text,
        _ => "an unknown time".to_owned(),
    };
    let mut lines = Vec::new();
    if status.failing {
        lines.push(format!(
            "provider {provider_id} has failed since {}, and is tried next at {}: nothing is picked until it works",
            at(status.fail_time.as_ref()),
            at(status.next_try_time.as_ref()),
        ));
    }
    if let Some(end) = &status.pause_end_time {
        let until = at(Some(end));
        lines.push(format!("provider {provider_id} has asked for no calls until {until}"));
    }
    if let Some(end) = &status.brake_end_time {
        lines.push(format!(
            "provider {provider_id} has refused as many cards as it bears: its profile's brake holds until {}",
            at(Some(end)),
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn each_thing_that_holds_back_calls_is_a_line() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        assert!(held_back("shop", &pb::ProviderStatus::default()).is_empty());
        let status = pb::ProviderStatus {
            failing: true,
            fail_time: at(0),
            next_try_time: None,
            failed_tries: 3,
            pause_end_time: at(60),
            brake_end_time: at(120),
        };
        let lines = held_back("shop", &status);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("since 1970-01-01T00:00:00Z, and is tried next at an unknown"));
        assert!(lines[1].ends_with("until 1970-01-01T00:01:00Z"), "{lines:?}");
        assert!(lines[2].contains("brake holds until 1970-01-01T00:02:00Z"), "{lines:?}");
        assert_eq!(provider_status(&status)["failed_tries"], 3);
    }
}
