//! The `Debug` of messages that hold a card's code or an account's credentials: without them.

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

impl fmt::Debug for pb::RedeemCardRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedeemCardRequest")
            .field("request_id", &self.request_id)
            .field("pool_id", &self.pool_id)
            .field("holder", &self.holder)
            .field("expected", &self.expected)
            .field("selector", &self.selector)
            .field("wait_timeout", &self.wait_timeout)
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

impl fmt::Debug for pb::CreateTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateTokenResponse").field("token", &self.token).finish_non_exhaustive()
    }
}

impl fmt::Debug for pb::CreateSubscriptionResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateSubscriptionResponse")
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for pb::RotateSubscriptionSecretResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotateSubscriptionSecretResponse")
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for pb::Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pool_id,
            account_id,
            status: _,
            login_status: _,
            plan_id,
            country_code,
            balance,
            labels,
            lease,
            open_redemption_id,
            create_time,
            update_time,
            plan_day,
            day_credited,
            reserved,
            available_time,
            hold,
            paused,
            draining,
            credentials: _,
        } = self;
        f.debug_struct("Account")
            .field("pool_id", pool_id)
            .field("account_id", account_id)
            .field("status", &self.status())
            .field("login_status", &self.login_status())
            .field("plan_id", plan_id)
            .field("country_code", country_code)
            .field("balance", balance)
            .field("labels", labels)
            .field("lease", lease)
            .field("open_redemption_id", open_redemption_id)
            .field("create_time", create_time)
            .field("update_time", update_time)
            .field("plan_day", plan_day)
            .field("day_credited", day_credited)
            .field("reserved", reserved)
            .field("available_time", available_time)
            .field("hold", hold)
            .field("paused", paused)
            .field("draining", draining)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_never_prints_its_secrets() {
        let code = || "SECRET-CODE".to_owned();
        let request = pb::RedeemRequest { code: code(), ..Default::default() };
        let card = pb::RedeemCardRequest { code: code(), ..Default::default() };
        let item = pb::BatchItem { code: code(), ..Default::default() };
        let credentials = [("login".to_owned(), code())].into();
        let account = Some(pb::Account { credentials, ..Default::default() });
        let made = pb::CreateTokenResponse { token: None, secret: code() };
        let messages = (
            made,
            pb::CreateAccountRequest { account: account.clone() },
            pb::ImportAccountsRequest { account: account.clone() },
            pb::UpdateAccountRequest { account, update_mask: None },
        );
        let printed = format!("{request:?} {card:?} {item:?} {messages:?}");
        assert!(printed.contains("draining") && !printed.contains("SECRET"), "{printed}");
    }
}
