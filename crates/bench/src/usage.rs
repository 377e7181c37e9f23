//! Processor time of processes, as the kernel counts it. Nothing where there is no `/proc`.

use std::fs;

use serde::Serialize;

use crate::{ground::Ground, postgres};

/// Of one or more processes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// How often a thread was put away for another, or went to wait.
    pub(crate) switches: f64,
}

/// The fields of `/proc/…/stat` from the third on, in the order of its manual.
struct Stat(Vec<String>);

impl Stat {
    fn of(process: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The second is the name, in brackets, and may have anything in it.
        let (_, fields) = text.rsplit_once(") ")?;
        Some(Self(fields.split_whitespace().map(str::to_owned).collect()))
    }

    /// One of them, by its number in the manual.
    fn field(&self, number: usize) -> f64 {
        self.0.get(number - 3).and_then(|field| field.parse().ok()).unwrap_or(0.0)
    }

    fn seconds(&self, fields: &[usize]) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "it is a hundred or so")]
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        fields.iter().map(|number| self.field(*number)).sum::<f64>() / ticks
    }
}

const PARENT: usize = 4;
const OWN: [usize; 2] = [14, 15];
const OF_ENDED_CHILDREN: [usize; 2] = [16, 17];

impl Usage {
    /// Of a process and its threads.
    pub(crate) fn of(process: u32) -> Self {
        let cpu_seconds = Stat::of(process).map_or(0.0, |stat| stat.seconds(&OWN));
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let switches = threads.map(|thread| switches(&thread.path().join("status"))).sum();
        Self { cpu_seconds, switches }
    }

    /// Of Postgres's processes: those that serve a client, and the others.
    pub(crate) fn of_postgres(ground: &Ground) -> anyhow::Result<(Self, Self)> {
        let postmaster = ground.postgres_pid()?;
        let mut others = Self::of(postmaster);
        if let Some(stat) = Stat::of(postmaster) {
            others.cpu_seconds += stat.seconds(&OF_ENDED_CHILDREN);
        }
        let mut backends = Self::default();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let child = Stat::of(process);
            if child.is_some_and(|stat| stat.field(PARENT) == f64::from(postmaster)) {
                let title = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
                let serves = title.starts_with(&format!("postgres: {} ", postgres::USER));
                let kind = if serves { &mut backends } else { &mut others };
                *kind = kind.and(Self::of(process));
            }
        }
        Ok((backends, others))
    }

    fn and(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            switches: self.switches + other.switches,
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            switches: self.switches - before.switches,
        }
    }
}

fn switches(status: &std::path::Path) -> f64 {
    let text = fs::read_to_string(status).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once("ctxt_switches:"));
    lines.filter_map(|(_, count)| count.trim().parse::<f64>().ok()).sum()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_the_processor() {
        let before = Usage::of(std::process::id());
        let mut sum = 0_u64;
        while Usage::of(std::process::id()).since(before).cpu_seconds < 0.03 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let used = Usage::of(std::process::id()).since(before);
        assert!(used.cpu_seconds < 60.0 && used.switches >= 0.0, "{used:?}");
    }
}
