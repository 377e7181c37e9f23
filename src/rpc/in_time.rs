//! An answer, unless its caller's deadline passes, or what the caller showed becomes invalid, before it is there.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::Instant;
use tonic::body::Body;

use super::{refusal, status};
use crate::access::Access;

type Answer = http::Response<Body>;

pin_project_lite::pin_project! {
    /// See [the module](self). A future of its own, not an `async fn`, which would have room for the answer's twice.
    pub(super) struct InTime<F> {
        #[pin]
        answer: F,
        deadline: Option<Instant>,
        // In a box, so that calls which are not bounded by it have no room for it.
        ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    }
}

/// The answer, at most until `deadline`, and while `access` is valid.
pub(super) fn in_time<F, E>(
    answer: F,
    deadline: Option<Instant>,
    access: Option<Access>,
) -> InTime<F>
where
    F: Future<Output = Result<Answer, E>>,
{
    let ended = access.map(|access| {
        let ended: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(async move { access.ended().await });
        ended
    });
    InTime { answer, deadline, ended }
}

impl<F, E> Future for InTime<F>
where
    F: Future<Output = Result<Answer, E>>,
{
    type Output = Result<Answer, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(answer) = this.answer.poll(cx) {
            return Poll::Ready(answer);
        }
        // tonic wakes the waiting task at the deadline, but would say that the call was cancelled.
        if this.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Poll::Ready(Ok(status::deadline_passed().into_http()));
        }
        if this.ended.as_mut().is_some_and(|ended| ended.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ok(refusal::of_ended().into_http()));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Thousands of these wait at a time.
    #[test]
    fn a_call_that_is_bounded_by_time_is_little_larger_than_its_answer() {
        let room = [0_u8; 4096];
        let answer = async move {
            tokio::task::yield_now().await;
            assert_eq!(room.len(), 4096);
            Ok::<_, Infallible>(Answer::new(Body::empty()))
        };
        let alone = size_of_val(&answer);
        let bounded = size_of_val(&in_time(answer, None, None));
        assert!(bounded <= alone + 64, "{bounded} bytes, of which {alone} are the answer's");
    }
}
