//! The `netns` attribute of a lease: which namespace it was made for.
//!
//! `PATH#INODE`, or `PATH` alone where the writer could not look (decision 25). A path may be used
//! again by another namespace; the inode, within one boot, tells them apart.

/// The attribute's text.
pub fn render(path: &str, inode: u64) -> String {
    format!("{path}#{inode}")
}

/// Path and, where there is one, inode. What is not a number after the last `#` belongs to the path.
pub fn parse(text: &str) -> (&str, Option<u64>) {
    match text.rsplit_once('#').map(|(path, inode)| (path, inode.parse())) {
        Some((path, Ok(inode))) => (path, Some(inode)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_parsed() {
        assert_eq!(parse(&render("/run/netns/a#b", 4026)), ("/run/netns/a#b", Some(4026)));
        assert_eq!(parse("/run/netns/a"), ("/run/netns/a", None));
        assert_eq!(parse("/run/netns/a#b"), ("/run/netns/a#b", None));
    }
}
