//! Pure ESP: SAD, policies, replay windows and the batch pipeline.
