//! Ids, resources and stored formats. Pure: no I/O, no clock, no chance.

pub mod store;
