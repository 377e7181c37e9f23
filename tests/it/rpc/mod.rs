//! The API's messages: bad requests, errors on the wire, and pages of lists.

mod error_blocks;
mod filters;
mod input;
mod input_raw;
mod pages;
