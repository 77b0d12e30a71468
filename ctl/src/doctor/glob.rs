//! Shell patterns as network managers use them for interface names: `*`, `?` and `[...]`.

/// Whether `name` matches `pattern`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    at(&pattern, &name)
}

/// Names have at most 15 characters, so that trying every split is cheap.
fn at(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=name.len()).any(|skip| at(rest, &name[skip..])),
        (['[', ..], [c, tail @ ..]) => match class(pattern, *c) {
            Some((hit, rest)) => hit && at(rest, tail),
            None => false,
        },
        (['?', rest @ ..], [_, tail @ ..]) => at(rest, tail),
        ([p, rest @ ..], [c, tail @ ..]) => p == c && at(rest, tail),
        _ => false,
    }
}

/// Reads `[a-z]`: whether it holds the character, and what follows it.
fn class(pattern: &[char], c: char) -> Option<(bool, &[char])> {
    let end = pattern.iter().skip(2).position(|p| *p == ']')? + 2;
    let (negated, items) = match &pattern[1..end] {
        ['!' | '^', items @ ..] => (true, items),
        items => (false, items),
    };
    let ranged = items.windows(3).any(|w| w[1] == '-' && (w[0]..=w[2]).contains(&c));
    Some(((ranged || items.contains(&c)) != negated, &pattern[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_a_shell_would() {
        let cases = [
            ("*", "cali0", true),
            ("cali*", "cali0", true),
            ("ca?i0", "cali0", true),
            ("[a-d]ali*", "cali0", true),
            ("[!e]*", "cali0", true),
            ("en*", "cali0", false),
            ("eth0", "cali0", false),
            ("[e", "cali0", false),
            ("cali", "cali0", false),
            ("*0", "cali0", true),
        ];
        for (pattern, name, wanted) in cases {
            assert_eq!(matches(pattern, name), wanted, "{pattern}");
        }
    }
}
