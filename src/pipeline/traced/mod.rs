//! What spans say of a request and of its answer beyond the record that every request has. It is put together for traces
//! that are recorded, and for no other request.

mod asked;
mod signs;

pub(super) use asked::Asked;
pub(super) use signs::Signs;

/// What is known of a request so far that is recorded.
#[derive(Default, Debug)]
pub(super) struct Traced {
    /// What it asks for.
    pub asked: Asked,
    /// What the answer says about itself.
    pub signs: Signs,
}
