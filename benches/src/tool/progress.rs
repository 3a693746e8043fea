//! A line on the terminal that says how far it is; nothing where nobody looks.

use std::io::{IsTerminal as _, Write as _, stderr};

/// See the module. The line vanishes with it.
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Shown if standard error is a terminal.
    pub fn new() -> Self {
        Self { shown: stderr().is_terminal() }
    }

    /// Replaces the line.
    pub fn say(&self, text: &str) {
        if self.shown {
            // A terminal that is gone is no reason to end a measurement.
            let _ = write!(stderr(), "\r\x1b[K{text}");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.say("");
    }
}
