//! What it costs to ask callers who they are: cycles of servers that ask, beside one that does not, over the same
//! transport.

use holdfast::domain::access::Role;

use super::{cycles, run_in_rounds};
use crate::{
    args::Args,
    goals::{Row, part},
    ground::Ground,
    peers::{
        Peer,
        holdfast::{CyclesOverRpc, Server},
    },
    postgres::{self, POOL},
    report::progress,
    secure::{Authority, Target, new_token, trusting},
    stats,
};

/// What callers show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Nothing,
    Token,
    Jwt,
}

/// Each has a server and a database of its own: servers that share a pool follow each other's changes.
const PEERS: [(&str, bool, Shown); 5] = [
    ("nobody is asked", false, Shown::Nothing),
    ("a token", false, Shown::Token),
    ("a JWT", false, Shown::Jwt),
    ("nobody is asked, TLS", true, Shown::Nothing),
    ("a token, TLS", true, Shown::Token),
];
/// What is compared: the part, with, without.
const COMPARED: [(usize, usize, usize); 3] =
    [(part::TOKEN, 1, 0), (part::TOKEN_TLS, 4, 3), (part::JWT, 2, 0)];

pub(super) async fn measure(args: &Args, ground: &Ground, row: &mut Row) -> anyhow::Result<()> {
    progress("authentication: cycles with it and without");
    let authority = Authority::new()?;
    let mut servers = Vec::new();
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for (number, (name, has_tls, shown)) in PEERS.into_iter().enumerate() {
        let url = ground.new_database(&database(number)).await?;
        postgres::fill(&url, cycles::ACCOUNTS).await?;
        let (mut settings, auth) = (Vec::new(), if shown == Shown::Nothing { "off" } else { "on" });
        let mut bearer = None;
        match shown {
            Shown::Nothing => {}
            Shown::Token => {
                bearer = Some(new_token(&url, "caller", &[(Role::Redeemer, POOL)]).await?);
            }
            Shown::Jwt => {
                let (jwt, shown) = authority.jwt()?;
                settings.extend(jwt);
                bearer = Some(shown);
            }
        }
        if has_tls {
            settings.extend(authority.settings()?);
        }
        let server =
            Server::start_with(ground, &url, &settings, &[("HOLDFAST_AUTH", auth)]).await?;
        let mut target = Target { bearer, ..Target::plain(&server.url) };
        if has_tls {
            target.url = server.url.replace("http://", "https://");
            target.tls = Some(trusting(&authority.ca_file, "h2")?);
        }
        peers.push(Box::new(CyclesOverRpc::connect_to(name, &target).await?));
        servers.push(server);
    }
    let rounds = run_in_rounds(args, ground, &mut peers).await?;
    for (part, with, without) in COMPARED {
        let ratios = stats::ratios(&rounds[with].per_second, &rounds[without].per_second);
        row.set(part, stats::median(&ratios), Some(stats::spread(&ratios)));
    }
    for rounds in &rounds {
        let what = format!("cycles, {}", rounds.name);
        row.measured.push(stats::measured(&what, "cycles/s", &rounds.per_second));
    }
    drop((peers, servers));
    for number in 0..PEERS.len() {
        ground.drop_database(&database(number)).await?;
    }
    Ok(())
}

fn database(number: usize) -> String {
    format!("auth_{number}")
}
