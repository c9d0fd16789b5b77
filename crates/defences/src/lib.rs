//! Defences: one file each, in folders by stage.
//!
//! | Folder | Stage |
//! |---|---|
//! | [`training`] | before the model is shipped: the weights change, the graph stays |
//!
//! Every defence names the adaptive attack it was tested with; without one it is a preprocessing step, not a result.

pub mod training;
