//! Names of a run as numbers. Knows nothing of what they name.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A name of a run (chat id, message id, user id), by its index among all names.
pub type Name = u32;

/// Chat, message and user ids by number: 200,000 records of a run name each of them many times.
#[derive(Debug, Default)]
pub struct Names(Mutex<ByText>);

#[derive(Debug, Default)]
struct ByText {
    names: HashMap<Arc<str>, Name>,
    texts: Vec<Arc<str>>,
}

impl Names {
    /// The number of a text, the same each time.
    pub fn of(&self, text: &str) -> Name {
        let ByText { names, texts } = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(text) {
            return *name;
        }
        let (name, text) = (texts.len() as Name, Arc::<str>::from(text));
        texts.push(text.clone());
        names.insert(text, name);
        name
    }

    /// The text of each name.
    #[must_use]
    pub fn texts(&self) -> Vec<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).texts.clone()
    }
}
