//! Who types: one person at a time, of all who look at a console.

/// What somebody wants of the keyboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Only looks.
    Never,
    /// Has it with the first key, if nobody else has.
    #[default]
    Free,
    /// Has it at once, whoever had it.
    Take,
}

/// The keyboard of one console.
#[derive(Debug, Default)]
pub struct Keyboard {
    holder: Option<(u64, String)>,
}

impl Keyboard {
    /// Gives it to somebody; returns who loses it.
    pub fn take(&mut self, id: u64, by: &str) -> Option<(u64, String)> {
        self.holder.replace((id, by.to_owned())).filter(|(had, _)| *had != id)
    }

    /// Whether a key of somebody counts; the first to type has the keyboard from then on.
    ///
    /// # Errors
    /// The name of whoever has it.
    pub fn typed(&mut self, id: u64, by: &str) -> Result<(), String> {
        match &self.holder {
            Some((has, name)) if *has != id => Err(name.clone()),
            _ => {
                self.holder = Some((id, by.to_owned()));
                Ok(())
            }
        }
    }

    /// Who has it, if that is another one.
    pub fn other_than(&self, id: u64) -> Option<&str> {
        self.holder.as_ref().filter(|(has, _)| *has != id).map(|(_, name)| name.as_str())
    }

    /// Somebody has gone.
    pub fn leave(&mut self, id: u64) {
        self.holder.take_if(|(has, _)| *has == id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_types_at_a_time() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.other_than(1), None);
        assert_eq!(keyboard.typed(1, "ann"), Ok(()));
        assert_eq!(keyboard.typed(2, "bob"), Err("ann".to_owned()));
        assert_eq!(keyboard.typed(1, "ann"), Ok(()));
        assert_eq!(keyboard.take(2, "bob"), Some((1, "ann".to_owned())));
        assert_eq!(keyboard.take(2, "bob"), None);
        assert_eq!(keyboard.other_than(1), Some("bob"));
        keyboard.leave(1);
        assert_eq!(keyboard.typed(1, "ann"), Err("bob".to_owned()));
        keyboard.leave(2);
        assert_eq!(keyboard.typed(1, "ann"), Ok(()));
    }
}
