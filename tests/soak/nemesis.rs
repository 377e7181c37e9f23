//! The nemesis: the task that makes things go wrong.

use std::{sync::Arc, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    settings::Settings,
    support::{fleet::Fleet, postgres::OwnPostgres, proxy},
    tally::{Counted, Tally},
};

/// What it plays with.
pub(crate) struct Stage {
    pub(crate) fleet: Fleet,
    pub(crate) postgres: OwnPostgres,
    /// Between the servers and Postgres.
    pub(crate) proxy: proxy::Proxy<proxy::postgres::Postgres>,
}

pub(crate) struct Nemesis<'a> {
    stage: &'a mut Stage,
    tally: Arc<Tally>,
    stop: CancellationToken,
    dice: StdRng,
}

impl<'a> Nemesis<'a> {
    pub(crate) fn new(
        settings: &Settings,
        stage: &'a mut Stage,
        tally: &Arc<Tally>,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            stage,
            tally: Arc::clone(tally),
            stop: stop.clone(),
            dice: StdRng::seed_from_u64(settings.seed),
        }
    }

    /// Strikes until it is told to stop. Whatever it stopped goes on then.
    pub(crate) async fn run(mut self) {
        while !self.stop.is_cancelled() {
            let server = self.dice.random_range(0..usize::MAX);
            let pause = Duration::from_millis(self.dice.random_range(20..250));
            let stands = Duration::from_millis(self.dice.random_range(100..2500));
            match self.dice.random_range(0..100) {
                0..72 => self.kill(server).await,
                72..80 => self.kill_a_fake(server).await,
                80..88 => self.stand_still(server, stands).await,
                88..94 => self.cut().await,
                94..98 => self.freeze(stands / 4).await,
                _ => self.restart_postgres().await,
            }
            sleep(pause).await;
        }
    }

    async fn kill(&mut self, server: usize) {
        let stage = &mut *self.stage;
        let place = server % stage.fleet.servers.len();
        stage.fleet.servers[place].kill();
        self.tally.count(Counted::Kill);
        stage.fleet.restart_server(place).await;
    }

    async fn kill_a_fake(&mut self, fake: usize) {
        let stage = &mut *self.stage;
        let place = fake % stage.fleet.fakes.len();
        stage.fleet.fakes[place].kill();
        self.tally.count(Counted::ProviderKill);
        stage.fleet.fakes[place].revive().await;
        stage.fleet.fakes[place].set_faults(&crate::faults()).await;
    }

    async fn stand_still(&self, server: usize, time: Duration) {
        let stage = &*self.stage;
        let place = server % stage.fleet.servers.len();
        stage.fleet.servers[place].stop();
        self.tally.count(Counted::Stop);
        sleep(time).await;
        stage.fleet.servers[place].go_on();
    }

    async fn cut(&self) {
        self.stage.proxy.cut_all().await;
        self.tally.count(Counted::Cut);
    }

    async fn freeze(&self, time: Duration) {
        let stage = &*self.stage;
        stage.proxy.freeze();
        self.tally.count(Counted::Cut);
        sleep(time).await;
        stage.proxy.thaw();
    }

    async fn restart_postgres(&mut self) {
        let stage = &mut *self.stage;
        stage.postgres.quit();
        self.tally.count(Counted::Restart);
        stage.postgres.start_again().await;
    }
}
