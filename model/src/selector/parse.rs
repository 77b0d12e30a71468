//! Parser of selectors: one token of look-ahead, by descent.

use super::{Expr, Fault, MAX_DEPTH, MAX_TEXT, SelectorError, Test};
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A label or a word of the language.
    Word(String),
    Text(String),
    Mark(&'static str),
    End,
}

/// Punctuation, longer marks before their beginnings.
const MARKS: [&str; 10] = ["==", "!=", "&&", "||", "(", ")", "{", "}", ",", "!"];

pub(super) fn parse(text: &str) -> Result<Expr, SelectorError> {
    if text.len() > MAX_TEXT {
        return Err(SelectorError { position: MAX_TEXT, fault: Fault::TooLong });
    }
    if text.trim().is_empty() {
        return Ok(Expr::All);
    }
    let mut parser = Parser { text, at: 0, start: 0, token: Token::End, depth: 0 };
    parser.advance()?;
    let expr = parser.or()?;
    if parser.token == Token::End { Ok(expr) } else { parser.expected("&&, || or the end") }
}

struct Parser<'a> {
    text: &'a str,
    /// Where the text behind the current token starts.
    at: usize,
    /// Where the current token starts.
    start: usize,
    token: Token,
    depth: usize,
}

impl Parser<'_> {
    fn fail<T>(&self, position: usize, fault: Fault) -> Result<T, SelectorError> {
        Err(SelectorError { position, fault })
    }

    fn expected<T>(&self, what: &'static str) -> Result<T, SelectorError> {
        self.fail(self.start, Fault::Expected(what))
    }

    fn advance(&mut self) -> Result<(), SelectorError> {
        let rest = &self.text[self.at..];
        self.start = self.at + (rest.len() - rest.trim_start().len());
        let rest = &self.text[self.start..];
        let (token, length) = self.scan(rest)?;
        self.token = token;
        self.at = self.start + length;
        Ok(())
    }

    fn scan(&self, rest: &str) -> Result<(Token, usize), SelectorError> {
        let Some(first) = rest.chars().next() else { return Ok((Token::End, 0)) };
        if let Some(mark) = MARKS.into_iter().find(|mark| rest.starts_with(mark)) {
            return Ok((Token::Mark(mark), mark.len()));
        }
        if first == '"' || first == '\'' {
            return match rest[1..].find(first) {
                Some(end) => Ok((Token::Text(rest[1..=end].to_owned()), end + 2)),
                None => self.fail(self.start, Fault::OpenString),
            };
        }
        let length = rest.find(|c: char| !is_label(c)).unwrap_or(rest.len());
        match length {
            0 => self.fail(self.start, Fault::Character),
            _ => Ok((Token::Word(rest[..length].to_owned()), length)),
        }
    }

    /// Takes the mark if it is the current token.
    fn take(&mut self, mark: &'static str) -> Result<bool, SelectorError> {
        let found = self.token == Token::Mark(mark);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn need(&mut self, mark: &'static str) -> Result<(), SelectorError> {
        if self.take(mark)? { Ok(()) } else { self.expected(mark) }
    }

    fn or(&mut self) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.and()?];
        while self.take("||")? {
            parts.push(self.and()?);
        }
        Ok(single(parts, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.unary()?];
        while self.take("&&")? {
            parts.push(self.unary()?);
        }
        Ok(single(parts, Expr::And))
    }

    fn unary(&mut self) -> Result<Expr, SelectorError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail(self.start, Fault::TooDeep);
        }
        let expr = if self.take("!")? { Expr::Not(Box::new(self.unary()?)) } else { self.primary()? };
        self.depth -= 1;
        Ok(expr)
    }

    fn primary(&mut self) -> Result<Expr, SelectorError> {
        if self.take("(")? {
            let inner = self.or()?;
            self.need(")")?;
            return Ok(inner);
        }
        let word = self.word("a label, has(), all(), ! or (")?;
        if self.token != Token::Mark("(") {
            return Ok(Expr::Test(word, self.test()?));
        }
        match word.as_str() {
            "all" | "global" => self.arguments(None).map(|_| Expr::All),
            "has" => self.arguments(Some("a label")).map(Expr::Has),
            _ => self.expected("a comparison"),
        }
    }

    /// `()` or `(word)`.
    fn arguments(&mut self, wanted: Option<&'static str>) -> Result<String, SelectorError> {
        self.need("(")?;
        let word = wanted.map_or(Ok(String::new()), |what| self.word(what))?;
        self.need(")")?;
        Ok(word)
    }

    fn word(&mut self, what: &'static str) -> Result<String, SelectorError> {
        let Token::Word(word) = &self.token else { return self.expected(what) };
        let word = word.clone();
        self.advance()?;
        Ok(word)
    }

    fn string(&mut self) -> Result<String, SelectorError> {
        let Token::Text(text) = &self.token else { return self.expected("a string in quotes") };
        let text = text.clone();
        self.advance()?;
        Ok(text)
    }

    fn test(&mut self) -> Result<Test, SelectorError> {
        if self.take("==")? {
            return self.string().map(Test::Equal);
        }
        if self.take("!=")? {
            return self.string().map(Test::Unequal);
        }
        const WHAT: &str = "==, !=, in, not in, contains, starts with or ends with";
        let start = self.start;
        match self.word(WHAT)?.as_str() {
            "in" => self.set().map(Test::In),
            "contains" => self.string().map(Test::Contains),
            "not" => self.second("in").and_then(|()| self.set().map(Test::NotIn)),
            "starts" => self.second("with").and_then(|()| self.string().map(Test::StartsWith)),
            "ends" => self.second("with").and_then(|()| self.string().map(Test::EndsWith)),
            _ => self.fail(start, Fault::Expected(WHAT)),
        }
    }

    /// The second word of an operator of two.
    fn second(&mut self, wanted: &'static str) -> Result<(), SelectorError> {
        let start = self.start;
        if self.word(wanted)? == wanted { Ok(()) } else { self.fail(start, Fault::Expected(wanted)) }
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        self.need("{")?;
        let mut set = BTreeSet::new();
        if self.take("}")? {
            return Ok(set);
        }
        loop {
            set.insert(self.string()?);
            if self.take("}")? {
                return Ok(set);
            }
            self.need(",")?;
        }
    }
}

fn is_label(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_./-".contains(c)
}

fn single(mut parts: Vec<Expr>, join: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    if parts.len() == 1 { parts.remove(0) } else { join(parts) }
}
