//! `pointsman-bench`, the tool. Read [`cli`] for what it can be asked, [`device`] for what it measures and how.
//!
//! Every command fills one [`report::Report`], which is printed, and written as JSON, Markdown and SVG where that is asked
//! for. What decides about a figure is pure and stands apart from what takes it: [`search`] asks any [`search::Device`],
//! [`offer::Pacer`] is told the time, [`compare`] sees two reports.

pub mod beside;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod crew;
pub mod device;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod gate;
pub mod load;
pub mod machine;
pub mod offer;
pub mod order;
pub mod ports;
pub mod prepare;
pub mod progress;
pub mod report;
pub mod search;
pub mod sizes;
pub mod station;
pub mod svg;
pub mod table;
pub mod track;
pub mod wire;
