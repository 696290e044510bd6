//! The expressions of `#if`: integers, `defined`, and the operators of C.

use super::macros::{Macros, identifier};

/// Parentheses and signs nested deeper than this are refused.
const MAX_NESTING: usize = 64;

/// Whether the expression is true; a word that is no macro counts as 0.
pub(crate) fn is_true(macros: &mut Macros, text: &str) -> Result<bool, String> {
    let text = replace_defined(macros, text)?;
    let text = macros.expand(&text)?;
    let mut parser = Parser { rest: text.trim_start(), depth: 0 };
    let value = parser.binary(0)?;
    if parser.rest.is_empty() {
        Ok(value != 0)
    } else {
        Err(format!(
            "{:?} does not belong into the condition; write integers, defined(NAME) and operators",
            parser.rest
        ))
    }
}

/// Replaces `defined NAME` and `defined(NAME)` before macros are.
fn replace_defined(macros: &Macros, text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word = &rest[..identifier(rest)];
        if word == "defined" {
            let after = rest[word.len()..].trim_start();
            let inner = after.strip_prefix('(').map_or(after, str::trim_start);
            let name = &inner[..identifier(inner)];
            let tail = &inner[name.len()..];
            let tail = if after.starts_with('(') { tail.trim_start().strip_prefix(')') } else { Some(tail) };
            let (false, Some(tail)) = (name.is_empty(), tail) else {
                return Err("defined needs a name; write defined(NAME)".to_owned());
            };
            out.push(if macros.is_defined(name) { '1' } else { '0' });
            rest = tail;
        } else {
            let len = word.len().max(c.len_utf8());
            out.push_str(&rest[..len]);
            rest = &rest[len..];
        }
    }
    Ok(out)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

/// Binary operators by rising precedence; longer ones first where one starts another.
const LEVELS: [&[&str]; 6] =
    [&["||"], &["&&"], &["==", "!="], &["<=", ">=", "<", ">"], &["+", "-"], &["*", "/", "%"]];

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    fn binary(&mut self, level: usize) -> Result<i64, String> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.take(operator)) {
            let right = self.binary(level + 1)?;
            left = apply(operator, left, right)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<i64, String> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err("the condition is nested too deeply; make it simpler".to_owned());
        }
        let value = if self.take("!") {
            i64::from(self.unary()? == 0)
        } else if self.take("-") {
            self.unary()?.wrapping_neg()
        } else if self.take("+") {
            self.unary()?
        } else if self.take("(") {
            let value = self.binary(0)?;
            if !self.take(")") {
                return Err("the condition has a '(' without its ')'; close it".to_owned());
            }
            value
        } else {
            self.primary()?
        };
        self.depth -= 1;
        Ok(value)
    }

    fn primary(&mut self) -> Result<i64, String> {
        let word = identifier(self.rest);
        if word > 0 {
            self.rest = self.rest[word..].trim_start();
            return Ok(0);
        }
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let plain = digits.trim_end_matches(['L', 'l', 'U', 'u']);
        let hex = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X"));
        let value = match hex {
            Some(hex) => i64::from_str_radix(hex, 16),
            None if plain.len() > 1 && plain.starts_with('0') => i64::from_str_radix(plain, 8),
            None => plain.parse(),
        };
        let value = value.map_err(|_| {
            let found = if digits.is_empty() { self.rest } else { digits };
            format!("{found:?} is not an integer; write a condition of integers and defined(NAME)")
        })?;
        self.rest = rest.trim_start();
        Ok(value)
    }
}

fn apply(operator: &str, left: i64, right: i64) -> Result<i64, String> {
    Ok(match operator {
        "||" => i64::from(left != 0 || right != 0),
        "&&" => i64::from(left != 0 && right != 0),
        "==" => i64::from(left == right),
        "!=" => i64::from(left != right),
        "<=" => i64::from(left <= right),
        ">=" => i64::from(left >= right),
        "<" => i64::from(left < right),
        ">" => i64::from(left > right),
        "+" => left.wrapping_add(right),
        "-" => left.wrapping_sub(right),
        "*" => left.wrapping_mul(right),
        _ if right == 0 => return Err("the condition divides by zero; correct it".to_owned()),
        "/" => left.wrapping_div(right),
        _ => left.wrapping_rem(right),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions() {
        let mut macros = Macros::new(0);
        macros.define("SIX 6").unwrap();
        macros.define("ADD(a,b) (a+b)").unwrap();
        for (text, wanted) in [
            ("1", true),
            ("0", false),
            ("UNKNOWN", false),
            ("!UNKNOWN", true),
            ("defined SIX && (1+1==2)", true),
            ("defined(NOT) || SIX > 5", true),
            ("ADD(1,SIX) == 7", true),
            ("2 + 3 * 4 == 14 && 7 % 4 == 3 && 0x10 == 16 && 010 == 8", true),
            ("-1 < 0", true),
            ("!(1 && 0) != 0", true),
            ("10L >= 10", true),
        ] {
            assert_eq!(is_true(&mut macros, text), Ok(wanted), "{text}");
        }
        for bad in ["", "1 +", "(1", "1 2", "defined", "1/0", "\"a\"", "09", "1 ? 2 : 3"] {
            assert!(is_true(&mut macros, bad).is_err(), "{bad}");
        }
        assert!(is_true(&mut macros, &"(".repeat(100_000)).is_err());
    }
}
