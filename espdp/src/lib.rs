//! The ESP dataplane: workers, ports and kernel plumbing.
