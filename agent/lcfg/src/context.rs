//! Context expressions: `install & !net=home`, and the priority they give what they are attached to.

/// Parentheses and signs nested deeper than this are refused.
const MAX_NESTING: usize = 64;

/// The priority of an expression where no context is set: 0 if empty, negative where it does not hold.
///
/// Without a context set every atom counts -1, as for a context the client does not know.
pub(crate) fn priority(expression: &str) -> Result<i32, String> {
    let mut parser = Parser { text: expression, rest: expression.trim_start(), depth: 0 };
    if parser.rest.is_empty() {
        return Ok(0);
    }
    let value = parser.binary(0)?;
    if parser.rest.is_empty() { Ok(value) } else { Err(parser.wrong()) }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
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
        self.word();
        let unequal = self.rest.starts_with("!=");
        if !unequal && !self.rest.starts_with('=') {
            return Ok(-1);
        }
        self.rest = self.rest[if unequal { 2 } else { 1 }..].trim_start();
        self.value()?;
        Ok(if unequal { 1 } else { -1 })
    }

    fn word(&mut self) -> bool {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        self.rest = self.rest[end..].trim_start();
        end > 0
    }

    /// A word, or text between quotes in which a doubled quote stands for one.
    fn value(&mut self) -> Result<(), String> {
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            return if self.word() { Ok(()) } else { Err(self.wrong()) };
        };
        let mut rest = &self.rest[1..];
        loop {
            let Some((_, after)) = rest.split_once(quote) else { return Err(self.wrong()) };
            let Some(doubled) = after.strip_prefix(quote) else {
                self.rest = after.trim_start();
                return Ok(());
            };
            rest = doubled;
        }
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(priority(text), Ok(wanted), "{text}");
        }
        for bad in ["a=", "a b", "(a", "a &", "1a", "a='x", "&"] {
            assert!(priority(bad).is_err(), "{bad}");
        }
        assert!(priority(&"!".repeat(100_000)).is_err());
    }
}
