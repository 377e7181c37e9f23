#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast::fuzz::run("jwt", input));
