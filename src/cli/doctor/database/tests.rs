use std::sync::{Arc, Mutex};

use super::{super::Report, *};
use crate::cli::shared::output::{Format, Rows, Sink};

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What checks say, one a line, each with its state.
fn said(check: impl FnOnce(&mut Of<'_>) -> anyhow::Result<()>) -> String {
    let memory = Memory::default();
    let columns = super::super::CHECK;
    let rows = Rows::new(Format::Csv, columns, Sink::over(memory.clone()));
    let mut report = Report { rows, failed: 0, warnings: 0 };
    check(&mut report.of("database")).unwrap();
    report.rows.finish().unwrap();
    let bytes = memory.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().skip(1).collect::<Vec<_>>().join("\n")
}

fn facts(settings: &[(&str, &str)]) -> Facts {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Facts { settings: settings.collect(), role_connections: -1, ..Facts::default() }
}

#[test]
fn commits_that_wait_for_a_standby_that_is_not_there_fail() {
    let waiting = [("synchronous_standby_names", "ANY 1 (a)"), ("synchronous_commit", "on")];
    assert!(
        said(|of| standbys(&facts(&waiting), of))
            .contains("failed,\"commits wait for ANY 1 (a), and none")
    );
    let here = Facts { synchronous_standbys: 1, ..facts(&waiting) };
    assert!(said(|of| standbys(&here, of)).contains("standbys,ok"));
    let unknown = Facts { unknown_standbys: 1, ..facts(&waiting) };
    assert!(said(|of| standbys(&unknown, of)).contains("standbys,warning"));
    let local = [("synchronous_standby_names", "a"), ("synchronous_commit", "local")];
    assert!(said(|of| standbys(&facts(&local), of)).contains("standbys,warning"));
    assert!(said(|of| standbys(&facts(&[]), of)).contains("standbys,ok"));
}

#[test]
fn a_pool_that_is_larger_than_the_database_allows_fails() {
    let most = [("max_connections", "20"), ("superuser_reserved_connections", "3")];
    assert!(said(|of| connections(&facts(&most), 15, of)).contains("connections,failed"));
    assert!(said(|of| connections(&facts(&most), 14, of)).contains("connections,ok"));
    let busy = Facts { connections: 5, ..facts(&most) };
    assert!(said(|of| connections(&busy, 14, of)).contains("connections,warning"));
    let limited = Facts { role_connections: 10, ..facts(&[("max_connections", "100")]) };
    assert!(said(|of| connections(&limited, 16, of)).contains("connections,failed"));
}

#[test]
fn clocks_that_differ_are_told_by_how_much_and_in_which_direction() {
    assert!(said(|of| clock(1_500, of)).contains("clock,ok"));
    assert!(said(|of| clock(-5_000, of)).contains("warning,the database's is 5s behind"));
    assert!(said(|of| clock(90_000, of)).contains("failed,the database's is 1m 30s before"));
}

#[test]
fn settings_that_a_pooler_leaves_out_fail() {
    let own = crate::domain::database::SETTINGS;
    assert!(said(|of| own_settings(&facts(&own), of)).contains("timeouts,ok"));
    let told = said(|of| own_settings(&facts(&own[1..]), of));
    assert!(told.contains("timeouts,failed") && told.contains("statement_timeout"), "{told}");
}

#[test]
fn an_old_version_and_another_encoding_fail() {
    let old = [
        ("server_version", "14.2"),
        ("server_version_num", "140002"),
        ("server_encoding", "LATIN1"),
    ];
    let told = said(|of| version(&facts(&old), of));
    assert!(told.contains("version,failed") && told.contains("encoding,failed"), "{told}");
}
