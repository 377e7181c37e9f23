//! Requests that come in pieces.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use tonic::Code;

use super::*;
use crate::admission::Overload;

/// A body of these pieces, which then ends, or never does.
#[derive(Debug)]
struct Pieces(VecDeque<Bytes>, bool);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.1 => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty() && self.1
    }
}

fn pieces(bytes: &[u8], each: usize, ends: bool) -> Pieces {
    Pieces(bytes.chunks(each.max(1)).map(Bytes::copy_from_slice).collect(), ends)
}

fn message(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], content].concat()
}

async fn read(body: Pieces, takes_stream: bool) -> Result<Complete<Pieces>, Status> {
    first(body, takes_stream, Overload::new().unread_requests(), &Arc::default(), None).await
}

#[tokio::test]
async fn a_message_is_complete_with_its_last_byte_wherever_it_was_cut() {
    let bytes = message(b"a request");
    for each in [1, 2, 5, 6, 13, 14] {
        for takes_stream in [false, true] {
            let complete = read(pieces(&bytes, each, true), takes_stream).await.unwrap();
            assert_eq!(complete.message(), b"a request", "{each}");
        }
        let error = read(pieces(&bytes[..bytes.len() - 1], each, false), true).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{each}");
    }
    let empty = read(pieces(b"", 1, true), false).await.unwrap();
    assert_eq!(empty.message(), b"");
}

#[tokio::test]
async fn a_request_of_one_message_is_complete_when_nothing_can_come_after_it() {
    let bytes = message(b"a request");
    let begun = Instant::now();
    let error = read(pieces(&bytes, 99, false), false).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() >= MESSAGE_TIMEOUT);
    read(pieces(&bytes, 99, false), true).await.expect("a stream may bring more later");
    let two = [&bytes[..], &bytes[..]].concat();
    let error = read(pieces(&two, 99, true), false).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_by_its_length_alone() {
    let length = u32::try_from(MAX_MESSAGE_BYTES).unwrap() + 1;
    let header = [&[0], &length.to_be_bytes()[..]].concat();
    for takes_stream in [false, true] {
        let error = read(pieces(&header, 1, false), takes_stream).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("1048577 bytes"), "{error:?}");
    }
    let first = message(b"first");
    let complete = read(pieces(&[&first[..], &header].concat(), 3, false), true).await.unwrap();
    let mut body = complete.into_body(Overload::new().unread_requests(), &Arc::default(), None);
    let error = loop {
        if let Err(error) = body.frame().await.unwrap() {
            break error;
        }
    };
    assert_eq!(error.code(), Code::InvalidArgument, "a later one of a stream too");
}

#[tokio::test]
async fn a_stream_may_wait_between_its_messages_and_not_inside_one() {
    let first = message(b"first");
    for (bytes, ends_in_time) in [(first.clone(), true), ([&first[..], &[0, 0]].concat(), false)] {
        let overload = Overload::new();
        let complete = read(pieces(&bytes, 99, false), true).await.unwrap();
        let mut body = complete.into_body(overload.unread_requests(), &Arc::default(), None);
        body.frame().await.unwrap().unwrap();
        assert_eq!(overload.unread_requests().used() == 0, ends_in_time);
        let next = tokio::time::timeout(MESSAGE_TIMEOUT * 3, body.frame()).await;
        assert_eq!(next.is_err(), ends_in_time, "{next:?}");
        if let Ok(Some(Err(error))) = next {
            assert_eq!(error.code(), Code::DeadlineExceeded);
        }
        drop(body);
        assert_eq!(overload.unread_requests().used(), 0);
    }
}

#[tokio::test]
async fn what_is_kept_of_incomplete_requests_is_bounded_and_the_oldest_goes_first() {
    let overload = Overload::new();
    let budget = overload.unread_requests();
    let owner = Arc::default();
    let half = MAX_MESSAGE_BYTES / 2;
    let begun = message(&vec![7; MAX_MESSAGE_BYTES])[..half].to_vec();
    let mut waiting: Vec<_> = (0..200)
        .map(|_| Box::pin(first(pieces(&begun, half, false), false, budget, &owner, None)))
        .collect();
    let gone: Vec<_> = waiting.iter_mut().map(|one| one.as_mut().now_or_never()).collect();
    assert!(gone.iter().all(Option::is_none));
    assert!(budget.used() <= 32 * 1024 * 1024, "{}: one caller's part", budget.used());
    let answers: Vec<_> = waiting.iter_mut().map(|one| one.as_mut().now_or_never()).collect();
    let gone = answers.iter().take_while(|answer| answer.is_some()).count();
    assert!((135..145).contains(&gone), "{gone} of 200, the first of them");
    assert_eq!(answers.iter().flatten().count(), gone);
    for answer in answers.into_iter().flatten() {
        assert_eq!(answer.unwrap_err().code(), Code::ResourceExhausted);
    }
    drop(waiting);
    assert_eq!(budget.used(), 0);
}
