//! A sans-IO IKEv2 engine.
