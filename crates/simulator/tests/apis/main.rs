//! The fakes of real APIs, over real HTTP: what each answers, what its deduplication does, and what each fault is.

// clippy lets a test unwrap, but not the functions that tests share.
#![allow(clippy::unwrap_used)]

mod faults;
mod fiserv;
mod square;
mod support;
mod task;
