//! The order in which those who wait are served.

use super::*;
use crate::domain::id::AccountId;

fn wish(not: &str) -> Arc<Selector> {
    let exclude = vec![AccountId::parse(not).unwrap()];
    Arc::new(Selector { exclude, ..Selector::default() })
}

/// A dispatcher with those who wait, which never asks its database.
fn dispatcher(wishes: &[&Arc<Selector>]) -> Dispatcher {
    let waiter = |(n, selector): (usize, &&Arc<Selector>)| Waiter {
        wanted: Wanted {
            request_id: RequestId::parse(&n.to_string()).unwrap(),
            holder: Holder::parse("me").unwrap(),
            ttl: Duration::from_secs(1),
        },
        selector: Arc::clone(selector),
        since: Instant::now(),
        until: Instant::now(),
        checked: false,
        unanswered: false,
        reply: oneshot::channel().0,
    };
    Dispatcher {
        store: Store::open(&"postgres://localhost/none".to_owned().into(), 4).unwrap(),
        pool_id: PoolId::parse("p").unwrap(),
        arrivals: mpsc::channel(1).1,
        freed: Arc::default(),
        waiting: wishes.iter().enumerate().map(waiter).collect(),
        expired_at: None,
        counts: Arc::default(),
        closing: CancellationToken::new(),
        waiting_gauge: metrics::Gauge::noop(),
    }
}

fn next(dispatcher: &Dispatcher, hopeless: &[&Arc<Selector>]) -> Option<Vec<String>> {
    let exhausted = hopeless.iter().map(|selector| Arc::clone(selector)).collect();
    let (_, wanted) = dispatcher.next_group(&exhausted)?;
    Some(wanted.iter().map(|wanted| wanted.request_id.to_string()).collect())
}

#[tokio::test]
async fn somebody_who_came_first_is_not_passed_over_by_later_ones_who_wish_something_else() {
    let (x, y) = (wish("x"), wish("y"));
    let queue = dispatcher(&[&x, &x, &y, &x]);
    let some = |ids: &[&str]| Some(ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
    assert_eq!(next(&queue, &[]), some(&["0", "1"]), "3 waits until 2 has had its chance");
    assert_eq!(next(&queue, &[&x]), some(&["2"]), "whose wish is hopeless holds nobody up");
    assert_eq!(next(&queue, &[&y]), some(&["0", "1", "3"]));
    assert_eq!(next(&queue, &[&x, &y]), None);
}
