//! Attacks that see decisions only.
