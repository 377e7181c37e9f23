//! A redemption stays with the version of the profile that it was begun under, whatever is applied after it.

use std::time::Duration;

use holdfast::{
    rpc::pb::{self, RedemptionState},
    simulator::{
        Api, Simulator, SimulatorArgs,
        faults::{Fault, Faults},
        ledger::{self, State},
    },
};
use tempfile::TempDir;

use super::apply;
use crate::support::{
    real::{API_KEY, MINOR, Real, prepare},
    wait::eventually,
    world::{Clients, World, lease},
};

pub(super) const POOL: &str = "real";
const LIMIT: Duration = Duration::from_secs(30);

/// A fake of Square in this process.
pub(super) struct Square {
    simulator: Simulator,
    folder: TempDir,
}

impl Square {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let args = SimulatorArgs {
            api: Api::Square,
            currency: "USD".to_owned(),
            api_key: Some(API_KEY.to_owned()),
            ..SimulatorArgs::new(folder.path().join("ledger"))
        };
        Self { simulator: Simulator::start(&args).await.unwrap(), folder }
    }

    pub(super) fn profile(&self) -> String {
        Real::Square.profile(&self.simulator.url())
    }

    fn set_faults(&self, faults: Faults) {
        self.simulator.set_faults(faults).unwrap();
    }

    /// The keys under which it credited cards.
    pub(super) fn credited(&self) -> Vec<String> {
        let rows = ledger::read(&self.folder.path().join("ledger")).unwrap();
        let credits = rows.into_iter().filter(|row| row.state == State::Succeeded);
        credits.map(|row| row.key).collect()
    }
}

/// A profile without its cases.
pub(super) fn without_cases(profile: &str) -> String {
    profile.split("\n[[case]]").next().unwrap().to_owned()
}

pub(super) async fn redeem(
    clients: &mut Clients,
    code: &str,
) -> Result<pb::Redemption, tonic::Status> {
    let held = lease(&clients.acquire(|request| request.pool_id = POOL.to_owned()).await?);
    let redeemed = clients.redeem(&held, code, |request| {
        request.expected = Some(pb::Money { amount_minor: MINOR, currency_code: "USD".to_owned() });
        request.release_on_completion = true;
    });
    Ok(redeemed.await?.redemption.unwrap())
}

async fn get(clients: &mut Clients, redemption_id: &str) -> pb::Redemption {
    let request = pb::GetRedemptionRequest {
        pool_id: POOL.to_owned(),
        redemption_id: redemption_id.to_owned(),
        ..Default::default()
    };
    clients.redemptions.get_redemption(request).await.unwrap().into_inner().redemption.unwrap()
}

#[tokio::test]
async fn a_redemption_is_looked_up_and_sent_again_under_the_version_that_it_was_begun_under() {
    let world = World::start().await;
    Real::Square.give_secrets(world.args().secrets_dir.as_ref().unwrap());
    let mut clients = world.clients(0).await;
    let (old, new) = (Square::start().await, Square::start().await);
    prepare(&mut clients, Real::Square, old.profile(), POOL, 10).await;

    // One was executed and one was not, and nothing can be asked about them.
    let [unheard, lost] = ["UNHEARD", "LOST"].map(|name| world.code(name));
    let mut rules = Faults::of_card(&unheard, &[Fault::ApplyThenDrop]);
    rules.extend(Faults::of_card(&lost, &[Fault::DropBeforeApply]));
    old.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let unheard = redeem(&mut clients, &unheard).await.unwrap();
    let lost = redeem(&mut clients, &lost).await.unwrap();
    for begun in [&unheard, &lost] {
        assert_eq!((begun.state(), begun.provider_version), (RedemptionState::InDoubt, 1));
    }

    // The next version asks elsewhere, and what is found there would be a person's.
    let newer = without_cases(&new.profile()).replacen("version = 1", "version = 2", 1);
    let success = "when = { status = [200], found = true }\nthen = \"succeeded\"";
    assert!(newer.contains(success));
    let newer = newer.replace(success, &success.replace("succeeded", "review"));
    assert_eq!(apply(&mut clients, &newer).await.unwrap().version, 2);
    let mut cards = 0;
    let under_the_new = eventually(LIMIT, "the new version is used", async || {
        cards += 1;
        let redeemed = redeem(&mut clients, &world.code(&format!("NEW{cards}"))).await.unwrap();
        assert_eq!(redeemed.state(), RedemptionState::Succeeded);
        (redeemed.provider_version == 2).then_some(redeemed)
    })
    .await;

    old.set_faults(Faults::default());
    for begun in [&unheard, &lost] {
        eventually(LIMIT, "it is found, or sent again, where it was sent", async || {
            let now = get(&mut clients, &begun.redemption_id).await;
            assert_ne!(now.state(), RedemptionState::NeedsReview, "{now:?}");
            assert_eq!(now.provider_version, 1);
            (now.state() == RedemptionState::Succeeded).then_some(())
        })
        .await;
        assert!(old.credited().contains(&begun.redemption_id));
    }
    assert_eq!(new.credited(), [under_the_new.redemption_id]);
}
