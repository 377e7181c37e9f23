//! Who calls, and what they may do.

mod audit_follow;
mod audit_trail;
mod crashes;
mod jwt;
mod pools;
mod principals;
mod start;
mod table;
mod tokens;

use std::time::{Duration, Instant};

use holdfast::config::{AccessArgs, ServeArgs};
use tonic::{Code, Status};

use crate::support::{caller::Caller, wait::eventually, world::World};

/// A revoked token stops working everywhere within this.
const REVOKED: Duration = Duration::from_secs(5);

/// Servers that ask everybody who they are.
pub(crate) async fn world(servers: usize, change: impl FnOnce(&mut AccessArgs)) -> World {
    let change = |args: &mut ServeArgs| {
        args.access = AccessArgs::on();
        change(&mut args.access);
    };
    World::with(change, servers).await
}

/// The clients of somebody who shows this.
async fn caller(world: &World, server: usize, secret: &str) -> Caller {
    Caller::with(world.channel(server).await, secret)
}

/// The clients of the admin.
async fn admin(world: &World) -> Caller {
    caller(world, 0, world.admin.as_ref().unwrap()).await
}

/// Waits until somebody's calls are refused for want of a valid token, and says how long that took.
async fn refused_after(caller: &mut Caller, begun: Instant) -> Duration {
    eventually(2 * REVOKED, "the token is refused", async || match caller.pools().await {
        Err(error) if error.code() == Code::Unauthenticated => Some(()),
        _ => None,
    })
    .await;
    begun.elapsed()
}

#[track_caller]
fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.unwrap_err().code()
}
