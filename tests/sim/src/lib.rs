//! Engines against each other in virtual time.
