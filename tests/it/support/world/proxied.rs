//! A world whose statements pass a proxy.

use holdfast::config::ServeArgs;
use secrecy::ExposeSecret as _;

use super::World;
use crate::support::proxy::{Proxy, postgres::Postgres};

impl World {
    /// One server, whose statements pass a proxy that sees and changes them. `change` changes both before the server
    /// starts. What is bound last is dropped first: the world needs the proxy until it has been checked.
    pub(crate) async fn proxied(
        change: impl FnOnce(&mut ServeArgs, &Proxy<Postgres>),
    ) -> (Proxy<Postgres>, Self) {
        let mut proxy = None;
        let settings = |args: &mut ServeArgs| {
            let url = args.database_url.as_ref().unwrap().expose_secret().to_owned();
            let before = proxy.insert(Proxy::<Postgres>::before(&url));
            args.database_url = Some(before.url(&url).into());
            change(args, before);
        };
        let world = Self::with(settings, 1).await;
        (proxy.unwrap(), world)
    }
}
