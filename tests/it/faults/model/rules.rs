//! What the protocol rests on.

/// The rules that the protocol rests on. Each can be taken out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// `domain/account.rs`: a begin names the lease's token.
    pub(super) begin_is_fenced: bool,
    /// `domain/account.rs`: a release names the lease's token.
    pub(super) release_is_fenced: bool,
    /// `redeem.rs`: recorded before it is sent.
    pub(super) begin_before_send: bool,
    /// `domain/account.rs`: a lease does not run out while a redemption is open. `list_due_leases.sql`, the same.
    pub(super) open_keeps_the_lock: bool,
    /// `redemptions_living_code`.
    pub(super) one_living_redemption_a_code: bool,
    /// `reconcile.rs`: not found is not proof.
    pub(super) not_found_proves_nothing: bool,
    /// `redeem.rs`: a lost answer is doubt.
    pub(super) silence_proves_nothing: bool,
    /// `reconcile.rs`: what is not found is sent again or cancelled, not only looked up again.
    pub(super) reconcilers_climb: bool,
    /// `reconcile.rs`: sent again under the same key.
    pub(super) same_key_again: bool,
    /// `Settlement::known_state`: what is inferred names the state SUBMITTED. `apply.sql`: `r.state = k.known_state`.
    pub(super) inference_ends_with_a_takeover: bool,
    /// `domain/account.rs`: it is the account's open redemption. `apply.sql`: `r.finished_at IS NULL`.
    pub(super) settled_once: bool,
    /// `in_doubt.rs`: what a provider would count again is sent once.
    pub(super) uncounted_is_sent_once: bool,
    /// `proof.rs`: that a key was refused when it came again says nothing of the first time.
    pub(super) refused_again_proves_nothing: bool,
    /// `send.rs`: the provider's id of its task is committed before it is asked by it.
    pub(super) task_is_kept_first: bool,
    /// `reconcile.rs`: what cannot be asked, because its task was never told, is a person's.
    pub(super) lost_task_proves_nothing: bool,
    /// The provider's contract: a cancelled key stays cancelled.
    pub(super) tombstones: bool,
    /// The provider's contract: of a request that was "not executed" no copy is under way either.
    pub(super) refusals_speak_for_copies: bool,
}

impl Rules {
    /// As they are.
    pub(super) const REAL: Self = Self {
        begin_is_fenced: true,
        release_is_fenced: true,
        begin_before_send: true,
        open_keeps_the_lock: true,
        one_living_redemption_a_code: true,
        not_found_proves_nothing: true,
        silence_proves_nothing: true,
        reconcilers_climb: true,
        same_key_again: true,
        inference_ends_with_a_takeover: true,
        settled_once: true,
        uncounted_is_sent_once: true,
        refused_again_proves_nothing: true,
        task_is_kept_first: true,
        lost_task_proves_nothing: true,
        tombstones: true,
        refusals_speak_for_copies: true,
    };
}
