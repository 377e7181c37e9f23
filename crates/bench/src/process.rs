//! Programs that are measured, each a process of its own. They end with this one, however it ends.

use std::{
    io::Read as _,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit};

/// How long a start may take.
pub(crate) const START: Duration = Duration::from_secs(30);
/// The pause between two checks of a start or an end.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long one may take to end when it is asked to.
const END: Duration = Duration::from_secs(5);
/// How much is kept of what it says first, and of what it says last.
const KEPT_BYTES: usize = 16 * 1024;

/// Ends the program that it starts when standard input does, for programs that do not do so themselves.
const LEASH: &str = r#""$@" & child=$!; cat >/dev/null; kill "$child"; wait "$child""#;

/// A process that runs until this is dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<Output>>,
}

#[derive(Default)]
struct Output {
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Process {
    /// Starts a program that ends when its standard input does. Of this program's variables it gets none
    /// that would set it otherwise than it sets itself, but those in `settings`.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("HOLDFAST_")) {
            command.env_remove(name);
        }
        command.envs(settings.iter().copied());
        // A group of its own: Ctrl-C is for this program, which ends it in order.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let output = Arc::new(Mutex::new(Output::default()));
        if let Some(mut stderr) = child.stderr.take() {
            let output = Arc::clone(&output);
            thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(bytes @ 1..) = stderr.read(&mut buffer) {
                    output.lock().unwrap_or_else(PoisonError::into_inner).note(&buffer[..bytes]);
                }
            });
        }
        Ok(Self { name: name.to_owned(), child, output })
    }

    /// Starts any other program.
    pub(crate) fn start_on_leash(
        name: &str,
        program: &str,
        args: &[String],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", LEASH, "sh", program]).args(args);
        Self::start(name, command, &[])
    }

    /// Waits until what it says, or anything else, tells what is waited for.
    pub(crate) async fn until<T>(
        &mut self,
        limit: Duration,
        mut check: impl AsyncFnMut(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = check(&self.output().0).await {
                return Ok(found);
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                bail!(
                    "{} ended, or was not ready in time; it says:\n{}",
                    self.name,
                    self.output().1
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it occupies now, in MB.
    pub(crate) fn memory_mb(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("memory is read from /proc, which is not here")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kib: f64 = kib.context("/proc does not tell the memory")?.trim().parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// What comes after these words in the last whole line that begins with them.
    pub(crate) fn last_line(&self, begins: &str) -> Option<String> {
        let (_, last) = self.output();
        let (whole, _) = last.rsplit_once('\n')?;
        whole.lines().rev().find_map(|line| line.strip_prefix(begins)).map(str::to_owned)
    }

    /// What it wrote first and last.
    fn output(&self) -> (String, String) {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            text(&output.first),
            text(if output.last.is_empty() { &output.first } else { &output.last }),
        )
    }
}

impl Output {
    fn note(&mut self, bytes: &[u8]) {
        let room = KEPT_BYTES - self.first.len().min(KEPT_BYTES);
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.first.extend_from_slice(first);
        let from = rest.len().saturating_sub(KEPT_BYTES);
        self.last.extend_from_slice(&rest[from..]);
        let surplus = self.last.len().saturating_sub(KEPT_BYTES);
        self.last.drain(..surplus);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
        // All of the group that it was made the head of.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Thousands of connections are opened here and there: as many files as this user may have.
pub(crate) fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // What cannot be raised is told by whatever needs it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_output_are_kept() {
        let mut output = Output::default();
        output.note(b"first");
        output.note(&vec![b'x'; 5 * KEPT_BYTES]);
        output.note(b"last");
        assert!(output.first.starts_with(b"first") && output.first.len() == KEPT_BYTES);
        assert!(output.last.ends_with(b"last") && output.last.len() == KEPT_BYTES);
    }

    #[test]
    fn a_process_on_a_leash_ends_with_its_owner() {
        let args = ["-c", "echo up >&2; exec sleep 1000"].map(str::to_owned);
        let process = Process::start_on_leash("a sleeper", "sh", &args).unwrap();
        let output = Arc::clone(&process.output);
        let begun = Instant::now();
        while output.lock().unwrap().first.is_empty() && begun.elapsed() < START {
            thread::sleep(POLL_INTERVAL);
        }
        let begun = Instant::now();
        drop(process);
        assert!(begun.elapsed() < END, "it had to be killed");
    }
}
