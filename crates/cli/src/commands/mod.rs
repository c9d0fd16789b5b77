//! One file a command.

pub(crate) mod attack;
pub(crate) mod attacks;
pub(crate) mod audit;
pub(crate) mod compare;
pub(crate) mod data;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod harden;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod phantom;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod train;
pub(crate) mod transfer;
pub(crate) mod view;
