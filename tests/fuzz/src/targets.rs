//! What is tested, and what must hold there.

pub(crate) mod certificates;
pub(crate) mod engine;
pub(crate) mod fragments;
pub(crate) mod proposals;
pub(crate) mod selectors;
pub(crate) mod vici;
