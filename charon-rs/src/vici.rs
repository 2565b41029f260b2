//! The VICI protocol of the control socket (strongSwan's "versatile IKE control interface").

