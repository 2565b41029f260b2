//! Tunnel interfaces: plans and the netlink that applies them.
