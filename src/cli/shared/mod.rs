//! Parts that commands share: the client of the server, input files, output, and how long a command runs.

pub(in crate::cli) mod client;
pub(in crate::cli) mod connect;
pub(in crate::cli) mod csv_files;
pub(in crate::cli) mod database;
#[cfg(test)]
pub(in crate::cli) mod fake;
pub(in crate::cli) mod input_name;
pub(in crate::cli) mod list;
pub(in crate::cli) mod log;
pub(in crate::cli) mod lost;
pub(in crate::cli) mod output;
pub(in crate::cli) mod parse;
pub(in crate::cli) mod pools;
pub(in crate::cli) mod stop;
pub(in crate::cli) mod token;
pub(in crate::cli) mod unnamed;
pub(in crate::cli) mod upload;
pub(in crate::cli) mod view;
