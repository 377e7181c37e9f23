//! Lines of a profile's file, for its faults.

/// The first line that names `secret.NAME`, and not `account.secret.NAME` or a longer name.
pub(super) fn line_of_secret(text: &str, name: &str) -> usize {
    let named = format!("secret.{name}");
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let names = |line: &str| {
        line.match_indices(&named).any(|(at, _)| {
            !line[..at].ends_with(is_of_name) && !line[at + named.len()..].starts_with(is_of_name)
        })
    };
    text.lines().position(names).map_or(1, |line| line + 1)
}

/// The line of a key that stands before all tables.
pub(super) fn line_of_key(text: &str, key: &str) -> usize {
    let head = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    let is_it = |line: &str| {
        let after = line.trim_start().strip_prefix(key);
        after.is_some_and(|after| after.trim_start().starts_with('='))
    };
    head.enumerate().find(|(_, line)| is_it(line)).map_or(1, |(line, _)| line + 1)
}
