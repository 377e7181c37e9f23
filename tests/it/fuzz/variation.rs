//! Variations of inputs, as a fuzzer makes them that knows nothing of what they mean.

use rand::{Rng, RngExt as _, seq::IndexedRandom as _};

/// The longest input.
const MAX_BYTES: usize = 64 * 1024;
/// Bytes that mean something in many languages.
const SIGNS: &[u8] = b"\0\n\r\t \"'\\,;:.-+=/0019{}[]()%&#*_\x7f\x80\xff\xc3";

/// One of the inputs, changed in a few places.
pub(super) fn vary(inputs: &[Vec<u8>], rng: &mut impl Rng) -> Vec<u8> {
    let mut input = inputs.choose(rng).cloned().unwrap_or_default();
    for _ in 0..rng.random_range(1..=4) {
        change(&mut input, inputs, rng);
    }
    input.truncate(MAX_BYTES);
    input
}

fn change(input: &mut Vec<u8>, inputs: &[Vec<u8>], rng: &mut impl Rng) {
    let at = rng.random_range(0..=input.len());
    let until = (at + rng.random_range(1..=16)).min(input.len());
    match rng.random_range(0..8) {
        0 | 1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
        2 => {
            if let (Some(byte), Some(sign)) = (input.get_mut(at), SIGNS.choose(rng)) {
                *byte = *sign;
            }
        }
        3 => input.splice(at..at, SIGNS.choose(rng).copied()).for_each(drop),
        4 => input.drain(at..until).for_each(drop),
        // Once more, many times sometimes: what has a bound is to be beyond it.
        5 => {
            let times = if rng.random_ratio(1, 8) { 1000 } else { 1 };
            let part = input[at..until].repeat(times);
            input.splice(at..at, part).for_each(drop);
        }
        6 => input.truncate(at),
        _ => {
            let other = inputs.choose(rng).cloned().unwrap_or_default();
            let from = rng.random_range(0..=other.len());
            let to = rng.random_range(from..=other.len());
            input.splice(at..until, other[from..to].iter().copied()).for_each(drop);
        }
    }
}
