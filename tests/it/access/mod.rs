//! Who calls: what belongs to whom, and what is recorded of what people do.

mod audit_trail;
mod crashes;
mod principals;
