//! Counts of how often a process asks for memory: made by a library that is loaded before it, where there is a C
//! compiler and libc is one that has it so.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::ground::Ground;

const LIBRARY: &str = include_str!("../../../allocations.c");

/// What counts, before any process does.
pub(super) struct Counter {
    library: PathBuf,
    counts: PathBuf,
}

/// How often memory was asked for, and how much.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Allocations {
    pub(super) times: f64,
    pub(super) bytes: f64,
}

impl Counter {
    pub(super) fn prepare(ground: &Ground) -> anyhow::Result<Self> {
        let path = |name| ground.directory().join(name);
        let (source, library) = (path("allocations.c"), path("allocations.so"));
        let counts = path("allocations");
        fs::write(&source, LIBRARY)?;
        fs::write(&counts, [0; 16])?;
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        let done = cc.output().context("there is no C compiler")?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(Self { library, counts })
    }

    /// What a process has to be started with, to be counted.
    pub(super) fn variables(&self) -> anyhow::Result<[(&'static str, &str); 2]> {
        let library = self.library.to_str().context("a path that is not text")?;
        let counts = self.counts.to_str().context("a path that is not text")?;
        Ok([("LD_PRELOAD", library), ("COUNT_ALLOCATIONS_IN", counts)])
    }

    /// What was counted so far.
    pub(super) fn read(&self) -> anyhow::Result<Allocations> {
        let bytes = fs::read(&self.counts)?;
        let number = |from: usize| -> Option<u64> {
            Some(u64::from_ne_bytes(bytes.get(from..from + 8)?.try_into().ok()?))
        };
        let numbers = number(0).zip(number(8)).context("the counts cannot be read")?;
        #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        Ok(Allocations { times: numbers.0 as f64, bytes: numbers.1 as f64 })
    }
}
