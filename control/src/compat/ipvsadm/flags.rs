//! The flags of schedulers: three bits that `sh` and `mh` give names of their own.

/// All names that `-b` takes, with the scheduler they belong to and the bit they set.
const NAMES: [(&str, Option<&str>, u8); 7] = [
    ("sh-fallback", Some("sh"), 0),
    ("sh-port", Some("sh"), 1),
    ("mh-fallback", Some("mh"), 0),
    ("mh-port", Some("mh"), 1),
    ("flag-1", None, 0),
    ("flag-2", None, 1),
    ("flag-3", None, 2),
];

/// Why the argument of `-b` is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FlagError {
    /// The flag belongs to another scheduler.
    Incompatible(String),
    /// There is no such flag.
    Invalid(String),
}

/// The flags of a comma-separated list, checked against the scheduler, each once, by the name that the scheduler
/// has for it.
pub(super) fn parse(scheduler: &str, list: &str) -> Result<Vec<String>, FlagError> {
    let mut bits = 0;
    for word in list.split(',').filter(|word| !word.is_empty()) {
        let Some((_, owner, bit)) = NAMES.iter().find(|(name, _, _)| *name == word) else {
            return Err(FlagError::Invalid(word.to_owned()));
        };
        if owner.is_some_and(|owner| owner != scheduler) {
            return Err(FlagError::Incompatible(word.to_owned()));
        }
        bits |= 1 << bit;
    }
    Ok(names_of(scheduler, bits).into_iter().map(str::to_owned).collect())
}

/// The flags as they are printed: by the names of the scheduler, in the order of their bits.
pub(super) fn text(scheduler: &str, flags: &[String]) -> String {
    let bit_of =
        |flag: &String| NAMES.iter().find(|(name, _, _)| name == flag).map_or(0, |(_, _, bit)| 1 << bit);
    names_of(scheduler, flags.iter().map(bit_of).fold(0, |bits, bit| bits | bit)).join(",")
}

fn names_of(scheduler: &str, bits: u8) -> Vec<&'static str> {
    let name = |bit: u8| {
        let own = NAMES.iter().find(|(_, owner, of)| *of == bit && *owner == Some(scheduler));
        let any = NAMES.iter().find(|(_, owner, of)| *of == bit && owner.is_none());
        own.or(any).map(|(name, _, _)| *name)
    };
    (0..3).filter(|bit| bits & (1 << bit) != 0).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_kept_by_the_name_of_their_scheduler() {
        assert_eq!(parse("sh", "sh-port,sh-fallback"), Ok(vec!["sh-fallback".into(), "sh-port".into()]));
        assert_eq!(parse("mh", "flag-2,flag-2,flag-3"), Ok(vec!["mh-port".into(), "flag-3".into()]));
        assert_eq!(parse("rr", "flag-1"), Ok(vec!["flag-1".into()]));
        assert_eq!(parse("rr", ""), Ok(vec![]));
        assert_eq!(text("sh", &["flag-2".into(), "flag-1".into()]), "sh-fallback,sh-port");
        assert_eq!(text("rr", &["sh-port".into()]), "flag-2");
    }

    #[test]
    fn a_flag_of_another_scheduler_is_incompatible_and_an_unknown_one_invalid() {
        assert_eq!(parse("mh", "mh-port,sh-port"), Err(FlagError::Incompatible("sh-port".into())));
        assert_eq!(parse("rr", "nosuch"), Err(FlagError::Invalid("nosuch".into())));
    }
}
