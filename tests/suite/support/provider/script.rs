//! How to answer a request: with an answer the test has written, or with the faithful one, and then with edits, in the
//! order in which they were added.

use std::sync::Arc;

use super::{answer::Answer, openai::Faithful, record::Received};

/// How to answer a request, once it is there.
#[derive(Clone)]
pub struct Script {
    base: Base,
    edits: Vec<Edit>,
    guard: Option<Guard>,
}

/// What to answer instead, if the request deserves it.
type Guard = Arc<dyn Fn(&Received) -> Option<Script> + Send + Sync>;

type Edit = Arc<dyn Fn(Answer) -> Answer + Send + Sync>;

#[derive(Clone)]
enum Base {
    Faithful,
    Written(Arc<dyn Fn(&Received) -> Answer + Send + Sync>),
}

impl Script {
    /// What the provider would answer anyway: the thing to edit.
    pub fn faithful() -> Self {
        Self {
            base: Base::Faithful,
            edits: Vec::new(),
            guard: None,
        }
    }

    /// An answer that depends on the request.
    pub fn written(write: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            base: Base::Written(Arc::new(write)),
            edits: Vec::new(),
            guard: None,
        }
    }

    /// Another answer for requests that deserve it.
    pub fn unless(mut self, guard: impl Fn(&Received) -> Option<Self> + Send + Sync + 'static) -> Self {
        self.guard = Some(Arc::new(guard));
        self
    }

    /// Adds an edit after those already there.
    pub fn edited(mut self, edit: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Self {
        self.edits.push(Arc::new(edit));
        self
    }

    pub(super) fn answer(&self, received: &Received, faithful: &Faithful) -> Answer {
        if let Some(instead) = self.guard.as_ref().and_then(|guard| guard(received)) {
            return instead.answer(received, faithful);
        }
        let answer = match &self.base {
            Base::Faithful => faithful.answer(received),
            Base::Written(write) => write(received),
        };
        self.edits.iter().fold(answer, |answer, edit| edit(answer))
    }
}

impl From<Answer> for Script {
    fn from(answer: Answer) -> Self {
        Self::written(move |_| answer.clone())
    }
}
