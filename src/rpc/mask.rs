//! Field masks of updates: which fields are to be changed.

use super::convert::Fields;

/// The fields that an update names. None named: whichever are set.
#[derive(Debug)]
pub(super) struct Mask {
    paths: Vec<String>,
}

impl Mask {
    /// Reads a mask; every path must be one of `changeable`.
    pub(super) fn read(
        fields: &mut Fields,
        mask: Option<prost_types::FieldMask>,
        changeable: &[&str],
    ) -> Self {
        let paths = mask.unwrap_or_default().paths;
        if paths.iter().any(|path| !changeable.contains(&path.as_str())) {
            fields.refuse("update_mask", format!("may name {}", changeable.join(", ")));
        }
        Self { paths }
    }

    /// Whether the mask names the field: it is then changed even to its empty value.
    pub(super) fn names(&self, field: &str) -> bool {
        self.paths.iter().any(|path| path == field)
    }

    /// A flag's new value, if it is changed: one that the mask names and that is not set is false.
    pub(super) fn flag(&self, field: &str, given: Option<bool>) -> Option<bool> {
        if self.names(field) {
            Some(given.unwrap_or(false))
        } else {
            given.filter(|_| self.allows(field))
        }
    }

    /// Whether the field may be changed where it is set.
    pub(super) fn allows(&self, field: &str) -> bool {
        self.paths.is_empty() || self.names(field)
    }
}
