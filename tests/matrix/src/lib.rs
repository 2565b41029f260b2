//! The matrix of requirements: which code keeps which rule of the RFCs, and which test shows it.
//!
//! It stands in `tests/requirements.toml`, written by hand. [`Matrix::load`] reads it, [`Sources::load`] reads the
//! workspace's Rust files, and [`problems`] holds one against the other: what is cited must be there, and what cites a
//! rule must be right. [`print()`] shows the matrix to people; `cargo run -p matrix` does just that.

mod check;
mod file;
mod source;
mod table;

pub use check::{Problem, problems};
pub use file::{HostileInput, Level, Matrix, Rule, Status};
pub use source::{Function, Source, Sources};
pub use table::print;

use std::path::{Path, PathBuf};

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where the matrix stands, from [`root`].
pub const FILE: &str = "tests/requirements.toml";
