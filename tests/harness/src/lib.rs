//! Namespaces, daemons and captures for the tests.
