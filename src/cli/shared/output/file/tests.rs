use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn refused(name: &Path, inputs: &[&Path]) -> String {
    format!("{:#}", Target::check(name, inputs).err().unwrap())
}

/// Writes a line through a target that is checked and opened.
fn begun(name: &Path) -> (Sink, Option<Draft>) {
    let (mut sink, draft) = Target::check(name, &[]).unwrap().open().unwrap();
    sink.line("new").unwrap();
    (sink, draft)
}

fn published(name: &Path) {
    let (_sink, draft) = begun(name);
    draft.unwrap().publish().unwrap();
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_when_all_is_written_and_not_before() {
    let folder = folder();
    let file = folder.path().join("out.csv");
    fs::write(&file, "old\n").unwrap();
    let (_sink, draft) = begun(&file);
    assert_eq!(text(&file), "old\n");
    draft.unwrap().publish().unwrap();
    assert_eq!((text(&file), names(&folder)), ("new\n".into(), vec!["out.csv".to_owned()]));
}

#[test]
fn what_a_failed_run_wrote_is_kept_beside_the_old_file_and_named() {
    let folder = folder();
    let file = folder.path().join("out.csv");
    fs::write(&file, "old\n").unwrap();
    let (mut sink, draft) = begun(&file);
    sink.line("more").unwrap();
    let draft = draft.unwrap();
    let path = draft.path();
    let kept = draft.keep(true).unwrap();
    assert!(kept.contains(&path.display().to_string()), "{kept}");
    assert!(path.to_str().unwrap().ends_with(".partial"));
    assert_eq!((text(&file), text(&path)), ("old\n".into(), "new\nmore\n".into()));
}

#[test]
fn whole_results_of_a_run_that_failed_take_a_name_that_nothing_has() {
    for (is_whole, expected) in [(true, "out.csv"), (false, ".partial")] {
        let folder = folder();
        let file = folder.path().join("out.csv");
        let (_sink, draft) = begun(&file);
        draft.unwrap().keep(is_whole).unwrap();
        let names = names(&folder);
        assert!(names.len() == 1 && names[0].ends_with(expected), "{names:?}");
    }
}

#[test]
fn two_runs_on_one_file_are_refused_until_the_first_has_ended() {
    let folder = folder();
    let file = folder.path().join("out.csv");
    symlink("out.csv", folder.path().join("link.csv")).unwrap();
    for is_there in [false, true] {
        let first = begun(&file);
        for name in ["out.csv", "./out.csv", "link.csv"] {
            let second = Target::check(&folder.path().join(name), &[]).unwrap().open();
            let error = second.err().unwrap().to_string();
            assert!(error.contains("another run is writing its results to"), "{is_there}: {error}");
        }
        drop(begun(&folder.path().join("other.csv")));
        first.1.unwrap().publish().unwrap();
        published(&file);
    }
    // One that was killed leaves its lock's file, which locks nobody out.
    fs::write(folder.path().join(".out.csv.lock"), "").unwrap();
    published(&file);
    assert_eq!(names(&folder), ["link.csv", "out.csv"]);
}

#[test]
fn a_run_that_wrote_nothing_leaves_no_file() {
    let folder = folder();
    let file = folder.path().join("out.csv");
    let (sink, draft) = Target::check(&file, &[]).unwrap().open().unwrap();
    assert_eq!(draft.unwrap().keep(false), None);
    drop(sink);
    let (sink, draft) = Target::check(&file, &[]).unwrap().open().unwrap();
    drop((sink, draft));
    assert!(names(&folder).is_empty());
}

#[test]
fn a_file_that_is_read_is_refused_under_every_name_and_left_as_it_is() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("cards.csv"), "code\n").unwrap();
    symlink("cards.csv", at("link")).unwrap();
    symlink(at("link"), at("link-to-link")).unwrap();
    fs::hard_link(at("cards.csv"), at("hard")).unwrap();
    let around = folder.path().join(".").join("cards.csv");
    for name in [at("cards.csv"), at("link"), at("link-to-link"), at("hard"), around] {
        let why = refused(&name, &[&at("cards.csv")]);
        assert!(why.contains("is the same file as") && why.contains("another file"), "{why}");
        assert!(refused(&at("cards.csv"), &[&name]).contains("is the same file"));
    }
    assert_eq!(text(&at("cards.csv")), "code\n");
    assert_eq!(names(&folder).len(), 4);
}

#[test]
fn a_folder_and_a_name_in_no_folder_are_refused_at_once() {
    let folder = folder();
    assert!(refused(folder.path(), &[]).contains("is a folder"));
    assert!(refused(&folder.path().join("new/"), &[]).contains("is a folder"));
    assert!(refused(&folder.path().join("none/out.csv"), &[]).contains("there is no folder"));
    assert!(refused(Path::new(""), &[]).contains("must name a file"));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refused(&file.join("out.csv"), &[]).contains("cannot be written"));
}

#[test]
fn a_file_that_must_not_be_written_is_refused_at_once() {
    let folder = folder();
    let file = folder.path().join("out.csv");
    fs::write(&file, "old\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    // Nothing is refused to root.
    if access(&file, Access::WRITE_OK).is_err() {
        assert!(refused(&file, &[]).contains("cannot be written"));
    }
}

#[test]
fn a_new_file_has_the_permissions_of_any_new_file_and_an_old_one_keeps_its_own() {
    let folder = folder();
    let (plain, new) = (folder.path().join("plain"), folder.path().join("new"));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    fs::write(&plain, "").unwrap();
    published(&new);
    assert_eq!(mode(&new), mode(&plain));
    for kept in [0o600, 0o640, 0o666] {
        fs::set_permissions(&new, Permissions::from_mode(kept)).unwrap();
        published(&new);
        assert_eq!((mode(&new), text(&new)), (kept, "new\n".into()));
    }
}

#[test]
fn of_a_symbolic_link_the_file_behind_it_is_replaced() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("there")).unwrap();
    fs::write(at("there/out.csv"), "old\n").unwrap();
    symlink("there/out.csv", at("link")).unwrap();
    symlink("there/none.csv", at("dangling")).unwrap();
    for (link, file) in [("link", "there/out.csv"), ("dangling", "there/none.csv")] {
        published(&at(link));
        assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink());
        assert_eq!(text(&at(file)), "new\n");
    }
    symlink("loop", at("loop")).unwrap();
    assert!(refused(&at("loop"), &[]).contains("symbolic links"));
}

#[test]
fn a_device_is_written_to_and_stays_a_device() {
    let (_, draft) = begun(Path::new("/dev/null"));
    assert!(draft.is_none() && !fs::metadata("/dev/null").unwrap().is_file());
    let (mut sink, draft) = Target::check(Path::new("/dev/full"), &[]).unwrap().open().unwrap();
    assert!(draft.is_none() && sink.line("x").is_err());
}

#[test]
fn the_name_of_an_open_descriptor_is_appended_to() {
    let folder = folder();
    let file = folder.path().join("out.csv");
    fs::write(&file, "old\n").unwrap();
    let open = OpenOptions::new().write(true).open(&file).unwrap();
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    let (_, draft) = begun(Path::new(&name));
    assert!(draft.is_none());
    assert_eq!((text(&file), names(&folder).len()), ("old\nnew\n".into(), 1));
}

#[test]
fn a_file_that_cannot_be_replaced_is_written_to_in_place() {
    let folder = folder();
    let file = folder.path().join("out.csv");
    fs::write(&file, "a longer old text\n").unwrap();
    let before = fs::metadata(&file).unwrap();
    let (_sink, draft) = begun(&file);
    Draft { in_place: true, ..draft.unwrap() }.publish().unwrap();
    assert_eq!((text(&file), id(&fs::metadata(&file).unwrap())), ("new\n".into(), id(&before)));
    assert_eq!(names(&folder), ["out.csv"]);
}

#[test]
fn results_that_cannot_be_put_in_place_are_kept_whole() {
    let folder = folder();
    let file = folder.path().join("out.csv");
    let (_sink, draft) = begun(&file);
    let draft = draft.unwrap();
    let path = draft.path();
    fs::create_dir(&file).unwrap();
    let why = format!("{:#}", draft.publish().unwrap_err());
    assert!(why.contains(&path.display().to_string()) && why.contains("whole"), "{why}");
    assert_eq!(text(&path), "new\n");
}

#[test]
fn an_input_that_is_not_there_yet_is_not_the_output() {
    let folder = folder();
    let key = folder.path().join("item.key");
    let error = refused(&folder.path().join("./item.key"), &[Path::new("-"), &key]);
    assert!(error.contains("is the same file as"), "{error}");
    assert!(Target::check(&folder.path().join("out.csv"), &[Path::new("-"), &key]).is_ok());
}

#[test]
fn what_is_in_the_place_of_a_lock_is_named_and_not_followed_or_taken_away() {
    let folder = folder();
    let (file, lock) = (folder.path().join("out.csv"), folder.path().join(".out.csv.lock"));
    let other = folder.path().join("other.txt");
    symlink("other.txt", &lock).unwrap();
    let error = Target::check(&file, &[]).unwrap().open().err().unwrap().to_string();
    assert!(error.contains(".out.csv.lock is not a file"), "{error}");
    assert!(!other.exists());
    fs::remove_file(&lock).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &lock, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let error = Target::check(&file, &[]).unwrap().open().err().unwrap().to_string();
    assert!(error.contains(".out.csv.lock is not a file"), "{error}");
    fs::remove_file(&lock).unwrap();
    fs::write(&lock, "somebody's").unwrap();
    published(&file);
    assert_eq!((text(&file), text(&lock)), ("new\n".into(), "somebody's".into()));
}
