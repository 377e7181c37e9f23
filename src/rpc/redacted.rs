//! The `Debug` of messages that hold a card's code: without it.

use std::fmt;

use super::pb;

impl fmt::Debug for pb::RedeemRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedeemRequest")
            .field("request_id", &self.request_id)
            .field("lease", &self.lease)
            .field("expected", &self.expected)
            .field("release_on_completion", &self.release_on_completion)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for pb::BatchItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchItem")
            .field("item_id", &self.item_id)
            .field("expected", &self.expected)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_never_prints_its_code() {
        let code = || "SECRET-CODE".to_owned();
        let request = pb::RedeemRequest { code: code(), ..Default::default() };
        let item = pb::BatchItem { code: code(), ..Default::default() };
        assert!(!format!("{request:?} {item:?}").contains("SECRET"));
    }
}
