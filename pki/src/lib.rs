//! Certificates, keys and names.
