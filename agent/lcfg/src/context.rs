//! Context expressions: `install & !net=home`, and the priority they give what they are attached to.

/// Parentheses and signs nested deeper than this are refused.
const MAX_NESTING: usize = 64;

/// The contexts that are active on a node, in the order in which they were set: `install=yes`, `net=home`.
///
/// An atom of an expression counts with the place of its context, from 1; so of two variants of a resource the one
/// goes first whose context stands further down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contexts {
    active: Vec<(String, String)>,
}

impl Contexts {
    /// No context: a node in its ordinary life.
    pub fn none() -> Self {
        Self::default()
    }

    /// What is active while a node is installed: `install=yes`.
    pub fn install() -> Self {
        let mut contexts = Self::none();
        contexts.set("install", "yes");
        contexts
    }

    /// Sets a context; one that is there already keeps its place.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.active.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.active.push((name, value)),
        }
    }

    /// Reads lines `name=value`; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// The first line of another form, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut contexts = Self::none();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let named = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
            match named {
                Some((name, value)) if crate::values::is_name(name) => contexts.set(name, value),
                _ => return Err(format!("{line:?} is not a context; write name=value, such as install=yes")),
            }
        }
        Ok(contexts)
    }

    /// The contexts with their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.active.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The place of a context, from 1, and its value; one that is not set counts as the first.
    fn find(&self, name: &str) -> (i32, Option<&str>) {
        let place = self.active.iter().position(|(known, _)| known == name);
        let count = |place: usize| i32::try_from(place + 1).unwrap_or(i32::MAX);
        place.map_or((1, None), |place| (count(place), Some(self.active[place].1.as_str())))
    }
}

/// The priority of an expression: 0 if it is empty, negative where it does not hold.
pub(crate) fn priority(expression: &str, contexts: &Contexts) -> Result<i32, String> {
    let mut parser = Parser { text: expression, rest: expression.trim_start(), depth: 0, contexts };
    if parser.rest.is_empty() {
        return Ok(0);
    }
    let value = parser.binary(0)?;
    if parser.rest.is_empty() { Ok(value) } else { Err(parser.wrong()) }
}

/// Says what is wrong with an expression.
pub(crate) fn check(expression: &str) -> Result<(), String> {
    priority(expression, &Contexts::none()).map(|_| ())
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
    contexts: &'a Contexts,
}

impl Parser<'_> {
    fn wrong(&self) -> String {
        format!(
            "{:?} is not a context; write an expression such as install or (net=home & !install)",
            self.text
        )
    }

    fn take(&mut self, token: char) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    /// Levels by rising precedence: `|`, `^`, `&`.
    fn binary(&mut self, level: usize) -> Result<i32, String> {
        let Some(operator) = ['|', '^', '&'].get(level).copied() else { return self.term() };
        let mut left = self.binary(level + 1)?;
        while self.take(operator) {
            let right = self.binary(level + 1)?;
            let both_negative = left < 0 && right < 0;
            let both_positive = left >= 0 && right >= 0;
            left = match operator {
                '|' if both_negative => left.min(right),
                '^' if both_positive => -left.max(right),
                '&' if !both_positive => left.min(right),
                _ => left.max(right),
            };
        }
        Ok(left)
    }

    fn term(&mut self) -> Result<i32, String> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(self.wrong());
        }
        let value = if self.take('!') {
            -self.term()?
        } else if self.take('(') {
            let value = self.binary(0)?;
            if !self.take(')') {
                return Err(self.wrong());
            }
            value
        } else {
            self.atom()?
        };
        self.depth -= 1;
        Ok(value)
    }

    fn atom(&mut self) -> Result<i32, String> {
        if !self.rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(self.wrong());
        }
        let (place, value) = self.contexts.find(self.word());
        let unequal = self.rest.starts_with("!=");
        let holds = if unequal || self.rest.starts_with('=') {
            self.rest = self.rest[if unequal { 2 } else { 1 }..].trim_start();
            let wanted = self.value()?;
            value.is_some_and(|value| wanted.fits(value)) != unequal
        } else {
            value.is_some_and(is_on)
        };
        Ok(if holds { place } else { -place })
    }

    fn word(&mut self) -> &str {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    /// A word, or text between quotes in which a doubled quote stands for one.
    fn value(&mut self) -> Result<Wanted, String> {
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            let word = self.word().to_owned();
            return if word.is_empty() { Err(self.wrong()) } else { Ok(Wanted::of_word(word)) };
        };
        let mut text = String::new();
        let mut rest = &self.rest[1..];
        loop {
            let Some((part, after)) = rest.split_once(quote) else { return Err(self.wrong()) };
            text.push_str(part);
            let Some(doubled) = after.strip_prefix(quote) else {
                self.rest = after.trim_start();
                return Ok(Wanted::Text(text));
            };
            text.push(quote);
            rest = doubled;
        }
    }
}

/// What an atom compares with.
enum Wanted {
    Text(String),
    Boolean(bool),
}

impl Wanted {
    fn of_word(word: String) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "yes" | "true" | "on" => Self::Boolean(true),
            "no" | "false" | "off" => Self::Boolean(false),
            _ => Self::Text(word),
        }
    }

    fn fits(&self, value: &str) -> bool {
        match self {
            Self::Text(text) => text == value,
            Self::Boolean(wanted) => is_on(value) == *wanted,
        }
    }
}

/// Whether a context's value counts as yes: anything but nothing and the words for no.
fn is_on(value: &str) -> bool {
    !value.is_empty() && !["no", "false", "off"].iter().any(|no| value.eq_ignore_ascii_case(no))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn priorities_where_no_context_is_set() {
        for (text, wanted) in [
            ("", 0),
            ("install", -1),
            ("!install", 1),
            ("net=home", -1),
            ("net = 'at ''home'' '", -1),
            ("net!=home", 1),
            ("install | !net=home", 1),
            ("install & !net=home", -1),
            ("!a & !b", 1),
            ("!a ^ !b", -1),
            ("a ^ !b", 1),
            ("!(a | b)", 1),
            ("!!a", -1),
        ] {
            assert_eq!(priority(text, &Contexts::none()), Ok(wanted), "{text}");
        }
        for bad in ["a=", "a b", "(a", "a &", "1a", "a='x", "&"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&"!".repeat(100_000)).is_err());
    }

    /// The first five were tried with Edinburgh's own library.
    #[test]
    fn priorities_where_contexts_are_set() {
        let contexts =
            Contexts::parse("install=yes\n\n# where it is\n net = home\nsite=at 'work'\n").unwrap();
        for (text, wanted) in [
            ("install", 1),
            ("!install", -1),
            ("net=home", 2),
            ("net=home & install", 2),
            ("install=no", -1),
            ("install=TRUE", 1),
            ("net", 2),
            ("net!=home", -2),
            ("site='at ''work'''", 3),
            ("unknown", -1),
            ("install ^ net=home", -2),
            ("install | unknown", 1),
            ("!install | !net=home", -2),
        ] {
            assert_eq!(priority(text, &contexts), Ok(wanted), "{text}");
        }
        assert!(Contexts::parse("a b=c").is_err());
        assert!(Contexts::parse("install").unwrap_err().contains("write name=value"));
    }

    /// An expression as a tree, to be valued by the table of the reference alone.
    #[derive(Clone, Debug)]
    enum Model {
        Atom { name: usize, value: Option<(bool, &'static str)> },
        Not(Box<Model>),
        Join(char, Box<Model>, Box<Model>),
    }

    const NAMES: [&str; 4] = ["a", "b", "c", "unset"];

    impl Model {
        fn text(&self) -> String {
            match self {
                Self::Atom { name, value: None } => NAMES[*name].to_owned(),
                Self::Atom { name, value: Some((equal, value)) } => {
                    format!("{}{}={value}", NAMES[*name], if *equal { "" } else { "!" })
                }
                Self::Not(inner) => format!("!({})", inner.text()),
                Self::Join(sign, left, right) => format!("({}) {sign} ({})", left.text(), right.text()),
            }
        }

        /// `values` are those of a, b and c, which are set in this order.
        fn value(&self, values: &[&str; 3]) -> i32 {
            match self {
                Self::Atom { name: 3, value } => {
                    if matches!(value, Some((false, _))) {
                        1
                    } else {
                        -1
                    }
                }
                Self::Atom { name, value } => {
                    let place = i32::try_from(*name).unwrap() + 1;
                    let have = values[*name];
                    let holds = match value {
                        None => have != "no",
                        Some((equal, "yes")) => (have != "no") == *equal,
                        Some((equal, value)) => (have == *value) == *equal,
                    };
                    if holds { place } else { -place }
                }
                Self::Not(inner) => -inner.value(values),
                Self::Join(sign, left, right) => {
                    let (left, right) = (left.value(values), right.value(values));
                    match (sign, left > 0, right > 0) {
                        ('|', false, false) => left.min(right),
                        ('&', true, true) | ('|', _, _) => left.max(right),
                        ('&', _, _) => left.min(right),
                        (_, true, true) => -left.max(right),
                        _ => left.max(right),
                    }
                }
            }
        }
    }

    fn model() -> impl Strategy<Value = Model> {
        let value = prop::option::of((any::<bool>(), prop::sample::select(vec!["yes", "home", "x1"])));
        let atom = (0..NAMES.len(), value).prop_map(|(name, value)| Model::Atom { name, value });
        atom.prop_recursive(4, 24, 2, |inner| {
            let join = (prop::sample::select(vec!['|', '^', '&']), inner.clone(), inner.clone());
            prop_oneof![
                inner.prop_map(|inner| Model::Not(Box::new(inner))),
                join.prop_map(|(sign, left, right)| Model::Join(sign, Box::new(left), Box::new(right))),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_expression_has_the_priority_of_the_table(
            model in model(),
            values in prop::array::uniform3(prop::sample::select(vec!["yes", "no", "home", "x1"])),
        ) {
            let mut contexts = Contexts::none();
            for (name, value) in NAMES.iter().zip(values) {
                contexts.set(*name, value);
            }
            prop_assert_eq!(priority(&model.text(), &contexts), Ok(model.value(&values)), "{}", model.text());
        }
    }
}
