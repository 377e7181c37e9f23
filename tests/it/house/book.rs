//! The pages: their links lead somewhere, and what the program has is described in the book.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use clap::{Arg, Command, CommandFactory as _};

use super::collect;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The pages of the book, without its summary.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    collect(&root().join("docs"), "md", &mut pages);
    pages.retain(|page| !page.ends_with("SUMMARY.md"));
    assert!(pages.len() > 20);
    pages
}

/// All of the book as one text.
fn book() -> String {
    pages().iter().map(|page| fs::read_to_string(page).unwrap()).collect()
}

/// The lines of a page that are not in a block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// A line without what stands in `code`.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The targets of a page's links and images, but for those with a scheme.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        let line = without_code(line);
        for (start, _) in line.match_indices("](") {
            let target = &line[start + 2..];
            let target = &target[..target.find(')').expect("a link ends")];
            if !target.contains("://") {
                links.push(target.to_owned());
            }
        }
    }
    links
}

/// The anchor of a heading, as mdBook and code hosts make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings.map(|heading| anchor(heading.trim_start_matches('#'))).collect()
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => assert!(normal.pop(), "{} leaves the root", path.display()),
            other => normal.push(other),
        }
    }
    normal
}

/// The file and the anchor that a link of a page leads to.
fn target(page: &Path, link: &str) -> (PathBuf, Option<String>) {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(f, a)| (f, Some(a)));
    let file =
        if file.is_empty() { page.to_owned() } else { normal(&page.parent().unwrap().join(file)) };
    (file, anchor.map(str::to_owned))
}

/// The section of a page under a heading, up to the next heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.match_indices(heading).find(|(start, _)| {
        let before = page[..*start].rsplit('\n').next().unwrap();
        let after = page[start + heading.len()..].chars().next();
        before.len() > 1 && before.trim_end().chars().all(|c| c == '#') && after == Some('\n')
    });
    let (start, _) = start.unwrap_or_else(|| panic!("no page has a heading {heading}"));
    let section = &page[start..];
    section.find("\n#").map_or(section, |end| &section[..end])
}

/// Whether a text names an option: `--name`, `--name VALUE`, or `command --name VALUE`.
fn names_option(text: &str, name: &str) -> bool {
    let option = format!("--{name}");
    text.match_indices(&option).any(|(start, _)| {
        text[..start].ends_with(['`', ' ']) && text[start + option.len()..].starts_with(['`', ' '])
    })
}

/// The options and arguments of a command that are in its help.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    let shown = |argument: &&Arg| {
        !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str())
    };
    command.get_arguments().filter(shown)
}

/// Each command that does something, with its full name.
fn commands() -> Vec<(String, Command)> {
    fn add(command: &Command, name: &str, commands: &mut Vec<(String, Command)>) {
        for inner in command.get_subcommands() {
            add(inner, &format!("{name} {}", inner.get_name()), commands);
        }
        if !command.has_subcommands() {
            commands.push((name.to_owned(), command.clone()));
        }
    }
    let mut commands = Vec::new();
    add(&holdfast::cli::Cli::command(), "holdfast", &mut commands);
    assert!(commands.len() > 20);
    commands
}

/// The text literals of some code that consist of such characters alone.
fn literals(code: &str, allowed: impl Fn(char) -> bool) -> BTreeSet<String> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let texts = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    texts.filter(|text| text.len() > 3 && text.chars().all(&allowed)).map(str::to_owned).collect()
}

/// Code without its unit tests.
fn shipped(code: &str) -> &str {
    code.split("#[cfg(test)]").next().unwrap()
}

/// Fails with all that is missing at once.
fn assert_none_missing(missing: &[String]) {
    assert!(missing.is_empty(), "missing:\n{}", missing.join("\n"));
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut pages = pages();
    pages.push(root().join("docs/SUMMARY.md"));
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        pages.extend(Some(root().join(name)).filter(|page| page.exists()));
    }
    let mut broken = Vec::new();
    let mut followed = 0;
    for page in pages {
        for link in links(&fs::read_to_string(&page).unwrap()) {
            let (file, anchor) = target(&page, &link);
            let leads = file.exists()
                && anchor.is_none_or(|anchor| {
                    anchors(&fs::read_to_string(&file).unwrap()).contains(&anchor)
                });
            followed += 1;
            if !leads {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(followed > 100);
    assert_none_missing(&broken);
}

#[test]
fn pages_of_the_book_link_to_nothing_outside_it() {
    for page in pages() {
        for link in links(&fs::read_to_string(&page).unwrap()) {
            let (file, _) = target(&page, &link);
            assert!(file.starts_with(root().join("docs")), "{}: {link}", page.display());
        }
    }
}

#[test]
fn the_summary_has_every_page_of_the_book() {
    let summary = root().join("docs/SUMMARY.md");
    let listed = links(&read("docs/SUMMARY.md"));
    let listed: BTreeSet<_> = listed.iter().map(|link| target(&summary, link).0).collect();
    let missing: Vec<_> = pages().into_iter().filter(|page| !listed.contains(page)).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md lacks {missing:?}");
}

#[test]
fn the_readme_and_the_architecture_have_at_most_150_lines() {
    for page in ["README.md", "ARCHITECTURE.md"] {
        let lines = read(page).lines().count();
        assert!(lines <= 150, "{page} has {lines} lines");
    }
}

#[test]
fn every_command_has_a_section_with_its_arguments() {
    let page = read("docs/cli.md");
    let settings = read("docs/configuration.md");
    let common = section(&page, "What all commands have in common");
    let mut missing = Vec::new();
    for (name, command) in commands() {
        let section = section(&page, &name);
        for argument in arguments(&command) {
            let id = argument.get_id();
            let described = match argument.get_long() {
                Some(long) => [section, common].iter().any(|text| names_option(text, long)),
                None => section.contains(&id.as_str().to_uppercase()),
            };
            let setting = argument.get_long().is_some_and(|long| names_option(&settings, long));
            let described = described || (name == "holdfast serve" && setting);
            if !described {
                missing.push(format!("{name}: {id}"));
            }
        }
    }
    assert_none_missing(&missing);
}

#[test]
fn every_setting_has_a_row_with_its_variable_and_default() {
    let book = book();
    let rows: Vec<_> = book.lines().filter(|line| line.starts_with('|')).collect();
    let mut missing = Vec::new();
    let mut add = |command: &str, argument: &Arg| {
        let (Some(long), Some(variable)) = (argument.get_long(), argument.get_env()) else {
            return;
        };
        let variable = format!("`{}`", variable.to_str().unwrap());
        let defaults: Vec<_> =
            argument.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
        let described = rows.iter().any(|row| {
            names_option(row, long)
                && row.contains(&variable)
                && defaults.iter().all(|default| row.contains(&format!("`{default}`")))
        });
        if !described {
            missing.push(format!("{command}: --{long}, {variable}, {defaults:?}"));
        }
    };
    for (name, command) in commands() {
        arguments(&command).for_each(|argument| add(&name, argument));
    }
    arguments(&holdfast::cli::Cli::command()).for_each(|argument| add("holdfast", argument));
    assert_none_missing(&missing);
}

#[test]
fn every_default_of_an_option_stands_in_its_row() {
    let page = read("docs/cli.md");
    let mut missing = Vec::new();
    for (name, command) in commands() {
        let section = section(&page, &name);
        for argument in arguments(&command).filter(|argument| argument.get_env().is_none()) {
            let Some(long) = argument.get_long().filter(|_| argument.get_action().takes_values())
            else {
                continue;
            };
            let defaults = argument.get_default_values().iter().filter(|text| !text.is_empty());
            for default in defaults.map(|text| text.to_str().unwrap()) {
                let told = [format!("default {default}"), format!("default `{default}`")];
                let row = section.lines().find(|line| {
                    names_option(line, long) && told.iter().any(|told| line.contains(told))
                });
                if row.is_none() {
                    missing.push(format!("{name}: --{long} {default}"));
                }
            }
        }
    }
    assert_none_missing(&missing);
}

#[test]
fn every_error_reason_has_a_row() {
    let status = read("src/rpc/status.rs");
    let reasons = literals(shipped(&status), |c| c.is_ascii_uppercase() || c == '_');
    assert!(reasons.contains("LEASE_LOST") && reasons.len() > 20);
    assert_rows("docs/errors.md", "Error reasons", &reasons);
}

#[test]
fn every_failure_reason_has_a_row() {
    use holdfast::domain::redemption::reason;
    let page = read("docs/errors.md");
    let source = read("src/domain/redemption.rs");
    let (_, ours) = source.split_once("pub mod reason {").expect("the reasons have a module");
    let (ours, _) = ours.split_once("\n}").expect("it ends");
    let reasons = literals(ours, |c| c.is_ascii_uppercase() || c == '_');
    assert!(reasons.contains(reason::UNRESOLVED) && reasons.len() > 5);
    let section = section(&page, "Failure reasons");
    let missing = reasons.into_iter().filter(|reason| !section.contains(&format!("`{reason}`")));
    assert_none_missing(&missing.collect::<Vec<_>>());
}

#[test]
fn every_metric_has_a_row() {
    let mut files = Vec::new();
    collect(&root().join("src"), "rs", &mut files);
    let metrics: BTreeSet<_> = files
        .iter()
        .flat_map(|file| {
            let code = fs::read_to_string(file).unwrap();
            literals(shipped(&code), |c| c.is_ascii_lowercase() || c == '_')
        })
        .filter(|text| text.starts_with("holdfast_"))
        .collect();
    assert!(metrics.contains("holdfast_call_seconds") && metrics.len() > 15);
    assert_rows("docs/metrics.md", "Metrics", &metrics);
}

/// Each name begins a `code` in a row of the section's table.
fn assert_rows(page: &str, heading: &str, names: &BTreeSet<String>) {
    let text = read(page);
    let section = section(&text, heading);
    let firsts: String = section
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|row| row.split('|').nth(1).unwrap())
        .collect();
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !["`", "{"].iter().any(|end| firsts.contains(&format!("`{name}{end}"))))
        .map(|name| format!("{page}: {name}"))
        .collect();
    assert_none_missing(&missing);
}

#[test]
fn decision_records_are_numbered_and_stand_in_their_index() {
    let folder = root().join("docs/adr");
    let index = read("docs/adr/README.md");
    let mut records: Vec<_> = pages()
        .into_iter()
        .filter(|page| page.starts_with(&folder) && !page.ends_with("README.md"))
        .collect();
    records.sort();
    for (position, record) in records.iter().enumerate() {
        let file = record.file_name().unwrap().to_str().unwrap();
        let number = format!("{:04}", position + 1);
        assert!(file.starts_with(&format!("{number}-")), "{file} is not number {number}");
        let text = fs::read_to_string(record).unwrap();
        let line = |start: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(start));
            found.unwrap_or_else(|| panic!("{file} has no line that begins with {start}"))
        };
        let (title, status, date) = (line("# "), line("Status: "), line("Date: "));
        let row = format!("| [{number}]({file}) | {title} | {status} | {date} |");
        assert!(index.contains(&row), "docs/adr/README.md lacks {row}");
        let known = ["accepted", "superseded by ", "closed ("];
        assert!(known.iter().any(|known| status.starts_with(known)), "{file}: {status}");
    }
}

#[test]
fn links_in_code_are_not_links() {
    let page = "[a](b.md#c) `[d](e)` ![f](g.svg)\n```\n[h](i)\n```\n[j](https://k)\n";
    assert_eq!(links(page), ["b.md#c", "g.svg"]);
}

#[test]
fn an_anchor_is_a_heading_in_lower_case_without_signs() {
    assert_eq!(anchor(" `holdfast pool create`: what's new"), "holdfast-pool-create-whats-new");
}
