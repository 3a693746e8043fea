//! Splits a command line into options, leftover arguments and mistakes, the way ipvsadm's option parser does:
//! short options may be joined (`-Ln`), a value may follow joined or apart (`-p50`, `-p=50`, `-p 50`,
//! `--persistent=50`), long names are never abbreviated, and arguments may stand between options.
//!
//! Reading is lazy, one option at a time, because the order in which mistakes are met is visible: the first is
//! the one that is reported.

/// Whether an option has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Never.
    Nothing,
    /// Always.
    Value,
    /// When the next argument does not start with `-`.
    Optional,
}

/// One option that may be given.
#[derive(Debug)]
pub(super) struct Spec<T> {
    /// Without the two dashes.
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    pub(super) takes: Takes,
    pub(super) id: T,
}

/// One option that was given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Given<T> {
    pub(super) id: T,
    pub(super) value: Option<String>,
    /// The argument it stood in (`-Ln` for both options of it).
    pub(super) typed: String,
}

/// An argument that cannot be read as options.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// The argument, as typed.
    pub(super) typed: String,
    pub(super) what: &'static str,
}

/// The options of one command line, in order.
pub(super) struct Options<'a, T: 'static> {
    specs: &'static [Spec<T>],
    args: &'a [String],
    next: usize,
    /// What is left of a group of short options, and the argument it stands in.
    group: Option<(&'a str, &'a str)>,
    only_arguments: bool,
    leftover: Vec<String>,
}

impl<'a, T: Copy> Options<'a, T> {
    /// Reads `args`, which do not include the program's name.
    pub(super) fn new(specs: &'static [Spec<T>], args: &'a [String]) -> Self {
        Self { specs, args, next: 0, group: None, only_arguments: false, leftover: Vec::new() }
    }

    /// The arguments met so far that are neither options nor values of options.
    pub(super) fn into_leftover(self) -> Vec<String> {
        self.leftover
    }

    /// The next option, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Given<T>>, Mistake> {
        loop {
            if let Some((rest, typed)) = self.group.take() {
                return self.short(rest, typed).map(Some);
            }
            let Some(arg) = self.args.get(self.next) else {
                return Ok(None);
            };
            self.next += 1;
            if self.only_arguments || !arg.starts_with('-') || arg == "-" {
                self.leftover.push(arg.clone());
            } else if arg == "--" {
                self.only_arguments = true;
            } else if let Some(long) = arg.strip_prefix("--") {
                return self.long(long, arg).map(Some);
            } else {
                self.group = Some((&arg[1..], arg));
            }
        }
    }

    fn long(&mut self, text: &str, typed: &str) -> Result<Given<T>, Mistake> {
        let (name, joined) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let mistake = |what| Mistake { typed: typed.to_owned(), what };
        let spec =
            self.specs.iter().find(|spec| spec.long == name).ok_or_else(|| mistake("unknown option"))?;
        if spec.takes == Takes::Nothing && joined.is_some() {
            return Err(mistake("option does not take an argument"));
        }
        let value = match joined {
            Some(value) => Some(value.to_owned()),
            None => self.value_apart(spec.takes, typed)?,
        };
        Ok(Given { id: spec.id, value, typed: typed.to_owned() })
    }

    fn short(&mut self, rest: &'a str, typed: &'a str) -> Result<Given<T>, Mistake> {
        let mut letters = rest.chars();
        let letter = letters.next();
        let rest = letters.as_str();
        let spec = self.specs.iter().find(|spec| spec.short.is_some() && spec.short == letter);
        let spec = spec.ok_or_else(|| Mistake { typed: typed.to_owned(), what: "unknown option" })?;
        let value = if spec.takes == Takes::Nothing {
            self.group = (!rest.is_empty()).then_some((rest, typed));
            None
        } else if rest.is_empty() {
            self.value_apart(spec.takes, typed)?
        } else {
            Some(rest.strip_prefix('=').unwrap_or(rest).to_owned())
        };
        Ok(Given { id: spec.id, value, typed: typed.to_owned() })
    }

    /// The value of an option as the argument after it.
    fn value_apart(&mut self, takes: Takes, typed: &str) -> Result<Option<String>, Mistake> {
        let following = self.args.get(self.next);
        match (takes, following) {
            (Takes::Nothing, _) | (Takes::Optional, None) => Ok(None),
            (Takes::Optional, Some(value)) if value.starts_with('-') => Ok(None),
            (_, Some(value)) => {
                self.next += 1;
                Ok(Some(value.clone()))
            }
            (Takes::Value, None) => Err(Mistake { typed: typed.to_owned(), what: "missing argument" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SPECS: [Spec<char>; 4] = [
        Spec { long: "list", short: Some('L'), takes: Takes::Nothing, id: 'L' },
        Spec { long: "numeric", short: Some('n'), takes: Takes::Nothing, id: 'n' },
        Spec { long: "weight", short: Some('w'), takes: Takes::Value, id: 'w' },
        Spec { long: "persistent", short: Some('p'), takes: Takes::Optional, id: 'p' },
    ];

    /// What is read, as text: `id=value` for options, `arg:` for leftovers, `!what` for the mistake that ended it.
    fn read(line: &str) -> String {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut options = Options::new(&SPECS, &args);
        let mut text = Vec::new();
        loop {
            match options.next() {
                Ok(Some(Given { id, value: Some(value), .. })) => text.push(format!("{id}={value}")),
                Ok(Some(Given { id, value: None, .. })) => text.push(id.to_string()),
                Ok(None) => break,
                Err(Mistake { typed, what }) => {
                    text.push(format!("!{typed}: {what}"));
                    break;
                }
            }
        }
        text.extend(options.into_leftover().iter().map(|arg| format!("arg:{arg}")));
        text.join(" ")
    }

    #[test]
    fn options_are_read_in_every_form_the_original_takes() {
        let table = [
            ("-Ln", "L n"),
            ("-L -n", "L n"),
            ("--list --numeric", "L n"),
            ("-w 5", "w=5"),
            ("-w5", "w=5"),
            ("-w=5", "w=5"),
            ("-nw5", "n w=5"),
            ("-nw 5", "n w=5"),
            ("-w -1", "w=-1"),
            ("--weight 5", "w=5"),
            ("--weight=5", "w=5"),
            ("--weight=", "w="),
            ("-p", "p"),
            ("-p 50", "p=50"),
            ("-p50", "p=50"),
            ("-p -n", "p n"),
            ("--persistent", "p"),
            ("--persistent 50", "p=50"),
            ("--persistent=50", "p=50"),
            ("one -L two", "L arg:one arg:two"),
            ("-L -- -n", "L arg:-n"),
            ("-", "arg:-"),
            ("", ""),
        ];
        for (line, expected) in table {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn mistakes_name_the_argument_as_typed() {
        let table = [
            ("-Q", "!-Q: unknown option"),
            ("-LQ", "L !-LQ: unknown option"),
            ("--nosuch", "!--nosuch: unknown option"),
            ("--num", "!--num: unknown option"),
            ("-L -w", "L !-w: missing argument"),
            ("--weight", "!--weight: missing argument"),
            ("--numeric=5", "!--numeric=5: option does not take an argument"),
            ("-é", "!-é: unknown option"),
        ];
        for (line, expected) in table {
            assert_eq!(read(line), expected, "{line}");
        }
    }
}
