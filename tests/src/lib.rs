//! The machine harness and the end-to-end scenarios.
