//! `BatchRedeem`: its items, batches that are opened again, and servers and clients that end meanwhile.

mod attempts;
mod items;
mod reopened;
mod survives;
