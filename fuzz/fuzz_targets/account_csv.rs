#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast::fuzz::run("account_csv", input));
