//! Streams of answers that end when what their caller showed is not valid any more.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;

use super::refusal;
use crate::access::Access;

/// Ends a stream of answers when `access` does. What it brought before stays so.
pub(super) fn until_ended(
    answer: http::Response<tonic::body::Body>,
    access: Access,
) -> http::Response<tonic::body::Body> {
    let ended = async move { access.ended().await };
    answer.map(|body| tonic::body::Body::new(Until { body: Some(body), ended: Box::pin(ended) }))
}

struct Until {
    /// `None` once it has ended.
    body: Option<tonic::body::Body>,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Body for Until {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if this.ended.as_mut().poll(cx).is_ready() {
            // What works for it notices that nobody reads any more, as when a caller leaves.
            this.body = None;
            let trailers = refusal::of_ended().into_http::<()>().into_parts().0.headers;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }
}
