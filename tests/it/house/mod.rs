//! The rules of the source: imports, statements and pages.

mod book;
mod contract;
mod imports;
mod layering;
mod sql_plans;
mod sql_rules;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files of a folder, and of those in it, whose names end so.
fn collect(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, extension, files);
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
}
