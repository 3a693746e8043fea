//! The files that `-R` reads: one command a line.

/// The arguments of one line: words between blanks, without quoting, a leading `ipvsadm` left out.
/// `None` for a line that says nothing.
pub fn arguments(line: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
    if words.first().is_some_and(|word| word == "ipvsadm") {
        words.remove(0);
    }
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_words_with_an_optional_leading_ipvsadm() {
        let words = |line| arguments(line).map(|words| words.join("|"));
        assert_eq!(words("-A -t 10.0.0.1:80  -s\trr\n").as_deref(), Some("-A|-t|10.0.0.1:80|-s|rr"));
        assert_eq!(words("ipvsadm -C").as_deref(), Some("-C"));
        assert_eq!(words("\"a b\"").as_deref(), Some("\"a|b\""));
        assert_eq!(words("  \t\n"), None);
        assert_eq!(words("ipvsadm"), None);
    }
}
