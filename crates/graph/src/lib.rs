//! Networks as graphs.
