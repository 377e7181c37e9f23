//! A proxy of bytes: for gRPC, and for all else that is only to be cut or delayed.

use std::net::SocketAddr;

use super::{Ended, Fired, Link, Protocol, Proxy, Reader, Upstream, When, Writer, rules::Rules};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// See [the module](self).
#[derive(Debug, Default)]
pub(crate) struct Bytes {
    /// Connections are cut after so many bytes.
    cuts: Rules<Way, usize>,
}

impl Proxy<Bytes> {
    /// A proxy before an address.
    pub(crate) fn before(server: SocketAddr) -> Self {
        Self::start(Bytes::default(), Upstream::Tcp(server))
    }

    /// Cuts the next new connection when so many bytes have passed, which do pass.
    pub(crate) fn cut_after(&self, way: Way, bytes: usize) -> Fired {
        self.protocol.cuts.add(When::first(way), bytes)
    }
}

impl Protocol for Bytes {
    async fn serve(&self, link: Link) -> Result<(), Ended> {
        let cut = |way| self.cuts.pick(|wanted| *wanted == way);
        let (to_server, to_client) = (cut(Way::ToServer), cut(Way::ToClient));
        tokio::try_join!(
            pass(link.from_client, link.to_server, to_server),
            pass(link.from_server, link.to_client, to_client),
        )?;
        Ok(())
    }
}

async fn pass(mut from: Reader, mut to: Writer, cut: Option<(usize, Fired)>) -> Result<(), Ended> {
    let mut left = cut.as_ref().map(|(bytes, _)| *bytes);
    let mut bytes = Vec::new();
    while from.read(&mut bytes).await? {
        let some = left.map_or(bytes.len(), |left| left.min(bytes.len()));
        to.write(&bytes[..some]).await?;
        bytes.clear();
        left = left.map(|left| left - some);
        if let (Some(0), Some((_, fired))) = (left, &cut) {
            fired.count();
            return Err(Ended);
        }
    }
    to.finish().await
}
