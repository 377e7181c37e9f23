//! What is fuzzed (`holdfast::fuzz`), without a fuzzer: the inputs that are kept in `fuzz/corpus/`, and variations of them.

mod variation;

use std::{
    collections::BTreeSet,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use holdfast::fuzz::{TARGETS, rpcs, run, taken_by};
use rand::{SeedableRng as _, rngs::StdRng};

use self::variation::vary;

/// How long each target gets variations, in seconds, and how many at least.
const TIME: f64 = 0.5;
const LEAST: u64 = 20;
/// No input that is kept is longer: they are read with every run.
const MAX_INPUT_BYTES: u64 = 64 * 1024;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names in a folder, in their order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// The inputs of a target, with their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = root().join("fuzz/corpus").join(target);
    let read = |name: String| (name.clone(), fs::read(folder.join(name)).unwrap());
    names(&folder).into_iter().map(read).collect()
}

/// Gives a target an input. One that it fails on is kept, for `make fuzz` to be run again with it.
fn check(target: &str, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| run(target, input))).is_ok() {
        return;
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("fuzz-{target}"));
    fs::write(&file, input).unwrap();
    panic!("the target {target} fails on {what}; the input is in {}", file.display());
}

#[test]
fn every_input_that_is_kept_passes() {
    for (target, _) in TARGETS {
        for (name, input) in corpus(target) {
            check(target, &input, &format!("fuzz/corpus/{target}/{name}"));
        }
        check(target, b"", "nothing");
    }
}

#[test]
fn variations_of_the_inputs_pass() {
    let setting = |name| env::var(name).ok();
    let seed = setting("HOLDFAST_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    let time = setting("HOLDFAST_TEST_FUZZ_SECONDS").map_or(TIME, |time| time.parse().unwrap());
    let time = Duration::from_secs_f64(time);
    for (target, _) in TARGETS {
        let inputs: Vec<_> = corpus(target).into_iter().map(|(_, input)| input).collect();
        let until = Instant::now() + time;
        let mut rng = StdRng::seed_from_u64(seed);
        for number in 0_u64.. {
            if number >= LEAST && Instant::now() >= until {
                break;
            }
            let input = vary(&inputs, &mut rng);
            check(target, &input, &format!("variation {number} of HOLDFAST_TEST_SEED={seed}"));
        }
    }
}

#[test]
fn every_rpc_has_a_request_among_the_inputs_that_asks_a_service() {
    let taken: BTreeSet<_> =
        corpus("requests").iter().flat_map(|(_, input)| taken_by(input)).collect();
    let missing: Vec<_> = rpcs().into_iter().filter(|rpc| !taken.contains(rpc)).collect();
    assert!(missing.is_empty(), "put requests of these into fuzz/corpus/requests: {missing:?}");
}

#[test]
fn every_target_has_a_program_and_inputs_and_nothing_else_has() {
    let mut targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    targets.sort_unstable();
    assert_eq!(names(&root().join("fuzz/corpus")), targets);
    let files: Vec<_> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&root().join("fuzz/fuzz_targets")), files);
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    for target in targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
        let program =
            fs::read_to_string(root().join(format!("fuzz/fuzz_targets/{target}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{target}\", input)")), "{target}");
        let folder = root().join("fuzz/corpus").join(&target);
        let count = names(&folder).len();
        assert!((10..=100).contains(&count), "{target} has {count} inputs");
        for name in names(&folder) {
            let bytes = fs::metadata(folder.join(&name)).unwrap().len();
            assert!(bytes <= MAX_INPUT_BYTES, "{target}/{name} has {bytes} bytes");
        }
    }
}

#[test]
fn every_profile_that_comes_with_the_program_is_among_the_inputs() {
    let inputs: BTreeSet<_> = corpus("profile").into_iter().map(|(_, input)| input).collect();
    for name in names(&root().join("profiles")) {
        let profile = fs::read(root().join("profiles").join(&name)).unwrap();
        assert!(inputs.contains(&profile), "copy profiles/{name} to fuzz/corpus/profile/{name}");
        let id = name.strip_suffix(".toml").unwrap();
        let answers = corpus("provider_answer");
        let of_it =
            |(_, input): &(String, Vec<u8>)| input.starts_with(format!("{id}\n====\n").as_bytes());
        assert!(answers.iter().any(of_it), "no answer of {id} in fuzz/corpus/provider_answer");
    }
}
