//! Begin: recording redemptions before they are sent, and why one was not.

use std::collections::HashMap;

use time::OffsetDateTime;
use uuid::Uuid;

pub use crate::domain::redemption::{BeginRefusal, Begun, CardToBegin, NewRedemption, SendLimits};
use crate::{
    admission::Caller,
    domain::{
        account::{AccountEvent, Change, Refusal},
        id::{PoolId, RedemptionId},
        lease::LeaseRef,
        principal::{Principal, RequestKey},
        secret_key::{Fingerprint, KeyId},
    },
    failpoints::Step,
    store::{
        Store, StoreError,
        apply::{Applied, Asked, ChangeRow, Decider, Lost, Work, Write},
        interval,
        lane::{Batch, Ran, steps_of},
        points::at_all_points,
        redemption_row::{read_request_id, read_state, redemption_row},
    },
};

redemption_row!(BegunRow { is_whole: i32, not_after: OffsetDateTime });

struct InTheWay {
    position: i32,
    are_old_keys: bool,
    same_request: Option<Uuid>,
    same_request_fingerprint: Option<Vec<u8>>,
    same_request_key: Option<i32>,
    same_code: Option<Uuid>,
    same_code_request_id: Option<String>,
    same_code_principal: Option<String>,
    same_code_state: Option<String>,
}

impl Store {
    /// Records a redemption under its lease, before it is sent.
    pub async fn begin(
        &self,
        lease: &LeaseRef,
        new: NewRedemption,
        limits: SendLimits,
    ) -> Result<Begun, StoreError> {
        self.begin_for(&Caller::default(), lease, new, limits).await
    }

    /// The same for a call: not recorded once the call's deadline has passed.
    pub async fn begin_for(
        &self,
        caller: &Caller,
        lease: &LeaseRef,
        new: NewRedemption,
        limits: SendLimits,
    ) -> Result<Begun, StoreError> {
        let event = AccountEvent::Begin {
            token: lease.token,
            by: new.request.principal.clone(),
            redemption_id: new.redemption_id,
            expected_minor: new.expected_minor,
        };
        let asked = Asked::new(lease.account_id.clone(), event);
        let input = BeginInput { asked, new, limits };
        let begun = self.begin.call_for(caller, &lease.pool_id, input).await??;
        let Begun::Refused(BeginRefusal::Account(Refusal::LeaseLost(loss), account)) = begun else {
            return Ok(begun);
        };
        let loss = self.how_lost(lease, loss, &account).await?;
        Ok(Begun::Refused(BeginRefusal::Account(Refusal::LeaseLost(loss), account)))
    }

    /// Leases the account that was chosen for a card, and records the card's redemption, in one change.
    pub(in crate::store) async fn begin_claim(
        &self,
        pool_id: &PoolId,
        asked: Asked,
        CardToBegin { new, limits }: CardToBegin,
    ) -> Result<Begun, StoreError> {
        self.begin.call(pool_id, BeginInput { asked, new, limits }).await?
    }
}

/// What the lane takes.
#[derive(Debug)]
pub(in crate::store) struct BeginInput {
    asked: Asked,
    new: NewRedemption,
    limits: SendLimits,
}

/// The lane of begins. May be repeated: an input that was recorded is found under its own id.
#[derive(Debug)]
pub(in crate::store) struct Begin(pub(in crate::store) Decider);

impl Batch for Begin {
    type Input = BeginInput;
    type Output = Result<Begun, StoreError>;
    const NAME: &'static str = "begin";

    fn step(_: &BeginInput) -> Option<Step> {
        Some(Step::Begin)
    }

    fn may_be_dropped(_: &BeginInput) -> bool {
        true
    }

    async fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[BeginInput],
        is_alone: bool,
    ) -> Result<Vec<Ran<Result<Begun, StoreError>>>, sqlx::Error> {
        at_all_points(&steps_of::<Self>(inputs), self.begin(pool_id, inputs, is_alone)).await
    }
}

impl Begin {
    async fn begin(
        &self,
        pool_id: &PoolId,
        inputs: &[BeginInput],
        is_alone: bool,
    ) -> Result<Vec<Ran<Result<Begun, StoreError>>>, sqlx::Error> {
        let mut work = Work::new(inputs.iter().map(|input| &input.asked).collect(), is_alone);
        let mut records = Records {
            decider: &self.0,
            inputs,
            recorded: HashMap::new(),
            in_the_way: HashMap::new(),
        };
        self.0.run(pool_id, &mut work, &mut records).await?;
        let answers = work.into_outputs();
        // The request comes first: whatever lease a retry comes under, it is answered with what it began.
        let refused: Vec<_> = (0..inputs.len())
            .filter(|place| {
                matches!(answers[*place], Ran::Done(Applied::Refused(..) | Applied::NoAccount))
            })
            .collect();
        records.find_in_the_way(pool_id, &refused).await?;
        let Records { mut recorded, mut in_the_way, .. } = records;
        let output = |(place, answer): (usize, Ran<Applied>)| {
            let new = &inputs[place].new;
            match (recorded.remove(&new.redemption_id.0), answer) {
                (Some(row), _) => Ran::Done(row.begun(pool_id)),
                (None, Ran::Done(answer)) => {
                    Ran::Done(begun(answer, in_the_way.remove(&place), new))
                }
                (None, Ran::Held) => Ran::Held,
                (None, Ran::Again) => Ran::Again,
            }
        };
        Ok(answers.into_iter().enumerate().map(output).collect())
    }
}

/// What an input that was not recorded is answered with.
fn begun(
    answer: Applied,
    in_the_way: Option<InTheWay>,
    new: &NewRedemption,
) -> Result<Begun, StoreError> {
    let same_request = in_the_way.as_ref().and_then(|found| found.same_request(new));
    let in_use = in_the_way.as_ref().and_then(InTheWay::code_in_use);
    let are_old_keys = in_the_way.as_ref().is_some_and(|found| found.are_old_keys);
    let refusal = match (answer, same_request, in_use) {
        // Old keys do not tell whether it is the same code.
        (_, Some(_), _) | (Applied::NotInState, ..) if are_old_keys => BeginRefusal::OldKeys,
        (_, Some(same_request), _) => return Ok(same_request),
        (Applied::Unreadable(error), ..) => return Err(error),
        (Applied::NoPool, ..) => BeginRefusal::NoPool,
        (Applied::NoAccount, ..) => BeginRefusal::NoAccount,
        // Who has lost the lease, or never had it, or has a redemption open, is told that first.
        (
            Applied::Refused(
                refusal @ (Refusal::LeaseLost(_)
                | Refusal::OtherPrincipal
                | Refusal::RedemptionOpen(_)),
                account,
            ),
            ..,
        ) => BeginRefusal::Account(refusal, account),
        (_, _, Some(in_use)) => in_use,
        (Applied::Refused(refusal, account), ..) => BeginRefusal::Account(refusal, account),
        (Applied::Done(_) | Applied::NotInState | Applied::Missed, ..) => BeginRefusal::TryAgain,
    };
    Ok(Begun::Refused(refusal))
}

/// Records redemptions, and what stood in the way of those that were not recorded.
struct Records<'a> {
    decider: &'a Decider,
    inputs: &'a [BeginInput],
    recorded: HashMap<Uuid, BegunRow>,
    in_the_way: HashMap<usize, InTheWay>,
}

impl Write for Records<'_> {
    async fn write(
        &mut self,
        pool_id: &PoolId,
        revision: i64,
        work: &mut Work<'_>,
        changes: Vec<(usize, Change)>,
    ) -> Result<(), sqlx::Error> {
        let rows = self.insert(pool_id, revision, work, &changes).await?;
        let mut missed = Vec::new();
        let mut rows: HashMap<_, _> =
            rows.into_iter().map(|row| (row.redemption_id, row)).collect();
        for (place, change) in changes {
            match rows.remove(&self.inputs[place].new.redemption_id.0) {
                Some(row) => {
                    debug_assert_eq!(row.is_whole, 1);
                    self.decider.written(work, place, change, row.created_at, None);
                    self.recorded.insert(row.redemption_id, row);
                }
                None => missed.push((place, change)),
            }
        }
        let lost = Lost { revision, is_all: self.recorded.is_empty() };
        let places: Vec<_> = missed.iter().map(|(place, _)| *place).collect();
        self.find_in_the_way(pool_id, &places).await?;
        for (place, change) in missed {
            match self.in_the_way.get(&place) {
                None => self.decider.lost(pool_id, work, place, &change, lost),
                // A lease that is lost is told before a code that is in use.
                Some(found)
                    if found.same_request.is_none()
                        && !work.is_fresh(place)
                        && !work.inputs[place].is_claim() =>
                {
                    work.read_again(place);
                }
                Some(_) => work.answer(place, Applied::NotInState),
            }
        }
        Ok(())
    }
}

impl Records<'_> {
    async fn insert(
        &self,
        pool_id: &PoolId,
        revision: i64,
        work: &Work<'_>,
        changes: &[(usize, Change)],
    ) -> Result<Vec<BegunRow>, sqlx::Error> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let new = || changes.iter().map(|(place, _)| &self.inputs[*place].new);
        let row = |(place, change): &(usize, Change)| {
            Some(ChangeRow::new(work.account(*place)?, change, work.inputs[*place]))
        };
        let rows = changes.iter().map(row).collect::<Option<Vec<_>>>();
        let rows = rows.ok_or_else(|| sqlx::Error::InvalidArgument("no account".to_owned()))?;
        let limits = || changes.iter().map(|(place, _)| self.inputs[*place].limits);
        sqlx::query_file_as!(
            BegunRow,
            "src/store/sql/redemption/begin.sql",
            pool_id.as_str(),
            revision,
            &rows as &[ChangeRow],
            &new().map(|n| n.request.request_id.to_string()).collect::<Vec<_>>(),
            &new().map(|n| n.release_on_completion).collect::<Vec<_>>(),
            &new().map(|n| n.code_fingerprint.newest().to_vec()).collect::<Vec<_>>(),
            &new().map(|n| n.code_ciphertext.clone()).collect::<Vec<_>>(),
            &new().map(|n| n.code_last4.clone()).collect::<Vec<_>>(),
            &new().map(|n| n.expected_minor).collect::<Vec<_>>() as &[Option<i64>],
            &new().map(|n| n.expected_learned).collect::<Vec<_>>(),
            &limits().map(|limits| interval(limits.not_after)).collect::<Vec<_>>(),
            &limits().map(|limits| interval(limits.take_over)).collect::<Vec<_>>(),
            &new().map(|n| n.profile.provider_id.to_string()).collect::<Vec<_>>(),
            &new().map(|n| n.profile.version).collect::<Vec<_>>(),
            self.decider.server_id,
            &new().map(|n| n.code_fingerprint.current.number()).collect::<Vec<_>>(),
            &each(new()).map(|(n, ..)| n.redemption_id.0).collect::<Vec<_>>(),
            &each(new()).map(|(_, key, _)| key.number()).collect::<Vec<_>>(),
            &each(new()).map(|(.., fingerprint)| fingerprint.to_vec()).collect::<Vec<_>>(),
            &new().map(|n| n.attempt).collect::<Vec<_>>(),
        )
        .fetch_all(&self.decider.db)
        .await
    }

    /// Finds the redemptions of the same request, or of the same code.
    async fn find_in_the_way(
        &mut self,
        pool_id: &PoolId,
        places: &[usize],
    ) -> Result<(), sqlx::Error> {
        if places.is_empty() {
            return Ok(());
        }
        let new = || places.iter().map(|place| &self.inputs[*place].new);
        let numbers: Vec<_> =
            places.iter().map(|place| i32::try_from(*place).unwrap_or(i32::MAX)).collect();
        let positions: Vec<_> = (numbers.iter().zip(new()))
            .flat_map(|(number, n)| n.code_fingerprint.all.iter().map(|_| *number))
            .collect();
        let found = sqlx::query_file_as!(
            InTheWay,
            "src/store/sql/redemption/explain_begin.sql",
            pool_id.as_str(),
            &numbers,
            &new().map(|n| n.request.request_id.to_string()).collect::<Vec<_>>(),
            &new().map(|n| n.code_fingerprint.current.number()).collect::<Vec<_>>(),
            &positions,
            &each(new()).map(|(_, key, _)| key.number()).collect::<Vec<_>>(),
            &each(new()).map(|(.., fingerprint)| fingerprint.to_vec()).collect::<Vec<_>>(),
            &new().map(|n| n.request.principal.to_string()).collect::<Vec<_>>(),
            &new().map(|n| n.attempt).collect::<Vec<_>>(),
        )
        .fetch_all(&self.decider.db)
        .await?;
        for row in found.into_iter().filter(InTheWay::is_any) {
            let place = usize::try_from(row.position).unwrap_or(usize::MAX);
            // One for each fingerprint, of which at most one is of a redemption.
            if row.same_code.is_some() || !self.in_the_way.contains_key(&place) {
                self.in_the_way.insert(place, row);
            }
        }
        Ok(())
    }
}

/// Each fingerprint of each redemption, with its key.
fn each<'a>(
    new: impl Iterator<Item = &'a NewRedemption>,
) -> impl Iterator<Item = (&'a NewRedemption, KeyId, Fingerprint)> {
    new.flat_map(|n| n.code_fingerprint.all.iter().map(move |(key, print)| (n, *key, *print)))
}

impl BegunRow {
    fn begun(self, pool_id: &PoolId) -> Result<Begun, StoreError> {
        let not_after = self.not_after;
        Ok(Begun::Recorded { redemption: Box::new(self.redemption(pool_id)?), not_after })
    }
}

impl InTheWay {
    fn is_any(&self) -> bool {
        self.same_request.is_some() || self.same_code.is_some() || self.are_old_keys
    }

    fn same_request(&self, new: &NewRedemption) -> Option<Begun> {
        let fingerprint = self.same_request_key.zip(self.same_request_fingerprint.as_deref());
        let same_code = fingerprint.is_some_and(|(key, it)| new.code_fingerprint.is_of(key, it));
        let redemption_id = RedemptionId(self.same_request?);
        Some(Begun::SameRequest { redemption_id, same_code })
    }

    fn code_in_use(&self) -> Option<BeginRefusal> {
        Some(BeginRefusal::CodeInUse {
            redemption_id: RedemptionId(self.same_code?),
            request: RequestKey::new(
                Principal::named(self.same_code_principal.as_deref()?),
                read_request_id(self.same_code_request_id.as_deref()?).ok()?,
            ),
            state: read_state(self.same_code_state.as_deref()?).ok()?,
        })
    }
}
