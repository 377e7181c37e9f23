//! The order of outcomes, and going on after a cursor.

use std::collections::HashMap;

use holdfast::{
    rpc::pb::{self, RedemptionState},
    simulator::faults::{Fault, Faults},
};
use tokio::task::JoinSet;

use super::redeem;
use crate::support::{
    watch::{Watch, ids},
    world::{POOL, World},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_is_told_and_after_each_cursor_exactly_the_rest() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = [world.clients(0).await, world.clients(1).await];
    clients[0].create_accounts(4).await;
    let refused = world.code("refu");
    let rules = Faults::of_card(&refused, &[Fault::LimitReached]);
    world.set_faults(Faults { rules, ..Faults::default() });
    let mut live = Watch::open(&mut clients[1], "now").await.unwrap();
    let mut redeeming = JoinSet::new();
    let count = 24;
    for number in 0..count {
        let mut clients = clients[number % 2].clone();
        let code = if number == 7 { refused.clone() } else { world.code(&format!("c{number:03}")) };
        redeeming.spawn(async move { redeem(&mut clients, &code, "").await.unwrap() });
    }
    let redeemed: HashMap<_, _> =
        redeeming.join_all().await.into_iter().map(|it| (it.redemption_id.clone(), it)).collect();
    let failed = redeemed.values().filter(|it| it.state() == RedemptionState::Failed).count();
    assert_eq!((redeemed.len(), failed), (count, 1));

    let all = Watch::open(&mut clients[0], "").await.unwrap().outcomes(count).await;
    let seen = live.outcomes(count).await;
    let mut sorted = [ids(&all), ids(&seen)];
    let mut expected: Vec<_> = redeemed.keys().map(|id| &**id).collect();
    expected.sort_unstable();
    for told in &mut sorted {
        told.sort_unstable();
        assert_eq!(*told, expected, "each once");
    }
    for told in [&all, &seen] {
        let mut tokens = HashMap::new();
        for (id, _) in told {
            let pb::Redemption { account_id, fencing_token, .. } = &redeemed[id];
            let before = tokens.insert(account_id.clone(), *fencing_token);
            assert!(before < Some(*fencing_token), "{account_id}: {before:?}, {fencing_token}");
        }
    }
    // Whichever server is asked. What was told live may have been in another order: what follows is what was not told.
    for (told, rest_of) in [(&all, true), (&seen, false)] {
        for place in (0..count).step_by(5) {
            let (cursor, rest) = (&told[place].1, count - place - 1);
            let clients = &mut clients[place % 2];
            let resumed = Watch::open(clients, cursor).await.unwrap().outcomes(rest).await;
            let mut wanted = ids(&told[place + 1..]);
            let mut resumed = ids(&resumed);
            if !rest_of {
                wanted.sort_unstable();
                resumed.sort_unstable();
            }
            assert_eq!(resumed, wanted, "after {place}");
        }
    }
    // At the end there is only what comes.
    let mut end = Watch::open(&mut clients[0], &all[count - 1].1).await.unwrap();
    let last = redeem(&mut clients[1], &world.code("last"), "").await.unwrap();
    assert_eq!(end.outcome().await.unwrap(), last);
}

#[tokio::test]
async fn a_success_that_is_taken_back_is_told_again() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let mut watch = Watch::open(&mut clients, "").await.unwrap();
    let redeemed = redeem(&mut clients, &world.code("one1"), "").await.unwrap();
    assert_eq!(watch.outcome().await.unwrap(), redeemed);
    let ask = pb::ReverseRedemptionRequest {
        pool_id: POOL.to_owned(),
        redemption_id: redeemed.redemption_id.clone(),
        reason: "wrong account".to_owned(),
        reversed_by: "anna".to_owned(),
        // The provider has taken it back already.
        outcome: pb::ReversalOutcome::Reversed.into(),
        ..Default::default()
    };
    let reply = clients.redemptions.reverse_redemption(ask).await.unwrap();
    let reversed = reply.into_inner().redemption.unwrap();
    assert!(reversed.reverse_time.is_some(), "{reversed:?}");
    assert_eq!(watch.outcome().await.unwrap(), reversed);
    // Who comes later is told twice what it is by now.
    let mut later = Watch::open(&mut clients, "").await.unwrap();
    for _ in 0..2 {
        assert_eq!(later.outcome().await.unwrap(), reversed);
    }
}
