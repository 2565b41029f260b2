//! Two daemons in one process, joined by a wire of channels in place of the dataplane.
