//! TOML with its lines: every fault names one, and a key that nobody asked for is a fault.

use std::{cell::RefCell, collections::BTreeSet, fmt, ops::Range, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What is wrong with a profile, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The line of the file, from 1.
    pub line: usize,
    /// What is wrong, for a person.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// The faults of a file, as they are found.
pub(super) struct Faults {
    /// Where its lines end.
    ends: Vec<usize>,
    found: RefCell<BTreeSet<Fault>>,
    /// What can be read and contradicts itself: of a file that was applied before this was refused, it is left as it is.
    contradictions: RefCell<BTreeSet<Fault>>,
}

impl Faults {
    pub(super) fn new(text: &str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at).collect();
        Self { ends, found: RefCell::default(), contradictions: RefCell::default() }
    }

    /// Notes a fault at a place in the text.
    pub(super) fn add(&self, at: &Range<usize>, message: impl Into<String>) {
        self.add_at_line(self.line(at), message);
    }

    pub(super) fn add_at_line(&self, line: usize, message: impl Into<String>) {
        // Keys may have control characters; a fault is one line.
        let message = message.into().replace(char::is_control, "\u{fffd}");
        self.found.borrow_mut().insert(Fault { line, message });
    }

    pub(super) fn line(&self, at: &Range<usize>) -> usize {
        1 + self.ends.partition_point(|end| *end < at.start)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.found.borrow().len()
    }

    /// All that were found, in the order of the file; contradictions where the file is new.
    pub(super) fn into_vec(self, is_new: bool) -> Vec<Fault> {
        let mut found = self.found.into_inner();
        if is_new {
            found.extend(self.contradictions.into_inner());
        }
        found.into_iter().collect()
    }
}

/// A table of the file.
pub(super) struct Table<'a> {
    pub(super) faults: &'a Faults,
    /// As people write it: `op.send`. Empty for the file itself.
    pub(super) name: String,
    pub(super) at: Range<usize>,
    map: &'a DeTable<'a>,
    asked: RefCell<BTreeSet<&'a str>>,
}

/// A value of the file, under its key.
#[derive(Clone)]
pub(super) struct Value<'a> {
    faults: &'a Faults,
    pub(super) name: String,
    pub(super) at: Range<usize>,
    node: &'a DeValue<'a>,
}

impl<'a> Table<'a> {
    pub(super) fn root(faults: &'a Faults, map: &'a DeTable<'a>) -> Self {
        Self { faults, name: String::new(), at: 0..0, map, asked: RefCell::default() }
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Value<'a>> {
        let (key, node) = self.map.get_key_value(key)?;
        self.asked.borrow_mut().insert(key.get_ref());
        Some(self.value(key, node))
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, key: &str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            let at = if self.name.is_empty() { String::new() } else { format!("{}: ", self.name) };
            self.fault(format!("{at}{key} is missing"));
        }
        value
    }

    /// Every key with its value, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let entries = self.map.iter().map(|(key, node)| {
            self.asked.borrow_mut().insert(key.get_ref());
            (key.get_ref().as_ref(), self.value(key, node))
        });
        entries.collect()
    }

    fn value(
        &self,
        key: &'a Spanned<std::borrow::Cow<'a, str>>,
        node: &'a Spanned<DeValue<'a>>,
    ) -> Value<'a> {
        let name = if self.name.is_empty() {
            key.get_ref().to_string()
        } else {
            format!("{}.{}", self.name, key.get_ref())
        };
        Value { faults: self.faults, name, at: key.span(), node: node.get_ref() }
    }

    pub(super) fn fault(&self, message: impl Into<String>) {
        self.faults.add(&self.at, message);
    }

    /// Faults every key that was not asked for.
    pub(super) fn finish(&self) {
        for (key, _) in self.map {
            if !self.asked.borrow().contains(key.get_ref().as_ref()) {
                let within = match &*self.name {
                    "" => String::new(),
                    name => format!(" in {name}"),
                };
                self.faults.add(&key.span(), format!("unknown key {}{within}", key.get_ref()));
            }
        }
    }
}

impl<'a> Value<'a> {
    pub(super) fn fault(&self, message: impl fmt::Display) {
        self.faults.add(&self.at, format!("{} {message}", self.name));
    }

    /// Faults a value that contradicts another one, in a new file.
    pub(super) fn contradicts(&self, message: &str) {
        let line = self.faults.line(&self.at);
        let message = format!("{} {message}", self.name);
        self.faults.contradictions.borrow_mut().insert(Fault { line, message });
    }

    fn none<T>(&self, message: impl fmt::Display) -> Option<T> {
        self.fault(message);
        None
    }

    pub(super) fn line(&self) -> usize {
        self.faults.line(&self.at)
    }

    pub(super) fn node(&self) -> &'a DeValue<'a> {
        self.node
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.node, DeValue::Table(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node, DeValue::Array(_))
    }

    /// A text.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.node {
            DeValue::String(text) => Some(text),
            _ => self.none("must be a text"),
        }
    }

    /// A text that is not empty.
    pub(super) fn filled(&self) -> Option<&'a str> {
        match self.text()? {
            "" => self.none("must not be empty"),
            text => Some(text),
        }
    }

    /// A whole number in these bounds.
    pub(super) fn whole(&self, least: i64, most: i64) -> Option<i64> {
        let number = match self.node {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Some(number),
            None => self.none(format!("must be a whole number from {least} to {most}")),
        }
    }

    pub(super) fn truth(&self) -> Option<bool> {
        match self.node {
            DeValue::Boolean(truth) => Some(*truth),
            _ => self.none("must be true or false"),
        }
    }

    /// A duration, such as `500ms`, `30s` or `2m`: longer than none, at most a year.
    pub(super) fn duration(&self) -> Option<Duration> {
        const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
        match humantime::parse_duration(self.text()?) {
            Ok(duration) if duration > Duration::ZERO && duration <= YEAR => Some(duration),
            _ => self.none("must be a duration, such as \"500ms\", \"30s\" or \"24h\""),
        }
    }

    /// One of these words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.fault(format!("must be one of {}", words.join(", ")));
        }
        found.map(|(_, meaning)| *meaning)
    }

    pub(super) fn table(&self) -> Option<Table<'a>> {
        match self.node {
            DeValue::Table(map) => Some(Table {
                faults: self.faults,
                name: self.name.clone(),
                at: self.at.clone(),
                map,
                asked: RefCell::default(),
            }),
            _ => self.none("must be a table"),
        }
    }

    /// The values of a list, each on its own line.
    pub(super) fn list(&self) -> Option<Vec<Self>> {
        let DeValue::Array(array) = self.node else { return self.none("must be a list") };
        let values = array.iter().map(|node| Value {
            faults: self.faults,
            name: self.name.clone(),
            at: node.span(),
            node: node.get_ref(),
        });
        Some(values.collect())
    }

    /// The values of a list, or the one value that is none.
    pub(super) fn one_or_list(&self) -> Vec<Self> {
        if self.is_list() { self.list().unwrap_or_default() } else { vec![self.clone()] }
    }
}
