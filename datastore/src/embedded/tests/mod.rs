//! Tests of the store over a simulated disk: power cuts, kills, truncation, flipped bits.

mod damaged;
mod powercut;
mod sim;
